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

#define TRIES 3

struct entry {
	char key[CACHE_KEY]; /* "": upstream wrote it, of unknown options */
	struct digest source;
	struct cache_entry x;
};
struct entries {
	struct entry *e;
	size_t n, cap;
};
struct child {		     /* a platform's manifest in the tag's index */
	struct descriptor d; /* as it is there */
	struct entries list;
	bool changed; /* to be written anew */
};
struct children {
	struct child *c;
	size_t n, cap;
};
struct image { /* of the conversion: its layers are listed first */
	struct platform platform;
	struct digest *source;
	size_t n;
};
struct cachetag {
	struct cache base;
	struct registry *registry;
	struct imageref tag;
	char *version;
	uint32_t max;
	pthread_mutex_t lock;
	struct digest seen; /* of the index that `there` was read from; not set: none */
	struct children there;
	struct entries fresh;
	struct image *image;
	size_t n_images, cap_images;
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
	to->foreign = from->foreign;
	for (size_t i = 0; i < from->n_repositories; i++)
		to->repository[to->n_repositories++] = mem_strdup(from->repository[i]);
}

static bool same(const struct entry *a, const struct entry *b)
{
	if (a->key[0] || b->key[0])
		return strcmp(a->key, b->key) == 0;
	return digest_eq(&a->source, &b->source) &&
	       digest_eq(&a->x.stored.digest, &b->x.stored.digest);
}

static bool holds(const struct entries *s, const struct entry *x)
{
	for (size_t i = 0; i < s->n; i++)
		if (same(&s->e[i], x))
			return true;
	return false;
}

static void remove_key(struct entries *s, const char *key)
{
	for (size_t i = 0; i < s->n; i++) {
		if (strcmp(s->e[i].key, key) != 0)
			continue;
		cache_entry_fini(&s->e[i].x);
		s->n--;
		memmove(&s->e[i], &s->e[i + 1], (s->n - i) * sizeof(s->e[i]));
		return;
	}
}

static void add(struct entries *s, const struct entry *x)
{
	struct entry *to;

	mem_grow(s->e, s->n, s->cap);
	to = &s->e[s->n++];
	*to = *x;
	entry_copy(&to->x, &x->x);
}

static void add_new(struct entries *s, const struct entry *x)
{
	if (!holds(s, x))
		add(s, x);
}

static void entries_fini(struct entries *s)
{
	for (size_t i = 0; i < s->n; i++)
		cache_entry_fini(&s->e[i].x);
	free(s->e);
	*s = (struct entries){0};
}

static void children_fini(struct children *s)
{
	for (size_t i = 0; i < s->n; i++) {
		descriptor_fini(&s->c[i].d);
		entries_fini(&s->c[i].list);
	}
	free(s->c);
	*s = (struct children){0};
}

static bool same_platform(const struct platform *a, const struct platform *b)
{
	return strcmp(a->os, b->os) == 0 && strcmp(a->arch, b->arch) == 0 &&
	       strcmp(a->variant, b->variant) == 0 && strcmp(a->os_version, b->os_version) == 0;
}

/* The platform's child, made if there is none. */
static struct child *child_of(struct children *s, const struct platform *p)
{
	struct child *c;

	for (size_t i = 0; i < s->n; i++)
		if (same_platform(&s->c[i].d.platform, p))
			return &s->c[i];
	mem_grow(s->c, s->n, s->cap);
	c = &s->c[s->n++];
	*c = (struct child){.changed = true};
	descriptor_init(&c->d);
	str_copy(c->d.media_type, sizeof(c->d.media_type), MT_OCI_MANIFEST);
	c->d.platform = *p;
	c->d.platform.set = true;
	return c;
}

/* ---- reading the tag */
/* As our writer left it. */
static int read_ours(struct entry *to, const struct descriptor *d, const char *key)
{
	const char *result = annotations_get(&d->annotations, ANN_RESULT);
	scoped(json_freep) struct json *j = NULL;
	struct err e;

	if (strlen(key) != CACHE_KEY - 1 || !result ||
	    json_parse(&j, result, strlen(result), NULL, &e) < 0 ||
	    layer_result_from_json(&to->x.result, j, "result", &e) < 0)
		return -1;
	str_copy(to->key, sizeof(to->key), key);
	return 0;
}

/* As upstream's did: it says what the layer was made from, not how. */
static void read_theirs(struct entry *to, const struct descriptor *d)
{
	const char *uncompressed = annotations_get(&d->annotations, ANN_UNCOMPRESSED);
	struct layer_result *r = &to->x.result;
	struct err e;

	to->x.foreign = true;
	str_copy(r->media_type, sizeof(r->media_type), d->media_type);
	annotations_copy(&r->annotations, &d->annotations);
	annotations_del(&r->annotations, ANN_SOURCE);
	annotations_del(&r->annotations, ANN_UNCOMPRESSED);
	r->diff_id = d->digest;
	if (uncompressed && digest_parse(&r->diff_id, uncompressed, &e) < 0)
		r->diff_id = d->digest;
	r->unpacked = d->size;
}

/* A layer of a platform's manifest; what is broken is left out. */
static void read_layer(struct entries *s, const struct descriptor *d, const char *repository)
{
	const char *key = annotations_get(&d->annotations, ANN_KEY);
	const char *source = annotations_get(&d->annotations, ANN_SOURCE);
	struct entry x = {0};
	struct err e;

	if (!source || digest_parse(&x.source, source, &e) < 0)
		return;
	if (!key) {
		read_theirs(&x, d);
	} else if (read_ours(&x, d, key) < 0) {
		cache_entry_fini(&x.x);
		return;
	}
	descriptor_copy(&x.x.stored, d);
	annotations_copy(&x.x.stored.annotations, &x.x.result.annotations);
	x.x.repository[x.x.n_repositories++] = mem_strdup(repository);
	add_new(s, &x);
	cache_entry_fini(&x.x);
}

/* A child that is gone, is no manifest or of another version counts as none. */
static int read_child(struct children *s, struct registry *r, const struct imageref *ref,
		      const struct descriptor *d, const char *version, struct err *e)
{
	struct manifest_body b;
	struct manifest m;
	struct err why = {0};
	size_t before = s->n;

	if (registry_get_manifest(r, ref, &b, &why) < 0) {
		if (why.code == ERR_NOTFOUND)
			return 0;
		*e = why;
		return -1;
	}
	if (manifest_parse(&m, b.data, b.n, &why) < 0) {
		manifest_body_fini(&b);
		return 0;
	}
	manifest_body_fini(&b);
	if (str_eq(annotations_get(&m.annotations, ANN_VERSION), version)) {
		struct child *c = child_of(s, &d->platform);

		c->changed = s->n == before; /* two for one platform become one */
		if (s->n > before)
			descriptor_copy(&c->d, d);
		for (size_t i = 0; i < m.n_layers; i++)
			read_layer(&c->list, &m.layers[i], ref->repository);
	}
	manifest_fini(&m);
	return 0;
}

/* What the tag holds now, into c->there: nothing is fetched when it is what was read before. */
static int read_tag(struct cachetag *c, struct err *e)
{
	struct imageref child = c->tag;
	struct manifest_body b;
	struct index x;
	struct err why = {0};
	int rc = 0;

	if (registry_get_manifest(c->registry, &c->tag, &b, &why) < 0) {
		if (why.code != ERR_NOTFOUND) {
			*e = why;
			return -1;
		}
		memset(&c->seen, 0, sizeof(c->seen));
		children_fini(&c->there);
		return 0;
	}
	if (digest_is_set(&c->seen) && digest_eq(&c->seen, &b.digest)) {
		manifest_body_fini(&b);
		return 0;
	}
	children_fini(&c->there);
	c->seen = b.digest;
	rc = index_parse(&x, b.data, b.n, &why);
	manifest_body_fini(&b);
	if (rc < 0)
		return 0; /* something else has that tag: an empty cache */
	child.tag[0] = '\0';
	for (size_t i = 0; i < x.n && rc == 0; i++) {
		child.digest = x.manifests[i].digest;
		rc = read_child(&c->there, c->registry, &child, &x.manifests[i], c->version, e);
	}
	index_fini(&x);
	if (rc < 0)
		memset(&c->seen, 0, sizeof(c->seen));
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
	if (x->key[0] && json_write(j, JSON_SORTED, &b, NULL) == 0) {
		annotations_set(&d->annotations, ANN_KEY, x->key);
		annotations_set(&d->annotations, ANN_RESULT, b.data);
	}
	buf_fini(&b);
}

/* All that is known of one source layer: what is new, then what is there, on whatever platform. */
static void list_source(struct entries *to, const struct cachetag *c, const struct digest *source)
{
	for (size_t i = 0; i < c->fresh.n; i++)
		if (digest_eq(&c->fresh.e[i].source, source))
			add_new(to, &c->fresh.e[i]);
	for (size_t k = 0; k < c->there.n; k++)
		for (size_t i = 0; i < c->there.c[k].list.n; i++)
			if (digest_eq(&c->there.c[k].list.e[i].source, source))
				add_new(to, &c->there.c[k].list.e[i]);
}

/* This image's layers in its order, then those that are there already; the last ones go when it is
 * full. */
static void merge_image(struct cachetag *c, const struct image *im)
{
	struct child *to = child_of(&c->there, &im->platform);
	struct entries list = {0};

	for (size_t i = 0; i < im->n; i++)
		list_source(&list, c, &im->source[i]);
	for (size_t i = 0; i < to->list.n; i++)
		add_new(&list, &to->list.e[i]);
	while (list.n > c->max)
		cache_entry_fini(&list.e[--list.n].x);
	entries_fini(&to->list);
	to->list = list;
	to->d.platform.set = true;
	to->changed = true;
}

static int put_child(struct cachetag *c, struct child *to, struct err *e)
{
	struct buf b = BUF_INIT(BODY_MAX);
	struct imageref ref = c->tag;
	struct manifest m;
	int r;

	manifest_init(&m);
	str_copy(m.media_type, sizeof(m.media_type), MT_OCI_MANIFEST);
	str_copy(m.config.media_type, sizeof(m.config.media_type), MT_OCI_CONFIG);
	digest_of(&m.config.digest, DIGEST_SHA256, "{}", 2);
	m.config.size = 2;
	annotations_set(&m.annotations, ANN_VERSION, c->version);
	for (size_t i = 0; i < to->list.n; i++)
		write_layer(&m, &to->list.e[i]);
	r = manifest_write(&m, &b, e);
	if (r == 0) {
		digest_of(&to->d.digest, DIGEST_SHA256, b.data, b.len);
		to->d.size = b.len;
		ref.tag[0] = '\0';
		ref.digest = to->d.digest;
		r = registry_put_manifest(c->registry, &ref, to->d.media_type, b.data, b.len, NULL,
					  e);
	}
	to->changed = false;
	manifest_fini(&m);
	buf_fini(&b);
	return r;
}

static int write_index(struct cachetag *c, struct buf *to, struct err *e)
{
	struct index x;
	int r = 0;

	index_init(&x);
	str_copy(x.media_type, sizeof(x.media_type), MT_OCI_INDEX);
	for (size_t i = 0; i < c->there.n && r == 0; i++) {
		if (!c->there.c[i].d.platform.set)
			continue; /* of a writer that knew no platforms; no reader chooses it */
		if (c->there.c[i].changed)
			r = put_child(c, &c->there.c[i], e);
		if (r == 0)
			descriptor_copy(index_add(&x), &c->there.c[i].d);
	}
	/* Its acceld marshals what it read again, and takes that for the size and the digest of the
	 * bytes: with any other form of them it fails. */
	if (r == 0)
		r = index_write_indented(&x, to, e);
	index_fini(&x);
	return r;
}

/* 1: the tag is still what was read; 0: someone else was here. */
static int unchanged(struct cachetag *c, struct err *e)
{
	char media_type[160];
	struct digest now = {0};
	uint64_t size;
	int r = registry_head_manifest(c->registry, &c->tag, &now, &size, media_type, e);

	if (r < 0)
		return -1;
	if (r == 0)
		return !digest_is_set(&c->seen);
	return digest_is_set(&c->seen) && digest_eq(&now, &c->seen);
}

/* 1: written, 0: the tag has changed meanwhile. */
static int try_to_write(struct cachetag *c, struct err *e)
{
	struct buf b = BUF_INIT(BODY_MAX);
	struct imageref ref = c->tag;
	int r;

	for (size_t i = 0; i < c->n_images; i++)
		child_of(&c->there, &c->image[i].platform);
	for (size_t i = c->n_images; i--;) /* the first one's layers come to stand first */
		merge_image(c, &c->image[i]);
	r = write_index(c, &b, e);
	digest_of(&ref.digest, DIGEST_SHA256, b.data, b.len);
	if (r == 0 && digest_is_set(&c->seen) && digest_eq(&ref.digest, &c->seen))
		r = 1; /* nothing in it would be new */
	else if (r == 0 && (r = unchanged(c, e)) == 1)
		r = registry_put_manifest(c->registry, &ref, MT_OCI_INDEX, b.data, b.len, NULL, e) <
				    0
			    ? -1
			    : 1;
	buf_fini(&b);
	return r;
}

int cachetag_save(struct cache *base, struct err *e)
{
	struct cachetag *c = of(base);
	struct digest empty;
	int r = 0;

	if (!c->fresh.n || !c->max || !c->n_images)
		return 0;
	digest_of(&empty, DIGEST_SHA256, "{}", 2);
	if (blob_push(c->registry, c->tag.repository, "{}", 2, &empty, e) < 0)
		return -1;
	for (int i = 0; i < TRIES && r == 0; i++) {
		if (read_tag(c, e) < 0)
			return -1;
		r = try_to_write(c, e);
		if (r != 1) /* what was merged is not what is there */
			memset(&c->seen, 0, sizeof(c->seen));
	}
	return r ? r : err_set(e, ERR_BUSY, "others write it, too: %d times it had changed", TRIES);
}

void cachetag_image(struct cache *base, const struct platform *p, const struct digest *source,
		    size_t n)
{
	struct cachetag *c = of(base);

	mem_grow(c->image, c->n_images, c->cap_images);
	c->image[c->n_images++] = (struct image){
		.platform = *p, .source = mem_dup(source, (n ? n : 1) * sizeof(*source)), .n = n};
}

/* ---- struct cache_ops */
/* By key; else what upstream made of the same layer. */
static const struct entry *look_up(const struct cachetag *c, const char *key,
				   const struct digest *source)
{
	const struct entry *foreign = NULL;

	for (size_t k = 0; k < c->there.n; k++)
		for (size_t i = 0; i < c->there.c[k].list.n; i++) {
			const struct entry *x = &c->there.c[k].list.e[i];

			if (!digest_eq(&x->source, source))
				continue;
			if (strcmp(x->key, key) == 0)
				return x;
			if (!x->key[0] && !foreign)
				foreign = x;
		}
	return foreign;
}

static int get(struct cache *base, const char *key, const struct digest *source,
	       struct cache_entry *x, struct err *e)
{
	struct cachetag *c = of(base);
	const struct entry *found;

	pthread_mutex_lock(&c->lock);
	found = look_up(c, key, source);
	if (found)
		entry_copy(x, &found->x);
	pthread_mutex_unlock(&c->lock);
	return found != NULL;
}

static int put(struct cache *base, const char *key, const struct digest *source,
	       const struct cache_entry *x, struct err *e)
{
	struct cachetag *c = of(base);
	struct entry new = {.source = *source, .x = *x};

	str_copy(new.key, sizeof(new.key), key);
	pthread_mutex_lock(&c->lock);
	remove_key(&c->fresh, key);
	add(&c->fresh, &new);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static void forget(struct cache *base, const char *key)
{
	struct cachetag *c = of(base);

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->there.n; i++)
		remove_key(&c->there.c[i].list, key);
	memset(&c->seen, 0, sizeof(c->seen)); /* `there` is not the tag any more */
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

	children_fini(&c->there);
	entries_fini(&c->fresh);
	for (size_t i = 0; i < c->n_images; i++)
		free(c->image[i].source);
	free(c->image);
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
	if (read_tag(c, e) < 0) {
		free_all(&c->base);
		return -1;
	}
	*found = c->there.n > 0;
	*to = &c->base;
	return 0;
}
