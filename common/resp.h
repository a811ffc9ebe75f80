/* common/resp.h - one Redis connection on a loop: TCP, unix socket, TLS, pipelining, reconnect.
 *
 * hiredis reads replies; bufferevents move the bytes, but for what a plain socket takes at once:
 * the commands of one turn of the loop are one write.  Replies come in the order of the commands.
 * Every command's callback is called exactly once: with a reply (an error reply is one), or with an
 * error when the connection ended first (ERR_NET), or when the owner gave up (ERR_CANCELLED). What
 * a reply means, who logs in and when a connection is good: redis.h. */
#ifndef COMMON_RESP_H
#define COMMON_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/reply.h"

struct err;
struct loop;
struct resp;

/* ---- reading: bytes -> replies, bounded */
struct resp_reader;
struct resp_reader *resp_reader_new(size_t max_bytes); /* of one reply; 0: 64 MiB */
void resp_reader_freep(struct resp_reader **r);
int resp_reader_feed(struct resp_reader *r, const void *p, size_t n, struct err *e);
/* 1: *reply, to be given back with resp_reply_free; 0: more bytes are needed; -1: not the protocol,
 * or too large (ERR_NET, ERR_LIMIT): the connection is of no more use. */
int resp_reader_next(struct resp_reader *r, const struct reply **reply, struct err *e);
void resp_reply_free(const struct reply *reply);

/* ---- writing: arguments as they go on the wire, so that they are put together once and may be
 * sent twice. */
struct resp_args {
	struct buf b;
	size_t n;
};
enum { RESP_ARGS_MAX = 64 << 20 };
#define RESP_ARGS_INIT                                                                             \
	{                                                                                          \
		.b = BUF_INIT(RESP_ARGS_MAX)                                                       \
	}
void resp_args_init(struct resp_args *a);
void resp_args_fini(struct resp_args *a); /* overwrites: one may be a password */
void resp_arg(struct resp_args *a, const void *p, size_t n);

/* ---- the connection */
struct resp_opts {
	const char *addr; /* "host:port", "[v6]:port", "unix:///path" */
	bool tls;
	const char *ca_file, *cert_file, *key_file; /* or NULL */
	size_t max_reply;			    /* 0: 64 MiB */
};
typedef void resp_fn(const struct reply *r, const struct err *e,
		     void *arg); /* r is NULL when e is set */

/* Connects in the background, again and again with backoff and jitter (20 ms to 1 s).  on_open:
 * commands may be sent now; on_lost: why it ended or could not be opened, after all pending
 * callbacks. */
int resp_open(struct resp **r, struct loop *l, const struct resp_opts *o,
	      void (*on_open)(void *arg), void (*on_lost)(const struct err *why, void *arg),
	      void *arg, struct err *e);
void resp_freep(struct resp **r); /* also from a callback of its own */
bool resp_is_open(const struct resp *r);
/* -1: not open, or more than 64 MiB wait to be sent; then on is not called.  The arguments are
 * copied. */
int resp_send(struct resp *r, size_t argc, const char *const *argv, const size_t *lens, resp_fn *on,
	      void *arg);
/* One command of the arguments in head and then those in rest. */
int resp_send_args(struct resp *r, const struct resp_args *head, const struct resp_args *rest,
		   resp_fn *on, void *arg);
/* The connection is of no use: closes it, fails what is pending with why, connects again later. */
void resp_drop(struct resp *r, const struct err *why);
void resp_settled(struct resp *r); /* it is good: the next failure starts with a short pause */
uint64_t resp_heard_ms(const struct resp *r); /* CLOCK_MONOTONIC of the last byte that came */
const char *resp_addr(const struct resp *r);

#endif
