/* common/http.h - HTTP client over libcurl's multi interface: one network thread runs every
 * transfer of the process; callers block in their own threads.  A response body is a source, an
 * upload is fed by a sink.
 *
 * Each streamed body passes through a byte queue of 1 MiB.  Redirects are followed here, by hand:
 * at most 5, https never becomes http, credentials are dropped when scheme, host or port change,
 * Range is kept. Every read has a deadline: connect 10 s, no byte for 60 s.  Errors are classed as
 * reference/registries.md §3 lists them (curl's own errors in xfer.c, HTTP statuses in
 * worker/registry/regerr.c). No function here is called from the network thread.  Requests and
 * answers: http_message.h; URLs: url.h. */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/http_message.h"

struct err;
struct http;
struct source;
struct sink;

/* threads: none but the one network thread.  connections: kept open for reuse, per host.  (Not a
 * hard limit: a caller that holds one open stream and waits for another would wait for ever.) */
int http_open(struct http **h, uint32_t connections, struct err *e);
void http_freep(struct http **h); /* cancels what runs, joins the thread */
/* Every waiting call fails at once with ERR_CANCELLED (task cancelled, lease lost); only a DELETE
 * still goes out, so that no upload stays open. */
void http_cancel_all(struct http *h);
/* Bytes sent and received in bodies so far. */
void http_traffic(const struct http *h, uint64_t *in, uint64_t *out);

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

#endif
