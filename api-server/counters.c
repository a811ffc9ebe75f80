/* api-server/counters.c - see counters.h.  Names: reference upstream-acceld §6, deploy §6. */
#include "api-server/counters.h"

#include <ctype.h>

#include "api-server/api.h"
#include "common/metrics.h"
#include "common/str.h"

static const char *const http[] = {"code", "host", "method", "url", NULL};
static const char *const code[] = {"code", NULL}, *const state[] = {"state", NULL},
			 *const result[] = {"result", NULL}, *const trigger[] = {"trigger", NULL},
			 *const version[] = {"version", NULL};

/* Upstream's bounds, and a few above them: its top of 10 s says nothing about ?sync. */
static const double seconds[] = {.005, .01, .025, .05, .1,  .25, .5,  1,    2.5,
				 5,    10,  30,	  60,  120, 300, 600, 1800, 0};
static const double bytes[] = {1024,	2048,	 5120,	  10240,    102400, 512000,
			       1048576, 2621440, 5242880, 10485760, 0};

static const struct metric_desc table[COUNTERS] = {
	[COUNT_REQUESTS] = {"acceleration_service_%s_requests_total",
			    "How many HTTP requests processed, partitioned by status code and HTTP "
			    "method.",
			    METRIC_COUNTER, http, NULL},
	[COUNT_REQUEST_SECONDS] = {"acceleration_service_%s_request_duration_seconds",
				   "The HTTP request latencies in seconds.", METRIC_HISTOGRAM, http,
				   seconds},
	[COUNT_REQUEST_BYTES] = {"acceleration_service_%s_request_size_bytes",
				 "The HTTP request sizes in bytes.", METRIC_HISTOGRAM, http, bytes},
	[COUNT_RESPONSE_BYTES] = {"acceleration_service_%s_response_size_bytes",
				  "The HTTP response sizes in bytes.", METRIC_HISTOGRAM, http,
				  bytes},
	[COUNT_SCRAPES] = {"promhttp_metric_handler_requests_total",
			   "Total number of scrapes by HTTP status code.", METRIC_COUNTER, code,
			   NULL},
	[COUNT_SCRAPES_NOW] = {"promhttp_metric_handler_requests_in_flight",
			       "Current number of scrapes being served.", METRIC_GAUGE, NULL, NULL},
	[COUNT_QUEUE_DEPTH] = {"accel_queue_depth",
			       "Tasks in the queue; equal on each API server: use max by (state).",
			       METRIC_GAUGE, state, NULL},
	[COUNT_QUEUE_OLDEST] = {"accel_queue_oldest_task_age_seconds",
				"Age of the oldest task that is queued or running.", METRIC_GAUGE,
				NULL, NULL},
	[COUNT_QUEUE_FINISHED] = {"accel_queue_finished_total",
				  "Tasks that ended, as the queue counts them; equal on each API "
				  "server.",
				  METRIC_COUNTER, result, NULL},
	[COUNT_QUEUE_RETRIES] = {"accel_queue_retries_total",
				 "Attempts that were put back to be tried again.", METRIC_COUNTER,
				 NULL, NULL},
	[COUNT_QUEUE_JOINED] = {"accel_queue_joined_total",
				"Requests that joined a task that was already there.",
				METRIC_COUNTER, NULL, NULL},
	[COUNT_QUEUE_STALE] = {"accel_queue_stale_total",
			       "Writes of workers that had lost their task, refused.",
			       METRIC_COUNTER, NULL, NULL},
	[COUNT_QUEUE_EXPIRED] = {"accel_queue_expired_total", "Leases that ran out.",
				 METRIC_COUNTER, NULL, NULL},
	[COUNT_ENQUEUED] = {"accel_tasks_enqueued_total", "Tasks made by this server.",
			    METRIC_COUNTER, trigger, NULL},
	[COUNT_DEDUPLICATED] = {"accel_tasks_deduplicated_total",
				"Requests to this server that joined a task.", METRIC_COUNTER,
				trigger, NULL},
	[COUNT_RESOURCES] = {"accel_webhook_resources_total",
			     "Images named by webhooks and requests, by what became of them.",
			     METRIC_COUNTER, result, NULL},
	[COUNT_REFUSED] = {"accel_http_refused_total",
			   "Requests refused before any handler saw them.", METRIC_COUNTER, code,
			   NULL},
	[COUNT_CONNECTIONS] = {"accel_http_connections", "Open connections of clients.",
			       METRIC_GAUGE, NULL, NULL},
	[COUNT_WAITERS] = {"accel_sync_waiters", "Requests that wait for a task to end.",
			   METRIC_GAUGE, NULL, NULL},
	[COUNT_REDIS_UP] = {"accel_redis_up", "1 while Redis takes writes.", METRIC_GAUGE, NULL,
			    NULL},
	[COUNT_RELOAD] = {"accel_config_last_reload_success",
			  "1 when the configuration in use is the newest one.", METRIC_GAUGE, NULL,
			  NULL},
	[COUNT_RELOAD_TIME] = {"accel_config_last_reload_success_timestamp_seconds",
			       "When the configuration in use was read.", METRIC_GAUGE, NULL, NULL},
	[COUNT_BUILD] = {"accel_build_info", "1, with the version.", METRIC_GAUGE, version, NULL},
};

struct metrics *counters_new(const char *server_name)
{
	char name[64];

	str_copy(name, sizeof(name), server_name);
	for (char *p = name; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return metrics_new(table, COUNTERS, name);
}

void counters_add(struct api *a, enum counter c, const char *label)
{
	metrics_add(a->metrics, c, &label, 1);
}

void counters_set(struct api *a, enum counter c, const char *label, double v)
{
	metrics_set(a->metrics, c, &label, v);
}
