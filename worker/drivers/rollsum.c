/* worker/drivers/rollsum.c - see rollsum.h.
 *
 * Each new byte c, with `gone` the one that leaves the window: s1 += c - gone, then
 * s2 += s1 - 64 * (gone + 31).  Both are running sums, so eight steps at once are two prefix sums
 * over a vector of sixteen-bit lanes, with what came before carried on. */
#include "worker/drivers/rollsum.h"

#include <string.h>

typedef uint16_t lanes __attribute__((vector_size(16)));
typedef uint8_t bytes __attribute__((vector_size(8)));

#define STEP 8u
#define GROUP 32u
#define SPLIT UINT16_MAX

static inline lanes load(const uint8_t *p)
{
	bytes b;

	memcpy(&b, p, sizeof(b));
	return __builtin_convertvector(b, lanes);
}

static inline lanes prefix_sum(lanes v)
{
	const lanes none = {0};

	v += __builtin_shufflevector(none, v, 7, 8, 9, 10, 11, 12, 13, 14);
	v += __builtin_shufflevector(none, v, 6, 7, 8, 9, 10, 11, 12, 13);
	v += __builtin_shufflevector(none, v, 4, 5, 6, 7, 8, 9, 10, 11);
	return v;
}

static inline lanes last(lanes v)
{
	return __builtin_shufflevector(v, v, 7, 7, 7, 7, 7, 7, 7, 7);
}

static inline bool any(lanes v)
{
	uint64_t half[2];

	memcpy(half, &v, sizeof(half));
	return half[0] | half[1];
}

/* Whole groups in which no chunk ends; bytes done. */
static size_t skip_groups(struct rollsum *r, const uint8_t *gone, const uint8_t *p, size_t n)
{
	lanes s1 = (lanes){0} + r->s1, s2 = (lanes){0} + r->s2;
	size_t at = 0;

	for (; n - at >= GROUP; at += GROUP) {
		lanes t1 = s1, t2 = s2, hit = {0};

		for (size_t i = at; i < at + GROUP; i += STEP) {
			lanes out = load(gone + i);

			t1 = prefix_sum(load(p + i) - out) + last(t1);
			t2 = prefix_sum(t1 - ROLL_WINDOW * (out + ROLL_OFFSET)) + last(t2);
			hit |= (lanes)(t2 == SPLIT);
		}
		if (any(hit))
			break;
		s1 = t1;
		s2 = t2;
	}
	r->s1 = last(s1)[0];
	r->s2 = last(s2)[0];
	return at;
}

/* With the bytes that leave the window at hand, those of p[0..n); the window itself is left alone.
 */
static size_t roll(struct rollsum *r, const uint8_t *gone, const uint8_t *p, size_t n, bool *split)
{
	size_t at = 0;

	while (at < n && !*split) {
		size_t end;

		at += skip_groups(r, gone + at, p + at, n - at);
		end = n - at < GROUP ? n : at + GROUP;
		while (at < end && !*split) {
			r->s1 = (uint16_t)(r->s1 + p[at] - gone[at]);
			r->s2 = (uint16_t)(r->s2 + r->s1 - ROLL_WINDOW * (gone[at] + ROLL_OFFSET));
			at++;
			*split = r->s2 == SPLIT;
		}
	}
	return at;
}

size_t rollsum_span(struct rollsum *r, const uint8_t *p, size_t n, bool *split)
{
	uint8_t start[2 * ROLL_WINDOW]; /* the window, and the bytes before which it is the past */
	size_t first = n < ROLL_WINDOW ? n : ROLL_WINDOW, at;

	*split = false;
	memcpy(start, r->window, ROLL_WINDOW);
	memcpy(start + ROLL_WINDOW, p, first);
	at = roll(r, start, p, first, split);
	if (at == ROLL_WINDOW && !*split)
		at += roll(r, p, p + ROLL_WINDOW, n - ROLL_WINDOW, split);
	memcpy(r->window, at < ROLL_WINDOW ? start + at : p + at - ROLL_WINDOW, ROLL_WINDOW);
	return at;
}

void rollsum_zeros(struct rollsum *r, uint64_t n)
{
	static const uint8_t zeros[ROLL_WINDOW];
	bool split;

	for (size_t left = n < ROLL_WINDOW ? (size_t)n : ROLL_WINDOW; left;)
		left -= rollsum_span(r, zeros, left, &split);
}
