/* worker/pool.h - T compressor threads and a fixed set of buffers, shared by all blobs being
 * written.
 *
 * A batch is one buffer of input cut into segments; each segment becomes one closed piece of
 * output.  Threads take batches in any order; out.h puts them back in order.  The bytes depend on
 * neither threads nor timing. Buffers: each open writer owns one, `shared` more go to whoever asks
 * first, so no one waits for ever. */
#ifndef WORKER_POOL_H
#define WORKER_POOL_H

#include <pthread.h>
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
	uint32_t shared;     /* buffers beside those owned; 0: pool_shared */
	bool verify;	     /* converter.verify: full */
};
int pool_open(struct pool **p, const struct pool_opts *o,
	      struct err *e); /* the shared buffers are mapped here */
void pool_freep(struct pool **p);
size_t pool_buffer_bytes(const struct pool *p);
uint32_t pool_shared(uint32_t threads); /* 5 for every 4, at most 16 */
bool pool_verifies(const struct pool *p);
/* cgroup cpu.max and affinity, never the host's count; at least 1. */
uint32_t pool_cpus(void);

/* ---- What out.c alone uses. */

enum segment_hash { HASH_NONE, HASH_SHA256, HASH_BLAKE3 };

/* The hashed bytes are stored elsewhere already: the segment will be dropped, so it is not encoded.
 * Called by compressor threads, with what does not change. */
typedef bool segment_known(const void *arg, const uint8_t hash[32], uint32_t n);

struct segment {
	uint64_t cookie;
	uint32_t at, n;		    /* in the batch's input */
	uint32_t hash_from, hash_n; /* of the segment */
	enum segment_hash hash;
	bool literal;		 /* written as it is, lands nowhere */
	bool raw;		 /* the job: stored as it is */
	uint32_t out_at, stored; /* the job: in the batch's output */
	uint8_t sum[32];
};

#define BATCH_SEGMENTS 2048u
#define BATCHES_MAX 64u /* that one writer may hold: its own and all shared ones */

struct batch {
	uint8_t *in, *out;
	size_t out_cap;
	struct segment *seg;
	size_t n;
	struct encode_as as;
	bool raw_if_larger;
	segment_known *known; /* or NULL */
	const void *known_arg;
	struct err *failed; /* the job: NULL when all went well; points at err */
	/* below: pool.c alone */
	struct err *err;
	struct batch *next;
	void *map;
	size_t map_n;
	bool owned, done;
	pthread_cond_t cond;
};

struct batch *pool_own(struct pool *p, struct err *e); /* one more buffer for a new writer */
struct batch *pool_try(struct pool *p);		       /* a shared one, or NULL: never waits */
void pool_give(struct pool *p, struct batch *b);
/* b->seg[0..n) of b->in: encoded into b->out.  The input is only read, also after it is done. */
void pool_submit(struct pool *p, struct batch *b);
bool pool_done(struct pool *p, struct batch *b);
void pool_wait(struct pool *p, struct batch *b);

#endif
