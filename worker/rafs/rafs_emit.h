/* worker/rafs/rafs_emit.h - second pass: the bootstrap's bytes, at the offsets that rafs_layout
 * gave. */
#ifndef WORKER_RAFS_RAFS_EMIT_H
#define WORKER_RAFS_RAFS_EMIT_H

#include "worker/rafs/rafs_layout.h"

struct buf;

/* Appends l->size bytes.  The merged form leaves out what only a layer's own bootstrap has
 * (INLINED_META). */
int rafs_emit(const struct rafs_layout *l, struct buf *to, struct err *e);
/* Both passes. */
int rafs_write(struct rafs *fs, const struct rafs_layout_opts *o, struct buf *to, struct err *e);

uint64_t rafs_flag_of_compressor(uint32_t c); /* V6_COMP_*; 0: unknown */

#endif
