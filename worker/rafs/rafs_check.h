/* worker/rafs/rafs_check.h - is a stored blob, or a bootstrap, what it should be?  ERR_CORRUPT: the
 * first rule broken. */
#ifndef WORKER_RAFS_RAFS_CHECK_H
#define WORKER_RAFS_RAFS_CHECK_H

#include "worker/rafs/rafs_blob.h"

struct descriptor;
struct tar_piece;
typedef int rafs_on_piece(void *arg, const struct tar_piece *p, struct err *e);

/* A driver's check: table of contents, sections' digests, chunk infos against the bootstrap's blob
 * table and rows, each chunk unpacked and hashed.  Entries and data are shown to `on` in the order
 * of the tree (raw NULL for headers); implied directories are not. */
int rafs_check_blob(struct blob_at *blob, const struct descriptor *d, rafs_on_piece *on, void *arg,
		    struct err *e);

/* Two trees hold the same files, attributes and chunks (blobs by name). */
int rafs_compare(const struct rafs *a, const struct rafs *b, struct err *e);

/* oci_ref: the stored index of a source layer against that layer, unpacked (taken): every file,
 * attribute and chunk.  Then by random access in gz, the layer as it is stored: inflate starts
 * again at every context, and each chunk is behind one. */
struct source;
int rafs_check_ref(struct blob_at *blob, struct source **layer, const struct digest *source,
		   struct blob_at *gz, struct err *e);

/* The bootstrap of an image against its layers (named, lowest first; their trees are taken):
 * superblock and tables, what the blob table says of each blob, and every file. */
int rafs_check_image(struct rafs_layer *layers, size_t n, const void *boot, size_t boot_n,
		     struct err *e);

#endif
