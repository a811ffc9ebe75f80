/* worker/rafs/blake3.c - the tree of BLAKE3, and the portable compression function.
 *
 * Input is cut into chunks of 1 KiB; each gives a chaining value (cv), and a binary tree of parents
 * joins them.  The tree's shape, "the left side is the largest power of two that leaves something
 * for the right", is the same as joining neighbours level by level and carrying an odd last one up.
 * So input is taken in runs of 64 chunks, each reduced to one cv with as many lanes as the CPU has,
 * and the few cvs of runs are joined one by one. */
#include "worker/rafs/blake3.h"

#include <string.h>

#define RUN 64u /* chunks; a power of two */
#define RUN_BYTES ((size_t)RUN * BLAKE3_CHUNK)
#define DEPTH 54 /* 2^64 bytes are 2^48 runs */

const uint32_t blake3_iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* Section 2.2, "the message permutation", applied 0 to 6 times. */
const uint8_t blake3_schedule[7][16] = {
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
	{3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
	{10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
	{12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
	{9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
	{11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t ror(uint32_t v, unsigned n)
{
	return v >> n | v << (32 - n);
}

static inline void mix(uint32_t s[16], unsigned a, unsigned b, unsigned c, unsigned d, uint32_t x,
		       uint32_t y)
{
	s[a] += s[b] + x;
	s[d] = ror(s[d] ^ s[a], 16);
	s[c] += s[d];
	s[b] = ror(s[b] ^ s[c], 12);
	s[a] += s[b] + y;
	s[d] = ror(s[d] ^ s[a], 8);
	s[c] += s[d];
	s[b] = ror(s[b] ^ s[c], 7);
}

/* One block of n bytes (shorter ones are padded with zeros) into cv. */
static void compress(uint32_t cv[8], const uint8_t *block, size_t n, uint64_t counter,
		     uint8_t flags)
{
	uint8_t padded[BLAKE3_BLOCK];
	uint32_t m[16], s[16];

	if (n < BLAKE3_BLOCK) {
		memset(padded, 0, sizeof(padded));
		if (n)
			memcpy(padded, block, n);
		block = padded;
	}
	for (unsigned i = 0; i < 16; i++)
		m[i] = load32(block + 4 * i);
	memcpy(s, cv, 32);
	memcpy(s + 8, blake3_iv, 16);
	s[12] = (uint32_t)counter;
	s[13] = (uint32_t)(counter >> 32);
	s[14] = (uint32_t)n;
	s[15] = flags;
	for (unsigned r = 0; r < 7; r++) {
		const uint8_t *w = blake3_schedule[r];

		mix(s, 0, 4, 8, 12, m[w[0]], m[w[1]]);
		mix(s, 1, 5, 9, 13, m[w[2]], m[w[3]]);
		mix(s, 2, 6, 10, 14, m[w[4]], m[w[5]]);
		mix(s, 3, 7, 11, 15, m[w[6]], m[w[7]]);
		mix(s, 0, 5, 10, 15, m[w[8]], m[w[9]]);
		mix(s, 1, 6, 11, 12, m[w[10]], m[w[11]]);
		mix(s, 2, 7, 8, 13, m[w[12]], m[w[13]]);
		mix(s, 3, 4, 9, 14, m[w[14]], m[w[15]]);
	}
	for (unsigned i = 0; i < 8; i++)
		cv[i] = s[i] ^ s[i + 8];
}

static void cv_store(uint8_t out[32], const uint32_t cv[8])
{
	for (unsigned i = 0; i < 8; i++)
		store32(out + 4 * i, cv[i]);
}

/* Any chunk, the last and shorter one too; extra: BLAKE3_ROOT for a lone chunk. */
static void chunk(uint8_t out[32], const uint8_t *p, size_t n, uint64_t counter, uint8_t extra)
{
	uint8_t flags = BLAKE3_CHUNK_START;
	uint32_t cv[8];

	memcpy(cv, blake3_iv, sizeof(cv));
	while (n > BLAKE3_BLOCK) {
		compress(cv, p, BLAKE3_BLOCK, counter, flags);
		flags = 0;
		p += BLAKE3_BLOCK;
		n -= BLAKE3_BLOCK;
	}
	compress(cv, p, n, counter, (uint8_t)(flags | BLAKE3_CHUNK_END | extra));
	cv_store(out, cv);
}

static void parent(uint8_t out[32], const uint8_t pair[64], uint8_t extra)
{
	uint32_t cv[8];

	memcpy(cv, blake3_iv, sizeof(cv));
	compress(cv, pair, BLAKE3_BLOCK, 0, (uint8_t)(BLAKE3_PARENT | extra));
	cv_store(out, cv);
}

/* As many inputs of j, of `n`, as fill whole groups of lanes; returns how many were done. */
static size_t many(enum blake3_path path, struct blake3_job j, size_t n, uint8_t *cvs)
{
	size_t done = 0;

#if defined(__x86_64__)
	for (; path == BLAKE3_AVX2 && n - done >= 8; done += 8) {
		blake3_lanes8_avx2(&j, cvs + 32 * done);
		j.in += 8 * j.stride;
		j.counter += j.count ? 8 : 0;
	}
#endif
#if defined(__x86_64__) || defined(__ARM_NEON)
	for (; path != BLAKE3_PORTABLE && n - done >= 4; done += 4) {
		blake3_lanes4(&j, cvs + 32 * done);
		j.in += 4 * j.stride;
		j.counter += j.count ? 4 : 0;
	}
#endif
	return done;
}

/* Joins neighbours, in place, until at most `until` cvs are left. */
static size_t join(enum blake3_path path, uint8_t *cvs, size_t n, size_t until)
{
	while (n > until) {
		size_t pairs = n / 2;
		uint8_t joined[RUN / 2 * 32];
		size_t i =
			many(path,
			     (struct blake3_job){
				     .in = cvs, .stride = 64, .blocks = 1, .flags = BLAKE3_PARENT},
			     pairs, joined);

		for (; i < pairs; i++)
			parent(joined + 32 * i, cvs + 64 * i, 0);
		if (n % 2)
			memmove(cvs + 32 * pairs, cvs + 32 * (n - 1), 32);
		memcpy(cvs, joined, 32 * pairs);
		n = pairs + n % 2;
	}
	return n;
}

/* The cvs of a run's chunks (at least one, at most RUN; only the input's last may be short). */
static size_t run(enum blake3_path path, const uint8_t *p, size_t n, uint64_t counter, uint8_t *cvs)
{
	size_t whole = n / BLAKE3_CHUNK;
	size_t i = many(path,
			(struct blake3_job){.in = p,
					    .stride = BLAKE3_CHUNK,
					    .blocks = BLAKE3_CHUNK / BLAKE3_BLOCK,
					    .counter = counter,
					    .count = true,
					    .first = BLAKE3_CHUNK_START,
					    .last = BLAKE3_CHUNK_END},
			whole, cvs);

	for (; i * BLAKE3_CHUNK < n; i++) {
		size_t at = i * BLAKE3_CHUNK;

		chunk(cvs + 32 * i, p + at, n - at < BLAKE3_CHUNK ? n - at : BLAKE3_CHUNK,
		      counter + i, 0);
	}
	return i;
}

void blake3_hash_by(enum blake3_path path, uint8_t out[BLAKE3_OUT], const void *data, size_t n)
{
	const uint8_t *p = data;
	uint8_t stack[DEPTH][32], cvs[RUN * 32], pair[64];
	size_t depth = 0, left;
	uint64_t runs = 0;

	if (n <= BLAKE3_CHUNK) {
		chunk(out, p, n, 0, BLAKE3_ROOT);
		return;
	}
	for (; n > RUN_BYTES;
	     n -= RUN_BYTES, p += RUN_BYTES) { /* more follows: none of these is the root */
		join(path, cvs, run(path, p, RUN_BYTES, runs * RUN, cvs), 1);
		runs++;
		for (uint64_t r = runs; r % 2 == 0;
		     r /= 2) { /* whole subtrees, as a binary counter carries */
			memcpy(pair, stack[--depth], 32);
			memcpy(pair + 32, cvs, 32);
			parent(cvs, pair, 0);
		}
		memcpy(stack[depth++], cvs, 32);
	}
	left = run(path, p, n, runs * RUN, cvs);
	if (!depth) {
		join(path, cvs, left, 2);
		parent(out, cvs, BLAKE3_ROOT);
		return;
	}
	join(path, cvs, left, 1);
	while (depth) {
		memcpy(pair, stack[--depth], 32);
		memcpy(pair + 32, cvs, 32);
		parent(cvs, pair, depth ? 0 : BLAKE3_ROOT);
	}
	memcpy(out, cvs, 32);
}

bool blake3_has(enum blake3_path path)
{
	switch (path) {
	case BLAKE3_PORTABLE:
		return true;
#if defined(__x86_64__)
	case BLAKE3_SSE41:
		return __builtin_cpu_supports("sse4.1");
	case BLAKE3_AVX2:
		return __builtin_cpu_supports("avx2");
#elif defined(__ARM_NEON)
	case BLAKE3_NEON:
		return true;
#endif
	default:
		return false;
	}
}

enum blake3_path blake3_best(void)
{
	static const enum blake3_path order[] = {BLAKE3_AVX2, BLAKE3_NEON, BLAKE3_SSE41};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (blake3_has(order[i]))
			return order[i];
	return BLAKE3_PORTABLE;
}

void blake3_hash(uint8_t out[BLAKE3_OUT], const void *p, size_t n)
{
	blake3_hash_by(blake3_best(), out, p, n);
}
