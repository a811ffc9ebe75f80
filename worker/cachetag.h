/* worker/cachetag.h - upstream's remote cache: converted layers as an index under a tag of the
 * source's repository.
 *
 * The key (driver's options and codec versions in it, which upstream leaves out) and what a driver
 * needs of a layer stand in annotations beside upstream's own.  A writer reads the tag again before
 * it writes, so two of them lose little; a cache that is lost costs time only. */
#ifndef WORKER_CACHETAG_H
#define WORKER_CACHETAG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/imageref.h"
#include "worker/cache.h"

struct registry;

/* *found: the tag exists and has our version.  A tag of another version or of something else counts
 * as empty. */
int cachetag_open(struct cache **c, struct registry *r, const struct imageref *tag,
		  const char *version, uint32_t max_layers, bool *found, struct err *e);
/* Writes what `put` added, newest first, at most max_layers in all.  1: written, 0: nothing new. */
int cachetag_save(struct cache *c, struct err *e);

#endif
