/* api-server/show.c - one task: shown, cancelled, run again. */
#include <stdlib.h>
#include <string.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "api-server/auth.h"
#include "api-server/counters.h"
#include "api-server/handlers.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/scope.h"
#include "common/str.h"

struct one {
	struct api *a;
	struct request *q;
	char id[TASK_ID];
};

static struct one *one_new(struct api *a, struct request *q, const char *id)
{
	struct one *o = mem_zalloc(sizeof(*o));

	o->a = a;
	o->q = q;
	str_copy(o->id, sizeof(o->id), id);
	return o;
}

static void answer_not_found(struct one *o)
{
	scoped_free char *text = mem_printf("there is no task %s", o->id);

	answer_error(o->q, 404, "ERR_NOT_FOUND", text, NULL);
}

/* false: it was answered. */
static bool have(struct one *o, const struct task *t, const struct err *e)
{
	if (e)
		answer_unavailable(o->q);
	else if (!t)
		answer_not_found(o);
	return t && !e;
}

static void on_show(const struct task *t, const struct err *e, void *arg)
{
	scoped_free struct one *o = arg;
	struct json *j;

	if (!have(o, t, e))
		return;
	j = task_to_json(t, true);
	reply_header(o->q, "Cache-Control", "no-store");
	answer_json(o->q, 200, &j);
}

/* t->registry is shortened when it is long; the request has the host itself. */
static const char *host_of(const struct task *t)
{
	const char *host = json_value_str(json_get(json_get(t->request, "source"), "host"));

	return host ? host : t->registry ? t->registry : "";
}

static void answer_phase(struct one *o, int status, const char *phase)
{
	struct json *j = json_new_object();

	json_set_str(j, "id", o->id);
	json_set_str(j, "phase", phase);
	answer_json(o->q, status, &j);
}

static void on_cancelled(enum cancel_outcome outcome, const struct err *e, void *arg)
{
	scoped_free struct one *o = arg;

	if (e) {
		answer_unavailable(o->q);
		return;
	}
	if (outcome == CANCEL_DONE || outcome == CANCEL_FLAGGED)
		log_info("task cancelled", F_STR("task", o->id), F_STR("peer", request_peer(o->q)),
			 F_MODULE("api"), NULL);
	switch (outcome) {
	case CANCEL_DONE:
		answer_phase(o, 200, "cancelled");
		break;
	case CANCEL_FLAGGED:
		answer_phase(o, 202, "cancelling");
		break;
	case CANCEL_TERMINAL:
		answer_error(o->q, 409, "ERR_CONFLICT", "the task has already ended", NULL);
		break;
	case CANCEL_TOO_LATE:
		answer_error(o->q, 409, "ERR_CONFLICT",
			     "too late: the task is publishing its result", NULL);
		break;
	case CANCEL_GONE:
		answer_not_found(o);
		break;
	}
}

static void cancel_known(const struct task *t, const struct err *e, void *arg)
{
	struct one *o = arg;

	if (!have(o, t, e)) {
		free(o);
	} else if (!auth_write(o->a->settings, o->q, host_of(t))) {
		answer_unauthorized(o->q);
		free(o);
	} else {
		queue_cancel(o->a->queue, o->id, on_cancelled, o);
	}
}

static void on_retried(const struct enqueue_result *r, const struct err *e, void *arg)
{
	scoped_free struct one *o = arg;
	scoped_free char *location = NULL;

	if (e && e->code != ERR_LIMIT) {
		answer_unavailable(o->q);
		return;
	}
	if (e || (r->outcome != ENQUEUED && r->outcome != ENQUEUE_JOINED)) {
		reply_header(o->q, "Retry-After", "5");
		answer_error(o->q, 429, "ERR_QUEUE_FULL", "queue is full", NULL);
		return;
	}
	counters_add(o->a, r->outcome == ENQUEUED ? COUNT_ENQUEUED : COUNT_DEDUPLICATED, "retry");
	log_info("task is run again", F_STR("parent", o->id), F_STR("task", r->id), F_MODULE("api"),
		 NULL);
	location = mem_printf("/api/v1/conversions/%s", r->id);
	reply_header(o->q, "Location", location);
	reply_header(o->q, "X-Accel-Task-Id", r->id);
	answer_ok(o->q);
}

/* The request of the old task, as it is stored. */
static int old_request(struct task_request *r, const struct task *t, struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(64 << 10);

	if (!t->request)
		return err_set(e, ERR_NOTFOUND, "its request is no longer stored");
	if (json_write(t->request, JSON_SORTED, &b, e) < 0)
		return -1;
	return task_request_parse(r, b.data, b.len, e);
}

static void enqueue_again(struct one *o, struct task_request *r)
{
	const struct call *c = request_user(o->q);
	char id[TASK_ID];
	struct enqueue again = {.id = id, .request = r, .band = BAND_REQUEST, .parent = o->id};

	task_new_id(id);
	r->trigger = TRIGGER_RETRY;
	free(r->trace);
	r->trace = mem_strdup(c->request_id);
	queue_enqueue(o->a->queue, &again, on_retried, o);
	task_request_fini(r);
}

static void retry_known(const struct task *t, const struct err *e, void *arg)
{
	struct one *o = arg;
	struct task_request r = {0};
	struct err why = {0};

	if (!have(o, t, e)) {
		free(o);
		return;
	}
	if (!auth_write(o->a->settings, o->q, host_of(t)))
		answer_unauthorized(o->q);
	else if (t->state != TASK_DONE && t->state != TASK_FAILED && t->state != TASK_CANCELLED)
		answer_error(o->q, 409, "ERR_CONFLICT", "the task has not ended yet", NULL);
	else if (old_request(&r, t, &why) < 0)
		answer_error(o->q, 409, "ERR_CONFLICT", why.text, NULL);
	else {
		enqueue_again(o, &r);
		return;
	}
	free(o);
}

static void look_up(struct api *a, struct request *q, const char *id,
		    void (*on)(const struct task *t, const struct err *e, void *arg))
{
	queue_get(a->queue, id, on, one_new(a, q, id));
}

void handle_show(struct api *a, struct request *q, const char *id)
{
	look_up(a, q, id, on_show);
}

void handle_cancel(struct api *a, struct request *q, const char *id)
{
	look_up(a, q, id, cancel_known);
}

void handle_retry(struct api *a, struct request *q, const char *id)
{
	look_up(a, q, id, retry_known);
}
