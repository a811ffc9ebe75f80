/* Pieces of output: they unpack again, are the same from any encoder, and a wrong one is noticed.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "worker/codec/encode.h"

static const struct encode_as ways[] = {
	{ENCODE_RAW, 0, 0, 0},
	{ENCODE_GZIP, 0, 0, 0},
	{ENCODE_GZIP, 1, 0, 0},
	{ENCODE_GZIP, 9, 0, 0},
	{ENCODE_GZIP, 12, 0, 0},
	{ENCODE_ZSTD, 0, 0, 0},
	{ENCODE_ZSTD, 0, 1, 0},
	{ENCODE_ZSTD, 10, 1, 0},
	{ENCODE_ZSTD, 19, 0, 0},
	{ENCODE_LZ4, 0, 0, 0},
	{ENCODE_ZSTD, 2, 1, SEARCH_FAST},
	{ENCODE_ZSTD, 5, 1, SEARCH_CHAINS},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = i % 4096 < 2500 ? (uint8_t) "the same words again "[i % 21]
				       : (uint8_t)(seed >> 24);
	}
}

static size_t pack(struct encoder *x, const struct encode_as *as, const void *in, size_t n,
		   uint8_t **out)
{
	size_t cap = encode_bound(as, n), got = 0;
	struct err e = {0};

	*out = mem_alloc(cap + 1);
	(*out)[cap] = 0xa5;
	if (encode(x, as, in, n, *out, cap, &got, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(got <= cap);
	assert_int_equal((*out)[cap], 0xa5);
	return got;
}

static void every_encoding_unpacks_again(void **state)
{
	static const size_t sizes[] = {0, 1, 31, 4096, 300000};
	struct encoder *x = encoder_new();
	uint8_t *in = mem_alloc(300000), *back = mem_alloc(300001), *out;
	struct err e = {0};

	for (size_t w = 0; w < WAYS; w++) {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			size_t n = sizes[i], got, back_n = 77;

			fill(in, n, (uint32_t)i);
			got = pack(x, &ways[w], in, n, &out);
			if (n > 4096 && ways[w].encoding != ENCODE_RAW)
				assert_true(got < n * 3 / 4);
			assert_int_equal(
				decode(x, ways[w].encoding, out, got, back, n, &back_n, &e), 0);
			assert_int_equal(back_n, n);
			assert_memory_equal(back, in, n);
			assert_int_equal(encode_verify(x, &ways[w], in, n, out, got, &e), 0);
			free(out);
		}
	}
	encoder_freep(&x);
	assert_null(x);
	free(in);
	free(back);
}

/* An encoder that has done other work gives the bytes of a new one. */
static void the_same_input_gives_the_same_bytes_whatever_came_before(void **state)
{
	struct encoder *used = encoder_new(), *fresh;
	size_t n = 200000, a_n, b_n;
	uint8_t *in = mem_alloc(n), *a, *b, *other;

	for (size_t w = 0; w < WAYS; w++) {
		fill(in, n, 99);
		free((pack(used, &ways[w], in, 1234 * (w + 1), &other), other));
		fill(in, n, 5);
		fresh = encoder_new();
		a_n = pack(used, &ways[w], in, n, &a);
		b_n = pack(fresh, &ways[w], in, n, &b);
		assert_int_equal(a_n, b_n);
		assert_memory_equal(a, b, a_n);
		free(a);
		free(b);
		encoder_freep(&fresh);
	}
	encoder_freep(&used);
	free(in);
}

static void gzip_members_have_no_time_and_no_name(void **state)
{
	static const struct encode_as nine = {ENCODE_GZIP, 9, 0, 0}, usual = {ENCODE_GZIP, 0, 0, 0};
	struct encoder *x = encoder_new();
	uint8_t *out;

	pack(x, &nine, "abc", 3, &out);
	assert_memory_equal(out, "\x1f\x8b\x08\0\0\0\0\0\x02\xff", 10);
	free(out);
	pack(x, &usual, "abc", 3, &out);
	assert_memory_equal(out, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
	free(out);
	encoder_freep(&x);
}

static void zstd_frames_carry_their_size_and_a_checksum_if_asked(void **state)
{
	static const struct encode_as plain = {ENCODE_ZSTD, 3, 0, 0},
				      summed = {ENCODE_ZSTD, 3, 1, 0};
	struct encoder *x = encoder_new();
	uint8_t *a, *b, in[1000];
	size_t a_n, b_n;

	fill(in, sizeof(in), 3);
	a_n = pack(x, &plain, in, sizeof(in), &a);
	b_n = pack(x, &summed, in, sizeof(in), &b);
	assert_int_equal(b_n, a_n + 4);
	/* RFC 8878 3.1.1.1.1: bit 2 checksum, bit 5 single segment, bits 7-6 01: content size in
	 * two bytes, less 256 */
	assert_int_equal(a[4], 0x60);
	assert_int_equal(b[4], 0x64);
	assert_int_equal(a[5] | a[6] << 8, sizeof(in) - 256);
	free(a);
	free(b);
	encoder_freep(&x);
}

static void a_flipped_byte_is_caught_by_verify(void **state)
{
	struct encoder *x = encoder_new();
	size_t n = 50000;
	uint8_t *in = mem_alloc(n), *out;

	fill(in, n, 8);
	for (size_t w = 0; w < WAYS; w++) {
		size_t got = pack(x, &ways[w], in, n, &out), step = got / 50 + 1;

		for (size_t i = 0; i < got; i += step) {
			struct err e = {0};

			if (ways[w].encoding == ENCODE_GZIP && i >= 4 && i < 10)
				continue; /* time, XFL, OS: nothing checks them */
			out[i] ^= 0x10;
			if (encode_verify(x, &ways[w], in, n, out, got, &e) == 0)
				fail_msg("way %zu: byte %zu of %zu may change", w, i, got);
			assert_int_equal(e.code, ERR_CORRUPT);
			assert_text_has(e.text, "what was just compressed");
			out[i] ^= 0x10;
		}
		free(out);
	}
	free(in);
	encoder_freep(&x);
}

static void verify_names_the_first_difference(void **state)
{
	struct encoder *x = encoder_new();
	size_t n = 5000, got;
	uint8_t *in = mem_alloc(n), *out;
	struct err e = {0};

	fill(in, n, 8);
	got = pack(x, &ways[1], in, n, &out);
	in[1234] ^= 1;
	assert_int_equal(encode_verify(x, &ways[1], in, n, out, got, &e), -1);
	assert_text_has(e.text, "from byte 1234 of 5000 on");
	assert_int_equal(encode_verify(x, &ways[1], in, n - 1, out, got, &e), -1);
	assert_int_equal(encode_verify(x, &ways[1], in, n, out, got - 1, &e), -1);
	free(out);
	free(in);
	encoder_freep(&x);
}

static void pieces_that_unpack_to_more_than_expected_are_refused(void **state)
{
	struct encoder *x = encoder_new();
	size_t n = 5000, back_n;
	uint8_t *in = mem_zalloc(n), *back = mem_alloc(n), *out;

	for (size_t w = 0; w < WAYS; w++) {
		size_t got = pack(x, &ways[w], in, n, &out);
		struct err e = {0};

		assert_int_equal(decode(x, ways[w].encoding, out, got, back, n - 1, &back_n, &e),
				 -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		free(out);
	}
	free(in);
	free(back);
	encoder_freep(&x);
}

static void impossible_levels_are_the_callers_mistake(void **state)
{
	static const struct encode_as bad = {ENCODE_GZIP, 13, 0, 0};
	struct encoder *x = encoder_new();
	uint8_t out[200];
	size_t n;
	struct err e = {0};

	assert_int_equal(encode(x, &bad, "abc", 3, out, sizeof(out), &n, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
	encoder_freep(&x);
}

static void the_versions_name_each_codec(void **state)
{
	const char *v = encode_versions();
	char first[96];

	snprintf(first, sizeof(first), "%s", v);
	assert_text_has(v, "libdeflate 1.");
	assert_text_has(v, "zstd 1.");
	assert_text_has(v, "lz4 1.");
	assert_string_equal(encode_versions(), first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_encoding_unpacks_again),
		T(the_same_input_gives_the_same_bytes_whatever_came_before),
		T(gzip_members_have_no_time_and_no_name),
		T(zstd_frames_carry_their_size_and_a_checksum_if_asked),
		T(a_flipped_byte_is_caught_by_verify),
		T(verify_names_the_first_difference),
		T(pieces_that_unpack_to_more_than_expected_are_refused),
		T(impossible_levels_are_the_callers_mistake),
		T(the_versions_name_each_codec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
