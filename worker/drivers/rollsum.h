/* worker/drivers/rollsum.h - where podman's zstd:chunked cuts a file: formats/zstd-chunked.md §3.2.
 *
 * Over the last 64 bytes, the newest first: s1 = sum of (c + 31), s2 = 64 * 63 * 31 + the sum of
 * (k + 1) * c[k].  A chunk ends after a byte that leaves the low 16 bits of s2 all ones, so sixteen
 * bits are all that is kept. */
#ifndef WORKER_DRIVERS_ROLLSUM_H
#define WORKER_DRIVERS_ROLLSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROLL_WINDOW 64u
#define ROLL_OFFSET 31u
#define HOLE_MIN 1024u /* zeros in a row that are a chunk of their own */

struct rollsum {
	uint16_t s1, s2;
	uint8_t window[ROLL_WINDOW]; /* the oldest first */
};

/* As if 64 zeros had passed. */
#define ROLLSUM_INIT                                                                               \
	{                                                                                          \
		.s1 = (uint16_t)(ROLL_WINDOW * ROLL_OFFSET),                                       \
		.s2 = (uint16_t)(ROLL_WINDOW * (ROLL_WINDOW - 1) * ROLL_OFFSET)                    \
	}

/* Bytes until a chunk ends after one (*split), or all n. */
size_t rollsum_span(struct rollsum *r, const uint8_t *p, size_t n, bool *split);
/* n zeros that end no chunk. */
void rollsum_zeros(struct rollsum *r, uint64_t n);

#endif
