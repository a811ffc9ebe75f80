/* api-server/api.h - what the handlers share: one per process, on one loop. */
#ifndef API_SERVER_API_H
#define API_SERVER_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct httpd;
struct loop;
struct metrics;
struct queue;
struct rate;
struct redis;
struct settings;
struct waiters;

enum { API_HOST_LABELS = 16 };

struct api {
	struct loop *loop;
	struct settings *settings; /* replaced by a reload: keep no pointer into it */
	struct redis *redis, *blocking;
	struct queue *queue;
	struct httpd *http;
	struct waiters *waiters;
	struct metrics *metrics;
	struct rate *rate;
	bool under_acceld;

	/* what the probes answer from */
	bool redis_ready;  /* connected, and the handshake held */
	bool writable;	   /* the last tick was taken */
	bool was_writable; /* one was, once */
	bool draining;
	char why[256]; /* !writable: why */

	char *host_label[API_HOST_LABELS]; /* Host headers seen first; the rest is "other" */
	size_t n_host_labels;
};

/* A call of Redis that a client waits for.  POST has to be answered within a second, whatever
 * happens. */
enum { API_REDIS_MS = 800 };

#endif
