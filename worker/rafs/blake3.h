/* worker/rafs/blake3.h - BLAKE3-256 of a piece of memory, as RAFS names its chunks by.
 *
 * BLAKE3 specification (Aumasson, Neves, O'Connor, Wilcox-O'Hearn), section 2; the hash mode alone,
 * 32 bytes of output.  The fastest path that this CPU has is used: 8 chunks at a time with AVX2, 4
 * with SSE4.1 or NEON, or one by one.  All paths give the same bytes. */
#ifndef WORKER_RAFS_BLAKE3_H
#define WORKER_RAFS_BLAKE3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLAKE3_OUT 32

void blake3_hash(uint8_t out[BLAKE3_OUT], const void *p, size_t n);

/* One path by name, for tests and benchmarks. */
enum blake3_path { BLAKE3_PORTABLE, BLAKE3_SSE41, BLAKE3_AVX2, BLAKE3_NEON, BLAKE3_PATHS };
bool blake3_has(enum blake3_path path); /* built in, and this CPU can */
enum blake3_path blake3_best(void);
void blake3_hash_by(enum blake3_path path, uint8_t out[BLAKE3_OUT], const void *p, size_t n);

/* ---- between blake3.c and blake3_simd.c */
#define BLAKE3_CHUNK 1024u
#define BLAKE3_BLOCK 64u
enum blake3_flag {
	BLAKE3_CHUNK_START = 1,
	BLAKE3_CHUNK_END = 2,
	BLAKE3_PARENT = 4,
	BLAKE3_ROOT = 8
};
extern const uint32_t blake3_iv[8];
extern const uint8_t blake3_schedule[7][16];
struct blake3_job { /* chaining values of `lanes` inputs of equal length, one after another in
		       memory */
	const uint8_t *in;
	size_t stride;	  /* bytes from one input to the next */
	size_t blocks;	  /* of 64 bytes, in each */
	uint64_t counter; /* of the first input; the next ones follow if count */
	bool count;
	uint8_t flags, first, last; /* flags of every block; added for the first and the last */
};
void blake3_lanes8_avx2(const struct blake3_job *j, uint8_t *cvs);
void blake3_lanes4(const struct blake3_job *j, uint8_t *cvs); /* SSE4.1 or NEON */

#endif
