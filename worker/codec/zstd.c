/* RFC 8878.  The frame header is read here before libzstd sees it: a window that is too large gets
 * its own words before anything is allocated, and formats that old zstd libraries understood are
 * not taken for layers. */
#include "worker/codec/zstd.h"

#include <inttypes.h>
#include <string.h>
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_c_useRowMatchFinder: the same number since 1.5.0 */
#include <zstd.h>
#include <zstd_errors.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream_impl.h"

enum { IN_BYTES = 128 << 10, WINDOW_LOG_MAX = 27 };

struct zstd {
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
};

struct zstd *zstd_new(void)
{
	return mem_zalloc(sizeof(struct zstd));
}

void zstd_freep(struct zstd **z)
{
	if (!*z)
		return;
	ZSTD_freeCCtx((*z)->c);
	ZSTD_freeDCtx((*z)->d);
	free(*z);
	*z = NULL;
}

size_t zstd_bound(size_t n)
{
	return ZSTD_compressBound(n);
}

/* By bench, with 289 MB of Debian packages.  SEARCH_FAST, frames of whole files: as small as level
 * 2 with a table twice as large, in less time.  SEARCH_CHAINS, frames of 24 KB on average: as small
 * as level 5 in 0.85 of its time; for so little the row-based search does not pay (it is the
 * library's choice only where it found vector instructions, which must not decide what bytes come
 * out). */
enum { SEARCH_PARAMETERS = 6 };
static const struct {
	ZSTD_cParameter name;
	int value;
} searches[][SEARCH_PARAMETERS] = {
	[SEARCH_BY_LEVEL] = {{0, 0}},
	[SEARCH_FAST] = {{ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_hashLog, 16}, {ZSTD_c_minMatch, 5}},
	[SEARCH_CHAINS] = {{ZSTD_c_strategy, ZSTD_greedy},
			   {ZSTD_c_hashLog, 16},
			   {ZSTD_c_chainLog, 16},
			   {ZSTD_c_searchLog, 3},
			   {ZSTD_c_minMatch, 4},
			   {ZSTD_c_useRowMatchFinder, ZSTD_ps_disable}},
};

int zstd_pack(struct zstd *z, int level, enum zstd_search search, bool checksum, const void *in,
	      size_t n, void *out, size_t cap, size_t *out_n, struct err *e)
{
	size_t r;

	if (!z->c)
		z->c = ZSTD_createCCtx();
	if (!z->c)
		return err_set(e, ERR_SYSTEM, "no memory to pack with zstd");
	ZSTD_CCtx_reset(z->c, ZSTD_reset_session_and_parameters);
	r = ZSTD_CCtx_setParameter(z->c, ZSTD_c_compressionLevel, level);
	for (size_t i = 0; !ZSTD_isError(r) && i < SEARCH_PARAMETERS; i++)
		if (searches[search][i].value)
			r = ZSTD_CCtx_setParameter(z->c, searches[search][i].name,
						   searches[search][i].value);
	if (!ZSTD_isError(r))
		r = ZSTD_CCtx_setParameter(z->c, ZSTD_c_checksumFlag, checksum);
	if (!ZSTD_isError(r))
		r = ZSTD_CCtx_setParameter(z->c, ZSTD_c_contentSizeFlag, 1);
	if (!ZSTD_isError(r))
		r = ZSTD_compress2(z->c, out, cap, in, n);
	if (ZSTD_isError(r))
		return err_set(
			e,
			ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation ? ERR_SYSTEM : ERR_BUG,
			"pack %zu bytes with zstd level %d: %s", n, level, ZSTD_getErrorName(r));
	*out_n = r;
	return 0;
}

int zstd_unpack(struct zstd *z, const void *in, size_t n, void *out, size_t cap, size_t *out_n,
		struct err *e)
{
	size_t r;

	if (!z->d)
		z->d = ZSTD_createDCtx();
	if (!z->d)
		return err_set(e, ERR_SYSTEM, "no memory to unpack zstd");
	r = ZSTD_decompressDCtx(z->d, out, cap, in, n);
	if (ZSTD_isError(r))
		return err_set(e, ERR_CORRUPT, "zstd frame of %zu bytes does not unpack: %s", n,
			       ZSTD_getErrorName(r));
	*out_n = r;
	return 0;
}

const char *zstd_version(void)
{
	return ZSTD_versionString();
}

static uint64_t le_n(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

/* RFC 8878, 3.1.1.1 */
int zstd_head(const void *bytes, size_t n, struct zstd_frame *f)
{
	static const uint8_t id_bytes[4] = {0, 1, 2, 4}, size_bytes[4] = {0, 2, 4, 8};
	static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
	static const uint8_t skippable[4] = {0x50, 0x2a, 0x4d, 0x18};
	const uint8_t *p = bytes;
	size_t sizes, at;
	bool single, skip;

	for (size_t i = 0; i < 4 && i < n; i++)
		if (p[i] != magic[i] && (i ? p[i] : p[i] & 0xf0) != skippable[i])
			return -1;
	if (n < 4)
		return 0;
	*f = (struct zstd_frame){0, UINT64_MAX};
	skip = (p[0] & 0xf0) == skippable[0] && memcmp(p + 1, skippable + 1, 3) == 0;
	if (skip || memcmp(p, magic, 4) != 0)
		return skip ? 1 : -1;
	if (n < 6)
		return 0;
	single = p[4] & 0x20;
	sizes = size_bytes[p[4] >> 6];
	if (single && sizes == 0)
		sizes = 1;
	at = (single ? 5 : 6) + id_bytes[p[4] & 3];
	if (n < at + sizes)
		return 0;
	if (sizes)
		f->content = le_n(p + at, sizes) + (sizes == 2 ? 256 : 0);
	if (single) {
		f->window = f->content;
	} else {
		uint64_t base = 1ull << (10 + (p[5] >> 3));

		f->window = base + base / 8 * (p[5] & 7);
	}
	return 1;
}

struct zstd_in {
	struct source base;
	struct source *from;
	ZSTD_DCtx *d;
	bool large_window, eof, in_frame;
	struct zstd_frame frame;
	uint64_t unpacked; /* of this frame */
	uint64_t pos;	   /* in the compressed stream, of buf[at] */
	size_t at, n;	   /* unread: buf[at, n) */
	uint8_t buf[IN_BYTES];
};

static int fill(struct zstd_in *z, struct err *e)
{
	ssize_t r;

	if (z->eof)
		return 0;
	memmove(z->buf, z->buf + z->at, z->n - z->at);
	z->n -= z->at;
	z->at = 0;
	r = source_read(z->from, z->buf + z->n, IN_BYTES - z->n, e);
	if (r < 0)
		return -1;
	z->eof = (size_t)r < IN_BYTES - z->n;
	z->n += (size_t)r;
	return 0;
}

/* At a frame's start. 1: a frame that may be read; 0: the end. */
static int frame_start(struct zstd_in *z, struct err *e)
{
	uint64_t most = z->large_window ? ZSTD_WINDOW_LARGE : ZSTD_WINDOW_NORMAL;
	int r;

	if (z->n - z->at < ZSTD_HEAD_MAX && fill(z, e) < 0)
		return -1;
	if (z->n == z->at && z->pos > 0)
		return 0;
	r = zstd_head(z->buf + z->at, z->n - z->at, &z->frame);
	if (r < 0)
		return err_set(e, ERR_CORRUPT, "no zstd frame starts at byte %" PRIu64, z->pos);
	if (r == 0)
		return err_set(e, ERR_CORRUPT, "zstd stream is truncated after %" PRIu64 " bytes",
			       (z->pos + z->n - z->at));
	if (z->frame.window > most)
		return err_set(e, ERR_LIMIT, "zstd window of %" PRIu64 " bytes is over %" PRIu64,
			       z->frame.window, most);
	z->unpacked = 0;
	return 1;
}

/* libzstd itself compares only where the caller's buffer is large enough for the whole frame. */
static int frame_end(const struct zstd_in *z, struct err *e)
{
	if (z->frame.content != UINT64_MAX && z->unpacked != z->frame.content)
		return err_set(e, ERR_CORRUPT,
			       "zstd frame that ends at byte %" PRIu64 " unpacks to %" PRIu64
			       " bytes, its "
			       "header says %" PRIu64,
			       z->pos, z->unpacked, z->frame.content);
	return 0;
}

static ssize_t zstd_in_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct zstd_in *z = (struct zstd_in *)s;

	for (;;) {
		ZSTD_outBuffer out = {buf, n, 0};
		ZSTD_inBuffer in;
		size_t r;

		if (!z->in_frame) {
			int more = frame_start(z, e);

			if (more <= 0)
				return more;
			z->in_frame = true;
		}
		in = (ZSTD_inBuffer){z->buf + z->at, z->n - z->at, 0};
		r = ZSTD_decompressStream(z->d, &out, &in);
		if (ZSTD_isError(r))
			return err_set(e,
				       ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation
					       ? ERR_SYSTEM
					       : ERR_CORRUPT,
				       "zstd stream is broken near byte %" PRIu64 ": %s",
				       (z->pos + in.pos), ZSTD_getErrorName(r));
		z->at += in.pos;
		z->pos += in.pos;
		z->unpacked += out.pos;
		z->in_frame = r != 0;
		if (!z->in_frame && frame_end(z, e) < 0)
			return -1;
		if (out.pos > 0)
			return (ssize_t)out.pos;
		if (z->in_frame && z->at == z->n) {
			if (fill(z, e) < 0)
				return -1;
			if (z->at == z->n)
				return err_set(e, ERR_CORRUPT,
					       "zstd stream is truncated after %" PRIu64 " bytes",
					       z->pos);
		}
	}
}

static void zstd_in_free(struct source *s)
{
	struct zstd_in *z = (struct zstd_in *)s;

	source_freep(&z->from);
	ZSTD_freeDCtx(z->d);
	free(z);
}

int zstd_source(struct source **body, bool large_window, struct err *e)
{
	static const struct source_ops ops = {zstd_in_read, zstd_in_free};
	ZSTD_DCtx *d = ZSTD_createDCtx();
	struct zstd_in *z;

	if (!d || ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
		ZSTD_freeDCtx(d);
		return err_set(e, ERR_SYSTEM, "no memory to unpack zstd");
	}
	z = mem_zalloc(sizeof(*z));
	z->base.ops = &ops;
	z->from = take_ptr(*body);
	z->d = d;
	z->large_window = large_window;
	*body = &z->base;
	return 0;
}
