#include "worker/codec/deflate.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"

enum { GZIP_HEADER = 10, GZIP_TRAILER = 8 };

struct deflater {
	struct libdeflate_compressor *c; /* of c_level */
	int c_level;
	struct libdeflate_decompressor *d;
};

struct deflater *deflater_new(void)
{
	return mem_zalloc(sizeof(struct deflater));
}

void deflater_freep(struct deflater **d)
{
	if (!*d)
		return;
	libdeflate_free_compressor((*d)->c);
	libdeflate_free_decompressor((*d)->d);
	free(*d);
	*d = NULL;
}

size_t deflater_bound(size_t n)
{
	return GZIP_HEADER + libdeflate_deflate_compress_bound(NULL, n) + GZIP_TRAILER;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static int use_level(struct deflater *d, int level, struct err *e)
{
	if (d->c && d->c_level == level)
		return 0;
	libdeflate_free_compressor(d->c);
	d->c = libdeflate_alloc_compressor(level);
	d->c_level = level;
	if (!d->c)
		return err_set(e, ERR_INVALID, "gzip compression level %d is not in 1 to 12",
			       level);
	return 0;
}

int deflater_gzip(struct deflater *d, int level, const void *in, size_t n, void *out, size_t cap,
		  size_t *out_n, struct err *e)
{
	/* RFC 1952, 2.3: CM 8, no flags, MTIME 0, XFL 2 slowest or 4 fastest, OS 255 */
	uint8_t head[GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
	uint8_t *to = out;
	size_t packed;

	if (use_level(d, level, e) < 0)
		return -1;
	head[8] = level >= 8 ? 2 : level < 2 ? 4 : 0;
	if (cap < GZIP_HEADER + GZIP_TRAILER)
		return err_set(e, ERR_BUG, "no room for a gzip member in %zu bytes", cap);
	packed = libdeflate_deflate_compress(d->c, in, n, to + GZIP_HEADER,
					     cap - GZIP_HEADER - GZIP_TRAILER);
	if (packed == 0)
		return err_set(e, ERR_BUG, "%zu bytes do not deflate into %zu", n, cap);
	memcpy(to, head, GZIP_HEADER);
	put32(to + GZIP_HEADER + packed, libdeflate_crc32(0, in, n));
	put32(to + GZIP_HEADER + packed + 4, (uint32_t)n);
	*out_n = GZIP_HEADER + packed + GZIP_TRAILER;
	return 0;
}

int deflater_gunzip(struct deflater *d, const void *in, size_t n, void *out, size_t cap,
		    size_t *out_n, struct err *e)
{
	size_t used = 0, got = 0;

	if (!d->d)
		d->d = libdeflate_alloc_decompressor();
	if (!d->d)
		return err_set(e, ERR_SYSTEM, "no memory to inflate");
	switch (libdeflate_gzip_decompress_ex(d->d, in, n, out, cap, &used, &got)) {
	case LIBDEFLATE_SUCCESS:
		break;
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return err_set(e, ERR_CORRUPT, "gzip member unpacks to more than %zu bytes", cap);
	default:
		return err_set(e, ERR_CORRUPT, "gzip member of %zu bytes does not unpack", n);
	}
	if (used != n)
		return err_set(e, ERR_CORRUPT, "gzip member ends after %zu of %zu bytes", used, n);
	*out_n = got;
	return 0;
}

uint32_t deflate_crc32(uint32_t crc, const void *p, size_t n)
{
	return libdeflate_crc32(crc, p, n);
}

const char *deflate_version(void)
{
	return LIBDEFLATE_VERSION_STRING;
}
