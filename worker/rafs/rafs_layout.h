/* worker/rafs/rafs_layout.h - where everything goes in a bootstrap: blobs, inodes, directories,
 *tables.
 *
 *	0 superblock, extension, device table | blob table, prefetch table | META: inodes and
 *directories | chunk table
 *
 * First of two passes: it assigns every offset (in the inodes' `at`, `data_at`), rafs_emit writes
 *them.  The order of allocation is that of nydus-image, so that bytes can be compared; readers
 *would take any. */
#ifndef WORKER_RAFS_RAFS_LAYOUT_H
#define WORKER_RAFS_RAFS_LAYOUT_H

#include "worker/rafs/rafs_tree.h"

#define RAFS_MAX_BOOTSTRAP ((uint64_t)2 << 30)

struct rafs_layout_opts {
	bool layer;	      /* inside a blob: its own blob is listed even when no file needs it */
	const char *prefetch; /* newline-separated absolute paths, or NULL */
};

struct rafs_visit { /* a directory, in order; its children are order[first] .. */
	struct rafs_node *dir;
	size_t first;
};

struct rafs_layout {
	const struct rafs *fs;
	bool layer;
	struct rafs_node **order; /* the root, then each directory's children together; position + 1
				     is the ino */
	size_t n;
	struct rafs_visit *dirs;
	size_t n_dirs;
	struct rafs_blob *blobs[RAFS_MAX_BLOBS];
	size_t n_blobs;
	struct rafs_chunk **rows; /* of the chunk table */
	size_t n_rows;
	uint32_t *prefetch; /* inode numbers */
	size_t n_prefetch;
	bool has_xattr;
	uint64_t blob_table, prefetch_table, meta, chunk_table, size;
};

int rafs_layout(struct rafs_layout *l, struct rafs *fs, const struct rafs_layout_opts *o,
		struct err *e);
void rafs_layout_fini(struct rafs_layout *l);

struct rafs_entry { /* of a directory on disk: the children with "." and "..", sorted by byte */
	const char *name;
	size_t n;
	const struct rafs_node *node;
};
/* `to` has room for n_children + 2. */
void rafs_entries(const struct rafs_layout *l, const struct rafs_visit *v, struct rafs_entry *to);
/* An entry's name goes into the block that is filled to `used`, or a new one begins. */
static inline bool rafs_entry_fits(uint64_t used, size_t name_len)
{
	return used + sizeof(struct v6_dirent) + name_len <= RAFS_BLOCK;
}

static inline uint64_t rafs_inode_bytes(const struct rafs_inode *i)
{
	return sizeof(struct v6_inode) + rafs_xattr_disk(i);
}
/* Directories and links: the last, partial block lies behind the inode. */
static inline bool rafs_inlined(const struct rafs_inode *i)
{
	uint64_t tail = i->size % RAFS_BLOCK;

	return tail && rafs_inode_bytes(i) + tail <= RAFS_BLOCK;
}

#endif
