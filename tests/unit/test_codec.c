/* What a layer is packed with, by its first bytes; zstd streams; bounds on what comes out. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/codec/encode.h"
#include "worker/codec/zstd.h"

static void add_piece(struct buf *to, enum encoding how, const void *p, size_t n)
{
	const struct encode_as as = {how, 3, 1, 0};
	struct encoder *x = encoder_new();
	size_t cap = encode_bound(&as, n), got = 0;
	void *out = mem_alloc(cap);

	assert_int_equal(encode(x, &as, p, n, out, cap, &got, NULL), 0);
	buf_add(to, out, got, NULL);
	free(out);
	encoder_freep(&x);
}

static int unpack(const void *p, size_t n, enum codec c, const struct codec_opts *o, struct buf *to,
		  struct err *e)
{
	struct source *s = source_from_memory(p, n);
	char part[5000];
	ssize_t r;

	assert_int_equal(codec_unpack(&s, c, o, e), 0);
	while ((r = source_read(s, part, sizeof(part), e)) > 0)
		buf_add(to, part, (size_t)r, NULL);
	source_freep(&s);
	return r < 0 ? -1 : 0;
}

static void sniffed_as(const void *p, size_t n, enum codec want)
{
	struct source *s = source_from_memory(p, n);
	enum codec c = 77;
	char back[256];
	struct err e = {0};

	assert_int_equal(codec_sniff(&s, &c, &e), 0);
	assert_int_equal(c, want);
	assert_int_equal(codec_sniff(&s, &c, &e), 0); /* again: it is all still there */
	assert_int_equal(c, want);
	assert_int_equal(source_read(s, back, sizeof(back), &e), n);
	assert_memory_equal(back, p, n);
	source_freep(&s);
}

static void codecs_are_found_by_their_magic(void **state)
{
	static const char long_gzip[100] = "\x1f\x8b\x08";

	sniffed_as("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10, CODEC_GZIP);
	sniffed_as(long_gzip, sizeof(long_gzip), CODEC_GZIP);
	sniffed_as("\x28\xb5\x2f\xfd\x20\1\1\0\0", 9, CODEC_ZSTD);
	sniffed_as("\x50\x2a\x4d\x18\0\0\0\0", 8, CODEC_ZSTD); /* a skippable frame comes first */
	sniffed_as("\x5f\x2a\x4d\x18\0\0\0\0", 8, CODEC_ZSTD);
	sniffed_as("\x60\x2a\x4d\x18\0\0\0\0", 8, CODEC_NONE);
	sniffed_as("", 0, CODEC_NONE);
	sniffed_as("\x1f\x8b", 2, CODEC_NONE);
	sniffed_as("\x1f\x8b\x07", 3, CODEC_NONE);
	sniffed_as("\x28\xb5\x2f", 3, CODEC_NONE);
	sniffed_as("BZh91AY&SY", 10, CODEC_NONE);
	sniffed_as("usr/bin/\0\0\0\0", 12, CODEC_NONE);
}

static void plain_layers_pass_as_they_are(void **state)
{
	struct buf out = BUF_INIT(1000);
	struct err e = {0};

	assert_int_equal(unpack("a tar", 5, CODEC_NONE, NULL, &out, &e), 0);
	assert_string_equal(out.data, "a tar");
	buf_fini(&out);
}

static void frames_and_skippable_frames_are_one_stream(void **state)
{
	static const char skip[] = "\x5a\x2a\x4d\x18\x05\0\0\0extra";
	struct buf z = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20), want = BUF_INIT(1 << 20);
	struct err e = {0};

	buf_add(&z, skip, sizeof(skip) - 1, NULL);
	for (int i = 0; i < 300; i++) {
		char text[64];
		int n = snprintf(text, sizeof(text), "frame %d of many, ", i);

		add_piece(&z, ENCODE_ZSTD, text, (size_t)n);
		buf_add(&want, text, (size_t)n, NULL);
		if (i % 7 == 0)
			buf_add(&z, skip, sizeof(skip) - 1, NULL);
		if (i % 11 == 0)
			add_piece(&z, ENCODE_ZSTD, "", 0);
	}
	buf_add(&z, skip, sizeof(skip) - 1, NULL); /* zstd:chunked ends so */
	if (unpack(z.data, z.len, CODEC_ZSTD, NULL, &out, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(out.data, want.data);
	buf_fini(&z);
	buf_fini(&out);
	buf_fini(&want);
}

static void a_zstd_stream_cut_anywhere_is_refused(void **state)
{
	struct buf z = BUF_INIT(1 << 20);
	char text[6000];
	size_t first, n;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * i % 251 % 40);
	add_piece(&z, ENCODE_ZSTD, text, sizeof(text));
	first = z.len;
	add_piece(&z, ENCODE_ZSTD, text, sizeof(text));
	buf_add(&z, "\x5a\x2a\x4d\x18\x05\0\0\0extra", 13, NULL);
	for (n = 0; n < z.len; n++) {
		struct buf out = BUF_INIT(1 << 20);
		struct err e = {0};
		int r = unpack(z.data, n, CODEC_ZSTD, NULL, &out, &e);

		if (n == first || n == 2 * first) {
			assert_int_equal(r, 0);
		} else {
			char words[64];

			snprintf(words, sizeof(words), "truncated after %zu bytes", n);
			assert_int_equal(r, -1);
			assert_int_equal(e.code, ERR_CORRUPT);
			assert_text_has(e.text, words);
		}
		buf_fini(&out);
	}
	buf_fini(&z);
}

static void bytes_after_the_last_frame_are_refused_with_their_offset(void **state)
{
	static const char *const tails[] = {"x", "garbage, more than a frame's header",
					    "\0\0\0\0\0\0\0\0", "\x1f\x8b\x08",
					    "\x25\xb5\x2f\xfd\x20\1\1" /* zstd 0.5 */};

	for (size_t i = 0; i < 5; i++) {
		struct buf z = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
		struct err e = {0};
		char words[64];

		add_piece(&z, ENCODE_ZSTD, "abc", 3);
		snprintf(words, sizeof(words), "no zstd frame starts at byte %zu", z.len);
		buf_add(&z, tails[i], i == 2 ? 8 : strlen(tails[i]), NULL);
		assert_int_equal(unpack(z.data, z.len, CODEC_ZSTD, NULL, &out, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_text_has(e.text, words);
		buf_fini(&z);
		buf_fini(&out);
	}
}

static void a_flipped_zstd_byte_is_noticed_where_it_matters(void **state)
{
	struct buf z = BUF_INIT(1 << 20);
	char text[3000];
	size_t harmless = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * i % 251 % 40);
	add_piece(&z, ENCODE_ZSTD, text, sizeof(text));
	for (size_t i = 0; i < z.len; i++) {
		struct buf out = BUF_INIT(64 << 20);
		struct err e = {0};

		z.data[i] ^= 0x20;
		if (unpack(z.data, z.len, CODEC_ZSTD, NULL, &out, &e) ==
		    0) { /* a bit that says nothing */
			assert_int_equal(out.len, sizeof(text));
			assert_memory_equal(out.data, text, sizeof(text));
			harmless++;
		}
		z.data[i] ^= 0x20;
		buf_fini(&out);
	}
	assert_true(harmless < 3);
	buf_fini(&z);
}

/* A frame whose header asks for a window: descriptor byte, RFC 8878 3.1.1.1.2. */
static int with_window(uint8_t descriptor, bool large, uint64_t *window, struct err *e)
{
	/* one raw block of 3 bytes */
	char frame[] = "\x28\xb5\x2f\xfd\x00?\x19\x00\x00"
		       "abc";
	const struct codec_opts o = {.large_window = large};
	struct buf out = BUF_INIT(100);
	struct source *s;
	int r;

	frame[5] = (char)descriptor;
	s = source_from_memory(frame, sizeof(frame) - 1);
	assert_int_equal(codec_window(&s, CODEC_ZSTD, window, e), 0);
	source_freep(&s);
	r = unpack(frame, sizeof(frame) - 1, CODEC_ZSTD, &o, &out, e);
	if (r == 0)
		assert_string_equal(out.data, "abc");
	buf_fini(&out);
	return r;
}

static void large_zstd_windows_need_to_be_allowed(void **state)
{
	struct err e = {0};
	uint64_t window;

	assert_int_equal(with_window(13 << 3, false, &window, &e), 0); /* 8 MiB */
	assert_int_equal(window, 8 << 20);
	assert_int_equal(with_window(13 << 3 | 1, false, &window, &e), -1); /* 9 MiB */
	assert_int_equal(window, 9 << 20);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "zstd window of 9437184 bytes is over 8388608");
	assert_int_equal(with_window(13 << 3 | 1, true, &window, &e), 0);
	assert_int_equal(with_window(17 << 3, true, &window, &e), 0); /* 128 MiB */
	assert_int_equal(with_window(17 << 3 | 1, true, &window, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_int_equal(with_window(31 << 3 | 7, true, &window, &e), -1); /* 3.75 TiB */
	assert_int_equal(window, 3932160ull << 20);
	assert_int_equal(e.code, ERR_LIMIT);
}

/* One block of nothing, a checksum that fits, but 130 bytes announced: libzstd's verdict depends on
 * the size of the buffer it is given. */
static void a_false_content_size_is_refused_whatever_the_buffer(void **state)
{
	static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x82, 1,
					0,    0,    0x99, 0xe9, 0xd8, 0x51};

	for (size_t step = 1; step <= 65536; step *= 4) {
		struct source *s = source_from_memory(frame, sizeof(frame));
		char *part = mem_alloc(step);
		struct err e = {0};

		assert_int_equal(codec_unpack(&s, CODEC_ZSTD, NULL, &e), 0);
		assert_int_equal(source_read(s, part, step, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		source_freep(&s);
		free(part);
	}
}

static void a_bound_on_the_output_is_exact(void **state)
{
	char *text = mem_zalloc(100000);

	for (int c = CODEC_NONE; c <= CODEC_ZSTD; c++) {
		static const enum encoding how[] = {ENCODE_RAW, ENCODE_GZIP, ENCODE_ZSTD};
		struct buf z = BUF_INIT(1 << 20);

		add_piece(&z, how[c], text, 100000);
		for (uint64_t max = 99999; max <= 100001; max++) {
			const struct codec_opts o = {.max_out = max};
			struct buf out = BUF_INIT(1 << 20);
			struct err e = {0};
			int r = unpack(z.data, z.len, (enum codec)c, &o, &out, &e);

			assert_int_equal(r, max < 100000 ? -1 : 0);
			if (r < 0) {
				assert_int_equal(e.code, ERR_LIMIT);
				assert_text_has(e.text, "larger than 99999 bytes");
			}
			buf_fini(&out);
		}
		buf_fini(&z);
	}
	free(text);
}

static void an_empty_stream_is_truncated(void **state)
{
	for (int c = CODEC_GZIP; c <= CODEC_ZSTD; c++) {
		struct buf out = BUF_INIT(100);
		struct err e = {0};

		assert_int_equal(unpack("", 0, (enum codec)c, NULL, &out, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_text_has(e.text, "truncated after 0 bytes");
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(codecs_are_found_by_their_magic),
		T(plain_layers_pass_as_they_are),
		T(frames_and_skippable_frames_are_one_stream),
		T(a_zstd_stream_cut_anywhere_is_refused),
		T(bytes_after_the_last_frame_are_refused_with_their_offset),
		T(a_flipped_zstd_byte_is_noticed_where_it_matters),
		T(large_zstd_windows_need_to_be_allowed),
		T(a_false_content_size_is_refused_whatever_the_buffer),
		T(a_bound_on_the_output_is_exact),
		T(an_empty_stream_is_truncated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
