#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "worker/drivers/rollsum.h"

enum { N = 1 << 20 };

/* formats/zstd-chunked.md §3.2: after which bytes the sum cuts. */
static void ends_by_the_sheet(const uint8_t *p, size_t n, bool *ends)
{
	uint32_t s1 = 64 * 31, s2 = 64 * 63 * 31;

	for (size_t i = 0; i < n; i++) {
		uint32_t gone = i < 64 ? 0 : p[i - 64];

		s1 += p[i] - gone;
		s2 += s1 - 64 * (gone + 31);
		ends[i] = (s2 & 0xffff) == 0xffff;
	}
}

static uint8_t *some_bytes(uint32_t seed)
{
	uint8_t *p = malloc(N);

	for (size_t i = 0; i < N; i++)
		p[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 20);
	return p;
}

static void spans_of_any_length_end_where_the_sheet_says(void **state)
{
	uint8_t *p = some_bytes(7);
	bool *ends = malloc(N);

	ends_by_the_sheet(p, N, ends);
	for (size_t most = 1; most < N; most += most < 300 ? 1 : most) {
		struct rollsum r = ROLLSUM_INIT;

		for (size_t at = 0; at < N;) {
			size_t n = most < N - at ? most : N - at, got;
			bool split;

			got = rollsum_span(&r, p + at, n, &split);
			assert_in_range(got, 1, n);
			for (size_t i = 0; i + 1 < got; i++)
				assert_false(ends[at + i]);
			assert_int_equal(split, ends[at + got - 1]);
			assert_true(split || got == n);
			at += got;
		}
	}
	free(ends);
	free(p);
}

static void zeros_pass_without_a_cut(void **state)
{
	uint8_t *p = some_bytes(9);

	for (size_t zeros = 0; zeros < 200; zeros++) {
		struct rollsum a = ROLLSUM_INIT, b = ROLLSUM_INIT;
		static const uint8_t none[200];
		bool split;

		for (size_t at = 0; at < 500;)
			at += rollsum_span(&a, p + at, 500 - at, &split);
		for (size_t at = 0; at < 500;)
			at += rollsum_span(&b, p + at, 500 - at, &split);
		rollsum_zeros(&a, zeros);
		for (size_t at = 0; at < zeros;)
			at += rollsum_span(&b, none, zeros - at, &split);
		assert_memory_equal(&a, &b, sizeof(a));
	}
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(spans_of_any_length_end_where_the_sheet_says),
		T(zeros_pass_without_a_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
