/* common/resp.c - see resp.h. */
#include "common/resp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <hiredis.h>

#include "common/clock.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/tls.h"

enum {
	MAX_ELEMENTS = 1 << 17,
	MAX_UNSENT = 64 << 20,
	SEND_NOW = 16 << 10, /* commands that do not wait for the turn's end */
	CONNECT_MS = 2000,
	BACKOFF_MIN_MS = 20,
	BACKOFF_MAX_MS = 1000,
};

/* ---- reading */

struct resp_reader {
	redisReader *h;
	size_t max, fed; /* fed: since the last whole reply */
};

static void *node_new(const redisReadTask *task, enum reply_kind kind, size_t extra)
{
	struct reply *node = calloc(1, sizeof(*node) + extra);

	if (!node)
		return NULL;
	node->kind = kind;
	if (task->parent) {
		struct reply *parent = task->parent->obj;

		((const struct reply **)(void *)parent->element)[task->idx] = node;
	}
	return node;
}

static void *make_string(const redisReadTask *task, char *s, size_t n)
{
	struct reply *node = node_new(task,
				      task->type == REDIS_REPLY_ERROR	 ? REPLY_ERROR
				      : task->type == REDIS_REPLY_STATUS ? REPLY_STATUS
									 : REPLY_STR,
				      n + 1);

	if (!node)
		return NULL;
	node->str = memcpy(node + 1, s, n);
	node->n = n;
	return node;
}

#if HIREDIS_MAJOR >= 1
static void *make_array(const redisReadTask *task, size_t elements)
#else
static void *make_array(const redisReadTask *task, int elements)
#endif
{
	struct reply *node;

	if (elements > MAX_ELEMENTS)
		return NULL; /* hiredis tells of it as out of memory */
	node = node_new(task, REPLY_ARRAY, (size_t)elements * sizeof(void *));
	if (!node)
		return NULL;
	node->n = (size_t)elements;
	node->element = (const struct reply *const *)(const void *)(node + 1);
	return node;
}

static void *make_integer(const redisReadTask *task, long long v)
{
	struct reply *node = node_new(task, REPLY_INT, 0);

	if (node)
		node->integer = v;
	return node;
}

static void *make_nil(const redisReadTask *task)
{
	return node_new(task, REPLY_NIL, 0);
}

static void free_node(void *p)
{
	struct reply *node = p;

	if (!node)
		return;
	for (size_t i = 0; node->kind == REPLY_ARRAY && i < node->n; i++)
		free_node((void *)(uintptr_t)node->element[i]); /* NULL: not read yet */
	free(node);
}

static redisReplyObjectFunctions functions = {
	.createString = make_string,
	.createArray = make_array,
	.createInteger = make_integer,
	.createNil = make_nil,
	.freeObject = free_node,
};

struct resp_reader *resp_reader_new(size_t max_bytes)
{
	struct resp_reader *r = mem_zalloc(sizeof(*r));

	r->h = redisReaderCreateWithFunctions(&functions);
	if (!r->h)
		abort();
	r->max = max_bytes ? max_bytes : (size_t)64 << 20;
	return r;
}

void resp_reader_freep(struct resp_reader **r)
{
	if (!*r)
		return;
	redisReaderFree((*r)->h);
	free(*r);
	*r = NULL;
}

int resp_reader_feed(struct resp_reader *r, const void *p, size_t n, struct err *e)
{
	if (n > r->max - r->fed)
		return err_set(e, ERR_LIMIT, "a reply is larger than %zu bytes", r->max);
	r->fed += n;
	if (redisReaderFeed(r->h, p, n) != REDIS_OK)
		return err_set(e, ERR_NET, "protocol error: %s", r->h->errstr);
	return 0;
}

int resp_reader_next(struct resp_reader *r, const struct reply **reply, struct err *e)
{
	void *value = NULL;

	if (redisReaderGetReply(r->h, &value) != REDIS_OK)
		return err_set(e, ERR_NET, "protocol error: %s", r->h->errstr);
	if (!value)
		return 0;
	r->fed = r->h->len - r->h->pos;
	*reply = value;
	return 1;
}

void resp_reply_free(const struct reply *reply)
{
	free_node((void *)(uintptr_t)reply);
}

/* ---- writing */

void resp_args_init(struct resp_args *a)
{
	buf_init(&a->b, RESP_ARGS_MAX);
	a->n = 0;
}

void resp_args_fini(struct resp_args *a)
{
	buf_wipe(&a->b);
	a->n = 0;
}

/* "<kind><n>\r\n" */
static size_t put_length(char *to, char kind, size_t n)
{
	char digits[24];
	size_t k = 0, at = 0;

	do
		digits[k++] = (char)('0' + n % 10);
	while (n /= 10);
	to[at++] = kind;
	while (k)
		to[at++] = digits[--k];
	to[at++] = '\r';
	to[at++] = '\n';
	return at;
}

void resp_arg(struct resp_args *a, const void *p, size_t n)
{
	char head[32];
	size_t k = put_length(head, '$', n);

	if (buf_reserve(&a->b, k + n + 2, NULL) < 0)
		abort(); /* each is bounded where it is made */
	buf_add(&a->b, head, k, NULL);
	buf_add(&a->b, p, n, NULL);
	buf_add(&a->b, "\r\n", 2, NULL);
	a->n++;
}

/* ---- the connection */

struct pending {
	STAILQ_ENTRY(pending) next;
	resp_fn *on;
	void *arg;
};
STAILQ_HEAD(pendings, pending);

struct resp {
	struct loop *loop;
	char *addr, *host, *port, *path; /* host and port, or path */
	struct ssl_ctx_st *tls;		 /* or NULL */
	size_t max_reply;
	void (*on_open)(void *arg);
	void (*on_lost)(const struct err *why, void *arg);
	void *arg;

	struct bufferevent *bev;
	struct evbuffer *unsent; /* commands of this turn */
	struct loop_later *flush;
	struct resp_reader *reader;
	struct loop_lookup *lookup;
	struct loop_timer
		*timer; /* runs while connecting (time-out) and while waiting (next try) */
	bool open, waiting;
	struct pendings pending;
	uint64_t heard_ms, backoff_ms;
	struct sockaddr_storage address[8];
	socklen_t address_len[8];
	size_t n_addresses, next_address;
	unsigned depth; /* callbacks under way */
	bool dead;	/* freed in one of them */
};

static void connect_next(struct resp *r);
static void start(struct resp *r);

static void destroy(struct resp *r)
{
	if (r->unsent)
		evbuffer_free(r->unsent);
	resp_reader_freep(&r->reader);
	tls_context_freep(&r->tls);
	free(r->addr);
	free(r->host);
	free(r->port);
	free(r->path);
	free(r);
}

static void enter(struct resp *r)
{
	r->depth++;
}

static void leave(struct resp *r)
{
	if (--r->depth == 0 && r->dead)
		destroy(r);
}

static void hang_up(struct resp *r)
{
	r->open = false;
	loop_lookup_freep(&r->lookup);
	if (r->bev)
		bufferevent_free(r->bev);
	r->bev = NULL;
	evbuffer_drain(r->unsent, evbuffer_get_length(r->unsent));
	resp_reader_freep(&r->reader);
}

/* What the socket does not take at once, and all with TLS, goes by the bufferevent; so does an
 * error, which it then meets itself. */
static void send_unsent(void *arg)
{
	struct resp *r = arg;

	if (!r->open || !evbuffer_get_length(r->unsent))
		return;
	if (!r->tls && !evbuffer_get_length(bufferevent_get_output(r->bev)))
		evbuffer_write(r->unsent, bufferevent_getfd(r->bev));
	if (evbuffer_get_length(r->unsent))
		bufferevent_write_buffer(r->bev, r->unsent);
}

/* The list is taken first: a callback may look at the connection, or free it. */
static void fail_pending(struct resp *r, const struct err *why)
{
	struct pendings taken;
	struct pending *p;

	STAILQ_INIT(&taken);
	STAILQ_CONCAT(&taken, &r->pending);
	while ((p = STAILQ_FIRST(&taken))) {
		STAILQ_REMOVE_HEAD(&taken, next);
		p->on(NULL, why, p->arg);
		free(p);
	}
}

static void on_timer(void *arg)
{
	struct resp *r = arg;

	enter(r);
	if (r->waiting) {
		r->waiting = false;
		start(r);
	} else if (!r->open) {
		struct err e;

		err_set(&e, ERR_NET, "Redis at %s: no connection within %d ms%s", r->addr,
			CONNECT_MS, r->tls && r->bev ? ": is TLS on there?" : "");
		resp_drop(r, &e);
	}
	leave(r);
}

/* Full jitter over the upper half, so that a herd of clients spreads but nobody waits long for a
 * server that is just restarting. */
static void wait_then_try(struct resp *r)
{
	uint32_t dice;
	uint64_t ms = r->backoff_ms;

	digest_random(&dice, sizeof(dice));
	r->waiting = true;
	r->backoff_ms = ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms * 2;
	loop_timer_again(r->timer, ms / 2 + dice % (ms / 2 + 1));
}

void resp_drop(struct resp *r, const struct err *why)
{
	struct err copy = *why;

	if (r->dead || r->waiting)
		return;
	enter(r);
	hang_up(r);
	wait_then_try(r);
	fail_pending(r, &copy);
	if (!r->dead)
		r->on_lost(&copy, r->arg);
	leave(r);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct resp *r = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	struct evbuffer_iovec piece;
	const struct reply *reply;
	struct err e;
	int got = 0;

	enter(r);
	r->heard_ms = clock_mono_ms();
	while (r->bev == bev && evbuffer_peek(in, 64 << 10, NULL, &piece, 1) > 0 && piece.iov_len) {
		got = resp_reader_feed(r->reader, piece.iov_base, piece.iov_len, &e);
		if (got < 0)
			break;
		evbuffer_drain(in, piece.iov_len);
		while (r->bev == bev && (got = resp_reader_next(r->reader, &reply, &e)) > 0) {
			struct pending *p = STAILQ_FIRST(&r->pending);

			if (!p) {
				resp_reply_free(reply);
				got = err_set(&e, ERR_NET, "a reply that nobody asked for");
				break;
			}
			STAILQ_REMOVE_HEAD(&r->pending, next);
			p->on(reply, NULL, p->arg); /* may drop or free the connection */
			resp_reply_free(reply);
			free(p);
		}
		if (got < 0)
			break;
	}
	if (got < 0 && r->bev == bev) {
		err_wrap(&e, "Redis at %s", r->addr);
		resp_drop(r, &e);
	}
	leave(r);
}

static void opened(struct resp *r)
{
	evutil_socket_t fd = bufferevent_getfd(r->bev);
	int one = 1, idle = 15;

	if (r->host) { /* a peer that vanished is noticed even while nothing is sent */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
	}
	loop_timer_again(r->timer, 1u << 30);
	r->open = true;
	r->heard_ms = clock_mono_ms();
	r->on_open(r->arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct resp *r = arg;
	struct ssl_st *ssl = bufferevent_openssl_get_ssl(bev);
	char why[300];
	struct err e;
	int errnum = EVUTIL_SOCKET_ERROR();

	enter(r);
	if (what & BEV_EVENT_CONNECTED) {
		opened(r);
		leave(r);
		return;
	}
	if (!r->open && ssl && (what & BEV_EVENT_ERROR) && !errnum)
		err_set(&e, ERR_NET, "Redis at %s: TLS: %s", r->addr,
			tls_why(ssl, bufferevent_get_openssl_error(bev), why, sizeof(why)));
	else if (!r->open && ssl && (what & BEV_EVENT_EOF))
		err_set(&e, ERR_NET,
			"Redis at %s: it hung up during the TLS handshake: is TLS on there?",
			r->addr);
	else if (!r->open)
		err_set(&e, ERR_NET, "Redis at %s: %s", r->addr,
			strerror(errnum ? errnum : ECONNREFUSED));
	else
		err_set(&e, ERR_NET, "Redis at %s: %s", r->addr,
			what & BEV_EVENT_EOF ? "it closed the connection"
			: errnum	     ? strerror(errnum)
			: ssl ? tls_why(ssl, bufferevent_get_openssl_error(bev), why, sizeof(why))
			      : "the connection broke");
	if (!r->open && r->next_address < r->n_addresses) {
		hang_up(r);
		connect_next(r);
	} else {
		resp_drop(r, &e);
	}
	leave(r);
}

static int make_bufferevent(struct resp *r, struct err *e)
{
	struct event_base *base = loop_base(r->loop);

	if (r->tls) {
		struct ssl_st *ssl = NULL;

		if (tls_client_new(&ssl, r->tls, r->host ? r->host : "localhost", e) < 0)
			return -1;
		r->bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_CONNECTING,
							BEV_OPT_CLOSE_ON_FREE);
		if (!r->bev)
			tls_freep(&ssl);
	} else {
		r->bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	}
	if (!r->bev)
		return err_set(e, ERR_SYSTEM, "no bufferevent could be made");
	bufferevent_setcb(r->bev, on_read, NULL, on_event, r);
	bufferevent_enable(r->bev, EV_READ | EV_WRITE);
	resp_reader_freep(&r->reader);
	r->reader = resp_reader_new(r->max_reply);
	return 0;
}

static void connect_to(struct resp *r, const struct sockaddr *a, socklen_t n)
{
	struct bufferevent *bev;
	struct err e;

	if (make_bufferevent(r, &e) < 0) {
		err_wrap(&e, "Redis at %s", r->addr);
		resp_drop(r, &e);
		return;
	}
	bev = r->bev;
	/* A unix socket that is not there fails at once; for TCP the answer comes to on_event. */
	if (bufferevent_socket_connect(bev, (struct sockaddr *)(uintptr_t)a, (int)n) < 0 &&
	    r->bev == bev) {
		int errnum = EVUTIL_SOCKET_ERROR();

		err_set(&e, ERR_NET, "Redis at %s: %s", r->addr,
			strerror(errnum ? errnum : ECONNREFUSED));
		resp_drop(r, &e);
	}
}

static void connect_next(struct resp *r)
{
	size_t i = r->next_address++;

	connect_to(r, (const struct sockaddr *)&r->address[i], r->address_len[i]);
}

static void on_lookup(const struct sockaddr_storage *a, const socklen_t *len, size_t n,
		      const char *why, void *arg)
{
	struct resp *r = arg;
	struct err e;

	loop_lookup_freep(&r->lookup);
	enter(r);
	r->next_address = 0;
	r->n_addresses = n < 8 ? n : 8;
	for (size_t i = 0; i < r->n_addresses; i++) {
		r->address[i] = a[i];
		r->address_len[i] = len[i];
	}
	if (n) {
		connect_next(r);
	} else {
		err_set(&e, ERR_NET, "Redis at %s: %s", r->addr, why);
		resp_drop(r, &e);
	}
	leave(r);
}

static void start(struct resp *r)
{
	loop_timer_again(r->timer, CONNECT_MS);
	if (r->path) {
		struct sockaddr_un sun = {.sun_family = AF_UNIX};

		str_copy(sun.sun_path, sizeof(sun.sun_path), r->path); /* fits: resp_open looked */
		r->n_addresses = r->next_address = 0;
		connect_to(r, (struct sockaddr *)&sun, sizeof(sun));
		return;
	}
	r->lookup = loop_lookup(r->loop, r->host, r->port, on_lookup, r);
}

/* "host:port", "[::1]:port", "host" (then 6379), "unix:///path". */
static int parse_addr(struct resp *r, const char *addr, struct err *e)
{
	const char *colon = strrchr(addr, ':'), *end;
	uint64_t port = 6379;

	if (str_starts(addr, "unix://")) {
		struct sockaddr_un sun;

		if (addr[7] != '/' || strlen(addr + 7) >= sizeof(sun.sun_path))
			return err_set(
				e, ERR_INVALID,
				"redis.addr %s: an absolute path of at most %zu bytes is wanted",
				addr, sizeof(sun.sun_path) - 1);
		r->path = mem_strdup(addr + 7);
		return 0;
	}
	if (colon && (strchr(addr, ':') == colon || (addr[0] == '[' && colon[-1] == ']')) &&
	    (str_u64(colon + 1, &port, NULL) < 0 || port == 0 || port > 65535))
		return err_set(e, ERR_INVALID, "redis.addr %s: '%s' is no port", addr, colon + 1);
	if (addr[0] == '[') {
		end = strchr(addr, ']');
		if (!end || (end[1] && end[1] != ':'))
			return err_set(e, ERR_INVALID, "redis.addr %s: '[' without ']:port'", addr);
		r->host = mem_strndup(addr + 1, (size_t)(end - addr - 1));
	} else if (colon && strchr(addr, ':') != colon) {
		r->host = mem_strdup(addr); /* a bare IPv6 address */
	} else {
		r->host = mem_strndup(addr, colon ? (size_t)(colon - addr) : strlen(addr));
	}
	if (!r->host[0] || strlen(r->host) > 255)
		return err_set(e, ERR_INVALID, "redis.addr %s: a host of 1 to 255 bytes is wanted",
			       addr);
	r->port = mem_printf("%u", (unsigned)port);
	return 0;
}

int resp_open(struct resp **to, struct loop *l, const struct resp_opts *o,
	      void (*on_open)(void *arg), void (*on_lost)(const struct err *why, void *arg),
	      void *arg, struct err *e)
{
	struct resp *r = mem_zalloc(sizeof(*r));

	r->loop = l;
	r->addr = mem_strdup(o->addr);
	r->max_reply = o->max_reply;
	r->on_open = on_open;
	r->on_lost = on_lost;
	r->arg = arg;
	r->backoff_ms = BACKOFF_MIN_MS;
	STAILQ_INIT(&r->pending);
	if (parse_addr(r, o->addr, e) < 0 ||
	    (o->tls && tls_client_context(&r->tls, o->ca_file, o->cert_file, o->key_file, e) < 0)) {
		destroy(r);
		return -1;
	}
	r->unsent = evbuffer_new();
	if (!r->unsent)
		abort();
	r->flush = loop_later(l, send_unsent, r);
	r->waiting = true;
	r->timer = loop_timer(l, 0, 0, on_timer, r);
	*to = r;
	return 0;
}

void resp_freep(struct resp **to)
{
	struct resp *r = *to;
	struct err e;

	if (!r)
		return;
	*to = NULL;
	enter(r);
	r->dead = true;
	loop_timer_freep(&r->timer);
	loop_later_freep(&r->flush);
	hang_up(r);
	err_set(&e, ERR_CANCELLED, "the connection to Redis was given up");
	fail_pending(r, &e);
	leave(r);
}

bool resp_is_open(const struct resp *r)
{
	return r->open;
}

uint64_t resp_heard_ms(const struct resp *r)
{
	return r->heard_ms;
}

const char *resp_addr(const struct resp *r)
{
	return r->addr;
}

void resp_settled(struct resp *r)
{
	r->backoff_ms = BACKOFF_MIN_MS;
}

int resp_send_args(struct resp *r, const struct resp_args *head, const struct resp_args *rest,
		   resp_fn *on, void *arg)
{
	struct pending *p;
	char count[32];
	size_t n;

	if (!r->open || r->dead)
		return -1;
	if (evbuffer_get_length(bufferevent_get_output(r->bev)) + evbuffer_get_length(r->unsent) >
	    MAX_UNSENT)
		return -1;
	n = put_length(count, '*', head->n + rest->n);
	if (evbuffer_add(r->unsent, count, n) < 0 ||
	    evbuffer_add(r->unsent, head->b.data, head->b.len) < 0 ||
	    evbuffer_add(r->unsent, rest->b.data, rest->b.len) < 0)
		abort();
	p = mem_zalloc(sizeof(*p));
	p->on = on;
	p->arg = arg;
	STAILQ_INSERT_TAIL(&r->pending, p, next);
	if (evbuffer_get_length(r->unsent) < SEND_NOW)
		loop_later_want(r->flush);
	else
		send_unsent(r);
	return 0;
}

int resp_send(struct resp *r, size_t argc, const char *const *argv, const size_t *lens, resp_fn *on,
	      void *arg)
{
	struct resp_args all, none;
	int rc;

	resp_args_init(&all);
	resp_args_init(&none);
	for (size_t i = 0; i < argc; i++)
		resp_arg(&all, argv[i], lens[i]);
	rc = resp_send_args(r, &all, &none, on, arg);
	resp_args_fini(&all);
	return rc;
}
