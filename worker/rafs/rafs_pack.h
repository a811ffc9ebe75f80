/* worker/rafs/rafs_pack.h - one layer's tar, piece by piece, to a nydus blob.
 *
 * File data goes to the compressors at once; where a chunk landed, and whether it was there before,
 * is known when it lands.  Kept in memory: the tree, 96 bytes a chunk, 16 a cut. */
#ifndef WORKER_RAFS_RAFS_PACK_H
#define WORKER_RAFS_RAFS_PACK_H

#include "worker/out.h"
#include "worker/rafs/rafs_blob.h"
#include "worker/tar/tar_reader.h"

struct block;
struct rafs_dict;
struct rafs_pack;
struct rafs_pack_opts {
	uint32_t chunk_size, batch_size;
	enum v6_compressor compressor; /* none, lz4, zstd */
	bool sha256;
	const char *prefetch; /* newline-separated paths, borrowed; or NULL */
	/* The gzip layer keeps its data; only an index of it is written (sha256, chunks as they
	 * are). */
	bool zran;
	/* Chunks that it has are not stored: the layer points to the dictionary's blobs.  Borrowed;
	 * or NULL.  It fits (rafs_dict_fits). */
	const struct rafs_dict *dict;
	const struct digest *source; /* zran: the layer's digest and size, if known */
	uint64_t source_bytes;
};
struct rafs_pack *rafs_pack_new(const struct rafs_pack_opts *o);
void rafs_pack_freep(struct rafs_pack **p);
/* on_land, arg and raw_if_larger to open `out` with. */
void rafs_pack_out_opts(struct rafs_pack *p, struct out_opts *o);
void rafs_pack_begin(struct rafs_pack *p, struct out *out);
int rafs_pack_tar(struct rafs_pack *p, const struct tar_piece *piece, struct err *e);
/* zran: a deflate block's boundary, before any byte behind it. */
int rafs_pack_block(struct rafs_pack *p, const struct block *b, struct err *e);
/* zran: all pieces were seen; true: the layer cannot be expressed, everything starts anew without
 * it. */
bool rafs_pack_again(struct rafs_pack *p);
/* zran: the tree alone, with nothing written; for comparing. */
struct rafs *rafs_pack_tree(struct rafs_pack *p);
/* All pieces seen: writes the sections behind the data, and hands over the tree. */
int rafs_pack_end(struct rafs_pack *p, struct rafs_layer *l, struct err *e);

#endif
