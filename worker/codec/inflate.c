#include "worker/codec/inflate.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream_impl.h"
#include "worker/codec/codec.h"
#include "worker/codec/deflate.h"

enum { IN_BYTES = 128 << 10, OUT_MOST = 1 << 30 };

/* ---- zlib */

struct zlib_engine {
	struct engine base;
	z_stream z;
};

static int zlib_start(struct engine *x, const struct input *in, uint64_t out_pos, struct err *e)
{
	if (inflateReset(&((struct zlib_engine *)x)->z) != Z_OK)
		return err_set(e, ERR_BUG, "zlib does not start again");
	return 0;
}

static int zlib_run(struct engine *x, struct input *in, void *out, size_t cap, size_t *got,
		    struct err *e)
{
	z_stream *z = &((struct zlib_engine *)x)->z;
	int r;

	z->next_in = (Bytef *)in->p;
	z->avail_in = (uInt)in->n;
	z->next_out = out;
	z->avail_out = (uInt)cap;
	r = inflate(z, Z_NO_FLUSH);
	in->pos += in->n - z->avail_in;
	in->p = z->next_in;
	in->n = z->avail_in;
	*got = cap - z->avail_out;
	switch (r) {
	case Z_STREAM_END:
		return 1;
	case Z_OK:
	case Z_BUF_ERROR:
		return 0;
	case Z_MEM_ERROR:
		return err_set(e, ERR_SYSTEM, "no memory to inflate");
	default:
		return err_set(e, ERR_CORRUPT, "deflate stream is broken near byte %" PRIu64,
			       in->pos);
	}
}

static void zlib_free(struct engine *x)
{
	inflateEnd(&((struct zlib_engine *)x)->z);
	free(x);
}

struct engine *engine_zlib(struct err *e)
{
	static const struct engine_ops ops = {zlib_start, zlib_run, zlib_free};
	struct zlib_engine *x = mem_zalloc(sizeof(*x));

	x->base.ops = &ops;
	if (inflateInit2(&x->z, -MAX_WBITS) != Z_OK) {
		free(x);
		err_set(e, ERR_SYSTEM, "no memory to inflate");
		return NULL;
	}
	return &x->base;
}

/* ---- ISA-L: more than twice as fast.  It takes what zlib takes, and one thing more: a Huffman
 * code that leaves bit patterns unused, as long as none of them occurs.  No compressor writes one,
 * and CRC and digests hold all the same. */

#ifdef HAVE_ISAL
struct isal_engine {
	struct engine base;
	struct inflate_state s;
};

static int isal_start(struct engine *x, const struct input *in, uint64_t out_pos, struct err *e)
{
	isal_inflate_reset(&((struct isal_engine *)x)->s);
	return 0;
}

static int isal_run(struct engine *x, struct input *in, void *out, size_t cap, size_t *got,
		    struct err *e)
{
	struct inflate_state *s = &((struct isal_engine *)x)->s;
	size_t back;
	int r;

	s->next_in = (uint8_t *)in->p;
	s->avail_in = (uint32_t)in->n;
	s->next_out = out;
	s->avail_out = (uint32_t)cap;
	r = isal_inflate(s);
	in->pos += in->n - s->avail_in;
	in->p = s->next_in;
	in->n = s->avail_in;
	*got = cap - s->avail_out;
	if (r != ISAL_DECOMP_OK)
		return err_set(e, ERR_CORRUPT, "deflate stream is broken near byte %" PRIu64,
			       in->pos);
	if (s->block_state != ISAL_BLOCK_FINISH)
		return 0;
	back = s->read_in_length > 0 ? (size_t)s->read_in_length / 8
				     : 0; /* whole bytes it had taken too many */
	in->p -= back;
	in->n += back;
	in->pos -= back;
	return 1;
}

static void isal_free(struct engine *x)
{
	free(x);
}

struct engine *engine_isal(void)
{
	static const struct engine_ops ops = {isal_start, isal_run, isal_free};
	struct isal_engine *x = mem_alloc(sizeof(*x));

	x->base.ops = &ops;
	isal_inflate_init(&x->s);
	x->s.crc_flag = ISAL_DEFLATE;
	return &x->base;
}
#else
struct engine *engine_isal(void)
{
	return NULL;
}
#endif

/* ---- framing */

struct gzip {
	struct source base;
	struct source *from;
	struct engine *engine;
	struct input in;
	bool eof;
	enum { HEADER, BODY, TRAILER, ZEROS, ENDED } state;
	uint64_t members, out_pos;
	uint32_t crc, size; /* of this member so far */
	uint8_t buf[INPUT_BACK + IN_BYTES];
};

/* More input when there is none; in.n stays 0 at the end. */
static int fill(struct gzip *g, struct err *e)
{
	ssize_t r;

	if (g->in.n > 0 || g->eof)
		return 0;
	if (g->in.p >= g->buf + INPUT_BACK)
		memmove(g->buf, g->in.p - INPUT_BACK, INPUT_BACK);
	r = source_read(g->from, g->buf + INPUT_BACK, IN_BYTES, e);
	if (r < 0)
		return -1;
	g->eof = r < IN_BYTES;
	g->in.p = g->buf + INPUT_BACK;
	g->in.n = (size_t)r;
	return 0;
}

static int truncated(const struct gzip *g, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "gzip stream is truncated after %" PRIu64 " bytes",
		       g->in.pos);
}

/* The next byte; the header's own CRC counts it. */
static int next_byte(struct gzip *g, uint32_t *crc, uint8_t *byte, struct err *e)
{
	if (fill(g, e) < 0)
		return -1;
	if (g->in.n == 0)
		return truncated(g, e);
	*byte = *g->in.p++;
	g->in.n--;
	g->in.pos++;
	if (crc)
		*crc = deflate_crc32(*crc, byte, 1);
	return 0;
}

static int skip_string(struct gzip *g, uint32_t *crc, struct err *e)
{
	uint8_t b;

	do {
		if (next_byte(g, crc, &b, e) < 0)
			return -1;
	} while (b != 0);
	return 0;
}

static int skip_extra(struct gzip *g, uint32_t *crc, struct err *e)
{
	uint8_t lo, hi, b;

	if (next_byte(g, crc, &lo, e) < 0 || next_byte(g, crc, &hi, e) < 0)
		return -1;
	for (unsigned int n = lo | hi << 8; n > 0; n--)
		if (next_byte(g, crc, &b, e) < 0)
			return -1;
	return 0;
}

/* RFC 1952, 2.3 */
static int read_header(struct gzip *g, struct err *e)
{
	enum { FHCRC = 2, FEXTRA = 4, FNAME = 8, FCOMMENT = 16, RESERVED = 0xe0 };
	uint64_t at = g->in.pos;
	uint32_t crc = 0;
	uint8_t h[10], lo, hi;

	for (size_t i = 0; i < sizeof(h); i++) {
		static const uint8_t magic[3] = {0x1f, 0x8b, 8};

		if (next_byte(g, &crc, &h[i], e) < 0)
			return -1;
		if (i < 3 && h[i] != magic[i])
			return err_set(e, ERR_CORRUPT,
				       g->members ? "bytes after the gzip stream, at byte %" PRIu64
						    ", "
						    "are neither zeros nor a member"
						  : "no gzip member starts at byte %" PRIu64,
				       at);
	}
	if (h[3] & RESERVED)
		return err_set(e, ERR_CORRUPT,
			       "gzip member at byte %" PRIu64 " has unknown flags 0x%02x", at,
			       h[3]);
	if ((h[3] & FEXTRA && skip_extra(g, &crc, e) < 0) ||
	    (h[3] & FNAME && skip_string(g, &crc, e) < 0) ||
	    (h[3] & FCOMMENT && skip_string(g, &crc, e) < 0))
		return -1;
	if (!(h[3] & FHCRC))
		return 0;
	if (next_byte(g, NULL, &lo, e) < 0 || next_byte(g, NULL, &hi, e) < 0)
		return -1;
	if ((lo | hi << 8) != (int)(crc & 0xffff))
		return err_set(e, ERR_CORRUPT,
			       "header of the gzip member at byte %" PRIu64
			       " does not match its checksum",
			       at);
	return 0;
}

static int read_trailer(struct gzip *g, struct err *e)
{
	uint32_t v[2] = {0, 0};
	uint8_t b;

	for (int i = 0; i < 8; i++) {
		if (next_byte(g, NULL, &b, e) < 0)
			return -1;
		v[i / 4] |= (uint32_t)b << i % 4 * 8;
	}
	if (v[0] != g->crc)
		return err_set(e, ERR_CORRUPT,
			       "gzip member that ends at byte %" PRIu64
			       " unpacks to CRC-32 %08x, its "
			       "trailer says %08x",
			       g->in.pos, g->crc, v[0]);
	if (v[1] != g->size)
		return err_set(e, ERR_CORRUPT,
			       "gzip member that ends at byte %" PRIu64 " unpacks to %u bytes, its "
			       "trailer says %u",
			       g->in.pos, g->size, v[1]);
	return 0;
}

/* Between members, and at the start. */
static int member_start(struct gzip *g, struct err *e)
{
	if (fill(g, e) < 0)
		return -1;
	if (g->members > 0 && (g->in.n == 0 || *g->in.p == 0)) {
		g->state = ZEROS;
		return 0;
	}
	if (read_header(g, e) < 0 || g->engine->ops->start(g->engine, &g->in, g->out_pos, e) < 0)
		return -1;
	g->members++;
	g->crc = g->size = 0;
	g->state = BODY;
	return 0;
}

static int skip_zeros(struct gzip *g, struct err *e)
{
	for (;;) {
		if (fill(g, e) < 0)
			return -1;
		if (g->in.n == 0) {
			g->state = ENDED;
			return 0;
		}
		for (; g->in.n > 0; g->in.n--, g->in.p++, g->in.pos++)
			if (*g->in.p != 0)
				return err_set(e, ERR_CORRUPT,
					       "bytes after the gzip stream, at byte %" PRIu64
					       ", are not zeros",
					       g->in.pos);
	}
}

/* Some bytes of this member; 0: none came, the state or the input moved on. */
static ssize_t read_body(struct gzip *g, void *buf, size_t n, struct err *e)
{
	size_t got = 0;
	int r;

	if (fill(g, e) < 0)
		return -1;
	r = g->engine->ops->run(g->engine, &g->in, buf, n < OUT_MOST ? n : OUT_MOST, &got, e);
	if (r < 0)
		return -1;
	if (r == 0 && got == 0 && g->in.n == 0 && g->eof)
		return truncated(g, e);
	g->crc = deflate_crc32(g->crc, buf, got);
	g->size += (uint32_t)got;
	g->out_pos += got;
	if (r == 1)
		g->state = TRAILER;
	return (ssize_t)got;
}

static ssize_t gzip_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct gzip *g = (struct gzip *)s;
	ssize_t got;

	for (;;) {
		switch (g->state) {
		case HEADER:
			if (member_start(g, e) < 0)
				return -1;
			break;
		case BODY:
			got = read_body(g, buf, n, e);
			if (got != 0)
				return got;
			break;
		case TRAILER:
			if (read_trailer(g, e) < 0)
				return -1;
			g->state = HEADER;
			break;
		case ZEROS:
			if (skip_zeros(g, e) < 0)
				return -1;
			break;
		case ENDED:
			return 0;
		}
	}
}

static void gzip_free(struct source *s)
{
	struct gzip *g = (struct gzip *)s;

	source_freep(&g->from);
	g->engine->ops->free(g->engine);
	free(g);
}

int gzip_source(struct source **body, const struct codec_opts *o, struct err *e)
{
	static const struct source_ops ops = {gzip_read, gzip_free};
	struct engine *x = NULL;
	struct gzip *g;

	if (o->on_block)
		x = engine_blocks(o, e);
	else if (o->portable || !(x = engine_isal()))
		x = engine_zlib(e);
	if (!x)
		return -1;
	g = mem_zalloc(sizeof(*g));
	g->base.ops = &ops;
	g->from = take_ptr(*body);
	g->engine = x;
	g->in.p = g->buf + INPUT_BACK;
	*body = &g->base;
	return 0;
}
