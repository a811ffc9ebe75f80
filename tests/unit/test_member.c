/* worker/codec/member.c: one member of any length, that our own decoders read; a flipped byte is
 * seen. */
#include "tests/unit/pack.h"

#include "worker/codec/member.h"

static const struct encode_as how[] = {{.encoding = ENCODE_GZIP},
				       {.encoding = ENCODE_ZSTD, .checksum = 1}};
static const enum codec codecs[] = {CODEC_GZIP, CODEC_ZSTD};

static int keep(void *arg, const void *p, size_t n, struct err *e)
{
	return buf_add(arg, p, n, e);
}

static int pack_in_parts(const struct encode_as *as, const char *p, size_t n, size_t part,
			 struct buf *to, struct err *e)
{
	scoped(member_freep) struct member *m = NULL;

	buf_init(to, 1 << 28);
	if (member_open(&m, as, keep, to, e) < 0)
		return -1;
	for (size_t at = 0; at < n; at += part)
		if (member_write(m, p + at, n - at < part ? n - at : part, e) < 0)
			return -1;
	return member_finish(m, e);
}

static char *some_text(size_t n)
{
	char *p = malloc(n);
	uint32_t s = 3;

	for (size_t i = 0; i < n; i++)
		p[i] = "0123456789abcdef"[(s = s * 1103515245 + 12345) >> 20 & 15];
	return p;
}

#ifndef ACCEL_FAULTS
#define FLIPPED false
#else
#define FLIPPED true
#endif

static __attribute__((unused)) void what_is_packed_unpacks_to_the_same(void **state)
{
	const size_t lengths[] = {0, 1, 70000, 9 << 20};
	char *data = some_text(9 << 20);

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < 4; i++) {
			scoped(buf_fini) struct buf packed = {0};
			scoped(source_freep) struct source *s = NULL;
			struct codec_opts o = {0};
			char *back = malloc(lengths[i] + 1);
			struct err e = {0};

			if (pack_in_parts(&how[k], data, lengths[i], 10007, &packed, &e) < 0)
				fail_msg("%s", e.text);
			s = source_from_memory(packed.data, packed.len);
			assert_int_equal(codec_unpack(&s, codecs[k], &o, &e), 0);
			assert_int_equal(source_read(s, back, lengths[i] + 1, &e), lengths[i]);
			assert_memory_equal(back, data, lengths[i]);
			free(back);
		}
	free(data);
}

static __attribute__((unused)) void a_flipped_byte_is_seen_at_once(void **state)
{
	char *data = some_text(1 << 20);

	for (size_t k = 0; k < 2; k++) {
		scoped(buf_fini) struct buf packed = {0};
		struct err e = {0};

		assert_int_equal(pack_in_parts(&how[k], data, 1 << 20, 4096, &packed, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
	}
	free(data);
}

/* The fault table is read once in a process: with fault points built in, every byte is flipped
 * here. */
int main(void)
{
	const struct CMUnitTest clean[] = {T(what_is_packed_unpacks_to_the_same)};
	const struct CMUnitTest flipped[] = {T(a_flipped_byte_is_seen_at_once)};

	if (!FLIPPED)
		return cmocka_run_group_tests(clean, NULL, NULL);
	setenv("ACCEL_FAULT", "pool.flip:err=CORRUPT", 1);
	return cmocka_run_group_tests(flipped, NULL, NULL);
}
