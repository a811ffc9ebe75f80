/* worker/rafs/rafs_zran.h - where inflate can start again in a gzip layer, so that chunks can be
 * read from the layer as it is ("zran", oci_ref).
 *
 * Contexts start at deflate block boundaries and carry the window before them; each chunk lies in
 * one.  Boundaries are told ahead of the data they come before, so they wait here; of those closer
 * than 32 KiB one is kept.  The rule when to begin a context is nydus': after 512 KiB of gzip or 2
 * MiB of data, and with every gzip member. */
#ifndef WORKER_RAFS_RAFS_ZRAN_H
#define WORKER_RAFS_RAFS_ZRAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct buf;
struct err;
struct rafs_zran;

struct rafs_zran *rafs_zran_new(void);
void rafs_zran_freep(struct rafs_zran **z);
int rafs_zran_block(struct rafs_zran *z, const struct block *b, struct err *e);
/* Everything before this position of the unpacked layer was seen. */
void rafs_zran_pass(struct rafs_zran *z, uint64_t pos);
/* A chunk of n bytes begins at pos; it is kept, or dropped as a duplicate (then its context is,
 * too). */
void rafs_zran_begin(struct rafs_zran *z, uint64_t pos, uint32_t n);
void rafs_zran_keep(struct rafs_zran *z);
void rafs_zran_drop(struct rafs_zran *z);
/* This layer cannot be expressed (sparse file, block over 16 MiB, no boundaries). */
void rafs_zran_give_up(struct rafs_zran *z);
/* All was seen: false if it cannot be expressed. */
bool rafs_zran_close(struct rafs_zran *z);

struct rafs_zran_chunk { /* of a kept chunk */
	uint64_t at;	 /* in the gzip, of the boundary before it */
	uint32_t n;	 /* to the boundary behind it */
	uint32_t context, in_context;
};
const struct rafs_zran_chunk *rafs_zran_chunk(const struct rafs_zran *z, size_t i);
uint32_t rafs_zran_contexts(const struct rafs_zran *z);
/* Contexts, then their windows. */
int rafs_zran_write(const struct rafs_zran *z, struct buf *to, struct err *e);

#endif
