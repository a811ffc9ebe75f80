/* common/task.c - see task.h. */
#include "common/task.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/rules.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target_json.h"
#include "common/target_tag.h"

enum { REQUEST_BYTES = 8 << 10, REQUEST_TARGETS = 32, VERSION = 1 };

/* ---- ids and states */

/* RFC 9562, "UUID Version 7": 48 bits of ms, then random; so ids sort by time. */
void task_new_id(char id[TASK_ID])
{
	uint64_t ms = (uint64_t)clock_wall_ms();
	uint8_t b[16];
	char hex[33];

	digest_random(b, sizeof(b));
	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(ms >> (40 - 8 * i));
	b[6] = (uint8_t)(0x70 | (b[6] & 0x0f));
	b[8] = (uint8_t)(0x80 | (b[8] & 0x3f));
	str_hex(hex, b, sizeof(b));
	for (int from = 0, to = 0; from < 32; from++) {
		if (from == 8 || from == 12 || from == 16 || from == 20)
			id[to++] = '-';
		id[to++] = hex[from];
	}
	id[TASK_ID - 1] = 0;
}

/* Any UUID in lower case: an id goes into keys, so nothing else may. */
bool task_id_valid(const char *id)
{
	size_t i;

	for (i = 0; i < TASK_ID - 1; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (id[i] != '-')
				return false;
		} else if (!((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f'))) {
			return false;
		}
	}
	return id[i] == 0;
}

static const char *const state_names[] = {"ready", "running", "delayed",
					  "done",  "failed",  "cancelled"};
static const char *const trigger_names[] = {"event", "request", "backfill", "retry", "moved"};

static int word(const char *const *words, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(words[i], text))
			return (int)i;
	return -1;
}
#define WORD(words, text) word((words), sizeof(words) / sizeof((words)[0]), (text))

const char *task_state_name(enum task_state s)
{
	return state_names[s];
}

int task_state_parse(const char *name, enum task_state *s)
{
	int i = WORD(state_names, name);

	if (i < 0)
		return -1;
	*s = (enum task_state)i;
	return 0;
}

/* ---- the request */

void task_request_fini(struct task_request *r)
{
	for (size_t i = 0; i < r->n_targets; i++)
		target_fini(&r->targets[i]);
	free(r->targets);
	free(r->given);
	free(r->rule);
	free(r->platforms);
	free(r->trace);
	*r = (struct task_request){0};
}

static char *text_or_empty(const char *s)
{
	return mem_strdup(s ? s : "");
}

int task_request_from_rule(struct task_request *r, const struct imageref *source, const char *given,
			   const struct rule *rule, const char *platforms,
			   enum task_trigger trigger, const char *trace, struct err *e)
{
	struct imageref to;

	if (rule->n_targets == 0 || rule->n_targets > REQUEST_TARGETS)
		return err_set(e, ERR_INVALID, "rule %s has %zu targets, 1 to %d are possible",
			       rule->name ? rule->name : "", rule->n_targets, REQUEST_TARGETS);
	for (size_t i = 0; i < rule->n_targets; i++) /* a tag that gets too long is known now */
		if (target_ref(&rule->targets[i], source, &to, e) < 0)
			return -1;
	*r = (struct task_request){.source = *source, .trigger = trigger};
	r->given = text_or_empty(given);
	r->rule = text_or_empty(rule->name);
	r->platforms = text_or_empty(platforms);
	r->trace = text_or_empty(trace);
	r->n_targets = rule->n_targets;
	r->targets = mem_array(r->n_targets, sizeof(*r->targets));
	for (size_t i = 0; i < r->n_targets; i++)
		target_copy(&r->targets[i], &rule->targets[i]);
	r->pinned = trigger == TRIGGER_REQUEST && source->tag[0] && digest_is_set(&source->digest);
	return 0;
}

static int add_text(struct buf *b, const char *key, const char *value, struct err *e)
{
	if (buf_add_str(b, key, e) < 0)
		return -1;
	return json_quote(b, value ? value : "", value ? strlen(value) : 0, e);
}

/* By hand, keys sorted and no spaces: each webhook has one, and a tree for it costs ten times as
 * much. */
static int write_request(const struct task_request *r, struct buf *b, struct err *e)
{
	char text[DIGEST_TEXT];
	int rc = add_text(b, "{\"given\":", r->given, e);

	rc |= buf_addf(b, e, ",\"moves\":%u,\"pinned\":%s", r->moves, r->pinned ? "true" : "false");
	rc |= add_text(b, ",\"platforms\":", r->platforms, e);
	rc |= add_text(b, ",\"rule\":", r->rule, e);
	rc |= add_text(b, ",\"source\":{\"digest\":", digest_text(&r->source.digest, text), e);
	rc |= add_text(b, ",\"host\":", r->source.host, e);
	rc |= add_text(b, ",\"repository\":", r->source.repository, e);
	rc |= add_text(b, ",\"tag\":", r->source.tag, e);
	rc |= buf_add_str(b, "},\"targets\":[", e);
	for (size_t i = 0; i < r->n_targets; i++) {
		rc |= buf_add_str(b, i ? "," : "", e);
		rc |= target_write(&r->targets[i], b, e);
	}
	rc |= add_text(b, "],\"trace\":", r->trace, e);
	rc |= add_text(b, ",\"trigger\":", trigger_names[r->trigger], e);
	rc |= buf_addf(b, e, ",\"v\":%d}", VERSION);
	return rc;
}

int task_request_write(const struct task_request *r, struct buf *to, struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(REQUEST_BYTES);

	buf_reserve(&b, 700, NULL);
	if (write_request(r, &b, e) < 0)
		return err_wrap(e, "the task's request");
	return buf_add(to, b.data, b.len, e);
}

/* The parts are put together and parsed as a reference, so that what is in the record is what a
 * client could have sent. */
static int parse_source(struct imageref *r, const struct json *j, struct err *e)
{
	const char *host, *repository, *tag, *digest;
	struct imageref got;
	char text[2 * IMAGEREF_TEXT];

	if (json_str(j, "host", "source", &host, e) < 0 ||
	    json_str(j, "repository", "source", &repository, e) < 0 ||
	    json_str(j, "tag", "source", &tag, e) < 0 ||
	    json_str(j, "digest", "source", &digest, e) < 0)
		return -1;
	if (strlen(host) + strlen(repository) + strlen(tag) + strlen(digest) + 4 > IMAGEREF_TEXT)
		return err_set(e, ERR_INVALID, "source: longer than any reference");
	stpcpy(stpcpy(stpcpy(text, host), "/"), repository);
	if (tag[0])
		strcat(strcat(text, ":"), tag);
	if (digest[0])
		strcat(strcat(text, "@"), digest);
	if (imageref_parse(&got, text, e) < 0)
		return err_wrap(e, "source");
	if (!str_eq(got.host, host) || !str_eq(got.repository, repository) || !str_eq(got.tag, tag))
		return err_set(e, ERR_INVALID, "source: its parts do not make a reference");
	*r = got;
	return 0;
}

static int parse_targets(struct task_request *r, const struct json *list, struct err *e)
{
	size_t n = json_len(list);

	if (n > REQUEST_TARGETS)
		return err_set(e, ERR_INVALID, "targets: %zu, %d are possible", n, REQUEST_TARGETS);
	r->targets = mem_array(n + 1, sizeof(*r->targets)); /* none: no rule fits */
	for (size_t i = 0; i < n; i++, r->n_targets++)
		if (target_from_json(&r->targets[i], json_at(list, i), "targets", e) < 0)
			return -1;
	return 0;
}

static int parse_text(char **to, const struct json *j, const char *key, struct err *e)
{
	const char *v = "";

	if (json_opt_str(j, key, "", &v, e) < 0)
		return -1;
	*to = mem_strdup(v);
	return 0;
}

static int fill_request(struct task_request *r, const struct json *j, struct err *e)
{
	struct json *source, *targets;
	const char *trigger;
	int64_t version, moves = 0;
	int i;

	if (json_want(j, JSON_OBJECT, "", e) < 0 || json_int(j, "v", "", &version, e) < 0)
		return -1;
	if (version != VERSION)
		return err_set(e, ERR_UNSUPPORTED, "v is %lld, this program knows %d",
			       (long long)version, VERSION);
	if (json_obj(j, "source", "", &source, e) < 0 ||
	    json_array(j, "targets", "", &targets, e) < 0 ||
	    json_str(j, "trigger", "", &trigger, e) < 0 ||
	    parse_source(&r->source, source, e) < 0 || parse_targets(r, targets, e) < 0 ||
	    parse_text(&r->given, j, "given", e) < 0 || parse_text(&r->rule, j, "rule", e) < 0 ||
	    parse_text(&r->platforms, j, "platforms", e) < 0 ||
	    parse_text(&r->trace, j, "trace", e) < 0 ||
	    json_opt_bool(j, "pinned", "", &r->pinned, e) < 0 ||
	    json_opt_int(j, "moves", "", &moves, e) < 0)
		return -1;
	if (moves < 0 || moves > 1000)
		return err_set(e, ERR_INVALID, "moves: %lld is out of range", (long long)moves);
	r->moves = (uint32_t)moves;
	i = WORD(trigger_names, trigger);
	if (i < 0)
		return err_set(e, ERR_INVALID, "trigger: '%.40s' is none", trigger);
	r->trigger = (enum task_trigger)i;
	return 0;
}

int task_request_parse(struct task_request *r, const char *p, size_t n, struct err *e)
{
	const struct json_limits limits = {.bytes = REQUEST_BYTES, .depth = 8};
	scoped(json_freep) struct json *j = NULL;
	struct task_request got = {0};

	if (json_parse(&j, p, n, &limits, e) < 0 || fill_request(&got, j, e) < 0) {
		task_request_fini(&got);
		return err_wrap(e, "the task's request");
	}
	*r = got;
	return 0;
}

/* ---- the task */

void task_fini(struct task *t)
{
	free(t->source);
	free(t->tenant);
	free(t->registry);
	free(t->reason);
	free(t->reason_code);
	free(t->worker);
	free(t->progress);
	free(t->parent);
	json_freep(&t->request);
	json_freep(&t->detail);
	*t = (struct task){0};
}

const char *task_phase(const struct task *t)
{
	switch (t->state) {
	case TASK_READY:
		return "queued";
	case TASK_RUNNING:
		return t->cancelling ? "cancelling" : "running";
	case TASK_DELAYED:
		return t->waiting ? "waiting" : "retrying";
	case TASK_DONE:
		return t->skipped ? "skipped" : "done";
	case TASK_FAILED:
		return t->dead ? "dead" : "failed";
	case TASK_CANCELLED:
		break;
	}
	return "cancelled";
}

const char *task_status(const struct task *t)
{
	return t->state == TASK_DONE				       ? "COMPLETED"
	       : t->state == TASK_FAILED || t->state == TASK_CANCELLED ? "FAILED"
								       : "PROCESSING";
}

static void set_time(struct json *j, const char *key, int64_t ms)
{
	char text[CLOCK_TEXT] = "0001-01-01T00:00:00Z"; /* as upstream: Go's zero time */

	if (ms > 0)
		clock_rfc3339(text, ms * 1000000, -1);
	json_set_str(j, key, text);
}

static void set_optional(struct json *j, const char *key, const char *v)
{
	if (v && v[0])
		json_set_str(j, key, v);
}

/* What the request wants, for a task that has no result yet: driver and reference of each target.
 */
static struct json *wanted_targets(const struct json *request)
{
	struct json *list = json_new_array(), *targets = json_get(request, "targets");
	struct imageref source, to;

	if (!request || parse_source(&source, json_get(request, "source"), NULL) < 0)
		return list;
	for (size_t i = 0; i < json_len(targets); i++) {
		struct json *one;
		struct target t;
		char text[IMAGEREF_TEXT];

		if (target_from_json(&t, json_at(targets, i), "", NULL) < 0)
			continue;
		if (target_ref(&t, &source, &to, NULL) == 0) {
			one = json_new_object();
			json_set_str(one, "driver", driver_name(t.driver));
			json_set_str(one, "reference", imageref_text(&to, text));
			json_append(list, one);
		}
		target_fini(&t);
	}
	return list;
}

static void set_clone(struct json *j, const char *key, const struct json *v)
{
	if (v)
		json_set(j, key, json_clone(v));
}

static void add_detail(struct json *j, const struct task *t)
{
	const struct json *result = json_get(t->detail, "result"),
			  *attempts = json_get(t->detail, "attempts");

	json_set(j, "attempts", attempts ? json_clone(attempts) : json_new_array());
	for (struct json_iter i = json_first(result); i.key; json_next(&i))
		if (!json_has(j, i.key) || str_eq(i.key, "targets"))
			set_clone(j, i.key, i.value);
	set_clone(j, "request", t->request);
}

struct json *task_to_json(const struct task *t, bool full)
{
	struct json *j = json_new_object();
	const char *v = NULL;

	json_set_str(j, "id", t->id);
	set_time(j, "created", t->created_ms);
	set_time(j, "finished", t->finished_ms);
	json_set_str(j, "source", t->source ? t->source : "");
	json_set_int(j, "source_size", (int64_t)t->source_size);
	json_set_int(j, "target_size", (int64_t)t->target_size);
	json_set_str(j, "status", task_status(t));
	json_set_str(j, "reason", t->reason ? t->reason : "");
	/* ours */
	json_set_str(j, "phase", task_phase(t));
	set_optional(j, "reason_code", t->reason_code);
	if (t->started_ms)
		set_time(j, "started", t->started_ms);
	json_set(j, "targets", wanted_targets(t->request));
	json_set_int(j, "attempt", t->attempts);
	json_set_int(j, "max_attempts", t->max_attempts);
	json_set_int(j, "crashes", t->crashes);
	json_set_int(j, "joins", t->joins);
	json_set_int(j, "epoch", (int64_t)t->epoch);
	set_optional(j, "tenant", t->tenant);
	set_optional(j, "registry", t->registry);
	set_optional(j, "worker", t->worker);
	set_optional(j, "progress", t->progress);
	set_optional(j, "parent", t->parent);
	if (json_opt_str(t->request, "rule", "", &v, NULL) == 0)
		set_optional(j, "rule", v);
	v = NULL;
	if (json_opt_str(t->request, "trigger", "", &v, NULL) == 0)
		set_optional(j, "trigger", v);
	if (full)
		add_detail(j, t);
	return j;
}
