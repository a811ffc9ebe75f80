/* worker/limits.c - see limits.h. */
#include "worker/limits.h"

#include <string.h>

#include "common/err.h"
#include "worker/tar/tar_reader.h"

void limits_init(struct limits *l, uint64_t max_unpacked, uint64_t max_memory, uint64_t base,
		 const struct limits_cost *cost, size_t n_cost)
{
	memset(l, 0, sizeof(*l));
	l->max_unpacked = max_unpacked ? max_unpacked : LIMIT_IMAGE_SIZE;
	l->max_memory = max_memory ? max_memory : LIMIT_MEMORY;
	l->base = base;
	l->cost = cost;
	l->n_cost = n_cost;
}

static uint64_t names_of(const struct tar_entry *t)
{
	uint64_t n = strlen(t->name) + strlen(t->link) + 2;

	for (size_t i = 0; i < t->n_xattr; i++)
		n += strlen(t->xattr[i].name) + t->xattr[i].n;
	return n;
}

/* What all targets together keep of an entry: itself, its names, its file's chunks. */
static uint64_t kept_of(const struct limits *l, const struct tar_entry *t, uint64_t names)
{
	uint64_t n = 0;

	for (size_t i = 0; i < l->n_cost; i++) {
		const struct limits_cost *c = &l->cost[i];
		uint64_t chunks = t->size / c->chunk_size + (t->size % c->chunk_size != 0);

		/* An image that is over max_unpacked is refused for that: no overflow. */
		n += c->entry + names + (chunks < UINT32_MAX ? chunks : UINT32_MAX) * c->chunk;
	}
	return n;
}

int limits_entry(struct limits *l, const struct tar_entry *t, struct err *e)
{
	uint64_t entries = atomic_fetch_add(&l->entries, 1) + 1;
	uint64_t n = names_of(t);
	uint64_t names = atomic_fetch_add(&l->names, n) + n;
	uint64_t more = kept_of(l, t, n);
	uint64_t kept = atomic_fetch_add(&l->kept, more) + more;

	if (entries > LIMIT_ENTRIES)
		return err_set(e, ERR_LIMIT, "the image has more than %u entries", LIMIT_ENTRIES);
	if (names > LIMIT_NAMES)
		return err_set(e, ERR_LIMIT, "names and xattrs of the image need more than %u MiB",
			       LIMIT_NAMES >> 20);
	if (l->base + kept > l->max_memory)
		return err_set(e, ERR_LIMIT,
			       "the image's entries (%llu so far) and their chunks need more "
			       "memory than worker.memory allows (%llu MiB)",
			       (unsigned long long)entries,
			       (unsigned long long)(l->max_memory >> 20));
	return 0;
}

int limits_bytes(struct limits *l, uint64_t unpacked, struct err *e)
{
	uint64_t sum = atomic_fetch_add(&l->unpacked, unpacked) + unpacked;

	if (sum > l->max_unpacked)
		return err_set(e, ERR_LIMIT,
			       "the image unpacks to more than worker.max_image_size (%llu MiB)",
			       (unsigned long long)(l->max_unpacked >> 20));
	return 0;
}
