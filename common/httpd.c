/* common/httpd.c - see httpd.h.
 *
 * libevent listens and moves the bytes (evconnlistener, bufferevent); evhttp is not used: it is
 * lenient where a proxy in front may not be, restarts its time-out with every byte and has no bound
 * on what it queues (reference: http-api, "evhttp").  httpframe takes requests out of the bytes.
 *
 * A connection works on one request at a time; what a client sends ahead stays in the input buffer,
 * whose watermark stops the reading.  The replies of one turn of the loop are sent at its end,
 * after the log's lines about them; only what a socket does not take goes by its bufferevent (and
 * all with TLS).  Every phase has one total deadline:
 *
 *   idle -> head -> body -> (the handler: none) -> flush of the reply -> idle, or linger and close
 *
 * Lingering: after a refusal bytes may still be on their way; closing with them unread makes the
 * kernel send RST, which can take the answer from the client.  So the write side is shut and input
 * is thrown away for a moment. */
#include "common/httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/httpframe.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/tls.h"

enum {
	READ_AHEAD = 32 << 10, /* input kept for a connection at most */
	LINGER_MS = 2000,      /* how long input is thrown away after a refusal */
	FLUSH_MS = 60000,      /* a reply must be taken within */
	BODIES_AT_ONCE =
		64 << 20, /* bytes of all unanswered bodies together, and four times max_body */
	REPLY_HEADERS = 32 << 10, /* headers of one reply beside ours */
	REPLY_AT_ONCE = 64 << 10, /* a body that is sent without the bufferevent */
	REPLY_KEPT = 1024,	  /* memory for replies that a connection keeps */
	QUERY_MAX = 32,		  /* parameters looked at */
	PEER_BUCKETS = 1024,
	BACKLOG = 1024,
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

static void run(struct conn *c);
static void conn_free(struct conn *c);

/* ---- requests */

static struct request *request_new(struct conn *c)
{
	struct request *q = mem_zalloc(sizeof(*q));

	q->h = c->h;
	q->c = c;
	httpframe_init(&q->f, c->h->o.max_header, c->h->o.max_body);
	buf_init(&q->headers, REPLY_HEADERS);
	str_copy(q->peer, sizeof(q->peer), c->name);
	q->is_unix = c->is_unix;
	q->loopback = c->loopback;
	q->uid = c->uid;
	return q;
}

static void request_free(struct request *q)
{
	if (q->handed) {
		TAILQ_REMOVE(&q->h->open, q, next);
		q->h->n_open--;
	}
	for (size_t i = 0; i < q->n_query; i++) {
		free(q->query[i].name);
		free(q->query[i].value);
	}
	free(q->path);
	buf_fini(&q->headers);
	httpframe_fini(&q->f);
	free(q);
}

static char *decoded(const char *p, size_t n, bool plus)
{
	char *text = mem_alloc(n + 1);

	httpframe_decode(text, p, n, plus);
	return text;
}

/* Splits the target; it was checked by httpframe. */
static void parse_target(struct request *q)
{
	const char *t = q->f.target;
	size_t n = strcspn(t, "?");

	q->path = decoded(t, n, false);
	for (t += n; *t && q->n_query < QUERY_MAX; t += n) {
		size_t name;

		n = strcspn(++t, "&");
		name = strcspn(t, "=&");
		if (!n)
			continue;
		q->query[q->n_query].name = decoded(t, name, true);
		q->query[q->n_query++].value =
			name < n ? decoded(t + name + 1, n - name - 1, true) : mem_strdup("");
	}
}

const char *request_method(const struct request *q)
{
	return q->f.method;
}

const char *request_uri(const struct request *q)
{
	return q->f.target;
}

const char *request_path(const struct request *q)
{
	return q->path;
}

const char *request_query(const struct request *q, const char *name)
{
	for (size_t i = 0; i < q->n_query; i++)
		if (!strcmp(q->query[i].name, name))
			return q->query[i].value;
	return NULL;
}

const char *request_header(const struct request *q, const char *name)
{
	return httpframe_field(&q->f, name);
}

const char *request_body(const struct request *q, size_t *n)
{
	*n = q->f.body.len;
	return q->f.body.data;
}

const char *request_peer(const struct request *q)
{
	return q->peer;
}

bool request_peer_is_loopback(const struct request *q)
{
	return q->loopback;
}

bool request_peer_is_unix(const struct request *q, uid_t *uid)
{
	if (q->is_unix && uid)
		*uid = q->uid;
	return q->is_unix;
}

uint64_t request_age_us(const struct request *q)
{
	return (clock_mono_ns() - q->start_ns) / 1000;
}

void request_on_close(struct request *q, void (*on)(struct request *q, void *arg), void *arg)
{
	q->on_close = on;
	q->close_arg = arg;
}

void request_set_user(struct request *q, void *user)
{
	q->user = user;
}

void *request_user(const struct request *q)
{
	return q->user;
}

/* ---- connections */

static void arm(struct conn *c, uint64_t now, uint64_t ms)
{
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

	c->armed_ms = now + ms;
	event_add(c->timer, &tv);
}

/* A deadline that moves away costs nothing: the timer looks again when it fires.  So a request that
 * comes in one piece and is answered soon moves no timer at all. */
static void deadline(struct conn *c, enum phase phase, uint64_t ms)
{
	uint64_t now = clock_mono_ms();

	c->phase = phase;
	c->until_ms = ms ? now + ms : 0;
	if (ms && (!c->armed_ms || c->until_ms < c->armed_ms))
		arm(c, now, ms);
}

/* All unfinished and unanswered bodies are counted, so that they are bounded together. */
static void count_body(struct conn *c, size_t n)
{
	c->h->body_bytes += n;
	c->h->body_bytes -= c->body_counted;
	c->body_counted = n;
}

/* So is what clients have not taken yet. */
static void count_queued(struct conn *c, size_t n)
{
	c->h->queued += n;
	c->h->queued -= c->queued;
	c->queued = n;
}

static void peer_drop(struct conn *c)
{
	if (c->peer && --c->peer->n == 0) {
		LIST_REMOVE(c->peer, next);
		free(c->peer);
	}
	c->peer = NULL;
}

/* The handler's request lives on without its client, and its handler is told. */
static void orphan(struct conn *c, bool tell)
{
	struct request *q = c->q;
	void (*on)(struct request * q, void *arg);

	c->q = NULL;
	if (!q)
		return;
	q->c = NULL;
	if (!q->handed) {
		request_free(q);
		return;
	}
	on = q->on_close;
	q->on_close = NULL;
	if (on && tell)
		on(q, q->close_arg); /* may end q */
}

static void unlist(struct conn *c)
{
	if (!c->sending)
		return;
	TAILQ_REMOVE(&c->h->sending, c, next_sending);
	c->h->n_sending--;
	c->sending = false;
}

static void conn_free(struct conn *c)
{
	if (c->running) {
		c->dead = true;
		bufferevent_disable(c->bev, EV_READ | EV_WRITE);
		return;
	}
	c->running = true; /* a reply out of on_close must not come back here */
	orphan(c, true);
	count_body(c, 0);
	count_queued(c, 0);
	TAILQ_REMOVE(&c->h->conns, c, next);
	c->h->n_conns--;
	unlist(c);
	buf_fini(&c->out);
	peer_drop(c);
	event_free(c->timer);
	bufferevent_free(c->bev);
	free(c);
}

/* Nothing more is read as a request; what was written still goes out. */
static void linger(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	evbuffer_drain(in, evbuffer_get_length(in));
	deadline(c, LINGERING, LINGER_MS);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	if (c->eof)
		c->dead = true;
}

/* run() must follow, here and after replied(): it looks at what is left to do, frees if need be. */
static void flushed(struct conn *c)
{
	count_queued(c, 0);
	if (c->close) {
		linger(c);
		return;
	}
	deadline(c, IDLE, c->h->o.idle_ms);
	TAILQ_REMOVE(&c->h->conns, c, next);
	TAILQ_INSERT_TAIL(&c->h->conns, c, next);
}

static void out_done(struct conn *c)
{
	if (c->out.cap > REPLY_KEPT)
		buf_fini(&c->out);
	else
		buf_reset(&c->out);
}

/* The reply was queued: wait until it is gone, or go on at once. */
static void replied(struct conn *c)
{
	size_t by_event = evbuffer_get_length(bufferevent_get_output(c->bev));

	count_body(c, 0);
	count_queued(c, by_event + c->out.len);
	if (!c->queued) {
		flushed(c);
		return;
	}
	deadline(c, FLUSHING, FLUSH_MS);
	if (c->out.len && (by_event || c->tls)) {
		bufferevent_write(c->bev, c->out.data, c->out.len);
		out_done(c);
	} else if (c->out.len) {
		TAILQ_INSERT_TAIL(&c->h->sending, c, next_sending);
		c->sending = true;
		c->h->n_sending++;
		loop_later_want(c->h->send);
	}
}

static void send_reply(struct conn *c)
{
	ssize_t r = send(bufferevent_getfd(c->bev), c->out.data, c->out.len,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
	size_t n = r > 0 ? (size_t)r : 0;

	if (r < 0 && errno != EAGAIN && errno != EINTR) {
		conn_free(c);
		return;
	}
	if (n < c->out.len) {
		bufferevent_write(c->bev, c->out.data + n, c->out.len - n);
		out_done(c);
		return; /* on_write says when it is gone */
	}
	out_done(c);
	flushed(c);
	run(c);
}

/* Those of this turn; what a client had sent ahead is answered now, and that comes after. */
static void send_replies(void *arg)
{
	struct httpd *h = arg;

	log_flush();
	for (size_t n = h->n_sending; n && h->n_sending; n--) {
		struct conn *c = TAILQ_FIRST(&h->sending);

		unlist(c);
		send_reply(c);
	}
}

static const char *reason(int status)
{
	static const struct {
		int status;
		const char *text;
	} t[] = {
		{200, "OK"},
		{202, "Accepted"},
		{204, "No Content"},
		{304, "Not Modified"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{413, "Request Entity Too Large"},
		{417, "Expectation Failed"},
		{422, "Unprocessable Entity"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{503, "Service Unavailable"},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (t[i].status == status)
			return t[i].text;
	return "Status";
}

static const char *http_date(struct httpd *h)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm tm;

	if (now != h->date_at && gmtime_r(&now, &tm)) {
		strftime(h->date, sizeof(h->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		h->date_at = now;
	}
	return h->date;
}

/* The same body as the API's errors: both of its readers find their member. */
static void refusal_body(struct buf *b, int status, const char *why)
{
	const char *code = status == 413   ? "ERR_TOO_LARGE"
			   : status == 429 ? "ERR_TOO_MANY_REQUESTS"
					   : "ERR_ILLEGAL_PARAMETER";

	buf_addf(b, NULL, "{\"code\":\"%s\",\"message\":", code);
	json_quote(b, why, strlen(why), NULL);
	buf_addf(b, NULL, ",\"errors\":[{\"code\":\"%s\",\"message\":", code);
	json_quote(b, why, strlen(why), NULL);
	buf_add_str(b, "}]}\n", NULL);
}

static void refusal_text(struct httpd *h, struct buf *all, int status, const char *why)
{
	scoped(buf_fini) struct buf body = BUF_INIT(1024);

	refusal_body(&body, status, why);
	buf_addf(all, NULL,
		 "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nDate: %s\r\n"
		 "Content-Length: %zu\r\nConnection: close\r\n%s\r\n%s",
		 status, reason(status), http_date(h), body.len,
		 status == 429 ? "Retry-After: 1\r\n" : "", body.data);
}

/* For bytes that are no request: the place in the stream is lost, so the connection ends. */
static void refuse(struct conn *c, int status, const char *why)
{
	scoped(buf_fini) struct buf all = BUF_INIT(4096);

	refusal_text(c->h, &all, status, why);
	bufferevent_write(c->bev, all.data, all.len);
	if (c->h->on_refused)
		c->h->on_refused(c->name, status, why, c->h->refused_arg);
	c->close = true;
	orphan(c, false);
	replied(c);
}

static void hand_over(struct conn *c)
{
	struct request *q = c->q;

	parse_target(q);
	c->close |= q->f.close;
	q->handed = true;
	TAILQ_INSERT_TAIL(&c->h->open, q, next);
	c->h->n_open++;
	deadline(c, HANDLING, 0);
	c->h->on_request(q, c->h->arg); /* may end q, and the connection with it */
}

/* One step with what is in the input; false: nothing more to do now. */
static bool step(struct conn *c, struct evbuffer *in)
{
	struct evbuffer_iovec v;
	struct request *q;
	size_t taken;
	int before;

	if (c->phase > READING_BODY || evbuffer_peek(in, -1, NULL, &v, 1) < 1 || !v.iov_len)
		return false;
	if (!c->q)
		c->q = request_new(c);
	q = c->q;
	before = (int)q->f.state;
	taken = httpframe_feed(&q->f, v.iov_base, v.iov_len);
	evbuffer_drain(in, taken);
	count_body(c, q->f.body.cap);
	if (q->f.state == FRAME_BAD) {
		refuse(c, q->f.status, q->f.why);
		return false;
	}
	if (before == FRAME_HEAD && q->f.state != FRAME_HEAD) {
		q->start_ns = clock_mono_ns();
		if (q->f.expect && q->f.state == FRAME_BODY && !evbuffer_get_length(in))
			bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	if (c->h->body_bytes > BODIES_AT_ONCE + 4 * c->h->o.max_body) {
		refuse(c, 429, "too many request bodies at once");
		return false;
	}
	if (q->f.state == FRAME_DONE)
		hand_over(c);
	else if (q->f.state == FRAME_BODY && c->phase != READING_BODY)
		deadline(c, READING_BODY, c->h->o.body_ms);
	else if (q->f.state == FRAME_HEAD && c->phase != READING_HEAD)
		deadline(c, READING_HEAD, c->h->o.header_ms);
	return true;
}

/* Works off the input until it is used up or a handler keeps its request. */
static void run(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	if (c->running)
		return;
	c->running = true;
	if (c->phase == LINGERING)
		evbuffer_drain(in, evbuffer_get_length(in));
	while (!c->dead && step(c, in))
		;
	if (c->eof && c->phase <= READING_BODY)
		c->dead = true; /* no request can come any more */
	c->running = false;
	if (c->dead)
		conn_free(c);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	run(arg);
}

/* The output is empty. */
static void on_write(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (c->phase != FLUSHING)
		return;
	flushed(c);
	run(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		c->handshake = false;
		deadline(c, IDLE, c->h->o.idle_ms);
		return;
	}
	if (!(what & BEV_EVENT_EOF) || c->phase == LINGERING) {
		conn_free(c);
		return;
	}
	/* The client closed, or only its half: whoever waits for it is told, but a reply that
	 * comes all the same is still sent. */
	c->eof = true;
	if (c->phase == HANDLING && c->q && c->q->on_close) {
		struct request *q = c->q;
		void (*on)(struct request * q, void *arg) = q->on_close;

		q->on_close = NULL;
		c->running = true;
		on(q, q->close_arg);
		c->running = false;
		if (c->dead) {
			conn_free(c);
			return;
		}
	}
	run(c);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	uint64_t now = clock_mono_ms();

	(void)fd;
	(void)what;
	c->armed_ms = 0;
	if (!c->until_ms)
		return;
	if (now < c->until_ms) { /* it was moved */
		arm(c, now, c->until_ms - now);
		return;
	}
	if ((c->phase == READING_HEAD || c->phase == READING_BODY) && !c->handshake)
		refuse(c, 408,
		       c->phase == READING_HEAD ? "the header did not come in time"
						: "the body did not come in time");
	else
		conn_free(c);
}

/* ---- accepting */

static void name_peer(struct conn *c, const struct sockaddr *a)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (a->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)a;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(c->name, sizeof(c->name), "%s:%u", text, ntohs(in->sin_port));
		c->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
	} else if (a->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;
		bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		if (mapped)
			inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, text, sizeof(text));
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(c->name, sizeof(c->name), mapped ? "%s:%u" : "[%s]:%u", text,
			 ntohs(in6->sin6_port));
		c->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
			      (mapped && in6->sin6_addr.s6_addr[12] == 127);
	} else {
		struct ucred cred;
		socklen_t n = sizeof(cred);

		str_copy(c->name, sizeof(c->name), "unix");
		c->is_unix = true;
		c->uid = (uid_t)-1;
		if (getsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0)
			c->uid = cred.uid;
	}
}

/* false: this address has its share of connections. */
static bool peer_count(struct conn *c)
{
	char address[INET6_ADDRSTRLEN + 16];
	uint32_t hash = 2166136261u;
	struct peer *p;
	char *colon;

	if (!c->h->o.max_per_peer || c->is_unix)
		return true;
	str_copy(address, sizeof(address), c->name);
	colon = strrchr(address, ':');
	if (colon)
		*colon = 0;
	for (const char *s = address; *s; s++)
		hash = (hash ^ (unsigned char)*s) * 16777619u;
	LIST_FOREACH(p, &c->h->peers[hash % PEER_BUCKETS], next)
	if (!strcmp(p->address, address))
		break;
	if (p && p->n >= c->h->o.max_per_peer)
		return false;
	if (!p) {
		p = mem_zalloc(sizeof(*p));
		str_copy(p->address, sizeof(p->address), address);
		LIST_INSERT_HEAD(&c->h->peers[hash % PEER_BUCKETS], p, next);
	}
	p->n++;
	c->peer = p;
	return true;
}

/* Makes room by closing the connection that has been idle longest. */
static bool evict(struct httpd *h)
{
	struct conn *c;

	TAILQ_FOREACH(c, &h->conns, next)
	if (c->phase == IDLE && !c->running) {
		conn_free(c);
		return true;
	}
	return false;
}

static struct bufferevent *bufferevent_for(struct listener *s, int fd)
{
	struct bufferevent *bev;
	struct ssl_st *ssl = NULL;

	if (!s->tls)
		return bufferevent_socket_new(s->h->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (tls_server_new(&ssl, s->tls, NULL) < 0)
		return NULL;
	bev = bufferevent_openssl_socket_new(s->h->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
					     BEV_OPT_CLOSE_ON_FREE);
	if (!bev)
		tls_freep(&ssl);
	else
		bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

static void on_accept(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *a, int n,
		      void *arg)
{
	struct listener *s = arg;
	struct httpd *h = s->h;
	struct bufferevent *bev;
	struct conn *c;
	int one = 1;

	(void)ev;
	(void)n;
	bev = h->n_conns < h->o.max_connections || evict(h) ? bufferevent_for(s, fd) : NULL;
	if (!bev) {
		close(fd);
		return;
	}
	c = mem_zalloc(sizeof(*c));
	c->h = h;
	c->bev = bev;
	c->tls = c->handshake = s->tls != NULL;
	buf_init(&c->out, REPLY_HEADERS + 1024 + REPLY_AT_ONCE);
	c->timer = evtimer_new(h->base, on_deadline, c);
	if (!c->timer)
		abort();
	TAILQ_INSERT_TAIL(&h->conns, c, next);
	h->n_conns++;
	name_peer(c, a);
	if (!c->is_unix)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	bufferevent_setcb(bev, on_read, on_write, on_event, c);
	bufferevent_setwatermark(bev, EV_READ, 0, READ_AHEAD);
	if (c->handshake)
		deadline(c, READING_HEAD, h->o.header_ms);
	else
		deadline(c, IDLE, h->o.idle_ms);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	if (peer_count(c))
		return;
	if (c->handshake)
		conn_free(c);
	else
		refuse(c, 429, "too many connections from this address");
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct httpd *h = arg;
	struct listener *s;

	(void)fd;
	(void)what;
	TAILQ_FOREACH(s, &h->listeners, next)
	evconnlistener_enable(s->ev);
}

/* Out of descriptors: make room, and do not spin on the backlog. */
static void on_accept_error(struct evconnlistener *ev, void *arg)
{
	struct listener *s = arg;
	struct timeval tv = {.tv_usec = 100000};

	if (evict(s->h))
		return;
	evconnlistener_disable(ev);
	event_add(s->h->again, &tv);
}

static void listener_free(struct listener *s)
{
	struct stat st;

	TAILQ_REMOVE(&s->h->listeners, s, next);
	if (s->ev)
		evconnlistener_free(s->ev);
	if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	tls_context_freep(&s->tls);
	free(s->cert);
	free(s->key);
	free(s->client_ca);
	free(s->path);
	free(s);
}

static struct listener *listener_new(struct httpd *h)
{
	struct listener *s = mem_zalloc(sizeof(*s));

	s->h = h;
	TAILQ_INSERT_TAIL(&h->listeners, s, next);
	return s;
}

/* Takes fd. */
static void listener_start(struct listener *s, int *fd)
{
	evutil_make_socket_nonblocking(*fd);
	s->ev = evconnlistener_new(s->h->base, on_accept, s,
				   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, *fd);
	if (!s->ev)
		abort();
	take_fd(fd);
	evconnlistener_set_error_cb(s->ev, on_accept_error);
}

static int bind_tcp(const struct addrinfo *a, struct err *e)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, off = 0;

	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		err_errno(e, errno, "bind");
		close(fd);
		return -1;
	}
	return fd;
}

static char *bound_text(int fd)
{
	struct sockaddr_storage a = {0};
	socklen_t n = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "", port[8] = "";

	getsockname(fd, (struct sockaddr *)&a, &n);
	getnameinfo((struct sockaddr *)&a, n, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	return mem_printf(a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* A name gives its IPv4 address when it has one, as Go's net.Listen does. */
static int bind_host(const char *host, uint16_t port, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *all = NULL, *best;
	char text[8], bare[256];
	int fd, r;

	str_copy(bare, sizeof(bare), host);
	if (bare[0] == '[' && str_ends(bare, "]")) {
		memmove(bare, bare + 1, strlen(bare));
		bare[strlen(bare) - 1] = 0;
	}
	snprintf(text, sizeof(text), "%u", port);
	r = getaddrinfo(bare[0] ? bare : "0.0.0.0", text, &hints, &all);
	if (r != 0)
		return err_set(e, ERR_INVALID, "%s", gai_strerror(r));
	for (best = all; best && best->ai_family != AF_INET;)
		best = best->ai_next;
	fd = bind_tcp(best ? best : all, e);
	freeaddrinfo(all);
	return fd;
}

int httpd_listen_tcp(struct httpd *h, const char *host, uint16_t port, const char *tls_cert,
		     const char *tls_key, const char *tls_client_ca, char **bound, struct err *e)
{
	scoped_fd int fd = -1;
	struct ssl_ctx_st *tls = NULL;
	struct listener *s;

	if (tls_cert && tls_server_context(&tls, tls_cert, tls_key, tls_client_ca, e) < 0)
		return -1;
	fd = bind_host(host, port, e);
	if (fd < 0) {
		tls_context_freep(&tls);
		return err_wrap(e,
				strchr(host, ':') && *host != '[' ? "listen on [%s]:%u"
								  : "listen on %s:%u",
				host, port);
	}
	s = listener_new(h);
	s->tls = tls;
	s->cert = mem_strdup(tls_cert);
	s->key = mem_strdup(tls_key);
	s->client_ca = mem_strdup(tls_client_ca);
	if (bound)
		*bound = bound_text(fd);
	listener_start(s, &fd);
	return 0;
}

/* Is there a socket at path that nobody listens on any more?  1: remove it, 0: nothing there. */
static int unix_stale(const char *path, const struct sockaddr_un *a, struct err *e)
{
	scoped_fd int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "look");
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_INVALID, "there is a file that is no socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
		return err_set(e, ERR_INVALID, "another program listens there");
	return 1;
}

static int bind_unix(const char *path, uint32_t mode, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	scoped_fd int fd = -1;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INVALID, "the path is longer than %zu bytes",
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	r = unix_stale(path, &a, e);
	if (r < 0)
		return -1;
	if (r > 0)
		unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	mask = umask(0177); /* never more open than asked for, not even for a moment */
	r = bind(fd, (struct sockaddr *)&a, sizeof(a));
	umask(mask);
	if (r < 0)
		return err_errno(e, errno, "bind");
	if (chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0)
		return err_errno(e, errno, "listen");
	return take_fd(&fd);
}

int httpd_listen_unix(struct httpd *h, const char *path, uint32_t mode, struct err *e)
{
	scoped_fd int fd = bind_unix(path, mode, e);
	struct listener *s;
	struct stat st = {0};

	if (fd < 0)
		return err_wrap(e, "listen on unix socket %s", path);
	s = listener_new(h);
	s->path = mem_strdup(path);
	if (lstat(path, &st) == 0) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	listener_start(s, &fd);
	return 0;
}

int httpd_reload_tls(struct httpd *h, struct err *e)
{
	struct listener *s;
	struct ssl_ctx_st *tls = NULL;

	TAILQ_FOREACH(s, &h->listeners, next)
	{ /* first all, so that none is half done */
		if (!s->cert)
			continue;
		if (tls_server_context(&tls, s->cert, s->key, s->client_ca, e) < 0)
			return -1;
		tls_context_freep(&tls);
	}
	TAILQ_FOREACH(s, &h->listeners, next)
	{
		if (!s->cert || tls_server_context(&tls, s->cert, s->key, s->client_ca, e) < 0)
			continue;
		tls_context_freep(&s->tls);
		s->tls = take_ptr(tls);
	}
	return 0;
}

/* ---- the server */

int httpd_open(struct httpd **to, struct loop *l, const struct httpd_opts *o,
	       void (*on_request)(struct request *q, void *arg), void *arg, struct err *e)
{
	struct httpd *h = mem_zalloc(sizeof(*h));

	(void)e;
	h->l = l;
	h->base = loop_base(l);
	if (o)
		h->o = *o;
#define DEFAULT(field, v) h->o.field = h->o.field ? h->o.field : (v)
	DEFAULT(max_header, 16 << 10);
	DEFAULT(max_body, 1 << 20);
	DEFAULT(header_ms, 10000);
	DEFAULT(body_ms, 30000);
	DEFAULT(idle_ms, 60000);
	DEFAULT(max_connections, 4096);
	DEFAULT(max_output, 256 << 10);
	DEFAULT(max_queued, 256 << 20);
#undef DEFAULT
	h->on_request = on_request;
	h->arg = arg;
	TAILQ_INIT(&h->listeners);
	TAILQ_INIT(&h->conns);
	TAILQ_INIT(&h->sending);
	h->send = loop_later(l, send_replies, h);
	TAILQ_INIT(&h->open);
	h->again = evtimer_new(h->base, on_again, h);
	if (!h->again)
		abort();
	*to = h;
	return 0;
}

void httpd_on_done(struct httpd *h,
		   void (*on)(const struct request *q, int status, uint64_t in_bytes,
			      uint64_t out_bytes, void *arg),
		   void *arg)
{
	h->on_done = on;
	h->done_arg = arg;
}

void httpd_on_refused(struct httpd *h,
		      void (*on)(const char *peer, int status, const char *why, void *arg),
		      void *arg)
{
	h->on_refused = on;
	h->refused_arg = arg;
}

void httpd_stop_listening(struct httpd *h)
{
	event_del(h->again);
	while (!TAILQ_EMPTY(&h->listeners))
		listener_free(TAILQ_FIRST(&h->listeners));
}

size_t httpd_open_requests(const struct httpd *h)
{
	return h->n_open;
}

size_t httpd_unfinished(const struct httpd *h)
{
	const struct conn *c;
	size_t n = 0;

	TAILQ_FOREACH(c, &h->conns, next)
	n += c->phase != IDLE && c->phase != LINGERING;
	return n;
}

size_t httpd_connections(const struct httpd *h)
{
	return h->n_conns;
}

void httpd_freep(struct httpd **hp)
{
	struct httpd *h = *hp;

	if (!h)
		return;
	httpd_stop_listening(h);
	while (!TAILQ_EMPTY(&h->conns))
		conn_free(TAILQ_FIRST(&h->conns));
	while (!TAILQ_EMPTY(&h->open))
		request_free(TAILQ_FIRST(&h->open));
	event_free(h->again);
	loop_later_freep(&h->send);
	free(h);
	*hp = NULL;
}

/* ---- replies */

void reply_header(struct request *q, const char *name, const char *value)
{
	struct buf *b = &q->headers;
	size_t n = strlen(name), v = strlen(value), at = b->len + n + 2;

	if (buf_reserve(b, n + v + 4, NULL) < 0)
		return;
	buf_add(b, name, n, NULL);
	buf_add(b, ": ", 2, NULL);
	buf_add(b, value, v, NULL);
	buf_add(b, "\r\n", 2, NULL);
	for (char *p = b->data + at; p < b->data + b->len - 2; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' '; /* no value may end its line */
}

/* The head of a reply but for the last lines, which say how long the body is. */
static void add_head(struct request *q, struct buf *b, int status, const char *type)
{
	char code[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10),
			(char)('0' + status % 10), ' '};

	buf_reserve(b, 500, NULL);
	buf_add_str(b, "HTTP/1.1 ", NULL);
	buf_add(b, code, 4, NULL);
	buf_add_str(b, reason(status), NULL);
	if (type) {
		buf_add_str(b, "\r\nContent-Type: ", NULL);
		buf_add_str(b, type, NULL);
	}
	buf_add_str(b, "\r\nDate: ", NULL);
	buf_add_str(b, http_date(q->h), NULL);
	buf_add_str(b, "\r\n", NULL);
	buf_add(b, q->headers.data, q->headers.len, NULL);
}

static const char *connection_line(const struct conn *c, const struct request *q)
{
	if (c->close)
		return "Connection: close\r\n";
	return q->f.minor == 0 ? "Connection: keep-alive\r\n" : "";
}

/* The request is over; its connection goes on with the next one. */
static void end(struct request *q)
{
	struct conn *c = q->c;

	if (q->h->on_done && q->status)
		q->h->on_done(q, q->status, q->f.body.len, q->out_bytes, q->h->done_arg);
	if (c)
		c->q = NULL;
	request_free(q);
	if (!c)
		return;
	replied(c);
	if (!c->running) /* else run() is below us and goes on itself */
		run(c);
}

/* The connection goes; the request is ended by whoever has it. */
static void cut_off(struct request *q)
{
	struct conn *c = q->c;

	q->on_close = NULL; /* the caller knows */
	conn_free(c);
	if (q->c) { /* it is freed later, by run() */
		q->c->q = NULL;
		q->c = NULL;
	}
}

void reply(struct request *q, int status, const char *content_type, const void *body, size_t n)
{
	bool has_body = n && strcmp(q->f.method, "HEAD") != 0;
	struct conn *c;
	struct buf *b;

	if (q->c && q->h->queued + n > q->h->o.max_queued)
		cut_off(q);
	c = q->c;
	q->status = status;
	q->out_bytes = n;
	if (c) {
		b = &c->out;
		add_head(q, b, status, content_type);
		buf_addf(b, NULL, "Content-Length: %zu\r\n", n);
		buf_add_str(b, connection_line(c, q), NULL);
		buf_add_str(b, "\r\n", NULL);
		if (has_body && n <= REPLY_AT_ONCE) {
			buf_add(b, body, n, NULL);
		} else if (has_body) {
			bufferevent_write(c->bev, b->data, b->len);
			bufferevent_write(c->bev, body, n);
			out_done(c);
		}
	}
	end(q);
}

void reply_start(struct request *q, int status, const char *content_type)
{
	scoped(buf_fini) struct buf b = BUF_INIT(REPLY_HEADERS + 1024);
	struct conn *c = q->c;

	q->status = status;
	if (!c)
		return;
	if (q->f.minor == 0)
		c->close = true; /* the end of the connection is the end of the body */
	add_head(q, &b, status, content_type);
	buf_add_str(&b, q->f.minor ? "Transfer-Encoding: chunked\r\n" : "", NULL);
	buf_add_str(&b, connection_line(c, q), NULL);
	buf_add_str(&b, "\r\n", NULL);
	bufferevent_write(c->bev, b.data, b.len);
}

int reply_piece(struct request *q, const void *p, size_t n)
{
	struct evbuffer *out;
	struct conn *c = q->c;

	if (!c)
		return -1;
	out = bufferevent_get_output(c->bev);
	if (evbuffer_get_length(out) + n > q->h->o.max_output) {
		cut_off(q);
		return -1;
	}
	if (!n)
		return 0;
	if (q->f.minor)
		evbuffer_add_printf(out, "%zx\r\n", n);
	evbuffer_add(out, p, n);
	if (q->f.minor)
		evbuffer_add(out, "\r\n", 2);
	q->out_bytes += n;
	return 0;
}

void reply_end(struct request *q)
{
	if (q->c && q->f.minor)
		evbuffer_add(bufferevent_get_output(q->c->bev), "0\r\n\r\n", 5);
	end(q);
}

void httpd_drop(struct request *q)
{
	struct conn *c = q->c;

	q->on_close = NULL;
	q->c = NULL;
	if (c) {
		c->q = NULL;
		conn_free(c);
	}
	request_free(q);
}
