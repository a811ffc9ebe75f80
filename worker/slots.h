/* worker/slots.h - the task processes of one supervisor: started, talked to, stopped, reaped.
 *
 * A slot is one running task with its process.  It knows nothing of the queue: packets and the end
 * are told to its owner, who frees it (slot_freep) once the queue has the outcome. */
#ifndef WORKER_SLOTS_H
#define WORKER_SLOTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/queue.h"
#include "common/task.h"

struct err;
struct json;
struct loop;
struct slot_process;

enum stop_why {
	STOP_NONE,
	STOP_CANCEL,  /* someone cancelled the task */
	STOP_LOST,    /* the lease is not ours any more: nothing of it counts */
	STOP_RELEASE, /* we end: the task goes back to the head of the line */
	STOP_TIMEOUT, /* task_timeout of this attempt has passed */
};

struct slot {
	char id[TASK_ID], nonce[QUEUE_NONCE];
	uint64_t epoch;
	uint32_t attempt, crashes;
	int64_t enqueued_ms;
	struct task_request request;
	char progress[65];
	uint64_t started_ms; /* monotonic */
	int64_t started_wall_ns;
	enum stop_why stop;
	struct slot_process *process; /* NULL: none (any more) */
	bool has_result, finished;    /* its outcome was built; the queue has it */
	void *owner;		      /* the supervisor's */
	struct slot *next;
};

struct slot_events {
	void (*packet)(struct slot *s, struct json *j); /* j is borrowed */
	/* The process is gone, and all it said was told before.  status as of waitpid. */
	void (*ended)(struct slot *s, int status);
};

/* Starts this program again as `mode` (--task, --credentials).  Takes nothing; start goes out as
 * the first packet. */
int slot_start(struct slot *s, struct loop *l, const char *mode, const char *arg,
	       const struct json *first, const struct slot_events *on, struct err *e);
int slot_send(struct slot *s, const struct json *j, struct err *e); /* never blocks */
/* Tells it to stop and why; kills its process group when it has not ended in kill_ms. */
void slot_stop(struct slot *s, enum stop_why why, uint64_t kill_ms);
/* It has said its result: our side is closed, so that it ends; killed when it does not. */
void slot_close(struct slot *s);
pid_t slot_pid(const struct slot *s);
void slot_freep(struct slot **s); /* kills what runs */

#endif
