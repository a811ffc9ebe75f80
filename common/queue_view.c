/* common/queue_view.c - see queue_view.h. */
#include "common/queue_view.h"

#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/reply.h"
#include "common/str.h"
#include "common/task.h"

/* The order of lib.lua's view. */
enum {
	V_ST,
	V_TOK,
	V_WK,
	V_ATT,
	V_MAX,
	V_CRASH,
	V_ENQ,
	V_START,
	V_FIN,
	V_CXL,
	V_PROG,
	V_JOINS,
	V_PARENT,
	V_CODE,
	V_SKIP,
	V_WAIT,
	V_SS,
	V_TS,
	V_DEAD,
	V_B,
	V_EXP,
	V_REQUEST,
	V_REASON,
	V_ID,
};

static void fill_source(struct task *t)
{
	const struct json *source = json_get(t->request, "source");
	const char *given = NULL, *host = "", *repository = "", *tag = "", *slash;

	json_opt_str(t->request, "given", "", &given, NULL);
	json_opt_str(source, "host", "", &host, NULL);
	json_opt_str(source, "repository", "", &repository, NULL);
	json_opt_str(source, "tag", "", &tag, NULL);
	if (given && given[0])
		t->source = mem_strdup(given);
	else
		t->source = mem_printf("%s/%s%s%s", host, repository, tag[0] ? ":" : "", tag);
	str_clean(t->source);
	slash = strchr(repository, '/');
	t->tenant = slash ? mem_strndup(repository, (size_t)(slash - repository))
			  : mem_strdup(repository);
	t->registry = mem_strdup(host);
}

static char *dup_at(const struct reply *v, size_t i)
{
	const char *s = reply_text(v, i);

	return s && s[0] ? mem_strdup(s) : NULL;
}

int queue_view_read(struct task *t, const struct reply *v, struct err *e)
{
	const struct reply *request = reply_at(v, V_REQUEST);

	*t = (struct task){0};
	if (v->kind != REPLY_ARRAY || v->n != V_ID + 1 ||
	    task_state_parse(reply_text(v, V_ST), &t->state) < 0)
		return err_set(e, ERR_BUG, "a task's record in Redis cannot be read");
	str_copy(t->id, sizeof(t->id), reply_text(v, V_ID) ? reply_text(v, V_ID) : "");
	t->epoch = (uint64_t)reply_int(v, V_TOK);
	t->attempts = (uint32_t)reply_int(v, V_ATT);
	t->max_attempts = (uint32_t)reply_int(v, V_MAX);
	t->crashes = (uint32_t)reply_int(v, V_CRASH);
	t->joins = (uint32_t)reply_int(v, V_JOINS);
	t->created_ms = reply_int(v, V_ENQ);
	t->started_ms = reply_int(v, V_START);
	t->finished_ms = reply_int(v, V_FIN);
	t->source_size = (uint64_t)reply_int(v, V_SS);
	t->target_size = (uint64_t)reply_int(v, V_TS);
	t->cancelling = reply_text(v, V_CXL) != NULL;
	t->skipped = reply_text(v, V_SKIP) != NULL;
	t->waiting = reply_text(v, V_WAIT) != NULL;
	t->dead = reply_text(v, V_DEAD) != NULL;
	t->worker = t->state == TASK_READY || t->state == TASK_DELAYED ? NULL : dup_at(v, V_WK);
	t->progress = dup_at(v, V_PROG);
	t->parent = dup_at(v, V_PARENT);
	t->reason_code = dup_at(v, V_CODE);
	t->reason = dup_at(v, V_REASON);
	if (request && request->kind == REPLY_STR)
		json_parse(&t->request, request->str, request->n, NULL, NULL);
	fill_source(t);
	return 0;
}

/* {"attempts":[...],"result":{...}} of what the scripts keep as lines and text. */
void queue_view_detail(struct task *t, const struct reply *r)
{
	const char *attempts = reply_text(r, 1), *result = reply_text(r, 2);
	struct json *list = json_new_array(), *one = NULL;

	t->detail = json_new_object();
	while (attempts && *attempts) {
		size_t n = strcspn(attempts, "\n");

		if (json_parse(&one, attempts, n, NULL, NULL) == 0 && one)
			json_append(list, one);
		attempts += n + (attempts[n] == '\n');
	}
	json_set(t->detail, "attempts", list);
	if (result && json_parse(&one, result, strlen(result), NULL, NULL) == 0 && one)
		json_set(t->detail, "result", one);
}
