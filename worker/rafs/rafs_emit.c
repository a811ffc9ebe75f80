/* worker/rafs/rafs_emit.c - see rafs_emit.h.  The image is zeroed memory of the right size; each
 * part is put to its place, and every place is checked to lie inside. */
#include "worker/rafs/rafs_emit.h"

#include <assert.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"

struct image {
	uint8_t *p;
	uint64_t n;
};

static void put(struct image *m, uint64_t at, const void *p, size_t n)
{
	assert(at <= m->n && n <= m->n - at);
	if (n)
		memcpy(m->p + at, p, n);
}

uint64_t rafs_flag_of_compressor(uint32_t c)
{
	static const uint64_t flag[V6_COMPRESSORS] = {V6_COMP_NONE, V6_COMP_LZ4, V6_COMP_GZIP,
						      V6_COMP_ZSTD};

	return c < V6_COMPRESSORS ? flag[c] : 0;
}

static void emit_super(const struct rafs_layout *l, struct image *m)
{
	const struct rafs *fs = l->fs;
	uint64_t blocks = 0, flags = V6_UIDGID | V6_PLAIN | V6_INLINED_DIGEST;
	struct v6_super sb = {0};
	struct v6_ext ext = {0};

	for (size_t i = 0; i < l->n_blobs; i++) {
		blocks += l->blobs[i]->unpacked / RAFS_BLOCK;
		if (!(l->blobs[i]->features & V6_BLOB_DIGEST))
			flags &= ~(uint64_t)V6_INLINED_DIGEST;
	}
	sb.magic = le32_of(RAFS_MAGIC);
	sb.feature_compat = le32_of(RAFS_COMPAT);
	sb.blkszbits = RAFS_BLOCK_BITS;
	sb.root_nid = le16_of(RAFS_ROOT_NID);
	sb.inos = le64_of(l->n);
	sb.blocks = le32_of((uint32_t)blocks);
	sb.meta_blkaddr = le32_of((uint32_t)(l->meta / RAFS_BLOCK));
	sb.feature_incompat = le32_of(RAFS_INCOMPAT);
	sb.extra_devices = le16_of((uint16_t)l->n_blobs);
	sb.devt_slotoff = le16_of(RAFS_DEVT_SLOT);
	put(m, RAFS_SUPER_AT, &sb, sizeof(sb));

	flags |= rafs_flag_of_compressor(fs->compressor);
	flags |= fs->digester == V6_DIGEST_SHA256 ? V6_SHA256 : V6_BLAKE3;
	if (l->has_xattr || !l->layer)
		flags |= V6_XATTR;
	ext.flags = le64_of(flags);
	ext.blob_table = le64_of(l->blob_table);
	ext.blob_table_size = le32_of((uint32_t)(l->n_blobs * sizeof(struct v6_blob)));
	ext.chunk_size = le32_of(fs->chunk_size);
	ext.chunk_table = le64_of(l->chunk_table);
	ext.chunk_table_size = le64_of(l->n_rows * sizeof(struct v6_chunk));
	if (l->n_prefetch) {
		ext.prefetch_table = le64_of(l->prefetch_table);
		ext.prefetch_table_size = le32_of((uint32_t)(4 * l->n_prefetch));
	}
	put(m, RAFS_EXT_AT, &ext, sizeof(ext));
}

/* If all were on one disk: the bootstrap, then each blob from a multiple of 512 KiB on. */
static void emit_devices(const struct rafs_layout *l, struct image *m)
{
	uint64_t at = rafs_up(l->size, 0x80000);

	for (size_t i = 0; i < l->n_blobs; i++) {
		struct v6_device d = {0};

		memcpy(d.id, l->blobs[i]->id, sizeof(d.id));
		d.blocks = le32_of((uint32_t)(l->blobs[i]->unpacked / RAFS_BLOCK));
		d.mapped_blkaddr = le32_of((uint32_t)(at / RAFS_BLOCK));
		put(m, RAFS_DEVICES_AT + i * sizeof(d), &d, sizeof(d));
		at = rafs_up(at + l->blobs[i]->unpacked, 0x80000);
	}
}

static void emit_blobs(const struct rafs_layout *l, struct image *m)
{
	for (size_t i = 0; i < l->n_blobs; i++) {
		const struct rafs_blob *b = l->blobs[i];
		uint32_t features = b->features & ~(uint32_t)V6_INLINED_META;
		struct v6_blob d = {
			.index = le32_of((uint32_t)i),
			.chunk_size = le32_of(b->chunk_size),
			.chunk_count = le32_of(b->chunk_count),
			.compressor = le32_of(b->compressor),
			.digester = le32_of(b->digester),
			.features =
				le32_of(l->layer && b->own ? features | V6_INLINED_META : features),
			.stored = le64_of(b->stored),
			.unpacked = le64_of(b->unpacked),
			.toc_size = le32_of(b->toc_size),
			.ci_compressor = le32_of(b->ci_compressor),
			.ci_offset = le64_of(b->ci_offset),
			.ci_stored = le64_of(b->ci_stored),
			.ci_unpacked = le64_of(b->ci_unpacked),
			.meta_size = le64_of(b->meta_size),
		};

		memcpy(d.id, b->id, sizeof(d.id));
		memcpy(d.toc_digest, b->toc_digest, sizeof(d.toc_digest));
		memcpy(d.meta_digest, b->meta_digest, sizeof(d.meta_digest));
		put(m, l->blob_table + i * sizeof(d), &d, sizeof(d));
	}
	for (size_t i = 0; i < l->n_prefetch; i++) {
		le32 nid = le32_of(l->prefetch[i]);

		put(m, l->prefetch_table + 4 * i, &nid, sizeof(nid));
	}
}

static uint8_t dirent_type(uint16_t mode)
{
	static const uint8_t type[16] = {
		[S_IFREG >> 12] = 1, [S_IFDIR >> 12] = 2,  [S_IFCHR >> 12] = 3, [S_IFBLK >> 12] = 4,
		[S_IFIFO >> 12] = 5, [S_IFSOCK >> 12] = 6, [S_IFLNK >> 12] = 7};

	return type[mode >> 12];
}

static uint64_t nid_of(const struct rafs_layout *l, const struct rafs_inode *i)
{
	return (i->at - l->meta) / RAFS_SLOT;
}

/* The kernel's unit of mapping: one extent when the chunks lie side by side in one blob, else the
 * chunk. */
static uint32_t chunk_format(const struct rafs_inode *i, uint32_t chunk_size)
{
	uint64_t unit = chunk_size;
	bool together = i->size > chunk_size;

	for (uint32_t k = 1; k < i->n_chunks && together; k++)
		together = i->chunks[k]->blob->index == i->chunks[k - 1]->blob->index &&
			   i->chunks[k]->unpacked_at == i->chunks[k - 1]->unpacked_at + chunk_size;
	while (together && unit < i->size)
		unit *= 2;
	return V6_CHUNK_INDEXES | (uint32_t)(__builtin_ctzll(unit) - (int)RAFS_BLOCK_BITS);
}

static void emit_inode(const struct rafs_layout *l, struct image *m, const struct rafs_inode *i)
{
	size_t xattr = rafs_xattr_disk(i);
	enum v6_layout layout = V6_FLAT_PLAIN;
	uint32_t u = i->rdev;
	struct v6_inode d;

	if (S_ISREG(i->mode)) {
		layout = V6_CHUNKED;
		u = chunk_format(i, l->fs->chunk_size);
	} else if (S_ISDIR(i->mode) || S_ISLNK(i->mode)) {
		layout = rafs_inlined(i) ? V6_FLAT_INLINE : V6_FLAT_PLAIN;
		u = (uint32_t)(i->data_at / RAFS_BLOCK);
	}
	d = (struct v6_inode){
		.format = le16_of((uint16_t)(V6_EXTENDED | layout << 1)),
		.xattr_icount = le16_of(xattr ? (uint16_t)((xattr - V6_XATTR_HEADER) / 4 + 1) : 0),
		.mode = le16_of(i->mode),
		.size = le64_of(i->size),
		.u = le32_of(u),
		.ino = le32_of(i->ino),
		.uid = le32_of(i->uid),
		.gid = le32_of(i->gid),
		.mtime = le64_of((uint64_t)i->mtime),
		.mtime_ns = le32_of(i->mtime_ns),
		.nlink = le32_of(i->nlink),
	};
	/* A layer's bootstrap has to tell apart what else would look the same: reserved bytes,
	 * which no one reads. */
	if (l->layer && i->explicit && i->mode == (S_IFDIR | 0755) && !i->uid && !i->gid &&
	    !i->mtime && !xattr)
		d.reserved2[0] = 1;
	put(m, i->at, &d, sizeof(d));
	if (xattr)
		put(m, i->at + sizeof(d) + V6_XATTR_HEADER, i->xattr, i->xattr_n);
	for (uint32_t k = 0; k < i->n_chunks; k++) {
		const struct rafs_chunk *c = i->chunks[k];
		struct v6_chunk_index x = {le16_of((uint16_t)c->index),
					   (uint8_t)(c->blob->index + 1), (uint8_t)(c->index >> 16),
					   le32_of((uint32_t)(c->unpacked_at / RAFS_BLOCK))};

		put(m, rafs_up(i->at + rafs_inode_bytes(i), 8) + k * sizeof(x), &x, sizeof(x));
	}
}

/* Full blocks to data_at, the rest behind the inode if it is inlined. */
static void emit_tail_data(struct image *m, const struct rafs_inode *i, const uint8_t *p)
{
	uint64_t tail = i->size % RAFS_BLOCK;

	if (!rafs_inlined(i)) {
		put(m, i->data_at, p, i->size);
		return;
	}
	put(m, i->data_at, p, i->size - tail);
	put(m, i->at + rafs_inode_bytes(i), p + i->size - tail, tail);
}

/* One block: n dirents, then their names. */
static void dirent_block(const struct rafs_layout *l, uint8_t *block,
			 const struct rafs_entry *entry, size_t n)
{
	size_t nameoff = n * sizeof(struct v6_dirent);

	for (size_t i = 0; i < n; i++) {
		struct v6_dirent d = {le64_of(nid_of(l, entry[i].node->inode)),
				      le16_of((uint16_t)nameoff),
				      dirent_type(entry[i].node->inode->mode), 0};

		memcpy(block + i * sizeof(d), &d, sizeof(d));
		memcpy(block + nameoff, entry[i].name, entry[i].n);
		nameoff += entry[i].n;
	}
}

static void emit_directory(const struct rafs_layout *l, struct image *m, const struct rafs_visit *v)
{
	size_t n = v->dir->n_children + 2u, first = 0, used = 0;
	scoped_free struct rafs_entry *entry = mem_array(n, sizeof(*entry));
	scoped_free uint8_t *data = mem_zalloc(rafs_up(v->dir->inode->size, RAFS_BLOCK));
	uint8_t *block = data;

	rafs_entries(l, v, entry);
	for (size_t i = 0; i < n; i++) {
		if (!rafs_entry_fits(used, entry[i].n)) {
			dirent_block(l, block, entry + first, i - first);
			block += RAFS_BLOCK;
			first = i;
			used = 0;
		}
		used += sizeof(struct v6_dirent) + entry[i].n;
	}
	dirent_block(l, block, entry + first, n - first);
	assert((uint64_t)(block - data) + used == v->dir->inode->size);
	emit_tail_data(m, v->dir->inode, data);
}

static void emit_chunks(const struct rafs_layout *l, struct image *m)
{
	for (size_t i = 0; i < l->n_rows; i++) {
		const struct rafs_chunk *c = l->rows[i];
		struct v6_chunk d = {
			.blob = le32_of(c->blob->index),
			.flags = le32_of(c->flags),
			.stored = le32_of(c->stored),
			.unpacked = le32_of(c->unpacked),
			.stored_at = le64_of(c->stored_at),
			.unpacked_at = le64_of(c->unpacked_at),
			.file_at = le64_of(c->file_at),
			.index = le32_of(c->index),
			.crc32c = le32_of(c->crc),
		};

		memcpy(d.digest, c->digest, sizeof(d.digest));
		put(m, l->chunk_table + i * sizeof(d), &d, sizeof(d));
	}
}

int rafs_emit(const struct rafs_layout *l, struct buf *to, struct err *e)
{
	struct image m = {.n = l->size};

	if (buf_reserve(to, l->size, e) < 0)
		return err_wrap(e, "bootstrap of %llu bytes", (unsigned long long)l->size);
	m.p = (uint8_t *)to->data + to->len;
	memset(m.p, 0, l->size);
	emit_super(l, &m);
	emit_devices(l, &m);
	emit_blobs(l, &m);
	for (size_t i = 0; i < l->n; i++) {
		const struct rafs_inode *inode = l->order[i]->inode;

		if (inode->ino != i + 1)
			continue; /* another name of it was first */
		emit_inode(l, &m, inode);
		if (S_ISLNK(inode->mode))
			emit_tail_data(&m, inode, (const uint8_t *)inode->link);
	}
	for (size_t i = 0; i < l->n_dirs; i++)
		emit_directory(l, &m, &l->dirs[i]);
	emit_chunks(l, &m);
	to->len += l->size;
	to->data[to->len] = '\0';
	return 0;
}

int rafs_write(struct rafs *fs, const struct rafs_layout_opts *o, struct buf *to, struct err *e)
{
	struct rafs_layout l;
	int r = rafs_layout(&l, fs, o, e);

	if (r == 0)
		r = rafs_emit(&l, to, e);
	rafs_layout_fini(&l);
	return r;
}
