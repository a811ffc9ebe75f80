/* worker/cachetag.h - upstream's remote cache: converted layers as an index under a tag of the
 * source's repository.
 *
 * A manifest for each platform, whose layers say which source layer they were made from.  The key
 * (driver's options and codec versions in it, which upstream leaves out) and what a driver needs of
 * a layer stand in annotations beside upstream's own, so upstream reads what we write.  What
 * upstream wrote is kept, and given out as `foreign` where nothing of ours is known: who asked sees
 * for himself whether it fits.
 *
 * A writer reads the tag again, merges, and compares it just before the PUT, so two of them lose
 * little; a cache that is lost costs time only. */
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
/* One of the images that are converted: its source layers, lowest first.  They are listed first in
 * its platform's manifest. */
void cachetag_image(struct cache *c, const struct platform *p, const struct digest *source,
		    size_t n);
/* Writes what `put` added for the layers of these images, at most max_layers a platform, the last
 * listed first to go.  1: written (or there already), 0: nothing new.  ERR_BUSY: others write all
 * the time. */
int cachetag_save(struct cache *c, struct err *e);

#endif
