/* common/httpd.c - see httpd.h: requests, replies, the server.  A connection's life is in
 * httpd_conn.c, how it comes to be in httpd_listen.c. */
#include "common/httpd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/httpd_impl.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

/* ---- requests */

struct request *request_new(struct conn *c)
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

void request_free(struct request *q)
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
void request_parse_target(struct request *q)
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
	h->send = loop_later(l, conn_send_replies, h);
	TAILQ_INIT(&h->open);
	h->again = evtimer_new(h->base, listener_again, h);
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

const char *httpd_reason(int status)
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

const char *httpd_date(struct httpd *h)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm tm;

	if (now != h->date_at && gmtime_r(&now, &tm)) {
		strftime(h->date, sizeof(h->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		h->date_at = now;
	}
	return h->date;
}

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
	buf_add_str(b, httpd_reason(status), NULL);
	if (type) {
		buf_add_str(b, "\r\nContent-Type: ", NULL);
		buf_add_str(b, type, NULL);
	}
	buf_add_str(b, "\r\nDate: ", NULL);
	buf_add_str(b, httpd_date(q->h), NULL);
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
	conn_replied(c);
	if (!c->running) /* else conn_run() is below us and goes on itself */
		conn_run(c);
}

/* The connection goes; the request is ended by whoever has it. */
static void cut_off(struct request *q)
{
	struct conn *c = q->c;

	q->on_close = NULL; /* the caller knows */
	conn_free(c);
	if (q->c) { /* it is freed later, by conn_run() */
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
			conn_out_done(c);
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
