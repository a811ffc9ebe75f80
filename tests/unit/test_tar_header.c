/* One header block and PAX records: numbers, times, names, checksums. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "worker/tar/tar_header.h"
#include "worker/tar/tar_reader.h"

#define TEXT(s) ((struct tar_text){(s), sizeof(s) - 1})

static void number_is(const char *field, size_t n, int64_t want)
{
	int64_t v = -77;

	if (!tar_number((const uint8_t *)field, n, &v) || v != want)
		fail_msg("'%s' is %lld, not %lld", field, (long long)v, (long long)want);
}

static void no_number(const char *field, size_t n)
{
	int64_t v = -77;

	if (tar_number((const uint8_t *)field, n, &v))
		fail_msg("'%s' was taken for %lld", field, (long long)v);
}

static void octal_fields_may_be_padded_with_spaces_and_nuls(void **state)
{
	number_is("0000644\0", 8, 0644);
	number_is("  644 \0 ", 8, 0644);
	number_is("\0\0\0"
		  "644\0",
		  7, 0644);
	number_is("77777777", 8, 077777777);
	number_is("\0\0\0\0\0\0\0\0", 8, 0);
	number_is("        ", 8, 0);
	number_is("12\0garb\0", 8, 012);
	no_number("8\0\0\0\0\0\0\0", 8);
	no_number("12 34\0\0\0", 8);
	no_number("-1\0\0\0\0\0\0", 8);
}

static void base_256_fields_are_twos_complement(void **state)
{
	number_is("\x80\0\0\0\0\0\0\x05", 8, 5);
	number_is("\x80\0\0\1\0\0\0\0", 8, 1ll << 32);
	number_is("\xff\xff\xff\xff\xff\xff\xff\xff", 8, -1);
	number_is("\xff\xff\xff\xff\xff\xfe\xae\x80", 8, -86400);
	number_is("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12, INT64_MAX);
	number_is("\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12, INT64_MIN);
	no_number("\x80\0\0\0\x80\0\0\0\0\0\0\0", 12);
	no_number("\x80\1\0\0\0\0\0\0\0\0\0\0", 12);
	no_number("\x8f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
}

static void decimals_take_a_sign_and_their_whole_range(void **state)
{
	int64_t v;

	assert_true(tar_decimal(TEXT("9223372036854775807"), &v) && v == INT64_MAX);
	assert_true(tar_decimal(TEXT("-9223372036854775808"), &v) && v == INT64_MIN);
	assert_true(tar_decimal(TEXT("+7"), &v) && v == 7);
	assert_true(tar_decimal(TEXT("-0"), &v) && v == 0);
	assert_false(tar_decimal(TEXT("9223372036854775808"), &v));
	assert_false(tar_decimal(TEXT("-9223372036854775809"), &v));
	assert_false(tar_decimal(TEXT("99999999999999999999999"), &v));
	assert_false(tar_decimal(TEXT(""), &v));
	assert_false(tar_decimal(TEXT("-"), &v));
	assert_false(tar_decimal(TEXT(" 1"), &v));
	assert_false(tar_decimal(TEXT("1 "), &v));
	assert_false(tar_decimal(TEXT("0x1"), &v));
}

static void time_is(struct tar_text t, int64_t seconds, uint32_t ns)
{
	int64_t s = -77;
	uint32_t n = 77;

	if (!tar_time(t, &s, &n) || s != seconds || n != ns)
		fail_msg("%.*s is %lld.%09u", (int)t.n, t.p, (long long)s, n);
}

static void negative_times_with_fractions_round_down(void **state)
{
	int64_t s;
	uint32_t ns;

	time_is(TEXT("1.5"), 1, 500000000);
	time_is(TEXT("1."), 1, 0);
	time_is(TEXT("12"), 12, 0);
	time_is(TEXT("-1.5"), -2, 500000000);
	time_is(TEXT("-0.25"), -1, 750000000);
	time_is(TEXT("-3"), -3, 0);
	time_is(TEXT("-3.000"), -3, 0);
	time_is(TEXT("1.1234567899999"), 1, 123456789);
	time_is(TEXT("-1.000000001"), -2, 999999999);
	assert_false(tar_time(TEXT(".5"), &s, &ns));
	assert_false(tar_time(TEXT("1.x"), &s, &ns));
	assert_false(tar_time(TEXT("1.-5"), &s, &ns));
	assert_false(tar_time(TEXT(""), &s, &ns));
	assert_false(tar_time(TEXT("-9223372036854775808.5"), &s, &ns));
}

static void pax_records_are_cut_by_their_length(void **state)
{
	struct tar_text rest = TEXT("12 path=a=b\n27 SCHILY.xattr.user.x=\0\n=\n\n"), k, v;
	struct err e = {0};

	assert_int_equal(tar_pax_next(&rest, &k, &v, &e), 1);
	assert_memory_equal(k.p, "path", k.n);
	assert_int_equal(v.n, 3);
	assert_memory_equal(v.p, "a=b", 3);
	assert_int_equal(tar_pax_next(&rest, &k, &v, &e), 1);
	assert_int_equal(k.n, 19);
	assert_int_equal(v.n, 3);
	assert_memory_equal(v.p, "\0\n=", 3);
	assert_int_equal(rest.n, 1);
	assert_int_equal(tar_pax_next(&rest, &k, &v, &e), -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	rest.n = 0;
	assert_int_equal(tar_pax_next(&rest, &k, &v, &e), 0);
}

static void broken_pax_records_are_refused(void **state)
{
	static const struct tar_text bad[] = {
		TEXT("x path=a\n"),	   TEXT("4 =\n"),
		TEXT("9 path=a"),	   TEXT("99 path=a\n"),
		TEXT("8 patha\n"),	   TEXT("8 =abcd\n"),
		TEXT("10 path=\0\n"),	   TEXT("10 k\0y=12\n"),
		TEXT("-9 path=a\n"),	   TEXT("18446744073709551625 path=a\n"),
		TEXT("00000000005 a=b\n"), TEXT("123456"),
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tar_text rest = bad[i], k, v;
		struct err e = {0};

		if (tar_pax_next(&rest, &k, &v, &e) != -1)
			fail_msg("taken: record %zu", i);
		assert_int_equal(e.code, ERR_CORRUPT);
	}
}

static void utf8_is_told_from_what_is_not(void **state)
{
	assert_true(tar_utf8(TEXT("")));
	assert_true(tar_utf8(TEXT("plain")));
	assert_true(tar_utf8(TEXT("n\xc3\xa4me \xe2\x82\xac \xf0\x9f\x98\x80")));
	assert_true(tar_utf8(TEXT("\xef\xbf\xbf\xf4\x8f\xbf\xbf\xed\x9f\xbf")));
	assert_false(tar_utf8(TEXT("na\xefve")));
	assert_false(tar_utf8(TEXT("\xc0\xaf")));	  /* overlong */
	assert_false(tar_utf8(TEXT("\xe0\x9f\xbf")));	  /* overlong */
	assert_false(tar_utf8(TEXT("\xed\xa0\x80")));	  /* surrogate */
	assert_false(tar_utf8(TEXT("\xf4\x90\x80\x80"))); /* above U+10FFFF */
	assert_false(tar_utf8(TEXT("\xf5\x80\x80\x80")));
	assert_false(tar_utf8(TEXT("\xe2\x82")));
	assert_false(tar_utf8(TEXT("\x80")));
}

static void clean_is(const char *name, const char *want)
{
	char to[64];
	size_t n = tar_clean_name(name, to, sizeof(to));

	assert_string_equal(to, want);
	assert_int_equal(n, strlen(want));
	for (size_t cap = 0; cap <= strlen(want);
	     cap++) { /* too small: a NUL-terminated beginning */
		memset(to, 'X', sizeof(to));
		assert_int_equal(tar_clean_name(name, to, cap), strlen(want));
		assert_int_equal(to[cap], 'X');
		if (cap > 0) {
			assert_int_equal(to[cap - 1], 0);
			assert_memory_equal(to, want, cap - 1);
		}
	}
}

static void clean_names_never_leave_the_root(void **state)
{
	clean_is("a/b", "a/b");
	clean_is("/a//b/", "a/b");
	clean_is("./a/./b", "a/b");
	clean_is("a/../b", "b");
	clean_is("../../a", "a");
	clean_is("a/../../../b/c", "b/c");
	clean_is("a/b/..", "a");
	clean_is("a/b/../../..", "");
	clean_is("/", "");
	clean_is("", "");
	clean_is(".", "");
	clean_is("..", "");
	clean_is("...", "...");
	clean_is("..a/b..", "..a/b..");
	clean_is("a/b/c/../../d/./e", "a/d/e");
}

/* The bytes that Go's archive/tar writes for this header in FormatUSTAR. */
static void headers_are_written_as_go_writes_ustar(void **state)
{
	static const char head[] = "stargz.index.json";
	const struct tar_out h = {.name = head, .type = '0', .mode = 0, .size = 1234};
	uint8_t b[512];
	struct tar_block back;
	struct err e = {0};

	tar_write_header(b, &h);
	assert_string_equal((char *)b, head);
	assert_memory_equal(b + 100, "0000000\0000000000\0000000000\00000000002322\00000000000000",
			    47);
	assert_memory_equal(b + 148, "012501\0 0", 9);
	assert_memory_equal(b + 257, "ustar\00000", 8);
	assert_memory_equal(b + 329, "0000000\0000000000", 16);
	assert_int_equal(tar_block_decode(&back, b, &e), 0);
	assert_int_equal(back.size, 1234);
	assert_int_equal(back.format, TAR_USTAR);
}

static void a_size_over_8_gib_is_written_in_base_256(void **state)
{
	const struct tar_out h = {.name = "big", .type = '0', .mode = 0600, .size = 9ull << 30};
	uint8_t b[512];
	struct tar_block back;
	struct err e = {0};

	tar_write_header(b, &h);
	assert_int_equal(tar_block_decode(&back, b, &e), 0);
	assert_int_equal(back.size, 9ll << 30);
	assert_int_equal(back.mode, 0600);
}

static void every_changed_byte_breaks_the_checksum(void **state)
{
	const struct tar_out h = {.name = "f", .type = '0', .mode = 0600, .size = 1};
	uint8_t b[512];
	struct tar_block back;
	struct err e = {0};

	tar_write_header(b, &h);
	for (size_t i = 0; i < 512; i++) {
		if (i >= 154 && i < 156) /* the NUL and the space after the sum */
			continue;
		b[i] ^= 1;
		if (tar_block_decode(&back, b, &e) == 0)
			fail_msg("byte %zu may change", i);
		b[i] ^= 1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(octal_fields_may_be_padded_with_spaces_and_nuls),
		T(base_256_fields_are_twos_complement),
		T(decimals_take_a_sign_and_their_whole_range),
		T(negative_times_with_fractions_round_down),
		T(pax_records_are_cut_by_their_length),
		T(broken_pax_records_are_refused),
		T(utf8_is_told_from_what_is_not),
		T(clean_names_never_leave_the_root),
		T(headers_are_written_as_go_writes_ustar),
		T(a_size_over_8_gib_is_written_in_base_256),
		T(every_changed_byte_breaks_the_checksum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
