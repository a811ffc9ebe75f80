/* worker/workermetrics.c - see workermetrics.h. */
#include "worker/workermetrics.h"

#include <stddef.h>

#include "common/json.h"
#include "common/metrics.h"
#include "common/queue.h"
#include "common/target.h"

static const char *const label_op[] = {"op", NULL};
static const char *const label_outcome[] = {"outcome", "reason_code", NULL};
static const char *const label_one[] = {"outcome", NULL};
static const char *const label_direction[] = {"direction", NULL};
static const char *const label_layers[] = {"driver", "result", NULL};
static const double op_buckets[] = {.005, .01, .025, .05, .1,  .25, .5,	 1,    2.5,
				    5,	  10,  30,   60,  120, 300, 600, 1800, 0};
static const struct metric_desc metric_table[] = {
	[M_OPS] = {"acceleration_service_core_conversions_op_total",
		   "How many conversions operations.", METRIC_COUNTER, label_op, NULL},
	[M_OP_ERRORS] = {"acceleration_service_core_conversions_op_error_total",
			 "How many conversions operation errors.", METRIC_COUNTER, label_op, NULL},
	[M_OP_SECONDS] = {"acceleration_service_core_conversions_op_duration_seconds",
			  "The latency of conversions operations in seconds.", METRIC_HISTOGRAM,
			  label_op, op_buckets},
	[M_TASKS] = {"accel_worker_tasks_total", "Attempts that ended here, by outcome and reason.",
		     METRIC_COUNTER, label_outcome, NULL},
	[M_SECONDS] = {"accel_worker_task_seconds", "How long attempts took.", METRIC_HISTOGRAM,
		       label_one, op_buckets},
	[M_SLOTS] = {"accel_worker_slots", "Tasks that this worker runs at a time.", METRIC_GAUGE,
		     NULL, NULL},
	[M_BUSY] = {"accel_worker_slots_busy", "Tasks that this worker runs now.", METRIC_GAUGE,
		    NULL, NULL},
	[M_REDIS] = {"accel_worker_redis_up", "1 while Redis answers.", METRIC_GAUGE, NULL, NULL},
	[M_BYTES] = {"accel_worker_bytes_total", "Bodies read from and written to registries.",
		     METRIC_COUNTER, label_direction, NULL},
	[M_LAYERS] = {"accel_worker_layers_total", "Layers: converted, cached, plain.",
		      METRIC_COUNTER, label_layers, NULL},
	[M_BEATS] = {"accel_worker_heartbeat_errors_total", "Heartbeats that got no answer.",
		     METRIC_COUNTER, NULL, NULL},
	[M_STALE] = {"accel_worker_stale_total",
		     "Outcomes that came too late: the task had another holder.", METRIC_COUNTER,
		     NULL, NULL},
};

struct metrics *workermetrics_new(void)
{
	return metrics_new(metric_table, sizeof(metric_table) / sizeof(*metric_table), "");
}

void workermetrics_outcome(struct metrics *m, const struct finish *f, uint64_t took_ms)
{
	static const char *const names[] = {
		[OUT_DONE] = "done",	  [OUT_FAILED] = "failed",   [OUT_CANCELLED] = "cancelled",
		[OUT_RETRY] = "retry",	  [OUT_RELEASE] = "release", [OUT_WAIT] = "wait",
		[OUT_CRASHED] = "crashed"};
	const char *values[] = {f->skipped ? "skipped" : names[f->outcome],
				f->code && *f->code ? f->code : "none"};
	const char *op[] = {"convert"};
	double seconds = (double)took_ms / 1000;

	metrics_add(m, M_TASKS, values, 1);
	metrics_observe(m, M_SECONDS, values, seconds);
	if (f->outcome == OUT_RELEASE || f->outcome == OUT_WAIT)
		return;
	metrics_add(m, M_OPS, op, 1);
	if (f->outcome == OUT_DONE)
		metrics_observe(m, M_OP_SECONDS, op, seconds);
	else
		metrics_add(m, M_OP_ERRORS, op, 1);
}

void workermetrics_figures(struct metrics *m, const struct json *detail)
{
	const char *in[] = {"in"}, *out[] = {"out"};
	struct json *targets = json_get(detail, "targets");

	metrics_add(m, M_BYTES, in, (double)json_value_int(json_get(detail, "in_bytes")));
	metrics_add(m, M_BYTES, out, (double)json_value_int(json_get(detail, "out_bytes")));
	for (size_t i = 0; i < json_len(targets); i++) {
		struct json *t = json_at(targets, i), *layers = json_get(t, "layers");
		const char *driver = json_value_str(json_get(t, "driver"));
		enum driver_id known;

		if (!driver || target_driver_parse(&known, driver, NULL) < 0)
			continue; /* names of metrics come from a table */
		for (size_t k = 0; k < json_len(layers); k++) {
			struct json *l = json_at(layers, k);
			const char *values[] = {driver_name(known),
						json_value_bool(json_get(l, "cached")) ? "cached"
						: json_value_str(json_get(l, "plain"))
							? "plain"
							: "converted"};

			metrics_add(m, M_LAYERS, values, 1);
		}
	}
}
