/* common/httpd_impl.h - what the server's three files share: httpd.c (requests, replies, the
 * server), httpd_conn.c (a connection's life), httpd_listen.c (listening, accepting).  For them
 * alone. */
#ifndef COMMON_HTTPD_IMPL_H
#define COMMON_HTTPD_IMPL_H

#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>

#include <event2/util.h>

#include "common/buf.h"
#include "common/httpd.h"
#include "common/httpframe.h"

struct bufferevent;
struct event;
struct event_base;
struct evconnlistener;
struct loop_later;

enum {
	REPLY_HEADERS = 32 << 10, /* headers of one reply beside ours */
	REPLY_AT_ONCE = 64 << 10, /* a body that is sent without the bufferevent */
	QUERY_MAX = 32,		  /* parameters looked at */
	PEER_BUCKETS = 1024,
};

struct peer { /* counts connections of one address */
	LIST_ENTRY(peer) next;
	char address[INET6_ADDRSTRLEN];
	uint32_t n;
};

struct listener {
	TAILQ_ENTRY(listener) next;
	struct httpd *h;
	struct evconnlistener *ev;
	struct ssl_ctx_st *tls; /* or NULL */
	char *cert, *key, *client_ca;
	char *path; /* unix: removed at the end, if it is still ours */
	dev_t dev;
	ino_t ino;
};

enum phase { IDLE, READING_HEAD, READING_BODY, HANDLING, FLUSHING, LINGERING };

struct conn {
	TAILQ_ENTRY(conn) next; /* longest unused first */
	struct httpd *h;
	struct bufferevent *bev;
	struct event *timer;
	uint64_t until_ms,
		armed_ms;  /* the deadline; when timer fires, at the latest then.  0: none */
	struct request *q; /* being read or handled */
	TAILQ_ENTRY(conn) next_sending;
	struct buf out; /* a reply for the turn's end */
	bool sending;	/* is on that list */
	struct peer *peer;
	enum phase phase;
	bool running, dead;  /* inside its own callbacks; to be freed when they are done */
	bool eof;	     /* the client will send no more */
	bool close;	     /* after the reply */
	bool tls, handshake; /* handshake: not finished */
	bool is_unix, loopback;
	uid_t uid;
	size_t body_counted, queued;
	char name[INET6_ADDRSTRLEN + 16];
};
TAILQ_HEAD(conns, conn);

struct request {
	TAILQ_ENTRY(request) next;
	struct httpd *h;
	struct conn *c; /* NULL: the client left */
	struct httpframe f;
	char *path;
	struct {
		char *name, *value;
	} query[QUERY_MAX];
	size_t n_query;
	char peer[INET6_ADDRSTRLEN + 16];
	bool is_unix, loopback;
	uid_t uid;
	uint64_t start_ns;
	struct buf headers; /* of the reply, whole lines */
	bool handed;
	int status;
	uint64_t out_bytes;
	void (*on_close)(struct request *q, void *arg);
	void *close_arg, *user;
};
TAILQ_HEAD(requests, request);

struct httpd {
	struct loop *l;
	struct event_base *base;
	struct httpd_opts o;
	void (*on_request)(struct request *q, void *arg);
	void *arg;
	void (*on_done)(const struct request *q, int status, uint64_t in_bytes, uint64_t out_bytes,
			void *arg);
	void *done_arg;
	void (*on_refused)(const char *peer, int status, const char *why, void *arg);
	void *refused_arg;
	TAILQ_HEAD(, listener) listeners;
	struct conns conns, sending;
	size_t n_sending;
	struct loop_later *send;
	struct requests open; /* handed to the handler, not answered */
	LIST_HEAD(, peer) peers[PEER_BUCKETS];
	struct event *again; /* after running out of descriptors */
	size_t n_conns, n_open;
	uint64_t body_bytes, queued;
	time_t date_at;
	char date[40];
};

/* httpd.c */
struct request *request_new(struct conn *c);
void request_free(struct request *q);
void request_parse_target(struct request *q); /* it was checked by httpframe */
const char *httpd_reason(int status);
const char *httpd_date(struct httpd *h);

/* httpd_conn.c.  conn_run must follow conn_replied: it looks at what is left to do, and frees the
 * connection if need be. */
struct conn *conn_new(struct httpd *h, struct bufferevent *bev, bool tls);
void conn_free(struct conn *c);
void conn_deadline(struct conn *c, enum phase phase, uint64_t ms); /* 0: none */
void conn_run(struct conn *c);
void conn_refuse(struct conn *c, int status, const char *why);
void conn_replied(struct conn *c);
void conn_out_done(struct conn *c);
void conn_send_replies(void *httpd);

/* httpd_listen.c */
void listener_free(struct listener *s);
void listener_again(evutil_socket_t fd, short what, void *httpd);

#endif
