/* worker/convert/conv.h - what the files of a conversion share; nobody else includes it.
 *
 * One table: targets (columns) times images, that is platforms (rows); where they meet is a `part`.
 * Layers are worked on by digest: a blob that stands in several images, or several times in one,
 * is an `item` and is read once for all its places. */
#ifndef WORKER_CONVERT_CONV_H
#define WORKER_CONVERT_CONV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/convert/convert.h"
#include "worker/drivers/driver.h"
#include "worker/layer.h"
#include "worker/resolve.h"

#define IDENTITY 1024

struct conv;

struct part { /* one target of one image */
	struct drv_image *im;
	struct descriptor *done; /* per layer of the image */
	struct layer_result *result;
	struct manifest manifest;
	struct imageconfig config;
	struct buf manifest_text;
	struct descriptor out; /* of the new manifest */
};

struct tagged {		 /* a cache_tag, shared by the targets that name it */
	const char *tag; /* the target's */
	struct imageref ref;
	struct cache *cache; /* NULL: could not be read */
};

struct column {			     /* one target */
	const struct target *target; /* the job's, or `pinned` */
	struct target pinned;	     /* with its chunk dictionary by digest; or not set */
	const struct driver *drv;
	struct target_result *result;
	bool active;		 /* still worked on */
	struct cache *cache;	 /* its cache_tag's, else the job's; or NULL */
	struct backend *backend; /* where its blobs go; NULL: the registry */
	char identity[IDENTITY];
	char options[17];
	struct part *part; /* per image */
	struct buf index_text;
	char index_type[160];
	struct manifest_list push;
	pthread_mutex_t lock; /* active, result */
};

struct place { /* where an item stands */
	uint32_t image, layer;
};
struct item { /* one distinct source layer */
	const struct descriptor *from;
	struct place *place;
	size_t n_places, cap_places;
	struct layer_progress progress;
};

struct pinned {		   /* a chunk dictionary */
	const char *asked; /* the target's option */
	struct dictionary *of;
};

struct conv {
	const struct convert_job *job;
	struct convert_result *result;
	struct registry *registry;
	struct pinned *dictionary;
	size_t n_dictionaries;
	struct pool *pool;
	struct resolved source;
	struct limits *limits;	  /* per image */
	struct limits_cost *cost; /* per active target */
	struct column *column;
	size_t n_columns;
	struct item *item;
	size_t n_items;
	atomic_size_t next_item;
	pthread_mutex_t window;
	pthread_mutex_t lock; /* callbacks, err, counters */
	struct err err;	      /* what stopped the whole */
	bool failed;
	atomic_int halt; /* 0, or the code that stops all layers */
	struct convert_progress progress;
	uint32_t cached;
	struct blob_store store;
	struct tagged *tagged;
	size_t n_tagged;
};

/* ---- outcome.c */
/* What has been reached: the job's callbacks, under the lock. */
void conv_step(struct conv *c, enum convert_step s, const struct imageref *target, uint64_t since);
void conv_warn(struct conv *c, const char *msg, const char *key, const char *value);
/* The caller holds c->lock. */
void conv_tell_layer(struct conv *c, struct item *it);
void conv_layer_state(struct conv *c, struct item *it, enum layer_state s, const char *note);
/* CANCELLED or what else the job was stopped with; 0: go on. */
int conv_stopped(struct conv *c, struct err *e);
/* This target fails; the others go on. */
void column_fail(struct column *k, const struct err *e);
/* No more is done for this target. Not while layers are worked on. */
void column_end(struct column *k, enum target_outcome o, const char *reason);
bool column_active(struct column *k);
/* How many targets are still worked on. */
size_t conv_active(struct conv *c);
/* The source itself is at fault: all targets fail, all layers stop. */
void conv_fail_all(struct conv *c, const struct err *e);

/* ---- store.c */
void conv_store_init(struct blob_store *s);
/* A chunk dictionary by digest, read once; borrowed. */
const char *conv_pin_dictionary(struct conv *c, const char *asked, struct err *e);
/* struct layer_io: arg is the conv. */
int conv_open_source(void *arg, struct source **body, const struct descriptor *from, struct err *e);
int conv_create_target(void *arg, const struct target *t, const struct out_ops **ops, void **dest,
		       struct err *e);

/* ---- targets.c */
/* Manifests and configs; skips what is no image, or superseded (a final answer in e). */
int conv_read_source(struct conv *c, struct err *e);
/* Its reference, options and storage; ends it at once when the tag is this result already. */
int column_start(struct conv *c, struct column *k, struct err *e);
/* The drivers' images of each target. */
void conv_open_columns(struct conv *c);
void part_fini(struct column *k, struct part *p, size_t n_layers);

/* ---- items.c */
/* Distinct layers of all images, the largest first. */
void conv_list_items(struct conv *c);
struct layer_in layer_in(struct conv *c, const struct place *p, enum codec codec);
void result_copy(struct layer_result *to, const struct layer_result *from);
/* What a converted (or cached) layer means in each of its places. */
int item_fill_places(struct conv *c, struct column *k, const struct item *it, enum codec codec,
		     const struct place *from, const struct descriptor *stored,
		     const struct layer_result *result, struct err *e);
void item_note_figures(struct conv *c, struct column *k, const struct item *it, uint64_t ms,
		       bool cached, bool shared);

/* ---- reuse.c */
/* 1: the column has the layer.  Nothing here fails a task. */
int item_from_cache(struct conv *c, struct column *k, const struct item *it);
/* The layer is still being converted. */
void item_keep_lease(const struct column *k, const struct item *it);
/* What it became; stored NULL: nothing, and the lease is given back. */
void item_to_cache(struct conv *c, const struct column *k, const struct item *it,
		   const struct descriptor *stored, const struct layer_result *result);
void conv_open_caches(struct conv *c);
void conv_save_caches(struct conv *c);

/* ---- layers.c */
/* All items through all columns, in as many threads as layers may be open. */
int conv_run_layers(struct conv *c, struct err *e);

/* ---- finish.c */
/* Config, manifests and index of a target whose layers are all there. */
int column_finish(struct conv *c, struct column *k, struct err *e);
/* Children first, then the tag, as publish.h says. */
int column_publish(struct conv *c, struct column *k, struct err *e);

#endif
