/* worker/codec/member.c - see member.h. */
#include "worker/codec/member.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"

#define OUT_BYTES (64u << 10)
#define GZIP_LEVEL 6
#define ZSTD_DEFAULT 3

struct member {
	enum encoding encoding;
	member_put *put;
	void *arg;
	z_stream z;
	ZSTD_CCtx *zstd;
	unsigned char out[OUT_BYTES];
};

static int open_gzip(struct member *m, int level, struct err *e)
{
	/* windowBits 15 + 16: gzip's header, with no time and no name. */
	if (deflateInit2(&m->z, level ? level : GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return err_set(e, ERR_SYSTEM, "cannot start a gzip member: no memory");
	return 0;
}

static int open_zstd(struct member *m, const struct encode_as *as, struct err *e)
{
	m->zstd = ZSTD_createCCtx();
	if (!m->zstd)
		return err_set(e, ERR_SYSTEM, "cannot start a zstd frame: no memory");
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_compressionLevel,
			       as->level ? as->level : ZSTD_DEFAULT);
	ZSTD_CCtx_setParameter(m->zstd, ZSTD_c_checksumFlag, as->checksum != 0);
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
		if (m->z.avail_out < OUT_BYTES &&
		    m->put(m->arg, m->out, OUT_BYTES - m->z.avail_out, e) < 0)
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
		if (out.pos && m->put(m->arg, m->out, out.pos, e) < 0)
			return -1;
	} while (in.pos < in.size || (end == ZSTD_e_end && left));
	return 0;
}

int member_write(struct member *m, const void *p, size_t n, struct err *e)
{
	if (!n)
		return 0;
	return m->encoding == ENCODE_GZIP ? gzip_bytes(m, p, n, Z_NO_FLUSH, e)
					  : zstd_bytes(m, p, n, ZSTD_e_continue, e);
}

int member_finish(struct member *m, struct err *e)
{
	return m->encoding == ENCODE_GZIP ? gzip_bytes(m, NULL, 0, Z_FINISH, e)
					  : zstd_bytes(m, NULL, 0, ZSTD_e_end, e);
}

void member_freep(struct member **mm)
{
	struct member *m = take_ptr(*mm);

	if (!m)
		return;
	if (m->encoding == ENCODE_GZIP)
		deflateEnd(&m->z);
	ZSTD_freeCCtx(m->zstd);
	free(m);
}
