/* worker/codec/blocks.h - deflate block boundaries of a gzip stream, for zran: where inflate can
 * start again. */
#ifndef WORKER_CODEC_BLOCKS_H
#define WORKER_CODEC_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

struct block {
	uint64_t in_pos; /* byte of the compressed blob that holds the first bit of the block */
	uint8_t in_bits; /* unused bits of the byte before in_pos, as zlib's inflatePrime wants them
			  */
	uint8_t in_byte; /* that byte */
	uint64_t out_pos;		/* in the unpacked stream */
	uint64_t member_in, member_out; /* where this gzip member began */
	const uint8_t
		*window; /* the 32 KiB before out_pos (fewer at the start); valid during the call */
	size_t window_n;
};

#endif
