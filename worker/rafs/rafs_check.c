/* worker/rafs/rafs_check.c - see rafs_check.h. */
#include "worker/rafs/rafs_check.h"

#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/codec/encode.h"
#include "worker/blob_at.h"
#include "worker/rafs/blake3.h"
#include "worker/rafs/rafs_merge.h"
#include "worker/rafs/rafs_pack.h"
#include "worker/rafs/rafs_read.h"
#include "worker/rafs/rafs_restart.h"
#include "worker/tar/tar_reader.h"

/* ---- chunk infos */

struct place { /* of one chunk, from blob.meta */
	uint64_t stored_at, unpacked_at;
	uint32_t stored, unpacked;
	bool packed;	    /* compressed */
	uint32_t batch, at; /* batch UINT32_MAX: in none */
};

struct checker {
	struct blob_at *blob;
	struct rafs_layer layer;
	struct rafs_blob *own; /* NULL: no data */
	struct rafs_toc toc;
	struct place *place;
	const struct v6_batch *batch;
	uint32_t n_batches;
	struct buf digests;
	struct encoder *encoder;
	uint8_t *chunk, *packed, *batch_bytes; /* chunk_size each */
	uint32_t batch_there;		       /* in batch_bytes; UINT32_MAX: none */
	struct checker **other;		       /* of the dictionary's blobs that chunks lie in */
	size_t n_others, cap_others;
	rafs_on_piece *on;
	void *arg;
};

static struct place place_v1(const struct v6_info *x)
{
	uint64_t u = le64_get(x->word[0]), s = le64_get(x->word[1]);
	struct place p = {.unpacked_at = u & 0xffffffff000,
			  .unpacked = (uint32_t)(u >> 44 | (u >> 8 & 0xf) << 20) + 1,
			  .stored_at = s & 0xffffffffff,
			  .stored = (uint32_t)(s >> 44 | (s >> 40 & 0xf) << 20) + 1,
			  .batch = UINT32_MAX};

	p.packed = p.stored != p.unpacked;
	return p;
}

static struct place place_v2(const struct v6_info2 *x)
{
	uint64_t u = le64_get(x->word[0]), s = le64_get(x->word[1]), last = le64_get(x->word[2]);
	uint8_t flags = (uint8_t)(u >> 56);

	return (struct place){.unpacked_at = (u & 0xffffffff) << RAFS_BLOCK_BITS,
			      .unpacked = (uint32_t)(u >> 32 & 0xffffff) + 1,
			      .stored_at = s & 0xffffffffff,
			      .stored = (uint32_t)(s >> 40),
			      .packed = flags & V6_INFO_COMPRESSED,
			      .batch = flags & (V6_INFO_BATCH | V6_INFO_ZRAN)
					       ? (uint32_t)(last >> 32)
					       : UINT32_MAX,
			      .at = (uint32_t)last};
}

static int check_header(struct checker *c, const struct v6_meta *h, struct err *e)
{
	const struct rafs_blob *b = c->own;
	const struct {
		bool broken;
		const char *what;
	} rules[] = {
		{le32_get(h->magic) != V6_META_MAGIC || le32_get(h->magic2) != V6_META_MAGIC,
		 "magic"},
		{le32_get(h->chunks) != b->chunk_count, "number of chunks"},
		{le32_get(h->ci_compressor) != b->ci_compressor, "compressor"},
		{le64_get(h->ci_offset) != b->ci_offset, "offset of chunk infos"},
		{le64_get(h->ci_stored) != b->ci_stored, "stored size of chunk infos"},
		{le64_get(h->ci_unpacked) != b->ci_unpacked, "size of chunk infos"},
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].broken)
			return err_set(e, ERR_CORRUPT,
				       "blob.meta header: %s is not the blob table's",
				       rules[i].what);
	return 0;
}

static int check_contexts(struct checker *c, const struct v6_meta *h, struct err *e)
{
	uint64_t at = le64_get(h->contexts_at), n = le32_get(h->contexts),
		 size = le64_get(h->contexts_size);

	if (!(c->own->features & V6_BATCH))
		return 0;
	if (n * sizeof(struct v6_batch) != size || at > c->own->ci_unpacked ||
	    size > c->own->ci_unpacked - at)
		return err_set(e, ERR_CORRUPT, "blob.meta: %llu contexts in %llu bytes",
			       (unsigned long long)n, (unsigned long long)size);
	c->batch = (const void *)(c->layer.meta + at);
	c->n_batches = (uint32_t)n;
	for (uint32_t i = 0; i < c->n_batches; i++)
		if (le32_get(c->batch[i].unpacked) > c->own->chunk_size ||
		    le32_get(c->batch[i].stored) > le32_get(c->batch[i].unpacked))
			return err_set(e, ERR_CORRUPT, "blob.meta: batch %u is of %u bytes", i,
				       le32_get(c->batch[i].unpacked));
	return 0;
}

static int check_place(const struct checker *c, uint32_t i, uint64_t at, uint64_t data,
		       struct err *e)
{
	const struct place *p = &c->place[i];
	uint32_t stored = p->stored;

	if (p->batch != UINT32_MAX) {
		if (p->batch >= c->n_batches || p->at > le32_get(c->batch[p->batch].unpacked) ||
		    p->unpacked > le32_get(c->batch[p->batch].unpacked) - p->at)
			return err_set(e, ERR_CORRUPT, "chunk %u lies in no batch", i);
		stored = le32_get(c->batch[p->batch].stored);
	}
	if (p->unpacked_at != at)
		return err_set(e, ERR_CORRUPT, "chunk %u begins at %llu, not at %llu", i,
			       (unsigned long long)p->unpacked_at, (unsigned long long)at);
	if (p->unpacked > c->own->chunk_size || !stored || p->stored_at > data ||
	    stored > data - p->stored_at || (!p->packed && p->stored != p->unpacked))
		return err_set(e, ERR_CORRUPT, "chunk %u is out of bounds", i);
	return 0;
}

static int read_infos(struct checker *c, struct err *e)
{
	const struct v6_meta *h = (const void *)(c->layer.meta + c->layer.meta_n - sizeof(*h));
	const struct rafs_section *data = rafs_toc_find(&c->toc, "image.blob");
	const struct rafs_section *infos = rafs_toc_find(&c->toc, "blob.meta");
	bool v2 = c->own->features & V6_CHUNK_INFO_V2;
	uint64_t at = 0;

	if (!c->layer.meta_n || !data || data->offset || infos->offset != c->own->ci_offset ||
	    infos->stored != c->own->ci_stored || infos->unpacked != c->own->ci_unpacked)
		return err_set(e, ERR_CORRUPT, "the table of contents differs from the blob table");
	if (check_header(c, h, e) < 0 || check_contexts(c, h, e) < 0)
		return -1;
	c->place = mem_array(c->own->chunk_count, sizeof(c->place[0]));
	for (uint32_t i = 0; i < c->own->chunk_count; i++) {
		const uint8_t *x =
			c->layer.meta + i * (v2 ? sizeof(struct v6_info2) : sizeof(struct v6_info));

		c->place[i] = v2 ? place_v2((const void *)x) : place_v1((const void *)x);
		if (check_place(c, i, at, data->stored, e) < 0)
			return -1;
		at += rafs_up(c->place[i].unpacked, RAFS_BLOCK);
	}
	if (at != c->own->unpacked)
		return err_set(e, ERR_CORRUPT, "chunks end at %llu, the blob at %llu",
			       (unsigned long long)at, (unsigned long long)c->own->unpacked);
	return 0;
}

/* The bootstrap's rows say what blob.meta and blob.digest say. */
static int check_rows(struct checker *c, struct err *e)
{
	for (size_t i = 0; i < c->own->n_chunks; i++) {
		const struct rafs_chunk *r = &c->own->chunks[i];
		const struct place *p = &c->place[r->index];
		bool batched = p->batch != UINT32_MAX;

		if (r->unpacked != p->unpacked || r->unpacked_at != p->unpacked_at ||
		    (!batched && (r->stored != p->stored || r->stored_at != p->stored_at)) ||
		    memcmp(r->digest, c->digests.data + 32 * (size_t)r->index, 32) != 0)
			return err_set(e, ERR_CORRUPT,
				       "chunk table: chunk %u is not what blob.meta says",
				       r->index);
	}
	return 0;
}

/* ---- chunks */

static int decode_to(struct checker *c, const void *in, size_t n, uint8_t *out, size_t want,
		     struct err *e)
{
	static const enum encoding how[V6_COMPRESSORS] = {
		[V6_LZ4] = ENCODE_LZ4, [V6_ZSTD] = ENCODE_ZSTD};
	size_t got = 0;

	if (c->own->compressor != V6_LZ4 && c->own->compressor != V6_ZSTD)
		return err_set(e, ERR_CORRUPT, "compressed, but the blob has no compressor");
	if (decode(c->encoder, how[c->own->compressor], in, n, out, want, &got, e) < 0)
		return -1;
	return got == want ? 0
			   : err_set(e, ERR_CORRUPT, "unpacks to %zu bytes, not %zu", got, want);
}

static int read_batch(struct checker *c, const struct place *p, struct err *e)
{
	uint32_t stored = le32_get(c->batch[p->batch].stored),
		 unpacked = le32_get(c->batch[p->batch].unpacked);

	if (c->batch_there == p->batch)
		return 0;
	c->batch_there = UINT32_MAX;
	if (c->blob->read(c->blob, p->stored_at, c->packed, stored, e) < 0)
		return -1;
	if (stored == unpacked)
		memcpy(c->batch_bytes, c->packed, stored);
	else if (decode_to(c, c->packed, stored, c->batch_bytes, unpacked, e) < 0)
		return -1;
	c->batch_there = p->batch;
	return 0;
}

static int read_chunk(struct checker *c, uint32_t i, const uint8_t **bytes, struct err *e)
{
	const struct place *p = &c->place[i];
	uint8_t sum[64] = {0};

	if (p->batch != UINT32_MAX) {
		if (read_batch(c, p, e) < 0)
			return -1;
		*bytes = c->batch_bytes + p->at;
	} else {
		if (p->stored > c->own->chunk_size)
			return err_set(e, ERR_CORRUPT, "larger when compressed");
		if (c->blob->read(c->blob, p->stored_at, p->packed ? c->packed : c->chunk,
				  p->stored, e) < 0 ||
		    (p->packed && decode_to(c, c->packed, p->stored, c->chunk, p->unpacked, e) < 0))
			return -1;
		*bytes = c->chunk;
	}
	if (c->own->digester == V6_DIGEST_SHA256) {
		struct digest d;

		digest_of(&d, DIGEST_SHA256, *bytes, p->unpacked);
		memcpy(sum, d.bytes, 32);
	} else {
		blake3_hash(sum, *bytes, p->unpacked);
	}
	return memcmp(sum, c->digests.data + 32 * (size_t)i, 32) == 0
		       ? 0
		       : err_set(e, ERR_CORRUPT, "its digest differs");
}

/* Everything that reading chunks of c->own needs, checked against the bootstrap's rows. */
static int open_data(struct checker *c, struct err *e)
{
	const struct rafs_section *s;

	if (c->own->features & V6_ZRAN)
		return err_set(e, ERR_UNSUPPORTED, "its data lie in the source layer");
	c->chunk = mem_alloc(c->own->chunk_size);
	c->packed = mem_alloc(c->own->chunk_size);
	c->batch_bytes = mem_alloc(c->own->chunk_size);
	s = rafs_toc_find(&c->toc, "blob.digest");
	if (!s || s->unpacked != 32 * (uint64_t)c->own->chunk_count)
		return err_set(e, ERR_CORRUPT, "blob.digest is not 32 bytes a chunk");
	if (rafs_section_read(s, c->blob, &c->digests, e) < 0 || read_infos(c, e) < 0)
		return -1;
	return check_rows(c, e);
}

static int checker_open(struct checker *c, struct err *e)
{
	c->batch_there = UINT32_MAX;
	buf_init(&c->digests, 32 * (size_t)RAFS_MAX_CHUNKS);
	c->encoder = encoder_new();
	return rafs_toc_read(&c->toc, c->blob, e) < 0 || rafs_layer_read(&c->layer, c->blob, e) < 0
		       ? -1
		       : 0;
}

static void checker_close(struct checker *c)
{
	for (size_t i = 0; i < c->n_others; i++) {
		checker_close(c->other[i]);
		free(c->other[i]);
	}
	free(c->other);
	rafs_layer_fini(&c->layer);
	free(c->place);
	free(c->chunk);
	free(c->packed);
	free(c->batch_bytes);
	buf_fini(&c->digests);
	encoder_freep(&c->encoder);
}

/* A blob of a chunk dictionary: of the image, but not of this layer. */
static struct checker *open_other(struct checker *c, struct rafs_blob *b, struct err *e)
{
	struct checker *o = mem_zalloc(sizeof(*o));

	mem_grow(c->other, c->n_others, c->cap_others);
	c->other[c->n_others++] = o;
	o->own = b;
	if (!c->blob->other) {
		err_set(e, ERR_UNSUPPORTED, "chunks lie in another blob, %.12s", b->id);
		return NULL;
	}
	if (c->blob->other(c->blob, b->id, &o->blob, e) < 0 || checker_open(o, e) < 0 ||
	    open_data(o, e) < 0) {
		err_wrap(e, "blob %.12s of the chunk dictionary", b->id);
		return NULL;
	}
	return o;
}

static struct checker *reader_of(struct checker *c, struct rafs_blob *b, struct err *e)
{
	if (b == c->own)
		return c;
	for (size_t i = 0; i < c->n_others; i++)
		if (c->other[i]->own == b)
			return c->other[i];
	return open_other(c, b, e);
}

/* ---- entries */

static const char *const prefix[] = {
	NULL, "user.",	  "system.posix_acl_access", "system.posix_acl_default", "trusted.",
	NULL, "security."};

/* Attributes as a tar names them; names in one allocation. */
static size_t tar_xattrs(const struct rafs_inode *i, struct tar_xattr **to, char **names)
{
	size_t n = 0, used = 0;

	*to = mem_array(i->xattr_n / sizeof(struct v6_xattr) + 1, sizeof(**to));
	*names = mem_alloc(i->xattr_n * 8 + 64);
	for (size_t at = 0; at < i->xattr_n;) {
		const struct v6_xattr *x = (const void *)(i->xattr + at);
		size_t p = strlen(prefix[x->name_index]);

		memcpy(*names + used, prefix[x->name_index], p);
		memcpy(*names + used + p, x + 1, x->name_len);
		(*names)[used + p + x->name_len] = '\0';
		(*to)[n++] =
			(struct tar_xattr){*names + used, (const uint8_t *)(x + 1) + x->name_len,
					   le16_get(x->value_len)};
		used += p + x->name_len + 1;
		at += rafs_up(sizeof(*x) + x->name_len + le16_get(x->value_len), 4);
	}
	return n;
}

static char type_of(uint16_t mode)
{
	static const char type[16] = {[S_IFREG >> 12] = '0', [S_IFLNK >> 12] = '2',
				      [S_IFCHR >> 12] = '3', [S_IFBLK >> 12] = '4',
				      [S_IFDIR >> 12] = '5', [S_IFIFO >> 12] = '6',
				      [S_IFSOCK >> 12] = '0'};

	return type[mode >> 12];
}

static int show_data(struct checker *c, struct tar_piece *piece, const struct rafs_inode *inode,
		     struct err *e)
{
	for (uint32_t k = 0; k < inode->n_chunks; k++) {
		const struct rafs_chunk *chunk = inode->chunks[k];
		struct checker *in = reader_of(c, chunk->blob, e);
		const uint8_t *bytes;

		if (!in)
			return -1;
		if (read_chunk(in, chunk->index, &bytes, e) < 0)
			return err_wrap(e, "chunk %u", chunk->index);
		piece->kind = TAR_DATA;
		for (uint32_t at = 0; at < chunk->unpacked;) {
			piece->raw = bytes + at;
			piece->len =
				chunk->unpacked - at < 1u << 20 ? chunk->unpacked - at : 1u << 20;
			if (c->on(c->arg, piece, e) < 0)
				return -1;
			at += (uint32_t)piece->len;
			piece->file_pos += piece->len;
		}
	}
	return 0;
}

/* link: the first path of this inode, or NULL. */
static int show(struct checker *c, const struct rafs_inode *inode, const char *path,
		const char *link, uint64_t index, struct err *e)
{
	scoped_free struct tar_xattr *x = NULL;
	scoped_free char *names = NULL;
	const uint8_t *elsewhere;
	size_t n;
	struct tar_entry t = {.type = link ? '1' : type_of(inode->mode),
			      .name = path,
			      .link = link	    ? link
				      : inode->link ? inode->link
						    : "",
			      .mode = inode->mode & 07777,
			      .uid = inode->uid,
			      .gid = inode->gid,
			      .user = "",
			      .group = "",
			      .size = S_ISREG(inode->mode) && !link ? inode->size : 0,
			      .mtime = inode->mtime,
			      .dev_major = inode->rdev >> 8 & 0xfff,
			      .dev_minor = (inode->rdev & 0xff) | (inode->rdev >> 12 & ~0xffu),
			      .index = index};
	struct tar_piece piece = {.kind = TAR_HEADER, .entry = &t};
	scoped_free char *target = NULL;

	elsewhere = S_ISREG(inode->mode) ? rafs_xattr(inode, 4, RAFS_XATTR_LINK, &n) : NULL;
	if (elsewhere) {
		t.type = '1';
		t.link = target = mem_strndup((const char *)elsewhere, n);
	} else {
		t.n_xattr = tar_xattrs(inode, &x, &names);
		t.xattr = x;
	}
	if (c->on(c->arg, &piece, e) < 0)
		return -1;
	return t.type == '0' ? show_data(c, &piece, inode, e) : 0;
}

/* Paths of nodes, from the root. */
static int path_of(const struct rafs_node *node, char *to, size_t n, struct err *e)
{
	size_t len = 0, at;

	for (const struct rafs_node *p = node; p->parent != p; p = p->parent)
		len += p->name_len + 1u;
	if (len > n)
		return err_set(e, ERR_CORRUPT, "a path of %zu bytes", len);
	to[len ? len - 1 : 0] = '\0';
	at = len;
	for (const struct rafs_node *p = node; p->parent != p; p = p->parent) {
		at -= p->name_len + 1u;
		memcpy(to + at, p->name, p->name_len);
		if (at + p->name_len < len - 1)
			to[at + p->name_len] = '/';
	}
	return 0;
}

static int show_node(struct checker *c, struct rafs_node *node, uint64_t index, struct err *e)
{
	char path[8192], first[8192];
	const char *link = NULL;

	if (path_of(node, path, sizeof(path), e) < 0)
		return -1;
	if (node->inode->shown) {
		if (path_of(node->inode->shown, first, sizeof(first), e) < 0)
			return -1;
		link = first;
	} else {
		node->inode->shown = node;
	}
	if (rafs_is_dir(node) && node->implied)
		return 0;
	if (show(c, node->inode, *path ? path : ".", link, index, e) < 0)
		return err_wrap(e, "\"%s\"", path);
	return 0;
}

/* Directories before what is in them, files of one directory together. */
static int show_all(struct checker *c, struct err *e)
{
	scoped_free struct rafs_node **todo =
		mem_array(c->layer.fs->nodes, sizeof(struct rafs_node *));
	uint64_t index = 0;
	size_t n = 0;

	todo[n++] = c->layer.fs->root;
	while (n) {
		struct rafs_node *node = todo[--n];

		if (show_node(c, node, index++, e) < 0)
			return -1;
		rafs_children(node, todo + n);
		n += node->n_children;
	}
	return 0;
}

/* Chunks that no file needs any more (a later entry took its path) must be right, too. */
static int check_others(struct checker *c, struct err *e)
{
	size_t row = 0;

	for (uint32_t i = 0; i < c->own->chunk_count; i++) {
		const uint8_t *bytes;

		if (row < c->own->n_chunks && c->own->chunks[row].index == i) {
			row++;
			continue;
		}
		if (read_chunk(c, i, &bytes, e) < 0)
			return err_wrap(e, "chunk %u", i);
	}
	return 0;
}

static int check(struct checker *c, struct err *e)
{
	for (size_t i = 0; i < c->layer.fs->n_blobs; i++)
		if (c->layer.fs->blobs[i]->own)
			c->own = c->layer.fs->blobs[i];
	if (!c->own) {
		if (c->layer.meta_n)
			return err_set(e, ERR_CORRUPT,
				       "blob.meta, but the blob table has no blob of its own");
		return show_all(c, e);
	}
	if (open_data(c, e) < 0 || show_all(c, e) < 0)
		return -1;
	return check_others(c, e);
}

int rafs_check_blob(struct blob_at *blob, const struct descriptor *d, rafs_on_piece *on, void *arg,
		    struct err *e)
{
	struct checker c = {.blob = blob, .on = on, .arg = arg};
	int r = checker_open(&c, e);

	if (r == 0)
		r = check(&c, e);
	checker_close(&c);
	return r;
}

/* ---- two trees */

static int differ(const struct rafs_node *at, const char *what, struct err *e)
{
	char path[8192];

	if (path_of(at, path, sizeof(path), e) < 0)
		return -1;
	return err_set(e, ERR_CORRUPT, "\"/%s\": %s", path, what);
}

static int compare_inodes(const struct rafs_node *at, const struct rafs_inode *a,
			  const struct rafs_inode *b, struct err *e)
{
	const struct {
		bool differs;
		const char *what;
	} rules[] = {
		{a->mode != b->mode, "another mode"},
		{a->uid != b->uid || a->gid != b->gid, "another owner"},
		{a->mtime != b->mtime, "another time"},
		{!S_ISDIR(a->mode) && a->size != b->size, "another size"},
		{(S_ISCHR(a->mode) || S_ISBLK(a->mode)) && a->rdev != b->rdev, "another device"},
		{!a->link != !b->link || (a->link && strcmp(a->link, b->link) != 0),
		 "another target"},
		{a->xattr_n != b->xattr_n ||
			 (a->xattr_n && memcmp(a->xattr, b->xattr, a->xattr_n) != 0),
		 "other attributes"},
		{!S_ISDIR(a->mode) && a->refs != b->refs, "another number of links"},
		{a->n_chunks != b->n_chunks, "another number of chunks"},
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].differs)
			return differ(at, rules[i].what, e);
	for (uint32_t k = 0; k < a->n_chunks; k++)
		if (strcmp(a->chunks[k]->blob->id, b->chunks[k]->blob->id) != 0 ||
		    a->chunks[k]->index != b->chunks[k]->index ||
		    memcmp(a->chunks[k]->digest, b->chunks[k]->digest, 32) != 0)
			return differ(at, "another chunk", e);
	return 0;
}

int rafs_compare(const struct rafs *a, const struct rafs *b, struct err *e)
{
	scoped_free struct rafs_node **left = mem_array(a->nodes, sizeof(struct rafs_node *));
	scoped_free struct rafs_node **right = mem_array(a->nodes, sizeof(struct rafs_node *));
	size_t n = 0;

	left[n] = a->root;
	right[n++] = b->root;
	while (n) {
		struct rafs_node *l = left[--n], *r = right[n];

		if (compare_inodes(l, l->inode, r->inode, e) < 0)
			return -1;
		if (l->n_children != r->n_children)
			return differ(l, "other names in it", e);
		rafs_children(l, left + n);
		rafs_children(r, right + n);
		for (size_t i = n; i < n + l->n_children; i++)
			if (strcmp(left[i]->name, right[i]->name) != 0)
				return differ(left[i], "is only on one side", e);
		n += l->n_children;
	}
	return 0;
}

/* ---- a layer used in place */

static int tree_of(struct source **layer, const struct rafs_pack_opts *o, struct rafs **to,
		   struct err *e)
{
	scoped(rafs_pack_freep) struct rafs_pack *p = rafs_pack_new(o);
	scoped(tar_closep) struct tar_reader *tar = NULL;
	struct tar_piece piece;
	int r;

	if (tar_open(&tar, layer, NULL, e) < 0)
		return -1;
	while ((r = tar_next(tar, &piece, e)) > 0)
		if (rafs_pack_tar(p, &piece, e) < 0)
			return -1;
	if (r == 0)
		*to = rafs_pack_tree(p);
	return r;
}

static int check_access(const struct rafs_layer *l, struct blob_at *blob, struct blob_at *gz,
			struct err *e)
{
	scoped(buf_fini) struct buf digests = BUF_INIT(32 * (size_t)RAFS_MAX_CHUNKS);
	const struct rafs_section *s;
	struct rafs_toc toc;

	if (rafs_toc_read(&toc, blob, e) < 0)
		return -1;
	s = rafs_toc_find(&toc, "blob.digest");
	if (s && rafs_section_read(s, blob, &digests, e) < 0)
		return -1;
	return rafs_check_restarts(l, digests.data, digests.len, gz, e);
}

int rafs_check_ref(struct blob_at *blob, struct source **layer, const struct digest *source,
		   struct blob_at *gz, struct err *e)
{
	struct rafs_pack_opts o = {.compressor = V6_ZSTD, .zran = true, .source = source};
	scoped(rafs_layer_fini) struct rafs_layer l = {0};
	scoped(rafs_freep) struct rafs *tree = NULL;

	if (rafs_layer_read(&l, blob, e) < 0)
		return -1;
	if (!rafs_layer_is_ref(&l))
		return err_set(e, ERR_CORRUPT,
			       "annotated as a reference, but it is a converted layer");
	o.chunk_size = l.fs->chunk_size;
	if (tree_of(layer, &o, &tree, e) < 0)
		return err_wrap(e, "source layer");
	if (rafs_compare(tree, l.fs, e) < 0)
		return -1;
	return check_access(&l, blob, gz, e);
}

/* ---- a whole image */

static const struct rafs_blob *blob_named(const struct rafs *fs, const char *id)
{
	for (size_t i = 0; i < fs->n_blobs; i++)
		if (!strcmp(fs->blobs[i]->id, id))
			return fs->blobs[i];
	return NULL;
}

static int compare_blobs(const struct rafs *boot, const struct rafs *layers, struct err *e)
{
	for (size_t i = 0; i < boot->n_blobs; i++) {
		const struct rafs_blob *a = boot->blobs[i], *b = blob_named(layers, a->id);

		if (!b)
			return err_set(e, ERR_CORRUPT, "blob table: %.12s is no layer of the image",
				       a->id);
		if (!rafs_blob_same(a, b))
			return err_set(e, ERR_CORRUPT,
				       "blob table: not what the blob %.12s says of itself", a->id);
	}
	return 0;
}

int rafs_check_image(struct rafs_layer *layers, size_t n, const void *boot, size_t boot_n,
		     struct err *e)
{
	scoped(rafs_freep) struct rafs *merged = NULL, *read = NULL;

	if (rafs_read(&read, boot, boot_n, e) < 0)
		return -1;
	merged = rafs_new(read->chunk_size, read->compressor, read->digester);
	for (size_t i = 0; i < n; i++)
		if (rafs_merge(merged, &layers[i].fs, e) < 0)
			return err_wrap(e, "layer %zu", i + 1);
	if (compare_blobs(read, merged, e) < 0)
		return -1;
	return rafs_compare(merged, read, e);
}
