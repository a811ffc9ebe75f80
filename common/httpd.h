/* common/httpd.h - HTTP/1.1 server on libevent: listening (TCP, unix, TLS), strict framing, limits,
 * deadlines.
 *
 * Requests are taken out of the raw bytes by httpframe's strict rules: what it refuses gets 400 (or
 * 408, 413, 417, 431) and a closed connection, and no handler sees it.  One handler for all; it
 * answers now or keeps the request and answers later.  A client that leaves first: on_close is
 * called once, and the request must still be ended with httpd_drop or any reply (which is then
 * thrown away). */
#ifndef COMMON_HTTPD_H
#define COMMON_HTTPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct loop;
struct httpd;
struct request;

struct httpd_opts {
	uint64_t max_header, max_body;		/* bytes; 0: 16 KiB, 1 MiB */
	uint64_t header_ms, body_ms, idle_ms;	/* total deadlines; 0: 10 s, 30 s, 60 s */
	uint32_t max_connections, max_per_peer; /* 0: 4096, 0: none */
	uint64_t max_output; /* queued for one slow reader; 0: 256 KiB beyond a plain reply */
	uint64_t
		max_queued; /* for all of them together; 0: 256 MiB.  Over it a client is cut off */
};

int httpd_open(struct httpd **h, struct loop *l, const struct httpd_opts *o,
	       void (*on_request)(struct request *q, void *arg), void *arg, struct err *e);
/* host "" or "0.0.0.0" or "::"; port 0: any.  *bound gets "127.0.0.1:2077"; the caller frees. */
int httpd_listen_tcp(struct httpd *h, const char *host, uint16_t port, const char *tls_cert,
		     const char *tls_key, const char *tls_client_ca, char **bound, struct err *e);
/* A stale socket is replaced, anything else at path is refused. */
int httpd_listen_unix(struct httpd *h, const char *path, uint32_t mode, struct err *e);
int httpd_reload_tls(struct httpd *h, struct err *e);
void httpd_stop_listening(struct httpd *h); /* open requests go on */
size_t httpd_open_requests(const struct httpd *h);
/* Connections in the middle of a request or of its answer. */
size_t httpd_unfinished(const struct httpd *h);
size_t httpd_connections(const struct httpd *h);
void httpd_freep(struct httpd **h);

/* ---- one request */
const char *request_method(const struct request *q); /* "GET" */
const char *request_uri(const struct request *q);    /* as sent: path and query */
const char *request_path(const struct request *q);   /* decoded, no query */
const char *request_query(const struct request *q,
			  const char *name); /* decoded; NULL: absent; "" : no value */
const char *request_header(const struct request *q, const char *name);
const char *request_body(const struct request *q, size_t *n);
const char *request_peer(const struct request *q); /* "10.0.0.1:4711", "unix" */
bool request_peer_is_loopback(const struct request *q);
bool request_peer_is_unix(const struct request *q, uid_t *uid); /* SO_PEERCRED */
uint64_t request_age_us(const struct request *q);
void request_on_close(struct request *q, void (*on)(struct request *q, void *arg), void *arg);
void request_set_user(struct request *q, void *user);
void *request_user(const struct request *q);

void reply_header(struct request *q, const char *name, const char *value); /* before reply */
void reply(struct request *q, int status, const char *content_type, const void *body, size_t n);
/* Streams (SSE): start, any number of pieces, end.  -1: the client reads too slowly and was
 * dropped. */
void reply_start(struct request *q, int status, const char *content_type);
int reply_piece(struct request *q, const void *p, size_t n);
void reply_end(struct request *q);
/* Called after each finished reply: for the access log and metrics. */
/* Ends a request without an answer; its connection is closed. */
void httpd_drop(struct request *q);
void httpd_on_done(struct httpd *h,
		   void (*on)(const struct request *q, int status, uint64_t in_bytes,
			      uint64_t out_bytes, void *arg),
		   void *arg);
/* Called for each refusal that no handler saw; why is static text. */
void httpd_on_refused(struct httpd *h,
		      void (*on)(const char *peer, int status, const char *why, void *arg),
		      void *arg);

#endif
