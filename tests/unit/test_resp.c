/* tests/unit/test_resp.c - the reader of replies, the names of scripts; the connection itself is
 * driven by tests/integration/queue against a real server. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "common/loop.h"
#include "common/resp.h"
#include "common/scripts.h"

static const struct reply *only(struct resp_reader *r, const char *bytes)
{
	const struct reply *reply = NULL;
	struct err e;

	assert_int_equal(resp_reader_feed(r, bytes, strlen(bytes), &e), 0);
	assert_int_equal(resp_reader_next(r, &reply, &e), 1);
	return reply;
}

static void every_kind_of_reply_is_read(void **s)
{
	struct resp_reader *r = resp_reader_new(0);
	const struct reply *v;

	v = only(r, "+OK\r\n");
	assert_int_equal(v->kind, REPLY_STATUS);
	assert_string_equal(v->str, "OK");
	resp_reply_free(v);
	v = only(r, "-OOM no\r\n");
	assert_int_equal(v->kind, REPLY_ERROR);
	resp_reply_free(v);
	v = only(r, ":-42\r\n");
	assert_int_equal(v->kind, REPLY_INT);
	assert_int_equal(v->integer, -42);
	resp_reply_free(v);
	v = only(r, "*0\r\n");
	assert_int_equal(v->kind, REPLY_ARRAY);
	assert_int_equal(v->n, 0);
	resp_reply_free(v);
	resp_reader_freep(&r);
}

static void a_reply_may_come_byte_by_byte(void **s)
{
	static const char bytes[] = "*3\r\n$3\r\na\0c\r\n$-1\r\n*1\r\n:7\r\n";
	struct resp_reader *r = resp_reader_new(0);
	const struct reply *v = NULL;
	struct err e;

	for (size_t i = 0; i + 1 < sizeof(bytes); i++) {
		assert_int_equal(resp_reader_feed(r, bytes + i, 1, &e), 0);
		assert_int_equal(resp_reader_next(r, &v, &e), i + 2 == sizeof(bytes) ? 1 : 0);
	}
	assert_int_equal(v->n, 3);
	assert_int_equal(v->element[0]->n, 3);
	assert_memory_equal(v->element[0]->str, "a\0c", 4);
	assert_int_equal(v->element[1]->kind, REPLY_NIL);
	assert_int_equal(v->element[2]->element[0]->integer, 7);
	resp_reply_free(v);
	resp_reader_freep(&r);
}

static void a_reply_past_the_bound_is_refused(void **s)
{
	struct resp_reader *r = resp_reader_new(32);
	const struct reply *v = NULL;
	struct err e;

	assert_int_equal(resp_reader_feed(r, "$1000000000\r\nabcdefgh", 21, &e), 0);
	assert_int_equal(resp_reader_next(r, &v, &e), 0);
	assert_int_equal(resp_reader_feed(r, "abcdefghijkl", 12, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "larger than 32 bytes");
	resp_reader_freep(&r);
}

static void small_replies_do_not_use_up_the_bound(void **s)
{
	struct resp_reader *r = resp_reader_new(32);

	for (int i = 0; i < 100; i++)
		resp_reply_free(only(r, "$4\r\nabcd\r\n"));
	resp_reader_freep(&r);
}

static void what_is_not_the_protocol_is_refused(void **s)
{
	static const char *const bad[] = {"HTTP/1.1 400 Bad Request\r\n", "*999999999\r\n",
					  "$-2\r\n", "*-2\r\n", ":12x\r\n"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct resp_reader *r = resp_reader_new(0);
		const struct reply *v = NULL;
		struct err e;

		assert_int_equal(resp_reader_feed(r, bad[i], strlen(bad[i]), &e), 0);
		if (resp_reader_next(r, &v, &e) != -1)
			fail_msg("%s was taken", bad[i]);
		assert_int_equal(e.code, ERR_NET);
		resp_reader_freep(&r);
	}
}

static void a_half_read_array_leaks_nothing(void **s)
{
	struct resp_reader *r = resp_reader_new(0);
	const struct reply *v = NULL;
	struct err e;

	assert_int_equal(resp_reader_feed(r, "*3\r\n*2\r\n$1\r\nx\r\n", 15, &e), 0);
	assert_int_equal(resp_reader_next(r, &v, &e), 0);
	resp_reader_freep(&r);
}

static void nothing(void *arg)
{
}

static void lost(const struct err *why, void *arg)
{
}

static void an_address_is_checked_at_once(void **s)
{
	static const char *const bad[] = {"host:0", "host:65536", "host:x",	     ":6379",
					  "[::1",   "[::1]x",	  "unix://relative", "unix://"};
	static const char *const good[] = {"host",  "host:6379", "[::1]:6379",
					   "[::1]", "::1",	 "unix:///a/b"};
	struct loop *l = NULL;
	struct err e;

	assert_int_equal(loop_open(&l, NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct resp_opts o = {.addr = bad[i]};
		struct resp *r = NULL;

		if (resp_open(&r, l, &o, nothing, lost, NULL, &e) != -1)
			fail_msg("%s was taken", bad[i]);
		assert_int_equal(e.code, ERR_INVALID);
		assert_text_has(e.text, bad[i]);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct resp_opts o = {.addr = good[i]};
		struct resp *r = NULL;

		if (resp_open(&r, l, &o, nothing, lost, NULL, &e) != 0)
			fail_msg("%s: %s", good[i], e.text);
		resp_freep(&r);
	}
	loop_freep(&l);
}

static void scripts_have_names_flags_and_hashes(void **s)
{
	char hex[41], text[200];

	script_sha1("abc", hex);
	assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
	script_sha1("", hex);
	assert_string_equal(hex, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	memset(text, 'a', sizeof(text));
	text[119] = 0; /* the padding needs a block of its own */
	script_sha1(text, hex);
	assert_string_equal(hex, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56");
	assert_int_equal(script_find("nonsense"), -1);
	for (int i = 0; i < SCRIPTS; i++) {
		assert_int_equal(script_find(scripts[i].name), i);
		assert_text_has(scripts[i].text, "local P = string.sub(KEYS[1], 1, -5)");
		/* only what makes the queue or the cache longer is refused when memory is full */
		if (strcmp(scripts[i].name, "enqueue") == 0 ||
		    strcmp(scripts[i].name, "cache_put") == 0 ||
		    strcmp(scripts[i].name, "cache_lease") == 0)
			assert_int_equal(strncmp(scripts[i].text, "#!lua\n", 6), 0);
		else
			assert_int_equal(strncmp(scripts[i].text, "#!lua flags=", 12), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_kind_of_reply_is_read),		T(a_reply_may_come_byte_by_byte),
		T(a_reply_past_the_bound_is_refused),	T(small_replies_do_not_use_up_the_bound),
		T(what_is_not_the_protocol_is_refused), T(a_half_read_array_leaks_nothing),
		T(an_address_is_checked_at_once),	T(scripts_have_names_flags_and_hashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
