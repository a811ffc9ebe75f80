/* common/http_message.c - see http_message.h. */
#include "common/http_message.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"

int http_status(const struct http_response *r)
{
	return r->status;
}

const char *http_header_next(const struct http_response *r, const char *name, size_t *i)
{
	while (*i < r->n) {
		const struct http_field *h = &r->header[(*i)++];

		if (str_ieq(h->name, name))
			return h->value;
	}
	return NULL;
}

const char *http_header(const struct http_response *r, const char *name)
{
	size_t i = 0;

	return http_header_next(r, name, &i);
}

bool http_from_private(const struct http_response *r)
{
	return r->private_address;
}

const char *http_final_url(const struct http_response *r)
{
	return r->url;
}

bool http_redirected_away(const struct http_response *r)
{
	return r->away;
}

const char *http_body(const struct http_response *r, size_t *n)
{
	*n = r->body.len;
	return r->body.data;
}

void http_response_clear(struct http_response *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->header[i].name);
		free(r->header[i].value);
	}
	r->n = 0;
	r->header_bytes = 0;
}

void http_response_freep(struct http_response **r)
{
	if (!*r)
		return;
	http_response_clear(*r);
	free((*r)->header);
	free((*r)->url);
	buf_fini(&(*r)->body);
	free(*r);
	*r = NULL;
}

void http_response_add(struct http_response *r, const char *p, size_t n)
{
	const char *colon = memchr(p, ':', n);
	struct http_field *h;
	size_t skip;

	if (!colon || colon == p)
		return;
	mem_grow(r->header, r->n, r->cap);
	h = &r->header[r->n++];
	h->name = mem_strndup(p, (size_t)(colon - p));
	skip = (size_t)(colon - p) + 1;
	while (skip < n && (p[skip] == ' ' || p[skip] == '\t'))
		skip++;
	while (n > skip && (p[n - 1] == ' ' || p[n - 1] == '\t'))
		n--;
	h->value = mem_strndup(p + skip, n - skip);
	str_clean(h->value);
}
