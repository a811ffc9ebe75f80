/* worker/drivers/footer.c - see footer.h. */
#include "worker/drivers/footer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"

static const uint8_t gzip_head[10] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff};
static const uint8_t gzip_tail[13] = {1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0};

void footer_estargz(uint8_t to[ESTARGZ_FOOTER], uint64_t toc_at)
{
	char hex[17];

	memcpy(to, gzip_head, 10);
	memcpy(to + 10, "\x1a\0SG\x16\0", 6);
	snprintf(hex, sizeof(hex), "%016" PRIx64, toc_at);
	memcpy(to + 16, hex, 16);
	memcpy(to + 32, "STARGZ", 6);
	memcpy(to + 38, gzip_tail, sizeof(gzip_tail));
}

static int parse_hex(const uint8_t *p, uint64_t *v)
{
	*v = 0;
	for (int i = 0; i < 16; i++) {
		unsigned d = p[i] >= '0' && p[i] <= '9'	  ? p[i] - 48u
			     : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 87u
							  : 16;

		if (d > 15)
			return -1;
		*v = *v << 4 | d;
	}
	return 0;
}

int footer_estargz_parse(const uint8_t *tail, size_t n, uint64_t size, uint64_t *toc_at,
			 uint64_t *footer_at, struct err *e)
{
	const uint8_t *f = n >= ESTARGZ_FOOTER ? tail + n - ESTARGZ_FOOTER : NULL;
	uint64_t at, length = ESTARGZ_FOOTER;

	if (f && !memcmp(f, gzip_head, 10) && !memcmp(f + 10, "\x1a\0SG\x16\0", 6)) {
		f += 16;
	} else {
		f = n >= ESTARGZ_LEGACY_FOOTER ? tail + n - ESTARGZ_LEGACY_FOOTER : NULL;
		length = ESTARGZ_LEGACY_FOOTER;
		if (!f || memcmp(f, gzip_head, 10) || memcmp(f + 10, "\x16\0", 2))
			return err_set(e, ERR_CORRUPT, "no eStargz footer at the end of the blob");
		f += 12;
	}
	if (memcmp(f + 16, "STARGZ", 6) || memcmp(f + 22, gzip_tail, sizeof(gzip_tail)) ||
	    parse_hex(f, &at) < 0)
		return err_set(e, ERR_CORRUPT, "the eStargz footer is malformed");
	if (length > size || at >= size - length)
		return err_set(e, ERR_CORRUPT,
			       "the eStargz footer puts the TOC at %" PRIu64
			       ", the blob has %" PRIu64 " bytes",
			       at, size);
	*toc_at = at;
	*footer_at = size - length;
	return 0;
}

/* ---- zstd:chunked */

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

void footer_skippable(uint8_t to[ZSTD_SKIPPABLE], uint32_t n)
{
	memcpy(to, "\x50\x2a\x4d\x18", 4);
	put32(to + 4, n);
}

static void put_span(uint8_t *p, const struct span *s)
{
	put64(p, s->at);
	put64(p + 8, s->n);
	put64(p + 16, s->unpacked);
}

size_t footer_zstd(uint8_t to[ZSTD_FOOTER_PODMAN], const struct zstd_footer *f, int podman)
{
	put_span(to, &f->toc);
	put64(to + 24, 1);
	if (!podman) {
		memcpy(to + 32, "GnUlInUx", 8);
		return ZSTD_FOOTER_CONTAINERD;
	}
	put_span(to + 32, &f->tarsplit);
	memcpy(to + 56, "GNUlInUx", 8);
	return ZSTD_FOOTER_PODMAN;
}

static int get_span(const uint8_t *p, uint64_t end, struct span *s)
{
	s->at = get64(p);
	s->n = get64(p + 8);
	s->unpacked = get64(p + 16);
	return s->at < ZSTD_SKIPPABLE || s->n == 0 || s->at > end || s->n > end - s->at ? -1 : 0;
}

int footer_zstd_parse(const uint8_t *tail, size_t n, uint64_t size, struct zstd_footer *f,
		      uint64_t *footer_at, struct err *e)
{
	struct zstd_footer x = {0};
	uint8_t want[ZSTD_SKIPPABLE];
	size_t length = ZSTD_FOOTER_CONTAINERD;
	const uint8_t *p;

	if (n >= 8 && !memcmp(tail + n - 8, "GNUlInUx", 8))
		length = ZSTD_FOOTER_PODMAN;
	else if (n < 8 || memcmp(tail + n - 8, "GnUlInUx", 8) != 0)
		return err_set(e, ERR_CORRUPT, "no zstd:chunked footer at the end of the blob");
	if (n < length + ZSTD_SKIPPABLE || size < n)
		return err_set(e, ERR_CORRUPT, "the blob is too short for its zstd:chunked footer");
	p = tail + n - length;
	footer_skippable(want, (uint32_t)length);
	*footer_at = size - length - ZSTD_SKIPPABLE;
	if (memcmp(p - ZSTD_SKIPPABLE, want, sizeof(want)) || get64(p + 24) != 1)
		return err_set(e, ERR_CORRUPT, "the zstd:chunked footer is malformed");
	if (get_span(p, *footer_at, &x.toc) < 0 ||
	    (length == ZSTD_FOOTER_PODMAN && get_span(p + 32, *footer_at, &x.tarsplit) < 0))
		return err_set(e, ERR_CORRUPT,
			       "the zstd:chunked footer names bytes outside the blob");
	*f = x;
	return 0;
}
