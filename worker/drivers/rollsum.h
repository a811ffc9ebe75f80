/* worker/drivers/rollsum.h - where podman's zstd:chunked cuts a file: formats/zstd-chunked.md §3.2.
 */
#ifndef WORKER_DRIVERS_ROLLSUM_H
#define WORKER_DRIVERS_ROLLSUM_H

#include <stdbool.h>
#include <stddef.h>
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

/* Bytes until a chunk ends after one (*split), or a zero comes where zeros do not count, or all n.
 * As rollsum_byte does, with its state in registers. */
static inline size_t rollsum_span(struct rollsum *r, const uint8_t *p, size_t n, bool zeros,
				  bool *split)
{
	uint32_t s1 = r->s1, s2 = r->s2;
	unsigned at = r->at;
	size_t i = 0;
	bool end = false;

	while (i < n && !end && (zeros || p[i])) {
		uint8_t gone = r->window[at], c = p[i++];

		s1 += (uint32_t)c - gone;
		s2 += s1 - ROLL_WINDOW * (gone + ROLL_OFFSET);
		r->window[at] = c;
		at = (at + 1) % ROLL_WINDOW;
		end = (s2 & ((1u << ROLL_BITS) - 1)) == (1u << ROLL_BITS) - 1;
	}
	r->s1 = s1;
	r->s2 = s2;
	r->at = at;
	*split = end;
	return i;
}

#endif
