/* worker/backend/backend_impl.h - what a kind of backend fills in. */
#ifndef WORKER_BACKEND_BACKEND_IMPL_H
#define WORKER_BACKEND_BACKEND_IMPL_H

#include "worker/backend/backend.h"
#include "worker/out.h"

struct backend_ops {
	int (*find)(struct backend *b, const char *name, uint64_t *size, struct err *e);
	/* [offset, offset + n), all or error */
	int (*range)(struct backend *b, const char *name, uint64_t offset, size_t n, void *to,
		     struct err *e);
	int (*create)(struct backend *b, void **dest, struct err *e);
	struct out_ops out; /* of what create made */
	size_t held;	    /* bytes kept by a destination */
	void (*free)(struct backend *b);
};
struct backend { /* first member of the kind's own struct */
	const struct backend_ops *ops;
	struct storage s;
	struct http *http;
	bool force; /* a blob that is there is written again */
	char name[320];
};

/* Each allocates its kind; ops, s, http and the rest are filled in by backend_open. */
int localfs_open(struct backend **b, const struct storage *s, struct err *e);
int localfs_prepare(const char *dir, struct err *e);
int bucket_open(struct backend **b, const struct storage *s, struct err *e);
/* A random name that says whose it is. */
#define BACKEND_TEMPORARY 48
void backend_temporary(char name[BACKEND_TEMPORARY]);
/* "sha256:<hex>" is called <hex>. */
#define BACKEND_NAME DIGEST_TEXT

#endif
