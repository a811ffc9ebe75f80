/* common/task.h - the task's record: its request, state, result; to and from JSON.
 * The words: queue.md §3, §4; phase and status: design "HTTP contract". */
#ifndef COMMON_TASK_H
#define COMMON_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/imageref.h"
#include "common/target.h"

struct err;
struct buf;
struct json;
struct rule;

#define TASK_ID 37 /* UUIDv7 in 36 characters, and NUL */

enum task_state { TASK_READY, TASK_RUNNING, TASK_DELAYED, TASK_DONE, TASK_FAILED, TASK_CANCELLED };
enum task_trigger {
	TRIGGER_EVENT,
	TRIGGER_REQUEST,
	TRIGGER_BACKFILL,
	TRIGGER_RETRY,
	TRIGGER_MOVED
};

void task_new_id(char id[TASK_ID]);
bool task_id_valid(const char *id);
const char *task_state_name(enum task_state s); /* "ready", ... as stored */
int task_state_parse(const char *name, enum task_state *s);

/* The request record `p:`: JSON, UTF-8, sorted keys, no spaces, v:1, at most 8 KiB. */
struct task_request {
	struct imageref source;
	char *given; /* the reference as it was received, for the list */
	char *rule;  /* its name */
	struct target *targets;
	size_t n_targets;
	char *platforms; /* normalised, "" : all */
	enum task_trigger trigger;
	char *trace;	/* request id */
	bool pinned;	/* tag@digest asked for by a person: superseded means skipped */
	uint32_t moves; /* supersessions in a row that led here */
};
void task_request_fini(struct task_request *r);
int task_request_from_rule(struct task_request *r, const struct imageref *source, const char *given,
			   const struct rule *rule, const char *platforms,
			   enum task_trigger trigger, const char *trace, struct err *e);
int task_request_write(const struct task_request *r, struct buf *to, struct err *e);
int task_request_parse(struct task_request *r, const char *p, size_t n, struct err *e);

/* What GET shows.  Built by queue_get and queue_list. */
struct task {
	char id[TASK_ID];
	enum task_state state;
	bool dead, cancelling, skipped, waiting; /* what tells phases of one state apart */
	char *source;				 /* as received */
	char *tenant, *registry;
	int64_t created_ms, started_ms, finished_ms; /* wall, 0: not */
	uint64_t source_size, target_size;
	char *reason, *reason_code; /* or NULL */
	uint32_t attempts, max_attempts, crashes, joins;
	uint64_t epoch;
	char *worker, *progress, *parent; /* or NULL */
	struct json *request;		  /* p:, parsed; or NULL */
	struct json *detail; /* x:, parsed: attempts, result with targets and layers; or NULL */
};
void task_fini(struct task *t);
const char *task_phase(const struct task *t);  /* queued running cancelling retrying waiting done
						  skipped failed dead cancelled */
const char *task_status(const struct task *t); /* PROCESSING COMPLETED FAILED */
/* upstream's fields first, in its order, then ours; full adds request, targets, layers, attempts.
 */
struct json *task_to_json(const struct task *t, bool full);

#endif
