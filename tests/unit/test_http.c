/* The HTTP client by itself: addresses, refusals, early answers. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/scope.h"
#include "common/stream.h"
#include "tests/unit/fake.h"

static void addresses_have_kinds(void **state)
{
	static const struct {
		const char *ip;
		enum address_kind kind;
	} cases[] = {
		{"8.8.8.8", ADDRESS_PUBLIC},
		{"127.0.0.1", ADDRESS_PRIVATE},
		{"10.1.2.3", ADDRESS_PRIVATE},
		{"172.16.0.1", ADDRESS_PRIVATE},
		{"172.32.0.1", ADDRESS_PUBLIC},
		{"192.168.9.9", ADDRESS_PRIVATE},
		{"100.64.0.1", ADDRESS_PRIVATE},
		{"0.0.0.0", ADDRESS_PRIVATE},
		{"169.254.169.254", ADDRESS_LINK_LOCAL},
		{"224.0.0.1", ADDRESS_PRIVATE},
		{"::1", ADDRESS_PRIVATE},
		{"::", ADDRESS_PRIVATE},
		{"fe80::1%eth0", ADDRESS_LINK_LOCAL},
		{"fc00::1", ADDRESS_PRIVATE},
		{"::ffff:169.254.169.254", ADDRESS_LINK_LOCAL},
		{"64:ff9b::a9fe:a9fe", ADDRESS_LINK_LOCAL},
		{"fd00:ec2::254", ADDRESS_LINK_LOCAL},
		{"2002:7f00:1::", ADDRESS_PRIVATE},
		{"::ffff:8.8.8.8", ADDRESS_PUBLIC},
		{"2606:4700::1111", ADDRESS_PUBLIC},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (address_kind(cases[i].ip) != cases[i].kind)
			fail_msg("%s", cases[i].ip);
}

/* ---- against a server */
static void refuses(const char *url, const struct http_peer *peer, enum err_code code,
		    const char *text)
{
	struct http_request q = {.method = "GET", .url = url, .peer = peer};
	struct http_response *resp = NULL;
	struct err e = {0};

	assert_int_equal(http_do(fake.h, &q, &resp, &e), -1);
	assert_text_has(e.text, text);
	assert_int_equal(e.code, code);
	assert_null(resp);
}

static void private_addresses_are_refused_unless_allowed(void **state)
{
	struct http_peer peer = {.plain_http = true};
	char url[100];

	snprintf(url, sizeof(url), "http://%s/v2/", fake.host);
	refuses(url, &peer, ERR_DENIED, "is at 127.0.0.1, a private address: refused");
	assert_int_equal(fake_count("v2", NULL, NULL), 0);
}

static void link_local_addresses_are_always_refused(void **state)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};

	refuses("http://169.254.169.254/latest", &peer, ERR_DENIED,
		"a link-local address: refused");
	refuses("http://[::ffff:169.254.169.254]/latest", &peer, ERR_DENIED, "refused");
}

static void plain_http_needs_to_be_set(void **state)
{
	struct http_peer peer = {.allow_private = true};
	char url[100];

	snprintf(url, sizeof(url), "http://%s/v2/", fake.host);
	refuses(url, &peer, ERR_DENIED, "set plain_http: true");
	snprintf(url, sizeof(url), "https://%s/v2/", fake.host);
	refuses(url, &peer, ERR_DENIED,
		"does not speak TLS; if that is meant, set plain_http: true");
}

static void a_closed_port_says_so(void **state)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};

	refuses("http://127.0.0.1:1/", &peer, ERR_NET, "127.0.0.1:1 refuses connections");
}

static void line_breaks_do_not_get_into_headers(void **state)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};
	const char *const headers[] = {"X: a\r\nY: b", NULL};
	struct http_request q = {.method = "GET",
				 .url = "http://127.0.0.1:1/",
				 .peer = &peer,
				 .authorization = "Bearer x\r\nEvil: 1"};
	struct http_response *resp = NULL;
	struct err e = {0};

	assert_int_equal(http_do(fake.h, &q, &resp, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
	q.authorization = NULL;
	q.headers = headers;
	assert_int_equal(http_do(fake.h, &q, &resp, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
}

/* Answers one connection with the given bytes, then closes. */
struct raw {
	int fd;
	const char *bytes;
};

static void *raw_serve(void *arg)
{
	struct raw *r = arg;
	int fd = accept(r->fd, NULL, NULL);
	char request[4096];

	if (recv(fd, request, sizeof(request), 0) > 0)
		send(fd, r->bytes, strlen(r->bytes), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void raw_answer(const char *bytes, enum err_code code, const char *text)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct http_peer peer = {.plain_http = true, .allow_private = true};
	socklen_t n = sizeof(a);
	struct raw r = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .bytes = bytes};
	pthread_t t;
	char url[60];

	assert_int_equal(bind(r.fd, (struct sockaddr *)&a, n), 0);
	assert_int_equal(listen(r.fd, 1), 0);
	getsockname(r.fd, (struct sockaddr *)&a, &n);
	pthread_create(&t, NULL, raw_serve, &r);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", ntohs(a.sin_port));
	refuses(url, &peer, code, text);
	pthread_join(t, NULL);
	close(r.fd);
}

static void what_is_not_http_says_so(void **state)
{
	raw_answer("SSH-2.0-OpenSSH_9.2\r\n", ERR_NET, "does not speak HTTP");
}

static void an_empty_reply_says_so(void **state)
{
	raw_answer("", ERR_NET, "closed the connection without an answer");
}

static void endless_headers_end(void **state)
{
	char *p = mem_alloc(300000), *w = p;

	w += sprintf(w, "HTTP/1.1 200 OK\r\n");
	while (w - p < 290000)
		w += sprintf(w, "X-Long: %0*d\r\n", 1000, 1);
	raw_answer(p, ERR_NET, "of headers");
	free(p);
}

static void an_answer_over_the_limit_is_a_limit(void **state)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};
	struct http_response *resp = NULL;
	struct err e = {0};
	char url[100];
	struct http_request q = {.method = "GET", .url = url, .peer = &peer, .max_response = 100};
	size_t n;

	snprintf(url, sizeof(url), "http://%s/v2/", fake.host);
	fake_rules("[{\"path\": \"^/v2\", \"status\": 200, \"body\": "
		   "\"0123456789012345678901234567890123456789012345678901234567890123456789"
		   "01234567890123456789012345678901234567890123456789\"}]");
	assert_int_equal(http_do(fake.h, &q, &resp, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	/* an error answer is cut instead: its start says what is wrong */
	fake_rules("[{\"path\": \"^/v2\", \"status\": 500, \"body\": "
		   "\"0123456789012345678901234567890123456789012345678901234567890123456789"
		   "01234567890123456789012345678901234567890123456789\"}]");
	assert_int_equal(http_do(fake.h, &q, &resp, &e), 0);
	http_body(resp, &n);
	assert_int_equal(n, 100);
	http_response_freep(&resp);
}

static void an_early_refusal_reaches_a_writer_that_waits(void **state)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped(sink_freep) struct sink *s = NULL;
	scoped_free char *p = fake_bytes(300000, 1);
	uint64_t start = clock_mono_ms();
	struct err e = {0};
	char url[100];
	struct http_request q = {.method = "PATCH", .url = url, .peer = &peer};

	snprintf(url, sizeof(url), "http://%s/v2/a/blobs/uploads/x", fake.host);
	/* refused with Connection: close while the body is not over and its writer does nothing */
	fake_rules("[{\"method\": \"PATCH\", \"status\": 413, \"delay\": 0.3}]");
	assert_int_equal(http_send(fake.h, &q, UINT64_MAX, &s, &e), 0);
	assert_int_equal(sink_write(s, p, 300000, &e), 0);
	if (http_send_response(s, &resp, &e) == 0)
		assert_int_equal(http_status(resp), 413);
	else /* the reset may overtake the answer */
		assert_int_equal(e.code, ERR_NET);
	assert_true(clock_mono_ms() - start < 30000);
}

static void traffic_counts_bodies(void **state)
{
	scoped_free char *p = fake_bytes(100000, 2);
	struct digest d;
	uint64_t in, out;
	struct err e = {0};
	char part[5000];

	digest_of(&d, DIGEST_SHA256, p, 100000);
	assert_int_equal(blob_push(fake.r, "p/app", p, 100000, &d, &e), 0);
	assert_int_equal(blob_range(fake.r, "p/app", &d, 0, 5000, part, &e), 0);
	http_traffic(fake.h, &in, &out);
	assert_int_equal(out, 100000);
	assert_int_equal(in, 5000);
}

#define H(name) cmocka_unit_test_setup_teardown(name, fake_fresh, fake_done)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(addresses_have_kinds),
		H(private_addresses_are_refused_unless_allowed),
		H(link_local_addresses_are_always_refused),
		H(plain_http_needs_to_be_set),
		H(a_closed_port_says_so),
		H(line_breaks_do_not_get_into_headers),
		H(what_is_not_http_says_so),
		H(an_empty_reply_says_so),
		H(endless_headers_end),
		H(an_answer_over_the_limit_is_a_limit),
		H(an_early_refusal_reaches_a_writer_that_waits),
		H(traffic_counts_bodies),
	};

	return cmocka_run_group_tests(tests, fake_start, fake_stop);
}
