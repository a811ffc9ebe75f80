/* worker/workermetrics.h - what a worker counts, in one table: names, helps, labels; and what an
 * attempt adds to it when it ends.  Upstream's three names stand first. */
#ifndef WORKER_WORKERMETRICS_H
#define WORKER_WORKERMETRICS_H

#include <stdint.h>

struct finish; /* common/queue.h */
struct json;
struct metrics;

enum worker_metric {
	M_OPS,
	M_OP_ERRORS,
	M_OP_SECONDS,
	M_TASKS,
	M_SECONDS,
	M_SLOTS,
	M_BUSY,
	M_REDIS,
	M_BYTES,
	M_LAYERS,
	M_BEATS,
	M_STALE
};

struct metrics *workermetrics_new(void); /* metrics_freep */
/* An attempt that took took_ms ended in f. */
void workermetrics_outcome(struct metrics *m, const struct finish *f, uint64_t took_ms);
/* The bytes and layers that a task process tells of in its result's detail. */
void workermetrics_figures(struct metrics *m, const struct json *detail);

#endif
