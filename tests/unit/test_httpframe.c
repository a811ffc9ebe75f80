#include <stdlib.h>

#include "common/httpframe.h"
#include "unit.h"

struct row {
	const char *text;
	int status; /* 0: taken */
};

static int feed(struct httpframe *f, const char *p, size_t n, size_t piece)
{
	size_t at = 0;

	httpframe_init(f, 2048, 1000);
	while (at < n && f->state != FRAME_DONE && f->state != FRAME_BAD) {
		size_t k = n - at < piece ? n - at : piece;
		size_t took = httpframe_feed(f, p + at, k);

		at += took;
		if (took < k)
			break;
	}
	return (int)at;
}

/* Each row whole and byte by byte. */
static void check(const struct row *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t piece = 1; piece <= 4096; piece += 4095) {
			struct httpframe f;

			feed(&f, r[i].text, strlen(r[i].text), piece);
			if (r[i].status && (f.state != FRAME_BAD || f.status != r[i].status))
				fail_msg("%s: state %d, status %d, expected %d", r[i].text, f.state,
					 f.status, r[i].status);
			if (!r[i].status && f.state != FRAME_DONE)
				fail_msg("%s: state %d: %s", r[i].text, f.state,
					 f.why ? f.why : "");
			httpframe_fini(&f);
		}
	}
}

#define H "Host: a\r\n"
#define GET(rest) "GET /x HTTP/1.1\r\n" H rest "\r\n"
#define POST(rest) "POST /x HTTP/1.1\r\n" H rest
#define CHUNKED POST("Transfer-Encoding: chunked\r\n\r\n")

static void each_row_of_the_list_of_evhttps_faults_is_refused(void **state)
{
	static const struct row t[] = {
		{POST("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"), 400},
		{POST("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), 400},
		{POST("Content-Length: +3\r\n\r\nabc"), 400},
		{POST("Content-Length: -1\r\n\r\n"), 400},
		{POST("Content-Length: 3abc\r\n\r\nabc"), 400},
		{POST("Content-Length: 0x3\r\n\r\nabc"), 400},
		{POST("Content-Length: 3,3\r\n\r\nabc"), 400},
		{POST("Content-Length:\r\n\r\nabc"), 400},
		{POST("Content-Length: 99999999999999999999\r\n\r\n"), 400},
		{POST("Content-Length: 1001\r\n\r\n"), 413},
		{POST("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"), 400},
		{POST("Transfer-Encoding: xchunked\r\n\r\n"), 400},
		{POST("Transfer-Encoding: gzip, chunked\r\n\r\n"), 400},
		{POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
		{POST("Transfer-Encoding: identity\r\n\r\n"), 400},
		{"HEAD /x HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", 400},
		{GET("Content-Length: 3\r\n"), 400},
		{GET("Transfer-Encoding: chunked\r\n"), 400},
		{"GET /x HTTP/1.1\r\n\r\n", 400},
		{GET(H), 400},
		{"GET /x HTTP/1.1\r\nHost : a\r\n\r\n", 400},
		{GET("X: a\r\n b\r\n"), 400},
		{GET("X: a\001b\r\n"), 400},
		{"GET  /x HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x y HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x HTTP/1.1 \r\n" H "\r\n", 400},
		{"GET\t/x HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x HTTP/1.1\nHost: a\n\n", 400},
		{"GET /x HTTP/1.1\r\nHost: a\n\r\n", 400},
		{"GET /x HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
		{CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400},
		{CHUNKED "3;ext=1\r\nabc\r\n0\r\n\r\n", 400},
		{CHUNKED " 3\r\nabc\r\n0\r\n\r\n", 400},
		{CHUNKED "\r\nabc\r\n0\r\n\r\n", 400},
		{CHUNKED "3\nabc\r\n0\r\n\r\n", 400},
		{CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400},
		{CHUNKED "3\r\nabc\r\n0\r\nX: y\r\n\r\n", 400},
		{CHUNKED "fffffffff\r\n", 400},
		{CHUNKED "3e9\r\n", 413},
		{"GET /%zz HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /% HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /%00 HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x?a=%0a HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /a/../b HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /a/%2e%2E HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /a/.%2e?x HTTP/1.1\r\n" H "\r\n", 400},
		{"GET http://other/x HTTP/1.1\r\n" H "\r\n", 400},
		{"CONNECT other:443 HTTP/1.1\r\n" H "\r\n", 400},
		{"OPTIONS * HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x#y HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400},
		{"GET /x HTTP/2.0\r\n" H "\r\n", 400},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"GET /x\r\n\r\n", 400},
		{"\r\nGET /x HTTP/1.1\r\n" H "\r\n", 400},
		{"G(T /x HTTP/1.1\r\n" H "\r\n", 400},
		{GET("no colon\r\n"), 400},
		{GET(": value\r\n"), 400},
		{"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"\x16\x03\x01", 400},
		{"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{POST("Expect: something\r\nContent-Length: 1\r\n\r\na"), 417},
	};

	check(t, sizeof(t) / sizeof(t[0]));
}

static void ordinary_requests_pass(void **state)
{
	static const struct row t[] = {
		{GET(""), 0},
		{GET("Content-Length: 0\r\n"), 0},
		{"GET /x HTTP/1.0\r\n\r\n", 0},
		{"OPTIONS /api/v1/conversions HTTP/1.1\r\nhost: [::1]:2077\r\n\r\n", 0},
		{"GET /a..b/...?x=../y&z=%2e%2e/ HTTP/1.1\r\n" H "\r\n", 0},
		{POST("content-length: 3\r\n\r\nabc"), 0},
		{POST("Content-Length:\t3 \r\n\r\nabc"), 0},
		{CHUNKED "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", 0},
		{CHUNKED "0\r\n\r\n", 0},
		{POST("Expect: 100-continue\r\nContent-Length: 1\r\n\r\na"), 0},
		{GET("X-Utf8: \xc3\xa9\r\nAuthorization: Bearer  a b\r\n"), 0},
	};

	check(t, sizeof(t) / sizeof(t[0]));
}

static void a_nul_byte_in_a_value_is_refused(void **state)
{
	static const char text[] = "GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
	struct httpframe f;

	feed(&f, text, sizeof(text) - 1, 4096);
	assert_int_equal(f.state, FRAME_BAD);
	assert_int_equal(f.status, 400);
	httpframe_fini(&f);
}

static void header_lines_and_bytes_are_bounded(void **state)
{
	struct httpframe f;
	struct buf b;

	buf_init(&b, 1 << 20);
	buf_add_str(&b, "GET /x HTTP/1.1\r\n", NULL);
	for (int i = 0; i < 101; i++)
		buf_add_str(&b, "a: b\r\n", NULL);
	buf_add_str(&b, "\r\n", NULL);
	feed(&f, b.data, b.len, 7);
	assert_int_equal(f.status, 431);
	httpframe_fini(&f);
	buf_reset(&b);
	buf_add_str(&b, "GET /x HTTP/1.1\r\nX: ", NULL);
	while (b.len < 4096)
		buf_add_char(&b, 'x', NULL);
	feed(&f, b.data, b.len, 1000);
	assert_int_equal(f.status, 431);
	httpframe_fini(&f);
	buf_fini(&b);
}

static void what_follows_a_request_is_left_for_the_next(void **state)
{
	static const char text[] = POST("Content-Length: 3\r\n\r\nabc") GET("");
	struct httpframe f;
	int at = feed(&f, text, strlen(text), 4096);

	assert_int_equal(f.state, FRAME_DONE);
	assert_string_equal(f.body.data, "abc");
	assert_string_equal(text + at, GET(""));
	httpframe_fini(&f);
	at = feed(&f, CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET", strlen(CHUNKED) + 25, 4096);
	assert_string_equal(f.body.data, "abcde");
	assert_int_equal(at, (int)strlen(CHUNKED) + 20);
	httpframe_fini(&f);
}

static void the_parts_of_a_head_are_there(void **state)
{
	struct httpframe f;

	feed(&f, "POST /a%20b?q=1 HTTP/1.0\r\nX-One:  v 1 \r\nConnection: Keep-Alive, x\r\n\r\n",
	     72, 1);
	assert_int_equal(f.state, FRAME_DONE);
	assert_string_equal(f.method, "POST");
	assert_string_equal(f.target, "/a%20b?q=1");
	assert_int_equal(f.minor, 0);
	assert_false(f.close);
	assert_string_equal(httpframe_field(&f, "x-one"), "v 1");
	assert_null(httpframe_field(&f, "x-two"));
	httpframe_fini(&f);
	feed(&f, GET("Connection: x,close\r\n"), strlen(GET("Connection: x,close\r\n")), 1);
	assert_true(f.close);
	httpframe_fini(&f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(each_row_of_the_list_of_evhttps_faults_is_refused),
		T(ordinary_requests_pass),
		T(a_nul_byte_in_a_value_is_refused),
		T(header_lines_and_bytes_are_bounded),
		T(what_follows_a_request_is_left_for_the_next),
		T(the_parts_of_a_head_are_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
