/* The check values are those of Go's hash/crc64 with the ISO table. */
#include "tests/unit/unit.h"

#include <string.h>

#include "worker/codec/crc64.h"

static void the_standard_vector(void **state)
{
	assert_int_equal(crc64(0, "123456789", 9), 0xb90956c775a41001u);
	assert_int_equal(crc64(0, "x", 1), 0x2310000000000000u);
	assert_int_equal(crc64(0, "", 0), 0);
}

/* x^64 + x^4 + x^3 + x + 1, a bit at a time. */
static uint64_t by_bits(const uint8_t *p, size_t n)
{
	uint64_t crc = ~(uint64_t)0;

	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0xd800000000000000u : crc >> 1;
	}
	return ~crc;
}

static void any_length_at_any_place_in_any_pieces(void **state)
{
	uint8_t b[700];
	uint32_t s = 1;

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)((s = s * 1103515245 + 12345) >> 16);
	for (size_t from = 0; from < 16; from++) {
		for (size_t n = 0; from + n <= sizeof(b); n += 1 + n / 9) {
			uint64_t want = by_bits(b + from, n);
			size_t half = n / 3;

			assert_int_equal(crc64(0, b + from, n), want);
			assert_int_equal(crc64(crc64(0, b + from, half), b + from + half, n - half),
					 want);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_standard_vector),
		T(any_length_at_any_place_in_any_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
