/* tests/unit/test_base.c - buf, clock, digest, secret, stream, log: small modules in one program.
 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/log.h"
#include "common/secret.h"
#include "common/stream.h"

static void a_buf_keeps_its_ceiling_and_its_contents(void **s)
{
	struct buf b;
	struct err e;

	buf_init(&b, 10);
	assert_int_equal(b.data[0], 0);
	assert_int_equal(buf_add(&b, "0123456789", 10, &e), 0);
	assert_int_equal(buf_add_char(&b, 'x', &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_string_equal(b.data, "0123456789");
	buf_consume(&b, 4);
	assert_string_equal(b.data, "456789");
	assert_int_equal(buf_addf(&b, &e, "%d", 12345), -1);
	assert_int_equal(buf_addf(&b, &e, "%d", 1234), 0);
	buf_fini(&b);
}

static void times_are_written_as_go_does(void **s)
{
	char t[CLOCK_TEXT];
	int64_t ns;

	clock_rfc3339(t, 1700000000ll * 1000000000 + 511683000, -1);
	assert_string_equal(t, "2023-11-14T22:13:20.511683Z");
	clock_rfc3339(t, 1700000000ll * 1000000000, -1);
	assert_string_equal(t, "2023-11-14T22:13:20Z");
	clock_rfc3339(t, -1, 9);
	assert_string_equal(t, "1969-12-31T23:59:59.999999999Z");
	assert_int_equal(clock_parse_rfc3339("2023-11-14T22:13:20.5+01:00", &ns, NULL), 0);
	assert_true(ns == (1700000000ll - 3600) * 1000000000 + 500000000);
	assert_int_equal(clock_parse_rfc3339("2023-11-14 22:13:20", &ns, NULL), -1);
	assert_int_equal(clock_parse_rfc3339("0001-01-01T00:00:00Z", &ns, NULL), 0);
	clock_go_duration(t, 290216683);
	assert_string_equal(t, "290.216683ms");
	clock_go_duration(t, 5400000000ull);
	assert_string_equal(t, "5.4s");
	clock_go_duration(t, 62500000000ull);
	assert_string_equal(t, "1m2.5s");
	clock_go_duration(t, 3600000000000ull);
	assert_string_equal(t, "1h0m0s");
	clock_go_duration(t, 0);
	assert_string_equal(t, "0s");
}

static int64_t fixed_wall(void)
{
	return 1700000000ll * 1000000000;
}

static uint64_t fixed_mono(void)
{
	return 5;
}

static void retry_after_is_seconds_or_a_date(void **s)
{
	static const struct clock_source fixed = {fixed_mono, fixed_mono, fixed_wall};
	uint64_t ms;

	clock_replace(&fixed);
	assert_int_equal(clock_retry_after("120", &ms), 0);
	assert_int_equal(ms, 120000);
	assert_int_equal(clock_retry_after("Tue, 14 Nov 2023 22:14:20 GMT", &ms), 0);
	assert_int_equal(ms, 60000);
	assert_int_equal(clock_retry_after("880.092\xc2\xb5s", &ms), -1);
	clock_replace(NULL);
}

static void digests_are_parsed_strictly(void **s)
{
	const char *good =
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
	static const char *const bad[] = {
		"",
		"sha256:",
		"sha256:e3b0",
		"md5:e3b0c44298fc1c149afbf4c8996fb924",
		"sha256:E3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	};
	char t[DIGEST_TEXT];
	struct digest d, h;
	struct hasher *r = hasher_new(DIGEST_SHA256);

	assert_int_equal(digest_parse(&d, good, NULL), 0);
	assert_string_equal(digest_text(&d, t), good);
	assert_string_equal(digest_short(&d, t), "sha256:e3b0c44298fc");
	digest_of(&h, DIGEST_SHA256, "", 0);
	assert_true(digest_eq(&d, &h));
	hasher_update(r, "ab", 2);
	hasher_peek(r, &h);
	hasher_update(r, "c", 1);
	hasher_final(r, &d);
	digest_of(&h, DIGEST_SHA256, "abc", 3);
	assert_true(digest_eq(&d, &h));
	hasher_final(r, &d); /* it starts anew */
	digest_of(&h, DIGEST_SHA256, "", 0);
	assert_true(digest_eq(&d, &h));
	hasher_freep(&r);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(digest_parse(&d, bad[i], NULL), -1);
}

static void a_secret_compares_and_loses_one_newline(void **s)
{
	char path[] = "/tmp/accel-secret-XXXXXX";
	int fd = mkstemp(path);
	struct secret *a;
	struct err e;

	assert_int_equal(write(fd, "pa:ss\n\n", 7), 7);
	close(fd);
	a = secret_from_file(path, &e);
	unlink(path);
	assert_non_null(a);
	assert_true(secret_eq(a, "pa:ss\n", 6));
	assert_false(secret_eq(a, "pa:ss", 5));
	assert_false(secret_eq(NULL, "", 0));
	secret_freep(&a);
	assert_null(secret_from_file(path, &e));
	assert_true(secret_matches_sha256(
		"abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
	assert_false(secret_matches_sha256(
		"abd", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

static void a_verified_source_refuses_at_the_end(void **s)
{
	static const struct {
		const char *text;
		uint64_t size;
		const char *say;
	} bad[] = {{"abd", 3, "for sha256:ba7816bf"},
		   {"ab", 3, "2 bytes, the descriptor says 3"},
		   {"abcd", 3, "more than the 3 bytes"}};
	struct digest want;
	struct err e;
	char p[8];

	digest_of(&want, DIGEST_SHA256, "abc", 3);
	{
		struct source *m = source_from_memory("abc", 3), *v = source_verify(&m, &want, 3);

		assert_int_equal(source_read(v, p, 8, &e), 3);
		source_freep(&v);
	}
	for (size_t i = 0; i < 3; i++) {
		struct source *m = source_from_memory(bad[i].text, strlen(bad[i].text)),
			      *v = source_verify(&m, &want, bad[i].size);

		assert_int_equal(source_read(v, p, 8, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_text_has(e.text, bad[i].say);
		source_freep(&v);
	}
}

static void a_log_line_is_logrus_text(void **s)
{
	char line[4096];
	int p[2];
	ssize_t n;

	assert_int_equal(pipe(p), 0);
	log_setup(LOG_INFO, LOG_TEXT, p[1]);
	log_debug("not this", NULL);
	log_warning("a\x1b[31mb\n\"q\"", F_STR("path", "/a/b@c+d^e"), F_STR("empty", ""),
		    F_U64("n", 5), F_STR("bidi", "x\xe2\x80\xaey"), NULL);
	log_setup(LOG_INFO, LOG_JSON, p[1]);
	log_error("json", F_U64("n", 5), F_STR("s", "a\"b"), NULL);
	log_setup(LOG_INFO, LOG_TEXT, p[1]);
	log_bind_task("0193");
	log_bind_module("worker");
	log_info("bound", NULL);
	log_bind_task(NULL);
	log_bind_module(NULL);
	n = read(p[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_memory_equal(line, "time=\"20", 8);
	assert_text_has(line, "Z\" level=warning msg=\"a\\x1b[31mb\\n\\\"q\\\"\" bidi=\"x?y\" "
			      "empty= n=5 path=/a/b@c+d^e\n");
	assert_text_has(line, "\n{\"level\":\"error\",\"msg\":\"json\",\"time\":\"");
	assert_text_has(line, "\"n\":5,\"s\":\"a\\\"b\"}\n");
	assert_text_has(line, "level=info msg=bound module=worker task=0193\n");
	log_setup(LOG_INFO, LOG_TEXT, STDERR_FILENO);
	close(p[0]);
	close(p[1]);
}

static void woken(void *arg)
{
	++*(int *)arg;
}

static void held_lines_go_out_together_and_a_warning_takes_them_along(void **s)
{
	char line[4096];
	int p[2], wakes = 0;
	ssize_t n;

	assert_int_equal(pipe2(p, O_NONBLOCK), 0);
	log_setup(LOG_INFO, LOG_TEXT, p[1]);
	log_hold(woken, &wakes);
	log_info("one", NULL);
	log_info("two", NULL);
	assert_int_equal(wakes, 1);
	assert_int_equal(read(p[0], line, sizeof(line)), -1);
	log_flush();
	n = read(p[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_text_has(line, "msg=one\n");
	assert_text_has(line, "msg=two\n");
	log_flush();
	assert_int_equal(read(p[0], line, sizeof(line)), -1);

	log_info("before", NULL);
	log_warning("now", NULL);
	assert_int_equal(wakes, 2);
	n = read(p[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_true(strstr(line, "msg=before\n") < strstr(line, "msg=now\n"));

	log_info("last", NULL);
	log_hold(NULL, NULL); /* nothing is lost */
	n = read(p[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_text_has(line, "msg=last\n");
	log_setup(LOG_INFO, LOG_TEXT, STDERR_FILENO);
	close(p[0]);
	close(p[1]);
}

static void every_day_of_the_calendar_is_written_as_gmtime_has_it(void **s)
{
	for (int64_t day = -106000; day < 106000; day++) {
		char want[CLOCK_TEXT], got[CLOCK_TEXT];
		time_t t = (time_t)(day * 86400 + (day * 7919 % 86400 + 86400) % 86400);
		struct tm tm;

		gmtime_r(&t, &tm);
		strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%SZ", &tm);
		clock_rfc3339(got, (int64_t)t * 1000000000, -1);
		assert_string_equal(got, want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_buf_keeps_its_ceiling_and_its_contents),
		T(times_are_written_as_go_does),
		T(retry_after_is_seconds_or_a_date),
		T(digests_are_parsed_strictly),
		T(a_secret_compares_and_loses_one_newline),
		T(a_verified_source_refuses_at_the_end),
		T(a_log_line_is_logrus_text),
		T(held_lines_go_out_together_and_a_warning_takes_them_along),
		T(every_day_of_the_calendar_is_written_as_gmtime_has_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
