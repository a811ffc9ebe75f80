/* worker/cachetag.c - see cachetag.h. */
#include "worker/cachetag.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/registry/registry.h"

#define ANN_VERSION "containerd.io/snapshot/nydus-cache-version"
#define ANN_SOURCE "containerd.io/snapshot/nydus-source-digest"
#define ANN_UNCOMPRESSED "containerd.io/uncompressed"
#define ANN_KEY "io.acceld.cache.key"
#define ANN_RESULT "io.acceld.cache.result"
#define BODY_MAX (4u << 20) /* what registries take for a manifest */

struct entry {
	char key[CACHE_KEY];
	struct digest source;
	struct cache_entry x;
};
struct entries {
	struct entry *e;
	size_t n, cap;
};
struct cachetag {
	struct cache base;
	struct registry *registry;
	struct imageref tag;
	char *version;
	uint32_t max;
	pthread_mutex_t lock;
	struct entries there, fresh;
};

static struct cachetag *of(struct cache *c)
{
	return (struct cachetag *)c;
}

static void entry_copy(struct cache_entry *to, const struct cache_entry *from)
{
	memset(to, 0, sizeof(*to));
	descriptor_copy(&to->stored, &from->stored);
	to->result = from->result;
	to->result.annotations = (struct annotations){0};
	annotations_copy(&to->result.annotations, &from->result.annotations);
	for (size_t i = 0; i < from->n_repositories; i++)
		to->repository[to->n_repositories++] = mem_strdup(from->repository[i]);
}

static struct entry *find(struct entries *s, const char *key)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->e[i].key, key) == 0)
			return &s->e[i];
	return NULL;
}

static void remove_key(struct entries *s, const char *key)
{
	struct entry *x = find(s, key);
	size_t at;

	if (!x)
		return;
	at = (size_t)(x - s->e);
	cache_entry_fini(&x->x);
	s->n--;
	memmove(x, x + 1, (s->n - at) * sizeof(*x));
}

static void add(struct entries *s, const char *key, const struct digest *source,
		const struct cache_entry *x)
{
	struct entry *to;

	remove_key(s, key);
	mem_grow(s->e, s->n, s->cap);
	to = &s->e[s->n++];
	str_copy(to->key, sizeof(to->key), key);
	to->source = *source;
	entry_copy(&to->x, x);
}

static void entries_fini(struct entries *s)
{
	for (size_t i = 0; i < s->n; i++)
		cache_entry_fini(&s->e[i].x);
	free(s->e);
	*s = (struct entries){0};
}

/* ---- reading the tag */
/* A layer of the cache's manifest; what is not ours, or broken, is left out. */
static void read_layer(struct entries *s, const struct descriptor *d, const char *repository)
{
	const char *key = annotations_get(&d->annotations, ANN_KEY);
	const char *source = annotations_get(&d->annotations, ANN_SOURCE);
	const char *result = annotations_get(&d->annotations, ANN_RESULT);
	scoped(json_freep) struct json *j = NULL;
	struct cache_entry x = {0};
	struct digest digest;
	struct err e;

	if (!key || strlen(key) != CACHE_KEY - 1 || !source || !result ||
	    digest_parse(&digest, source, &e) < 0 ||
	    json_parse(&j, result, strlen(result), NULL, &e) < 0 ||
	    layer_result_from_json(&x.result, j, "result", &e) < 0)
		return;
	descriptor_copy(&x.stored, d);
	annotations_copy(&x.stored.annotations, &x.result.annotations);
	x.repository[x.n_repositories++] = mem_strdup(repository);
	add(s, key, &digest, &x);
	cache_entry_fini(&x);
}

static int read_manifest(struct entries *s, struct registry *r, const struct imageref *ref,
			 const char *version, bool *found, struct err *e)
{
	struct manifest_body b;
	struct manifest m;
	int rc;

	if (registry_get_manifest(r, ref, &b, e) < 0)
		return -1;
	rc = manifest_parse(&m, b.data, b.n, e);
	manifest_body_fini(&b);
	if (rc < 0)
		return -1;
	if (str_eq(annotations_get(&m.annotations, ANN_VERSION), version)) {
		*found = true;
		for (size_t i = 0; i < m.n_layers; i++)
			read_layer(s, &m.layers[i], ref->repository);
	}
	manifest_fini(&m);
	return 0;
}

static int read_tag(struct entries *s, struct registry *r, const struct imageref *tag,
		    const char *version, bool *found, struct err *e)
{
	struct imageref child = *tag;
	struct manifest_body b;
	struct index x;
	struct err why = {0};
	int rc = 0;

	*found = false;
	if (registry_get_manifest(r, tag, &b, &why) < 0) {
		if (why.code == ERR_NOTFOUND)
			return 0;
		*e = why;
		return -1;
	}
	rc = index_parse(&x, b.data, b.n, &why);
	manifest_body_fini(&b);
	if (rc < 0)
		return 0; /* something else has that tag: an empty cache */
	child.tag[0] = '\0';
	for (size_t i = 0; i < x.n && rc == 0; i++) {
		child.digest = x.manifests[i].digest;
		rc = read_manifest(s, r, &child, version, found, e);
	}
	index_fini(&x);
	return rc;
}

/* ---- writing it */
static void write_layer(struct manifest *m, const struct entry *x)
{
	scoped(json_freep) struct json *j = layer_result_to_json(&x->x.result);
	struct descriptor *d = manifest_add_layer(m);
	struct buf b = BUF_INIT(64u << 10);
	char text[DIGEST_TEXT];

	descriptor_copy(d, &x->x.stored);
	annotations_set(&d->annotations, ANN_SOURCE, digest_text(&x->source, text));
	annotations_set(&d->annotations, ANN_UNCOMPRESSED, digest_text(&x->x.result.diff_id, text));
	annotations_set(&d->annotations, ANN_KEY, x->key);
	if (json_write(j, JSON_SORTED, &b, NULL) == 0)
		annotations_set(&d->annotations, ANN_RESULT, b.data);
	buf_fini(&b);
}

static int put_index(struct cachetag *c, const struct manifest *m, struct err *e)
{
	struct buf b = BUF_INIT(BODY_MAX);
	struct imageref ref = c->tag;
	struct descriptor *d;
	struct index x;
	int r = -1;

	index_init(&x);
	str_copy(x.media_type, sizeof(x.media_type), MT_OCI_INDEX);
	d = index_add(&x);
	str_copy(d->media_type, sizeof(d->media_type), MT_OCI_MANIFEST);
	if (manifest_write(m, &b, e) == 0) {
		digest_of(&d->digest, DIGEST_SHA256, b.data, b.len);
		d->size = b.len;
		ref.tag[0] = '\0';
		ref.digest = d->digest;
		r = registry_put_manifest(c->registry, &ref, d->media_type, b.data, b.len, NULL, e);
	}
	buf_reset(&b);
	if (r == 0 && (r = index_write(&x, &b, e)) == 0) {
		ref = c->tag;
		digest_of(&ref.digest, DIGEST_SHA256, b.data, b.len);
		r = registry_put_manifest(c->registry, &ref, x.media_type, b.data, b.len, NULL, e);
	}
	index_fini(&x);
	buf_fini(&b);
	return r;
}

static int write_all(struct cachetag *c, struct err *e)
{
	struct manifest m;
	int r;

	manifest_init(&m);
	str_copy(m.media_type, sizeof(m.media_type), MT_OCI_MANIFEST);
	str_copy(m.config.media_type, sizeof(m.config.media_type), MT_OCI_CONFIG);
	digest_of(&m.config.digest, DIGEST_SHA256, "{}", 2);
	m.config.size = 2;
	annotations_set(&m.annotations, ANN_VERSION, c->version);
	for (size_t i = 0; i < c->fresh.n && m.n_layers < c->max; i++)
		write_layer(&m, &c->fresh.e[i]);
	for (size_t i = 0; i < c->there.n && m.n_layers < c->max; i++)
		if (!find(&c->fresh, c->there.e[i].key))
			write_layer(&m, &c->there.e[i]);
	r = blob_push(c->registry, c->tag.repository, "{}", 2, &m.config.digest, e);
	if (r == 0)
		r = put_index(c, &m, e);
	manifest_fini(&m);
	return r;
}

int cachetag_save(struct cache *base, struct err *e)
{
	struct cachetag *c = of(base);
	bool found;

	if (!c->fresh.n || !c->max)
		return 0;
	entries_fini(&c->there); /* another writer may have been here */
	if (read_tag(&c->there, c->registry, &c->tag, c->version, &found, e) < 0 ||
	    write_all(c, e) < 0)
		return -1;
	return 1;
}

/* ---- struct cache_ops */
static int get(struct cache *base, const char *key, const struct digest *source,
	       struct cache_entry *x, struct err *e)
{
	struct cachetag *c = of(base);
	struct entry *found;

	pthread_mutex_lock(&c->lock);
	found = find(&c->there, key);
	if (found && digest_eq(&found->source, source))
		entry_copy(x, &found->x);
	else
		found = NULL;
	pthread_mutex_unlock(&c->lock);
	return found != NULL;
}

static int put(struct cache *base, const char *key, const struct digest *source,
	       const struct cache_entry *x, struct err *e)
{
	struct cachetag *c = of(base);

	pthread_mutex_lock(&c->lock);
	add(&c->fresh, key, source, x);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static void forget(struct cache *base, const char *key)
{
	struct cachetag *c = of(base);

	pthread_mutex_lock(&c->lock);
	remove_key(&c->there, key);
	pthread_mutex_unlock(&c->lock);
}

static int lease(struct cache *c, const char *key, uint64_t *retry_ms, struct err *e)
{
	return 1; /* a tag knows no others */
}

static void release(struct cache *c, const char *key)
{
}

static void free_all(struct cache *base)
{
	struct cachetag *c = of(base);

	entries_fini(&c->there);
	entries_fini(&c->fresh);
	pthread_mutex_destroy(&c->lock);
	free(c->version);
	free(c);
}

int cachetag_open(struct cache **to, struct registry *r, const struct imageref *tag,
		  const char *version, uint32_t max_layers, bool *found, struct err *e)
{
	static const struct cache_ops ops = {.get = get,
					     .put = put,
					     .forget = forget,
					     .lease = lease,
					     .release = release,
					     .free = free_all};
	struct cachetag *c = mem_zalloc(sizeof(*c));

	c->base.ops = &ops;
	c->registry = r;
	c->tag = *tag;
	c->version = mem_strdup(version);
	c->max = max_layers;
	pthread_mutex_init(&c->lock, NULL);
	if (read_tag(&c->there, r, tag, version, found, e) < 0) {
		free_all(&c->base);
		return -1;
	}
	*to = &c->base;
	return 0;
}
