/* worker/pool.h - T compressor threads and a fixed set of buffers, shared by all blobs being
 * written.
 *
 * A batch is one buffer of input cut into segments; each segment becomes one closed piece of
 * output.  Threads take batches in any order; out.h puts them back in order.  The bytes depend on
 * neither threads nor timing. Buffers: each open writer owns one, `shared` more go to whoever asks
 * first, so no one waits for ever. */
#ifndef WORKER_POOL_H
#define WORKER_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/codec/encode.h"

struct err;
struct pool;

struct pool_opts {
	uint32_t threads;    /* 1.. */
	size_t buffer_bytes; /* input of one batch: max(4 MiB, the largest chunk) */
	uint32_t shared;     /* buffers beside those owned; 0: 2 * threads, at most 16 */
	bool verify;	     /* converter.verify: full */
};
int pool_open(struct pool **p, const struct pool_opts *o,
	      struct err *e); /* buffers are populated here */
void pool_freep(struct pool **p);
size_t pool_buffer_bytes(const struct pool *p);
bool pool_verifies(const struct pool *p);
/* cgroup cpu.max and affinity, never the host's count; at least 1. */
uint32_t pool_cpus(void);

#endif
