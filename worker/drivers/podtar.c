/* worker/drivers/podtar.c - see podtar.h.
 *
 * Zeros are held back as a count until it is known whether 1024 of them follow each other.  A chunk
 * is cut when the next byte after it comes, or at the end of its file, so that the table knows the
 * last one when it lands. */
#include "worker/drivers/podtar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/codec/member.h"
#include "worker/drivers/lazytar.h"
#include "worker/drivers/rollsum.h"
#include "worker/drivers/tarsplit.h"
#include "worker/tar/tar_reader.h"

#define NONE UINT32_MAX
#define SPLIT_MAX ((size_t)512 << 20)

/* A cookie: (chunk + 1) << 2 and one of these. */
enum { LAND_FIRST = 0, LAND_HASHED = 1, LAND_MORE = 2 };

struct podtar {
	enum toc_form form;
	struct toc *toc;
	struct out *out;
	uint64_t unpacked;
	/* tar-split, packed as it comes */
	struct tarsplit *split;
	struct member *split_member;
	struct buf split_frame;
	/* the open frame */
	uint64_t cookie;
	bool hash;
	/* the current file */
	uint32_t id;
	uint64_t left;
	struct hasher *whole, *zeros;
	struct rollsum roll;
	size_t run; /* zeros held back */
	bool in_hole;
	/* its current chunk */
	bool in_chunk;
	uint32_t chunk, n_chunks;
	uint64_t chunk_n, hashed_zeros;
};

static int keep_split(void *arg, const void *b, size_t n, struct err *e)
{
	struct podtar *p = arg;

	return buf_add(&p->split_frame, b, n, e);
}

static int pack_split(void *arg, const void *b, size_t n, struct err *e)
{
	struct podtar *p = arg;

	return member_write(p->split_member, b, n, e);
}

int podtar_new(struct podtar **to, enum toc_form form, struct err *e)
{
	scoped(podtar_freep) struct podtar *p = mem_zalloc(sizeof(*p));
	const struct encode_as as = {.encoding = ENCODE_ZSTD, .checksum = 1};

	p->form = form;
	p->toc = toc_new(form, 0);
	p->whole = hasher_new(DIGEST_SHA256);
	p->zeros = hasher_new(DIGEST_SHA256);
	p->split = tarsplit_new(pack_split, p);
	buf_init(&p->split_frame, SPLIT_MAX);
	if (member_open(&p->split_member, &as, keep_split, p, e) < 0)
		return -1;
	*to = take_ptr(p);
	return 0;
}

void podtar_freep(struct podtar **pp)
{
	struct podtar *p = take_ptr(*pp);

	if (!p)
		return;
	toc_freep(&p->toc);
	tarsplit_freep(&p->split);
	member_freep(&p->split_member);
	buf_fini(&p->split_frame);
	hasher_freep(&p->whole);
	hasher_freep(&p->zeros);
	free(p);
}

struct toc *podtar_toc(struct podtar *p)
{
	return p->toc;
}

uint64_t podtar_unpacked(const struct podtar *p)
{
	return p->unpacked;
}

const struct buf *podtar_split(const struct podtar *p, uint64_t *unpacked)
{
	*unpacked = tarsplit_bytes(p->split);
	return &p->split_frame;
}

void podtar_begin(struct podtar *p, struct out *out)
{
	p->out = out;
}

/* ---- frames */

int podtar_on_land(void *arg, const struct landed *l, struct err *e)
{
	struct podtar *p = arg;
	uint32_t chunk = (uint32_t)(l->cookie >> 2) - 1;

	if (!l->cookie)
		return 1;
	if ((l->cookie & 3) == LAND_MORE)
		toc_chunk_end(p->toc, chunk, l->offset + l->stored);
	else
		toc_chunk_landed(p->toc, chunk, l->offset, l->stored,
				 l->cookie & LAND_HASHED ? l->hash : NULL);
	return 1;
}

static int cut(struct podtar *p, struct err *e)
{
	size_t n = out_open_bytes(p->out);
	int rc = out_cut(p->out, p->cookie | (p->hash ? LAND_HASHED : 0),
			 p->hash ? HASH_SHA256 : HASH_NONE, 0, p->hash ? n : 0, e);

	p->cookie = 0;
	p->hash = false;
	return rc;
}

static int append(struct podtar *p, const uint8_t *b, size_t n, struct err *e)
{
	p->unpacked += n;
	while (n) {
		size_t room = SEGMENT_MAX - out_open_bytes(p->out), part = n < room ? n : room;

		if ((b ? out_append(p->out, b, part, e) : out_append_zeros(p->out, part, e)) < 0)
			return -1;
		b = b ? b + part : NULL;
		n -= part;
		if (n && cut(p, e) < 0)
			return -1;
		if (n && p->in_chunk && p->id != NONE) /* one more frame of the same chunk */
			p->cookie = ((uint64_t)p->chunk + 1) << 2 | LAND_MORE;
	}
	return 0;
}

/* ---- chunks */

static int begin_chunk(struct podtar *p, bool zeros, struct err *e)
{
	if (cut(p, e) < 0)
		return -1;
	p->in_chunk = true;
	p->chunk_n = p->hashed_zeros = 0;
	p->n_chunks++;
	if (p->id == NONE)
		return 0;
	if (toc_chunk(p->toc, p->id, 0, zeros, &p->chunk, e) < 0)
		return -1;
	p->cookie = ((uint64_t)p->chunk + 1) << 2;
	return 0;
}

static void hash_zeros(struct podtar *p, uint64_t n)
{
	static const uint8_t much[64 << 10];

	for (uint64_t part; n; n -= part) {
		part = n < sizeof(much) ? n : sizeof(much);
		hasher_update(p->zeros, much, (size_t)part);
	}
}

/* Whether it is hashed is said before it is cut: end_file takes it back for an only chunk, which
 * has the file's digest. */
static void end_chunk(struct podtar *p)
{
	struct digest d;

	if (!p->in_chunk)
		return;
	p->in_chunk = false;
	if (p->id == NONE)
		return;
	toc_chunk_size(p->toc, p->chunk, p->chunk_n);
	if (p->hashed_zeros) { /* a hole of several frames */
		hash_zeros(p, p->chunk_n - p->hashed_zeros);
		hasher_final(p->zeros, &d);
		toc_chunk_hash(p->toc, p->chunk, d.bytes);
	} else {
		p->hash = true;
	}
}

static int put_bytes(struct podtar *p, const uint8_t *b, size_t n, struct err *e)
{
	while (n) {
		size_t part;

		if (!p->in_chunk && begin_chunk(p, false, e) < 0)
			return -1;
		part = n < SEGMENT_MAX - p->chunk_n ? n : (size_t)(SEGMENT_MAX - p->chunk_n);
		if (append(p, b, part, e) < 0)
			return -1;
		p->chunk_n += part;
		b += part;
		n -= part;
		if (p->chunk_n == SEGMENT_MAX) /* no one cut it for 4 MiB: we do */
			end_chunk(p);
	}
	return 0;
}

static int put_hole(struct podtar *p, uint64_t n, struct err *e)
{
	rollsum_zeros(&p->roll, n);
	while (n) {
		size_t part = n < SEGMENT_MAX ? (size_t)n : SEGMENT_MAX;

		if (!p->in_chunk && begin_chunk(p, true, e) < 0)
			return -1;
		if (append(p, NULL, part, e) < 0)
			return -1;
		p->chunk_n += part;
		n -= part;
		if (p->chunk_n > SEGMENT_MAX) { /* what no single frame holds is hashed here */
			hash_zeros(p, p->chunk_n - p->hashed_zeros);
			p->hashed_zeros = p->chunk_n;
		}
	}
	return 0;
}

/* Data, cut where the sum says. */
static int roll_data(struct podtar *p, const uint8_t *b, size_t n, struct err *e)
{
	bool split;

	for (size_t part; n; b += part, n -= part) {
		part = rollsum_span(&p->roll, b, n, &split);
		if (put_bytes(p, b, part, e) < 0)
			return -1;
		if (split)
			end_chunk(p);
	}
	return 0;
}

/* Fewer than 1024 zeros: bytes like any other. */
static int flush_run(struct podtar *p, struct err *e)
{
	static const uint8_t zeros[HOLE_MIN];
	size_t n = p->run;

	p->run = 0;
	return roll_data(p, zeros, n, e);
}

static size_t zero_span(const uint8_t *b, size_t n)
{
	size_t i = 0;

	for (uint64_t word; n - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, b + i, sizeof(word));
		if (word)
			break;
	}
	while (i < n && b[i] == 0)
		i++;
	return i;
}

/* Where the next run of 1024 zeros starts, or the one that may grow beyond n, or n.  A run that
 * long covers every 1024th byte: the others need not be looked at. */
static size_t next_hole(const uint8_t *b, size_t n)
{
	size_t i = 0;

	for (size_t probe = HOLE_MIN; probe <= n; probe = i + HOLE_MIN) {
		size_t from = i;

		for (i = probe; i > from && b[i - 1] == 0; i--)
			;
		if (probe - i == HOLE_MIN)
			return i;
	}
	for (i = n; i > 0 && b[i - 1] == 0; i--)
		;
	return i;
}

/* Zeros, with those held back before them: a hole, or its next part, or held back until it is known
 * what follows (all: no data do in this piece).  1: they are data. */
static int zeros_are_data(struct podtar *p, size_t n, bool all, struct err *e)
{
	size_t run = p->run + n;

	if (p->in_hole)
		return put_hole(p, n, e);
	if (run < HOLE_MIN && !all)
		return 1;
	p->run = run;
	if (run < HOLE_MIN)
		return 0;
	end_chunk(p);
	p->run = 0;
	p->in_hole = true;
	return put_hole(p, run, e);
}

static int put_data(struct podtar *p, const uint8_t *b, size_t n, struct err *e)
{
	while (n) {
		size_t zeros = zero_span(b, n), end;
		int data = zeros_are_data(p, zeros, zeros == n, e);

		if (data < 0)
			return -1;
		if (!data) {
			b += zeros;
			n -= zeros;
		}
		if (!n)
			break;
		if (p->in_hole)
			end_chunk(p);
		p->in_hole = false;
		end = next_hole(b, n);
		if (flush_run(p, e) < 0 || roll_data(p, b, end, e) < 0)
			return -1;
		b += end;
		n -= end;
	}
	return 0;
}

static int end_file(struct podtar *p, struct err *e)
{
	struct digest d;

	if (p->run && flush_run(p, e) < 0)
		return -1;
	end_chunk(p);
	hasher_final(p->whole, &d);
	if (p->id != NONE) {
		if (p->n_chunks == 1) {
			toc_chunk_hash(p->toc, p->chunk, d.bytes);
			p->hash = false;
		}
		if (toc_file_end(p->toc, p->id, &d, e) < 0)
			return -1;
	}
	return cut(p, e);
}

/* ---- pieces */

static void start_file(struct podtar *p, uint32_t id, uint64_t size)
{
	p->id = id;
	p->left = size;
	p->roll = (struct rollsum)ROLLSUM_INIT;
	p->run = 0;
	p->in_hole = p->in_chunk = false;
	p->n_chunks = 0;
}

static int on_header(struct podtar *p, const struct tar_piece *t, struct err *e)
{
	const struct tar_entry *n = t->entry;
	uint32_t id = NONE;
	char type = t->len >= TAR_BLOCK ? ((const char *)t->raw)[t->len - TAR_BLOCK + 156] : '0';

	if (n->type == 'g')
		toc_spoil(p->toc, "the tar has a PAX global header");
	else if (type == '7')
		toc_spoil(p->toc, "%s is of type 7 (contiguous)", n->name);
	if (p->form == TOC_BOTH && toc_reserved(n->name))
		toc_spoil(p->toc, "%s is a name that eStargz keeps for itself", n->name);
	if (n->type != 'g' && !toc_unfit(p->toc) && toc_add(p->toc, n, &id, e) < 0)
		return -1;
	start_file(p, id, n->type == '0' && !n->sparse ? n->size : 0);
	return append(p, t->raw, t->len, e);
}

static int on_data(struct podtar *p, const struct tar_piece *t, struct err *e)
{
	if (t->entry->sparse)
		return append(p, t->raw, t->len, e);
	hasher_update(p->whole, t->raw, t->len);
	assert(t->len <= p->left);
	p->left -= t->len;
	if (put_data(p, t->raw, t->len, e) < 0)
		return -1;
	return p->left ? 0 : end_file(p, e);
}

static int on_trailer(struct podtar *p, const struct tar_piece *t, struct err *e)
{
	if (zero_span(t->raw, t->len) != t->len)
		toc_spoil(p->toc, "there are bytes after the tar's end marker");
	return append(p, t->raw, t->len, e);
}

int podtar_tar(struct podtar *p, const struct tar_piece *t, struct err *e)
{
	int rc = 0;

	switch (t->kind) {
	case TAR_HEADER:
		rc = on_header(p, t, e);
		break;
	case TAR_DATA:
		rc = on_data(p, t, e);
		break;
	case TAR_TRAILER:
		rc = on_trailer(p, t, e);
		break;
	case TAR_HOLE:
		break;
	default:
		rc = append(p, t->raw, t->len, e);
	}
	if (rc < 0)
		return -1;
	return toc_unfit(p->toc) ? 0 : tarsplit_piece(p->split, t, e);
}

int podtar_end(struct podtar *p, struct err *e)
{
	if (cut(p, e) < 0 || out_drain(p->out, e) < 0 || toc_seal(p->toc, e) < 0)
		return -1;
	if (toc_unfit(p->toc))
		return 0;
	return tarsplit_end(p->split, e) < 0 ? -1 : member_finish(p->split_member, e);
}
