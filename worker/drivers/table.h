/* worker/drivers/table.h - a hash table of 32-bit values under byte keys that the caller keeps: 8
 * bytes a slot. Hashes are seeded at random, so that no one can prepare names that collide; the
 * order in the table is never seen. */
#ifndef WORKER_DRIVERS_TABLE_H
#define WORKER_DRIVERS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

struct table {
	uint64_t *slot; /* hash << 32 | value + 1; 0: free */
	size_t n, cap;
	uint64_t seed[2];
};

/* Is this the key of that value? */
typedef bool table_same(const void *ctx, uint32_t value, const void *key, size_t n);

void table_init(struct table *t);
void table_fini(struct table *t);
bool table_find(const struct table *t, const void *key, size_t n, table_same *same, const void *ctx,
		uint32_t *value);
/* Replaces the value of a key that is there.  value is at most UINT32_MAX - 1. */
int table_set(struct table *t, const void *key, size_t n, table_same *same, const void *ctx,
	      uint32_t value, struct err *e);

#endif
