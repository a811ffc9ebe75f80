/* common/redis.h - commands and scripts over resp, failing with struct err.
 *
 * Everything is asynchronous on one loop: a call gives a callback, which is called exactly once,
 * with a reply or with an error (ERR_NET: no connection, or it broke before the reply; ERR_BUSY: a
 * reply that means "again"; ERR_LIMIT: Redis is full; ERR_DENIED: no rights).  A call's deadline
 * counts from the call. */
#ifndef COMMON_REDIS_H
#define COMMON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/resp.h" /* struct reply */

struct err;
struct loop;
struct redis;
struct settings;

#define REDIS_PREFIX "acc:{0}:" /* of every key; the hash tag is the shard's */

typedef void redis_fn(const struct reply *r, const struct err *e,
		      void *arg); /* r is NULL when e is set */

/* Connects in the background and goes on trying; on_state tells ready (handshake done: version,
 * policy, schema, rights checked) and lost, with why.  why->class is CLASS_FINAL when only a change
 * of configuration can help (too old, eviction policy, rights, login, schema): a program that
 * starts may then end with that text. on_state may be NULL.  ERR_INVALID at once: redis.addr or a
 * TLS file. */
int redis_open(struct redis **r, struct loop *l, const struct settings *s, const char *client_name,
	       void (*on_state)(bool ready, const struct err *why, void *arg), void *arg,
	       struct err *e);
void redis_freep(struct redis **r); /* pending callbacks get ERR_CANCELLED; also from a callback */
bool redis_ready(const struct redis *r);
struct loop *redis_loop(const struct redis *r);

/* argv with lengths (NULL: C strings); deadline_ms 0: 1 s.  Arguments are copied.  Callbacks never
 * run inside the call.  While the connection is down it fails soon; a break of under 300 ms is
 * waited out. */
void redis_call(struct redis *r, uint64_t deadline_ms, size_t argc, const char *const *argv,
		const size_t *lens, redis_fn *on, void *arg);
/* A script by its table name (common/queue/NAME.lua): EVALSHA, EVAL once on NOSCRIPT; KEYS[1] is
 * acc:{shard}:meta. */
/* *a is taken and left empty. */
void redis_script_args(struct redis *r, const char *name, uint64_t deadline_ms, struct resp_args *a,
		       redis_fn *on, void *arg);
void redis_script(struct redis *r, const char *name, uint64_t deadline_ms, size_t argc,
		  const char *const *argv, const size_t *lens, redis_fn *on, void *arg);

#endif
