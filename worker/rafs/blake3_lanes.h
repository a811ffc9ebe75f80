/* worker/rafs/blake3_lanes.h - body of blake3_simd.c, included once for each instruction set, with
 * LANES (4 or 8), NAME(x), TARGET and ENTRY defined.  Not a header for anyone else. */

typedef uint32_t NAME(v) __attribute__((vector_size(4 * LANES)));
typedef uint8_t NAME(b) __attribute__((vector_size(4 * LANES)));
#define V NAME(v)
#define B NAME(b)

#if LANES == 8
#define BYTES(...) __VA_ARGS__, BYTES_NEXT(__VA_ARGS__)
#define BYTES_NEXT(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                 \
	a + 16, b + 16, c + 16, d + 16, e + 16, f + 16, g + 16, h + 16, i + 16, j + 16, k + 16,    \
		l + 16, m + 16, n + 16, o + 16, p + 16
#else
#define BYTES(...) __VA_ARGS__
#endif
#define ROR16(x)                                                                                   \
	((V)__builtin_shufflevector((B)(x), (B)(x),                                                \
				    BYTES(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)))
#define ROR8(x)                                                                                    \
	((V)__builtin_shufflevector((B)(x), (B)(x),                                                \
				    BYTES(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12)))
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

#define MIX(a, b, c, d, x, y)                                                                      \
	do {                                                                                       \
		a += b + (x);                                                                      \
		d = ROR16(d ^ a);                                                                  \
		c += d;                                                                            \
		b = ROR(b ^ c, 12);                                                                \
		a += b + (y);                                                                      \
		d = ROR8(d ^ a);                                                                   \
		c += d;                                                                            \
		b = ROR(b ^ c, 7);                                                                 \
	} while (0)

/* w[i] = LANES words of input i  ->  m[i] = word i of every input. */
TARGET static inline __attribute__((always_inline)) void NAME(transpose)(V w[LANES])
{
#if LANES == 8
	V t[8], u[8];

	for (int i = 0; i < 8; i += 2) { /* words, within 16-byte halves */
		t[i] = __builtin_shufflevector(w[i], w[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
		t[i + 1] = __builtin_shufflevector(w[i], w[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
	}
	for (int i = 0; i < 8; i += 4)
		for (int k = 0; k < 2; k++) { /* pairs of words */
			u[i + 2 * k] = __builtin_shufflevector(t[i + k], t[i + k + 2], 0, 1, 8, 9,
							       4, 5, 12, 13);
			u[i + 2 * k + 1] = __builtin_shufflevector(t[i + k], t[i + k + 2], 2, 3, 10,
								   11, 6, 7, 14, 15);
		}
	for (int i = 0; i < 4; i++) { /* halves */
		w[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
		w[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
	}
#else
	V a = __builtin_shufflevector(w[0], w[1], 0, 4, 1, 5),
	  b = __builtin_shufflevector(w[0], w[1], 2, 6, 3, 7);
	V c = __builtin_shufflevector(w[2], w[3], 0, 4, 1, 5),
	  d = __builtin_shufflevector(w[2], w[3], 2, 6, 3, 7);

	w[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
	w[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
	w[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
	w[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
#endif
}

TARGET static inline __attribute__((always_inline)) V NAME(splat)(uint32_t x)
{
	return x - (V){0};
}

TARGET void ENTRY(const struct blake3_job *j, uint8_t *cvs)
{
	V cv[8], low, high;

	for (int i = 0; i < 8; i++)
		cv[i] = NAME(splat)(blake3_iv[i]);
	for (int i = 0; i < LANES; i++) {
		uint64_t c = j->counter + (j->count ? (uint64_t)i : 0);

		low[i] = (uint32_t)c;
		high[i] = (uint32_t)(c >> 32);
	}
	for (size_t k = 0; k < j->blocks; k++) {
		uint8_t flags = j->flags;
		V m[16], s0 = cv[0], s1 = cv[1], s2 = cv[2], s3 = cv[3], s4 = cv[4], s5 = cv[5],
			 s6 = cv[6], s7 = cv[7];
		V s8 = NAME(splat)(blake3_iv[0]), s9 = NAME(splat)(blake3_iv[1]),
		  s10 = NAME(splat)(blake3_iv[2]);
		V s11 = NAME(splat)(blake3_iv[3]), s12 = low, s13 = high,
		  s14 = NAME(splat)(BLAKE3_BLOCK), s15;

		if (k == 0)
			flags |= j->first;
		if (k == j->blocks - 1)
			flags |= j->last;
		s15 = NAME(splat)(flags);
		for (int part = 0; part < 16; part += LANES) {
			for (int i = 0; i < LANES; i++)
				memcpy(&m[part + i],
				       j->in + (size_t)i * j->stride + k * BLAKE3_BLOCK +
					       4 * (size_t)part,
				       sizeof(V));
			NAME(transpose)(m + part);
		}
#pragma GCC unroll 7
		for (int r = 0; r < 7; r++) {
			const uint8_t *w = blake3_schedule[r];

			MIX(s0, s4, s8, s12, m[w[0]], m[w[1]]);
			MIX(s1, s5, s9, s13, m[w[2]], m[w[3]]);
			MIX(s2, s6, s10, s14, m[w[4]], m[w[5]]);
			MIX(s3, s7, s11, s15, m[w[6]], m[w[7]]);
			MIX(s0, s5, s10, s15, m[w[8]], m[w[9]]);
			MIX(s1, s6, s11, s12, m[w[10]], m[w[11]]);
			MIX(s2, s7, s8, s13, m[w[12]], m[w[13]]);
			MIX(s3, s4, s9, s14, m[w[14]], m[w[15]]);
		}
		cv[0] = s0 ^ s8;
		cv[1] = s1 ^ s9;
		cv[2] = s2 ^ s10;
		cv[3] = s3 ^ s11;
		cv[4] = s4 ^ s12;
		cv[5] = s5 ^ s13;
		cv[6] = s6 ^ s14;
		cv[7] = s7 ^ s15;
	}
	for (int part = 0; part < 8; part += LANES)
		NAME(transpose)(cv + part);
	for (int i = 0; i < LANES; i++)
		for (int part = 0; part < 8; part += LANES)
			memcpy(cvs + 32 * i + 4 * part, &cv[part + i], sizeof(V));
}

#undef V
#undef B
#undef BYTES
#undef BYTES_NEXT
#undef ROR16
#undef ROR8
#undef ROR
#undef MIX
