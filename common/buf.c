/* common/buf.c - see buf.h. */
#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

#define LARGE 65536

static char empty[1]; /* what data points to while nothing was added */

void buf_init(struct buf *b, size_t max_bytes)
{
	*b = (struct buf){.data = empty, .max = max_bytes};
}

void buf_fini(struct buf *b)
{
	if (b->cap)
		free(b->data);
	buf_init(b, b->max);
}

void buf_wipe(struct buf *b)
{
	if (b->cap)
		explicit_bzero(b->data, b->cap);
	buf_fini(b);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->cap)
		b->data[0] = '\0';
}

int buf_reserve(struct buf *b, size_t extra, struct err *e)
{
	size_t want, cap;
	char *p;

	if (extra > b->max || b->len > b->max - extra)
		return err_set(e, ERR_LIMIT, "more than %zu bytes", b->max);
	want = b->len + extra + 1;
	if (want <= b->cap)
		return 0;
	/* Doubled, so that many small additions are cheap; at once to what is wanted if that is
	 * more. */
	cap = b->cap ? b->cap : 64;
	if (want - b->cap > LARGE && want / 2 > b->cap)
		cap = want;
	while (cap < want)
		cap = cap > (SIZE_MAX >> 1) ? want : cap * 2;
	if (cap > b->max && want <= b->max + 1)
		cap = b->max + 1;
	p = b->cap ? realloc(b->data, cap) : malloc(cap);
	if (!p)
		return err_set(e, ERR_LIMIT, "no memory for %zu bytes", cap);
	b->data = p;
	b->cap = cap;
	b->data[b->len] = '\0';
	return 0;
}

int buf_add(struct buf *b, const void *p, size_t n, struct err *e)
{
	if (buf_reserve(b, n, e) < 0)
		return -1;
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	b->data[b->len] = '\0';
	return 0;
}

int buf_add_str(struct buf *b, const char *s, struct err *e)
{
	return buf_add(b, s, strlen(s), e);
}

int buf_add_char(struct buf *b, char c, struct err *e)
{
	return buf_add(b, &c, 1, e);
}

int buf_addf(struct buf *b, struct err *e, const char *fmt, ...)
{
	va_list ap, again;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || buf_reserve(b, (size_t)n, e) < 0) {
		va_end(again);
		return -1;
	}
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
	va_end(again);
	b->len += (size_t)n;
	return 0;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
	b->data[b->len] = '\0';
}

char *buf_take(struct buf *b)
{
	char *p = b->cap ? b->data : strdup("");

	if (!p)
		abort();
	buf_init(b, b->max);
	return p;
}
