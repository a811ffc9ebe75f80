/* worker/codec/member.c - see member.h.
 *
 * What was packed is unpacked again at once: the checksum in its trailer is of what went in, so a
 * decoder that ends well, after as many bytes, has seen the same. */
#include "worker/codec/member.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "common/scope.h"

#define OUT_BYTES (64u << 10)
#define GZIP_LEVEL 6
#define ZSTD_DEFAULT 3
/* 128 KiB: what a table of contents repeats is near (it gets no smaller with the level's 2 MiB),
 * and neither side keeps more. */
#define ZSTD_WINDOW_LOG 17
#define ZSTD_TABLE_LOG 15

struct member {
	enum encoding encoding;
	member_put *put;
	void *arg;
	z_stream z;
	ZSTD_CCtx *zstd;
	/* the way back */
	z_stream back_z;
	ZSTD_DCtx *back_zstd;
	uint64_t in, back;
	bool back_ended;
	unsigned char out[OUT_BYTES], scratch[OUT_BYTES];
};

static int reread_gzip(struct member *m, const unsigned char *p, size_t n)
{
	int rc = Z_OK;

	m->back_z.next_in = (unsigned char *)p;
	m->back_z.avail_in = (unsigned)n;
	do {
		m->back_z.next_out = m->scratch;
		m->back_z.avail_out = OUT_BYTES;
		rc = inflate(&m->back_z, Z_NO_FLUSH);
		m->back += OUT_BYTES - m->back_z.avail_out;
	} while (rc == Z_OK && (m->back_z.avail_in || !m->back_z.avail_out));
	m->back_ended = rc == Z_STREAM_END;
	return rc == Z_OK || rc == Z_BUF_ERROR || (rc == Z_STREAM_END && !m->back_z.avail_in) ? 0
											      : -1;
}

static int reread_zstd(struct member *m, const unsigned char *p, size_t n)
{
	ZSTD_inBuffer in = {p, n, 0};
	ZSTD_outBuffer out;

	do {
		size_t left;

		out = (ZSTD_outBuffer){m->scratch, OUT_BYTES, 0};
		left = ZSTD_decompressStream(m->back_zstd, &out, &in);
		if (ZSTD_isError(left))
			return -1;
		m->back += out.pos;
		m->back_ended = left == 0;
	} while (!m->back_ended && (in.pos < in.size || out.pos == OUT_BYTES));
	return in.pos == in.size ? 0 : -1;
}

static int emit(struct member *m, size_t n, struct err *e)
{
	if (!n)
		return 0;
	if (FAULT_ARMED("pool.flip"))
		m->out[n / 2] ^= 0x10;
	if (m->back_ended || (m->encoding == ENCODE_GZIP ? reread_gzip(m, m->out, n)
							 : reread_zstd(m, m->out, n)) < 0)
		return err_set(e, ERR_CORRUPT,
			       "what was packed does not unpack again, after %" PRIu64 " bytes",
			       m->back);
	return m->put(m->arg, m->out, n, e);
}

static int open_gzip(struct member *m, int level, struct err *e)
{
	/* windowBits 15 + 16: gzip's header, with no time and no name. */
	if (deflateInit2(&m->z, level ? level : GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return err_set(e, ERR_SYSTEM, "cannot start a gzip member: no memory");
	if (inflateInit2(&m->back_z, 15 + 16) != Z_OK)
		return err_set(e, ERR_SYSTEM, "cannot read a gzip member: no memory");
	return 0;
}

static int open_zstd(struct member *m, const struct encode_as *as, struct err *e)
{
	m->zstd = ZSTD_createCCtx();
	m->back_zstd = ZSTD_createDCtx();
	if (!m->zstd || !m->back_zstd)
		return err_set(e, ERR_SYSTEM, "cannot start a zstd frame: no memory");
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_compressionLevel,
			       as->level ? as->level : ZSTD_DEFAULT);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_windowLog, ZSTD_WINDOW_LOG);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_hashLog, ZSTD_TABLE_LOG);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_chainLog, ZSTD_TABLE_LOG);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_checksumFlag, 1); /* what reading back relies on */
	return 0;
}

int member_open(struct member **to, const struct encode_as *as, member_put *put, void *arg,
		struct err *e)
{
	scoped(member_freep) struct member *m = mem_zalloc(sizeof(*m));

	assert(as->encoding == ENCODE_GZIP || as->encoding == ENCODE_ZSTD);
	m->encoding = as->encoding;
	m->put = put;
	m->arg = arg;
	if ((as->encoding == ENCODE_GZIP ? open_gzip(m, as->level, e) : open_zstd(m, as, e)) < 0)
		return -1;
	*to = take_ptr(m);
	return 0;
}

static int gzip_bytes(struct member *m, const void *p, size_t n, int flush, struct err *e)
{
	int rc;

	assert(n <= UINT_MAX);
	m->z.next_in = (unsigned char *)p;
	m->z.avail_in = (unsigned)n;
	do {
		m->z.next_out = m->out;
		m->z.avail_out = OUT_BYTES;
		rc = deflate(&m->z, flush);
		if (rc == Z_STREAM_ERROR)
			return err_set(e, ERR_BUG, "deflate: stream error");
		if (emit(m, OUT_BYTES - m->z.avail_out, e) < 0)
			return -1;
	} while (m->z.avail_in || m->z.avail_out == 0 || (flush == Z_FINISH && rc != Z_STREAM_END));
	return 0;
}

static int zstd_bytes(struct member *m, const void *p, size_t n, ZSTD_EndDirective end,
		      struct err *e)
{
	ZSTD_inBuffer in = {p, n, 0};
	size_t left;

	do {
		ZSTD_outBuffer out = {m->out, OUT_BYTES, 0};

		left = ZSTD_compressStream2(m->zstd, &out, &in, end);
		if (ZSTD_isError(left))
			return err_set(e, ERR_BUG, "zstd: %s", ZSTD_getErrorName(left));
		if (emit(m, out.pos, e) < 0)
			return -1;
	} while (in.pos < in.size || (end == ZSTD_e_end && left));
	return 0;
}

int member_write(struct member *m, const void *p, size_t n, struct err *e)
{
	if (!n)
		return 0;
	m->in += n;
	return m->encoding == ENCODE_GZIP ? gzip_bytes(m, p, n, Z_NO_FLUSH, e)
					  : zstd_bytes(m, p, n, ZSTD_e_continue, e);
}

int member_finish(struct member *m, struct err *e)
{
	if ((m->encoding == ENCODE_GZIP ? gzip_bytes(m, NULL, 0, Z_FINISH, e)
					: zstd_bytes(m, NULL, 0, ZSTD_e_end, e)) < 0)
		return -1;
	if (!m->back_ended || m->back != m->in)
		return err_set(e, ERR_CORRUPT,
			       "what was packed unpacks to %" PRIu64 " bytes of %" PRIu64, m->back,
			       m->in);
	return 0;
}

void member_freep(struct member **mm)
{
	struct member *m = take_ptr(*mm);

	if (!m)
		return;
	if (m->encoding == ENCODE_GZIP) {
		deflateEnd(&m->z);
		inflateEnd(&m->back_z);
	}
	ZSTD_freeCCtx(m->zstd);
	ZSTD_freeDCtx(m->back_zstd);
	free(m);
}
