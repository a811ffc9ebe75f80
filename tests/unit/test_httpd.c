#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/loop.h"
#include "unit.h"

/* The server and raw clients in one thread: the loop turns while a client waits. */
struct world {
	struct loop *l;
	struct httpd *h;
	char *bound, dir[32];
	struct request *kept[8]; /* what the handler did not answer yet */
	size_t n_kept;
	int closed, done, refused;
	char seen[512];
};

static void on_close(struct request *q, void *arg)
{
	struct world *w = arg;

	w->closed++;
	for (size_t i = 0; i < w->n_kept; i++)
		if (w->kept[i] == q)
			w->kept[i] = w->kept[--w->n_kept];
	httpd_drop(q);
}

static void stay(struct request *q, void *arg)
{
	struct world *w = arg;

	w->closed++;
}

static void on_request(struct request *q, void *arg)
{
	struct world *w = arg;
	const char *path = request_path(q);
	size_t n;
	uid_t uid = 12345;

	if (!strcmp(path, "/keep") || !strcmp(path, "/stay")) {
		w->kept[w->n_kept++] = q;
		request_on_close(q, !strcmp(path, "/keep") ? on_close : stay, w);
		return;
	}
	if (!strcmp(path, "/stream")) {
		reply_start(q, 200, "text/event-stream");
		reply_piece(q, "one", 3);
		reply_piece(q, "two", 3);
		reply_end(q);
		return;
	}
	if (!strcmp(path, "/big")) {
		static char big[8 << 20];

		reply(q, 200, "text/plain", big, sizeof(big));
		return;
	}
	if (!strcmp(path, "/flood")) {
		char piece[4096] = "";

		reply_start(q, 200, "text/plain");
		for (int i = 0; i < 100; i++) {
			if (reply_piece(q, piece, sizeof(piece)) < 0) {
				w->closed++;
				break;
			}
		}
		reply_end(q);
		return;
	}
	request_body(q, &n);
	snprintf(w->seen, sizeof(w->seen), "%s %s a=%s n=%zu unix=%d loop=%d", request_method(q),
		 path, request_query(q, "a") ? request_query(q, "a") : "-", n,
		 request_peer_is_unix(q, &uid) && uid == getuid(), request_peer_is_loopback(q));
	reply_header(q, "X-Evil", "a\r\nSet-Cookie: b");
	reply(q, 200, "text/plain", "hello", 5);
}

static void on_done(const struct request *q, int status, uint64_t in, uint64_t out, void *arg)
{
	((struct world *)arg)->done++;
}

static void on_refused(const char *peer, int status, const char *why, void *arg)
{
	((struct world *)arg)->refused++;
}

static void start(struct world *w, const struct httpd_opts *o)
{
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	assert_int_equal(loop_open(&w->l, &e), 0);
	assert_int_equal(httpd_open(&w->h, w->l, o, on_request, w, &e), 0);
	httpd_on_done(w->h, on_done, w);
	httpd_on_refused(w->h, on_refused, w);
	if (httpd_listen_tcp(w->h, "127.0.0.1", 0, NULL, NULL, NULL, &w->bound, &e) < 0)
		fail_msg("%s", e.text);
	strcpy(w->dir, "/tmp/test_httpd.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
}

static void stop(struct world *w)
{
	httpd_freep(&w->h);
	loop_freep(&w->l);
	free(w->bound);
	assert_int_equal(rmdir(w->dir), 0); /* its socket is gone too */
}

static int dial(struct world *w)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_port = htons((uint16_t)atoi(strchr(w->bound, ':') + 1));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static void turn(struct world *w, uint64_t ms)
{
	struct loop_timer *t = loop_timer(w->l, ms, 0, stop_loop, w->l);
	struct err e;

	loop_run(w->l, &e);
	loop_timer_freep(&t);
}

/* Reads until `part` came (or the end of the connection, for NULL); 10 s at most. */
static const char *hear(struct world *w, int fd, const char *part)
{
	static char text[1 << 16];
	size_t n = 0;
	uint64_t until = clock_mono_ms() + 10000;

	text[0] = 0;
	while (clock_mono_ms() < until) {
		ssize_t r = recv(fd, text + n, sizeof(text) - 1 - n, 0);

		if (r == 0 || (r < 0 && errno == ECONNRESET)) {
			if (part)
				fail_msg("closed after '%s', expected '%s'", text, part);
			return text;
		}
		if (r > 0) {
			n += (size_t)r;
			text[n] = 0;
			if (part && strstr(text, part))
				return text;
			if (n > sizeof(text) / 2)
				n = 0;
		}
		turn(w, 1);
	}
	fail_msg("no '%s' in 10 s after '%s'", part ? part : "end", text);
	return NULL;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void a_request_is_answered_and_the_connection_kept(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	for (int i = 0; i < 2; i++) {
		const char *text;

		say(fd, GET("/a%20b?x=y&a=1+2%26"));
		text = hear(&w, fd, "hello");
		assert_text_has(text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: ");
		assert_text_has(
			text, "GMT\r\nX-Evil: a  Set-Cookie: b\r\nContent-Length: 5\r\n\r\nhello");
		assert_string_equal(w.seen, "GET /a b a=1 2& n=0 unix=0 loop=1");
	}
	assert_int_equal(w.done, 2);
	assert_int_equal(httpd_connections(w.h), 1);
	close(fd);
	stop(&w);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, GET("/keep") GET("/second"));
	while (!w.n_kept)
		turn(&w, 1);
	turn(&w, 5);
	assert_string_equal(w.seen, "");
	reply(w.kept[0], 200, "text/plain", "first", 5);
	assert_text_has(hear(&w, fd, "hello"), "first");
	say(fd, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET("/next"));
	hear(&w, fd, "hello");
	while (w.done < 4)
		turn(&w, 1);
	assert_text_has(w.seen, "GET /next");
	close(fd);
	stop(&w);
}

static void chunked_bodies_and_100_continue_work(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
		"Transfer-Encoding: chunked\r\n\r\n");
	hear(&w, fd, "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, "5\r\nhello\r\n0\r\n\r\n");
	hear(&w, fd, "200 OK");
	assert_text_has(w.seen, "n=5");
	close(fd);
	stop(&w);
}

static void head_gets_the_length_without_the_body(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, "HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	const char *text = hear(&w, fd, NULL);

	assert_text_has(text, "Content-Length: 5\r\nConnection: close\r\n\r\n");
	assert_null(strstr(text, "hello"));
	close(fd);
	stop(&w);
}

static void http_1_0_closes_unless_asked_to_keep(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	hear(&w, fd, "Connection: keep-alive\r\n\r\nhello");
	say(fd, "GET /stream HTTP/1.0\r\n\r\n");
	assert_text_has(hear(&w, fd, NULL), "\r\n\r\nonetwo");
	close(fd);
	stop(&w);
}

static void a_bad_request_is_answered_and_the_connection_closed(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"
		"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
	const char *text = hear(&w, fd, NULL);

	assert_text_has(text, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n");
	assert_text_has(text, "{\"code\":\"ERR_ILLEGAL_PARAMETER\",\"message\":");
	assert_string_equal(w.seen, "");
	assert_int_equal(w.refused, 1);
	close(fd);
	stop(&w);
}

static void a_body_over_the_limit_is_413_though_the_client_goes_on_sending(void **state)
{
	static char body[1 << 16];
	struct httpd_opts o = {.max_body = 1000};
	struct world w;

	start(&w, &o);
	int fd = dial(&w);

	say(fd, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
	for (int i = 0; i < 64; i++) {
		send(fd, body, sizeof(body), MSG_NOSIGNAL);
		turn(&w, 1);
	}
	assert_text_has(hear(&w, fd, "413"), "ERR_TOO_LARGE");
	close(fd);
	stop(&w);
}

static void a_drip_of_bytes_does_not_extend_the_deadlines(void **state)
{
	struct httpd_opts o = {.header_ms = 300, .body_ms = 300, .idle_ms = 300};
	struct world w;

	start(&w, &o);
	int fd = dial(&w), body = dial(&w), idle = dial(&w);
	const char *text = GET("/x");
	uint64_t from = clock_mono_ms();

	say(body, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
	for (int i = 0; i < 29; i++) {
		send(fd, text + i, 1, MSG_NOSIGNAL);
		send(body, "x", 1, MSG_NOSIGNAL);
		turn(&w, 50);
		if (clock_mono_ms() - from > 700)
			break;
	}
	assert_text_has(hear(&w, fd, "408"), "the header did not come in time");
	assert_text_has(hear(&w, body, "408"), "the body did not come in time");
	assert_string_equal(hear(&w, idle, NULL), "");
	assert_string_equal(w.seen, "");
	close(fd);
	close(body);
	close(idle);
	stop(&w);
}

static void a_client_that_leaves_is_told_of_once(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, GET("/keep"));
	while (!w.n_kept)
		turn(&w, 1);
	assert_int_equal(httpd_open_requests(w.h), 1);
	close(fd);
	while (!w.closed)
		turn(&w, 1);
	turn(&w, 5);
	assert_int_equal(w.closed, 1);
	assert_int_equal(httpd_open_requests(w.h), 0);
	assert_int_equal(httpd_connections(w.h), 0);
	fd = dial(&w);
	say(fd, GET("/stay"));
	while (!w.n_kept)
		turn(&w, 1);
	close(fd);
	while (w.closed < 2)
		turn(&w, 1);
	reply(w.kept[0], 200, "text/plain", "late", 4); /* thrown away */
	turn(&w, 5);
	assert_int_equal(httpd_open_requests(w.h), 0);
	assert_int_equal(httpd_connections(w.h), 0);
	stop(&w);
}

static void a_half_closed_client_still_gets_its_answers(void **state)
{
	struct world w;

	start(&w, NULL);
	int fd = dial(&w);

	say(fd, GET("/stay") GET("/second"));
	shutdown(fd, SHUT_WR);
	while (!w.n_kept || !w.closed)
		turn(&w, 1);
	reply(w.kept[0], 200, "text/plain", "first", 5);
	const char *text = hear(&w, fd, NULL);

	assert_text_has(text, "first");
	assert_text_has(text, "hello");
	assert_int_equal(httpd_connections(w.h), 0);
	close(fd);
	stop(&w);
}

static void streams_are_chunked_and_bounded(void **state)
{
	struct httpd_opts o = {.max_output = 100000};
	struct world w;

	start(&w, &o);
	int fd = dial(&w);

	say(fd, GET("/stream"));
	assert_text_has(hear(&w, fd, "0\r\n\r\n"), "\r\n\r\n3\r\none\r\n3\r\ntwo\r\n");
	say(fd, GET("/flood"));
	hear(&w, fd, NULL);
	assert_int_equal(w.closed, 1);
	assert_int_equal(httpd_open_requests(w.h), 0);
	close(fd);
	stop(&w);
}

static void what_slow_readers_have_not_taken_is_bounded_together(void **state)
{
	struct httpd_opts o = {.max_queued = 12 << 20};
	struct world w;

	start(&w, &o);
	int one = dial(&w), two = dial(&w), three = dial(&w);

	say(one, GET("/big"));
	while (w.done < 1)
		turn(&w, 1);
	say(two, GET("/big"));
	assert_string_equal(hear(&w, two, NULL), "");
	assert_int_equal(w.done, 2);
	say(three, GET("/x"));
	hear(&w, three, "hello");
	close(one);
	while (httpd_connections(w.h) > 1)
		turn(&w, 1);
	say(three, GET("/big"));
	hear(&w, three, "HTTP/1.1 200 OK"); /* there is room again */
	close(two);
	close(three);
	stop(&w);
}

static void connections_are_bounded_in_all_and_per_peer(void **state)
{
	struct httpd_opts o = {.max_connections = 3, .max_per_peer = 0};
	struct world w;
	int fd[4];

	start(&w, &o);
	for (int i = 0; i < 4; i++) {
		fd[i] = dial(&w);
		turn(&w, 5);
	}
	assert_int_equal(httpd_connections(w.h), 3);
	assert_string_equal(hear(&w, fd[0], NULL), ""); /* idle longest: it made room */
	say(fd[3], GET("/x"));
	hear(&w, fd[3], "hello");
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	stop(&w);
	o = (struct httpd_opts){.max_per_peer = 2};
	start(&w, &o);
	for (int i = 0; i < 3; i++) {
		fd[i] = dial(&w);
		turn(&w, 5);
	}
	assert_text_has(hear(&w, fd[2], NULL), "HTTP/1.1 429 ");
	close(fd[0]);
	close(fd[2]);
	while (httpd_connections(w.h) > 1)
		turn(&w, 1);
	fd[0] = dial(&w);
	say(fd[0], GET("/x"));
	hear(&w, fd[0], "hello");
	close(fd[0]);
	close(fd[1]);
	stop(&w);
}

static void a_unix_socket_tells_who_calls(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct world w;
	struct err e = {0};
	struct stat st;

	start(&w, NULL);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", w.dir);
	assert_int_equal(httpd_listen_unix(w.h, a.sun_path, 0660, &e), 0);
	stat(a.sun_path, &st);
	assert_int_equal(st.st_mode & 0777, 0660);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	say(fd, GET("/x"));
	hear(&w, fd, "hello");
	assert_text_has(w.seen, "unix=1 loop=0");
	assert_int_equal(httpd_listen_unix(w.h, a.sun_path, 0660, &e), -1);
	assert_text_has(e.text, "another program listens there");
	close(fd);
	stop(&w);
}

static void a_stale_socket_is_replaced_and_a_file_is_not(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct world w;
	struct err e = {0};
	char file[64];

	start(&w, NULL);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", w.dir);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(httpd_listen_unix(w.h, a.sun_path, 0600, &e), 0);
	snprintf(file, sizeof(file), "%s/f", w.dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(httpd_listen_unix(w.h, file, 0600, &e), -1);
	assert_text_has(e.text, "no socket");
	unlink(file);
	stop(&w);
}

static void a_taken_port_is_an_error_that_names_it(void **state)
{
	struct world w;
	struct err e = {0};

	start(&w, NULL);
	assert_int_equal(httpd_listen_tcp(w.h, "127.0.0.1",
					  (uint16_t)atoi(strchr(w.bound, ':') + 1), NULL, NULL,
					  NULL, NULL, &e),
			 -1);
	assert_text_has(e.text, "listen on 127.0.0.1:");
	assert_text_has(e.text, "Address already in use");
	stop(&w);
}

static void a_thousand_idle_connections_disturb_nobody(void **state)
{
	struct world w;
	int fd[1000], one;

	start(&w, NULL);
	for (int i = 0; i < 1000; i++) {
		fd[i] = dial(&w);
		if (i % 100 == 99)
			turn(&w, 1);
	}
	one = dial(&w);
	uint64_t from = clock_mono_ms();

	say(one, GET("/x"));
	hear(&w, one, "hello");
	assert_true(clock_mono_ms() - from < 2000);
	assert_int_equal(httpd_connections(w.h), 1001);
	for (int i = 0; i < 1000; i++)
		close(fd[i]);
	close(one);
	stop(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(a_request_is_answered_and_the_connection_kept),
		T(pipelined_requests_are_answered_in_order),
		T(chunked_bodies_and_100_continue_work),
		T(head_gets_the_length_without_the_body),
		T(http_1_0_closes_unless_asked_to_keep),
		T(a_bad_request_is_answered_and_the_connection_closed),
		T(a_body_over_the_limit_is_413_though_the_client_goes_on_sending),
		T(a_drip_of_bytes_does_not_extend_the_deadlines),
		T(a_client_that_leaves_is_told_of_once),
		T(a_half_closed_client_still_gets_its_answers),
		T(streams_are_chunked_and_bounded),
		T(what_slow_readers_have_not_taken_is_bounded_together),
		T(connections_are_bounded_in_all_and_per_peer),
		T(a_unix_socket_tells_who_calls),
		T(a_stale_socket_is_replaced_and_a_file_is_not),
		T(a_taken_port_is_an_error_that_names_it),
		T(a_thousand_idle_connections_disturb_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
