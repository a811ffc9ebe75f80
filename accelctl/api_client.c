/* accelctl/api_client.c - see api_client.h. */
#include "accelctl/api_client.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/env.h"
#include "common/err.h"
#include "common/http.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

enum { CONNECT_MS = 5000, CALL_MS = 60000, ANSWER_MAX = 64 << 20, HEAD_MAX = 64 << 10 };

/* ---- where to */

static int connect_unix(const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	scoped_fd int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INVALID, "dial unix %s: path too long", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_set(e, ERR_NET, "dial unix %s: connect: %s", path, strerror(errno));
	return take_fd(&fd);
}

static char *local_socket(void)
{
	const char *run = env_get("XDG_RUNTIME_DIR");
	char *path[2] = {mem_strdup("/run/accel/api.sock"),
			 run ? mem_printf("%s/accel/api.sock", run) : NULL};
	char *found = NULL;

	for (int i = 0; i < 2; i++) {
		scoped_fd int fd = path[i] && !found ? connect_unix(path[i], NULL) : -1;

		if (fd >= 0)
			found = mem_printf("unix://%s", path[i]);
		free(path[i]);
	}
	return found;
}

static int read_authorization(struct api_client *c, struct err *e)
{
	const char *header = env_get("ACCEL_AUTH_HEADER_FILE");
	const char *file = env_get("ACCEL_TOKEN_FILE"), *token = env_get("ACCEL_TOKEN");
	scoped(secret_freep) struct secret *s = NULL;
	scoped(buf_wipe) struct buf b = BUF_INIT(70000);

	if (header) {
		c->authorization = secret_from_file(header, e);
		return c->authorization ? 0 : -1;
	}
	if (file) {
		s = secret_from_file(file, e);
		if (!s)
			return -1;
	} else if (token) {
		s = secret_new(token, strlen(token));
	}
	if (s) {
		buf_addf(&b, NULL, "Bearer %s", secret_value(s));
		c->authorization = secret_new(b.data, b.len);
	}
	return 0;
}

int api_client_init(struct api_client *c, const char *addr, struct err *e)
{
	*c = (struct api_client){0};
	if (!addr)
		addr = env_get("ACCEL_ADDR");
	c->guessed = !addr;
	c->addr = addr ? mem_strdup(addr) : local_socket();
	if (!c->addr)
		c->addr = mem_strdup("localhost:2077");
	if (read_authorization(c, e) < 0) {
		api_client_fini(c);
		return -1;
	}
	return 0;
}

void api_client_fini(struct api_client *c)
{
	free(c->addr);
	secret_freep(&c->authorization);
	*c = (struct api_client){0};
}

void api_reply_fini(struct api_reply *r)
{
	free(r->body);
	free(r->location);
	free(r->task_id);
	*r = (struct api_reply){0};
}

/* As Go names it in its errors: lower case, "i/o timeout". */
static const char *go_error(int errnum, char text[64])
{
	if (errnum == ETIMEDOUT)
		return "i/o timeout";
	str_copy(text, 64, strerror(errnum));
	if (text[0] >= 'A' && text[0] <= 'Z' && !(text[1] >= 'A' && text[1] <= 'Z'))
		text[0] |= 32;
	return text;
}

static int connect_one(const struct addrinfo *a)
{
	scoped_fd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t n = sizeof(error);

	if (fd < 0)
		return -1;
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return take_fd(&fd);
	if (errno != EINPROGRESS)
		return -1;
	if (poll(&p, 1, CONNECT_MS) <= 0) {
		errno = ETIMEDOUT;
		return -1;
	}
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
	if (error) {
		errno = error;
		return -1;
	}
	return take_fd(&fd);
}

static int connect_tcp(const char *host_port, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
	const char *colon = strrchr(host_port, ':');
	char host[256], name[256] = "", text[64];
	int fd = -1, error = 0;

	if (!colon || colon == host_port || (size_t)(colon - host_port) >= sizeof(host))
		return err_set(e, ERR_INVALID, "dial tcp: address %s: missing port in address",
			       host_port);
	snprintf(host, sizeof(host), "%.*s", (int)(colon - host_port), host_port);
	if (host[0] == '[' && str_ends(host, "]")) {
		memmove(host, host + 1, strlen(host));
		host[strlen(host) - 1] = 0;
	}
	if (getaddrinfo(host, colon + 1, &hints, &all) != 0)
		return err_set(e, ERR_NET, "dial tcp: lookup %s: no such host", host);
	for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
		fd = connect_one(a);
		if (fd < 0 && !error) {
			error = errno;
			getnameinfo(a->ai_addr, a->ai_addrlen, name, sizeof(name), NULL, 0,
				    NI_NUMERICHOST);
		}
	}
	freeaddrinfo(all);
	if (fd >= 0)
		return fd;
	return err_set(e, ERR_NET,
		       strchr(name, ':') ? "dial tcp [%s]%s: %s%s" : "dial tcp %s%s: %s%s", name,
		       colon, error == ETIMEDOUT ? "" : "connect: ", go_error(error, text));
}

/* ---- one exchange on a socket */

static int wait_for(int fd, short what, uint64_t until, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = what};
	uint64_t now = clock_mono_ms();
	int r = now < until ? poll(&p, 1, (int)(until - now > 1000000 ? 1000000 : until - now)) : 0;

	if (r > 0 || (r < 0 && errno == EINTR))
		return 0;
	if (r == 0 && clock_mono_ms() < until)
		return 0;
	return err_set(e, ERR_NET, "no answer in time");
}

static int send_all(int fd, const char *p, size_t n, uint64_t until, struct err *e)
{
	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r >= 0) {
			p += r;
			n -= (size_t)r;
		} else if (errno != EAGAIN && errno != EINTR) {
			return err_set(e, ERR_NET, "write: %s", strerror(errno));
		} else if (wait_for(fd, POLLOUT, until, e) < 0) {
			return -1;
		}
	}
	return 0;
}

/* 1: more came, 0: the end. */
static int receive(int fd, struct buf *b, uint64_t until, struct err *e)
{
	char piece[16384];
	ssize_t r;

	for (;;) {
		r = recv(fd, piece, sizeof(piece), MSG_DONTWAIT);
		if (r > 0)
			return buf_add(b, piece, (size_t)r, e) < 0 ? -1 : 1;
		if (r == 0)
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return err_set(e, ERR_NET, "read: %s", strerror(errno));
		if (wait_for(fd, POLLIN, until, e) < 0)
			return -1;
	}
}

static char *header(const char *head, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = strstr(head, "\r\n"); p && p[2]; p = strstr(p + 2, "\r\n")) {
		const char *line = p + 2;

		if (strncasecmp(line, name, n) != 0 || line[n] != ':')
			continue;
		line += n + 1;
		line += strspn(line, " \t");
		return mem_strndup(line, strcspn(line, "\r"));
	}
	return NULL;
}

/* Takes the chunks apart in place. */
static int unchunk(struct buf *b, struct err *e)
{
	size_t from = 0, to = 0;

	for (;;) {
		char *end;
		unsigned long n;

		if (from >= b->len)
			return err_set(e, ERR_NET, "unexpected EOF");
		n = strtoul(b->data + from, &end, 16);
		if (end[0] != '\r' || end[1] != '\n')
			return err_set(e, ERR_NET, "malformed chunked encoding");
		from = (size_t)(end + 2 - b->data);
		if (!n)
			break;
		if (n > b->len - from || b->len - from - n < 2)
			return err_set(e, ERR_NET, "unexpected EOF");
		memmove(b->data + to, b->data + from, n);
		to += n;
		from += n + 2;
	}
	b->len = to;
	b->data[to] = 0;
	return 0;
}

/* The connection ends with the answer: we ask for that. */
static int parse_answer(struct buf *b, struct api_reply *r, struct err *e)
{
	char *end = strstr(b->data, "\r\n\r\n");
	scoped_free char *head = NULL, *length = NULL, *encoding = NULL;
	uint64_t want;

	if (!b->len)
		return err_set(e, ERR_NET, "EOF");
	if (!end || sscanf(b->data, "HTTP/1.%*1[01] %3d", &r->status) != 1)
		return err_set(e, ERR_NET, "malformed HTTP response");
	head = mem_strndup(b->data, (size_t)(end + 2 - b->data));
	buf_consume(b, (size_t)(end + 4 - b->data));
	length = header(head, "Content-Length");
	encoding = header(head, "Transfer-Encoding");
	if (encoding && str_ieq(encoding, "chunked")) {
		if (unchunk(b, e) < 0)
			return -1;
	} else if (length && str_u64(length, &want, NULL) == 0 && b->len < want) {
		return err_set(e, ERR_NET, "unexpected EOF");
	}
	r->location = header(head, "Location");
	r->task_id = header(head, "X-Accel-Task-Id");
	r->n = b->len;
	r->body = mem_strndup(b->data, b->len);
	return 0;
}

static int write_request(const struct api_client *c, const char *host, const char *method,
			 const char *target, const char *body, struct buf *b, struct err *e)
{
	if (buf_addf(b, e,
		     "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: accelctl/" ACCEL_VERSION "\r\n"
		     "Content-Type: application/json\r\nConnection: close\r\n",
		     method, target, host) < 0)
		return -1;
	if (c->authorization &&
	    buf_addf(b, e, "Authorization: %s\r\n", secret_value(c->authorization)) < 0)
		return -1;
	if (body)
		return buf_addf(b, e, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
	return buf_add_str(b, "\r\n", e);
}

static int exchange(const struct api_client *c, int fd, const char *host, const char *method,
		    const char *target, const char *body, struct api_reply *r, struct err *e)
{
	scoped(buf_wipe) struct buf request = BUF_INIT(ANSWER_MAX);
	scoped(buf_fini) struct buf answer = BUF_INIT(ANSWER_MAX);
	uint64_t until = clock_mono_ms() + (c->timeout_ms ? c->timeout_ms : CALL_MS);
	int more;

	if (write_request(c, host, method, target, body, &request, e) < 0 ||
	    send_all(fd, request.data, request.len, until, e) < 0)
		return -1;
	while ((more = receive(fd, &answer, until, e)) > 0)
		;
	return more < 0 ? -1 : parse_answer(&answer, r, e);
}

/* ---- https, by the HTTP client that workers use */

static int call_tls(const struct api_client *c, const char *method, const char *target,
		    const char *body, struct api_reply *r, struct err *e)
{
	struct http_peer peer = {.ca_file = env_get("ACCEL_CACERT"), .allow_private = true};
	scoped_free char *url = mem_printf("%s%s", c->addr, target);
	scoped(http_freep) struct http *h = NULL;
	scoped(http_response_freep) struct http_response *a = NULL;
	struct http_request q = {
		.method = method,
		.url = url,
		.headers = (const char *const[]){"Content-Type: application/json", NULL},
		.authorization = c->authorization ? secret_value(c->authorization) : NULL,
		.peer = &peer,
		.body = body,
		.body_n = body ? strlen(body) : 0,
		.timeout_ms = c->timeout_ms ? c->timeout_ms : CALL_MS,
		.idle_ms = c->timeout_ms ? c->timeout_ms : CALL_MS,
		.max_response = ANSWER_MAX,
		.no_redirect = true,
	};
	const char *p;

	if (http_open(&h, 1, e) < 0 || http_do(h, &q, &a, e) < 0)
		return -1;
	r->status = http_status(a);
	p = http_body(a, &r->n);
	r->body = mem_strndup(p ? p : "", r->n);
	r->location = mem_strdup(http_header(a, "Location"));
	r->task_id = mem_strdup(http_header(a, "X-Accel-Task-Id"));
	return 0;
}

int api_call(const struct api_client *c, const char *method, const char *target, const char *body,
	     struct api_reply *r, struct err *e)
{
	bool is_unix = str_starts(c->addr, "unix://"), plain = str_starts(c->addr, "http://");
	const char *host = is_unix ? "localhost" : plain ? c->addr + 7 : c->addr;
	char verb[16];
	int rc;

	memset(r, 0, sizeof(*r));
	if (str_starts(c->addr, "https://")) {
		rc = call_tls(c, method, target, body, r, e);
	} else {
		scoped_fd int fd = is_unix ? connect_unix(c->addr + 7, e) : connect_tcp(host, e);

		rc = fd < 0 ? -1 : exchange(c, fd, host, method, target, body, r, e);
	}
	if (rc == 0)
		return 0;
	api_reply_fini(r);
	str_copy(verb, sizeof(verb), method); /* "Get", as Go writes it */
	for (char *p = verb + 1; *p; p++)
		*p |= 32;
	err_wrap(e, "do http request: %s \"%s%s%s\"", verb,
		 str_starts(c->addr, "https://") ? "" : "http://",
		 str_starts(c->addr, "https://") ? c->addr : host, target);
	return -1;
}

/* ---- errors, as upstream's client says them */

static int decode_error(const struct api_reply *r, struct err *e)
{
	const char *p = r->body + strspn(r->body, " \t\r\n");

	if (!*p)
		return err_set(e, ERR_INVALID, "decode error response: EOF");
	if (!strchr("{[\"tfn-0123456789", *p))
		return err_set(
			e, ERR_INVALID,
			"decode error response: invalid character '%c' looking for beginning "
			"of value",
			*p);
	return err_set(e, ERR_INVALID, "decode error response: unexpected EOF");
}

static enum err_code code_of(int status)
{
	switch (status) {
	case 401:
	case 403:
		return ERR_DENIED;
	case 404:
		return ERR_NOTFOUND;
	case 429:
		return ERR_BUSY;
	default:
		return ERR_INVALID;
	}
}

int api_check(const struct api_reply *r, bool strict, struct err *e)
{
	const struct json_limits lenient = {.trailing = true};
	scoped(json_freep) struct json *j = NULL;
	const char *message = "", *detail = NULL;
	struct json *errors;
	char text[900];

	if (r->status < 400 || (r->status > 500 && !strict))
		return 0;
	if (json_parse(&j, r->body, r->n, &lenient, NULL) < 0)
		return decode_error(r, e);
	if (json_kind(j) == JSON_OBJECT) {
		json_opt_str(j, "message", "", &message, NULL);
		errors = json_get(j, "errors");
		detail = json_value_str(json_get(json_at(errors, 0), "message"));
	}
	/* Our server's first error says more than upstream's short message. */
	str_copy(text, sizeof(text),
		 detail && *message && strlen(detail) > strlen(message) ? detail : message);
	err_set(e, code_of(r->status), "service response: %s", text);
	e->status = r->status;
	return -1;
}
