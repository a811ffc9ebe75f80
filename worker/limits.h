/* worker/limits.h - the bounds of one image (design: "Conversion"): entries, bytes of names and
 * xattrs, unpacked bytes, memory that grows with entries.  Past one of them the image is refused
 * with ERR_LIMIT. */
#ifndef WORKER_LIMITS_H
#define WORKER_LIMITS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct tar_entry;

#define LIMIT_ENTRIES (4u << 20)
#define LIMIT_NAMES (128u << 20)
#define LIMIT_IMAGE_SIZE (64ull << 30)
#define LIMIT_CONFIG (8u << 20)
#define LIMIT_MEMORY (512ull << 20)

struct limits_cost { /* bytes that one target keeps */
	uint32_t entry, chunk;
	uint64_t chunk_size;
};

struct limits { /* one image (one platform); its layers add to it side by side */
	uint64_t max_unpacked, max_memory;
	uint64_t base; /* bytes that do not grow: buffers */
	const struct limits_cost *cost;
	size_t n_cost;
	atomic_uint_least64_t entries, names, unpacked, kept;
};
/* cost is borrowed: one a target. */
void limits_init(struct limits *l, uint64_t max_unpacked, uint64_t max_memory, uint64_t base,
		 const struct limits_cost *cost, size_t n_cost);
int limits_entry(struct limits *l, const struct tar_entry *t, struct err *e);
int limits_bytes(struct limits *l, uint64_t unpacked, struct err *e);

#endif
