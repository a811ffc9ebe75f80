/* worker/cache.h - what a source layer became last time, so that it is mounted instead of
 * converted.
 *
 * A cache is believed only after a check (HEAD or mount), used only where the source blob was just
 * seen in the repository being served, and its failure never fails a task.  Kinds: Redis through
 * the supervisor (taskproc.c), upstream's cache_tag, none (NULL). */
#ifndef WORKER_CACHE_H
#define WORKER_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/drivers/driver.h"

struct err;

#define CACHE_REPOSITORIES 16

/* Lower hex of SHA-256 over source layer digest, driver identity and codec versions. */
#define CACHE_KEY 65
void cache_key(char key[CACHE_KEY], const struct digest *source, const char *identity);

struct cache_entry {
	struct descriptor stored; /* media type, digest, size of the target blob */
	struct layer_result result;
	char *repository[CACHE_REPOSITORIES]; /* where the blob was seen, latest first */
	size_t n_repositories;
	bool foreign; /* another program made it, with options that nobody noted */
};
void cache_entry_fini(struct cache_entry *c);
struct json *cache_entry_to_json(const struct cache_entry *c);
int cache_entry_from_json(struct cache_entry *c, const struct json *j, struct err *e);

struct cache; /* first member of the implementation's own struct */
struct cache_ops {
	/* 1 and *c, 0 not known, -1 the cache is broken (said once, then it is as if empty). */
	int (*get)(struct cache *c, const char *key, const struct digest *source,
		   struct cache_entry *x, struct err *e);
	/* A conversion of ours made this; the host's repository is where it lies. */
	int (*put)(struct cache *c, const char *key, const struct digest *source,
		   const struct cache_entry *x, struct err *e);
	void (*forget)(struct cache *c, const char *key); /* it was wrong */
	/* 1: ours to convert, for two minutes from now; 0: someone converts it now, ask `get` again
	 * in *retry_ms. */
	int (*lease)(struct cache *c, const char *key, uint64_t *retry_ms, struct err *e);
	void (*release)(struct cache *c, const char *key);
	void (*free)(struct cache *c);
};
struct cache {
	const struct cache_ops *ops;
};
void cache_freep(struct cache **c);

#endif
