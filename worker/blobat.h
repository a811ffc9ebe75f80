/* worker/blobat.h - a stored blob read by ranges: from a registry, from memory, from a file. */
#ifndef WORKER_BLOBAT_H
#define WORKER_BLOBAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/drivers/driver.h"

struct registry;

struct blobat_registry { /* keeps the last range, so that small reads in a row are few requests */
	struct blob_at at;
	struct registry *registry;
	const char *repository; /* borrowed */
	struct digest digest;
	uint64_t from;
	uint8_t *window;
	size_t n;
	bool ahead; /* ranges go on behind what is wanted, never before it: a format whose end
		     * says where its index begins is read without what lies before that */
};
void blobat_registry_init(struct blobat_registry *b, struct registry *r, const char *repository,
			  const struct descriptor *d);
void blobat_registry_fini(struct blobat_registry *b);

struct blobat_memory {
	struct blob_at at;
	const uint8_t *p; /* borrowed */
};
void blobat_memory_init(struct blobat_memory *b, const void *p, size_t n);

struct blobat_file {
	struct blob_at at;
	int fd; /* borrowed */
};
int blobat_file_init(struct blobat_file *b, int fd, struct err *e);

#endif
