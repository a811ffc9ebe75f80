/* The deflate engine that tells where blocks begin.  It unpacks into memory of its own, where the
 * last 32 KiB stay in front of what comes next: a window is a pointer into it, so that a stream of
 * a million tiny blocks costs no copies. */
#include "worker/codec/blocks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "worker/codec/codec.h"
#include "worker/codec/inflate.h"

enum { WINDOW = 32 << 10, ROOM = 256 << 10 };

struct blocks {
	struct engine base;
	z_stream z;
	int (*on_block)(void *arg, const struct block *b, struct err *e);
	void *arg;
	uint64_t member_in, member_out;
	uint64_t told; /* member's output at the last report */
	uint8_t last_byte;
	bool ended;
	size_t given, n; /* of out: handed out, unpacked */
	uint8_t out[WINDOW + ROOM];
};

static int tell(struct blocks *x, const struct input *in, unsigned int bits, bool end,
		struct err *e)
{
	uint64_t done = x->z.total_out;
	struct block b = {
		.in_pos = in->pos,
		.in_bits = (uint8_t)bits,
		.in_byte = x->last_byte,
		.end = end,
		.out_pos = x->member_out + done,
		.member_in = x->member_in,
		.member_out = x->member_out,
		.window_n = done < WINDOW ? (size_t)done : WINDOW,
	};

	if (!end && done > 0 && done == x->told)
		return 0;
	x->told = done;
	b.window = x->out + x->n - b.window_n;
	return x->on_block(x->arg, &b, e);
}

static int blocks_start(struct engine *base, const struct input *in, uint64_t out_pos,
			struct err *e)
{
	struct blocks *x = (struct blocks *)base;

	if (inflateReset(&x->z) != Z_OK)
		return err_set(e, ERR_BUG, "zlib does not start again");
	x->z.total_out = 0;
	x->member_in = in->pos;
	x->member_out = out_pos;
	x->told = 0;
	x->given = x->n = 0;
	x->ended = false;
	return tell(x, in, 0, false, e);
}

/* Up to the next block boundary, the end of input, or a full buffer. */
static int unpack_some(struct blocks *x, struct input *in, struct err *e)
{
	const uint8_t *was = in->p;
	int r;

	if (x->n == sizeof(x->out)) {
		memmove(x->out, x->out + x->n - WINDOW, WINDOW);
		x->given = x->n = WINDOW;
	}
	x->z.next_in = (Bytef *)in->p;
	x->z.avail_in = (uInt)in->n;
	x->z.next_out = x->out + x->n;
	x->z.avail_out = (uInt)(sizeof(x->out) - x->n);
	r = inflate(&x->z, Z_BLOCK);
	in->pos += in->n - x->z.avail_in;
	in->p = x->z.next_in;
	in->n = x->z.avail_in;
	x->n = sizeof(x->out) - x->z.avail_out;
	if (in->p > was)
		x->last_byte = in->p[-1];
	if (r == Z_MEM_ERROR)
		return err_set(e, ERR_SYSTEM, "no memory to inflate");
	if (r != Z_OK && r != Z_BUF_ERROR && r != Z_STREAM_END)
		return err_set(e, ERR_CORRUPT, "deflate stream is broken near byte %" PRIu64,
			       in->pos);
	if (r == Z_STREAM_END) {
		x->ended = true;
		return tell(x, in, 0, true, e);
	}
	/* zlib.h: 128 after a block's end, 64 within the last block, else the unused bits of the
	 * last byte taken */
	if (x->z.data_type & 128 && !(x->z.data_type & 64) && in->pos > x->member_in)
		return tell(x, in, (unsigned int)x->z.data_type & 7, false, e);
	return 0;
}

static int blocks_run(struct engine *base, struct input *in, void *out, size_t cap, size_t *got,
		      struct err *e)
{
	struct blocks *x = (struct blocks *)base;
	size_t n;

	while (x->given == x->n && !x->ended && in->n > 0)
		if (unpack_some(x, in, e) < 0)
			return -1;
	n = x->n - x->given < cap ? x->n - x->given : cap;
	memcpy(out, x->out + x->given, n);
	x->given += n;
	*got = n;
	return x->ended && x->given == x->n;
}

static void blocks_free(struct engine *base)
{
	inflateEnd(&((struct blocks *)base)->z);
	free(base);
}

struct engine *engine_blocks(const struct codec_opts *o, struct err *e)
{
	static const struct engine_ops ops = {blocks_start, blocks_run, blocks_free};
	struct blocks *x = mem_zalloc(sizeof(*x));

	x->base.ops = &ops;
	x->on_block = o->on_block;
	x->arg = o->arg;
	if (inflateInit2(&x->z, -MAX_WBITS) != Z_OK) {
		free(x);
		err_set(e, ERR_SYSTEM, "no memory to inflate");
		return NULL;
	}
	return &x->base;
}

/* ---- going on at a boundary */

/* Behind a member's trailer zlib itself reads the next one, header and all. */
static int next_member(z_stream *z, bool raw, struct err *e)
{
	const uInt trailer = raw ? 8 : 0;

	if (z->avail_in <= trailer)
		return err_set(e, ERR_CORRUPT, "the gzip member ends %u bytes too early",
			       z->avail_out);
	z->next_in += trailer;
	z->avail_in -= trailer;
	return inflateReset2(z, 16 + MAX_WBITS) == Z_OK
		       ? 0
		       : err_set(e, ERR_BUG, "zlib does not start again");
}

static int inflate_all(z_stream *z, struct err *e)
{
	bool raw = true;

	while (z->avail_out) {
		int r = inflate(z, Z_NO_FLUSH);

		if (r == Z_MEM_ERROR)
			return err_set(e, ERR_SYSTEM, "no memory to inflate");
		if (r == Z_STREAM_END && z->avail_out) {
			if (next_member(z, raw, e) < 0)
				return -1;
			raw = false;
		} else if (r != Z_OK && r != Z_STREAM_END) {
			return err_set(e, ERR_CORRUPT,
				       r == Z_BUF_ERROR ? "%u bytes are missing"
							: "not deflate, %u bytes before its end",
				       z->avail_out);
		}
	}
	return 0;
}

int blocks_restart(const struct restart *r, const void *in, size_t in_n, void *out, size_t n,
		   struct err *e)
{
	z_stream z = {0};
	int rc = -1;

	if (in_n > UINT32_MAX || n > UINT32_MAX || r->in_bits > 7 || r->window_n > WINDOW)
		return err_set(e, ERR_CORRUPT, "no boundary of a deflate block");
	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		return err_set(e, ERR_SYSTEM, "no memory to inflate");
	z.next_in = (Bytef *)in;
	z.avail_in = (uInt)in_n;
	z.next_out = out;
	z.avail_out = (uInt)n;
	if ((r->in_bits && inflatePrime(&z, r->in_bits, r->in_byte >> (8 - r->in_bits)) != Z_OK) ||
	    (r->window_n && inflateSetDictionary(&z, r->window, (uInt)r->window_n) != Z_OK))
		err_set(e, ERR_CORRUPT, "no boundary of a deflate block");
	else
		rc = inflate_all(&z, e);
	inflateEnd(&z);
	return rc;
}
