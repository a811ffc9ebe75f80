/* api-server/health.c - the probes and /metrics.  The probes answer from what is known already;
 * only /metrics asks Redis, and goes without when it does not answer. */
#include <stdlib.h>
#include <string.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "api-server/counters.h"
#include "api-server/handlers.h"
#include "api-server/waiters.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/scope.h"
#include "common/startup.h"
#include "common/str.h"

enum { METRICS_MAX = 16 << 20, SCRAPE_MS = 500 };

static const char *why(const struct api *a)
{
	if (a->why[0])
		return a->why;
	return a->redis_ready ? "Redis was not written to yet" : "Redis is not connected yet";
}

void handle_health(struct api *a, struct request *q, const char *id)
{
	(void)id;
	if (a->writable)
		reply(q, 200, "text/plain; charset=UTF-8", "Ok", 2);
	else
		answer_error(q, 500, "ERR_UNHEALTHY", why(a), NULL);
}

void handle_healthz(struct api *a, struct request *q, const char *id)
{
	(void)a;
	(void)id;
	reply(q, 200, "text/plain; charset=UTF-8", "Ok", 2); /* the loop turns */
}

void handle_readyz(struct api *a, struct request *q, const char *id)
{
	bool ready = a->was_writable && !a->draining;
	struct json *j = json_new_object(), *degraded = json_new_array(), *one;

	(void)id;
	json_set_bool(j, "ready", ready);
	if (a->draining)
		json_set_str(j, "reason", "draining");
	else if (!ready)
		json_set_str(j, "reason", why(a));
	if (!a->writable) {
		one = json_new_object();
		json_set_str(one, "what", "redis");
		json_set_str(one, "why", why(a));
		json_append(degraded, one);
	}
	json_set(j, "degraded", degraded);
	answer_json(q, ready ? 200 : 503, &j);
}

/* ---- /metrics */

struct scrape {
	struct api *a;
	struct request *q;
	char *others; /* the worker's text, under acceld */
};

/* The next family of a text: its name, and where it ends.  NULL at the end. */
static const char *family(const char *text, char name[128], const char **end)
{
	static const char head[] = "# HELP ";
	size_t n;

	if (strncmp(text, head, sizeof(head) - 1) != 0)
		return NULL;
	n = strcspn(text + 7, " \n");
	if (n >= 128)
		return NULL;
	memcpy(name, text + 7, n);
	name[n] = 0;
	*end = strstr(text, "\n# HELP ");
	*end = *end ? *end + 1 : text + strlen(text);
	return text;
}

/* Both are in alphabetical order, and so is the result.  The process is ours alone. */
static void merge(const char *x, const char *y, struct buf *to)
{
	char xn[128], yn[128];
	const char *xe = x, *ye = y;
	bool more_x = family(x, xn, &xe), more_y = family(y, yn, &ye);

	while (more_x || more_y) {
		int order = !more_y ? -1 : !more_x ? 1 : strcmp(xn, yn);

		if (more_y && str_starts(yn, "process_")) {
			more_y = family(ye, yn, (y = ye, &ye));
		} else if (order <= 0) {
			buf_add(to, x, (size_t)(xe - x), NULL);
			if (order == 0)
				more_y = family(ye, yn, (y = ye, &ye));
			more_x = family(xe, xn, (x = xe, &xe));
		} else {
			buf_add(to, y, (size_t)(ye - y), NULL);
			more_y = family(ye, yn, (y = ye, &ye));
		}
	}
}

static void send_metrics(struct scrape *s)
{
	struct buf own, all;
	struct err e = {0};
	int r;

	counters_set(s->a, COUNT_CONNECTIONS, NULL, (double)httpd_connections(s->a->http));
	counters_set(s->a, COUNT_WAITERS, NULL, (double)waiters_count(s->a->waiters));
	counters_set(s->a, COUNT_REDIS_UP, NULL, s->a->writable);
	counters_add(s->a, COUNT_SCRAPES, "200");
	buf_init(&own, METRICS_MAX);
	buf_init(&all, METRICS_MAX);
	r = metrics_write(s->a->metrics, &own, &e);
	if (r == 0 && s->others)
		merge(own.data, s->others, &all);
	metrics_add(s->a->metrics, COUNT_SCRAPES_NOW, NULL, -1);
	if (r < 0)
		answer_error(s->q, 500, "ERR_UNHEALTHY", e.text, NULL);
	else
		reply(s->q, 200, "text/plain; version=0.0.4; charset=utf-8; escaping=values",
		      s->others ? all.data : own.data, s->others ? all.len : own.len);
	buf_fini(&own);
	buf_fini(&all);
	free(s->others);
	free(s);
}

static void on_others(const struct reply *r, const struct err *e, void *arg)
{
	struct scrape *s = arg;

	if (!e && r->kind == REPLY_STR)
		s->others = mem_strndup(r->str, r->n);
	send_metrics(s);
}

static void note_counts(struct api *a, const struct queue_counts *c)
{
	counters_set(a, COUNT_QUEUE_DEPTH, "queued", (double)c->ready);
	counters_set(a, COUNT_QUEUE_DEPTH, "running", (double)c->running);
	counters_set(a, COUNT_QUEUE_DEPTH, "delayed", (double)c->delayed);
	counters_set(a, COUNT_QUEUE_DEPTH, "finished", (double)c->finished);
	counters_set(a, COUNT_QUEUE_DEPTH, "dead", (double)c->dead);
	counters_set(a, COUNT_QUEUE_OLDEST, NULL, (double)c->oldest_ms / 1000);
	counters_set(a, COUNT_QUEUE_FINISHED, "done", (double)c->total_done);
	counters_set(a, COUNT_QUEUE_FINISHED, "failed", (double)c->total_failed);
	counters_set(a, COUNT_QUEUE_FINISHED, "cancelled", (double)c->total_cancelled);
	counters_set(a, COUNT_QUEUE_RETRIES, NULL, (double)c->total_retry);
	counters_set(a, COUNT_QUEUE_JOINED, NULL, (double)c->total_joined);
	counters_set(a, COUNT_QUEUE_STALE, NULL, (double)c->total_stale);
	counters_set(a, COUNT_QUEUE_EXPIRED, NULL, (double)c->total_expired);
}

static void on_counts(const struct queue_counts *c, const struct err *e, void *arg)
{
	struct scrape *s = arg;

	if (!e)
		note_counts(s->a, c);
	if (!e && s->a->under_acceld)
		redis_call(s->a->redis, SCRAPE_MS, 2,
			   (const char *const[]){"GET", "acc:{0}:metrics"}, NULL, on_others, s);
	else
		send_metrics(s);
}

void handle_metrics(struct api *a, struct request *q, const char *id)
{
	struct scrape *s = mem_zalloc(sizeof(*s));

	(void)id;
	s->a = a;
	s->q = q;
	metrics_add(a->metrics, COUNT_SCRAPES_NOW, NULL, 1);
	if (a->writable)
		queue_counts(a->queue, on_counts, s);
	else
		send_metrics(s); /* the last counts that were seen */
}
