/* common/queue_events.h - what happens in the queue, waited for: its event log, and the hints that
 * wake workers.  Both block their connection, so each reader has one of its own.  The callback is
 * called exactly once. */
#ifndef COMMON_QUEUE_EVENTS_H
#define COMMON_QUEUE_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct redis;

/* The event log, one reader per process on its own connection: after_id "$" to start with. */
void queue_events(struct redis *blocking, const char *after_id, uint64_t block_ms,
		  void (*on)(const char *last_id, const char *const *task_ids,
			     const char *const *states, size_t n, bool gap, const struct err *e,
			     void *arg),
		  void *arg);
/* BLPOP on the wake list: returns when a hint came or the time is over. */
void queue_wait_hint(struct redis *blocking, uint64_t ms,
		     void (*on)(bool hint, const struct err *e, void *arg), void *arg);

#endif
