/* common/queue_events.c - see queue_events.h. */
#include "common/queue_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/redis.h"
#include "common/reply.h"
#include "common/scope.h"
#include "common/str.h"

enum { EVENTS = 500 }; /* in one look */

static const char event_log[] = REDIS_PREFIX "ev", wake_list[] = REDIS_PREFIX "wake";

/* What one call remembers until its reply. */
struct look {
	void *arg;
	struct redis *redis;
	union {
		void (*events)(const char *, const char *const *, const char *const *, size_t, bool,
			       const struct err *, void *);
		void (*hint)(bool, const struct err *, void *);
	} on;
	uint64_t block_ms;
	bool gap;
	char after[48];
};

static struct look *look_new(struct redis *blocking, void *arg)
{
	struct look *o = mem_zalloc(sizeof(*o));

	o->redis = blocking;
	o->arg = arg;
	return o;
}

static void look_freep(struct look **o)
{
	free(*o);
	*o = NULL;
}

static void fail_events(struct look *o, const struct err *e)
{
	o->on.events(NULL, NULL, NULL, 0, false, e, o->arg);
}

/* [[stream, [[id, [field, value, ...]], ...]]] -> the list of entries, or NULL */
static const struct reply *entries(const struct reply *r)
{
	const struct reply *stream = r->kind == REPLY_ARRAY ? reply_at(r, 0) : NULL;
	const struct reply *list = stream ? reply_at(stream, 1) : NULL;

	return list && list->kind == REPLY_ARRAY ? list : NULL;
}

static void tell_events(struct look *o, const struct reply *list, bool gap)
{
	size_t n = list ? list->n : 0;
	scoped_free const char **ids = mem_array(n + 1, sizeof(*ids));
	scoped_free const char **states = mem_array(n + 1, sizeof(*states));
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		const struct reply *fields = reply_at(list->element[i], 1);

		if (reply_text(list->element[i], 0))
			str_copy(o->after, sizeof(o->after), reply_text(list->element[i], 0));
		if (!fields || !reply_text(fields, 1) || !reply_text(fields, 3))
			continue;
		ids[k] = reply_text(fields, 1);
		states[k++] = reply_text(fields, 3);
	}
	o->on.events(o->after, ids, states, k, gap, NULL, o->arg);
}

/* Stream ids are "<ms>-<n>". */
static int compare_ids(const char *a, const char *b)
{
	char *rest_a, *rest_b;
	uint64_t ms_a = strtoull(a, &rest_a, 10), ms_b = strtoull(b, &rest_b, 10);
	uint64_t n_a = *rest_a == '-' ? strtoull(rest_a + 1, NULL, 10) : 0;
	uint64_t n_b = *rest_b == '-' ? strtoull(rest_b + 1, NULL, 10) : 0;

	return ms_a != ms_b ? (ms_a < ms_b ? -1 : 1) : n_a != n_b ? (n_a < n_b ? -1 : 1) : 0;
}

static void on_events(const struct reply *r, const struct err *e, void *arg)
{
	scoped(look_freep) struct look *o = arg;

	if (e)
		fail_events(o, e);
	else
		tell_events(o, entries(r), o->gap);
}

static void read_events(struct look *o)
{
	char block[24], limit[16];

	snprintf(block, sizeof(block), "%llu", (unsigned long long)(o->block_ms ? o->block_ms : 1));
	snprintf(limit, sizeof(limit), "%d", EVENTS);
	redis_call(o->redis, o->block_ms + 2000, 8,
		   (const char *const[]){"XREAD", "COUNT", limit, "BLOCK", block, "STREAMS",
					 event_log, o->after},
		   NULL, on_events, o);
}

/* The oldest entry there is: if it is younger than where we were, what lay between may be gone. */
static void on_oldest(const struct reply *r, const struct err *e, void *arg)
{
	scoped(look_freep) struct look *o = arg;
	const struct reply *list = e ? NULL : entries(r);
	const char *oldest = list && reply_at(list, 0) ? reply_text(reply_at(list, 0), 0) : NULL;

	if (e) {
		fail_events(o, e);
		return;
	}
	o->gap = oldest && compare_ids(oldest, o->after) > 0 && strcmp(o->after, "0-0") != 0;
	read_events(take_ptr(o));
}

/* "$": where the log ends now, told at once; so nothing falls between two calls. */
static void on_newest(const struct reply *r, const struct err *e, void *arg)
{
	scoped(look_freep) struct look *o = arg;
	const struct reply *newest = e ? NULL : reply_at(r, 0);

	if (e) {
		fail_events(o, e);
		return;
	}
	str_copy(o->after, sizeof(o->after),
		 newest && reply_text(newest, 0) ? reply_text(newest, 0) : "0-0");
	tell_events(o, NULL, false);
}

void queue_events(struct redis *blocking, const char *after_id, uint64_t block_ms,
		  void (*on)(const char *last_id, const char *const *task_ids,
			     const char *const *states, size_t n, bool gap, const struct err *e,
			     void *arg),
		  void *arg)
{
	struct look *o = look_new(blocking, arg);

	o->on.events = on;
	o->block_ms = block_ms;
	str_copy(o->after, sizeof(o->after), after_id);
	if (str_eq(after_id, "$"))
		redis_call(blocking, 0, 6,
			   (const char *const[]){"XREVRANGE", event_log, "+", "-", "COUNT", "1"},
			   NULL, on_newest, o);
	else
		redis_call(blocking, 0, 6,
			   (const char *const[]){"XREAD", "COUNT", "1", "STREAMS", event_log, "0"},
			   NULL, on_oldest, o);
}

static void on_hint(const struct reply *r, const struct err *e, void *arg)
{
	scoped(look_freep) struct look *o = arg;

	o->on.hint(!e && r->kind == REPLY_ARRAY, e, o->arg);
}

void queue_wait_hint(struct redis *blocking, uint64_t ms,
		     void (*on)(bool hint, const struct err *e, void *arg), void *arg)
{
	struct look *o = look_new(blocking, arg);
	char seconds[32];

	o->on.hint = on;
	/* 0 would wait for ever, and a wait that never ends may miss a lost hint (queue.md §8) */
	snprintf(seconds, sizeof(seconds), "%.3f", (double)(ms ? ms : 1) / 1000);
	redis_call(blocking, ms + 2000, 3, (const char *const[]){"BLPOP", wake_list, seconds}, NULL,
		   on_hint, o);
}
