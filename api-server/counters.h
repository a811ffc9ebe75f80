/* api-server/counters.h - this server's metrics: upstream's names, and ours beside them. */
#ifndef API_SERVER_COUNTERS_H
#define API_SERVER_COUNTERS_H

struct api;
struct metrics;

enum counter {
	COUNT_REQUESTS,
	COUNT_REQUEST_SECONDS,
	COUNT_REQUEST_BYTES,
	COUNT_RESPONSE_BYTES,
	COUNT_SCRAPES,
	COUNT_SCRAPES_NOW,
	COUNT_QUEUE_DEPTH,
	COUNT_QUEUE_OLDEST,
	COUNT_QUEUE_FINISHED,
	COUNT_QUEUE_RETRIES,
	COUNT_QUEUE_JOINED,
	COUNT_QUEUE_STALE,
	COUNT_QUEUE_EXPIRED,
	COUNT_ENQUEUED,
	COUNT_DEDUPLICATED,
	COUNT_RESOURCES,
	COUNT_REFUSED,
	COUNT_CONNECTIONS,
	COUNT_WAITERS,
	COUNT_REDIS_UP,
	COUNT_RELOAD,
	COUNT_RELOAD_TIME,
	COUNT_BUILD,
	COUNTERS,
};

struct metrics *counters_new(const char *server_name);
/* One label, plus one. */
void counters_add(struct api *a, enum counter c, const char *label);
void counters_set(struct api *a, enum counter c, const char *label, double v);

#endif
