/* common/queue.h - the queue's operations: build the call, parse the reply.  Each is one Lua script
 * in common/queue/.  What each promises: queue.md §5, §6 and design "Queue".  All asynchronous over
 * redis.h; the callback is called exactly once.  Epoch is queue.md's `tok`. */
#ifndef COMMON_QUEUE_H
#define COMMON_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/queue_events.h"
#include "common/task.h"

struct err;
struct redis;
struct settings;
struct queue;

#define QUEUE_NONCE 33 /* 32 hex digits and NUL */

struct queue *queue_new(struct redis *r, const struct settings *s); /* borrows both */
/* Enqueues that were not sent yet get ERR_CANCELLED.  The connection goes before or after it, but
 * both before the loop runs again. */
void queue_freep(struct queue **q);
void queue_settings(struct queue *q, const struct settings *s); /* after a reload */

enum band { BAND_REQUEST, BAND_EVENT, BAND_BACKFILL };

enum enqueue_outcome { ENQUEUED, ENQUEUE_JOINED, ENQUEUE_FULL, ENQUEUE_GROUP_FULL, ENQUEUE_ECHO };
struct enqueue {
	const char *id; /* chosen by the caller: sending it again is harmless */
	const struct task_request *request;
	enum band band;
	uint64_t delay_ms;
	uint64_t fresh_ms;
	const char *parent;	  /* or NULL */
	const char *event_digest; /* "sha256:..." to look for in own output, or NULL */
};
struct enqueue_result {
	enum enqueue_outcome outcome;
	char id[TASK_ID]; /* the one made, or joined */
};
/* Those of one turn of the loop go in one call of the script, at its end or before the next other
 * operation; each is answered for itself. */
void queue_enqueue(struct queue *q, const struct enqueue *c,
		   void (*on)(const struct enqueue_result *r, const struct err *e, void *arg),
		   void *arg);

struct claimed {
	enum { CLAIM_TASK, CLAIM_EMPTY, CLAIM_PAUSED } kind;
	char id[TASK_ID];
	uint64_t epoch;
	uint32_t attempt, crashes;
	const char *request; /* JSON, borrowed */
	size_t request_n;
	bool replay;
	uint64_t next_due_ms; /* CLAIM_EMPTY: a delayed task gets due in that long; UINT64_MAX: none
			       */
	int64_t enqueued_ms;
	uint64_t deadline_ms; /* wall ms after which the task may not go on */
};
void queue_claim(struct queue *q, const char *worker, const char nonce[QUEUE_NONCE],
		 void (*on)(const struct claimed *c, const struct err *e, void *arg), void *arg);

enum beat { BEAT_OK, BEAT_CANCEL, BEAT_LOST, BEAT_GONE };
struct heartbeat {
	const char *id, *nonce, *progress; /* progress <= 64 bytes, or NULL */
};
void queue_heartbeat(struct queue *q, const struct heartbeat *b, size_t n,
		     void (*on)(const enum beat *b, size_t n, const struct err *e, void *arg),
		     void *arg);

enum outcome { OUT_DONE, OUT_FAILED, OUT_CANCELLED, OUT_RETRY, OUT_RELEASE, OUT_WAIT, OUT_CRASHED };
struct finish {
	const char *id, *nonce;
	enum outcome outcome;
	const char *code, *reason; /* slug and text; or NULL */
	uint64_t delay_ms;
	uint64_t fresh_ms;
	bool skipped;
	uint64_t source_size, target_size;
	const char *attempt_json; /* appended to x: attempts, or NULL */
	const char *result_json;  /* x: result, or NULL */
};
enum finish_outcome { FINISH_OK, FINISH_REPLAY, FINISH_STALE, FINISH_GONE };
void queue_finish(struct queue *q, const struct finish *f,
		  void (*on)(enum finish_outcome o, enum task_state now, const struct err *e,
			     void *arg),
		  void *arg);

/* Publishing (design "Publishing exactly").  Times are Redis ms spans; the caller turns them into
 * its own clock from the moment it SENT the call. */
void queue_ticket(struct queue *q, const char *id, const char *nonce, const char *target,
		  void (*on)(uint64_t ticket, const struct err *e, void *arg), void *arg);
/* source: host/repository:tag, without a digest.  takeover: an earlier PUT may still be applied by
 * the registry: read the target after the PUT, and again 60 s later; where it is not ours, ask
 * again with the same ticket (SUPERSEDED: leave it alone) and PUT once more.
 * tests/models/publish.pml has what happens otherwise. */
enum publish_outcome {
	PUBLISH_GRANTED,
	PUBLISH_SUPERSEDED, /* a higher ticket was granted for this target */
	PUBLISH_BUSY,	    /* another task holds the lock: ask again */
	PUBLISH_WAIT,	    /* outage grace */
	PUBLISH_CANCELLED,
	PUBLISH_LOST,
	PUBLISH_CONFLICT, /* another source reference owns this target */
};
struct publish {
	const char *id, *nonce, *target, *source;
	uint64_t ticket;
	const char *const *digests; /* about to be pushed: "sha256:..." */
	size_t n_digests;
};
struct published {
	enum publish_outcome outcome;
	uint64_t valid_ms; /* GRANTED: PUT until then */
	bool takeover; /* the lock was not released by its last holder: read the target after the
			  PUT, and 60 s later */
	char other[IMAGEREF_TEXT]; /* CONFLICT: the other source */
};
void queue_publish(struct queue *q, const struct publish *p,
		   void (*on)(const struct published *p, const struct err *e, void *arg),
		   void *arg);
/* The PUT was answered, whatever the answer.  By nonce: a zombie must not open the lock of its
 * successor. */
void queue_unlock(struct queue *q, const char nonce[QUEUE_NONCE], const char *target,
		  void (*on)(const struct err *e, void *arg), void *arg);

enum cancel_outcome { CANCEL_DONE, CANCEL_FLAGGED, CANCEL_TERMINAL, CANCEL_TOO_LATE, CANCEL_GONE };
void queue_cancel(struct queue *q, const char *id,
		  void (*on)(enum cancel_outcome o, const struct err *e, void *arg), void *arg);

struct ticked {
	uint64_t expired, promoted, ended;
	bool grace;
};
void queue_tick(struct queue *q, void (*on)(const struct ticked *t, const struct err *e, void *arg),
		void *arg);
void queue_pause_registry(struct queue *q, const char *registry, uint64_t ms,
			  void (*on)(const struct err *e, void *arg), void *arg);

/* Reading. */
void queue_get(struct queue *q, const char *id,
	       void (*on)(const struct task *t, const struct err *e, void *arg),
	       void *arg); /* t NULL: not there */
struct queue_filter {
	const char *status, *phase, *source; /* exact, exact, substring; or NULL */
	uint64_t offset;
	uint32_t limit;
};
void queue_list(struct queue *q, const struct queue_filter *f,
		void (*on)(const struct task *t, size_t n, uint64_t total, const struct err *e,
			   void *arg),
		void *arg);
struct queue_counts {
	uint64_t ready, running, delayed, finished, dead, oldest_ms;
	uint64_t total_done, total_failed, total_cancelled, total_retry, total_stale, total_joined,
		total_expired;
	uint64_t total_accepted, total_crashed, total_echo, total_dead; /* dead: of the failed */
	uint64_t kept_bytes; /* of finished tasks, about */
};
void queue_counts(struct queue *q,
		  void (*on)(const struct queue_counts *c, const struct err *e, void *arg),
		  void *arg);
/* findings: n lines, each what is wrong with what; "" when nothing is. */
void queue_fsck(struct queue *q, bool repair,
		void (*on)(const char *findings, size_t n, const struct err *e, void *arg),
		void *arg);

#endif
