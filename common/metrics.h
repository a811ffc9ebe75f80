/* common/metrics.h - counters, gauges, histograms; Prometheus text format 0.0.4.
 *
 * Families are static tables; a child is found by its label values.  Label sets are bounded: past
 * 512 children of a family the label values become "other".  Single-threaded users only (API
 * server, supervisor, acceld); task processes report deltas by name over their socket. */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct buf;
struct metrics;

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_desc {
	const char *name; /* whole name; "%s" once stands for the namespace given at init */
	const char *help;
	enum metric_kind kind;
	const char *const *labels; /* names, NULL-terminated; or NULL */
	const double *buckets; /* histograms: upper bounds, ascending, ended by 0; +Inf is added */
};

struct metrics *metrics_new(const struct metric_desc *d, size_t n, const char *namespace);
void metrics_freep(struct metrics **m);
/* id: index into the table.  values: as many as labels. */
void metrics_add(struct metrics *m, size_t id, const char *const *values, double v);
void metrics_set(struct metrics *m, size_t id, const char *const *values, double v);
void metrics_observe(struct metrics *m, size_t id, const char *const *values, double v);
/* By name, for deltas from elsewhere; -1 for an unknown name or label. */
int metrics_add_named(struct metrics *m, const char *name, const char *const *values, double v,
		      struct err *e);
/* Families in alphabetical order; those without children are left out. process_* is added (Linux
 * /proc/self). */
int metrics_write(const struct metrics *m, struct buf *to, struct err *e);

#endif
