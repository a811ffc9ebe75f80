/* worker/rafs/rafs_read.h - a bootstrap's bytes back to a tree.  The reader is also the checker of
 * what nydus-image and nydusd check when they load one: ERR_CORRUPT tells the first rule that is
 * broken. */
#ifndef WORKER_RAFS_RAFS_READ_H
#define WORKER_RAFS_RAFS_READ_H

#include "worker/rafs/rafs_tree.h"

int rafs_read(struct rafs **fs, const void *p, size_t n, struct err *e);
/* Without the tree: superblock, blobs and their chunks, for a chunk dictionary. */
int rafs_read_chunks(struct rafs **fs, const void *p, size_t n, struct err *e);

#endif
