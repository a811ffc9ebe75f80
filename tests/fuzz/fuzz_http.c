/* Any bytes as requests: in one piece and in pieces they must come out the same, within bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/httpframe.h"

enum { HEADER = 1024, BODY = 512 };

static size_t feed(struct httpframe *f, const char *p, size_t n, size_t piece)
{
	size_t at = 0;

	httpframe_init(f, HEADER, BODY);
	while (at < n && f->state != FRAME_DONE && f->state != FRAME_BAD) {
		size_t k = n - at < piece ? n - at : piece, took = httpframe_feed(f, p + at, k);

		if (took > k || (took < k && f->state != FRAME_DONE && f->state != FRAME_BAD))
			abort();
		at += took;
	}
	return at;
}

static void same(const struct httpframe *a, const struct httpframe *b)
{
	if (a->state != b->state || a->status != b->status || a->n_fields != b->n_fields ||
	    a->body.len != b->body.len || memcmp(a->body.data, b->body.data, a->body.len) != 0)
		abort();
	if (a->state == FRAME_BAD && (a->status < 400 || a->status > 431 || !a->why))
		abort();
	if (a->body.len > BODY || a->head.len > HEADER)
		abort();
	if (a->state != FRAME_DONE)
		return;
	if (strcmp(a->method, b->method) != 0 || strcmp(a->target, b->target) != 0)
		abort();
	for (size_t i = 0; i < a->n_fields; i++)
		if (strcmp(a->field[i].value, b->field[i].value) != 0 ||
		    strpbrk(a->field[i].name, " :\t") || strpbrk(a->field[i].value, "\r\n"))
			abort();
	char *text = malloc(strlen(a->target) + 1);

	httpframe_decode(text, a->target, strlen(a->target), false);
	if (*text != '/' || strlen(text) > strlen(a->target))
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const char *s = (const char *)p;

	for (int requests = 0; n > 0 && requests < 8; requests++) {
		struct httpframe whole, pieces;
		size_t at = feed(&whole, s, n, n);

		if (feed(&pieces, s, n, 1 + (size_t)(uint8_t)s[n - 1] % 5) != at &&
		    whole.state != FRAME_BAD) /* nothing is read on after that */
			abort();
		same(&whole, &pieces);
		bool go_on = whole.state == FRAME_DONE;

		httpframe_fini(&whole);
		httpframe_fini(&pieces);
		if (!go_on)
			break;
		s += at;
		n -= at;
	}
	return 0;
}
