/* worker/rafs/rafs_blob.h - the frame of a nydus blob: sections, each followed by a tar header that
 *tells its name and length, walked from the end; the last one is the table of contents.
 *
 *	chunk data, "image.blob" | chunk infos + header, "blob.meta" | digests, "blob.digest" |
 *	the layer's bootstrap, "image.boot" | entries, "rafs.blob.toc" */
#ifndef WORKER_RAFS_RAFS_BLOB_H
#define WORKER_RAFS_RAFS_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/rafs/rafs_tree.h"

struct blob_at;
struct buf;
struct err;

#define RAFS_FRAME 512u /* a section's tar header */
#define RAFS_TOC_MAX 28u

void rafs_frame_header(uint8_t h[RAFS_FRAME], const char *name, uint64_t size);
/* ERR_CORRUPT unless it is one, of that name. */
int rafs_frame_size(const uint8_t h[RAFS_FRAME], const char *name, uint64_t *size, struct err *e);

struct rafs_section {
	char name[17];
	uint32_t flags; /* V6_TOC_* */
	uint64_t offset, stored, unpacked;
	struct digest digest;
};
struct rafs_toc {
	struct rafs_section s[RAFS_TOC_MAX];
	size_t n;
	uint64_t at; /* of its entries */
};
/* Reads the table of contents; every section lies before it.  ERR_CORRUPT. */
int rafs_toc_read(struct rafs_toc *t, struct blob_at *blob, struct err *e);
const struct rafs_section *rafs_toc_find(const struct rafs_toc *t,
					 const char *name); /* NULL: none */
/* A section unpacked, its digest checked. */
int rafs_section_read(const struct rafs_section *s, struct blob_at *blob, struct buf *to,
		      struct err *e);

/* What is kept of a layer: its tree, and what nydusd would cache as <id>.blob.meta (empty when it
 * has no data). */
struct rafs_layer {
	struct rafs *fs;
	uint8_t *meta;
	size_t meta_n;
};
void rafs_layer_fini(struct rafs_layer *l);
/* From a stored blob, by ranges: table of contents, blob.meta with its header, image.boot. */
int rafs_layer_read(struct rafs_layer *l, struct blob_at *blob, struct err *e);
/* Once the blob is stored its digest is its name: in all places. */
void rafs_layer_name(struct rafs_layer *l, const struct digest *id);
/* zran: the data are named by the source layer (NULL: as the blob says), the index by its own blob.
 */
void rafs_layer_name_ref(struct rafs_layer *l, const struct digest *source, const struct digest *id,
			 uint64_t bytes);
bool rafs_layer_is_ref(const struct rafs_layer *l); /* made from gzip in place */

/* ---- what follows the chunk data, written by rafs_pack and rafs_zran */
struct out;
struct rafs_end {
	struct out *out;
	const char *prefetch;
	uint64_t data; /* bytes of chunk data in `out`; 0: none (zran, or no data at all) */
	const struct buf *infos; /* chunk infos and contexts, unpacked; empty: no blob of its own */
	bool compress_infos;
	uint32_t contexts;
	uint64_t contexts_size; /* at the end of infos */
};
/* Fills in the own blob's record, fs->blobs[0], too.  l gets meta; the tree stays the caller's. */
int rafs_end_write(const struct rafs_end *end, struct rafs *fs, struct rafs_layer *l,
		   struct err *e);

#endif
