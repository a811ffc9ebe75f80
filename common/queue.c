/* common/queue.c - see queue.h.  One section an operation: build the arguments of the script, read
 * its reply. */
#include "common/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/queue_view.h"
#include "common/redis.h"
#include "common/reply.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target_hash.h"
#include "common/target_tag.h"

enum {
	BATCH = 32, /* enqueues in one call: 1 ms of Redis at most */
	BATCH_BYTES = 64 << 10,
	LOCK_MS = 60 * 1000,
	OWN_S = 7 * 24 * 3600,
	DAY_S = 24 * 3600,
	TICK_BATCH = 100,
	FIELD = 64, /* longest field of a task's hash */
	REASON = 1024,
	RESULT_BYTES = 192 << 10,
	LIST_LOOK = 2000, /* records a filtering script looks at */
	LIST_ROUNDS = 50, /* scripts of one filtered list */
	FSCK_PAGE = 500,
	FSCK_BYTES = 256 << 10,
	PAUSE_MAX_MS = 3600 * 1000,
};

struct op;

/* Requests of this turn of the loop, which one call of the script will carry. */
struct batch {
	struct resp_args args; /* of the requests alone */
	struct op *op[BATCH];
	size_t n;
};

struct queue {
	struct redis *redis;
	const struct settings *settings;
	struct batch *batch; /* or NULL */
	struct loop_later *flush;
};

static void flush_batch(void *arg);
static void batch_cancelled(struct batch **b);

struct queue *queue_new(struct redis *r, const struct settings *s)
{
	struct queue *q = mem_zalloc(sizeof(*q));

	q->redis = r;
	q->settings = s;
	q->flush = loop_later(redis_loop(r), flush_batch, q);
	return q;
}

void queue_freep(struct queue **q)
{
	if (!*q)
		return;
	while ((*q)->batch) /* a callback may begin another */
		batch_cancelled(&(*q)->batch);
	loop_later_freep(&(*q)->flush);
	free(*q);
	*q = NULL;
}

void queue_settings(struct queue *q, const struct settings *s)
{
	q->settings = s;
}

/* ---- arguments */

static void put(struct resp_args *a, const char *s)
{
	resp_arg(a, s ? s : "", s ? strlen(s) : 0);
}

static void put_u(struct resp_args *a, uint64_t v)
{
	char text[24], *p = text + sizeof(text);

	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	resp_arg(a, p, (size_t)(text + sizeof(text) - p));
}

/* Into a field of the hash or a line of a list: bounded, and without what could lie on a terminal.
 */
static void put_clean(struct resp_args *a, const char *s, size_t max)
{
	char text[REASON + 1];

	str_copy(text, max < REASON ? max + 1 : sizeof(text), s ? s : "");
	str_clean(text);
	put(a, text);
}

/* Registries and groups are names from outside: in keys and fields a long one is a hash. */
static void put_name(struct resp_args *a, const char *name)
{
	char hex[DIGEST_TEXT];
	struct digest d;

	if (strlen(name) <= FIELD) {
		put(a, name);
		return;
	}
	digest_of(&d, DIGEST_SHA256, name, strlen(name));
	resp_arg(a, digest_hex(&d, hex), 32);
}

static void put_hash(struct resp_args *a, const char *reference)
{
	char hex[DIGEST_TEXT];
	struct digest d;

	digest_of(&d, DIGEST_SHA256, reference, strlen(reference));
	put(a, digest_hex(&d, hex));
}

/* "sha256:<hex>" -> <hex>; anything else -> "" */
static void put_digest(struct resp_args *a, const char *text)
{
	char hex[DIGEST_TEXT];
	struct digest d;

	put(a, text && digest_parse(&d, text, NULL) == 0 ? digest_hex(&d, hex) : "");
}

static void put_retention(struct resp_args *a, const struct settings *s)
{
	put_u(a, s->queue.keep_finished);
	put_u(a, s->queue.keep_finished_ms);
	put_u(a, s->queue.keep_dead);
	put_u(a, s->queue.keep_dead_ms);
	put_u(a, s->queue.keep_bytes);
}

/* ---- replies */

static const struct err *strange(struct err *e, const char *script, const struct reply *r)
{
	const char *word = reply_text(r, 0);

	err_set(e, ERR_BUG, "the queue's script %s answered '%.80s'", script, word ? word : "?");
	return e;
}

/* What an operation remembers until its reply: whom to call, and what the answer is about. */
struct op {
	void *arg;
	struct queue *queue;
	union {
		void (*enqueue)(const struct enqueue_result *, const struct err *, void *);
		void (*claim)(const struct claimed *, const struct err *, void *);
		void (*heartbeat)(const enum beat *, size_t, const struct err *, void *);
		void (*finish)(enum finish_outcome, enum task_state, const struct err *, void *);
		void (*ticket)(uint64_t, const struct err *, void *);
		void (*publish)(const struct published *, const struct err *, void *);
		void (*plain)(const struct err *, void *);
		void (*cancel)(enum cancel_outcome, const struct err *, void *);
		void (*tick)(const struct ticked *, const struct err *, void *);
		void (*get)(const struct task *, const struct err *, void *);
		void (*list)(const struct task *, size_t, uint64_t, const struct err *, void *);
		void (*counts)(const struct queue_counts *, const struct err *, void *);
		void (*fsck)(const char *, size_t, const struct err *, void *);
	} on;
	char id[TASK_ID]; /* enqueue */
	/* heartbeat */
	size_t n;
	/* list */
	struct task *tasks;
	size_t n_tasks, cap_tasks;
	char *status, *phase, *source;
	uint64_t offset, rank, seen;
	uint32_t limit, rounds;
	/* fsck */
	struct buf findings;
	size_t index;
	bool repair;
};

static struct op *op_new(struct queue *q, void *arg)
{
	struct op *o = mem_zalloc(sizeof(*o));

	o->queue = q;
	o->arg = arg;
	buf_init(&o->findings, FSCK_BYTES);
	return o;
}

static void op_freep(struct op **po)
{
	struct op *o = *po;

	if (!o)
		return;
	for (size_t i = 0; i < o->n_tasks; i++)
		task_fini(&o->tasks[i]);
	free(o->tasks);
	free(o->status);
	free(o->phase);
	free(o->source);
	buf_fini(&o->findings);
	free(o);
	*po = NULL;
}

/* What was enqueued before comes before. */
static void run(const char *script, struct resp_args *a, redis_fn *on, struct op *o)
{
	flush_batch(o->queue);
	redis_script_args(o->queue->redis, script, 0, a, on, o);
}

/* ---- enqueue */

/* A word, or a word and what belongs to it. */
static void enqueued(struct op *o, const struct reply *r)
{
	static const struct {
		const char *word;
		enum enqueue_outcome outcome;
	} words[] = {{"OK", ENQUEUED},
		     {"DUP", ENQUEUE_JOINED},
		     {"FULL", ENQUEUE_FULL},
		     {"FULLG", ENQUEUE_GROUP_FULL},
		     {"ECHO", ENQUEUE_ECHO}};
	const char *word = r->kind == REPLY_STR ? r->str : reply_text(r, 0), *id = reply_text(r, 1);
	struct enqueue_result res = {0};
	struct err bad;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!str_eq(words[i].word, word))
			continue;
		res.outcome = words[i].outcome;
		str_copy(res.id, sizeof(res.id), id ? id : "");
		if (res.outcome == ENQUEUED)
			memcpy(res.id, o->id, TASK_ID);
		o->on.enqueue(&res, NULL, o->arg);
		return;
	}
	if (str_eq(word, "ERR"))
		err_set(&bad, ERR_BUG, "Redis: %.200s", id ? id : "");
	else
		strange(&bad, "enqueue", r);
	o->on.enqueue(NULL, &bad, o->arg);
}

static void batch_freep(struct batch **b)
{
	if (*b)
		resp_args_fini(&(*b)->args);
	free(*b);
	*b = NULL;
}

static void on_batch(const struct reply *r, const struct err *e, void *arg)
{
	scoped(batch_freep) struct batch *b = arg;
	struct err bad;

	if (!e && (r->kind != REPLY_ARRAY || r->n != b->n))
		e = strange(&bad, "enqueue", r);
	for (size_t i = 0; i < b->n; i++) {
		scoped(op_freep) struct op *o = b->op[i];

		if (e)
			o->on.enqueue(NULL, e, o->arg);
		else
			enqueued(o, r->element[i]);
	}
}

static void batch_cancelled(struct batch **b)
{
	struct batch *taken = take_ptr(*b);
	struct err e;

	err_set(&e, ERR_CANCELLED, "the queue was given up");
	on_batch(NULL, &e, taken);
}

static void flush_batch(void *arg)
{
	struct queue *q = arg;
	struct batch *b = q->batch;
	struct resp_args a = RESP_ARGS_INIT;

	if (!b)
		return;
	q->batch = NULL;
	put_u(&a, q->settings->queue.max_open);
	put_u(&a, q->settings->queue.max_group);
	put_u(&a, q->settings->queue.max_attempts);
	put_u(&a, q->settings->queue.deadline_ms);
	buf_add(&a.b, b->args.b.data, b->args.b.len, NULL);
	a.n += b->args.n;
	resp_args_fini(&b->args);
	redis_script_args(q->redis, "enqueue", 0, &a, on_batch, b);
}

static struct batch *batch_of(struct queue *q)
{
	if (!q->batch) {
		q->batch = mem_zalloc(sizeof(*q->batch));
		resp_args_init(&q->batch->args);
		loop_later_want(q->flush);
	}
	return q->batch;
}

static void fail_enqueue(struct queue *q, const struct err *why, struct op *o);

static void put_target_hashes(struct resp_args *a, const struct task_request *rq)
{
	char text[IMAGEREF_TEXT];
	struct imageref to;
	size_t n = 0;

	for (size_t i = 0; i < rq->n_targets; i++)
		n += target_ref(&rq->targets[i], &rq->source, &to, NULL) == 0;
	put_u(a, n);
	for (size_t i = 0; i < rq->n_targets; i++)
		if (target_ref(&rq->targets[i], &rq->source, &to, NULL) == 0)
			put_hash(a, imageref_text(&to, text));
}

void queue_enqueue(struct queue *q, const struct enqueue *c,
		   void (*on)(const struct enqueue_result *r, const struct err *e, void *arg),
		   void *arg)
{
	const struct task_request *rq = c->request;
	struct op *o = op_new(q, arg);
	struct resp_args *a;
	struct batch *b;
	struct buf request;
	struct err e;
	char dedup[65], tenant[256], group[512];

	o->on.enqueue = on;
	buf_init(&request, 16 << 10);
	if (!task_id_valid(c->id)) {
		err_set(&e, ERR_BUG, "'%.60s' is no task id", c->id);
		fail_enqueue(q, &e, o);
		return;
	}
	if (task_request_write(rq, &request, &e) < 0 ||
	    target_dedup_key(&rq->source, rq->targets, rq->n_targets, rq->platforms, dedup, &e) <
		    0) {
		buf_fini(&request);
		fail_enqueue(q, &e, o);
		return;
	}
	imageref_tenant(&rq->source, tenant);
	snprintf(group, sizeof(group), "%s|%s", tenant, rq->source.host);
	str_copy(o->id, sizeof(o->id), c->id);
	b = batch_of(q);
	b->op[b->n++] = o;
	a = &b->args;
	put(a, c->id);
	put(a, dedup);
	put_name(a, group);
	put_name(a, rq->source.host);
	put_u(a, c->band);
	resp_arg(a, request.data, request.len);
	put_u(a, c->delay_ms);
	put_u(a, c->fresh_ms);
	put(a, c->parent);
	put_digest(a, c->event_digest);
	put(a, digest_is_set(&rq->source.digest) ? "0" : "1");
	put_target_hashes(a, rq);
	buf_fini(&request);
	if (b->n == BATCH || a->b.len >= BATCH_BYTES)
		flush_batch(q);
}

/* A call that cannot be made: told like any other answer, never inside the call.  PING carries it.
 */
static void on_failed(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct err why;

	if (e && e->code == ERR_CANCELLED) {
		o->on.enqueue(NULL, e, o->arg);
		return;
	}
	err_set(&why, (enum err_code)o->n, "%s", o->findings.data);
	o->on.enqueue(NULL, &why, o->arg);
}

static void fail_enqueue(struct queue *q, const struct err *why, struct op *o)
{
	o->n = (size_t)why->code;
	buf_add_str(&o->findings, why->text, NULL);
	redis_call(q->redis, 0, 1, (const char *const[]){"PING"}, NULL, on_failed, o);
}

/* ---- claim */

static void on_claim(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct claimed c = {.next_due_ms = UINT64_MAX};
	const struct reply *request;
	struct err bad;

	if (e) {
		o->on.claim(NULL, e, o->arg);
		return;
	}
	request = reply_at(r, 3);
	if (reply_is(r, "TASK") && reply_text(r, 1) && request && request->kind == REPLY_STR) {
		c.kind = CLAIM_TASK;
		str_copy(c.id, sizeof(c.id), reply_text(r, 1));
		c.epoch = (uint64_t)reply_int(r, 2);
		c.request = request->str;
		c.request_n = request->n;
		c.attempt = (uint32_t)reply_int(r, 4);
		c.crashes = (uint32_t)reply_int(r, 5);
		c.enqueued_ms = reply_int(r, 6);
		/* A span by Redis's clock, an instant by ours: two machines' clocks need not agree.
		 */
		c.deadline_ms = (uint64_t)(clock_wall_ms() + reply_int(r, 7));
		c.replay = str_eq(reply_text(r, 8), "replay");
	} else if (reply_is(r, "EMPTY")) {
		c.kind = CLAIM_EMPTY;
		if (reply_int(r, 1) >= 0)
			c.next_due_ms = (uint64_t)reply_int(r, 1);
	} else if (reply_is(r, "PAUSED")) {
		c.kind = CLAIM_PAUSED;
	} else {
		o->on.claim(NULL, strange(&bad, "claim", r), o->arg);
		return;
	}
	o->on.claim(&c, NULL, o->arg);
}

void queue_claim(struct queue *q, const char *worker, const char nonce[QUEUE_NONCE],
		 void (*on)(const struct claimed *c, const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.claim = on;
	put_clean(&a, worker, FIELD);
	resp_arg(&a, nonce, strnlen(nonce, QUEUE_NONCE - 1));
	put_u(&a, q->settings->queue.lease_ms);
	run("claim", &a, on_claim, o);
}

/* ---- heartbeat */

static void on_heartbeat(const struct reply *r, const struct err *e, void *arg)
{
	static const char *const words[] = {"OK", "CANCEL", "LOST", "GONE"}; /* as enum beat */
	scoped(op_freep) struct op *o = arg;
	scoped_free enum beat *b = mem_array(o->n + 1, sizeof(*b));
	struct err bad;

	if (!e && (r->kind != REPLY_ARRAY || r->n != o->n))
		e = strange(&bad, "heartbeat", r);
	for (size_t i = 0; !e && i < o->n; i++) {
		size_t k = 0;

		while (k < 4 && !str_eq(words[k], reply_text(r, i)))
			k++;
		if (k == 4)
			e = strange(&bad, "heartbeat", r);
		b[i] = (enum beat)k;
	}
	o->on.heartbeat(e ? NULL : b, e ? 0 : o->n, e, o->arg);
}

void queue_heartbeat(struct queue *q, const struct heartbeat *b, size_t n,
		     void (*on)(const enum beat *b, size_t n, const struct err *e, void *arg),
		     void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.heartbeat = on;
	o->n = n;
	put_u(&a, q->settings->queue.lease_ms);
	for (size_t i = 0; i < n; i++) {
		put(&a, b[i].id);
		put(&a, b[i].nonce);
		put_clean(&a, b[i].progress, FIELD);
	}
	run("heartbeat", &a, on_heartbeat, o);
}

/* ---- finish */

static void on_finish(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	enum task_state now = TASK_FAILED;
	struct err bad;

	if (!e && reply_is(r, "GONE")) {
		o->on.finish(FINISH_GONE, now, NULL, o->arg);
		return;
	}
	if (!e && (!(reply_is(r, "OK") || reply_is(r, "STALE")) ||
		   task_state_parse(reply_text(r, 1), &now) < 0))
		e = strange(&bad, "finish", r);
	o->on.finish(e || reply_is(r, "STALE")		  ? FINISH_STALE
		     : str_eq(reply_text(r, 2), "replay") ? FINISH_REPLAY
							  : FINISH_OK,
		     now, e, o->arg);
}

void queue_finish(struct queue *q, const struct finish *f,
		  void (*on)(enum finish_outcome o, enum task_state now, const struct err *e,
			     void *arg),
		  void *arg)
{
	static const char *const words[] = {"done",    "failed", "cancelled", "retry",
					    "release", "wait",	 "crashed"};
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;
	size_t n = f->result_json ? strlen(f->result_json) : 0;

	o->on.finish = on;
	put(&a, f->id);
	put(&a, f->nonce);
	put(&a, words[f->outcome]);
	put_clean(&a, f->code, FIELD);
	put_clean(&a, f->reason, REASON);
	put_u(&a, f->delay_ms);
	put_u(&a, f->fresh_ms);
	put(&a, f->skipped ? "1" : "");
	put_u(&a, f->source_size);
	put_u(&a, f->target_size);
	/* A result must never keep a task from ending: one that is too long is left out. */
	put(&a, f->attempt_json && strlen(f->attempt_json) <= 8192 && !strchr(f->attempt_json, '\n')
			? f->attempt_json
			: "");
	put(&a, n > RESULT_BYTES ? "{\"truncated\":true}" : f->result_json);
	put_u(&a, q->settings->queue.max_crash);
	put_retention(&a, q->settings);
	run("finish", &a, on_finish, o);
}

/* ---- publishing */

static void on_ticket(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct err bad;

	if (!e && reply_is(r, "LOST")) {
		err_set(&bad, ERR_CANCELLED, "the lease was lost");
		e = &bad;
	} else if (!e && !reply_is(r, "OK")) {
		e = strange(&bad, "ticket", r);
	}
	o->on.ticket(e ? 0 : (uint64_t)reply_int(r, 1), e, o->arg);
}

static uint64_t published_s(const struct queue *q)
{
	return q->settings->queue.deadline_ms / 1000 + DAY_S;
}

void queue_ticket(struct queue *q, const char *id, const char *nonce, const char *target,
		  void (*on)(uint64_t ticket, const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.ticket = on;
	put(&a, id);
	put(&a, nonce);
	put_hash(&a, target);
	put_u(&a, published_s(q));
	run("ticket", &a, on_ticket, o);
}

static void on_publish(const struct reply *r, const struct err *e, void *arg)
{
	static const struct {
		const char *word;
		enum publish_outcome outcome;
	} words[] = {{"OK", PUBLISH_GRANTED},	    {"SUPERSEDED", PUBLISH_SUPERSEDED},
		     {"BUSY", PUBLISH_BUSY},	    {"WAIT", PUBLISH_WAIT},
		     {"LOST", PUBLISH_LOST},	    {"CANCELLED", PUBLISH_CANCELLED},
		     {"CONFLICT", PUBLISH_CONFLICT}};
	scoped(op_freep) struct op *o = arg;
	struct published p = {0};
	struct err bad;

	if (e) {
		o->on.publish(NULL, e, o->arg);
		return;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (reply_is(r, words[i].word)) {
			p.outcome = words[i].outcome;
			if (p.outcome == PUBLISH_GRANTED) {
				p.valid_ms = (uint64_t)reply_int(r, 1);
				p.takeover = reply_int(r, 2) != 0;
			} else if (p.outcome == PUBLISH_CONFLICT) {
				str_copy(p.other, sizeof(p.other),
					 reply_text(r, 1) ? reply_text(r, 1) : "");
			}
			o->on.publish(&p, NULL, o->arg);
			return;
		}
	o->on.publish(NULL, strange(&bad, "publish", r), o->arg);
}

void queue_publish(struct queue *q, const struct publish *p,
		   void (*on)(const struct published *p, const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.publish = on;
	put(&a, p->id);
	put(&a, p->nonce);
	put_hash(&a, p->target);
	put_clean(&a, p->source, IMAGEREF_TEXT);
	put_u(&a, p->ticket);
	put_u(&a, q->settings->queue.lease_ms);
	put_u(&a, FAULT_MS("publish.lock", LOCK_MS));
	put_u(&a, OWN_S);
	put_u(&a, published_s(q));
	for (size_t i = 0; i < p->n_digests; i++)
		if (digest_parse(&(struct digest){0}, p->digests[i], NULL) == 0)
			put_digest(&a, p->digests[i]);
	run("publish", &a, on_publish, o);
}

static void on_plain(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;

	o->on.plain(e, o->arg);
}

void queue_unlock(struct queue *q, const char nonce[QUEUE_NONCE], const char *target,
		  void (*on)(const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.plain = on;
	resp_arg(&a, nonce, strnlen(nonce, QUEUE_NONCE - 1));
	put_hash(&a, target);
	run("unlock", &a, on_plain, o);
}

/* ---- cancel, tick, pause */

static void on_cancel(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	enum cancel_outcome to = CANCEL_GONE;
	struct err bad;

	if (e)
		;
	else if (reply_is(r, "OK"))
		to = str_eq(reply_text(r, 1), "cancelling") ? CANCEL_FLAGGED : CANCEL_DONE;
	else if (reply_is(r, "TERMINAL"))
		to = CANCEL_TERMINAL;
	else if (reply_is(r, "TOOLATE"))
		to = CANCEL_TOO_LATE;
	else if (!reply_is(r, "GONE"))
		e = strange(&bad, "cancel", r);
	o->on.cancel(to, e, o->arg);
}

void queue_cancel(struct queue *q, const char *id,
		  void (*on)(enum cancel_outcome o, const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.cancel = on;
	put_clean(&a, id, TASK_ID - 1);
	run("cancel", &a, on_cancel, o);
}

static void on_tick(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct ticked t = {0};
	struct err bad;

	if (!e && (r->kind != REPLY_ARRAY || r->n != 4))
		e = strange(&bad, "tick", r);
	if (!e) {
		t.expired = (uint64_t)reply_int(r, 0);
		t.promoted = (uint64_t)reply_int(r, 1);
		t.ended = (uint64_t)reply_int(r, 2);
		t.grace = reply_int(r, 3) != 0;
	}
	o->on.tick(e ? NULL : &t, e, o->arg);
}

void queue_tick(struct queue *q, void (*on)(const struct ticked *t, const struct err *e, void *arg),
		void *arg)
{
	const struct settings *s = q->settings;
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.tick = on;
	put_u(&a, s->queue.lease_ms);
	put_u(&a, s->queue.max_gap_ms);
	put_u(&a, TICK_BATCH);
	put_retention(&a, s);
	put_u(&a, s->queue.registry_limit);
	for (size_t i = 0; i < s->n_sources; i++) {
		put_name(&a, s->source[i].host);
		put_u(&a, s->source[i].max_running ? s->source[i].max_running
						   : s->queue.registry_limit);
	}
	run("tick", &a, on_tick, o);
}

void queue_pause_registry(struct queue *q, const char *registry, uint64_t ms,
			  void (*on)(const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.plain = on;
	put_name(&a, registry);
	put_u(&a, ms == 0 ? 1 : ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : ms);
	run("pause", &a, on_plain, o);
}

/* ---- reading */

static void on_get(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct task t = {0};
	struct err bad;

	if (!e && r->kind == REPLY_NIL) {
		o->on.get(NULL, NULL, o->arg);
		return;
	}
	if (!e && (!reply_at(r, 0) || queue_view_read(&t, reply_at(r, 0), &bad) < 0))
		e = strange(&bad, "get", r);
	if (!e)
		queue_view_detail(&t, r);
	o->on.get(e ? NULL : &t, e, o->arg);
	task_fini(&t);
}

void queue_get(struct queue *q, const char *id,
	       void (*on)(const struct task *t, const struct err *e, void *arg), void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.get = on;
	put_clean(&a, id, TASK_ID - 1);
	run("get", &a, on_get, o);
}

static void ask_list(struct op *o);

/* Without a filter one script is the whole page.  With one, each looks at LIST_LOOK records, and
 * the pages are put together here; the total counts what was looked at. */
static void on_list(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	bool filtered = o->status || o->phase || o->source;
	uint64_t total;
	struct err bad;
	int64_t next;

	if (!e && (r->kind != REPLY_ARRAY || r->n < 3))
		e = strange(&bad, "list", r);
	for (size_t i = 3; !e && i < r->n; i++) {
		mem_grow(o->tasks, o->n_tasks, o->cap_tasks);
		if (queue_view_read(&o->tasks[o->n_tasks], reply_at(r, i), &bad) < 0)
			e = &bad;
		else
			o->n_tasks++;
	}
	if (e) {
		o->on.list(NULL, 0, 0, e, o->arg);
		return;
	}
	next = reply_int(r, 0);
	o->seen += (uint64_t)reply_int(r, 2);
	if (filtered && next >= 0 && ++o->rounds < LIST_ROUNDS) {
		o->rank = (uint64_t)next;
		ask_list(take_ptr(o));
		return;
	}
	total = filtered ? o->seen : (uint64_t)reply_int(r, 1);
	o->on.list(o->tasks, o->n_tasks, total, NULL, o->arg);
}

static void ask_list(struct op *o)
{
	struct resp_args a = RESP_ARGS_INIT;
	uint64_t skip = o->offset > o->seen ? o->offset - o->seen : 0;

	put_u(&a, o->rank);
	put_u(&a, skip);
	put_u(&a, o->limit - o->n_tasks);
	put_u(&a, LIST_LOOK);
	put(&a, o->status);
	put(&a, o->phase);
	put(&a, o->source);
	run("list", &a, on_list, o);
}

void queue_list(struct queue *q, const struct queue_filter *f,
		void (*on)(const struct task *t, size_t n, uint64_t total, const struct err *e,
			   void *arg),
		void *arg)
{
	struct op *o = op_new(q, arg);

	o->on.list = on;
	o->status = f->status && f->status[0] ? mem_strdup(f->status) : NULL;
	o->phase = f->phase && f->phase[0] ? mem_strdup(f->phase) : NULL;
	o->source = f->source && f->source[0] ? mem_strdup(f->source) : NULL;
	o->offset = f->offset;
	o->limit = f->limit > 1000 ? 1000 : f->limit;
	ask_list(o);
}

static void on_counts(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct queue_counts c = {0};
	uint64_t *const to[] = {&c.ready,	  &c.running,	     &c.delayed,
				&c.finished,	  &c.dead,	     &c.oldest_ms,
				&c.total_done,	  &c.total_failed,   &c.total_cancelled,
				&c.total_retry,	  &c.total_stale,    &c.total_joined,
				&c.total_expired, &c.total_accepted, &c.total_crashed,
				&c.total_echo,	  &c.kept_bytes,     &c.total_dead};
	struct err bad;

	if (!e && (r->kind != REPLY_ARRAY || r->n != sizeof(to) / sizeof(to[0])))
		e = strange(&bad, "counts", r);
	for (size_t i = 0; !e && i < sizeof(to) / sizeof(to[0]); i++)
		*to[i] = reply_int(r, i) > 0 ? (uint64_t)reply_int(r, i) : 0;
	o->on.counts(e ? NULL : &c, e, o->arg);
}

void queue_counts(struct queue *q,
		  void (*on)(const struct queue_counts *c, const struct err *e, void *arg),
		  void *arg)
{
	struct op *o = op_new(q, arg);
	struct resp_args a = RESP_ARGS_INIT;

	o->on.counts = on;
	run("counts", &a, on_counts, o);
}

/* ---- fsck: page after page of one index after the other, then the sums */

static const char *const fsck_indexes[] = {"all", "work", "delay", "lease", "fin", "dead", "sums"};
enum { FSCK_INDEXES = sizeof(fsck_indexes) / sizeof(fsck_indexes[0]) };

static void ask_fsck(struct op *o);

static void on_fsck(const struct reply *r, const struct err *e, void *arg)
{
	scoped(op_freep) struct op *o = arg;
	struct err bad;

	if (!e && (r->kind != REPLY_ARRAY || r->n < 1))
		e = strange(&bad, "fsck", r);
	if (e) {
		o->on.fsck(NULL, 0, e, o->arg);
		return;
	}
	for (size_t i = 1; i < r->n; i++, o->n++)
		if (reply_text(r, i))
			buf_addf(&o->findings, NULL, "%s\n", reply_text(r, i));
	o->rank += (uint64_t)reply_int(r, 0);
	if (reply_int(r, 0) < FSCK_PAGE) {
		o->rank = 0;
		o->index++;
	}
	if (o->index < FSCK_INDEXES)
		ask_fsck(take_ptr(o));
	else
		o->on.fsck(o->findings.data, o->n, NULL, o->arg);
}

static void ask_fsck(struct op *o)
{
	struct resp_args a = RESP_ARGS_INIT;

	put(&a, fsck_indexes[o->index]);
	put_u(&a, o->rank);
	put_u(&a, FSCK_PAGE);
	put(&a, o->repair ? "1" : "");
	run("fsck", &a, on_fsck, o);
}

void queue_fsck(struct queue *q, bool repair,
		void (*on)(const char *findings, size_t n, const struct err *e, void *arg),
		void *arg)
{
	struct op *o = op_new(q, arg);

	o->on.fsck = on;
	o->repair = repair;
	ask_fsck(o);
}
