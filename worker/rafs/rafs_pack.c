/* worker/rafs/rafs_pack.c - see rafs_pack.h.
 *
 * Every piece of a file that fills a chunk takes a ticket.  Its bytes become a segment of `out`;
 * when that lands, on_land looks the digest up: a new one becomes the blob's next chunk, a known
 * one is dropped, and the ticket is told which chunk it is.  Files keep their first ticket, the
 * rest follow it.
 *
 * With a chunk dictionary its digests are asked first.  A chunk that it holds gets a number from
 * IN_DICT on, and at the end a copy of the dictionary's record, in a copy of the blob's: a tree
 * shares nothing that is written to with those of other layers.
 *
 * With batch_size small files share a segment.  What is in it must be known before, so chunks that
 * small (batched or not) are held, hashed and looked up here; a batch lands with all its chunks.
 * Chunks of one digest have one length, so the two look-ups never overlap. */
#include "worker/rafs/rafs_pack.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/rafs/blake3.h"
#include "worker/rafs/crc32c.h"
#include "worker/rafs/rafs_dict.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_zran.h"

#define NONE UINT32_MAX
#define IN_DICT 0x80000000u
#define COOKIE_BATCH ((uint64_t)1 << 63)

struct ticket {
	uint32_t chunk;		/* once landed; from IN_DICT on: of `borrowed` */
	uint32_t same;		/* an earlier ticket of the same bytes, or NONE */
	uint32_t crc, len, nth; /* nth chunk of its file */
	uint32_t early;		/* its digest, when hashed here; or NONE */
};

struct known { /* digest -> number, open addressing */
	uint32_t *slot;
	size_t n, cap;
};

struct place {		    /* with batch_size: where in a batch a chunk lies */
	uint32_t batch, at; /* batch NONE: in none */
};

struct borrowed {
	const struct rafs_chunk *of;
	struct rafs_chunk *copy; /* in the tree, at the end */
};

struct rafs_pack {
	struct rafs_pack_opts o, asked; /* as they apply; as they came */
	struct rafs *fs;
	struct out *out;
	struct rafs_inode *file;
	uint64_t left;		   /* of the file */
	uint32_t filled, nth, crc; /* of the chunk */
	bool held;		   /* the chunk is collected in `small` */
	uint8_t *small;
	struct ticket *ticket;
	size_t n_tickets, cap_tickets;
	struct rafs_chunk *chunk;
	size_t n_chunks, cap_chunks;
	struct known landed, hashed, asked_dict;
	struct borrowed *borrowed; /* the dictionary's chunks that are referred to */
	size_t n_borrowed, cap_borrowed;
	uint8_t (*early)[32];
	size_t n_early, cap_early;
	uint32_t batch_first; /* first ticket of the open batch, or NONE */
	uint64_t batch_bytes;
	struct place *in_batch;
	size_t n_in_batch, cap_in_batch;
	struct v6_batch *batch;
	size_t n_batches, cap_batches;
	uint64_t unpacked, stored;
	struct rafs_zran *zran; /* or NULL */
	struct hasher *hasher;	/* zran: of the chunk */
	uint64_t tar_pos;	/* zran: of the next byte of the file */
};

static void init(struct rafs_pack *p, const struct rafs_pack_opts *o)
{
	*p = (struct rafs_pack){.o = *o, .batch_first = NONE};
	if (o->zran) {
		p->o.sha256 = true;
		p->o.batch_size = 0;
		p->o.compressor = V6_GZIP;
		p->o.prefetch = NULL;
		p->o.dict = NULL;
		p->zran = rafs_zran_new();
		p->hasher = hasher_new(DIGEST_SHA256);
	}
	p->fs = rafs_new(o->chunk_size, p->o.compressor,
			 p->o.sha256 ? V6_DIGEST_SHA256 : V6_DIGEST_BLAKE3);
	if (p->o.batch_size)
		p->small = mem_alloc(p->o.batch_size);
}

static void fini(struct rafs_pack *p)
{
	rafs_freep(&p->fs);
	rafs_zran_freep(&p->zran);
	hasher_freep(&p->hasher);
	free(p->small);
	free(p->ticket);
	free(p->chunk);
	free(p->landed.slot);
	free(p->hashed.slot);
	free(p->asked_dict.slot);
	free(p->borrowed);
	free(p->early);
	free(p->in_batch);
	free(p->batch);
}

struct rafs_pack *rafs_pack_new(const struct rafs_pack_opts *o)
{
	struct rafs_pack *p = mem_alloc(sizeof(*p));

	init(p, o);
	p->asked = *o;
	return p;
}

void rafs_pack_freep(struct rafs_pack **pp)
{
	struct rafs_pack *p = take_ptr(*pp);

	if (!p)
		return;
	fini(p);
	free(p);
}

bool rafs_pack_again(struct rafs_pack *p)
{
	struct rafs_pack_opts o = p->asked;

	if (!p->zran || rafs_zran_close(p->zran))
		return false;
	o.zran = false;
	fini(p);
	init(p, &o); /* at the same address: `out` knows it */
	p->asked = o;
	return true;
}

int rafs_pack_block(struct rafs_pack *p, const struct block *b, struct err *e)
{
	return p->zran ? rafs_zran_block(p->zran, b, e) : 0;
}

/* ---- which digests are there */

static const uint8_t *landed_digest(const struct rafs_pack *p, uint32_t i)
{
	return p->chunk[i].digest;
}

static const uint8_t *hashed_digest(const struct rafs_pack *p, uint32_t ticket)
{
	return p->early[p->ticket[ticket].early];
}

static const uint8_t *borrowed_digest(const struct rafs_pack *p, uint32_t i)
{
	return p->borrowed[i].of->digest;
}

typedef const uint8_t *digest_fn(const struct rafs_pack *p, uint32_t i);

static size_t slot_of(const struct rafs_pack *p, const struct known *k, digest_fn *digest,
		      const uint8_t *d)
{
	uint64_t h;
	size_t at;

	memcpy(&h, d, sizeof(h));
	for (at = h & (k->cap - 1); k->slot[at] != NONE; at = (at + 1) & (k->cap - 1))
		if (!memcmp(digest(p, k->slot[at]), d, 32))
			break;
	return at;
}

static void grow(const struct rafs_pack *p, struct known *k, digest_fn *digest)
{
	struct known old = *k;

	k->cap = old.cap ? 2 * old.cap : 64;
	k->slot = mem_array(k->cap, sizeof(k->slot[0]));
	memset(k->slot, 0xff, k->cap * sizeof(k->slot[0]));
	for (size_t i = 0; i < old.cap; i++)
		if (old.slot[i] != NONE)
			k->slot[slot_of(p, k, digest, digest(p, old.slot[i]))] = old.slot[i];
	free(old.slot);
}

/* What is known under d; or `mine`, noted from now on. */
static uint32_t look_up(const struct rafs_pack *p, struct known *k, digest_fn *digest,
			const uint8_t *d, uint32_t mine)
{
	size_t at;

	if (2 * k->n >= k->cap)
		grow(p, k, digest);
	at = slot_of(p, k, digest, d);
	if (k->slot[at] == NONE) {
		k->slot[at] = mine;
		k->n++;
	}
	return k->slot[at];
}

/* The dictionary has it: the ticket is served. */
static bool borrow(struct rafs_pack *p, struct ticket *t, const uint8_t digest[32])
{
	const struct rafs_chunk *c = p->o.dict ? rafs_dict_find(p->o.dict, digest, t->len) : NULL;
	uint32_t found;

	if (!c)
		return false;
	mem_grow(p->borrowed, p->n_borrowed, p->cap_borrowed);
	p->borrowed[p->n_borrowed] = (struct borrowed){.of = c};
	found = look_up(p, &p->asked_dict, borrowed_digest, digest, (uint32_t)p->n_borrowed);
	p->n_borrowed += found == p->n_borrowed;
	t->chunk = IN_DICT + found;
	return true;
}

static bool dict_has(const void *dict, const uint8_t digest[32], uint32_t n)
{
	return rafs_dict_find(dict, digest, n) != NULL;
}

/* ---- landing */

static struct rafs_chunk *add_chunk(struct rafs_pack *p, struct ticket *t, const uint8_t digest[32],
				    struct err *e)
{
	struct rafs_chunk *c;

	if (p->n_chunks >= RAFS_MAX_CHUNKS ||
	    p->unpacked + rafs_up(t->len, RAFS_BLOCK) > RAFS_MAX_UNPACKED) {
		err_set(e, ERR_LIMIT, "more than %u chunks in one layer", RAFS_MAX_CHUNKS);
		return NULL;
	}
	mem_grow(p->chunk, p->n_chunks, p->cap_chunks);
	c = &p->chunk[p->n_chunks];
	*c = (struct rafs_chunk){.index = (uint32_t)p->n_chunks,
				 .unpacked = t->len,
				 .unpacked_at = p->unpacked,
				 .file_at = (uint64_t)t->nth * p->o.chunk_size,
				 .crc = t->crc,
				 .flags = t->crc ? V6_CHUNK_CRC : 0};
	memcpy(c->digest, digest, 32);
	t->chunk = (uint32_t)p->n_chunks++;
	p->unpacked += rafs_up(t->len, RAFS_BLOCK);
	if (p->o.batch_size) {
		mem_grow(p->in_batch, p->n_in_batch, p->cap_in_batch);
		p->in_batch[p->n_in_batch++] = (struct place){NONE, 0};
	}
	return c;
}

static int batch_landed(struct rafs_pack *p, const struct landed *l, struct err *e)
{
	uint32_t first = (uint32_t)l->cookie, n = (uint32_t)(l->cookie >> 32) & 0x7fffffff, at = 0;

	for (uint32_t i = first; i < first + n; i++) {
		struct ticket *t = &p->ticket[i];

		if (t->same != NONE || t->early == NONE) /* stored before, or in the dictionary */
			continue;
		if (!add_chunk(p, t, p->early[t->early], e))
			return -1;
		p->in_batch[t->chunk] = (struct place){(uint32_t)p->n_batches, at};
		at += t->len;
	}
	mem_grow(p->batch, p->n_batches, p->cap_batches);
	p->batch[p->n_batches++] = (struct v6_batch){.stored = le32_of((uint32_t)l->stored),
						     .unpacked = le32_of(l->unpacked)};
	/* the chunks' own position is the batch's, but rows say nothing of it */
	for (uint32_t i = first; i < first + n; i++)
		if (p->ticket[i].same == NONE && p->ticket[i].early != NONE)
			p->chunk[p->ticket[i].chunk].stored_at = l->offset;
	p->stored = l->offset + l->stored;
	return 1;
}

static int on_land(void *arg, const struct landed *l, struct err *e)
{
	struct rafs_pack *p = arg;
	struct rafs_chunk *c;
	struct ticket *t;
	uint32_t found;

	if (l->cookie & COOKIE_BATCH)
		return batch_landed(p, l, e);
	t = &p->ticket[l->cookie];
	if (borrow(p, t, l->hash))
		return 0;
	found = look_up(p, &p->landed, landed_digest, l->hash, (uint32_t)p->n_chunks);
	if (found != p->n_chunks) {
		t->chunk = found;
		return 0;
	}
	c = add_chunk(p, t, l->hash, e);
	if (!c)
		return -1;
	c->stored_at = l->offset;
	c->stored = (uint32_t)l->stored;
	if (l->stored != l->unpacked)
		c->flags |= V6_CHUNK_COMPRESSED;
	p->stored = l->offset + l->stored;
	if (p->stored > RAFS_MAX_STORED)
		return err_set(e, ERR_LIMIT, "the blob is larger than a TiB");
	return 1;
}

void rafs_pack_out_opts(struct rafs_pack *p, struct out_opts *o)
{
	o->raw_if_larger = true;
	o->on_land = on_land;
	o->arg = p;
	o->known = p->o.dict ? dict_has : NULL;
	o->known_arg = p->o.dict;
}

void rafs_pack_begin(struct rafs_pack *p, struct out *out)
{
	p->out = out;
}

/* ---- pieces of the tar */

static int end_batch(struct rafs_pack *p, struct err *e)
{
	uint64_t first = p->batch_first, n = p->n_tickets - first;

	if (p->batch_first == NONE)
		return 0;
	p->batch_first = NONE;
	p->batch_bytes = 0;
	return out_cut(p->out, COOKIE_BATCH | n << 32 | first, HASH_NONE, 0, 0, e);
}

static void early_digest(struct rafs_pack *p, struct ticket *t)
{
	mem_grow(p->early, p->n_early, p->cap_early);
	t->early = (uint32_t)p->n_early++;
	if (p->o.sha256) {
		struct digest d;

		digest_of(&d, DIGEST_SHA256, p->small, t->len);
		memcpy(p->early[t->early], d.bytes, 32);
	} else {
		blake3_hash(p->early[t->early], p->small, t->len);
	}
}

/* The chunk in `small`: known, or into the batch, or a segment of its own. */
static int end_held(struct rafs_pack *p, uint32_t number, struct err *e)
{
	struct ticket *t = &p->ticket[number];
	bool alone = p->file->n_chunks > 1;
	uint32_t found;

	early_digest(p, t);
	if (borrow(p, t, p->early[t->early])) {
		p->n_early--;
		t->early = NONE;
		return 0;
	}
	found = look_up(p, &p->hashed, hashed_digest, p->early[t->early], number);
	if (found != number) {
		t->same = found;
		p->n_early--; /* nobody refers to it */
		return 0;
	}
	if ((alone || p->batch_bytes + t->len >= p->o.batch_size)) {
		p->n_tickets--; /* the open batch ends before this ticket */
		if (end_batch(p, e) < 0)
			return -1;
		p->n_tickets++;
	}
	if (out_append(p->out, p->small, t->len, e) < 0)
		return -1;
	if (!alone && p->batch_first == NONE)
		p->batch_first = number;
	p->batch_bytes += alone ? 0 : t->len;
	return alone ? out_cut(p->out, number, p->o.sha256 ? HASH_SHA256 : HASH_BLAKE3, 0, t->len,
			       e)
		     : 0;
}

/* zran: the chunk stays where it is, so what it is is known at once. */
static int end_in_place(struct rafs_pack *p, uint32_t number, struct err *e)
{
	struct ticket *t = &p->ticket[number];
	struct digest d;
	uint32_t found;

	hasher_final(p->hasher, &d);
	found = look_up(p, &p->landed, landed_digest, d.bytes, (uint32_t)p->n_chunks);
	if (found != p->n_chunks) {
		t->chunk = found;
		rafs_zran_drop(p->zran);
		return 0;
	}
	rafs_zran_keep(p->zran);
	return add_chunk(p, t, d.bytes, e) ? 0 : -1;
}

static int end_chunk(struct rafs_pack *p, struct err *e)
{
	uint32_t number = (uint32_t)p->n_tickets, len = p->filled;

	if (p->n_tickets >= 0x7fffffff)
		return err_set(e, ERR_LIMIT, "too many chunks");
	mem_grow(p->ticket, p->n_tickets, p->cap_tickets);
	p->ticket[p->n_tickets++] = (struct ticket){NONE, NONE, p->crc, len, p->nth, NONE};
	p->nth++;
	p->crc = 0;
	p->filled = 0;
	if (p->zran)
		return end_in_place(p, number, e);
	if (p->held)
		return end_held(p, number, e);
	return out_cut(p->out, number, p->o.sha256 ? HASH_SHA256 : HASH_BLAKE3, 0, len, e);
}

static int begin_chunk(struct rafs_pack *p, struct err *e)
{
	uint64_t len = p->left < p->o.chunk_size ? p->left : p->o.chunk_size;

	if (p->zran) {
		rafs_zran_begin(p->zran, p->tar_pos, (uint32_t)len);
		return 0;
	}
	p->held = len < p->o.batch_size / 2;
	return p->held ? 0 : end_batch(p, e);
}

/* n bytes of the file; raw NULL: zeros. */
static int data(struct rafs_pack *p, const uint8_t *raw, uint64_t n, struct err *e)
{
	static const uint8_t zeros[RAFS_BLOCK];

	if (n > p->left)
		return err_set(e, ERR_BUG, "more data than the file's size");
	while (n) {
		uint64_t want = p->o.chunk_size - p->filled;
		size_t part = (size_t)(n < want ? n : want);
		const uint8_t *from = raw ? raw : zeros;

		if (!raw && part > sizeof(zeros))
			part = sizeof(zeros);
		if (!p->filled && begin_chunk(p, e) < 0)
			return -1;
		p->crc = crc32c(p->crc, from, part);
		if (p->zran)
			hasher_update(p->hasher, from, part);
		else if (p->held)
			memcpy(p->small + p->filled, from, part);
		else if (out_append(p->out, from, part, e) < 0)
			return -1;
		p->filled += (uint32_t)part;
		p->tar_pos += part;
		p->left -= part;
		n -= part;
		if (raw)
			raw += part;
		if ((p->filled == p->o.chunk_size || !p->left) && end_chunk(p, e) < 0)
			return -1;
	}
	return 0;
}

int rafs_pack_tar(struct rafs_pack *p, const struct tar_piece *piece, struct err *e)
{
	if (p->zran) {
		rafs_zran_pass(p->zran, piece->tar_pos);
		if (piece->kind == TAR_DATA && p->file && p->filled && p->tar_pos != piece->tar_pos)
			rafs_zran_give_up(p->zran); /* a sparse file: chunks are not in one piece */
		p->tar_pos = piece->tar_pos;
	}
	switch (piece->kind) {
	case TAR_HEADER:
		if (p->file && p->left)
			return err_set(e, ERR_BUG, "a file's data did not come");
		if (rafs_add_entry(p->fs, piece->entry, &p->file, e) < 0)
			return -1;
		if (!p->file)
			return 0;
		p->file->ticket = (uint32_t)p->n_tickets;
		p->left = p->file->size;
		p->nth = 0;
		return 0;
	case TAR_HOLE:
		if (p->zran)
			rafs_zran_give_up(p->zran);
		__attribute__((fallthrough));
	case TAR_DATA:
		return p->file ? data(p, piece->raw, piece->len, e) : 0;
	default:
		return 0;
	}
}

/* ---- the end */

static void give_chunks(struct rafs_pack *p, struct rafs_inode *inode)
{
	if (!inode->n_chunks || inode->chunks)
		return;
	inode->chunks = mem_array(inode->n_chunks, sizeof(inode->chunks[0]));
	for (uint32_t k = 0; k < inode->n_chunks; k++) {
		const struct ticket *t = &p->ticket[inode->ticket + k];

		if (t->same != NONE)
			t = &p->ticket[t->same];
		inode->chunks[k] = t->chunk < IN_DICT ? &p->fs->blobs[0]->chunks[t->chunk]
						      : p->borrowed[t->chunk - IN_DICT].copy;
	}
}

/* Every file of the tree learns its chunks. */
static void give_all(struct rafs_pack *p)
{
	scoped_free struct rafs_node **todo = mem_array(p->fs->nodes, sizeof(struct rafs_node *));
	size_t n = 0;

	todo[n++] = p->fs->root;
	while (n) {
		struct rafs_node *node = todo[--n];

		give_chunks(p, node->inode);
		rafs_children(node, todo + n);
		n += node->n_children;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct rafs_chunk *x = (*(struct borrowed *const *)a)->of,
				*y = (*(struct borrowed *const *)b)->of;

	if (x->blob != y->blob)
		return x->blob->index < y->blob->index ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* A dictionary's blob, with the n chunks that this layer borrows of it. */
static void copy_blob(struct rafs_pack *p, struct borrowed **b, size_t n)
{
	const struct rafs_blob *of = b[0]->of->blob;
	struct rafs_blob *to = rafs_add_blob(p->fs);

	*to = *of;
	to->refs = 1;
	to->own = false;
	to->n_chunks = n;
	to->chunks = mem_array(n, sizeof(to->chunks[0]));
	for (size_t i = 0; i < n; i++) {
		to->chunks[i] = *b[i]->of;
		to->chunks[i].blob = to;
		b[i]->copy = &to->chunks[i];
	}
}

static void make_borrowed(struct rafs_pack *p)
{
	scoped_free struct borrowed **order =
		mem_array(p->n_borrowed ? p->n_borrowed : 1, sizeof(*order));
	size_t n;

	for (size_t i = 0; i < p->n_borrowed; i++)
		order[i] = &p->borrowed[i];
	qsort(order, p->n_borrowed, sizeof(*order), by_place);
	for (size_t i = 0; i < p->n_borrowed; i += n) {
		for (n = 1; i + n < p->n_borrowed && order[i + n]->of->blob == order[i]->of->blob;)
			n++;
		copy_blob(p, order + i, n);
	}
}

static void make_blob(struct rafs_pack *p)
{
	struct rafs_blob *b = rafs_add_blob(p->fs);

	memset(b->id, 'x', RAFS_ID_LEN);
	b->own = true;
	b->chunk_size = p->o.chunk_size;
	b->compressor = p->o.compressor;
	b->digester = p->fs->digester;
	b->features = V6_FRAMED | (p->o.batch_size ? V6_BATCH | V6_CHUNK_INFO_V2 : 0);
	if (p->zran) {
		char text[DIGEST_TEXT];

		b->features |= V6_CHUNK_INFO_V2 | V6_ZRAN | V6_SEPARATE;
		b->stored = p->o.source_bytes;
		if (p->o.source)
			memcpy(b->id, digest_hex(p->o.source, text), RAFS_ID_LEN);
	}
	b->unpacked = p->unpacked;
	b->chunk_count = (uint32_t)p->n_chunks;
	b->n_chunks = p->n_chunks;
	b->chunks = take_ptr(p->chunk);
	for (size_t i = 0; i < b->n_chunks; i++)
		b->chunks[i].blob = b;
}

static struct v6_info info(const struct rafs_chunk *c)
{
	uint64_t u = c->unpacked - 1, s = c->stored - 1;

	return (struct v6_info){{le64_of((u & 0xfffff) << 44 | c->unpacked_at | (u >> 20) << 8),
				 le64_of((s & 0xfffff) << 44 | (s >> 20) << 40 | c->stored_at)}};
}

static struct v6_info2 info2(const struct rafs_chunk *c, const struct place *at)
{
	uint64_t flags, last;

	if (at->batch != NONE) {
		flags = V6_INFO_COMPRESSED | V6_INFO_BATCH;
		last = (uint64_t)at->batch << 32 | at->at;
	} else {
		flags = (c->flags & V6_CHUNK_COMPRESSED ? V6_INFO_COMPRESSED : 0) |
			(c->flags & V6_CHUNK_CRC ? V6_INFO_CRC : 0);
		last = c->crc;
	}
	return (struct v6_info2){{le64_of(c->unpacked_at >> RAFS_BLOCK_BITS |
					  (uint64_t)(c->unpacked - 1) << 32 | flags << 56),
				  le64_of(c->stored_at | (uint64_t)c->stored << 40),
				  le64_of(last)}};
}

static int write_zran(struct rafs_pack *p, struct rafs_blob *b, struct buf *to, struct err *e)
{
	for (size_t i = 0; i < b->n_chunks; i++) {
		const struct rafs_zran_chunk *z = rafs_zran_chunk(p->zran, i);
		struct rafs_chunk *c = &b->chunks[i];
		struct v6_info2 x = {{le64_of(c->unpacked_at >> RAFS_BLOCK_BITS |
					      (uint64_t)(c->unpacked - 1) << 32 |
					      (uint64_t)(V6_INFO_COMPRESSED | V6_INFO_ZRAN) << 56),
				      le64_of(z->at | (uint64_t)z->n << 40),
				      le64_of((uint64_t)z->context << 32 | z->in_context)}};

		c->stored_at = z->at;
		c->stored = z->n;
		c->flags |= V6_CHUNK_COMPRESSED;
		if (buf_add(to, &x, sizeof(x), e) < 0)
			return -1;
	}
	return rafs_zran_write(p->zran, to, e);
}

static int write_infos(struct rafs_pack *p, const struct rafs_blob *b, struct buf *to,
		       struct err *e)
{
	for (size_t i = 0; i < b->n_chunks; i++) {
		struct v6_info one = info(&b->chunks[i]);
		struct v6_info2 two;

		if (p->o.batch_size)
			two = info2(&b->chunks[i], &p->in_batch[i]);
		if (buf_add(to, p->o.batch_size ? (void *)&two : &one,
			    p->o.batch_size ? sizeof(two) : sizeof(one), e) < 0)
			return -1;
	}
	for (size_t i = 0; i < b->n_chunks && p->o.batch_size; i++)
		if (p->in_batch[i].batch != NONE)
			b->chunks[i].stored_at = 0; /* rows do not tell */
	return buf_add(to, p->batch, p->n_batches * sizeof(p->batch[0]), e);
}

struct rafs *rafs_pack_tree(struct rafs_pack *p)
{
	if (p->n_chunks) {
		make_blob(p);
		give_all(p);
	}
	return take_ptr(p->fs);
}

int rafs_pack_end(struct rafs_pack *p, struct rafs_layer *l, struct err *e)
{
	scoped(buf_fini) struct buf infos = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	struct rafs_end end = {.out = p->out, .prefetch = p->o.prefetch};
	int r;

	if (end_batch(p, e) < 0 || out_drain(p->out, e) < 0)
		return -1;
	if (p->n_chunks)
		make_blob(p); /* first, then those of the dictionary */
	make_borrowed(p);
	if (p->n_chunks || p->n_borrowed)
		give_all(p);
	if (p->n_chunks) {
		if ((p->zran ? write_zran(p, p->fs->blobs[0], &infos, e)
			     : write_infos(p, p->fs->blobs[0], &infos, e)) < 0)
			return -1;
		end.data = p->stored;
		end.contexts = p->zran ? rafs_zran_contexts(p->zran) : (uint32_t)p->n_batches;
		end.contexts_size = infos.len - p->n_chunks * sizeof(struct v6_info2);
		if (!p->zran && !p->o.batch_size)
			end.contexts_size = 0;
		end.compress_infos = p->o.compressor != V6_NONE;
	}
	end.infos = &infos;
	r = rafs_end_write(&end, p->fs, l, e);
	if (r == 0)
		l->fs = take_ptr(p->fs);
	return r;
}
