/* worker/rafs/rafs_restart.h - does inflate start again where a zran blob says, and are its chunks
 * behind it? */
#ifndef WORKER_RAFS_RAFS_RESTART_H
#define WORKER_RAFS_RAFS_RESTART_H

#include "worker/rafs/rafs_blob.h"

/* l: the stored index, digests: its blob.digest.  gz: the source layer as it lies in the registry,
 * read by ranges as nydusd does: each context inflated from its own start, and each chunk in it
 * hashed.  At most 16 MiB unpacked and 64 MiB packed at a time.  ERR_CORRUPT names context or
 * chunk. */
int rafs_check_restarts(const struct rafs_layer *l, const void *digests, size_t digests_n,
			struct blob_at *gz, struct err *e);

#endif
