/* worker/drivers/lazytar.c - see lazytar.h.
 *
 * Bytes are copied once, into the compressors' buffer, and hashed here for the diff_id.  A file of
 * one chunk is hashed once more, by the compressor's thread; a file of several also as a whole,
 * here. */
#include "worker/drivers/lazytar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/drivers/priority.h"
#include "worker/drivers/sparse.h"
#include "worker/drivers/toc.h"
#include "worker/tar/tar_reader.h"

#define NONE UINT32_MAX

enum part { PART_HEADERS, PART_FIRST, PART_REST, PART_ALL };

struct lazytar {
	uint64_t chunk_size;
	struct priority *priority; /* NULL: nothing is listed, or nothing of it is there */
	bool listed;
	enum part part;
	bool done;
	struct toc *toc;
	struct out *out;
	struct hasher *diff, *whole, *chunk;
	uint64_t diff_n;
	/* the open member */
	uint64_t cookie;
	size_t hash_n;
	/* the current file */
	bool skip;
	uint32_t id;
	uint64_t size, left, chunk_left, chunk_n;
	uint32_t chunk_id;
};

struct lazytar *lazytar_new(uint64_t chunk_size, const char *prioritized)
{
	struct lazytar *l = mem_zalloc(sizeof(*l));

	l->chunk_size = chunk_size;
	l->listed = prioritized && *prioritized;
	if (l->listed)
		l->priority = priority_new(prioritized);
	l->part = l->listed ? PART_HEADERS : PART_ALL;
	l->toc = toc_new(TOC_ESTARGZ, chunk_size);
	l->diff = hasher_new(DIGEST_SHA256);
	l->whole = hasher_new(DIGEST_SHA256);
	l->chunk = hasher_new(DIGEST_SHA256);
	return l;
}

void lazytar_freep(struct lazytar **ll)
{
	struct lazytar *l = take_ptr(*ll);

	if (!l)
		return;
	priority_freep(&l->priority);
	toc_freep(&l->toc);
	hasher_freep(&l->diff);
	hasher_freep(&l->whole);
	hasher_freep(&l->chunk);
	free(l);
}

struct toc *lazytar_toc(struct lazytar *l)
{
	return l->toc;
}

bool lazytar_headers_only(const struct lazytar *l, int pass)
{
	return l->listed && pass == 0;
}

int lazytar_again(struct lazytar *l)
{
	switch (l->part) {
	case PART_HEADERS:
		l->part = PART_FIRST;
		if (!priority_settle(l->priority)) { /* as if nothing were listed */
			priority_freep(&l->priority);
			l->part = PART_ALL;
		}
		return 1;
	case PART_FIRST:
		l->part = PART_REST;
		return 1;
	default:
		return 0;
	}
}

/* ---- the stream */

/* A cookie names the chunk that starts the member, and whether the compressor hashes it. */
int lazytar_on_land(void *arg, const struct landed *landed, struct err *e)
{
	struct lazytar *l = arg;

	if (landed->cookie)
		toc_chunk_landed(l->toc, (uint32_t)(landed->cookie >> 1) - 1, landed->offset,
				 landed->stored, landed->cookie & 1 ? landed->hash : NULL);
	return 1;
}

int lazytar_cut(struct lazytar *l, struct err *e)
{
	int rc = out_cut(l->out, l->cookie, l->hash_n ? HASH_SHA256 : HASH_NONE, 0, l->hash_n, e);

	l->cookie = 0;
	l->hash_n = 0;
	return rc;
}

void lazytar_count(struct lazytar *l, const void *p, size_t n)
{
	hasher_update(l->diff, p, n);
	l->diff_n += n;
}

int lazytar_append(struct lazytar *l, const void *p, size_t n, struct err *e)
{
	const uint8_t *from = p;

	lazytar_count(l, p, n);
	while (n) {
		size_t room = SEGMENT_MAX - out_open_bytes(l->out), part = n < room ? n : room;

		if (part && out_append(l->out, from, part, e) < 0)
			return -1;
		from += part;
		n -= part;
		if (n && lazytar_cut(l, e) < 0)
			return -1;
	}
	return 0;
}

static const uint8_t zeros[4096];

int lazytar_append_zeros(struct lazytar *l, size_t n, struct err *e)
{
	for (size_t part; n; n -= part) {
		part = n < sizeof(zeros) ? n : sizeof(zeros);
		if (lazytar_append(l, zeros, part, e) < 0)
			return -1;
	}
	return 0;
}

uint64_t lazytar_sum(const struct lazytar *l, struct digest *d)
{
	hasher_peek(l->diff, d);
	return l->diff_n;
}

/* ---- files */

static int start_chunk(struct lazytar *l, struct err *e)
{
	if (lazytar_cut(l, e) < 0)
		return -1;
	l->chunk_n = l->left < l->chunk_size ? l->left : l->chunk_size;
	l->chunk_left = l->chunk_n;
	if (l->id == NONE)
		return 0;
	if (toc_chunk(l->toc, l->id, l->chunk_n, false, &l->chunk_id, e) < 0)
		return -1;
	if (l->chunk_n <= SEGMENT_MAX)
		l->hash_n = l->chunk_n;
	l->cookie = ((uint64_t)l->chunk_id + 1) << 1 | (l->hash_n != 0);
	return 0;
}

static int end_file(struct lazytar *l, struct err *e)
{
	struct digest d;
	bool several = l->size > l->chunk_size;

	if (several)
		hasher_final(l->whole, &d);
	if (l->id != NONE && toc_file_end(l->toc, l->id, several ? &d : NULL, e) < 0)
		return -1;
	return lazytar_append_zeros(l, tar_padding(l->size), e);
}

static int put_part(struct lazytar *l, const uint8_t *p, size_t n, struct err *e)
{
	struct digest d;

	if (lazytar_append(l, p, n, e) < 0)
		return -1;
	if (l->size > l->chunk_size)
		hasher_update(l->whole, p, n);
	if (l->chunk_n > SEGMENT_MAX)
		hasher_update(l->chunk, p, n);
	l->chunk_left -= n;
	l->left -= n;
	if (l->chunk_n > SEGMENT_MAX && l->chunk_left == 0) {
		hasher_final(l->chunk, &d);
		if (l->id != NONE)
			toc_chunk_hash(l->toc, l->chunk_id, d.bytes);
	}
	return 0;
}

static int put_data(struct lazytar *l, const uint8_t *p, size_t n, struct err *e)
{
	assert(n <= l->left);
	while (n) {
		size_t part;

		if (l->chunk_left == 0 && start_chunk(l, e) < 0)
			return -1;
		part = n < l->chunk_left ? n : l->chunk_left;
		if (put_part(l, p, part, e) < 0)
			return -1;
		p += part;
		n -= part;
	}
	return l->left ? 0 : end_file(l, e);
}

static int put_hole(struct lazytar *l, uint64_t n, struct err *e)
{
	static const uint8_t much[64 << 10];

	for (size_t part; n; n -= part) {
		part = n < sizeof(much) ? (size_t)n : sizeof(much);
		if (put_data(l, much, part, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- headers */

static void start_file(struct lazytar *l, uint32_t id, uint64_t size)
{
	l->id = id;
	l->size = l->left = size;
	l->chunk_left = 0;
}

/* Type 7 is read as an ordinary file by all, but not by all who unpack. */
static int put_header(struct lazytar *l, const struct tar_piece *p, struct err *e)
{
	uint8_t block[TAR_BLOCK];
	size_t n = p->len;

	if (p->entry->sparse) {
		scoped(buf_fini) struct buf b = BUF_INIT((size_t)1 << 30);

		return sparse_header(&b, p->entry, e) < 0 ? -1
							  : lazytar_append(l, b.data, b.len, e);
	}
	if (n < TAR_BLOCK || ((const uint8_t *)p->raw)[n - TAR_BLOCK + 156] != '7')
		return lazytar_append(l, p->raw, n, e);
	memcpy(block, (const uint8_t *)p->raw + n - TAR_BLOCK, TAR_BLOCK);
	tar_retype(block, '0');
	return lazytar_append(l, p->raw, n - TAR_BLOCK, e) < 0
		       ? -1
		       : lazytar_append(l, block, TAR_BLOCK, e);
}

static bool wanted(struct lazytar *l, const struct tar_entry *n)
{
	if (n->type == 'g')
		return l->part != PART_FIRST;
	if (toc_reserved(n->name))
		return false;
	return l->part == PART_ALL ||
	       priority_first(l->priority, n->name) == (l->part == PART_FIRST);
}

static int on_header(struct lazytar *l, const struct tar_piece *p, struct err *e)
{
	const struct tar_entry *n = p->entry;
	uint32_t id = NONE;

	if (l->part == PART_HEADERS)
		return n->type == 'g' || toc_reserved(n->name) ? 0
							       : priority_see(l->priority, n, e);
	l->skip = !wanted(l, n);
	if (l->skip)
		return 0;
	if (n->type != 'g' && toc_add(l->toc, n, &id, e) < 0)
		return -1;
	start_file(l, id, n->type == '0' ? n->size : 0);
	/* a `g` record comes without its padding */
	return put_header(l, p, e) < 0 ? -1 : lazytar_append_zeros(l, tar_padding(p->len), e);
}

int lazytar_tar(struct lazytar *l, const struct tar_piece *p, struct err *e)
{
	switch (p->kind) {
	case TAR_HEADER:
		return on_header(l, p, e);
	case TAR_DATA:
		return l->skip || l->part == PART_HEADERS ? 0 : put_data(l, p->raw, p->len, e);
	case TAR_HOLE:
		return l->skip || l->part == PART_HEADERS ? 0 : put_hole(l, p->len, e);
	default: /* padding is made anew; maps and the end marker are left out */
		return 0;
	}
}

static int put_landmark(struct lazytar *l, const char *name, struct err *e)
{
	const struct tar_out header = {.name = name, .type = '0', .size = 1};
	const struct tar_entry entry = {.type = '0',
					.name = name,
					.link = "",
					.user = "",
					.group = "",
					.size = 1,
					.name_utf8 = true};
	uint8_t block[TAR_BLOCK], byte = LANDMARK_BYTE;
	uint32_t id;

	tar_write_header(block, &header);
	if (toc_add(l->toc, &entry, &id, e) < 0)
		return -1;
	start_file(l, id, 1);
	return lazytar_append(l, block, sizeof(block), e) < 0 ? -1 : put_data(l, &byte, 1, e);
}

int lazytar_begin(struct lazytar *l, int pass, struct out *out, struct err *e)
{
	if (l->part == PART_HEADERS)
		return 0;
	assert(out);
	l->out = out;
	if (l->part == PART_ALL)
		return put_landmark(l, LANDMARK_NONE, e);
	return l->part == PART_REST ? put_landmark(l, LANDMARK_PREFETCH, e) : 0;
}

int lazytar_end(struct lazytar *l, struct err *e)
{
	if (lazytar_cut(l, e) < 0 || out_drain(l->out, e) < 0)
		return -1;
	return toc_seal(l->toc, e);
}
