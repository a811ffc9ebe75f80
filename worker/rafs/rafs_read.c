/* worker/rafs/rafs_read.c - see rafs_read.h.  Every offset and count comes from outside: each is
 * checked before use, and directories are walked with a list, each inode number once. */
#include "worker/rafs/rafs_read.h"

#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/rafs/rafs_emit.h"

struct seen { /* inode number -> inode */
	uint64_t nid;
	struct rafs_inode *inode;
};

struct todo { /* a directory still to be read */
	struct rafs_node *node;
	uint64_t nid;
};

struct reader {
	const uint8_t *p;
	uint64_t n;
	const struct v6_super *sb;
	const struct v6_ext *ext;
	uint64_t meta;
	struct rafs *fs;
	struct seen *seen;
	size_t n_seen, cap_seen;
	struct todo *todo;
	size_t n_todo, cap_todo;
	uint64_t taken; /* bytes that inodes and directories have said to be theirs */
};

/* ---- superblock and tables */

struct rule {
	bool broken;
	const char *what;
};

static int first_broken(const struct rule *r, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (r[i].broken)
			return err_set(e, ERR_CORRUPT, "%s", r[i].what);
	return 0;
}
#define CHECK(rules) first_broken(rules, sizeof(rules) / sizeof((rules)[0]), e)

static bool one_bit(uint64_t v)
{
	return v && !(v & (v - 1));
}

static int read_super(struct reader *r, struct err *e)
{
	const struct v6_super *sb = r->sb = (const void *)(r->p + RAFS_SUPER_AT);
	const struct v6_ext *x = r->ext = (const void *)(r->p + RAFS_EXT_AT);
	uint64_t flags = le64_get(x->flags), devices = le16_get(sb->extra_devices);
	uint32_t blocks = le32_get(sb->blocks), chunk = le32_get(x->chunk_size);
	const struct rule rules[] = {
		{le32_get(sb->magic) != RAFS_MAGIC, "superblock: this is no EROFS image"},
		{le32_get(sb->checksum) != 0, "superblock: checksum is not 0"},
		{sb->blkszbits != RAFS_BLOCK_BITS, "superblock: blocks are not of 4096 bytes"},
		{sb->extslots != 0, "superblock: extension slots"},
		{le64_get(sb->inos) == 0, "superblock: no inodes"},
		{le16_get(sb->compr) != 0, "superblock: compression settings are not 0"},
		{le32_get(sb->xattr_blkaddr) != 0, "superblock: shared attributes"},
		{devices == 0 && blocks != 0 && blocks != 4096,
		 "superblock: blocks without a device"},
		{le16_get(sb->devt_slotoff) != RAFS_DEVT_SLOT,
		 "superblock: device table is not in slot 11"},
		{le32_get(sb->feature_incompat) != RAFS_INCOMPAT,
		 "superblock: incompatible features are not 0xc"},
		{!(le32_get(sb->feature_compat) & RAFS_COMPAT),
		 "superblock: not marked as RAFS v6"},
		{le16_get(sb->root_nid) == 0, "superblock: the root has inode number 0"},
		{!one_bit(flags & V6_COMP_MASK), "superblock: not exactly one compressor"},
		{!one_bit(flags & V6_DIGEST_MASK), "superblock: not exactly one digester"},
		{(flags & ~V6_KNOWN_FLAGS) != 0, "superblock: unknown flags"},
		{!one_bit(chunk) || chunk < RAFS_CHUNK_MIN || chunk > RAFS_CHUNK_MAX,
		 "superblock: chunk size is no power of two from 4096 to 16 MiB"},
		{devices > RAFS_MAX_BLOBS, "superblock: more than 254 devices"},
	};

	r->meta = (uint64_t)le32_get(sb->meta_blkaddr) * RAFS_BLOCK;
	if (CHECK(rules) < 0)
		return -1;
	if (r->meta >= r->n)
		return err_set(e, ERR_CORRUPT, "superblock: inodes begin behind the end");
	if (flags & (V6_TARFS | V6_ENCRYPTED))
		return err_set(e, ERR_UNSUPPORTED, "the image is %s",
			       flags & V6_TARFS ? "a tarfs" : "encrypted");
	return 0;
}

static bool overlap(uint64_t a, uint64_t an, uint64_t b, uint64_t bn)
{
	return an && bn && a < b + bn && b < a + an;
}

static int check_tables(const struct reader *r, struct err *e)
{
	uint64_t devices_end =
		RAFS_DEVICES_AT + le16_get(r->sb->extra_devices) * sizeof(struct v6_device);
	uint64_t bt = le64_get(r->ext->blob_table), bn = le32_get(r->ext->blob_table_size);
	uint64_t ct = le64_get(r->ext->chunk_table), cn = le64_get(r->ext->chunk_table_size);
	uint64_t pt = le64_get(r->ext->prefetch_table), pn = le32_get(r->ext->prefetch_table_size);
	const struct rule rules[] = {
		{devices_end > r->n, "device table ends behind the end"},
		{bt % RAFS_BLOCK != 0, "blob table does not start a block"},
		{bn % sizeof(struct v6_blob) != 0, "blob table is no multiple of 256 bytes"},
		{bn && (bt < devices_end || bt > r->n || bn > r->n - bt),
		 "blob table is out of bounds"},
		{bn / sizeof(struct v6_blob) != le16_get(r->sb->extra_devices),
		 "blob table and devices differ in number"},
		{ct % RAFS_BLOCK != 0, "chunk table does not start a block"},
		{cn % sizeof(struct v6_chunk) != 0, "chunk table is no multiple of 80 bytes"},
		{cn && (ct < devices_end || ct > r->n || cn > r->n - ct),
		 "chunk table is out of bounds"},
		{pt % 8 != 0, "prefetch table is not aligned"},
		{pn % 4 != 0, "prefetch table is no multiple of 4 bytes"},
		{pn && (pt < devices_end || pt > r->n || pn > r->n - pt),
		 "prefetch table is out of bounds"},
		{overlap(bt, bn, ct, cn) || overlap(bt, bn, pt, pn) || overlap(ct, cn, pt, pn),
		 "tables overlap"},
	};

	return CHECK(rules);
}

static int check_id(const char id[RAFS_ID_LEN], size_t i, const struct reader *r, struct err *e)
{
	const struct v6_device *d = (const void *)(r->p + RAFS_DEVICES_AT);

	if (!str_utf8_valid(id, strnlen(id, RAFS_ID_LEN)) || !id[0])
		return err_set(e, ERR_CORRUPT, "device %zu: its name is not UTF-8", i);
	if (!le32_get(d[i].blocks))
		return err_set(e, ERR_CORRUPT, "device %zu has no blocks", i);
	for (size_t k = 0; k < i; k++)
		if (!memcmp(d[k].id, id, RAFS_ID_LEN))
			return err_set(e, ERR_CORRUPT, "devices %zu and %zu have one name", k, i);
	return 0;
}

static int check_blob(const struct reader *r, const struct v6_blob *d, size_t i, struct err *e)
{
	uint32_t features = le32_get(d->features), count = le32_get(d->chunk_count);
	uint64_t at = le64_get(d->ci_offset), stored = le64_get(d->ci_stored),
		 n = le64_get(d->ci_unpacked);
	uint64_t v2 = (uint64_t)count * sizeof(struct v6_info2);
	bool contexts = features & (V6_BATCH | V6_ZRAN | V6_ENC_BLOB);
	const struct rule rules[] = {
		{le32_get(d->index) != i, "index is not its position"},
		{le32_get(d->chunk_size) != le32_get(r->ext->chunk_size),
		 "chunk size is not the image's"},
		{count == 0 || count > RAFS_MAX_CHUNKS, "number of chunks"},
		{le32_get(d->compressor) >= V6_COMPRESSORS, "unknown compressor"},
		{le32_get(d->digester) >= V6_DIGESTERS, "unknown digester"},
		{le32_get(d->cipher) > 1, "unknown cipher"},
		{le32_get(d->ci_compressor) >= V6_COMPRESSORS, "unknown compressor of chunk infos"},
		{le64_get(d->unpacked) > RAFS_MAX_UNPACKED, "unpacked size"},
		{le64_get(d->stored) > RAFS_MAX_STORED, "stored size"},
		{features & (V6_UNKNOWN_LOW | V6_INTERNAL), "unknown features"},
		{!(features & V6_ALIGNED), "chunks are not aligned"},
		{at + stored < at, "chunk infos end behind everything"},
		{stored > n, "chunk infos are larger when compressed"},
		{!(features & V6_CHUNK_INFO_V2) && n != (uint64_t)count * sizeof(struct v6_info),
		 "chunk infos are not 16 bytes a chunk"},
		{(features & V6_CHUNK_INFO_V2) && (contexts ? n < v2 : n != v2),
		 "chunk infos are not 24 bytes a chunk"},
		{contexts && !(features & V6_CHUNK_INFO_V2),
		 "features need chunk infos of the second form"},
	};

	if (CHECK(rules) < 0)
		return err_wrap(e, "blob %zu", i);
	return 0;
}

static int read_blobs(struct reader *r, struct err *e)
{
	const struct v6_blob *d = (const void *)(r->p + le64_get(r->ext->blob_table));
	const struct v6_device *device = (const void *)(r->p + RAFS_DEVICES_AT);
	size_t n = le32_get(r->ext->blob_table_size) / sizeof(*d);

	for (size_t i = 0; i < n; i++) {
		struct rafs_blob *b;

		if (check_id(device[i].id, i, r, e) < 0 || check_blob(r, &d[i], i, e) < 0)
			return -1;
		for (size_t k = 0; k < i; k++)
			if (!memcmp(d[k].id, d[i].id, RAFS_ID_LEN))
				return err_set(e, ERR_CORRUPT, "blobs %zu and %zu have one name", k,
					       i);
		b = rafs_add_blob(r->fs);
		memcpy(b->id, d[i].id, RAFS_ID_LEN);
		if (!b->id[0] || !str_utf8_valid(b->id, strlen(b->id)))
			return err_set(e, ERR_CORRUPT, "blob %zu: its name is not UTF-8", i);
		b->own = le32_get(d[i].features) & V6_INLINED_META;
		b->chunk_size = le32_get(d[i].chunk_size);
		b->chunk_count = le32_get(d[i].chunk_count);
		b->compressor = le32_get(d[i].compressor);
		b->digester = le32_get(d[i].digester);
		b->features = le32_get(d[i].features) & ~(uint32_t)V6_INLINED_META;
		b->stored = le64_get(d[i].stored);
		b->unpacked = le64_get(d[i].unpacked);
		b->toc_size = le32_get(d[i].toc_size);
		b->ci_compressor = le32_get(d[i].ci_compressor);
		b->ci_offset = le64_get(d[i].ci_offset);
		b->ci_stored = le64_get(d[i].ci_stored);
		b->ci_unpacked = le64_get(d[i].ci_unpacked);
		memcpy(b->toc_digest, d[i].toc_digest, 32);
		memcpy(b->meta_digest, d[i].meta_digest, 32);
		b->meta_size = le64_get(d[i].meta_size);
	}
	return 0;
}

/* ---- chunk table: to each blob its rows, by their number */

static int by_index(const void *a, const void *b)
{
	uint32_t x = ((const struct rafs_chunk *)a)->index,
		 y = ((const struct rafs_chunk *)b)->index;

	return x < y ? -1 : x > y;
}

static int read_row(struct rafs_chunk *c, const struct v6_chunk *d, struct rafs_blob *b,
		    struct err *e)
{
	*c = (struct rafs_chunk){.blob = b,
				 .index = le32_get(d->index),
				 .flags = le32_get(d->flags),
				 .stored = le32_get(d->stored),
				 .unpacked = le32_get(d->unpacked),
				 .stored_at = le64_get(d->stored_at),
				 .unpacked_at = le64_get(d->unpacked_at),
				 .file_at = le64_get(d->file_at),
				 .crc = le32_get(d->crc32c)};
	memcpy(c->digest, d->digest, sizeof(c->digest));
	if (c->index >= b->chunk_count || !c->unpacked || c->unpacked > b->chunk_size ||
	    c->unpacked_at % RAFS_BLOCK || c->unpacked_at > RAFS_MAX_UNPACKED ||
	    c->unpacked_at + c->unpacked > rafs_up(b->unpacked, RAFS_BLOCK))
		return err_set(e, ERR_CORRUPT,
			       "chunk table: chunk %u of blob %.12s is out of bounds", c->index,
			       b->id);
	return 0;
}

static int read_chunks(struct reader *r, struct err *e)
{
	const struct v6_chunk *d = (const void *)(r->p + le64_get(r->ext->chunk_table));
	size_t n = le64_get(r->ext->chunk_table_size) / sizeof(*d);
	struct rafs *fs = r->fs;

	for (size_t i = 0; i < n; i++) {
		if (le32_get(d[i].blob) >= fs->n_blobs)
			return err_set(e, ERR_CORRUPT, "chunk table: row %zu names blob %u of %zu",
				       i, le32_get(d[i].blob), fs->n_blobs);
		fs->blobs[le32_get(d[i].blob)]->n_chunks++;
	}
	for (size_t i = 0; i < fs->n_blobs; i++) {
		fs->blobs[i]->chunks = mem_array(fs->blobs[i]->n_chunks, sizeof(struct rafs_chunk));
		fs->blobs[i]->n_chunks = 0;
	}
	for (size_t i = 0; i < n; i++) {
		struct rafs_blob *b = fs->blobs[le32_get(d[i].blob)];

		if (read_row(&b->chunks[b->n_chunks++], &d[i], b, e) < 0)
			return -1;
	}
	for (size_t i = 0; i < fs->n_blobs; i++) {
		struct rafs_blob *b = fs->blobs[i];

		qsort(b->chunks, b->n_chunks, sizeof(b->chunks[0]), by_index);
		for (size_t k = 1; k < b->n_chunks; k++)
			if (b->chunks[k].index == b->chunks[k - 1].index)
				return err_set(e, ERR_CORRUPT,
					       "chunk table: chunk %u of blob %zu twice",
					       b->chunks[k].index, i);
	}
	return 0;
}

/* ---- inodes */

static size_t seen_slot(const struct reader *r, uint64_t nid)
{
	size_t at = (size_t)(nid * 0x9e3779b97f4a7c15u) & (r->cap_seen - 1);

	while (r->seen[at].inode && r->seen[at].nid != nid)
		at = (at + 1) & (r->cap_seen - 1);
	return at;
}

static void remember(struct reader *r, uint64_t nid, struct rafs_inode *inode)
{
	if (2 * r->n_seen >= r->cap_seen) {
		struct seen *old = r->seen;
		size_t n = r->cap_seen;

		r->cap_seen = n ? 2 * n : 1024;
		r->seen = mem_array(r->cap_seen, sizeof(r->seen[0]));
		for (size_t i = 0; i < n; i++)
			if (old[i].inode)
				r->seen[seen_slot(r, old[i].nid)] = old[i];
		free(old);
	}
	r->seen[seen_slot(r, nid)] = (struct seen){nid, inode};
	r->n_seen++;
}

struct raw {		    /* an inode as it lies there */
	uint64_t at, bytes; /* with its attributes */
	enum v6_layout layout;
	uint32_t u;
};

static bool inside(const struct reader *r, uint64_t at, uint64_t n)
{
	return at <= r->n && n <= r->n - at;
}

/* No writer lets two of them share bytes: so what is kept of an image is never more than a small
 * multiple of it, however often it says that the same bytes are attributes, chunks or names. */
static int take(struct reader *r, uint64_t n, struct err *e)
{
	r->taken += n;
	if (r->taken > r->n)
		return err_set(e, ERR_CORRUPT, "parts of the image overlap");
	return 0;
}

static int read_xattrs(struct reader *r, struct rafs_inode *i, uint64_t at, uint64_t n,
		       struct err *e)
{
	const uint8_t *p = r->p + at + V6_XATTR_HEADER;
	uint64_t used = 0;

	if (!inside(r, at, n))
		return err_set(e, ERR_CORRUPT, "attributes end behind the image");
	if (r->p[at + 4])
		return err_set(e, ERR_CORRUPT, "shared attributes");
	if (take(r, n, e) < 0)
		return -1;
	n -= V6_XATTR_HEADER;
	while (used < n) {
		const struct v6_xattr *x = (const void *)(p + used);
		uint64_t bytes =
			n - used < sizeof(*x)
				? n - used + 1
				: rafs_up(sizeof(*x) + x->name_len + le16_get(x->value_len), 4);

		if (bytes > n - used)
			return err_set(e, ERR_CORRUPT, "an attribute ends behind the others");
		if (!(x->name_index >= 1 && x->name_index <= 6 && x->name_index != 5))
			return err_set(e, ERR_CORRUPT, "unknown attribute prefix %u",
				       x->name_index);
		if (memchr(x + 1, 0, x->name_len))
			return err_set(e, ERR_CORRUPT, "an attribute's name holds a NUL");
		used += bytes;
	}
	if (n) {
		i->xattr = mem_dup(p, n);
		i->xattr_n = (uint32_t)n;
	}
	return 0;
}

static int read_header(struct reader *r, uint64_t nid, struct raw *raw, struct rafs_inode *i,
		       struct err *e)
{
	uint64_t xattr;
	uint16_t format;

	raw->at = r->meta + nid * RAFS_SLOT;
	if (nid > r->n / RAFS_SLOT || !inside(r, raw->at, sizeof(struct v6_compact)))
		return err_set(e, ERR_CORRUPT, "inode %llu lies behind the end",
			       (unsigned long long)nid);
	const struct v6_compact *c = (const void *)(r->p + raw->at);
	const struct v6_inode *d = (const void *)c;

	format = le16_get(c->format);
	raw->layout = format >> 1;
	xattr = le16_get(c->xattr_icount);
	xattr = xattr ? V6_XATTR_HEADER + (xattr - 1) * 4 : 0;
	i->mode = le16_get(c->mode);
	if (format & V6_EXTENDED) {
		if (!inside(r, raw->at, sizeof(*d)))
			return err_set(e, ERR_CORRUPT, "inode %llu ends behind the end",
				       (unsigned long long)nid);
		i->size = le64_get(d->size);
		i->uid = le32_get(d->uid);
		i->gid = le32_get(d->gid);
		i->mtime = (int64_t)le64_get(d->mtime);
		i->mtime_ns = le32_get(d->mtime_ns);
		i->explicit = d->reserved2[0];
		raw->u = le32_get(d->u);
		raw->bytes = sizeof(*d);
	} else {
		i->size = le32_get(c->size);
		i->uid = le16_get(c->uid);
		i->gid = le16_get(c->gid);
		raw->u = le32_get(c->u);
		raw->bytes = sizeof(*c);
	}
	if (raw->layout != V6_FLAT_PLAIN && raw->layout != V6_FLAT_INLINE &&
	    raw->layout != V6_CHUNKED)
		return err_set(e, ERR_CORRUPT, "unknown layout %u", format);
	if (xattr && read_xattrs(r, i, raw->at + raw->bytes, xattr, e) < 0)
		return -1;
	raw->bytes += xattr;
	return 0;
}

/* Block k of a directory's or link's data; *n bytes of it count. */
static const uint8_t *data_block(const struct reader *r, const struct raw *raw, uint64_t size,
				 uint64_t k, size_t *n, struct err *e)
{
	uint64_t left = size - k * RAFS_BLOCK, at = ((uint64_t)raw->u + k) * RAFS_BLOCK;

	*n = left < RAFS_BLOCK ? (size_t)left : RAFS_BLOCK;
	if (raw->layout == V6_FLAT_INLINE && left < RAFS_BLOCK) {
		at = raw->at + raw->bytes;
		if (at / RAFS_BLOCK != (at + left - 1) / RAFS_BLOCK) {
			err_set(e, ERR_CORRUPT, "inline data cross a block");
			return NULL;
		}
	}
	if (raw->layout == V6_CHUNKED || !inside(r, at, *n)) {
		err_set(e, ERR_CORRUPT, "data lie behind the end");
		return NULL;
	}
	return r->p + at;
}

static int read_link(struct reader *r, const struct raw *raw, struct rafs_inode *i, struct err *e)
{
	const uint8_t *p;
	size_t n;

	if (!i->size || i->size > RAFS_LINK_MAX)
		return err_set(e, ERR_CORRUPT, "symbolic link to a path of %llu bytes",
			       (unsigned long long)i->size);
	p = data_block(r, raw, i->size, 0, &n, e);
	if (!p)
		return -1;
	if (memchr(p, 0, n))
		return err_set(e, ERR_CORRUPT, "symbolic link to a path with a NUL");
	if (take(r, n, e) < 0)
		return -1;
	i->link = mem_strndup((const char *)p, n);
	return 0;
}

static struct rafs_chunk *row_of(const struct reader *r, const struct v6_chunk_index *x,
				 struct err *e)
{
	struct rafs_chunk key = {.index = le16_get(x->ci_low) | (uint32_t)x->ci_high << 16},
			  *c = NULL;
	const struct rafs_blob *b;

	if (!x->device || x->device > r->fs->n_blobs) {
		err_set(e, ERR_CORRUPT, "chunk on device %u of %zu", x->device, r->fs->n_blobs);
		return NULL;
	}
	b = r->fs->blobs[x->device - 1];
	if (b->n_chunks)
		c = bsearch(&key, b->chunks, b->n_chunks, sizeof(*c), by_index);
	if (!c || c->unpacked_at / RAFS_BLOCK != le32_get(x->block)) {
		err_set(e, ERR_CORRUPT, "chunk %u of blob %u is not in the chunk table", key.index,
			x->device - 1);
		return NULL;
	}
	return c;
}

/* The kernel maps by units: they must be the chunks, or everything must be one extent. */
static int check_format(const struct reader *r, const struct rafs_inode *i, uint32_t format,
			struct err *e)
{
	unsigned bits = (format & 0x1f) + RAFS_BLOCK_BITS;
	uint64_t unit = (uint64_t)1 << (bits < 63 ? bits : 63);

	if ((format & ~0x1fu) != V6_CHUNK_INDEXES || unit < r->fs->chunk_size)
		return err_set(e, ERR_CORRUPT, "chunk format %#x", format);
	if (unit == r->fs->chunk_size)
		return 0;
	for (uint32_t k = 1; k < i->n_chunks; k++)
		if (unit < i->size || i->chunks[k]->blob != i->chunks[0]->blob ||
		    i->chunks[k]->unpacked_at !=
			    i->chunks[0]->unpacked_at + (uint64_t)k * r->fs->chunk_size)
			return err_set(e, ERR_CORRUPT, "chunk format %#x of scattered chunks",
				       format);
	return 0;
}

static int read_file(struct reader *r, const struct raw *raw, struct rafs_inode *i, struct err *e)
{
	uint64_t at = rafs_up(raw->at + raw->bytes, 8), n = i->size / r->fs->chunk_size;

	n += i->size % r->fs->chunk_size != 0;
	if (raw->layout != V6_CHUNKED)
		return err_set(e, ERR_CORRUPT, "a file that is not made of chunks");
	if (n > r->n / sizeof(struct v6_chunk_index) ||
	    !inside(r, at, n * sizeof(struct v6_chunk_index)))
		return err_set(e, ERR_CORRUPT, "chunk indexes end behind the end");
	if (take(r, n * sizeof(struct v6_chunk_index), e) < 0)
		return -1;
	i->n_chunks = (uint32_t)n;
	i->chunks = mem_array(n, sizeof(i->chunks[0]));
	for (uint64_t k = 0; k < n; k++) {
		uint64_t left = i->size - k * r->fs->chunk_size;
		struct rafs_chunk *c =
			row_of(r, (const void *)(r->p + at + k * sizeof(struct v6_chunk_index)), e);

		if (!c)
			return -1;
		if (c->unpacked != (left < r->fs->chunk_size ? left : r->fs->chunk_size))
			return err_set(e, ERR_CORRUPT, "chunk %u of %llu has %u bytes", (unsigned)k,
				       (unsigned long long)n, c->unpacked);
		i->chunks[k] = c;
	}
	return check_format(r, i, raw->u, e);
}

static void inode_putp(struct rafs_inode **i)
{
	rafs_inode_put(*i);
	*i = NULL;
}

/* Counted for the caller; a directory's children come later. */
static struct rafs_inode *read_inode(struct reader *r, uint64_t nid, struct err *e)
{
	scoped(inode_putp) struct rafs_inode *i = NULL;
	struct raw raw;
	int rc = 0;

	if (r->cap_seen) {
		struct rafs_inode *known = r->seen[seen_slot(r, nid)].inode;

		if (known && S_ISDIR(known->mode)) {
			err_set(e, ERR_CORRUPT, "directory %llu has two names",
				(unsigned long long)nid);
			return NULL;
		}
		if (known) {
			known->refs++;
			return known;
		}
	}
	i = rafs_inode_new(0);
	if (read_header(r, nid, &raw, i, e) < 0)
		return NULL;
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		rc = read_file(r, &raw, i, e);
		break;
	case S_IFLNK:
		rc = read_link(r, &raw, i, e);
		break;
	case S_IFDIR:
		break;
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		i->rdev = raw.u;
		break;
	default:
		rc = err_set(e, ERR_CORRUPT, "unknown kind of file, mode %o", i->mode);
	}
	if (rc < 0)
		return NULL;
	remember(r, nid, i);
	return take_ptr(i);
}

/* ---- directories */

struct dirscan {
	struct rafs_node *dir;
	uint64_t nid;
	const uint8_t *last; /* name before, for the order */
	size_t last_n;
	unsigned dots;
};

static int check_order(struct dirscan *s, const uint8_t *name, size_t n, struct err *e)
{
	size_t m = n < s->last_n ? n : s->last_n;
	int r = s->last ? memcmp(s->last, name, m) : -1;

	if (!n || n > RAFS_NAME_MAX || memchr(name, '/', n) || memchr(name, 0, n))
		return err_set(e, ERR_CORRUPT, "a name of %zu bytes, or with a slash or NUL", n);
	if (r > 0 || (r == 0 && s->last_n >= n))
		return err_set(e, ERR_CORRUPT, "names are not sorted");
	s->last = name;
	s->last_n = n;
	return 0;
}

static bool looks_implied(const struct rafs_inode *i)
{
	return i->mode == (S_IFDIR | 0755) && !i->uid && !i->gid && !i->mtime && !i->xattr_n &&
	       !i->explicit;
}

static int add_name(struct reader *r, struct dirscan *s, const struct v6_dirent *d,
		    const uint8_t *name, size_t n, struct err *e)
{
	uint64_t nid = le64_get(d->nid);
	struct rafs_inode *inode;
	struct rafs_node *node;
	static const uint16_t mode[8] = {0,	  S_IFREG, S_IFDIR,  S_IFCHR,
					 S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};

	if (check_order(s, name, n, e) < 0 || take(r, sizeof(*d) + n, e) < 0)
		return -1;
	if (name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.'))) {
		s->dots++;
		if (n == 1 && nid != s->nid)
			return err_set(e, ERR_CORRUPT, "\".\" is another inode");
		return 0;
	}
	inode = read_inode(r, nid, e);
	if (!inode)
		return -1;
	node = rafs_insert(r->fs, s->dir, (const char *)name, n, inode, e);
	if (!node)
		return -1;
	if (d->type > 7 || mode[d->type] != (inode->mode & S_IFMT))
		return err_set(e, ERR_CORRUPT, "entry of type %u is an inode of mode %o", d->type,
			       inode->mode);
	if (rafs_is_dir(node)) {
		node->implied = looks_implied(inode);
		mem_grow(r->todo, r->n_todo, r->cap_todo);
		r->todo[r->n_todo++] = (struct todo){node, nid};
	}
	return 0;
}

static int read_block(struct reader *r, struct dirscan *s, const uint8_t *p, size_t n,
		      struct err *e)
{
	const struct v6_dirent *d = (const void *)p;
	size_t first = n < sizeof(*d) ? 0 : le16_get(d->nameoff), count = first / sizeof(*d);

	if (!count || first % sizeof(*d) || first > n)
		return err_set(e, ERR_CORRUPT, "directory block: names begin at %zu", first);
	for (size_t i = 0; i < count; i++) {
		size_t from = le16_get(d[i].nameoff),
		       to = i + 1 < count ? le16_get(d[i + 1].nameoff) : n;

		if (from < first || from > to || to > n)
			return err_set(e, ERR_CORRUPT, "directory block: a name from %zu to %zu",
				       from, to);
		if (add_name(r, s, &d[i], p + from,
			     i + 1 < count ? to - from : strnlen((const char *)p + from, to - from),
			     e) < 0)
			return err_wrap(e, "\"%.*s\"", (int)(to - from < 64 ? to - from : 64),
					p + from);
	}
	return 0;
}

static int read_directory(struct reader *r, struct todo t, struct err *e)
{
	struct dirscan s = {.dir = t.node, .nid = t.nid};
	struct rafs_inode scratch = {0};
	uint64_t size = t.node->inode->size, taken = r->taken;
	struct raw raw;
	int rc;

	if (size > r->n)
		return err_set(e, ERR_CORRUPT, "a directory of %llu bytes",
			       (unsigned long long)size);
	r->taken = 0;
	rc = read_header(r, t.nid, &raw, &scratch, e); /* where it lies; it was read before */
	r->taken = taken;
	free(scratch.xattr);
	if (rc < 0)
		return -1;
	for (uint64_t k = 0; k * RAFS_BLOCK < size; k++) {
		size_t n;
		const uint8_t *p = data_block(r, &raw, size, k, &n, e);

		if (!p || read_block(r, &s, p, n, e) < 0)
			return -1;
	}
	return s.dots == 2 ? 0 : err_set(e, ERR_CORRUPT, "\".\" or \"..\" is missing");
}

static int read_tree(struct reader *r, struct err *e)
{
	uint64_t root = le16_get(r->sb->root_nid);
	struct rafs_inode *inode = read_inode(r, root, e);

	if (!inode)
		return err_wrap(e, "the root");
	rafs_set_inode(r->fs->root, inode);
	if (!S_ISDIR(inode->mode))
		return err_set(e, ERR_CORRUPT, "the root is not a directory");
	r->fs->root->implied = looks_implied(inode);
	mem_grow(r->todo, r->n_todo, r->cap_todo);
	r->todo[r->n_todo++] = (struct todo){r->fs->root, root};
	while (r->n_todo) {
		struct todo t = r->todo[--r->n_todo];

		if (read_directory(r, t, e) < 0)
			return err_wrap(e, "directory \"%s\"", t.node->name);
	}
	return 0;
}

static int read_bootstrap(struct rafs **to, const void *p, size_t n, bool tree, struct err *e)
{
	struct reader r = {.p = p, .n = n};
	uint64_t flags;
	int rc;

	if (n < RAFS_BLOCK || n % RAFS_BLOCK)
		return err_set(e, ERR_CORRUPT, "%zu bytes are no whole blocks", n);
	if (read_super(&r, e) < 0 || check_tables(&r, e) < 0)
		return -1;
	flags = le64_get(r.ext->flags);
	r.fs = rafs_new(le32_get(r.ext->chunk_size), V6_NONE,
			flags & V6_SHA256 ? V6_DIGEST_SHA256 : V6_DIGEST_BLAKE3);
	while (rafs_flag_of_compressor(r.fs->compressor) != (flags & V6_COMP_MASK))
		r.fs->compressor++;
	rc = read_blobs(&r, e);
	if (rc == 0)
		rc = read_chunks(&r, e);
	if (rc == 0 && tree)
		rc = read_tree(&r, e);
	free(r.seen);
	free(r.todo);
	if (rc < 0)
		rafs_freep(&r.fs);
	else
		*to = r.fs;
	return rc;
}

int rafs_read(struct rafs **to, const void *p, size_t n, struct err *e)
{
	return read_bootstrap(to, p, n, true, e);
}

int rafs_read_chunks(struct rafs **to, const void *p, size_t n, struct err *e)
{
	return read_bootstrap(to, p, n, false, e);
}
