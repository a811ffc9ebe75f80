/* worker/limits.c - see limits.h. */
#include "worker/limits.h"

#include <string.h>

#include "common/err.h"
#include "worker/tar/tar_reader.h"

/* What one entry costs a driver beside its names, measured over the three drivers with a million
 * empty files (tests/accept/entries), rounded up. */
#define ENTRY_BYTES 104

void limits_init(struct limits *l, uint64_t max_unpacked, uint64_t max_memory, uint64_t base,
		 uint32_t targets)
{
	memset(l, 0, sizeof(*l));
	l->max_unpacked = max_unpacked ? max_unpacked : LIMIT_IMAGE_SIZE;
	l->max_memory = max_memory ? max_memory : LIMIT_MEMORY;
	l->base = base;
	l->targets = targets;
}

static uint64_t names_of(const struct tar_entry *t)
{
	uint64_t n = strlen(t->name) + strlen(t->link) + 2;

	for (size_t i = 0; i < t->n_xattr; i++)
		n += strlen(t->xattr[i].name) + t->xattr[i].n;
	return n;
}

int limits_entry(struct limits *l, const struct tar_entry *t, struct err *e)
{
	uint64_t entries = atomic_fetch_add(&l->entries, 1) + 1;
	uint64_t n = names_of(t);
	uint64_t names = atomic_fetch_add(&l->names, n) + n;

	if (entries > LIMIT_ENTRIES)
		return err_set(e, ERR_LIMIT, "the image has more than %u entries", LIMIT_ENTRIES);
	if (names > LIMIT_NAMES)
		return err_set(e, ERR_LIMIT, "names and xattrs of the image need more than %u MiB",
			       LIMIT_NAMES >> 20);
	if (l->base + (entries * ENTRY_BYTES + names) * l->targets > l->max_memory)
		return err_set(e, ERR_LIMIT,
			       "the image's entries (%llu so far) need more memory than "
			       "worker.memory allows (%llu MiB)",
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
