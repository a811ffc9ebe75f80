#include "worker/codec/codec.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream_impl.h"
#include "worker/codec/inflate.h"
#include "worker/codec/zstd.h"

const char *codec_name(enum codec c)
{
	static const char *const names[] = {"none", "gzip", "zstd"};

	return names[c];
}

/* ---- the first bytes, looked at and still to be read */

struct peeked {
	struct source base;
	struct source *rest;
	size_t at, n;
	uint8_t head[32];
};

static ssize_t peeked_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct peeked *p = (struct peeked *)s;

	if (p->at == p->n)
		return source_read(p->rest, buf, n, e);
	if (n > p->n - p->at)
		n = p->n - p->at;
	memcpy(buf, p->head + p->at, n);
	p->at += n;
	return (ssize_t)n;
}

static void peeked_free(struct source *s)
{
	struct peeked *p = (struct peeked *)s;

	source_freep(&p->rest);
	free(p);
}

static int peek(struct source **body, const struct peeked **to, struct err *e)
{
	static const struct source_ops ops = {peeked_read, peeked_free};
	struct peeked *p;
	uint8_t head[sizeof(p->head)];
	ssize_t n;

	if ((*body)->ops == &ops && (*body)->pos == 0) { /* peeked already */
		*to = (struct peeked *)*body;
		return 0;
	}
	n = source_read(*body, head, sizeof(head), e);
	if (n < 0)
		return -1;
	p = mem_zalloc(sizeof(*p));
	p->base.ops = &ops;
	memcpy(p->head, head, (size_t)n);
	p->n = (size_t)n;
	p->rest = *body;
	*body = &p->base;
	*to = p;
	return 0;
}

int codec_sniff(struct source **body, enum codec *c, struct err *e)
{
	static const uint8_t gzip[3] = {0x1f, 0x8b, 8};
	const struct peeked *p;
	struct zstd_frame f;

	if (peek(body, &p, e) < 0)
		return -1;
	*c = CODEC_NONE;
	if (p->n >= sizeof(gzip) && memcmp(p->head, gzip, sizeof(gzip)) == 0)
		*c = CODEC_GZIP;
	else if (p->n >= 4 && zstd_head(p->head, p->n, &f) >= 0)
		*c = CODEC_ZSTD;
	return 0;
}

int codec_window(struct source **body, enum codec c, uint64_t *window, struct err *e)
{
	const struct peeked *p;
	struct zstd_frame f = {0};

	if (c == CODEC_ZSTD) {
		if (peek(body, &p, e) < 0)
			return -1;
		if (zstd_head(p->head, p->n, &f) <= 0)
			f.window = 0;
	} else if (c == CODEC_GZIP) {
		f.window = 32 << 10;
	}
	*window = f.window;
	return 0;
}

/* ---- a bound on what comes out */

struct bounded {
	struct source base;
	struct source *from;
	uint64_t max, got;
};

static ssize_t bounded_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct bounded *b = (struct bounded *)s;
	ssize_t r = source_read(b->from, buf, n, e);

	if (r > 0 && (uint64_t)r > b->max - b->got)
		return err_set(e, ERR_LIMIT, "it is larger than %" PRIu64 " bytes", b->max);
	b->got += r > 0 ? (uint64_t)r : 0;
	return r;
}

static void bounded_free(struct source *s)
{
	source_freep(&((struct bounded *)s)->from);
	free(s);
}

static struct source *bounded_source(struct source *from, uint64_t max)
{
	static const struct source_ops ops = {bounded_read, bounded_free};
	struct bounded *b = mem_zalloc(sizeof(*b));

	b->base.ops = &ops;
	b->from = from;
	b->max = max;
	return &b->base;
}

int codec_unpack(struct source **body, enum codec c, const struct codec_opts *o, struct err *e)
{
	static const struct codec_opts none;

	if (!o)
		o = &none;
	if (c == CODEC_GZIP && gzip_source(body, o, e) < 0)
		return -1;
	if (c == CODEC_ZSTD && zstd_source(body, o->large_window, e) < 0)
		return -1;
	if (o->max_out)
		*body = bounded_source(take_ptr(*body), o->max_out);
	return 0;
}
