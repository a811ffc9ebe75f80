/* common/http.c - see http.h: redirects, and bodies as sources and sinks.  One transfer: xfer.h;
 * the thread that runs it: network.h. */
#include "common/http.h"

#include <stdlib.h>
#include <string.h>

#include "common/env.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/network.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream_impl.h"
#include "common/url.h"
#include "common/xfer.h"

enum { MAX_REDIRECTS = 5 };

struct http {
	struct xfer_shared shared;
};

/* ---- open, free */

static bool environment_names_proxy(void)
{
	static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
					    "ALL_PROXY"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (env_get(names[i]))
			return true;
	return false;
}

int http_open(struct http **out, uint32_t connections, struct err *e)
{
	struct http *h = mem_zalloc(sizeof(*h));

	h->shared.proxied = environment_names_proxy();
	if (network_open(&h->shared.network, connections, e) < 0) {
		free(h);
		return -1;
	}
	*out = h;
	return 0;
}

void http_freep(struct http **h)
{
	if (!*h)
		return;
	network_freep(&(*h)->shared.network);
	free(*h);
	*h = NULL;
}

void http_cancel_all(struct http *h)
{
	network_cancel_all(h->shared.network);
}

void http_traffic(const struct http *h, uint64_t *in, uint64_t *out)
{
	*in = atomic_load_explicit(&h->shared.in, memory_order_relaxed);
	*out = atomic_load_explicit(&h->shared.out, memory_order_relaxed);
}

/* ---- redirects */

static bool same_origin(const char *a, const char *b)
{
	scoped_free char *sa = NULL, *sb = NULL, *ha = NULL, *hb = NULL;

	if (url_split(a, &sa, &ha, NULL, NULL) < 0 || url_split(b, &sb, &hb, NULL, NULL) < 0)
		return false;
	return str_eq(sa, sb) && str_ieq(ha, hb);
}

static bool is_redirect(const struct http_request *q, int status)
{
	bool reading = str_eq(q->method, "GET") || str_eq(q->method, "HEAD");

	return status == 307 || status == 308 ||
	       (reading && (status == 301 || status == 302 || status == 303));
}

/* 1: *url is the next hop.  0: the answer stands. */
static int next_hop(const struct http_request *q, const struct http_response *r, char **url,
		    struct err *e)
{
	const char *location = http_header(r, "location");
	scoped_free char *next = NULL, *host = NULL;

	if (q->no_redirect || !is_redirect(q, r->status) || !location)
		return 0;
	url_split(r->url, NULL, &host, NULL, NULL);
	if (url_resolve(r->url, location, &next, e) < 0)
		return err_wrap(e, "redirect of %s", host ? host : "?");
	if (str_starts(r->url, "https:") && !str_starts(next, "https:"))
		return err_set(e, ERR_DENIED, "%s redirects from https to plain HTTP: refused",
			       host ? host : "?");
	*url = take_ptr(next);
	return 1;
}

static int follow(struct http *h, const struct http_request *q, bool want_stream, struct xfer **out,
		  struct err *e)
{
	scoped_free char *url = mem_strdup(q->url);
	struct hop hop = {.allow_private = q->peer && q->peer->allow_private,
			  .foreign = q->foreign};
	bool first_private = false;

	for (int i = 0;; i++) {
		scoped(xfer_freep) struct xfer *x = NULL;
		char *next = NULL;
		int more;

		hop.url = url;
		if (xfer_start(&x, &h->shared, q, &hop, want_stream, false, 0, e) < 0 ||
		    xfer_wait(x, e) < 0)
			return -1;
		xfer_response(x)->away = hop.foreign;
		if (i == 0)
			first_private = xfer_response(x)->private_address;
		more = next_hop(q, xfer_response(x), &next, e);
		if (more < 0)
			return -1;
		if (more == 0) {
			*out = take_ptr(x);
			return 0;
		}
		if (i == MAX_REDIRECTS) {
			free(next);
			return err_set(e, ERR_NET, "%s redirects more than %d times", xfer_name(x),
				       MAX_REDIRECTS);
		}
		/* Once away, always away: who was redirected to may send us anywhere. */
		hop.foreign = hop.foreign || !same_origin(q->url, next);
		hop.allow_private =
			q->peer && q->peer->allow_private && (!hop.foreign || first_private);
		free(url);
		url = next;
	}
}

int http_do(struct http *h, const struct http_request *q, struct http_response **r, struct err *e)
{
	scoped(xfer_freep) struct xfer *x = NULL;

	if (follow(h, q, false, &x, e) < 0)
		return -1;
	*r = xfer_take_response(x);
	return 0;
}

/* ---- a body as a source */

struct body_source {
	struct source s;
	struct xfer *x;
};

static ssize_t body_read(struct source *s, void *p, size_t n, struct err *e)
{
	return xfer_read(((struct body_source *)s)->x, p, n, e);
}

static void body_free(struct source *s)
{
	struct body_source *b = (struct body_source *)s;

	xfer_freep(&b->x);
	free(b);
}

int http_get(struct http *h, const struct http_request *q, struct http_response **r,
	     struct source **body, struct err *e)
{
	static const struct source_ops ops = {body_read, body_free};
	scoped(xfer_freep) struct xfer *x = NULL;
	struct body_source *b;

	if (follow(h, q, true, &x, e) < 0)
		return -1;
	*r = xfer_take_response(x);
	*body = NULL;
	if (xfer_streams(x)) {
		b = mem_zalloc(sizeof(*b));
		b->s.ops = &ops;
		b->x = take_ptr(x);
		*body = &b->s;
	}
	return 0;
}

/* ---- an upload as a sink */

struct body_sink {
	struct sink s;
	struct xfer *x;
};

static int body_write(struct sink *s, const void *p, size_t n, struct err *e)
{
	return xfer_write(((struct body_sink *)s)->x, p, n, e);
}

static int body_finish(struct sink *s, struct err *e)
{
	xfer_written(((struct body_sink *)s)->x);
	return 0;
}

static void body_sink_free(struct sink *s)
{
	struct body_sink *b = (struct body_sink *)s;

	xfer_freep(&b->x);
	free(b);
}

int http_send(struct http *h, const struct http_request *q, uint64_t content_length,
	      struct sink **sink, struct err *e)
{
	static const struct sink_ops ops = {body_write, body_finish, body_sink_free};
	struct hop hop = {.url = q->url,
			  .allow_private = q->peer && q->peer->allow_private,
			  .foreign = q->foreign};
	struct body_sink *b;
	struct xfer *x;

	if (xfer_start(&x, &h->shared, q, &hop, false, true, content_length, e) < 0)
		return -1;
	b = mem_zalloc(sizeof(*b));
	b->s.ops = &ops;
	b->x = x;
	*sink = &b->s;
	return 0;
}

int http_send_response(struct sink *sink, struct http_response **r, struct err *e)
{
	return xfer_answer(((struct body_sink *)sink)->x, r, e);
}
