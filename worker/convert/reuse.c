/* worker/convert/reuse.c - layers that were converted before: the layer cache, and upstream's cache
 * tags. */
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/backend/backend.h"
#include "worker/cache.h"
#include "worker/cachetag.h"
#include "worker/convert/conv.h"
#include "worker/drivers/nydus.h"
#include "worker/layer.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

/* A lease is renewed only while bytes come in (keep_leases), so who waits waits for progress. */
#define CACHE_WAIT_MS (30 * 60 * 1000)

enum cached { CACHED_HERE, CACHED_WRONG, CACHED_UNUSABLE };

/* Into the repository from one that has it.  Only who can see the source blob here gets what was
 * made of it. */
static enum cached mount_cached(struct conv *c, const struct item *it, const struct cache_entry *x)
{
	const char *repository = c->job->source.repository;
	uint64_t size = 0;
	struct err e = {0};

	if (blob_exists(c->registry, repository, &it->from->digest, &size, &e) != 1)
		return CACHED_UNUSABLE;
	for (size_t i = 0; i < x->n_repositories; i++) {
		int r;

		if (str_eq(x->repository[i], repository))
			continue;
		r = blob_mount(c->registry, repository, x->repository[i], &x->stored.digest, &e);
		if (r != 0)
			return r > 0 ? CACHED_HERE : CACHED_UNUSABLE;
	}
	return CACHED_WRONG;
}

/* A backend is everybody's: there too, only who can see the source blob gets what was made of it.
 */
static enum cached look_in_backend(struct conv *c, struct backend *b, const struct item *it,
				   const struct cache_entry *x)
{
	struct err e = {0};
	uint64_t size = 0;
	int r;

	if (blob_exists(c->registry, c->job->source.repository, &it->from->digest, &size, &e) != 1)
		return CACHED_UNUSABLE;
	r = backend_find(b, &x->stored.digest, &size, &e);
	if (r < 0)
		return CACHED_UNUSABLE;
	return r == 1 && size == x->stored.size ? CACHED_HERE : CACHED_WRONG;
}

/* The entry is believed once the registry says that the blob is here.  One that is here already
 * tells nobody anything new. */
static enum cached look_for_cached(struct conv *c, const struct column *k, const struct item *it,
				   const struct cache_entry *x)
{
	struct err e = {0};
	uint64_t size = 0;
	int r;

	if (!digest_is_set(&x->stored.digest))
		return x->result.absent ? CACHED_HERE : CACHED_WRONG;
	if (k->backend)
		return look_in_backend(c, k->backend, it, x);
	r = blob_exists(c->registry, c->job->source.repository, &x->stored.digest, &size, &e);
	if (r == 0)
		return mount_cached(c, it, x);
	if (r < 0)
		return CACHED_UNUSABLE;
	return size == x->stored.size ? CACHED_HERE : CACHED_WRONG;
}

/* What upstream's acceld made may serve where the driver itself can tell that it is what was asked
 * for; not in place of an index or of references to a dictionary. */
static bool may_serve(const struct column *k, const struct cache_entry *x)
{
	const struct target *t = k->target;

	return !x->foreign ||
	       (t->driver == DRIVER_NYDUS && !t->nydus.oci_ref && !t->nydus.chunk_dict_ref &&
		str_eq(x->stored.media_type, NYDUS_BLOB_TYPE));
}

/* 1: it was there.  0: it is ours to convert (a broken cache counts as empty).  Someone else's
 * conversion of the same layer is waited for, for a while. */
static int get_or_lease(struct conv *c, struct cache *cache, const char *key, const struct item *it,
			struct cache_entry *x)
{
	uint64_t until = clock_mono_ms() + CACHE_WAIT_MS;

	for (;;) {
		struct err e = {0};
		uint64_t retry_ms = 0;

		if (cache->ops->get(cache, key, &it->from->digest, x, &e) == 1)
			return 1;
		if (cache->ops->lease(cache, key, &retry_ms, &e) != 0 || clock_mono_ms() >= until)
			return 0;
		for (uint64_t slept = 0; slept < (retry_ms ? retry_ms : 1000); slept += 50) {
			struct timespec t = {.tv_nsec = 50 * 1000 * 1000};

			if (atomic_load(&c->halt) || conv_stopped(c, &e) < 0)
				return 0;
			nanosleep(&t, NULL);
		}
	}
}

/* 1: the column has the layer.  Nothing here fails a task. */
int item_from_cache(struct conv *c, struct column *k, const struct item *it)
{
	struct cache *cache = k->cache;
	char key[CACHE_KEY];

	if (!cache)
		return 0;
	cache_key(key, &it->from->digest, k->identity);
	/* What was wrong is forgotten; the second look is for the lease. */
	for (int tries = 0; tries < 2; tries++) {
		struct cache_entry x = {0};
		struct err e = {0};
		enum cached is = CACHED_UNUSABLE;
		bool foreign;

		if (!get_or_lease(c, cache, key, it, &x))
			return 0;
		foreign = x.foreign;
		if (may_serve(k, &x))
			is = look_for_cached(c, k, it, &x);
		if (is == CACHED_HERE &&
		    item_fill_places(c, k, it, CODEC_NONE, NULL, &x.stored, &x.result, &e) < 0)
			is = e.class == CLASS_FINAL ? CACHED_WRONG : CACHED_UNUSABLE;
		cache_entry_fini(&x);
		if (is != CACHED_WRONG || foreign)
			return is == CACHED_HERE;
		cache->ops->forget(cache, key);
	}
	return 0;
}

void item_keep_lease(const struct column *k, const struct item *it)
{
	char key[CACHE_KEY];
	uint64_t retry_ms;
	struct err e;

	if (!k->cache)
		return;
	cache_key(key, &it->from->digest, k->identity);
	k->cache->ops->lease(k->cache, key, &retry_ms, &e);
}

void item_to_cache(struct conv *c, const struct column *k, const struct item *it,
		   const struct descriptor *stored, const struct layer_result *result)
{
	struct cache *cache = k->cache;
	struct cache_entry x = {0};
	struct err e = {0};
	char key[CACHE_KEY];

	if (!cache)
		return;
	cache_key(key, &it->from->digest, k->identity);
	if (!stored || result->verbatim || result->absent) {
		cache->ops->release(cache, key);
		return;
	}
	descriptor_copy(&x.stored, stored);
	result_copy(&x.result, result);
	x.repository[x.n_repositories++] = mem_strdup(c->job->source.repository);
	cache->ops->put(cache, key, &it->from->digest, &x, &e);
	cache->ops->release(cache, key);
	cache_entry_fini(&x);
}

static void tell_cache(struct conv *c, enum cache_step s, const struct imageref *tag)
{
	const struct convert_ops *o = c->job->ops;

	if (o && o->cache)
		o->cache(o->arg, s, tag);
}

/* What cannot be read is empty, and stays as it is. */
static struct cache *open_tag(struct conv *c, const char *tag)
{
	const struct settings *s = c->job->settings;
	struct tagged *t;
	bool found = false;
	struct err e = {0};

	for (size_t i = 0; i < c->n_tagged; i++)
		if (str_eq(c->tagged[i].tag, tag))
			return c->tagged[i].cache;
	c->tagged = mem_resize(c->tagged, c->n_tagged + 1, sizeof(*c->tagged));
	t = &c->tagged[c->n_tagged++];
	*t = (struct tagged){.tag = tag, .ref = c->job->source};
	t->ref.digest = (struct digest){0};
	str_copy(t->ref.tag, sizeof(t->ref.tag), tag);
	tell_cache(c, CACHE_PULLING, &t->ref);
	if (cachetag_open(&t->cache, c->registry, &t->ref, s->cache_version, s->cache_size, &found,
			  &e) < 0)
		conv_warn(c, "cache could not be read", "error", e.text);
	else
		tell_cache(c, found ? CACHE_PULLED : CACHE_NOT_FOUND, &t->ref);
	return t->cache;
}

void conv_open_caches(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		/* A cache_tag's manifest lists blobs of the registry: a backend's are not there. */
		k->cache = k->target->cache_tag && !backend_wanted(k->target)
				   ? open_tag(c, k->target->cache_tag)
				   : c->job->cache;
	}
}

static void list_images(struct conv *c, struct cache *cache)
{
	for (size_t m = 0; m < c->source.n; m++) {
		const struct resolved_image *im = &c->source.image[m];
		size_t n = im->manifest.n_layers;
		scoped_free struct digest *source = mem_array(n ? n : 1, sizeof(*source));

		for (size_t i = 0; i < n; i++)
			source[i] = im->manifest.layers[i].digest;
		cachetag_image(cache,
			       im->from.platform.set ? &im->from.platform : &im->config.platform,
			       source, n);
	}
}

void conv_save_caches(struct conv *c)
{
	for (size_t i = 0; i < c->n_tagged; i++) {
		struct tagged *t = &c->tagged[i];
		struct err e = {0};

		if (!t->cache || conv_stopped(c, &e) < 0)
			continue;
		tell_cache(c, CACHE_PUSHING, &t->ref);
		list_images(c, t->cache);
		if (cachetag_save(t->cache, &e) < 0)
			conv_warn(c, "cache could not be written", "error", e.text);
		else
			tell_cache(c, CACHE_PUSHED, &t->ref);
	}
}
