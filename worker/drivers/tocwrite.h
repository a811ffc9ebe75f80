/* worker/drivers/tocwrite.h - the JSON of a sealed table, in each of its forms: the same bytes at
 * every call, keys in the order of Go's encoder.  formats/estargz.md §4, formats/zstd-chunked.md
 * §3.3. */
#ifndef WORKER_DRIVERS_TOCWRITE_H
#define WORKER_DRIVERS_TOCWRITE_H

#include <stddef.h>
#include <stdint.h>

#include "worker/drivers/toc.h"

struct err;

typedef int toc_put(void *arg, const void *p, size_t n, struct err *e);
/* t is fit.  tail: members after `entries` (`"tarSplitDigest":"..."`) or NULL.  *items: the objects
 * in `entries`, chunks too; may be NULL.  Fails as put does, or for want of memory (ERR_LIMIT). */
int toc_write(struct toc *t, const char *tail, toc_put *put, void *arg, uint64_t *items,
	      struct err *e);

#endif
