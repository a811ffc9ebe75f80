/* worker/codec/blocks.h - deflate block boundaries of a gzip stream, for zran: where inflate can
 * start again.
 *
 * To go on at a boundary: inflateInit2(-15); if in_bits, inflatePrime(in_bits, in_byte >> (8 -
 * in_bits)); set the window as dictionary; feed bytes from in_pos on.  Reported in order, before
 * any byte after the boundary is handed out: the first block of a member (no window), each block
 * that starts in it, and the member's end (`end`).  Runs of blocks without output are reported
 * once. */
#ifndef WORKER_CODEC_BLOCKS_H
#define WORKER_CODEC_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block {
	uint64_t in_pos; /* first whole byte of the compressed blob that belongs to the block */
	uint8_t in_bits; /* bits of the byte before in_pos that belong to it too, as zlib's
			    inflatePrime wants them */
	uint8_t in_byte; /* that byte (when in_bits is over 0) */
	bool end; /* no block: the member's deflate stream ended here, its 8 bytes of trailer follow
		     at in_pos */
	uint64_t out_pos; /* in the unpacked stream */
	uint64_t member_in,
		member_out; /* where this gzip member's deflate stream began (after its header) */
	const uint8_t
		*window; /* the 32 KiB before out_pos (fewer at the start); valid during the call */
	size_t window_n;
};

struct err;
struct restart { /* what was kept of a boundary */
	const uint8_t *window;
	size_t window_n; /* 32 KiB at most */
	uint8_t in_bits, in_byte;
};
/* As a reader goes on there: `in` begins at in_pos; trailers and headers of gzip members are
 * crossed.  All n bytes of `out`, or ERR_CORRUPT. */
int blocks_restart(const struct restart *r, const void *in, size_t in_n, void *out, size_t n,
		   struct err *e);

#endif
