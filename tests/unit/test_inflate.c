/* gzip as every producer writes it, and as none should: framing, members, truncation, what follows
 * the stream; both engines take and refuse the same. */
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <stdio.h>
#include <zlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/codec/deflate.h"
#include "worker/codec/inflate.h"

enum { NAME = 8, EXTRA = 4, COMMENT = 16, HCRC = 2 };

static uint8_t *sample; /* compressible, and not */
static size_t sample_n = 700000;

static int make_sample(void **state)
{
	uint32_t x = 1;

	sample = mem_alloc(sample_n);
	for (size_t i = 0; i < sample_n; i++) {
		x = x * 1103515245 + 12345;
		sample[i] =
			(uint8_t)(i % 3000 < 2000 ? "tar header 0000644"[i % 18] : (int)(x >> 24));
	}
	return 0;
}

static int free_sample(void **state)
{
	free(sample);
	return 0;
}

static void raw_deflate(struct buf *to, const void *p, size_t n, int level, int strategy)
{
	z_stream z = {0};
	size_t cap = n + n / 100 + 1000;
	uint8_t *out = mem_alloc(cap);

	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, -15, 9, strategy), Z_OK);
	z.next_in = (Bytef *)p;
	z.avail_in = (uInt)n;
	z.next_out = out;
	z.avail_out = (uInt)cap;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	buf_add(to, out, cap - z.avail_out, NULL);
	deflateEnd(&z);
	free(out);
}

static void le32(struct buf *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		buf_add_char(to, (char)(v >> 8 * i), NULL);
}

static void add_member(struct buf *to, const void *p, size_t n, int flags, int level)
{
	size_t at = to->len;

	buf_add(to, (char[]){0x1f, (char)0x8b, 8, (char)flags, 1, 2, 3, 4, 0, 3}, 10, NULL);
	if (flags & EXTRA)
		buf_add(to, "\5\0SG\1\0x", 7, NULL);
	if (flags & NAME)
		buf_add(to, "layer.tar", 10, NULL);
	if (flags & COMMENT)
		buf_add(to, "a comment", 10, NULL);
	if (flags & HCRC) {
		uint32_t crc = deflate_crc32(0, to->data + at, to->len - at);

		buf_add(to, (char[]){(char)crc, (char)(crc >> 8)}, 2, NULL);
	}
	raw_deflate(to, p, n, level, Z_DEFAULT_STRATEGY);
	le32(to, deflate_crc32(0, p, n));
	le32(to, (uint32_t)n);
}

/* Unpacks p, asking for `step` bytes a time. */
static int unpack(const void *p, size_t n, bool portable, size_t step, struct buf *to,
		  struct err *e)
{
	struct source *s = source_from_memory(p, n);
	const struct codec_opts o = {.portable = portable};
	uint8_t *part = mem_alloc(step);
	ssize_t r;

	assert_int_equal(codec_unpack(&s, CODEC_GZIP, &o, e), 0);
	while ((r = source_read(s, part, step, e)) > 0)
		buf_add(to, part, (size_t)r, NULL);
	source_freep(&s);
	free(part);
	return r < 0 ? -1 : 0;
}

static void unpacks_to(const struct buf *gz, const void *want, size_t n)
{
	static const size_t steps[] = {1 << 20, 65536, 1000, 33};

	for (int i = 0; i < 8; i++) {
		struct buf out = BUF_INIT(64 << 20);
		struct err e = {0};

		if (unpack(gz->data, gz->len, i % 2, steps[i / 2], &out, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(out.len, n);
		assert_memory_equal(out.data, want, n);
		buf_fini(&out);
	}
}

static void refused(const struct buf *gz, const char *why)
{
	for (int portable = 0; portable < 2; portable++) {
		struct buf out = BUF_INIT(64 << 20);
		struct err e = {0};

		if (unpack(gz->data, gz->len, portable, 65536, &out, &e) == 0)
			fail_msg("taken: %s", why);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_text_has(e.text, why);
		buf_fini(&out);
	}
}

static void every_level_and_strategy_unpacks(void **state)
{
	for (int level = 0; level <= 9; level += 3) {
		struct buf gz = BUF_INIT(8 << 20);

		add_member(&gz, sample, sample_n, 0, level);
		unpacks_to(&gz, sample, sample_n);
		buf_fini(&gz);
	}
	for (int strategy = Z_FILTERED; strategy <= Z_FIXED; strategy++) {
		struct buf gz = BUF_INIT(8 << 20);

		buf_add(&gz, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10, NULL);
		raw_deflate(&gz, sample, 100000, 6, strategy);
		le32(&gz, deflate_crc32(0, sample, 100000));
		le32(&gz, 100000);
		unpacks_to(&gz, sample, 100000);
		buf_fini(&gz);
	}
}

static void headers_may_have_extra_name_comment_and_checksum(void **state)
{
	for (int flags = 0; flags < 32; flags += 2) {
		struct buf gz = BUF_INIT(1 << 20);

		add_member(&gz, sample, 5000, flags | 1, 6); /* bit 0, FTEXT, says nothing */
		unpacks_to(&gz, sample, 5000);
		buf_fini(&gz);
	}
}

static void a_header_with_a_wrong_checksum_is_refused(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, sample, 5000, HCRC | NAME, 6);
	gz.data[12] ^= 1;
	refused(&gz, "does not match its checksum");
	buf_fini(&gz);
}

static void reserved_flags_are_refused(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, sample, 5000, 0x20, 6);
	refused(&gz, "unknown flags 0x20");
	buf_fini(&gz);
}

/* As eStargz: thousands of small members, many of them at the edges of our input buffer. */
static void thousands_of_members_are_one_stream(void **state)
{
	struct buf gz = BUF_INIT(16 << 20);
	size_t at = 0;

	for (int i = 0; at < sample_n; i++) {
		size_t n = (size_t)(i * 37 % 401);

		n = n < sample_n - at ? n : sample_n - at;
		add_member(&gz, sample + at, n, i % 3 ? 0 : NAME, i % 10);
		at += n;
	}
	unpacks_to(&gz, sample, sample_n);
	buf_fini(&gz);
}

static void an_empty_member_unpacks_to_nothing(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, "", 0, 0, 6);
	unpacks_to(&gz, "", 0);
	add_member(&gz, "", 0, 0, 6);
	add_member(&gz, "x", 1, 0, 6);
	unpacks_to(&gz, "x", 1);
	buf_fini(&gz);
}

static void zeros_after_the_stream_are_padding(void **state)
{
	static const uint8_t zeros[300000];
	struct buf gz = BUF_INIT(2 << 20);

	add_member(&gz, sample, 5000, 0, 6);
	buf_add(&gz, zeros, 1, NULL);
	unpacks_to(&gz, sample, 5000);
	buf_add(&gz, zeros, sizeof(zeros), NULL);
	unpacks_to(&gz, sample, 5000);
	add_member(&gz, sample, 5000, 0, 6); /* a member after padding is no padding */
	refused(&gz, "are not zeros");
	buf_fini(&gz);
}

static void other_bytes_after_the_stream_are_refused_with_their_offset(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);
	char at[64];

	add_member(&gz, sample, 5000, 0, 6);
	snprintf(at, sizeof(at), "at byte %zu, are neither zeros nor a member", gz.len);
	buf_add(&gz, "garbage", 7, NULL);
	refused(&gz, at);
	buf_fini(&gz);
}

/* ISA-L returns success for it. */
static void a_stream_cut_anywhere_is_refused(void **state)
{
	struct buf gz = BUF_INIT(2 << 20);
	size_t one;

	add_member(&gz, sample, 300, NAME | EXTRA | HCRC, 6);
	one = gz.len;
	add_member(&gz, sample, sample_n, 0, 6);
	for (size_t n = 0; n < gz.len; n += n < 1000 || n + 20 > gz.len ? 1 : 10007) {
		struct buf cut = BUF_INIT(2 << 20);
		char words[64];

		buf_add(&cut, gz.data, n, NULL);
		snprintf(words, sizeof(words), "truncated after %zu bytes", n);
		if (n == one)
			unpacks_to(&cut, sample, 300);
		else
			refused(&cut, words);
		buf_fini(&cut);
	}
	buf_fini(&gz);
}

static void a_wrong_trailer_is_refused(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, sample, 5000, 0, 6);
	gz.data[gz.len - 8] ^= 1;
	refused(&gz, "CRC-32");
	gz.data[gz.len - 8] ^= 1;
	gz.data[gz.len - 1] ^= 1;
	refused(&gz, "5000 bytes, its trailer says");
	buf_fini(&gz);
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, sample, 1500, 0, 6);
	for (size_t bit = 10 * 8; bit < gz.len * 8; bit++) {
		if (bit / 8 ==
		    gz.len - 9) /* the deflate stream's last byte: some of it is unused */
			continue;
		gz.data[bit / 8] ^= (char)(1 << bit % 8);
		refused(&gz, "");
		gz.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	buf_fini(&gz);
}

static void a_distance_past_the_members_start_is_refused(void **state)
{
	/* a static block: length 3, distance 1, end of block; the byte before is another member's
	 */
	static const uint8_t second[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 0x03, 0x02, 0x00};
	struct buf gz = BUF_INIT(1 << 20);

	add_member(&gz, sample, 5000, 0, 6);
	buf_add(&gz, second, sizeof(second), NULL);
	le32(&gz, deflate_crc32(0, (uint8_t[]){sample[4999], sample[4999], sample[4999]}, 3));
	le32(&gz, 3);
	refused(&gz, "deflate stream is broken");
	buf_fini(&gz);
}

static void the_fast_engine_is_there_where_the_build_says_so(void **state)
{
	struct engine *x = engine_isal();

#ifdef HAVE_ISAL
	assert_non_null(x);
	x->ops->free(x);
#else
	assert_null(x);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_level_and_strategy_unpacks),
		T(headers_may_have_extra_name_comment_and_checksum),
		T(a_header_with_a_wrong_checksum_is_refused),
		T(reserved_flags_are_refused),
		T(thousands_of_members_are_one_stream),
		T(an_empty_member_unpacks_to_nothing),
		T(zeros_after_the_stream_are_padding),
		T(other_bytes_after_the_stream_are_refused_with_their_offset),
		T(a_stream_cut_anywhere_is_refused),
		T(a_wrong_trailer_is_refused),
		T(every_flipped_bit_is_noticed),
		T(a_distance_past_the_members_start_is_refused),
		T(the_fast_engine_is_there_where_the_build_says_so),
	};

	return cmocka_run_group_tests(tests, make_sample, free_sample);
}
