/* worker/drivers/lazycheck.c - see lazycheck.h.
 *
 * The table is read first.  Then the blob is unpacked piece by piece, from each offset of the table
 * to the next, so that a piece that is not made of whole members does not unpack; and the tar in it
 * builds a table of its own, which must be the same. */
#include "worker/drivers/lazycheck.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "common/stream_impl.h"
#include "worker/drivers/toccompare.h"
#include "worker/drivers/tocread.h"
#include "worker/tar/tar_reader.h"

#define CHUNKS_MAX ((size_t)1 << 30)

/* ---- a part of a blob as a source */

struct part {
	struct source base;
	struct blob_at *blob;
	uint64_t at, end;
};

static ssize_t part_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct part *p = (struct part *)s;

	if (n > p->end - p->at)
		n = (size_t)(p->end - p->at);
	if (n && p->blob->read(p->blob, p->at, buf, n, e) < 0)
		return -1;
	p->at += n;
	return (ssize_t)n;
}

static void part_free(struct source *s)
{
	free(s);
}

static struct source *part_new(struct blob_at *b, uint64_t from, uint64_t to)
{
	static const struct source_ops ops = {part_read, part_free};
	struct part *p = mem_zalloc(sizeof(*p));

	p->base.ops = &ops;
	p->blob = b;
	p->at = from;
	p->end = to;
	return &p->base;
}

int lazy_source(struct source **to, struct blob_at *b, uint64_t from, uint64_t end,
		enum codec codec, struct err *e)
{
	struct codec_opts o = {.large_window = true};
	scoped(source_freep) struct source *s = part_new(b, from, end);

	if (codec_unpack(&s, codec, &o, e) < 0)
		return -1;
	*to = take_ptr(s);
	return 0;
}

/* ---- all parts, one after the other */

/* A chunk of the table, or (size 0) the end of a file as podman's dialect tells it. */
struct mark {
	uint64_t offset, size;
	uint64_t starts; /* in the unpacked stream, once `known` */
	uint64_t wanted; /* of an end: where the file's bytes ended */
};

struct parts {
	struct source base;
	struct blob_at *blob;
	const struct lazy_blob *what;
	struct buf marks; /* struct mark */
	size_t next, known;
	struct source *now;
	uint64_t from; /* of the part being read, for messages */
	uint64_t out;
};

static struct mark *mark_at(const struct parts *p, size_t i)
{
	return (struct mark *)(void *)p->marks.data + i;
}

static size_t n_marks(const struct parts *p)
{
	return p->marks.len / sizeof(struct mark);
}

static uint64_t part_start(const struct parts *p, size_t i)
{
	size_t n = n_marks(p);

	if (i == 0)
		return 0;
	return i <= n	    ? mark_at(p, i - 1)->offset
	       : i == n + 1 ? p->what->data_end
			    : p->what->tar_end;
}

/* Part 0 comes before the first chunk, part n + 1 is eStargz' TOC member. */
static int next_part(struct parts *p, struct err *e)
{
	size_t n = n_marks(p), i = p->next++;
	uint64_t from = part_start(p, i), to = part_start(p, i + 1);

	if (i > n + 1)
		return 0;
	if (i > 0 && i <= n) {
		mark_at(p, i - 1)->starts = p->out;
		p->known = i;
	}
	p->from = from;
	if (from == to)
		return 1;
	return lazy_source(&p->now, p->blob, from, to, p->what->codec, e) < 0 ? -1 : 1;
}

static ssize_t parts_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct parts *p = (struct parts *)s;

	for (;;) {
		ssize_t got = 0;
		int more;

		if (p->now) {
			got = source_read(p->now, buf, n, e);
			if (got < 0)
				return err_wrap(e, "the piece at offset %" PRIu64, p->from);
			p->out += (uint64_t)got;
			if (got)
				return got;
			source_freep(&p->now);
		}
		more = next_part(p, e);
		if (more <= 0)
			return more < 0 ? err_wrap(e, "the piece at offset %" PRIu64, p->from) : 0;
	}
}

static void parts_free(struct source *s)
{
	/* the check owns it: the tar reader only borrows */
}

/* ---- the check */

struct check {
	struct parts parts;
	struct toc_builder told;
	struct toc *found;
	lazy_piece *on;
	void *arg;
	unsigned landmarks;
	bool after_toc;
	bool in_file; /* while the table is read: of the file last told */
	uint64_t end_offset;
	/* the current file */
	uint32_t id;
	bool live;
	size_t chunk; /* the next one of the table */
	uint64_t left, chunk_left;
	struct hasher *chunk_hash, *whole;
};

static void check_fini(struct check *c)
{
	source_freep(&c->parts.now);
	buf_fini(&c->parts.marks);
	toc_freep(&c->told.toc);
	toc_freep(&c->found);
	hasher_freep(&c->chunk_hash);
	hasher_freep(&c->whole);
}

static bool landmark(const char *name)
{
	char text[32];

	return tar_clean_name(name, text, sizeof(text)) < sizeof(text) &&
	       (!strcmp(text, LANDMARK_PREFETCH) || !strcmp(text, LANDMARK_NONE));
}

static int add_mark(struct check *c, const struct mark *m, struct err *e)
{
	size_t n = n_marks(&c->parts);

	if (n && m->offset <= mark_at(&c->parts, n - 1)->offset)
		return err_set(e, ERR_CORRUPT, "offset %" PRIu64 " does not lie behind %" PRIu64,
			       m->offset, mark_at(&c->parts, n - 1)->offset);
	return buf_add(&c->parts.marks, m, sizeof(*m), e);
}

/* podman's dialect: a file ends where its endOffset says. */
static int end_of_file(struct check *c, struct err *e)
{
	struct mark m = {.offset = c->end_offset};

	if (c->parts.what->form == TOC_ESTARGZ || !c->in_file)
		return 0;
	c->in_file = false;
	if (m.offset > c->parts.what->data_end)
		return err_set(e, ERR_CORRUPT,
			       "endOffset %" PRIu64 " lies behind the data, which ends at %" PRIu64,
			       m.offset, c->parts.what->data_end);
	return add_mark(c, &m, e);
}

static int on_item(void *arg, const struct toc_item *it, struct err *e)
{
	static const uint8_t want[32] = {0xdc, 0x0e, 0x9c, 0x36, 0x58, 0xa1, 0xa3, 0xed,
					 0x1e, 0xc9, 0x42, 0x74, 0xd8, 0xb1, 0x99, 0x25,
					 0xc9, 0x3e, 0x1a, 0xbb, 0x7d, 0xdb, 0xa2, 0x94,
					 0x92, 0x3a, 0xd9, 0xbd, 0xe3, 0x0f, 0x8c, 0xb8};
	struct check *c = arg;
	struct mark s = {.offset = it->offset};
	uint64_t before = c->told.file_left;

	if (!it->chunk && end_of_file(c, e) < 0)
		return -1;
	if (toc_build(&c->told, it, e) < 0)
		return -1;
	if (!it->chunk && landmark(it->entry.name)) {
		c->landmarks++;
		if (it->entry.size != 1 || memcmp(it->digest, want, 32) != 0)
			return err_set(e, ERR_CORRUPT, "the landmark %s is not the one byte 0x0f",
				       it->entry.name);
	}
	if (!it->chunk && (it->entry.type != '0' || !it->entry.size))
		return 0;
	s.size = (it->chunk ? before : it->entry.size) - c->told.file_left;
	if (s.offset >= c->parts.what->data_end)
		return err_set(e, ERR_CORRUPT,
			       "%s: offset %" PRIu64
			       " lies behind the data, which ends at %" PRIu64,
			       it->entry.name, s.offset, c->parts.what->data_end);
	if (!it->chunk) {
		c->end_offset = it->end_offset;
		c->in_file = true;
	}
	return add_mark(c, &s, e);
}

static int read_toc(struct check *c, struct source *toc, struct digest *sum,
		    struct digest *tarsplit, struct err *e)
{
	scoped(toc_reader_freep) struct toc_reader *r = toc_reader_new(on_item, c);
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped_free char *buf = mem_alloc(64 << 10);
	ssize_t n;

	while ((n = source_read(toc, buf, 64 << 10, e)) > 0) {
		hasher_update(h, buf, (size_t)n);
		if (toc_reader_feed(r, buf, (size_t)n, e) < 0)
			return -1;
	}
	hasher_final(h, sum);
	if (n < 0 || toc_reader_finish(r, tarsplit, e) < 0 || end_of_file(c, e) < 0 ||
	    toc_build_end(&c->told, e) < 0 || toc_seal(c->told.toc, e) < 0)
		return -1;
	return toc_unfit(c->told.toc) ? err_set(e, ERR_CORRUPT, "%s", toc_unfit(c->told.toc)) : 0;
}

static int on_header(struct check *c, const struct tar_piece *p, struct err *e)
{
	const struct tar_entry *n = p->entry;

	if (c->after_toc)
		return err_set(e, ERR_CORRUPT, "%s comes after the table of contents", n->name);
	c->live = false;
	c->left = n->size;
	c->id = UINT32_MAX;
	if (n->type == 'g')
		return 0;
	if (toc_reserved(n->name) && !landmark(n->name)) {
		c->after_toc = true;
		return 0;
	}
	return toc_add(c->found, n, &c->id, e);
}

static int start_chunk(struct check *c, uint64_t tar_pos, uint64_t file_pos, struct err *e)
{
	struct parts *p = &c->parts;
	bool here = c->chunk < p->known && mark_at(p, c->chunk)->starts == tar_pos;

	if (file_pos == 0)
		c->live = here && c->id != UINT32_MAX; /* else it is replaced by a later entry, or
							  an error that compare names */
	if (!c->live)
		return 0;
	if (!here)
		return err_set(e, ERR_CORRUPT,
			       "a chunk of the file does not start where the table says");
	c->chunk_left = mark_at(p, c->chunk)->size;
	return c->chunk_left ? 0 : err_set(e, ERR_CORRUPT, "the file goes on behind its endOffset");
}

/* tar_pos: behind its last byte. */
static int end_chunk(struct check *c, uint64_t tar_pos, struct err *e)
{
	const struct mark *s = mark_at(&c->parts, c->chunk++);
	uint64_t end = 0;
	struct digest d;
	uint32_t i;

	hasher_final(c->chunk_hash, &d);
	if (toc_chunk(c->found, c->id, s->size, false, &i, e) < 0)
		return -1;
	toc_chunk_landed(c->found, i, s->offset, 0, d.bytes);
	if (c->left)
		return 0;
	if (c->parts.what->form != TOC_ESTARGZ) {
		struct mark *m = mark_at(&c->parts, c->chunk++);

		m->wanted = tar_pos;
		end = m->offset;
	}
	hasher_final(c->whole, &d);
	return toc_file_end_at(c->found, c->id, &d, end, e);
}

static int on_data(struct check *c, const struct tar_piece *p, struct err *e)
{
	const uint8_t *at = p->raw;

	if (c->after_toc)
		return 0;
	for (size_t n = p->len, part; n; n -= part, at += part) {
		uint64_t done = p->len - n;

		if (!c->chunk_left && start_chunk(c, p->tar_pos + done, p->file_pos + done, e) < 0)
			return err_wrap(e, "%s", p->entry->name);
		if (!c->live)
			return 0;
		part = n < c->chunk_left ? n : (size_t)c->chunk_left;
		hasher_update(c->chunk_hash, at, part);
		hasher_update(c->whole, at, part);
		c->chunk_left -= part;
		c->left = c->left > part ? c->left - part : 0;
		if (!c->chunk_left && end_chunk(c, p->tar_pos + done + part, e) < 0)
			return -1;
	}
	return 0;
}

static int on_piece(struct check *c, const struct tar_piece *p, struct err *e)
{
	if (p->kind == TAR_HEADER && on_header(c, p, e) < 0)
		return -1;
	if (p->kind == TAR_DATA && on_data(c, p, e) < 0)
		return -1;
	if (!c->on || (p->entry && p->entry->type != 'g' && toc_reserved(p->entry->name)))
		return 0;
	return c->on(c->arg, p, e);
}

static int walk(struct source **s,
		int (*on)(struct check *c, const struct tar_piece *p, struct err *e),
		struct check *c, struct err *e)
{
	scoped(tar_closep) struct tar_reader *t = NULL;
	struct tar_limits limits = {0};
	struct tar_piece p;
	int rc;

	if (tar_open(&t, s, &limits, e) < 0)
		return -1;
	while ((rc = tar_next(t, &p, e)) > 0)
		if (on(c, &p, e) < 0)
			return -1;
	return rc;
}

int lazy_check(struct blob_at *b, const struct lazy_blob *what, struct source *toc,
	       struct digest *toc_digest, struct digest *tarsplit, uint64_t *unpacked,
	       lazy_piece *on, void *arg, struct err *e)
{
	static const struct source_ops ops = {parts_read, parts_free};
	scoped(check_fini) struct check c = {
		.on = on, .arg = arg, .parts = {.blob = b, .what = what}};
	struct source *s = &c.parts.base;

	c.parts.base.ops = &ops;
	buf_init(&c.parts.marks, CHUNKS_MAX);
	c.told.toc = toc_new(what->form, 0);
	c.found = toc_new(what->form, 0);
	c.chunk_hash = hasher_new(DIGEST_SHA256);
	c.whole = hasher_new(DIGEST_SHA256);
	if (read_toc(&c, toc, toc_digest, tarsplit, e) < 0)
		return -1;
	if (c.landmarks != what->landmark)
		return err_set(e, ERR_CORRUPT,
			       "the table of contents has %u landmarks, expected %d", c.landmarks,
			       what->landmark);
	if (walk(&s, on_piece, &c, e) < 0)
		return -1;
	if (c.chunk != n_marks(&c.parts))
		return err_set(e, ERR_CORRUPT,
			       "the chunk at offset %" PRIu64 " belongs to no file of the tar",
			       mark_at(&c.parts, c.chunk)->offset);
	for (size_t i = 0; i < n_marks(&c.parts); i++) {
		const struct mark *m = mark_at(&c.parts, i);

		if (!m->size && m->starts != m->wanted)
			return err_set(e, ERR_CORRUPT,
				       "the file's bytes do not end at endOffset %" PRIu64,
				       m->offset);
	}
	if (what->tar_end != what->data_end && !c.after_toc)
		return err_set(e, ERR_CORRUPT, "the tar ends before its table of contents");
	*unpacked = c.parts.out;
	if (toc_seal(c.found, e) < 0)
		return -1;
	if (toc_unfit(c.found))
		return err_set(e, ERR_CORRUPT, "%s", toc_unfit(c.found));
	return toc_compare(c.told.toc, c.found, e);
}

static int on_plain(struct check *c, const struct tar_piece *p, struct err *e)
{
	if (!c->on || (p->entry && p->entry->type != 'g' && landmark(p->entry->name)))
		return 0;
	return c->on(c->arg, p, e);
}

int lazy_check_plain(struct blob_at *b, enum codec codec, lazy_piece *on, void *arg, struct err *e)
{
	scoped(source_freep) struct source *s = NULL;
	struct check c = {.on = on, .arg = arg};

	if (lazy_source(&s, b, 0, b->size, codec, e) < 0)
		return -1;
	return walk(&s, on_plain, &c, e);
}
