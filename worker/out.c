/* worker/out.c - see out.h.
 *
 * `now` is the batch being filled; `pending` are those with the compressors, oldest first.  A batch
 * leaves when it is well filled, or when the open segment does not fit behind the closed ones: then
 * its bytes move to the next buffer. How segments are spread over batches depends on timing and
 * never shows: a piece is made of one segment alone. */
#include "worker/out.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/pool.h"

/* Small enough to give every thread something to do early, large enough that handing over costs
 * nothing. */
#define SUBMIT_BYTES (1u << 20)

struct out {
	struct pool *pool;
	struct out_opts opts;
	const struct out_ops *ops;
	void *dest;
	size_t buffer_bytes;
	struct batch
		*own; /* the buffer that no one else can take; NULL while it is `now` or pending */
	struct batch *now;
	size_t open_at, in_n; /* of `now`: where the open segment starts, where it ends */
	struct batch *pending[BATCHES_MAX]; /* a ring */
	size_t head, n_pending;
	struct hasher *blob, *section; /* section: NULL until the first mark */
	uint64_t written;
	bool failed;
	struct err err;
};

static int fail(struct out *o, const struct err *why, struct err *e)
{
	if (!o->failed) {
		o->failed = true;
		o->err = *why;
	}
	if (e)
		*e = o->err;
	return -1;
}

static int write_bytes(struct out *o, const void *p, size_t n, struct err *e)
{
	hasher_update(o->blob, p, n);
	if (o->section)
		hasher_update(o->section, p, n);
	o->written += n;
	return o->ops->write(o->dest, p, n, e);
}

static int land_segment(struct out *o, const struct batch *b, const struct segment *s,
			struct err *e)
{
	const uint8_t *p = s->literal || s->raw ? b->in + s->at : b->out + s->out_at;
	int wanted = 1;

	if (!s->literal && o->opts.on_land) {
		struct landed l = {.cookie = s->cookie,
				   .offset = o->written,
				   .stored = s->stored,
				   .unpacked = s->n,
				   .raw = s->raw,
				   .bytes = p};

		memcpy(l.hash, s->sum, sizeof(l.hash));
		wanted = o->opts.on_land(o->opts.arg, &l, e);
	}
	return wanted > 0 ? write_bytes(o, p, s->stored, e) : wanted;
}

/* The oldest batch: waits for it, writes it.  The caller gets its buffer. */
static int land_head(struct out *o, struct batch **freed, struct err *e)
{
	struct batch *b = o->pending[o->head];
	int rc = 0;

	pool_wait(o->pool, b);
	o->head = (o->head + 1) % BATCHES_MAX;
	o->n_pending--;
	*freed = b;
	if (b->failed) {
		if (e)
			*e = *b->failed;
		return -1;
	}
	for (size_t i = 0; i < b->n && rc == 0; i++)
		rc = land_segment(o, b, &b->seg[i], e);
	return rc;
}

static void release(struct out *o, struct batch *b)
{
	if (b->owned)
		o->own = b;
	else
		pool_give(o->pool, b);
}

static int land_ready(struct out *o, struct err *e)
{
	while (o->n_pending && pool_done(o->pool, o->pending[o->head])) {
		struct batch *b;
		int rc = land_head(o, &b, e);

		release(o, b);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/* A free buffer; waits only for batches of our own. */
static struct batch *take_buffer(struct out *o, struct err *e)
{
	struct batch *b = take_ptr(o->own);

	if (!b)
		b = pool_try(o->pool);
	if (!b && land_head(o, &b, e) < 0) {
		release(o, b);
		return NULL;
	}
	return b;
}

/* Hands over the closed segments of `now`; the open one goes on in another buffer. */
static int roll(struct out *o, struct err *e)
{
	struct batch *full = o->now, *next;
	size_t open_n = o->in_n - o->open_at;

	if (land_ready(o, e) < 0)
		return -1;
	full->as = o->opts.as;
	full->raw_if_larger = o->opts.raw_if_larger;
	full->known = o->opts.known;
	full->known_arg = o->opts.known_arg;
	o->now = NULL;
	o->pending[(o->head + o->n_pending++) % BATCHES_MAX] = full;
	pool_submit(o->pool, full);
	/* If this hands back `full` itself, it was the last one and its input is still as it was.
	 */
	next = take_buffer(o, e);
	if (!next)
		return -1;
	memmove(next->in, full->in + o->open_at, open_n);
	next->n = 0;
	o->now = next;
	o->open_at = 0;
	o->in_n = open_n;
	return 0;
}

int out_open(struct out **to, struct pool *p, const struct out_opts *opts,
	     const struct out_ops *ops, void *dest, struct err *e)
{
	scoped(out_freep) struct out *o = mem_zalloc(sizeof(*o));

	o->pool = p;
	o->opts = *opts;
	o->ops = ops;
	o->dest = dest;
	o->buffer_bytes = pool_buffer_bytes(p);
	o->blob = hasher_new(DIGEST_SHA256);
	o->now = pool_own(p, e);
	if (!o->now)
		return -1;
	o->now->n = 0;
	*to = take_ptr(o);
	return 0;
}

void out_encode_as(struct out *o, const struct encode_as *as)
{
	struct err e = {0};

	assert(o->open_at == o->in_n);
	if (!o->failed && o->now->n && roll(o, &e) < 0)
		fail(o, &e, NULL);
	o->opts.as = *as;
}

size_t out_open_bytes(const struct out *o)
{
	return o->in_n - o->open_at;
}

size_t out_room(const struct out *o)
{
	return o->buffer_bytes - out_open_bytes(o);
}

/* Apart, so that the frequent calls do not clear a struct err each. */
static int roll_on(struct out *o, struct err *e)
{
	struct err why = {0};

	return roll(o, &why) < 0 ? fail(o, &why, e) : 0;
}

/* Room for n more bytes of the open segment behind in_n. */
static int make_room(struct out *o, size_t n, struct err *e)
{
	assert(n <= out_room(o));
	if (o->failed)
		return fail(o, &o->err, e);
	return n > o->buffer_bytes - o->in_n ? roll_on(o, e) : 0;
}

int out_append(struct out *o, const void *p, size_t n, struct err *e)
{
	if (make_room(o, n, e) < 0)
		return -1;
	if (n)
		memcpy(o->now->in + o->in_n, p, n);
	o->in_n += n;
	return 0;
}

int out_append_zeros(struct out *o, size_t n, struct err *e)
{
	if (make_room(o, n, e) < 0)
		return -1;
	memset(o->now->in + o->in_n, 0, n);
	o->in_n += n;
	return 0;
}

static int close_segment(struct out *o, const struct segment *s, struct err *e)
{
	if (o->failed)
		return fail(o, &o->err, e);
	o->now->seg[o->now->n] = *s;
	o->now->seg[o->now->n++].at = (uint32_t)o->open_at;
	o->open_at = o->in_n;
	return o->in_n >= SUBMIT_BYTES || o->now->n == BATCH_SEGMENTS ? roll_on(o, e) : 0;
}

int out_cut(struct out *o, uint64_t cookie, enum segment_hash hash, size_t hash_from, size_t hash_n,
	    struct err *e)
{
	struct segment s = {.cookie = cookie,
			    .n = (uint32_t)out_open_bytes(o),
			    .hash = hash,
			    .hash_from = (uint32_t)hash_from,
			    .hash_n = (uint32_t)hash_n};

	assert(hash_from <= s.n && hash_n <= s.n - hash_from);
	return s.n ? close_segment(o, &s, e) : 0;
}

int out_literal(struct out *o, const void *p, size_t n, struct err *e)
{
	assert(out_open_bytes(o) == 0);
	for (size_t at = 0; at < n;) {
		struct segment s = {.literal = true};
		size_t part = n - at < o->buffer_bytes ? n - at : o->buffer_bytes;

		if (out_append(o, (const char *)p + at, part, e) < 0)
			return -1;
		s.n = (uint32_t)part;
		if (close_segment(o, &s, e) < 0)
			return -1;
		at += part;
	}
	return o->failed ? fail(o, &o->err, e) : 0;
}

int out_drain(struct out *o, struct err *e)
{
	struct err why = {0};

	if (o->failed)
		return fail(o, &o->err, e);
	if (o->now->n && roll(o, &why) < 0)
		return fail(o, &why, e);
	while (o->n_pending) {
		struct batch *b;
		int rc = land_head(o, &b, &why);

		release(o, b);
		if (rc < 0)
			return fail(o, &why, e);
	}
	return 0;
}

uint64_t out_offset(const struct out *o)
{
	return o->written;
}

int out_mark(struct out *o, struct digest *section, struct err *e)
{
	if (out_drain(o, e) < 0)
		return -1;
	if (o->section) {
		hasher_final(o->section, section);
	} else { /* so far the section was the blob: nothing is hashed twice that need not be */
		hasher_peek(o->blob, section);
		o->section = hasher_new(DIGEST_SHA256);
	}
	return 0;
}

int out_sum(struct out *o, struct digest *d, uint64_t *size, struct err *e)
{
	if (out_drain(o, e) < 0)
		return -1;
	hasher_peek(o->blob, d);
	*size = o->written;
	return 0;
}

int out_commit(struct out *o, struct digest *d, uint64_t *size, struct err *e)
{
	struct err why = {0};

	assert(out_open_bytes(o) == 0 || o->failed);
	if (out_sum(o, d, size, e) < 0)
		return -1;
	return o->ops->commit(o->dest, d, *size, &why) < 0 ? fail(o, &why, e) : 0;
}

void out_freep(struct out **oo)
{
	struct out *o = take_ptr(*oo);

	if (!o)
		return;
	for (; o->n_pending; o->n_pending--) {
		struct batch *b = o->pending[o->head];

		pool_wait(o->pool, b);
		pool_give(o->pool, b);
		o->head = (o->head + 1) % BATCHES_MAX;
	}
	if (o->now)
		pool_give(o->pool, o->now);
	if (o->own)
		pool_give(o->pool, o->own);
	hasher_freep(&o->blob);
	hasher_freep(&o->section);
	o->ops->abort(o->dest);
	free(o);
}
