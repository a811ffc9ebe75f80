/* common/xfer.h - one request and its answer on the way: made and waited for by a caller's thread,
 * run by the network thread.  No redirect is followed here.
 *
 * A streamed body passes through a byte queue of 1 MiB.  curl's errors become ours here:
 * reference/registries.md §3. */
#ifndef COMMON_XFER_H
#define COMMON_XFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct http_request;
struct http_response;
struct network;
struct xfer;

struct xfer_shared { /* by all transfers of one client; outlives them */
	struct network *network;
	bool proxied;		  /* the environment names a proxy */
	_Atomic uint64_t in, out; /* bytes of bodies */
};

struct hop { /* one request of a chain of redirects */
	const char *url;
	bool foreign, allow_private;
};

/* Hands it to the network thread.  want_stream: the body of a good answer is for xfer_read; upload:
 * the request's is from xfer_write, content_length bytes or, UINT64_MAX, chunked. */
int xfer_start(struct xfer **x, struct xfer_shared *shared, const struct http_request *q,
	       const struct hop *hop, bool want_stream, bool upload, uint64_t content_length,
	       struct err *e);
void xfer_freep(struct xfer **x); /* at any time: ends it, and does not wait for that */
/* Waits for the headers of a body that streams, else for the end. */
int xfer_wait(struct xfer *x, struct err *e);

/* After xfer_wait. */
bool xfer_streams(const struct xfer *x);
struct http_response *xfer_response(struct xfer *x); /* borrowed */
/* The caller's from here on: while a body streams the network thread does not look at it. */
struct http_response *xfer_take_response(struct xfer *x);
const char *xfer_name(const struct xfer *x); /* the host, as a user wrote it */

ssize_t xfer_read(struct xfer *x, void *p, size_t n, struct err *e); /* 1..n; 0: the end */
/* All of it; fails early when the server has refused already (status 300 and more). */
int xfer_write(struct xfer *x, const void *p, size_t n, struct err *e);
void xfer_written(struct xfer *x); /* that was the last byte */
/* Waits for the end of an upload; *r is the caller's. */
int xfer_answer(struct xfer *x, struct http_response **r, struct err *e);

#endif
