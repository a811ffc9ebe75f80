/* api-server/create.c - POST /api/v1/conversions: a webhook or a request becomes tasks.
 *
 * The body is checked as a whole and every host authenticated before the first image is enqueued;
 * the answer is sent when Redis has all of them.  What is ignored on purpose is 200 with a line in
 * the log, since Harbor sends everything else again. */
#include <stdlib.h>
#include <string.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "api-server/auth.h"
#include "api-server/counters.h"
#include "api-server/handlers.h"
#include "api-server/rate.h"
#include "api-server/waiters.h"
#include "api-server/webhook.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target_tag.h"

struct creation {
	struct api *a;
	struct request *q;
	struct webhook w;
	bool sync;
	size_t pending;
	char (*ids)[TASK_ID]; /* by item; "" where there is no task */
	bool full, unavailable;
};

/* One item on its way to Redis. */
struct creation_item {
	struct creation *c;
	size_t i;
	char rule[64];
};

static void creation_free(struct creation *c)
{
	webhook_fini(&c->w);
	free(c->ids);
	free(c);
}

static const char *trace_of(const struct creation *c)
{
	return ((const struct call *)request_user(c->q))->request_id;
}

/* ---- the answer, when nothing is pending any more */

static size_t collect(const struct creation *c, char (*ids)[TASK_ID], struct buf *text)
{
	size_t n = 0;

	for (size_t i = 0; i < c->w.n; i++) {
		if (!c->ids[i][0])
			continue;
		buf_addf(text, NULL, "%s%s", n ? "," : "", c->ids[i]);
		memcpy(ids[n++], c->ids[i], TASK_ID);
	}
	return n;
}

static void answer(struct creation *c)
{
	scoped(buf_fini) struct buf text = BUF_INIT(64 << 10);
	char(*ids)[TASK_ID] = mem_array(c->w.n + 1, TASK_ID);
	struct request *q = c->q;
	struct api *a = c->a;
	bool full = c->full, unavailable = c->unavailable, sync = c->sync;
	size_t n = collect(c, ids, &text);

	creation_free(c);
	if (n) {
		reply_header(q, "X-Accel-Task-Id", text.data);
		reply_header(q, "X-Accel-Durability",
			     a->settings->redis.durability == DURABILITY_FSYNC ? "fsync"
									       : "memory");
	}
	if (unavailable) {
		answer_unavailable(q);
	} else if (full) {
		reply_header(q, "Retry-After", "5");
		answer_error(q, 429, "ERR_QUEUE_FULL", "queue is full", NULL);
	} else if (sync && n) {
		waiters_add(a->waiters, q, ids, n);
	} else {
		answer_ok(q);
	}
	free(ids);
}

static void one_less(struct creation *c)
{
	if (--c->pending == 0)
		answer(c);
}

/* ---- one image */

static void count(struct creation *c, const char *result)
{
	counters_add(c->a, COUNT_RESOURCES, result);
}

static void ignored(struct creation *c, const struct webhook_item *it, const char *why,
		    const char *result)
{
	count(c, result);
	log_info("no task", F_STR("source", it->given), F_STR("why", why),
		 F_STR("request_id", trace_of(c)), F_MODULE("api"), NULL);
}

static void refused(struct creation *c, const struct webhook_item *it, const struct err *e,
		    bool full)
{
	c->full |= full;
	c->unavailable |= !full;
	count(c, full ? "full" : "error");
	log_warning("a task could not be stored", F_STR("source", it->given),
		    F_STR("error", e ? e->text : "the queue is full"),
		    F_STR("request_id", trace_of(c)), F_MODULE("api"), NULL);
}

static void on_enqueued(const struct enqueue_result *r, const struct err *e, void *arg)
{
	scoped_free struct creation_item *ci = arg;
	struct creation *c = ci->c;
	const struct webhook_item *it = &c->w.item[ci->i];
	const char *trigger = c->w.event ? "webhook" : "cli";

	if (e) {
		refused(c, it, e, e->code == ERR_LIMIT);
	} else if (r->outcome == ENQUEUE_FULL || r->outcome == ENQUEUE_GROUP_FULL) {
		refused(c, it, NULL, true);
	} else if (r->outcome == ENQUEUE_ECHO) {
		ignored(c, it, "it is our own output", "echo");
	} else {
		bool joined = r->outcome == ENQUEUE_JOINED;

		memcpy(c->ids[ci->i], r->id, TASK_ID);
		count(c, joined ? "joined" : "accepted");
		counters_add(c->a, joined ? COUNT_DEDUPLICATED : COUNT_ENQUEUED, trigger);
		log_info(joined ? "task joined" : "task enqueued", F_STR("task", r->id),
			 F_STR("source", it->given), F_STR("rule", ci->rule),
			 F_STR("trigger", trigger), F_STR("request_id", trace_of(c)),
			 F_MODULE("api"), NULL);
	}
	one_less(c);
}

static void enqueue(struct creation *c, size_t i, const struct task_request *r)
{
	const struct webhook_item *it = &c->w.item[i];
	struct creation_item *ci = mem_zalloc(sizeof(*ci));
	char id[TASK_ID];
	struct enqueue call = {
		.id = id,
		.request = r,
		.band = c->w.event ? BAND_EVENT : BAND_REQUEST,
		.fresh_ms = c->w.event ? c->a->settings->queue.fresh_ms : 0,
		.event_digest = c->w.event ? it->digest : NULL,
	};

	ci->c = c;
	ci->i = i;
	str_copy(ci->rule, sizeof(ci->rule), r->rule);
	task_new_id(id);
	c->pending++;
	queue_enqueue(c->a->queue, &call, on_enqueued, ci);
}

/* No rule fits: what a person asked for becomes a task without targets, which ends skipped. */
static void request_without_rule(struct task_request *r, const struct creation *c,
				 const struct webhook_item *it)
{
	*r = (struct task_request){.source = it->ref, .trigger = TRIGGER_REQUEST};
	r->given = mem_strdup(it->given);
	r->rule = mem_strdup("");
	r->platforms = mem_strdup("");
	r->trace = mem_strdup(trace_of(c));
}

static int make_request(struct task_request *r, struct creation *c, const struct webhook_item *it,
			const struct rule *rule, struct err *e)
{
	struct imageref source = it->ref;

	if (!rule) {
		request_without_rule(r, c, it);
		return 0;
	}
	/* The event's digest tells a tag that moved from the same event sent again. */
	if (c->w.event && it->digest && !digest_is_set(&source.digest) &&
	    digest_parse(&source.digest, it->digest, e) < 0)
		return -1;
	return task_request_from_rule(r, &source, it->given, rule,
				      rules_platforms(&c->a->settings->rules, rule),
				      c->w.event ? TRIGGER_EVENT : TRIGGER_REQUEST, trace_of(c), e);
}

static void create_one(struct creation *c, size_t i)
{
	const struct webhook_item *it = &c->w.item[i];
	const struct rules *rules = &c->a->settings->rules;
	const struct rule *rule = rules_find(rules, &it->ref);
	struct task_request r = {0};
	struct err e = {0};

	if (c->w.event && !it->ref.tag[0]) {
		ignored(c, it,
			"the event names a digest and no tag: a part of an index, or no image",
			"digest_only");
	} else if (c->w.event && rules_is_output(rules, &it->ref)) {
		ignored(c, it, "its tag is one that we make", "output");
	} else if (c->w.event && !rule) {
		ignored(c, it, "no rule fits", "no_rule");
	} else if (make_request(&r, c, it, rule, &e) < 0) {
		ignored(c, it, e.text, "invalid");
	} else {
		enqueue(c, i, &r);
		task_request_fini(&r);
	}
}

static void create_all(struct creation *c)
{
	c->pending = 1; /* callbacks may come at once */
	for (size_t i = 0; i < c->w.n; i++)
		if (!c->ids[i][0])
			create_one(c, i);
	one_less(c);
}

/* ---- echoes by request id: our manifest PUTs carry X-Request-Id: accel-<task>, which Harbor
 * passes on.  Anyone may send such an id, so it only ever suppresses work, and only for a tag that
 * this task makes. */

static bool makes(const struct task_request *r, const struct imageref *ref)
{
	struct imageref to;

	for (size_t i = 0; i < r->n_targets; i++)
		if (target_ref(&r->targets[i], &r->source, &to, NULL) == 0 &&
		    !strcmp(to.host, ref->host) && !strcmp(to.repository, ref->repository) &&
		    !strcmp(to.tag, ref->tag))
			return true;
	return false;
}

static void drop_echoes(struct creation *c, const struct task *t)
{
	scoped(buf_fini) struct buf b = BUF_INIT(64 << 10);
	struct task_request r = {0};
	size_t n = 0;

	if (json_write(t->request, JSON_SORTED, &b, NULL) < 0 ||
	    task_request_parse(&r, b.data, b.len, NULL) < 0)
		return;
	for (size_t i = 0; i < c->w.n; i++) {
		struct webhook_item *it = &c->w.item[i];

		if (makes(&r, &it->ref)) {
			ignored(c, it, "it is our own output", "echo");
			free(it->given);
			free(it->digest);
		} else {
			c->w.item[n++] = *it;
		}
	}
	c->w.n = n;
	task_request_fini(&r);
}

static void on_echo_task(const struct task *t, const struct err *e, void *arg)
{
	struct creation *c = arg;

	if (t && t->request && !e)
		drop_echoes(c, t);
	create_all(c);
}

static void look_for_echo(struct creation *c)
{
	const char *id = c->w.request_id;

	if (c->w.event && id && str_starts(id, "accel-") && task_id_valid(id + 6))
		queue_get(c->a->queue, id + 6, on_echo_task, c);
	else
		create_all(c);
}

/* ---- the request */

static void bad_payload(struct creation *c, const struct err *e)
{
	log_error("invalid webhook payload", F_ERR(e), F_STR("request_id", trace_of(c)),
		  F_MODULE("api"), NULL);
	count(c, "invalid");
	answer_error(c->q, 400, "ERR_ILLEGAL_PARAMETER", "invalid webhook payload", e->text);
}

static void bad_reference(struct creation *c, const char *given, const struct err *e)
{
	scoped_free char *msg = mem_printf("failed to parse resource url %s", given);
	scoped_free char *detail =
		mem_printf("failed to parse resource url %s: %s", given, e->text);

	log_error(msg, F_MODULE("api"), NULL);
	count(c, "invalid");
	answer_error(c->q, 400, "ERR_ILLEGAL_PARAMETER", "failed to parse resource url", detail);
}

/* A person hears at once when the rule cannot make a tag from this one. */
static bool impossible(struct creation *c)
{
	for (size_t i = 0; i < c->w.n && !c->w.event; i++) {
		const struct rule *rule = rules_find(&c->a->settings->rules, &c->w.item[i].ref);
		struct task_request r = {0};
		struct err e = {0};

		if (make_request(&r, c, &c->w.item[i], rule, &e) < 0) {
			count(c, "invalid");
			answer_error(c->q, 400, "ERR_ILLEGAL_PARAMETER", e.text, NULL);
			return true;
		}
		task_request_fini(&r);
	}
	return false;
}

/* false: it was answered. */
static bool checked(struct creation *c, const char *body, size_t n)
{
	const char *type = request_header(c->q, "Content-Type");
	struct err e = {0};
	size_t bad = 0;

	if (webhook_parse(&c->w, type, body, n, &e) < 0) {
		bad_payload(c, &e);
		return false;
	}
	if (!c->w.push) {
		scoped_free char *msg = mem_printf("unsupported payload type %s", c->w.type);

		log_warning(msg, F_MODULE("api"), NULL);
		answer_ok(c->q);
		return false;
	}
	if (webhook_references(&c->w, &bad, &e) < 0) {
		bad_reference(c, c->w.item[bad].given, &e);
		return false;
	}
	for (size_t i = 0; i < c->w.n; i++) {
		if (auth_host(c->a->settings, c->q, c->w.item[i].ref.host))
			continue;
		count(c, "unauthorized");
		answer_unauthorized(c->q);
		return false;
	}
	return !impossible(c);
}

static bool too_many(struct api *a, struct request *q)
{
	bool local = request_peer_is_loopback(q) || request_peer_is_unix(q, NULL);

	if (local || rate_take(a->rate, request_peer(q), a->settings->server.rate_per_peer))
		return false;
	reply_header(q, "Retry-After", "1");
	answer_error(q, 429, "ERR_TOO_MANY_REQUESTS", "too many requests from this address", NULL);
	return true;
}

void handle_create(struct api *a, struct request *q, const char *id)
{
	const char *sync = request_query(q, "sync"), *body;
	scoped_free char *msg = mem_printf("received webhook request from %s", request_peer(q));
	struct creation *c;
	bool wait = false;
	size_t n;

	(void)id;
	if (too_many(a, q))
		return;
	log_info(msg, F_MODULE("api"), NULL);
	if (sync)
		str_bool(sync, &wait, NULL); /* anything else is false */
	if (wait && waiters_full(a->waiters)) {
		reply_header(q, "Retry-After", "5");
		answer_error(q, 429, "ERR_TOO_MANY_WAITERS",
			     "too many requests wait for their task already", NULL);
		return;
	}
	c = mem_zalloc(sizeof(*c));
	c->a = a;
	c->q = q;
	c->sync = wait;
	body = request_body(q, &n);
	if (!checked(c, body, n)) {
		creation_free(c);
		return;
	}
	c->ids = mem_array(c->w.n + 1, TASK_ID);
	look_for_echo(c);
}
