/* worker/backend/backend.h - blobs in a folder or a bucket instead of the registry: Nydus'
 * backend_type localfs, s3 and oss.
 *
 * A blob is called by the hex digits of its digest, behind the object prefix.  It is seen under
 * that name only when it is whole and everything about it was checked: until then its bytes are in
 * a file or object of another name, which a failure takes away.  Safe from several threads. */
#ifndef WORKER_BACKEND_BACKEND_H
#define WORKER_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/storage.h"
#include "worker/blob_at.h"

struct err;
struct http;
struct out_ops;
struct target;
struct backend;

/* The target stores its blobs in a backend. */
bool backend_wanted(const struct target *t);
/* t's backend_config says where and with which key; h is borrowed until backend_freep. */
int backend_open(struct backend **b, struct http *h, const struct target *t, struct err *e);
void backend_freep(struct backend **b);
/* The folder of a localfs, made if it is not there: before the first blob is written, and before a
 * sandbox forbids it. */
int backend_prepare(const struct target *t, struct err *e);
char *backend_folder(const struct target *t); /* its path, the caller frees; NULL: not localfs */

/* 1 and its size; 0: it is not there. */
int backend_find(struct backend *b, const struct digest *d, uint64_t *size, struct err *e);
/* A new destination for one blob, for out_open. */
int backend_create(struct backend *b, const struct out_ops **ops, void **dest, struct err *e);
/* Bytes held by one destination while it is written. */
size_t backend_held_bytes(const struct backend *b);
/* "s3 bucket b at minio:9000". */
const char *backend_name(const struct backend *b);

struct blobat_backend { /* a stored blob; keeps the last range, as readers take many small ones */
	struct blob_at at;
	struct backend *backend;
	struct digest digest;
	uint64_t from;
	uint8_t *window;
	size_t n;
};
void blobat_backend_init(struct blobat_backend *x, struct backend *b, const struct digest *d,
			 uint64_t size);
void blobat_backend_fini(struct blobat_backend *x);

#endif
