/* api-server/waiters.h - requests that wait for tasks to end (?sync=true).
 *
 * One reader of the queue's event log per process feeds all of them.  A waiter is registered first,
 * then the task's state is read, so that no end falls between; after a gap in the log or a lost
 * connection all are read again. */
#ifndef API_SERVER_WAITERS_H
#define API_SERVER_WAITERS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/task.h"

struct api;
struct request;
struct waiters;

struct waiters *waiters_new(struct api *a);
void waiters_freep(struct waiters **w);
void waiters_redis(struct waiters *w, bool ready); /* the blocking connection's state */
bool waiters_full(const struct waiters *w);
size_t waiters_count(const struct waiters *w);
/* Answers q when all n tasks have ended: 200 "Ok", or 500 with the first failure's reason; after
 * server.sync_timeout 202 with Location. */
void waiters_add(struct waiters *w, struct request *q, const char (*ids)[TASK_ID], size_t n);
/* 202 for all, now: this process stops. */
void waiters_drain(struct waiters *w);

#endif
