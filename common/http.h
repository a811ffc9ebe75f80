/* common/http.h - HTTP client over libcurl's multi interface: one network thread runs every
 * transfer of the process; callers block in their own threads.  A response body is a source, an
 * upload is fed by a sink.
 *
 * Each streamed body passes through a byte queue of 1 MiB.  Redirects are followed here, by hand:
 * at most 5, https never becomes http, credentials are dropped when scheme, host or port change,
 * Range is kept. Every read has a deadline: connect 10 s, no byte for 60 s.  Errors are classed as
 * reference/registries.md §3 lists them (curl's own errors here, HTTP statuses in
 * worker/registry/regerr.c). No function here is called from the network thread. */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct buf;
struct http;
struct source;
struct sink;

struct http_peer { /* how one host is reached; borrowed for the call */
	/* ca_file: trusted for this host instead of the system's; on a foreign redirect beside
	 * them. The client certificate is never shown to a foreign host. */
	const char *ca_file, *cert_file, *key_file;
	bool insecure;	    /* no certificate check */
	bool plain_http;    /* http:// is allowed */
	bool allow_private; /* this host may be at a loopback or private address; foreign redirects
			       may be only if it is.  Link-local addresses never. */
};

/* threads: none but the one network thread.  connections: kept open for reuse, per host.  (Not a
 * hard limit: a caller that holds one open stream and waits for another would wait for ever.) */
int http_open(struct http **h, uint32_t connections, struct err *e);
void http_freep(struct http **h); /* cancels what runs, joins the thread */
/* Every waiting call fails at once with ERR_CANCELLED (task cancelled, lease lost); only a DELETE
 * still goes out, so that no upload stays open. */
void http_cancel_all(struct http *h);
/* Bytes sent and received in bodies so far. */
void http_traffic(const struct http *h, uint64_t *in, uint64_t *out);

struct http_request {
	const char *method;
	const char *url;	    /* absolute */
	const char *const *headers; /* "Name: value", NULL-terminated; or NULL */
	const char
		*authorization; /* value of Authorization, or NULL; dropped on a foreign redirect */
	const struct http_peer *peer;
	const void *body; /* for http_do */
	size_t body_n;
	uint64_t timeout_ms;   /* whole exchange; 0: only the idle limits */
	uint64_t max_response; /* bytes of body kept by http_do; more is ERR_LIMIT; 0: 64 KiB */
	uint64_t idle_ms;      /* no byte for that long is an error; 0: 60 s */
	bool no_redirect;
	bool expect_continue;
	bool fresh_connection; /* after a broken one */
	bool foreign; /* the URL leads to a host that is not the peer: no Authorization, no client
			 certificate */
};

struct http_response;
int http_status(const struct http_response *r);
/* First header of that name (case-insensitive), control bytes removed; NULL if absent. */
const char *http_header(const struct http_response *r, const char *name);
/* Walks all values of one name: *i starts at 0. */
const char *http_header_next(const struct http_response *r, const char *name, size_t *i);
/* The address that answered is a loopback or private one. */
bool http_from_private(const struct http_response *r);
const char *http_final_url(const struct http_response *r); /* after redirects */
bool http_redirected_away(
	const struct http_response *r); /* to another host: never quote its body */
const char *http_body(const struct http_response *r, size_t *n); /* of http_do */
void http_response_freep(struct http_response **r);

/* The whole exchange.  0 whatever the status; -1 when there is no answer (*e says why). */
int http_do(struct http *h, const struct http_request *q, struct http_response **r, struct err *e);
/* Returns when the headers are there.  With a status of 200 or 206 *body streams; otherwise *body
 * is NULL and up to max_response bytes of the answer are in *r. */
int http_get(struct http *h, const struct http_request *q, struct http_response **r,
	     struct source **body, struct err *e);
/* A streamed request body (chunked encoding unless content_length != UINT64_MAX).  Write into
 * *sink, then sink_finish; then http_send_response.  A write fails early when the server answered
 * already: the answer can still be had.  Free the sink, then the response. */
int http_send(struct http *h, const struct http_request *q, uint64_t content_length,
	      struct sink **sink, struct err *e);
int http_send_response(struct sink *sink, struct http_response **r,
		       struct err *e); /* waits for it */

/* Resolves `location` against `base` (RFC 3986); ERR_INVALID for anything but http and https. */
int http_resolve(const char *base, const char *location, char **url, struct err *e);
/* Appends name=value with '?' or '&', percent-encoded. */
int http_add_query(char **url, const char *name, const char *value, struct err *e);
/* scheme, host[:port] and path of a URL, for messages and comparisons; the caller frees each (any
 * may be NULL). */
int http_split(const char *url, char **scheme, char **host_port, char **path, struct err *e);
/* Percent-encodes one query value or path segment; the caller frees. */
char *http_escape(const char *s);
#endif
