/* worker/listing.h - what a layer puts into a file system, as a table by path: filled from tar
 * pieces in order, whatever the format they were read from, and compared with another one.
 *
 * A later entry of a path wins; a hard link takes what its target was at that moment.  What only
 * lazy formats add (landmarks, the index entry) is left out.  Memory: about 200 bytes an entry. */
#ifndef WORKER_LISTING_H
#define WORKER_LISTING_H

#include <stddef.h>
#include <stdint.h>

#include "worker/tar/tar_reader.h"

struct err;
struct listing;

struct listing *listing_new(void);
void listing_freep(struct listing **l);
/* arg is the listing: a driver's `on`, or for each piece of a tar reader. */
int listing_piece(void *arg, const struct tar_piece *p, struct err *e);
int listing_end(struct listing *l, struct err *e); /* all pieces were seen; links are resolved */
size_t listing_entries(const struct listing *l);

struct listing_ops {
	void (*differs)(void *arg, const char *path, const char *what); /* each once */
	void *arg;
};
/* Names, types, bytes, modes, owners, times (to the second), xattrs, links, devices.  Directories
 * that only stand for a path (0755, root) may be missing on one side.  Returns how many paths
 * differ. */
size_t listing_compare(const struct listing *want, const struct listing *got,
		       const struct listing_ops *o);

#endif
