/* tests/unit/test_str.c */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

static void sizes_are_read_as_people_write_them(void **s)
{
	static const struct {
		const char *text;
		uint64_t want;
	} good[] = {{"0", 0},
		    {"67108864", 67108864},
		    {"64MiB", 67108864},
		    {"64 MB", 64000000},
		    {"1.5GiB", 1610612736},
		    {"10g", 10000000000ull},
		    {"1000MB", 1000000000},
		    {"4Ki", 4096},
		    {"1kb", 1000}};
	static const char *const bad[] = {"",
					  "x",
					  "-1",
					  " 1",
					  "1.5.5",
					  "10 parsecs",
					  "99999999999999999999",
					  "1e3",
					  "20000000000000TB"};
	uint64_t v;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(str_size(good[i].text, &v, NULL), 0);
		assert_int_equal(v, good[i].want);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(str_size(bad[i], &v, NULL), -1);
}

static void durations_are_read_as_go_and_people_write_them(void **s)
{
	static const struct {
		const char *text;
		uint64_t want;
	} good[] = {{"30", 30000},   {"30s", 30000},	{"1m30s", 90000}, {"250ms", 250},
		    {"2h", 7200000}, {"1.5h", 5400000}, {"0", 0},	  {"1d", 86400000}};
	static const char *const bad[] = {
		"", "s", "1x", "1m30", "-1s", "1 s", "99999999999999999999s"};
	uint64_t v;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(str_duration_ms(good[i].text, &v, NULL), 0);
		assert_int_equal(v, good[i].want);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(str_duration_ms(bad[i], &v, NULL), -1);
}

static void numbers_are_strict(void **s)
{
	uint64_t v;

	assert_int_equal(str_u64("18446744073709551615", &v, NULL), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(str_u64("18446744073709551616", &v, NULL), -1);
	assert_int_equal(str_u64("", &v, NULL), -1);
	assert_int_equal(str_u64("01", &v, NULL), -1);
	assert_int_equal(str_u64("+1", &v, NULL), -1);
	assert_int_equal(str_u64("1 ", &v, NULL), -1);
}

static void what_could_hide_on_a_terminal_is_replaced(void **s)
{
	char a[] = "a\tb\nc\x1b[31m\x7f", b[] = "x\xe2\x80\xaey\xff",
	     c[] = "\xc3\xa4\xf0\x9f\x98\x80";

	str_clean(a);
	assert_string_equal(a, "a b c?[31m?");
	str_clean(b);
	assert_string_equal(b, "x?y?");
	str_clean(c);
	assert_string_equal(c, "\xc3\xa4\xf0\x9f\x98\x80");
}

static void utf8_is_rfc_3629(void **s)
{
	assert_true(str_utf8_valid("\xc3\xa4", 2));
	assert_false(str_utf8_valid("\xc0\xaf", 2));	     /* overlong */
	assert_false(str_utf8_valid("\xed\xa0\x80", 3));     /* surrogate */
	assert_false(str_utf8_valid("\xf4\x90\x80\x80", 4)); /* beyond U+10FFFF */
	assert_false(str_utf8_valid("\xe2\x80", 2));	     /* cut */
}

static void base64_goes_both_ways(void **s)
{
	struct buf b = BUF_INIT(100), back = BUF_INIT(100);
	static const char *const bad[] = {"a", "ab", "abc", "a===", "ab=c", "ab\n=", "YQ==YQ=="};

	for (size_t n = 0; n < 8; n++) {
		buf_reset(&b);
		buf_reset(&back);
		assert_int_equal(str_base64(&b, "\x00\xff\x10zyxw", n, NULL), 0);
		assert_int_equal(str_unbase64(&back, b.data, b.len, NULL), 0);
		assert_int_equal(back.len, n);
		assert_memory_equal(back.data, "\x00\xff\x10zyxw", n);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(str_unbase64(&back, bad[i], strlen(bad[i]), NULL), -1);
	buf_fini(&b);
	buf_fini(&back);
}

static void the_nearest_word_is_found(void **s)
{
	static const char *const words[] = {"converter", "provider", "server"};

	assert_string_equal(str_nearest("convertor", words, 3), "converter");
	assert_string_equal(str_nearest("sever", words, 3), "server");
	assert_null(str_nearest("zzz", words, 3));
}

static void a_copy_is_cut_between_characters(void **s)
{
	char t[4];

	str_copy(t, sizeof(t), "ab\xc3\xa4");
	assert_string_equal(t, "ab");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(sizes_are_read_as_people_write_them),
		T(durations_are_read_as_go_and_people_write_them),
		T(numbers_are_strict),
		T(what_could_hide_on_a_terminal_is_replaced),
		T(utf8_is_rfc_3629),
		T(base64_goes_both_ways),
		T(the_nearest_word_is_found),
		T(a_copy_is_cut_between_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
