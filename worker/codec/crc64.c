/* worker/codec/crc64.c - by ISA-L where it is built in (it multiplies without carry), else a table.
 */
#include "worker/codec/crc64.h"

#ifdef HAVE_ISAL
#include <isa-l/crc64.h>

uint64_t crc64(uint64_t crc, const void *p, size_t n)
{
	return crc64_iso_refl(crc, p, n);
}
#else

static const uint64_t table[16] = {
	/* of four bits */
	0x0000000000000000, 0x1b00000000000000, 0x3600000000000000, 0x2d00000000000000,
	0x6c00000000000000, 0x7700000000000000, 0x5a00000000000000, 0x4100000000000000,
	0xd800000000000000, 0xc300000000000000, 0xee00000000000000, 0xf500000000000000,
	0xb400000000000000, 0xaf00000000000000, 0x8200000000000000, 0x9900000000000000,
};

uint64_t crc64(uint64_t crc, const void *p, size_t n)
{
	const uint8_t *b = p;

	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= b[i];
		crc = table[crc & 15] ^ crc >> 4;
		crc = table[crc & 15] ^ crc >> 4;
	}
	return ~crc;
}
#endif
