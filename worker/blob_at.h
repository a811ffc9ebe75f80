/* worker/blob_at.h - one stored blob, read by ranges: from a registry, a file, memory (blobat.h has
 * the kinds). */
#ifndef WORKER_BLOB_AT_H
#define WORKER_BLOB_AT_H

#include <stddef.h>
#include <stdint.h>

struct err;

struct blob_at { /* one stored blob, read by ranges: from a registry, a file, memory */
	uint64_t size;
	int (*read)(struct blob_at *b, uint64_t offset, void *to, size_t n,
		    struct err *e); /* all or error */
	/* Another blob of the same image, by its name in lower hex (Nydus: a chunk dictionary's);
	 * borrowed.  NULL: this one stands alone. */
	int (*other)(struct blob_at *b, const char *id, struct blob_at **to, struct err *e);
};

#endif
