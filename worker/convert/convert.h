/* worker/convert/convert.h - one image: resolve, classify, each layer once for all its targets,
 * publish.
 *
 * Knows nothing of Redis or of queues: whoever runs it (accelctl alone, or a task process) gives
 * callbacks for publishing, for the layer cache and for telling how far it is.  Callbacks come one
 * at a time (under a lock of convert.c), from several threads, and must not block for long, but
 * those of `publish`, which may. Memory grows with the number of entries and chunks at most;
 * nothing is written to a disk. */
#ifndef WORKER_CONVERT_CONVERT_H
#define WORKER_CONVERT_CONVERT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/target.h"

struct http;
struct cache;
struct publish_ops;

enum convert_step { /* upstream's stages; `target` is NULL for the first three */
		    STEP_PULLING,
		    STEP_PULLED, /* manifests and configs are read, layers are known */
		    STEP_CONVERTING,
		    STEP_CONVERTED, /* all layers of this target are uploaded and verified */
		    STEP_PUSHING,   /* manifests, tag */
		    STEP_PUSHED,
};

enum layer_state { LAYER_WAITING, LAYER_RUNNING, LAYER_DONE, LAYER_CACHED, LAYER_FAILED };
struct layer_progress { /* one source layer, shared by platforms and targets */
	uint32_t index;
	struct digest from;
	enum layer_state state;
	uint64_t in_bytes, in_total; /* read of the stored source blob */
	uint64_t out_bytes;	     /* uploaded, over all targets */
	char note[160];		     /* DONE: why it is plain, or ""; FAILED: the reason */
};
struct convert_progress {
	uint32_t layers_done, layers_total;
	uint64_t in_bytes, in_total, out_bytes;
};

enum cache_step { /* of a target's cache_tag */
		  CACHE_PULLING,
		  CACHE_PULLED,
		  CACHE_NOT_FOUND,
		  CACHE_PUSHING,
		  CACHE_PUSHED,
};

/* Any may be NULL. */
struct convert_ops {
	void (*step)(void *arg, enum convert_step step, const struct imageref *target,
		     uint64_t elapsed_ns, uint32_t cached, uint32_t layers);
	/* On every change of state, and about every MiB read. */
	void (*layer)(void *arg, const struct layer_progress *layer,
		      const struct convert_progress *all);
	void (*cache)(void *arg, enum cache_step step, const struct imageref *tag);
	/* A line worth a log: constant msg, one field. */
	void (*warn)(void *arg, const char *msg, const char *key, const char *value);
	void *arg;
};

struct convert_job {
	struct imageref source; /* tag, digest, or both */
	bool pinned;		/* a person's tag@digest: superseded means skipped, nothing more */
	const char *rule;	/* name, for messages; or NULL */
	const struct target *targets;
	size_t n_targets;
	const char *platforms; /* normalised; "" or NULL: all */
	/* The hosts that may be contacted: the source's, and those of chunk dictionaries. */
	const struct settings *settings;
	enum verify_mode verify;
	uint32_t threads;	 /* compressors; 0: pool_cpus() */
	uint32_t layers;	 /* open at a time; 0: 4 */
	uint64_t memory;	 /* bytes; 0: 512 MiB */
	uint64_t max_image_size; /* unpacked bytes, per platform; 0: 64 GiB */
	const char *request_id;	 /* X-Request-Id of manifest PUTs, or NULL */
	bool must_publish;	 /* superseded three times in a row: publish what there is */
	struct http *http;	 /* borrowed */
	/* Set to an enum err_code (CANCELLED, ...) to stop, then http_cancel_all; or NULL. */
	const atomic_int *stop;
	const struct publish_ops *publish;			    /* NULL: always granted */
	struct cache *cache;					    /* NULL: none */
	const struct convert_ops *ops;				    /* NULL: silence */
	void (*on_pause)(const char *host, uint64_t ms, void *arg); /* 429 of a registry; or NULL */
	void *pause_arg;
};

enum target_outcome {
	TARGET_PUBLISHED,
	TARGET_UNCHANGED, /* its tag carries this source and these options already */
	TARGET_SKIPPED,	  /* superseded, source tag deleted, ... : see reason */
	TARGET_FAILED,
};
const char *target_outcome_name(enum target_outcome o); /* "published", ... */

struct layer_figures {	    /* of one layer of one target and platform */
	char platform[136]; /* "linux/amd64", or "" */
	uint32_t index;
	struct digest from, to; /* to: not set when the layer has no blob of its own */
	uint64_t in_bytes, out_bytes, unpacked;
	uint64_t ms;	 /* of its conversion; 0: cached, shared or the same as another */
	bool cached;	 /* from the layer cache */
	bool shared;	 /* converted once, used again here */
	char plain[160]; /* set: pullable, not lazy, and why */
};
struct target_result {
	const char *driver;
	char format[32];
	struct imageref ref;
	enum target_outcome outcome;
	struct digest digest;	/* of what the tag names now, when PUBLISHED or UNCHANGED */
	struct digest replaced; /* what the tag named before, if it was another image */
	uint64_t size;		/* config + layers over the converted platforms */
	enum err_code code;	/* FAILED */
	enum err_class class;
	uint64_t retry_after_ms;
	char reason[1024]; /* SKIPPED, FAILED */
	struct layer_figures *layers;
	size_t n_layers;
	uint32_t plain_layers;
};
struct convert_result {
	bool skipped; /* nothing was converted and that is right: see reason */
	char reason[1024];
	struct digest source_digest; /* as resolved; set once it was */
	uint64_t source_size;
	struct digest moved_to; /* the source tag names this now (superseded), or none */
	struct target_result *targets;
	size_t n_targets;
	uint32_t platforms, dropped_platforms; /* converted; left out by filter or as no image */
	uint32_t layers, cached_layers;
	uint64_t in_bytes, out_bytes; /* over the network, bodies */
	uint64_t pull_ms, convert_ms, push_ms;
};
void convert_result_init(struct convert_result *r);
void convert_result_fini(struct convert_result *r);
/* For x:<id> and `-o json`. */
struct json *convert_result_to_json(const struct convert_result *r);

/* 0: every target is published, unchanged or skipped (*r says which).  -1: *e has the code and
 * class over all failed targets (wait before retry before final) and names each; *r is filled as
 * far as it got either way. */
int convert_image(const struct convert_job *job, struct convert_result *r, struct err *e);

#endif
