/* Block boundaries: inflate starts again at each of them with what was reported, and gives the same
 * bytes. */
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <zlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/stream.h"
#include "worker/codec/blocks.h"
#include "worker/codec/codec.h"
#include "worker/codec/deflate.h"

struct kept {
	struct block b;
	uint8_t *window;
};
struct seen {
	struct kept *k;
	size_t n, cap;
	int fail_at; /* the report of that number fails */
};

static int keep(void *arg, const struct block *b, struct err *e)
{
	struct seen *s = arg;

	if (s->fail_at && s->n + 1 == (size_t)s->fail_at)
		return err_set(e, ERR_CANCELLED, "enough");
	mem_grow(s->k, s->n, s->cap);
	s->k[s->n].b = *b;
	s->k[s->n++].window =
		mem_dup(b->window_n ? (const void *)b->window : "", b->window_n ? b->window_n : 1);
	return 0;
}

static void seen_fini(struct seen *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->k[i].window);
	free(s->k);
}

static void fill(uint8_t *p, size_t n)
{
	uint32_t x = 7;

	for (size_t i = 0; i < n; i++) {
		x = x * 1103515245 + 12345;
		p[i] = (uint8_t)((x >> 16) % (1 + i / 20000 % 200));
	}
}

/* A member of `flushes` parts, each ended with a flush of another kind: dynamic, stored, empty
 * blocks at any bit. */
static void add_member(struct buf *gz, const uint8_t *p, size_t n, int flushes, int level)
{
	static const int kinds[] = {Z_SYNC_FLUSH, Z_PARTIAL_FLUSH, Z_BLOCK, Z_FULL_FLUSH};
	size_t cap = n + n / 50 + 100000, at = 0;
	uint8_t *out = mem_alloc(cap);
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, 31, 5, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_out = out;
	z.avail_out = (uInt)cap;
	for (int i = 0; i <= flushes; i++) {
		size_t part = i == flushes ? n - at : n / ((size_t)flushes + 1);

		z.next_in = (Bytef *)p + at;
		z.avail_in = (uInt)part;
		at += part;
		assert_true(deflate(&z, i == flushes ? Z_FINISH : kinds[i % 4]) >= 0);
	}
	buf_add(gz, out, cap - z.avail_out, NULL);
	deflateEnd(&z);
	free(out);
}

static ssize_t unpack(const struct buf *gz, struct seen *s, uint8_t *out, size_t cap, size_t step,
		      struct err *e)
{
	const struct codec_opts o = {.on_block = keep, .arg = s};
	struct source *src = source_from_memory(gz->data, gz->len);
	size_t n = 0;
	ssize_t r;
	uint8_t *part = mem_alloc(step);

	assert_int_equal(codec_unpack(&src, CODEC_GZIP, &o, e), 0);
	while ((r = source_read(src, part, step, e)) > 0) {
		assert_true((size_t)r <= cap - n);
		memcpy(out + n, part, (size_t)r);
		n += (size_t)r;
	}
	free(part);
	source_freep(&src);
	return r < 0 ? -1 : (ssize_t)n;
}

/* From this boundary to the member's end, as a zran reader does it. */
static void restarts(const struct buf *gz, const struct kept *k, const uint8_t *want, size_t n)
{
	uint8_t *out = mem_alloc(n + 1);
	z_stream z = {0};

	assert_int_equal(inflateInit2(&z, -15), Z_OK);
	if (k->b.in_bits) {
		assert_int_equal((uint8_t)gz->data[k->b.in_pos - 1], k->b.in_byte);
		assert_int_equal(inflatePrime(&z, k->b.in_bits, k->b.in_byte >> (8 - k->b.in_bits)),
				 Z_OK);
	}
	if (k->b.window_n)
		assert_int_equal(inflateSetDictionary(&z, k->window, (uInt)k->b.window_n), Z_OK);
	z.next_in = (Bytef *)gz->data + k->b.in_pos;
	z.avail_in = (uInt)(gz->len - k->b.in_pos);
	z.next_out = out;
	z.avail_out = (uInt)n;
	while (z.avail_out > 0 && inflate(&z, Z_NO_FLUSH) == Z_OK)
		;
	assert_int_equal(z.avail_out, 0);
	assert_memory_equal(out, want, n);
	inflateEnd(&z);
	free(out);
}

static void every_boundary_is_a_place_to_start_again(void **state)
{
	static const size_t steps[] = {1 << 20, 4096, 77};
	size_t n = 900000;
	uint8_t *want = mem_alloc(n), *out = mem_alloc(n);
	struct buf gz = BUF_INIT(4 << 20);

	fill(want, n);
	add_member(&gz, want, 500000, 23, 6);
	add_member(&gz, want + 500000, 100000, 0, 0);
	add_member(&gz, want + 600000, 300000, 9, 9);
	for (size_t i = 0; i < 3; i++) {
		struct seen s = {0};
		struct err e = {0};
		size_t ends = 0, with_bits = 0;

		assert_int_equal(unpack(&gz, &s, out, n, steps[i], &e), n);
		assert_memory_equal(out, want, n);
		for (size_t b = 0; b < s.n; b++) {
			const struct kept *k = &s.k[b];
			size_t end = k->b.member_out < 500000	? 500000
				     : k->b.member_out < 600000 ? 600000
								: n;

			ends += k->b.end;
			with_bits += k->b.in_bits > 0;
			assert_true(b == 0 || k->b.out_pos >= s.k[b - 1].b.out_pos);
			assert_true(b == 0 || k->b.in_pos >= s.k[b - 1].b.in_pos);
			assert_int_equal(k->b.window_n, k->b.out_pos - k->b.member_out < 32768
								? k->b.out_pos - k->b.member_out
								: 32768);
			assert_memory_equal(k->window, want + k->b.out_pos - k->b.window_n,
					    k->b.window_n);
			if (k->b.end)
				assert_int_equal(k->b.out_pos, end);
			else
				restarts(&gz, k, want + k->b.out_pos, end - k->b.out_pos);
		}
		assert_int_equal(ends, 3);
		assert_true(s.n > 30);
		assert_true(with_bits > 5);
		seen_fini(&s);
	}
	free(want);
	free(out);
	buf_fini(&gz);
}

static void members_start_with_a_boundary_of_their_own(void **state)
{
	uint8_t want[3000], out[3000];
	struct buf gz = BUF_INIT(1 << 20);
	struct seen s = {0};
	struct err e = {0};
	size_t second;

	fill(want, sizeof(want));
	add_member(&gz, want, 1000, 0, 6);
	second = gz.len;
	add_member(&gz, want + 1000, 2000, 0, 6);
	assert_int_equal(unpack(&gz, &s, out, sizeof(out), 4096, &e), 3000);
	assert_int_equal(s.n, 4);
	assert_int_equal(s.k[0].b.in_pos, 10);
	assert_int_equal(s.k[0].b.in_bits, 0);
	assert_int_equal(s.k[0].b.window_n, 0);
	assert_true(s.k[1].b.end);
	assert_int_equal(s.k[1].b.in_pos, second - 8);
	assert_int_equal(s.k[2].b.in_pos, second + 10);
	assert_int_equal(s.k[2].b.member_in, second + 10);
	assert_int_equal(s.k[2].b.out_pos, 1000);
	assert_int_equal(s.k[2].b.member_out, 1000);
	assert_true(s.k[3].b.end);
	assert_int_equal(s.k[3].b.in_pos, gz.len - 8);
	seen_fini(&s);
	buf_fini(&gz);
}

/* 65,000 empty stored blocks: one report, and no 32 KiB copied for each. */
static void empty_blocks_are_reported_once(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);
	struct seen s = {0};
	struct err e = {0};
	uint8_t out[16];

	buf_add(&gz, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10, NULL);
	buf_add(&gz,
		"\x00\x03\x00\xfc\xff"
		"abc",
		8, NULL);
	for (int i = 0; i < 65000; i++)
		buf_add(&gz, "\x00\x00\x00\xff\xff", 5, NULL);
	buf_add(&gz,
		"\x01\x02\x00\xfd\xff"
		"de",
		7, NULL);
	for (int i = 0; i < 4; i++)
		buf_add_char(&gz, (char)(deflate_crc32(0, "abcde", 5) >> 8 * i), NULL);
	buf_add(&gz, "\5\0\0\0", 4, NULL);
	assert_int_equal(unpack(&gz, &s, out, sizeof(out), 16, &e), 5);
	assert_memory_equal(out, "abcde", 5);
	assert_int_equal(s.n, 3);
	assert_int_equal(s.k[1].b.out_pos, 3);
	assert_true(s.k[2].b.end);
	seen_fini(&s);
	buf_fini(&gz);
}

static void a_report_that_fails_fails_the_read_in_its_words(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);
	struct seen s = {.fail_at = 2};
	struct err e = {0};
	uint8_t want[3000], out[3000];

	fill(want, sizeof(want));
	add_member(&gz, want, sizeof(want), 3, 6);
	assert_int_equal(unpack(&gz, &s, out, sizeof(out), 4096, &e), -1);
	assert_int_equal(e.code, ERR_CANCELLED);
	assert_string_equal(e.text, "enough");
	seen_fini(&s);
	buf_fini(&gz);
}

static void cut_streams_are_refused_here_too(void **state)
{
	struct buf gz = BUF_INIT(1 << 20);
	uint8_t want[3000], out[3000];

	fill(want, sizeof(want));
	add_member(&gz, want, sizeof(want), 3, 6);
	while (gz.len > 0) {
		struct seen s = {0};
		struct err e = {0};

		gz.len--;
		assert_int_equal(unpack(&gz, &s, out, sizeof(out), 4096, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_text_has(e.text, "truncated");
		seen_fini(&s);
	}
	buf_fini(&gz);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_boundary_is_a_place_to_start_again),
		T(members_start_with_a_boundary_of_their_own),
		T(empty_blocks_are_reported_once),
		T(a_report_that_fails_fails_the_read_in_its_words),
		T(cut_streams_are_refused_here_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
