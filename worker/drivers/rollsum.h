/* worker/drivers/rollsum.h - where podman's zstd:chunked cuts a file: formats/zstd-chunked.md §3.2.
 */
#ifndef WORKER_DRIVERS_ROLLSUM_H
#define WORKER_DRIVERS_ROLLSUM_H

#include <stdbool.h>
#include <stdint.h>

#define ROLL_WINDOW 64u
#define ROLL_OFFSET 31u
#define ROLL_BITS 16
#define HOLE_MIN 1024u /* zeros in a row that are a chunk of their own */

struct rollsum {
	uint32_t s1, s2;
	unsigned at;
	uint8_t window[ROLL_WINDOW];
};

#define ROLLSUM_INIT                                                                               \
	{                                                                                          \
		.s1 = ROLL_WINDOW * ROLL_OFFSET,                                                   \
		.s2 = ROLL_WINDOW * (ROLL_WINDOW - 1) * ROLL_OFFSET                                \
	}

/* True: a chunk ends after this byte. */
static inline bool rollsum_byte(struct rollsum *r, uint8_t c)
{
	uint8_t gone = r->window[r->at];

	r->s1 += (uint32_t)c - gone;
	r->s2 += r->s1 - ROLL_WINDOW * (gone + ROLL_OFFSET);
	r->window[r->at] = c;
	r->at = (r->at + 1) % ROLL_WINDOW;
	return (r->s2 & ((1u << ROLL_BITS) - 1)) == (1u << ROLL_BITS) - 1;
}

#endif
