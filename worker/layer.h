/* worker/layer.h - one source layer, read once (per pass) and shown to every target's driver.
 *
 * registry -> verify digest -> unpack -> diff_id -> tar pieces -> drivers -> pool -> out -> upload.
 * What fails on the reading side fails all targets; a target that fails is dropped alone.  A broken
 * streamed upload runs that target again from its own GET, twice. */
#ifndef WORKER_LAYER_H
#define WORKER_LAYER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/drivers/driver.h"

struct limits;
struct pool;
struct registry;
struct source;

/* Where layers come from and blobs go: a registry, or files in tests and `layer pack`. */
struct layer_io {
	int (*open)(void *arg, struct source **body, const struct descriptor *from, struct err *e);
	/* A new destination for one blob of that target; ops say how it is written. */
	int (*create)(void *arg, const struct target *t, const struct out_ops **ops, void **dest,
		      struct err *e);
	void *arg;
};

struct layer_target { /* one target's part */
	const struct driver *drv;
	const struct target *target;
	struct drv_image *im;
	/* out: */
	bool done, failed;
	struct descriptor to; /* not set for an absent layer */
	struct layer_result result;
	struct err err; /* not done: why */
	uint64_t out_bytes;
};

struct layer_job {
	const struct layer_io *io;
	struct pool *pool;
	struct layer_in in; /* codec is filled in */
	struct layer_target *target;
	size_t n_targets;
	struct limits *const *limits; /* one per place where this layer stands in an image */
	size_t n_limits;
	uint64_t max_out; /* unpacked bytes of this layer alone; 0: no bound */
	pthread_mutex_t
		*window; /* held by the one layer that may need more than 8 MiB of zstd window */
	const atomic_int *stop;
	/* About every MiB read; in: of the stored source blob, out: over all targets. */
	void (*on_bytes)(void *arg, uint64_t in, uint64_t out);
	void *arg;
	/* out: */
	struct digest diff_id; /* of the unpacked bytes */
	uint64_t unpacked;
	bool bad_transfer; /* stored bytes were not what their digest says */
};

/* 0: look at each target's done.  -1: the source failed, for all. */
int layer_convert(struct layer_job *j, struct err *e);

#endif
