/* worker/rafs/rafs_merge.h - layers on top of each other, as an overlay shows them. */
#ifndef WORKER_RAFS_RAFS_MERGE_H
#define WORKER_RAFS_RAFS_MERGE_H

#include "worker/rafs/rafs_tree.h"

/* Puts *upper on top of fs and frees it; fs starts as rafs_new of the lowest layer's chunk size.
 * OCI image-spec v1.1, layer.md, "Whiteouts": `.wh.NAME` removes NAME of the layers below,
 * `.wh..wh..opq` all of a directory; none survives. A parent that the upper layer only implies
 * leaves the lower directory as it is, and follows a symbolic link there.  Hard links to files of
 * lower layers are resolved.  ERR_INVALID, ERR_LIMIT. */
int rafs_merge(struct rafs *fs, struct rafs **upper, struct err *e);

#endif
