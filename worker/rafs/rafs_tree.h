/* worker/rafs/rafs_tree.h - a file system as it will be in a bootstrap: directories, inodes, blobs
 * and their chunks.
 *
 * A struct rafs is one layer, or the merge of several.  Names and attributes come from hostile
 * tars: paths are at most 4095 bytes, names 255, nodes are counted against a bound, and nothing
 * here recurses over the depth of a tree. Chunks are shared by pointer: a file points to chunks of
 * any number of blobs. */
#ifndef WORKER_RAFS_RAFS_TREE_H
#define WORKER_RAFS_RAFS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "worker/rafs/rafs_v6.h"

struct err;
struct tar_entry;

#define RAFS_MAX_NODES 2000000u /* about 350 bytes each, from tree to bootstrap */

struct rafs_blob;
struct rafs_chunk {
	struct rafs_blob *blob;
	uint8_t digest[32];
	uint64_t stored_at, unpacked_at, file_at;
	uint32_t stored, unpacked;
	uint32_t index; /* in its blob */
	uint32_t crc;
	uint32_t flags; /* V6_CHUNK_* */
	bool seen;	/* scratch of rafs_layout */
};

struct rafs_blob { /* shared by trees: counted */
	uint32_t refs;
	char id[RAFS_ID_LEN +
		1]; /* lower hex; 64 times 'x' in a layer whose blob has no name yet */
	bool own; /* the blob of the layer this tree was made for, not one of a chunk dictionary */
	uint32_t chunk_size, compressor, digester, features;
	uint64_t stored, unpacked;
	uint32_t toc_size, ci_compressor;
	uint64_t ci_offset, ci_stored, ci_unpacked;
	uint8_t toc_digest[32], meta_digest[32];
	uint64_t meta_size;
	uint32_t chunk_count;
	struct rafs_chunk *chunks; /* those known: all when packed, the referenced ones when read;
				      fixed once referred to */
	size_t n_chunks;
	uint32_t index; /* scratch of rafs_layout: position in the blob table; UINT32_MAX: not in it
			 */
};

struct rafs_inode {    /* shared by hard links */
	uint32_t refs; /* nodes */
	uint16_t mode;
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_ns;
	uint32_t rdev; /* as Linux' new_encode_dev */
	uint64_t size; /* of a regular file or a link's text */
	char *link;
	uint8_t *xattr; /* as on disk, sorted by name; without the 12-byte header */
	uint32_t xattr_n;
	uint32_t n_chunks;
	struct rafs_chunk **chunks; /* NULL until known */
	uint32_t ticket;	    /* of its first chunk, while a layer is packed */
	bool explicit; /* a directory that looks implied (0755, root's, mtime 0) but was in the tar
			*/
	struct rafs_node *shown; /* scratch of rafs_check: a node of this inode that was shown */
	/* scratch of rafs_layout */
	uint32_t ino, nlink;
	uint64_t at, data_at; /* in the bootstrap */
};

struct rafs_node {
	struct rafs_node *parent; /* the root's: itself */
	struct rafs_inode *inode;
	void *children; /* a balanced tree (tsearch) by name; directories only */
	uint32_t n_children;
	bool implied; /* a parent that the tar did not name */
	uint8_t name_len;
	char name[]; /* with a NUL */
};

struct rafs {
	struct rafs_node *root;
	uint64_t nodes;
	struct rafs_blob **blobs;
	size_t n_blobs, cap_blobs;
	uint32_t chunk_size;
	enum v6_compressor compressor;
	enum v6_digester digester;
};

struct rafs *rafs_new(uint32_t chunk_size, enum v6_compressor c, enum v6_digester d);
void rafs_freep(struct rafs **fs);
struct rafs *rafs_clone(const struct rafs *fs);	  /* blobs are shared */
struct rafs_blob *rafs_add_blob(struct rafs *fs); /* zeroed, refs 1 */
void rafs_blob_put(struct rafs_blob *b);
/* What readers need to know of a blob is the same in both; names are not compared. */
bool rafs_blob_same(const struct rafs_blob *a, const struct rafs_blob *b);

/* One entry of a layer's tar, by the rules of the OCI layer and of upstream's builder: a later
 * entry of a path takes its place (a directory keeps its children), hard links share the target's
 * inode, whiteouts are kept as files, what an accelerated source added is skipped.  *file is the
 * inode whose data follow, or NULL. ERR_UNSUPPORTED or ERR_INVALID name the entry.  ERR_LIMIT: too
 * many nodes. */
int rafs_add_entry(struct rafs *fs, const struct tar_entry *t, struct rafs_inode **file,
		   struct err *e);

/* A hard link whose target is not in this layer is kept as an empty file with this attribute
 * (value: the path) until the merge finds the target below. */
#define RAFS_XATTR_LINK "acceld.hardlink" /* under trusted. */

/* ---- for readers and mergers */
struct rafs_inode *rafs_inode_new(uint16_t mode);
struct rafs_node *rafs_child(const struct rafs_node *dir, const char *name,
			     size_t n); /* NULL: none */
/* Takes the inode; the name must not be there yet.  NULL: ERR_LIMIT. */
struct rafs_node *rafs_insert(struct rafs *fs, struct rafs_node *dir, const char *name, size_t n,
			      struct rafs_inode *inode, struct err *e);
void rafs_remove(struct rafs *fs, struct rafs_node *node); /* with all below it */
void rafs_clear(struct rafs *fs, struct rafs_node *dir);   /* all below it */
struct rafs_node *rafs_detach(struct rafs *fs,
			      struct rafs_node *node); /* alone: its parent forgets it */
void rafs_attach(struct rafs *fs, struct rafs_node *dir, struct rafs_node *node);
void rafs_set_inode(struct rafs_node *node,
		    struct rafs_inode *inode); /* takes inode, drops the node's */
void rafs_inode_put(struct rafs_inode *i);
struct rafs_node *rafs_lookup(const struct rafs *fs, const char *clean); /* "" is the root */
/* The same, but symbolic links on the way (not the last) are followed. */
struct rafs_node *rafs_lookup_through(const struct rafs *fs, const char *clean);
/* Children sorted by name, into `to` of n_children. */
void rafs_children(const struct rafs_node *dir, struct rafs_node **to);
/* Value of an attribute by its on-disk index and name without prefix. */
const uint8_t *rafs_xattr(const struct rafs_inode *i, uint8_t index, const char *name, size_t *n);
void rafs_xattr_del(struct rafs_inode *i, uint8_t index, const char *name);
size_t rafs_xattr_disk(const struct rafs_inode *i); /* bytes with the header, or 0 */
static inline bool rafs_is_dir(const struct rafs_node *n)
{
	return S_ISDIR(n->inode->mode);
}

#endif
