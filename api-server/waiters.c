/* api-server/waiters.c - see waiters.h. */
#include "api-server/waiters.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "common/config.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/scope.h"
#include "common/str.h"

enum { BUCKETS = 4096, BLOCK_MS = 5000, FIRST_BLOCK_MS = 100, AGAIN_MS = 500, AT_ONCE = 64 };

/* One task that one waiter waits for.  Lives until its waiter is done with it and its read of the
 * task has been answered. */
struct watch {
	LIST_ENTRY(watch) same; /* of its hash bucket */
	TAILQ_ENTRY(watch) todo;
	struct waiters *w;
	struct waiter *waiter; /* NULL: nobody waits any more */
	char id[TASK_ID];
	bool listed, queued; /* in its bucket; in todo */
	bool reading, again; /* a read is under way; one more is wanted after it */
	bool ended;
};

struct waiter {
	LIST_ENTRY(waiter) next;
	struct waiters *w;
	struct request *q;
	struct loop_timer *timer;
	struct watch **watch;
	size_t n, left;
	bool failed;
	char reason[1024];
};

struct waiters {
	struct api *a;
	LIST_HEAD(, waiter) all;
	LIST_HEAD(, watch) bucket[BUCKETS];
	TAILQ_HEAD(, watch) todo; /* tasks to read, a few at a time */
	size_t n, reading;
	struct loop_timer *again;
	bool ready, asking, positioned, freeing;
	char last[64]; /* event id */
};

static void read_some(struct waiters *w);
static void ask(struct waiters *w);

static uint32_t bucket_of(const char *id)
{
	uint32_t h = 2166136261u;

	for (; *id; id++)
		h = (h ^ (unsigned char)*id) * 16777619u;
	return h % BUCKETS;
}

/* ---- ending */

static void watch_release(struct watch *x)
{
	if (x->listed)
		LIST_REMOVE(x, same);
	if (x->queued)
		TAILQ_REMOVE(&x->w->todo, x, todo);
	x->listed = x->queued = false;
	x->waiter = NULL;
	if (!x->reading)
		free(x);
}

static void waiter_free(struct waiter *t)
{
	for (size_t i = 0; i < t->n; i++)
		watch_release(t->watch[i]);
	free(t->watch);
	loop_timer_freep(&t->timer);
	LIST_REMOVE(t, next);
	t->w->n--;
	free(t);
}

static void answer_later(struct request *q, const char *id)
{
	scoped_free char *location = mem_printf("/api/v1/conversions/%s", id);

	reply_header(q, "Location", location);
	reply(q, 202, "application/json", "\"Accepted\"\n", 11);
}

static void waiter_finish(struct waiter *t)
{
	struct request *q = t->q;
	bool failed = t->failed;
	char reason[1024];

	str_copy(reason, sizeof(reason), t->reason);
	request_on_close(q, NULL, NULL);
	waiter_free(t);
	if (failed)
		answer_error(q, 500, "ERR_CONVERT_FAILED", reason, NULL);
	else
		answer_ok(q);
}

/* Not ended: at the deadline, and when this process stops. */
static void waiter_postpone(struct waiter *t)
{
	struct request *q = t->q;
	char id[TASK_ID];

	for (size_t i = 0; i < t->n; i++)
		if (!t->watch[i]->ended) {
			str_copy(id, sizeof(id), t->watch[i]->id);
			break;
		}
	request_on_close(q, NULL, NULL);
	waiter_free(t);
	answer_later(q, id);
}

static void on_deadline(void *arg)
{
	waiter_postpone(arg);
}

/* The client hung up; the task goes on.  The answer goes nowhere but into the access log. */
static void on_left(struct request *q, void *arg)
{
	struct waiter *t = arg;

	waiter_free(t);
	reply(q, 499, NULL, "", 0);
}

static void watch_ended(struct watch *x, bool failed, const char *reason)
{
	struct waiter *t = x->waiter;

	x->ended = true;
	if (failed && !t->failed) {
		t->failed = true;
		str_copy(t->reason, sizeof(t->reason), reason && *reason ? reason : "failed");
	}
	if (--t->left == 0)
		waiter_finish(t);
}

/* ---- reading tasks */

static void read_later(struct watch *x)
{
	if (x->ended || x->queued)
		return;
	x->queued = true;
	TAILQ_INSERT_TAIL(&x->w->todo, x, todo);
}

static void on_task(const struct task *t, const struct err *e, void *arg)
{
	struct watch *x = arg;
	struct waiters *w = x->w;
	bool again = x->again;

	w->reading--;
	x->reading = x->again = false;
	if (!x->waiter) {
		free(x);
	} else if (e) { /* asked again when the connection is back, or soon */
		read_later(x);
		if (!w->freeing)
			loop_timer_again(w->again, AGAIN_MS);
		return;
	} else if (!t) {
		watch_ended(x, true, "the task is no longer stored");
	} else if (t->state == TASK_DONE) {
		watch_ended(x, false, NULL);
	} else if (t->state == TASK_FAILED || t->state == TASK_CANCELLED) {
		watch_ended(x, true,
			    t->reason && *t->reason	 ? t->reason
			    : t->state == TASK_CANCELLED ? "cancelled"
							 : NULL);
	} else if (again) {
		read_later(x);
	}
	read_some(w);
}

static void read_some(struct waiters *w)
{
	struct watch *x;

	while (!w->freeing && w->reading < AT_ONCE && (x = TAILQ_FIRST(&w->todo))) {
		TAILQ_REMOVE(&w->todo, x, todo);
		x->queued = false;
		if (x->reading) {
			x->again = true;
			continue;
		}
		x->reading = true;
		w->reading++;
		queue_get(w->a->queue, x->id, on_task, x); /* may call back at once */
	}
}

static void read_all(struct waiters *w)
{
	struct waiter *t;

	LIST_FOREACH(t, &w->all, next)
	for (size_t i = 0; i < t->n; i++)
		read_later(t->watch[i]);
	read_some(w);
}

/* ---- the event log */

static void on_events(const char *last_id, const char *const *ids, const char *const *states,
		      size_t n, bool gap, const struct err *e, void *arg)
{
	struct waiters *w = arg;
	struct watch *x;

	w->asking = false;
	if (w->freeing)
		return;
	if (e) {
		loop_timer_again(w->again, AGAIN_MS);
		return;
	}
	str_copy(w->last, sizeof(w->last), last_id);
	for (size_t i = 0; i < n; i++) {
		enum task_state s;

		if (task_state_parse(states[i], &s) < 0 ||
		    (s != TASK_DONE && s != TASK_FAILED && s != TASK_CANCELLED))
			continue;
		LIST_FOREACH(x, &w->bucket[bucket_of(ids[i])], same)
		if (!strcmp(x->id, ids[i]))
			read_later(x);
	}
	if (gap || !w->positioned)
		read_all(w);
	w->positioned = true;
	read_some(w);
	if (!LIST_EMPTY(&w->all)) {
		ask(w);
		return;
	}
	/* Nobody waits: the log of a busy queue is read for nobody.  The first who comes begins at
	 * its end again, and with the tasks themselves. */
	w->positioned = false;
	w->last[0] = 0;
}

static void ask(struct waiters *w)
{
	if (w->asking || !w->ready || w->freeing)
		return;
	w->asking = true;
	queue_events(w->a->blocking, w->last[0] ? w->last : "$",
		     w->positioned ? BLOCK_MS : FIRST_BLOCK_MS, on_events, w);
}

static void on_again(void *arg)
{
	struct waiters *w = arg;

	ask(w);
	read_some(w);
}

void waiters_redis(struct waiters *w, bool ready)
{
	w->ready = ready;
	if (!ready)
		return;
	w->positioned = false; /* what happened meanwhile is read from the tasks themselves */
	if (!LIST_EMPTY(&w->all))
		ask(w);
}

/* ---- the table */

struct waiters *waiters_new(struct api *a)
{
	struct waiters *w = mem_zalloc(sizeof(*w));

	w->a = a;
	TAILQ_INIT(&w->todo);
	w->again = loop_timer(a->loop, AGAIN_MS, 0, on_again, w);
	return w;
}

void waiters_drain(struct waiters *w)
{
	while (!LIST_EMPTY(&w->all))
		waiter_postpone(LIST_FIRST(&w->all));
}

/* Redis' connections are gone by now, and with them every callback. */
void waiters_freep(struct waiters **wp)
{
	struct waiters *w = *wp;

	if (!w)
		return;
	w->freeing = true;
	waiters_drain(w);
	loop_timer_freep(&w->again);
	free(w);
	*wp = NULL;
}

bool waiters_full(const struct waiters *w)
{
	return w->n >= w->a->settings->server.max_waiters;
}

size_t waiters_count(const struct waiters *w)
{
	return w->n;
}

void waiters_add(struct waiters *w, struct request *q, const char (*ids)[TASK_ID], size_t n)
{
	struct waiter *t = mem_zalloc(sizeof(*t));

	t->w = w;
	t->q = q;
	t->n = t->left = n;
	t->watch = mem_array(n, sizeof(struct watch *));
	t->timer =
		loop_timer(w->a->loop, w->a->settings->server.sync_timeout_ms, 0, on_deadline, t);
	LIST_INSERT_HEAD(&w->all, t, next);
	w->n++;
	request_on_close(q, on_left, t);
	for (size_t i = 0; i < n; i++) {
		struct watch *x = mem_zalloc(sizeof(*x));

		x->w = w;
		x->waiter = t;
		str_copy(x->id, sizeof(x->id), ids[i]);
		x->listed = true;
		LIST_INSERT_HEAD(&w->bucket[bucket_of(x->id)], x, same);
		t->watch[i] = x;
	}
	ask(w);
	for (size_t i = 0; i < n; i++)
		read_later(t->watch[i]);
	read_some(w); /* may end t */
}
