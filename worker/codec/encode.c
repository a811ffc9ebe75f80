#include "worker/codec/encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "worker/codec/deflate.h"
#include "worker/codec/lz4.h"
#include "worker/codec/zstd.h"

struct encoder { /* each part comes into being at its first use */
	struct deflater *deflater;
	struct zstd *zstd;
	void *lz4;
	uint8_t *scratch;
	size_t scratch_n;
};

struct encoder *encoder_new(void)
{
	return mem_zalloc(sizeof(struct encoder));
}

void encoder_freep(struct encoder **x)
{
	if (!*x)
		return;
	deflater_freep(&(*x)->deflater);
	zstd_freep(&(*x)->zstd);
	free((*x)->lz4);
	free((*x)->scratch);
	free(*x);
	*x = NULL;
}

size_t encode_bound(const struct encode_as *as, size_t n)
{
	switch (as->encoding) {
	case ENCODE_GZIP:
		return deflater_bound(n);
	case ENCODE_ZSTD:
		return zstd_bound(n);
	case ENCODE_LZ4:
		return lz4_bound(n);
	case ENCODE_RAW:
		break;
	}
	return n;
}

int encode(struct encoder *x, const struct encode_as *as, const void *in, size_t n, void *out,
	   size_t cap, size_t *out_n, struct err *e)
{
	int level = as->level;

	switch (as->encoding) {
	case ENCODE_RAW:
		if (n > cap)
			return err_set(e, ERR_BUG, "no room for %zu bytes in %zu", n, cap);
		if (n)
			memcpy(out, in, n);
		*out_n = n;
		return 0;
	case ENCODE_GZIP:
		if (!x->deflater)
			x->deflater = deflater_new();
		return deflater_gzip(x->deflater, level ? level : DEFLATE_LEVEL, in, n, out, cap,
				     out_n, e);
	case ENCODE_ZSTD:
		if (!x->zstd)
			x->zstd = zstd_new();
		return zstd_pack(x->zstd, level ? level : ZSTD_LEVEL, as->search, as->checksum != 0,
				 in, n, out, cap, out_n, e);
	case ENCODE_LZ4:
		if (!x->lz4)
			x->lz4 = mem_alloc(lz4_state_bytes());
		return lz4_pack(x->lz4, in, n, out, cap, out_n, e);
	}
	return err_set(e, ERR_BUG, "no encoding %d", (int)as->encoding);
}

int decode(struct encoder *x, enum encoding how, const void *in, size_t n, void *out, size_t cap,
	   size_t *out_n, struct err *e)
{
	switch (how) {
	case ENCODE_RAW:
		if (n > cap)
			return err_set(e, ERR_CORRUPT,
				       "%zu stored bytes where at most %zu are expected", n, cap);
		if (n)
			memcpy(out, in, n);
		*out_n = n;
		return 0;
	case ENCODE_GZIP:
		if (!x->deflater)
			x->deflater = deflater_new();
		return deflater_gunzip(x->deflater, in, n, out, cap, out_n, e);
	case ENCODE_ZSTD:
		if (!x->zstd)
			x->zstd = zstd_new();
		return zstd_unpack(x->zstd, in, n, out, cap, out_n, e);
	case ENCODE_LZ4:
		return lz4_unpack(in, n, out, cap, out_n, e);
	}
	return err_set(e, ERR_BUG, "no encoding %d", (int)how);
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

int encode_verify(struct encoder *x, const struct encode_as *as, const void *in, size_t n,
		  const void *out, size_t out_n, struct err *e)
{
	const uint8_t *back = out;
	size_t got = out_n;

	if (as->encoding != ENCODE_RAW) {
		if (x->scratch_n < n || !x->scratch) {
			free(x->scratch);
			x->scratch = mem_alloc(n ? n : 1);
			x->scratch_n = n;
		}
		if (decode(x, as->encoding, out, out_n, x->scratch, n, &got, e) < 0)
			return err_wrap(e, "what was just compressed");
		back = x->scratch;
	}
	if (got != n)
		return err_set(e, ERR_CORRUPT,
			       "what was just compressed unpacks to %zu bytes instead of %zu", got,
			       n);
	if (n && memcmp(back, in, n) != 0)
		return err_set(
			e, ERR_CORRUPT,
			"what was just compressed unpacks to other bytes, from byte %zu of %zu on",
			first_difference(back, in, n), n);
	return 0;
}

const char *encode_versions(void)
{
	static _Thread_local char text[96]; /* always the same words */

	snprintf(text, sizeof(text), "libdeflate %s, zstd %s, lz4 %s", deflate_version(),
		 zstd_version(), lz4_version());
	return text;
}
