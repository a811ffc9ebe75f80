/* worker/drivers/table.c - see table.h.  Open addressing, linear probing, at most 3/4 full.  The
 * upper half of a slot is the hash, so that a slot of another key is hardly ever compared, and
 * growing needs no keys. */
#include "worker/drivers/table.h"

#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/err.h"

#define FIRST 64u
#define MOST ((size_t)1 << 29)

void table_init(struct table *t)
{
	*t = (struct table){0};
	digest_random(t->seed, sizeof(t->seed));
}

void table_fini(struct table *t)
{
	free(t->slot);
	t->slot = NULL;
	t->n = t->cap = 0;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint32_t hash(const struct table *t, const uint8_t *p, size_t n)
{
	uint64_t h = t->seed[0] ^ n, last = 0;

	for (; n >= 8; p += 8, n -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		h = mix(h ^ v, t->seed[1] | 1);
	}
	if (n)
		memcpy(&last, p, n);
	h = mix(h ^ last, t->seed[1] | 1);
	return (uint32_t)(mix(h, 0x9e3779b97f4a7c15u) >> 32);
}

static size_t find(const struct table *t, uint32_t h, const void *key, size_t n, table_same *same,
		   const void *ctx)
{
	size_t i = h & (t->cap - 1);

	while (t->slot[i] &&
	       (t->slot[i] >> 32 != h || !same(ctx, (uint32_t)t->slot[i] - 1, key, n)))
		i = (i + 1) & (t->cap - 1);
	return i;
}

bool table_find(const struct table *t, const void *key, size_t n, table_same *same, const void *ctx,
		uint32_t *value)
{
	size_t i;

	if (!t->cap)
		return false;
	i = find(t, hash(t, key, n), key, n, same, ctx);
	if (!t->slot[i])
		return false;
	*value = (uint32_t)t->slot[i] - 1;
	return true;
}

static int grow(struct table *t, struct err *e)
{
	size_t cap = t->cap ? 2 * t->cap : FIRST;
	uint64_t *slot = cap <= MOST ? calloc(cap, sizeof(*slot)) : NULL;

	if (!slot)
		return err_set(e, ERR_LIMIT, "no memory for a table of %zu names", cap);
	for (size_t k = 0; k < t->cap; k++) {
		size_t i = (t->slot[k] >> 32) & (cap - 1);

		if (!t->slot[k])
			continue;
		while (slot[i])
			i = (i + 1) & (cap - 1);
		slot[i] = t->slot[k];
	}
	free(t->slot);
	t->slot = slot;
	t->cap = cap;
	return 0;
}

int table_set(struct table *t, const void *key, size_t n, table_same *same, const void *ctx,
	      uint32_t value, struct err *e)
{
	uint32_t h = hash(t, key, n);
	size_t i;

	if (t->n >= t->cap / 4 * 3 && grow(t, e) < 0)
		return -1;
	i = find(t, h, key, n, same, ctx);
	t->n += !t->slot[i];
	t->slot[i] = (uint64_t)h << 32 | (value + 1);
	return 0;
}
