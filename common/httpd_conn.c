/* common/httpd_conn.c - a connection of the HTTP server, from its first byte to its last.
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
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/httpd_impl.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"

enum {
	READ_AHEAD = 32 << 10, /* input kept for a connection at most */
	LINGER_MS = 2000,      /* how long input is thrown away after a refusal */
	FLUSH_MS = 60000,      /* a reply must be taken within */
	BODIES_AT_ONCE =
		64 << 20,  /* bytes of all unanswered bodies together, and four times max_body */
	REPLY_KEPT = 1024, /* memory for replies that a connection keeps */
};

static void arm(struct conn *c, uint64_t now, uint64_t ms)
{
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

	c->armed_ms = now + ms;
	event_add(c->timer, &tv);
}

/* A deadline that moves away costs nothing: the timer looks again when it fires.  So a request that
 * comes in one piece and is answered soon moves no timer at all. */
void conn_deadline(struct conn *c, enum phase phase, uint64_t ms)
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

void conn_free(struct conn *c)
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
	conn_deadline(c, LINGERING, LINGER_MS);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	if (c->eof)
		c->dead = true;
}

/* conn_run() must follow, here and after conn_replied(): it looks at what is left to do, frees if
 * need be. */
static void flushed(struct conn *c)
{
	count_queued(c, 0);
	if (c->close) {
		linger(c);
		return;
	}
	conn_deadline(c, IDLE, c->h->o.idle_ms);
	TAILQ_REMOVE(&c->h->conns, c, next);
	TAILQ_INSERT_TAIL(&c->h->conns, c, next);
}

void conn_out_done(struct conn *c)
{
	if (c->out.cap > REPLY_KEPT)
		buf_fini(&c->out);
	else
		buf_reset(&c->out);
}

/* The reply was queued: wait until it is gone, or go on at once. */
void conn_replied(struct conn *c)
{
	size_t by_event = evbuffer_get_length(bufferevent_get_output(c->bev));

	count_body(c, 0);
	count_queued(c, by_event + c->out.len);
	if (!c->queued) {
		flushed(c);
		return;
	}
	conn_deadline(c, FLUSHING, FLUSH_MS);
	if (c->out.len && (by_event || c->tls)) {
		bufferevent_write(c->bev, c->out.data, c->out.len);
		conn_out_done(c);
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
		conn_out_done(c);
		return; /* on_write says when it is gone */
	}
	conn_out_done(c);
	flushed(c);
	conn_run(c);
}

/* Those of this turn; what a client had sent ahead is answered now, and that comes after. */
void conn_send_replies(void *arg)
{
	struct httpd *h = arg;

	log_flush();
	for (size_t n = h->n_sending; n && h->n_sending; n--) {
		struct conn *c = TAILQ_FIRST(&h->sending);

		unlist(c);
		send_reply(c);
	}
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
		 status, httpd_reason(status), httpd_date(h), body.len,
		 status == 429 ? "Retry-After: 1\r\n" : "", body.data);
}

/* For bytes that are no request: the place in the stream is lost, so the connection ends. */
void conn_refuse(struct conn *c, int status, const char *why)
{
	scoped(buf_fini) struct buf all = BUF_INIT(4096);

	refusal_text(c->h, &all, status, why);
	bufferevent_write(c->bev, all.data, all.len);
	if (c->h->on_refused)
		c->h->on_refused(c->name, status, why, c->h->refused_arg);
	c->close = true;
	orphan(c, false);
	conn_replied(c);
}

static void hand_over(struct conn *c)
{
	struct request *q = c->q;

	request_parse_target(q);
	c->close |= q->f.close;
	q->handed = true;
	TAILQ_INSERT_TAIL(&c->h->open, q, next);
	c->h->n_open++;
	conn_deadline(c, HANDLING, 0);
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
		conn_refuse(c, q->f.status, q->f.why);
		return false;
	}
	if (before == FRAME_HEAD && q->f.state != FRAME_HEAD) {
		q->start_ns = clock_mono_ns();
		if (q->f.expect && q->f.state == FRAME_BODY && !evbuffer_get_length(in))
			bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	if (c->h->body_bytes > BODIES_AT_ONCE + 4 * c->h->o.max_body) {
		conn_refuse(c, 429, "too many request bodies at once");
		return false;
	}
	if (q->f.state == FRAME_DONE)
		hand_over(c);
	else if (q->f.state == FRAME_BODY && c->phase != READING_BODY)
		conn_deadline(c, READING_BODY, c->h->o.body_ms);
	else if (q->f.state == FRAME_HEAD && c->phase != READING_HEAD)
		conn_deadline(c, READING_HEAD, c->h->o.header_ms);
	return true;
}

/* Works off the input until it is used up or a handler keeps its request. */
void conn_run(struct conn *c)
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
	conn_run(arg);
}

/* The output is empty. */
static void on_write(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (c->phase != FLUSHING)
		return;
	flushed(c);
	conn_run(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		c->handshake = false;
		conn_deadline(c, IDLE, c->h->o.idle_ms);
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
	conn_run(c);
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
		conn_refuse(c, 408,
			    c->phase == READING_HEAD ? "the header did not come in time"
						     : "the body did not come in time");
	else
		conn_free(c);
}

struct conn *conn_new(struct httpd *h, struct bufferevent *bev, bool tls)
{
	struct conn *c = mem_zalloc(sizeof(*c));

	c->h = h;
	c->bev = bev;
	c->tls = c->handshake = tls;
	buf_init(&c->out, REPLY_HEADERS + 1024 + REPLY_AT_ONCE);
	c->timer = evtimer_new(h->base, on_deadline, c);
	if (!c->timer)
		abort();
	TAILQ_INSERT_TAIL(&h->conns, c, next);
	h->n_conns++;
	bufferevent_setcb(bev, on_read, on_write, on_event, c);
	bufferevent_setwatermark(bev, EV_READ, 0, READ_AHEAD);
	return c;
}
