/* worker/convert.c - see convert.h.
 *
 * One table has it all: targets (columns) times images, that is platforms (rows); where they meet
 * is a `part`, with the driver's image and what became of each layer.  Layers are worked on by
 * digest: a blob that stands in several images, or several times in one, is an `item` and is read
 * once for all its places.  Of targets whose blobs would be the same (equal driver identity) one
 * converts, the others take over. */
#include "worker/convert.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/http.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream.h"
#include "worker/backend/backend.h"
#include "worker/blobat.h"
#include "worker/cache.h"
#include "worker/cachetag.h"
#include "worker/classify.h"
#include "worker/dictionary.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/nydus.h"
#include "worker/layer.h"
#include "worker/limits.h"
#include "worker/pool.h"
#include "worker/publish.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

#define OPEN_LAYERS 4
#define STACK_BYTES (512u << 10) /* ours need 256 KiB; libraries' drivers and sanitizers more */
#define IDENTITY 1024
#define CACHE_WAIT_MS (5 * 60 * 1000)

struct conv;

struct part { /* one target of one image */
	struct drv_image *im;
	struct descriptor *done; /* per layer of the image */
	struct layer_result *result;
	struct manifest manifest;
	struct imageconfig config;
	struct buf manifest_text;
	struct descriptor out; /* of the new manifest */
};

struct tagged {		 /* a cache_tag, shared by the targets that name it */
	const char *tag; /* the target's */
	struct imageref ref;
	struct cache *cache; /* NULL: could not be read */
};

struct column {			     /* one target */
	const struct target *target; /* the job's, or `pinned` */
	struct target pinned;	     /* with its chunk dictionary by digest; or not set */
	const struct driver *drv;
	struct target_result *result;
	bool active;		 /* still worked on */
	struct cache *cache;	 /* its cache_tag's, else the job's; or NULL */
	struct backend *backend; /* where its blobs go; NULL: the registry */
	char identity[IDENTITY];
	char options[17];
	struct part *part; /* per image */
	struct buf index_text;
	char index_type[160];
	struct manifest_list push;
	pthread_mutex_t lock; /* active, result */
};

struct place { /* where an item stands */
	uint32_t image, layer;
};
struct item { /* one distinct source layer */
	const struct descriptor *from;
	struct place *place;
	size_t n_places, cap_places;
	struct layer_progress progress;
};

struct pinned {		   /* a chunk dictionary */
	const char *asked; /* the target's option */
	struct dictionary *of;
};

struct conv {
	const struct convert_job *job;
	struct convert_result *result;
	struct registry *registry;
	struct pinned *dictionary;
	size_t n_dictionaries;
	struct pool *pool;
	struct resolved source;
	struct limits *limits; /* per image */
	struct column *column;
	size_t n_columns;
	struct item *item;
	size_t n_items;
	atomic_size_t next_item;
	pthread_mutex_t window;
	pthread_mutex_t lock; /* callbacks, err, counters */
	struct err err;	      /* what stopped the whole */
	bool failed;
	atomic_int halt; /* 0, or the code that stops all layers */
	struct convert_progress progress;
	uint32_t cached;
	struct blob_store store;
	struct tagged *tagged;
	size_t n_tagged;
};

static const char *const outcome_names[] = {"published", "unchanged", "skipped", "failed"};

const char *target_outcome_name(enum target_outcome o)
{
	return outcome_names[o];
}

/* ---- telling */
static void step(struct conv *c, enum convert_step s, const struct imageref *target, uint64_t since)
{
	const struct convert_ops *o = c->job->ops;

	if (!o || !o->step)
		return;
	pthread_mutex_lock(&c->lock);
	o->step(o->arg, s, target, since ? clock_mono_ns() - since : 0, c->cached,
		c->result->layers);
	pthread_mutex_unlock(&c->lock);
}

static void warn(struct conv *c, const char *msg, const char *key, const char *value)
{
	const struct convert_ops *o = c->job->ops;

	if (!o || !o->warn)
		return;
	pthread_mutex_lock(&c->lock);
	o->warn(o->arg, msg, key, value);
	pthread_mutex_unlock(&c->lock);
}

static void tell_layer(struct conv *c, struct item *it)
{
	const struct convert_ops *o = c->job->ops;

	if (o && o->layer)
		o->layer(o->arg, &it->progress, &c->progress);
}

static void layer_state(struct conv *c, struct item *it, enum layer_state s, const char *note)
{
	pthread_mutex_lock(&c->lock);
	it->progress.state = s;
	str_copy(it->progress.note, sizeof(it->progress.note), note ? note : "");
	if (s == LAYER_DONE || s == LAYER_CACHED) {
		c->progress.layers_done++;
		c->progress.in_bytes += it->progress.in_total - it->progress.in_bytes;
		it->progress.in_bytes = it->progress.in_total;
	}
	tell_layer(c, it);
	pthread_mutex_unlock(&c->lock);
}

static int stopped(struct conv *c, struct err *e)
{
	int code = c->job->stop ? atomic_load(c->job->stop) : 0;

	if (!code)
		return 0;
	atomic_store(&c->halt, code);
	return err_set(e, (enum err_code)code, code == ERR_CANCELLED ? "cancelled" : "stopped");
}

/* ---- failing */
static void fail_column(struct column *k, const struct err *e)
{
	pthread_mutex_lock(&k->lock);
	if (k->active) {
		k->active = false;
		k->result->outcome = TARGET_FAILED;
		k->result->code = e->code;
		k->result->class = e->class;
		k->result->retry_after_ms = e->retry_after_ms;
		str_copy(k->result->reason, sizeof(k->result->reason), e->text);
	}
	pthread_mutex_unlock(&k->lock);
}

static void end_column(struct column *k, enum target_outcome o, const char *reason)
{
	k->active = false;
	k->result->outcome = o;
	str_copy(k->result->reason, sizeof(k->result->reason), reason ? reason : "");
}

static bool is_active(struct column *k)
{
	bool a;

	pthread_mutex_lock(&k->lock);
	a = k->active;
	pthread_mutex_unlock(&k->lock);
	return a;
}

static size_t n_active(struct conv *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_columns; i++)
		n += is_active(&c->column[i]);
	return n;
}

static void fail_all(struct conv *c, const struct err *e)
{
	pthread_mutex_lock(&c->lock);
	if (!c->failed) {
		c->failed = true;
		c->err = *e;
	}
	pthread_mutex_unlock(&c->lock);
	atomic_store(&c->halt, e->code == ERR_OK ? ERR_BUG : (int)e->code);
}

/* ---- what a driver may ask for beside its layers */
static struct conv *of_store(struct blob_store *s)
{
	return (struct conv *)((char *)s - offsetof(struct conv, store));
}

static int store_push(struct blob_store *s, const void *p, size_t n, struct digest *d,
		      struct err *e)
{
	struct conv *c = of_store(s);

	digest_of(d, DIGEST_SHA256, p, n);
	return blob_push(c->registry, c->job->source.repository, p, n, d, e);
}

static int store_range(struct blob_store *s, const struct digest *d, uint64_t offset, size_t n,
		       void *to, struct err *e)
{
	struct conv *c = of_store(s);

	return blob_range(c->registry, c->job->source.repository, d, offset, n, to, e);
}

static struct dictionary *pinned_dictionary(struct conv *c, const char *pinned, struct err *e)
{
	for (size_t i = 0; i < c->n_dictionaries; i++)
		if (str_eq(dictionary_pinned(c->dictionary[i].of), pinned))
			return c->dictionary[i].of;
	err_set(e, ERR_BUG, "nobody opened %s", pinned);
	return NULL;
}

static int store_manifest(struct blob_store *s, const char *ref, struct manifest *m, struct err *e)
{
	struct dictionary *d = pinned_dictionary(of_store(s), ref, e);

	return d ? dictionary_manifest(d, m, e) : -1;
}

static int store_fetch(struct blob_store *s, const char *ref, const struct descriptor *d,
		       size_t max, struct buf *to, struct err *e)
{
	struct dictionary *from = pinned_dictionary(of_store(s), ref, e);

	return from ? dictionary_fetch(from, d, max, to, e) : -1;
}

static int store_bring(struct blob_store *s, const char *ref, const struct descriptor *d,
		       struct err *e)
{
	struct conv *c = of_store(s);
	struct dictionary *from = pinned_dictionary(c, ref, e);

	return from ? dictionary_bring(from, c->job->source.repository, d, e) : -1;
}

/* Of one reference there is one dictionary in a task, whatever happens to its tag meanwhile. */
static const char *pin_dictionary(struct conv *c, const char *asked, struct err *e)
{
	const struct registry_opts ro = {.on_pause = c->job->on_pause, .arg = c->job->pause_arg};
	const struct dictionary_opts o = {.source = &c->job->source,
					  .own = c->registry,
					  .http = c->job->http,
					  .settings = c->job->settings,
					  .registry = &ro};
	struct dictionary *d = NULL;

	for (size_t i = 0; i < c->n_dictionaries; i++)
		if (str_eq(c->dictionary[i].asked, asked))
			return dictionary_pinned(c->dictionary[i].of);
	if (dictionary_open(&d, asked, &o, e) < 0)
		return NULL;
	c->dictionary = mem_resize(c->dictionary, c->n_dictionaries + 1, sizeof(*c->dictionary));
	c->dictionary[c->n_dictionaries].asked = asked;
	c->dictionary[c->n_dictionaries++].of = d;
	return dictionary_pinned(d);
}

/* ---- source layers in, target blobs out */
static int io_open(void *arg, struct source **body, const struct descriptor *from, struct err *e)
{
	struct conv *c = arg;

	return blob_source(body, c->registry, c->job->source.repository, from, e);
}

static int upload_out(void *dest, const void *p, size_t n, struct err *e)
{
	return upload_write(dest, p, n, e) < 0 ? err_wrap(e, "upload") : 0;
}

static int upload_done(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	return upload_commit(dest, d, size, e);
}

static void upload_away(void *dest)
{
	struct upload *u = dest;

	upload_freep(&u);
}

static struct backend *backend_of(struct conv *c, const struct target *t)
{
	for (size_t i = 0; i < c->n_columns; i++)
		if (c->column[i].target == t)
			return c->column[i].backend;
	return NULL;
}

static int io_create(void *arg, const struct target *t, const struct out_ops **ops, void **dest,
		     struct err *e)
{
	static const struct out_ops to_registry = {
		.write = upload_out, .commit = upload_done, .abort = upload_away};
	struct conv *c = arg;
	struct backend *b = backend_of(c, t);
	struct upload *u = NULL;

	if (b)
		return backend_create(b, ops, dest, e);
	if (upload_open(&u, c->registry, c->job->source.repository, e) < 0)
		return -1;
	*ops = &to_registry;
	*dest = u;
	return 0;
}

/* ---- before: what is there already */
static int read_source(struct conv *c, struct err *e)
{
	const struct convert_job *j = c->job;
	const struct publish_ops *ops = j->publish ? j->publish : &publish_always;
	const struct resolve_opts o = {.platforms = j->platforms};
	char text[DIGEST_TEXT];
	struct digest now;
	int same, r;

	r = resolve(&c->source, c->registry, &j->source, &o, e);
	if (c->source.body.data)
		c->result->source_digest = c->source.body.digest;
	if (r < 0)
		return -1;
	c->result->source_size = c->source.size;
	c->result->platforms = (uint32_t)c->source.n;
	c->result->dropped_platforms = c->source.dropped;
	if (!j->source.tag[0] || !digest_is_set(&j->source.digest) || c->source.tag_agrees)
		return 0;
	/* A pinned tag that has moved on: its targets belong to the newer image. */
	same = publish_source_unchanged(c->registry, &j->source, &c->source.body.digest, &now, e);
	if (same != 0 || j->must_publish)
		return same < 0 ? -1 : 0;
	if (!digest_is_set(&now))
		return err_class(e, ERR_NOTFOUND, CLASS_SKIP, "source tag deleted");
	c->result->moved_to = now;
	/* Nothing else may announce the new digest: it is enqueued before this task ends. */
	if (!j->pinned && ops->moved(ops->arg, &now, e) < 0)
		return -1;
	return err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "superseded by %s",
			 digest_text(&now, text));
}

/* Sizes of a result that stays, from its manifests. */
static uint64_t existing_size(struct conv *c, const struct imageref *ref)
{
	const struct resolve_opts o = {.any = true};
	struct resolved r = {0};
	struct err e;
	uint64_t size = resolve(&r, c->registry, ref, &o, &e) == 0 ? r.size : 0;

	resolved_fini(&r);
	return size;
}

static int read_annotations(const struct manifest_body *b, struct annotations *a)
{
	struct manifest m;
	struct index x;
	struct err e;

	if (manifest_parse(&m, b->data, b->n, &e) == 0) {
		annotations_copy(a, &m.annotations);
		manifest_fini(&m);
		return 0;
	}
	if (index_parse(&x, b->data, b->n, &e) < 0)
		return -1;
	annotations_copy(a, &x.annotations);
	index_fini(&x);
	return 0;
}

/* The target's tag as it is now: this very result, another of ours, someone else's, or nothing. */
static int look_at_target(struct conv *c, struct column *k, struct err *e)
{
	struct target_result *t = k->result;
	struct annotations a = {0};
	struct manifest_body b;
	struct err why = {0};
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT];
	bool ours, same;

	if (registry_get_manifest(c->registry, &t->ref, &b, &why) < 0) {
		/* Harbor hides what is not scanned yet, our own result too: then it is made anew.
		 */
		if (why.code == ERR_NOTFOUND ||
		    (why.status == 412 && (k->target->upstream_form || k->target->overwrite)))
			return 0;
		*e = why;
		return err_wrap(e, "look at %s", imageref_text(&t->ref, text));
	}
	ours = read_annotations(&b, &a) == 0 && annotations_get(&a, ANN_SOURCE_DIGEST);
	same = ours &&
	       str_eq(annotations_get(&a, ANN_SOURCE_DIGEST),
		      digest_text(&c->source.body.digest, dtext)) &&
	       str_eq(annotations_get(&a, ANN_OPTIONS), k->options);
	t->replaced = b.digest;
	manifest_body_fini(&b);
	annotations_fini(&a);
	if (same) {
		t->digest = t->replaced;
		memset(&t->replaced, 0, sizeof(t->replaced));
		t->size = existing_size(c, &t->ref);
		end_column(k, TARGET_UNCHANGED, NULL);
		return 0;
	}
	if (ours || k->target->upstream_form || k->target->overwrite)
		return 0;
	return err_set(e, ERR_INVALID,
		       "%s exists and was not made by acceld; set overwrite: true to replace it",
		       imageref_text(&t->ref, text));
}

/* From here on the target names its dictionary by digest: what is made depends on it, so identity
 * and options say which it was. */
static int pin_target(struct conv *c, struct column *k, struct err *e)
{
	const struct target *t = k->target;
	const char *pinned;

	if (t->driver != DRIVER_NYDUS || !t->nydus.chunk_dict_ref)
		return 0;
	pinned = pin_dictionary(c, t->nydus.chunk_dict_ref, e);
	if (!pinned)
		return -1;
	target_copy(&k->pinned, t);
	free(k->pinned.nydus.chunk_dict_ref);
	k->pinned.nydus.chunk_dict_ref = mem_strdup(pinned);
	k->target = &k->pinned;
	return 0;
}

static int start_column(struct conv *c, struct column *k, struct err *e)
{
	const struct target *t;

	if (target_ref(k->target, &c->job->source, &k->result->ref, e) < 0 ||
	    pin_target(c, k, e) < 0)
		return -1;
	t = k->target;
	if (!k->drv)
		return err_set(e, ERR_UNSUPPORTED, "driver %s is not built in",
			       driver_name(t->driver));
	if (k->drv->identity(t, k->identity, sizeof(k->identity)) < 0)
		return err_set(e, ERR_BUG, "driver %s: its options are too long", k->drv->name);
	target_options_hash(t, c->job->platforms ? c->job->platforms : "", k->options);
	if (backend_wanted(t) &&
	    (backend_prepare(t, e) < 0 || backend_open(&k->backend, c->job->http, t, e) < 0))
		return -1;
	return look_at_target(c, k, e);
}

/* ---- images of the drivers */
static int open_part(struct conv *c, struct column *k, size_t i, struct err *e)
{
	struct resolved_image *im = &c->source.image[i];
	struct part *p = &k->part[i];
	size_t n = im->manifest.n_layers;

	p->done = mem_array(n ? n : 1, sizeof(*p->done));
	p->result = mem_array(n ? n : 1, sizeof(*p->result));
	buf_init(&p->manifest_text, 16u << 20);
	return k->drv->image_open(&p->im, k->target, &im->manifest, &im->config, &c->store, e);
}

static void open_columns(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (!k->active)
			continue;
		k->part = mem_array(c->source.n, sizeof(*k->part));
		for (size_t m = 0; m < c->source.n && k->active; m++)
			if (open_part(c, k, m, &e) < 0)
				fail_column(k, &e);
	}
}

static void part_fini(struct column *k, struct part *p, size_t n_layers)
{
	if (p->im)
		k->drv->image_close(p->im);
	for (size_t i = 0; p->done && i < n_layers; i++) {
		descriptor_fini(&p->done[i]);
		layer_result_fini(&p->result[i]);
	}
	free(p->done);
	free(p->result);
	manifest_fini(&p->manifest);
	imageconfig_fini(&p->config);
	buf_fini(&p->manifest_text);
	descriptor_fini(&p->out);
}

/* ---- items */
static struct item *item_of(struct conv *c, const struct descriptor *from)
{
	for (size_t i = 0; i < c->n_items; i++)
		if (digest_eq(&c->item[i].from->digest, &from->digest))
			return &c->item[i];
	c->item[c->n_items].from = from;
	c->item[c->n_items].progress = (struct layer_progress){
		.from = from->digest, .in_total = from->size, .index = (uint32_t)c->n_items};
	return &c->item[c->n_items++];
}

static int larger_first(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->from->size != y->from->size)
		return x->from->size < y->from->size ? 1 : -1;
	return x->progress.index < y->progress.index ? -1 : 1;
}

static void list_items(struct conv *c)
{
	size_t most = 0;

	for (size_t m = 0; m < c->source.n; m++)
		most += c->source.image[m].manifest.n_layers;
	c->item = mem_array(most ? most : 1, sizeof(*c->item));
	for (size_t m = 0; m < c->source.n; m++) {
		struct manifest *man = &c->source.image[m].manifest;

		for (size_t l = 0; l < man->n_layers; l++) {
			struct item *it = item_of(c, &man->layers[l]);

			mem_grow(it->place, it->n_places, it->cap_places);
			it->place[it->n_places++] =
				(struct place){.image = (uint32_t)m, .layer = (uint32_t)l};
		}
	}
	for (size_t i = 0; i < c->n_items; i++)
		c->progress.in_total += c->item[i].from->size;
	c->result->layers = c->progress.layers_total = (uint32_t)c->n_items;
	/* The longest work first: the last layer to end decides the time. */
	qsort(c->item, c->n_items, sizeof(*c->item), larger_first);
}

static struct layer_in layer_in(struct conv *c, const struct place *p, enum codec codec)
{
	struct resolved_image *im = &c->source.image[p->image];

	return (struct layer_in){.index = p->layer,
				 .from = &im->manifest.layers[p->layer],
				 .codec = codec,
				 .diff_id = &im->config.diff_ids[p->layer]};
}

static void result_copy(struct layer_result *to, const struct layer_result *from)
{
	*to = *from;
	to->annotations = (struct annotations){0};
	annotations_copy(&to->annotations, &from->annotations);
}

/* The same layer in another image of this or of an equal target: as from a cache. */
static int take_over(struct conv *c, struct column *k, const struct place *at,
		     const struct layer_in *in, const struct descriptor *stored,
		     const struct layer_result *result, struct err *e)
{
	struct part *p = &k->part[at->image];
	struct blobat_registry blob;
	struct blobat_backend other;
	int r;

	result_copy(&p->result[at->layer], result);
	descriptor_copy(&p->done[at->layer], stored);
	blobat_registry_init(&blob, c->registry, c->job->source.repository, stored);
	blobat_backend_init(&other, k->backend, &stored->digest, stored->size);
	r = k->drv->layer_cached(p->im, in, stored, &p->result[at->layer],
				 k->backend ? &other.at : &blob.at, e);
	blobat_registry_fini(&blob);
	blobat_backend_fini(&other);
	if (r == 0) { /* the driver may have given the annotations another face */
		annotations_copy(&p->done[at->layer].annotations,
				 &p->result[at->layer].annotations);
	}
	return r;
}

/* All places of an item in one column, once the first is there (from: where, NULL: nowhere yet). */
static int fill_places(struct conv *c, struct column *k, const struct item *it, enum codec codec,
		       const struct place *from, const struct descriptor *stored,
		       const struct layer_result *result, struct err *e)
{
	for (size_t i = 0; i < it->n_places; i++) {
		const struct place *at = &it->place[i], *first = NULL;
		const struct layer_in in = layer_in(c, at, codec);

		if (from && from->image == at->image && from->layer == at->layer)
			continue;
		if (from && from->image == at->image)
			first = from;
		for (size_t b = 0; b < i && !first; b++)
			if (it->place[b].image == at->image)
				first = &it->place[b];
		if (!first) {
			if (take_over(c, k, at, &in, stored, result, e) < 0)
				return -1;
			continue;
		}
		if (k->drv->layer_same(k->part[at->image].im, &in, first->layer, e) < 0)
			return -1;
		result_copy(&k->part[at->image].result[at->layer],
			    &k->part[at->image].result[first->layer]);
		descriptor_copy(&k->part[at->image].done[at->layer],
				&k->part[at->image].done[first->layer]);
	}
	return 0;
}

static struct layer_figures *figure(struct conv *c, struct column *k, const struct place *p)
{
	size_t at = p->layer;

	for (uint32_t m = 0; m < p->image; m++)
		at += c->source.image[m].manifest.n_layers;
	return &k->result->layers[at];
}

static void note_figures(struct conv *c, struct column *k, const struct item *it, uint64_t ms,
			 bool cached, bool shared)
{
	for (size_t i = 0; i < it->n_places; i++) {
		const struct place *p = &it->place[i];
		struct layer_figures *f = figure(c, k, p);
		const struct layer_result *r = &k->part[p->image].result[p->layer];
		const struct descriptor *d = &k->part[p->image].done[p->layer];

		platform_text(&c->source.image[p->image].config.platform, f->platform);
		f->index = p->layer;
		f->from = it->from->digest;
		f->to = d->digest;
		f->in_bytes = it->from->size;
		f->out_bytes = d->size;
		f->unpacked = r->unpacked;
		f->ms = i == 0 && !shared ? ms : 0;
		f->cached = cached;
		f->shared = shared || i > 0;
		str_copy(f->plain, sizeof(f->plain), r->plain_reason);
	}
}

/* ---- the layer cache */
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

			if (atomic_load(&c->halt) || stopped(c, &e) < 0)
				return 0;
			nanosleep(&t, NULL);
		}
	}
}

/* 1: the column has the layer.  Nothing here fails a task. */
static int from_cache(struct conv *c, struct column *k, const struct item *it)
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
		    fill_places(c, k, it, CODEC_NONE, NULL, &x.stored, &x.result, &e) < 0)
			is = e.class == CLASS_FINAL ? CACHED_WRONG : CACHED_UNUSABLE;
		cache_entry_fini(&x);
		if (is != CACHED_WRONG || foreign)
			return is == CACHED_HERE;
		cache->ops->forget(cache, key);
	}
	return 0;
}

static void to_cache(struct conv *c, const struct column *k, const struct item *it,
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

/* ---- cache tags */
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
		warn(c, "cache could not be read", "error", e.text);
	else
		tell_cache(c, found ? CACHE_PULLED : CACHE_NOT_FOUND, &t->ref);
	return t->cache;
}

static void open_caches(struct conv *c)
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

static void save_caches(struct conv *c)
{
	for (size_t i = 0; i < c->n_tagged; i++) {
		struct tagged *t = &c->tagged[i];
		struct err e = {0};

		if (!t->cache || stopped(c, &e) < 0)
			continue;
		tell_cache(c, CACHE_PUSHING, &t->ref);
		list_images(c, t->cache);
		if (cachetag_save(t->cache, &e) < 0)
			warn(c, "cache could not be written", "error", e.text);
		else
			tell_cache(c, CACHE_PUSHED, &t->ref);
	}
}

/* ---- one item through all columns */
struct work {
	struct conv *c;
	struct item *it;
};

static void on_bytes(void *arg, uint64_t in, uint64_t out)
{
	struct work *w = arg;
	struct conv *c = w->c;
	struct layer_progress *p = &w->it->progress;
	struct err e;

	if (stopped(c, &e) < 0)
		return;
	pthread_mutex_lock(&c->lock);
	if (in > p->in_bytes && in <= p->in_total) { /* later passes tell nothing new */
		c->progress.in_bytes += in - p->in_bytes;
		p->in_bytes = in;
	}
	if (out > p->out_bytes) {
		c->progress.out_bytes += out - p->out_bytes;
		p->out_bytes = out;
	}
	tell_layer(c, w->it);
	pthread_mutex_unlock(&c->lock);
}

/* What out counted last may have come after the last byte in. */
static void on_done(struct work *w, const struct layer_target *t, size_t n)
{
	uint64_t out = 0;

	for (size_t i = 0; i < n; i++)
		out += t[i].out_bytes;
	pthread_mutex_lock(&w->c->lock);
	if (out > w->it->progress.out_bytes) {
		w->c->progress.out_bytes += out - w->it->progress.out_bytes;
		w->it->progress.out_bytes = out;
	}
	pthread_mutex_unlock(&w->c->lock);
}

static struct column *lead_of(struct conv *c, struct column *k, struct column **lead, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (lead[i]->drv == k->drv && strcmp(lead[i]->identity, k->identity) == 0)
			return lead[i];
	return NULL;
}

static void after_layer(struct conv *c, struct item *it, struct column *k, struct layer_target *t,
			enum codec codec, uint64_t ms)
{
	const struct place *at = &it->place[0];
	struct part *p = &k->part[at->image];
	struct err e = {0};

	if (!t->done) {
		to_cache(c, k, it, NULL, NULL);
		fail_column(k, &t->err);
		return;
	}
	p->done[at->layer] = t->to; /* taken over */
	p->result[at->layer] = t->result;
	t->to = (struct descriptor){0};
	t->result = (struct layer_result){0};
	if (fill_places(c, k, it, codec, at, &p->done[at->layer], &p->result[at->layer], &e) < 0) {
		fail_column(k, &e);
		return;
	}
	note_figures(c, k, it, ms, false, false);
	to_cache(c, k, it, &p->done[at->layer], &p->result[at->layer]);
}

static int wrap_layer(struct conv *c, const struct item *it, struct err *e)
{
	const struct place *at = &it->place[0];
	char text[DIGEST_TEXT], platform[136] = "";

	if (c->source.n > 1)
		platform_text(&c->source.image[at->image].config.platform, platform);
	return err_wrap(e, "%s%slayer %u of %zu (%s)", platform, platform[0] ? ", " : "",
			at->layer + 1, c->source.image[at->image].manifest.n_layers,
			digest_short(&it->from->digest, text));
}

/* All places must agree on what the layer unpacks to. */
static int check_places(struct conv *c, const struct item *it, struct err *e)
{
	const struct layer_in first = layer_in(c, &it->place[0], CODEC_NONE);
	char one[DIGEST_TEXT], two[DIGEST_TEXT];

	for (size_t i = 1; i < it->n_places; i++) {
		const struct layer_in in = layer_in(c, &it->place[i], CODEC_NONE);

		if (!digest_eq(in.diff_id, first.diff_id))
			return err_set(e, ERR_CORRUPT,
				       "it stands twice with different diff_ids, %s and %s",
				       digest_text(first.diff_id, one),
				       digest_text(in.diff_id, two));
	}
	return 0;
}

static int convert_leads(struct conv *c, struct item *it, struct column **lead, size_t n,
			 struct err *e)
{
	const struct layer_io io = {.open = io_open, .create = io_create, .arg = c};
	scoped_free struct layer_target *t = mem_array(n, sizeof(*t));
	scoped_free struct limits **limits = mem_array(it->n_places, sizeof(struct limits *));
	struct work w = {.c = c, .it = it};
	struct layer_job j = {.io = &io,
			      .pool = c->pool,
			      .in = layer_in(c, &it->place[0], CODEC_NONE),
			      .target = t,
			      .n_targets = n,
			      .limits = limits,
			      .n_limits = it->n_places,
			      .max_out = c->limits[0].max_unpacked,
			      .window = &c->window,
			      .stop = &c->halt,
			      .on_bytes = on_bytes,
			      .arg = &w};
	uint64_t start = clock_mono_ms();
	int r;

	for (size_t i = 0; i < it->n_places; i++)
		limits[i] = &c->limits[it->place[i].image];
	for (size_t i = 0; i < n; i++)
		t[i] = (struct layer_target){.drv = lead[i]->drv,
					     .target = lead[i]->target,
					     .im = lead[i]->part[it->place[0].image].im};
	r = check_places(c, it, e);
	if (r == 0)
		r = layer_convert(&j, e);
	on_done(&w, t, n);
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && !t[i].done)
			wrap_layer(c, it, &t[i].err);
		if (r == 0)
			after_layer(c, it, lead[i], &t[i], j.in.codec, clock_mono_ms() - start);
		else
			to_cache(c, lead[i], it, NULL, NULL); /* gives the lease back */
		descriptor_fini(&t[i].to);
		layer_result_fini(&t[i].result);
	}
	return r < 0 ? wrap_layer(c, it, e) : 0;
}

/* Equal targets: their blobs are the lead's. */
static void follow(struct conv *c, struct item *it, struct column *k, struct column *lead)
{
	const struct place *at = &it->place[0];
	struct part *p = &lead->part[at->image];
	struct err e = {0};

	if (!is_active(lead)) {
		struct err why = {.code = lead->result->code,
				  .class = lead->result->class,
				  .retry_after_ms = lead->result->retry_after_ms};

		str_copy(why.text, sizeof(why.text), lead->result->reason);
		fail_column(k, &why);
		return;
	}
	if (fill_places(c, k, it, CODEC_NONE, NULL, &p->done[at->layer], &p->result[at->layer],
			&e) < 0) {
		wrap_layer(c, it, &e);
		fail_column(k, &e);
		return;
	}
	note_figures(c, k, it, 0, false, true);
}

static const char *plain_note(struct conv *c, const struct item *it)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		if (is_active(k) && k->part)
			return k->part[it->place[0].image].result[it->place[0].layer].plain_reason;
	}
	return "";
}

static int convert_item(struct conv *c, struct item *it, struct err *e)
{
	scoped_free struct column **lead = mem_array(c->n_columns, sizeof(struct column *));
	scoped_free struct column **tail = mem_array(c->n_columns, sizeof(struct column *));
	size_t n = 0, n_tail = 0, cached = 0;

	layer_state(c, it, LAYER_RUNNING, NULL);
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		if (!is_active(k))
			continue;
		if (lead_of(c, k, lead, n)) {
			tail[n_tail++] = k;
		} else if (from_cache(c, k, it)) {
			note_figures(c, k, it, 0, true, false);
			cached++;
		} else {
			lead[n++] = k;
		}
	}
	if (n && convert_leads(c, it, lead, n, e) < 0) {
		layer_state(c, it, LAYER_FAILED, e->text);
		return -1;
	}
	for (size_t i = 0; i < n_tail; i++)
		follow(c, it, tail[i], lead_of(c, tail[i], lead, n));
	if (!n && cached) {
		pthread_mutex_lock(&c->lock);
		c->cached++;
		pthread_mutex_unlock(&c->lock);
	}
	layer_state(c, it, !n && cached ? LAYER_CACHED : LAYER_DONE, plain_note(c, it));
	return 0;
}

static void *layer_thread(void *arg)
{
	struct conv *c = arg;

	for (;;) {
		size_t i = atomic_fetch_add(&c->next_item, 1);
		struct err e = {0};

		if (i >= c->n_items || atomic_load(&c->halt))
			return NULL;
		if (stopped(c, &e) < 0 || !n_active(c) || convert_item(c, &c->item[i], &e) < 0) {
			if (e.code != ERR_OK)
				fail_all(c, &e);
			return NULL;
		}
	}
}

static int run_threads(struct conv *c, struct err *e)
{
	size_t n = c->job->layers ? c->job->layers : OPEN_LAYERS, started = 0;
	pthread_t thread[64];
	pthread_attr_t attr;
	int rc = 0;

	if (n > c->n_items)
		n = c->n_items;
	if (n > sizeof(thread) / sizeof(*thread))
		n = sizeof(thread) / sizeof(*thread);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (started < n && rc == 0) {
		rc = pthread_create(&thread[started], &attr, layer_thread, c);
		started += rc == 0;
	}
	pthread_attr_destroy(&attr);
	for (size_t i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	if (rc && !started && n)
		return err_errno(e, rc, "start a thread");
	if (c->failed) {
		*e = c->err;
		return -1;
	}
	return 0;
}

/* ---- after the layers: config, manifest, index */
static void strip_content(struct descriptor *d)
{
	if (!d->extra) /* `data` and `urls` are the source blob's */
		return;
	json_del(d->extra, "data");
	json_del(d->extra, "urls");
}

/* A layer that ended as plain says so itself: the result of the task may be gone when someone asks.
 */
static void finish_layer(const struct part *p, size_t n, struct descriptor *d)
{
	strip_content(d);
	annotations_del(&d->annotations, ANN_PLAIN);
	for (size_t i = 0; i < n; i++)
		if (p->result[i].plain_reason[0] && digest_eq(&p->done[i].digest, &d->digest))
			annotations_set(&d->annotations, ANN_PLAIN, p->result[i].plain_reason);
}

/* An event names tag and digest, a person the tag alone: what the result says of its source is the
 * same. */
static const char *source_name(const struct conv *c, char text[IMAGEREF_TEXT])
{
	struct imageref ref = c->job->source;

	if (ref.tag[0])
		memset(&ref.digest, 0, sizeof(ref.digest));
	return imageref_text(&ref, text);
}

static void annotate(struct conv *c, const struct column *k, struct annotations *a,
		     const struct digest *source)
{
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT], format[32];

	annotations_set(a, ANN_SOURCE_DIGEST, digest_text(source, dtext));
	annotations_set(a, ANN_SOURCE_REFERENCE, source_name(c, text));
	annotations_set(a, ANN_FORMAT, target_format(k->target, format));
	annotations_set(a, ANN_OPTIONS, k->options);
	annotations_set(a, ANN_GENERATION, "1");
}

static bool is_oci(const char *media_type)
{
	return str_starts(media_type, "application/vnd.oci.");
}

static int finish_config(struct conv *c, struct part *p, struct err *e)
{
	struct buf b = BUF_INIT(LIMIT_CONFIG);
	struct manifest *m = &p->manifest;
	int r = imageconfig_write(&p->config, &b, e);

	if (r == 0) {
		digest_of(&m->config.digest, DIGEST_SHA256, b.data, b.len);
		m->config.size = b.len;
		strip_content(&m->config);
		r = blob_push(c->registry, c->job->source.repository, b.data, b.len,
			      &m->config.digest, e);
		if (r < 0)
			err_wrap(e, "push the config");
	}
	buf_fini(&b);
	return r;
}

static int finish_part(struct conv *c, struct column *k, size_t i, struct err *e)
{
	struct resolved_image *im = &c->source.image[i];
	struct part *p = &k->part[i];
	struct manifest *m = &p->manifest;
	bool alone = c->source.kind == KIND_IMAGE || (c->source.n == 1 && !k->drv->index_of_one);
	const struct digest *from = alone ? &c->source.body.digest : &im->from.digest;
	char text[IMAGEREF_TEXT];
	const struct driver_source where = {
		.reference = source_name(c, text), .digest = from, .manifest = &im->from};

	/* a copy: parse of our own writing keeps every member */
	buf_reset(&p->manifest_text);
	if (manifest_write(&im->manifest, &p->manifest_text, e) < 0 ||
	    manifest_parse(m, p->manifest_text.data, p->manifest_text.len, e) < 0)
		return err_wrap(e, "copy the manifest");
	imageconfig_copy(&p->config, &im->config);
	if (k->drv->finish(p->im, p->done, p->result, im->manifest.n_layers, m, &p->config, e) < 0)
		return -1;
	if (k->drv->mark)
		k->drv->mark(k->target, &where, m);
	annotate(c, k, &m->annotations, from);
	for (size_t l = 0; l < m->n_layers; l++)
		finish_layer(p, im->manifest.n_layers, &m->layers[l]);
	if (finish_config(c, p, e) < 0)
		return -1;
	buf_reset(&p->manifest_text);
	if (manifest_write(m, &p->manifest_text, e) < 0)
		return err_wrap(e, "write the manifest");
	/* Its place in an index: everything of the source's entry but what names the bytes. */
	descriptor_copy(&p->out, &im->from);
	str_copy(p->out.media_type, sizeof(p->out.media_type), m->media_type);
	digest_of(&p->out.digest, DIGEST_SHA256, p->manifest_text.data, p->manifest_text.len);
	p->out.size = p->manifest_text.len;
	strip_content(&p->out);
	k->result->size += m->config.size;
	for (size_t l = 0; l < m->n_layers; l++)
		k->result->size += m->layers[l].size;
	return 0;
}

static int copy_index(struct index *to, const struct index *from, struct err *e)
{
	struct buf b = BUF_INIT(16u << 20);
	int r = index_write(from, &b, e);

	if (r == 0)
		r = index_parse(to, b.data, b.len, e);
	buf_fini(&b);
	return r;
}

static int plain_index(struct conv *c, struct column *k, struct index *x, struct err *e)
{
	if (copy_index(x, &c->source.index, e) < 0)
		return err_wrap(e, "copy the index");
	for (size_t i = 0; i < x->n; i++)
		descriptor_fini(&x->manifests[i]);
	x->n = 0;
	for (size_t i = 0; i < c->source.n; i++) {
		descriptor_copy(index_add(x), &k->part[i].out);
		if (is_oci(k->part[i].out.media_type))
			str_copy(x->media_type, sizeof(x->media_type), MT_OCI_INDEX);
	}
	return 0;
}

/* 1: an index is the result, 0: the one manifest is. */
static int make_index(struct conv *c, struct column *k, struct index *x, struct err *e)
{
	scoped_free struct index_child *child = mem_array(c->source.n, sizeof(*child));
	bool from_index = c->source.kind == KIND_INDEX;

	for (size_t i = 0; i < c->source.n; i++)
		child[i] = (struct index_child){.from = &c->source.image[i].from,
						.src = &c->source.image[i].manifest,
						.cfg = &c->source.image[i].config,
						.done = &k->part[i].out};
	if (k->drv->index) {
		int r = k->drv->index(k->target, from_index ? &c->source.index : NULL, child,
				      c->source.n, &c->store, &k->push, x, e);

		if (r != 0)
			return r;
	}
	if (!from_index || (c->source.n == 1 && !k->drv->index_of_one))
		return 0;
	return plain_index(c, k, x, e) < 0 ? -1 : 1;
}

static int finish_column(struct conv *c, struct column *k, struct err *e)
{
	struct index x;
	int r = 0;

	k->result->size = 0;
	for (size_t i = 0; i < k->result->n_layers; i++)
		k->result->plain_layers += k->result->layers[i].plain[0] != '\0';
	for (size_t i = 0; i < c->source.n && r == 0; i++)
		r = finish_part(c, k, i, e);
	if (r < 0)
		return -1;
	index_init(&x);
	r = make_index(c, k, &x, e);
	if (r > 0) {
		annotate(c, k, &x.annotations, &c->source.body.digest);
		r = index_write(&x, &k->index_text, e);
		str_copy(k->index_type, sizeof(k->index_type),
			 x.media_type[0] ? x.media_type : MT_OCI_INDEX);
	}
	index_fini(&x);
	return r;
}

/* ---- publishing */
static int publish_column(struct conv *c, struct column *k, struct err *e)
{
	bool index = k->index_text.len > 0;
	size_t n = c->source.n + k->push.n, at = 0;
	scoped_free struct publish_manifest *m = mem_array(n + 1, sizeof(*m));
	struct publish_manifest top;
	struct publish_answer a = {0};
	char replaced[DIGEST_TEXT];
	struct publish p = {.registry = c->registry,
			    .ops = c->job->publish ? c->job->publish : &publish_always,
			    .source = &c->job->source,
			    .source_digest = &c->source.body.digest,
			    .target = &k->result->ref,
			    .children = m,
			    .top = &top,
			    .pinned = c->job->pinned,
			    .must_publish = c->job->must_publish,
			    .stop = c->job->stop};

	for (size_t i = 0; i < k->push.n; i++) {
		m[at] = (struct publish_manifest){.media_type = k->push.m[i].media_type,
						  .data = k->push.m[i].data,
						  .n = k->push.m[i].n};
		digest_of(&m[at].digest, DIGEST_SHA256, m[at].data, m[at].n);
		at++;
	}
	for (size_t i = 0; i < c->source.n; i++)
		m[at++] = (struct publish_manifest){.media_type = k->part[i].out.media_type,
						    .data = k->part[i].manifest_text.data,
						    .n = k->part[i].manifest_text.len,
						    .digest = k->part[i].out.digest};
	top = m[at - 1];
	p.n_children = index ? at : at - 1;
	if (index) {
		top = (struct publish_manifest){.media_type = k->index_type,
						.data = k->index_text.data,
						.n = k->index_text.len};
		digest_of(&top.digest, DIGEST_SHA256, top.data, top.n);
	}
	if (publish_target(&p, &a, e) < 0)
		return -1;
	if (digest_is_set(&a.now))
		c->result->moved_to = a.now;
	if (a.as != AS_PUBLISHED) {
		end_column(k, TARGET_SKIPPED, a.reason);
		return 0;
	}
	k->result->digest = top.digest;
	if (digest_eq(&k->result->digest, &k->result->replaced))
		memset(&k->result->replaced, 0, sizeof(k->result->replaced));
	else if (digest_is_set(&k->result->replaced))
		warn(c, "target tag moved", "replaced",
		     digest_text(&k->result->replaced, replaced));
	end_column(k, TARGET_PUBLISHED, NULL);
	return 0;
}

/* ---- the whole */
static int open_pool(struct conv *c, struct err *e)
{
	struct pool_opts o = {.threads = c->job->threads ? c->job->threads : pool_cpus(),
			      .buffer_bytes = 4u << 20,
			      .verify = c->job->verify == VERIFY_FULL};
	size_t targets = n_active(c), layers = c->job->layers ? c->job->layers : OPEN_LAYERS;
	uint64_t base;

	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		size_t n = k->active && k->drv->largest ? k->drv->largest(k->target) : 0;

		if (n > o.buffer_bytes)
			o.buffer_bytes = n;
	}
	if (layers > c->n_items)
		layers = c->n_items;
	base = (uint64_t)o.buffer_bytes *
	       (layers * targets + (2 * o.threads > 16 ? 16 : 2 * o.threads));
	for (size_t i = 0; i < c->n_columns; i++)
		if (c->column[i].active && c->column[i].backend)
			base += layers * backend_held_bytes(c->column[i].backend);
	c->limits = mem_array(c->source.n, sizeof(*c->limits));
	for (size_t i = 0; i < c->source.n; i++)
		limits_init(&c->limits[i], c->job->max_image_size, c->job->memory, base,
			    (uint32_t)targets);
	return pool_open(&c->pool, &o, e);
}

static int convert_layers(struct conv *c, struct err *e)
{
	if (open_pool(c, e) < 0)
		return -1;
	open_columns(c);
	if (FAULT("task.convert", e) < 0)
		return -1;
	return n_active(c) ? run_threads(c, e) : 0;
}

static void init_columns(struct conv *c)
{
	const struct convert_job *j = c->job;

	c->column = mem_array(j->n_targets ? j->n_targets : 1, sizeof(*c->column));
	c->result->targets =
		mem_array(j->n_targets ? j->n_targets : 1, sizeof(*c->result->targets));
	c->n_columns = c->result->n_targets = j->n_targets;
	for (size_t i = 0; i < j->n_targets; i++) {
		struct column *k = &c->column[i];

		k->target = &j->targets[i];
		k->drv = driver_of(k->target);
		k->result = &c->result->targets[i];
		k->result->driver = driver_name(k->target->driver);
		target_format(k->target, k->result->format);
		k->active = true;
		pthread_mutex_init(&k->lock, NULL);
		buf_init(&k->index_text, 16u << 20);
	}
}

static void start_columns(struct conv *c)
{
	size_t n = 0;

	for (size_t m = 0; m < c->source.n; m++)
		n += c->source.image[m].manifest.n_layers;
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (start_column(c, k, &e) < 0)
			fail_column(k, &e);
		if (k->active) {
			k->result->n_layers = n;
			k->result->layers = mem_array(n ? n : 1, sizeof(*k->result->layers));
		}
	}
}

static void finish_columns(struct conv *c, uint64_t since)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (!k->active)
			continue;
		if (stopped(c, &e) < 0 || finish_column(c, k, &e) < 0)
			fail_column(k, &e);
		else
			step(c, STEP_CONVERTED, &k->result->ref, since);
	}
}

static void publish_columns(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		uint64_t since = clock_mono_ns();
		struct err e = {0};

		if (!k->active)
			continue;
		step(c, STEP_PUSHING, &k->result->ref, 0);
		if (stopped(c, &e) < 0 || publish_column(c, k, &e) < 0)
			fail_column(k, &e);
		else if (k->result->outcome == TARGET_PUBLISHED)
			step(c, STEP_PUSHED, &k->result->ref, since);
	}
}

static int run(struct conv *c, struct err *e)
{
	const struct convert_job *j = c->job;
	const struct source_settings *s = settings_source(j->settings, j->source.host);
	const struct registry_opts ro = {
		.request_id = j->request_id, .on_pause = j->on_pause, .arg = j->pause_arg};
	uint64_t since = clock_mono_ns();

	if (!s)
		return err_class(e, ERR_DENIED, CLASS_WAIT, "no provider.source for %s here",
				 j->source.host);
	if (registry_open(&c->registry, j->http, s, &ro, e) < 0)
		return -1;
	if (classify_reference(&j->settings->rules, &j->source, e) < 0)
		return -1;
	open_caches(c);
	step(c, STEP_PULLING, NULL, 0);
	if (read_source(c, e) < 0)
		return -1;
	list_items(c);
	start_columns(c);
	c->result->pull_ms = (clock_mono_ns() - since) / 1000000;
	step(c, STEP_PULLED, NULL, since);
	if (!n_active(c))
		return 0;
	since = clock_mono_ns();
	step(c, STEP_CONVERTING, NULL, 0);
	if (convert_layers(c, e) < 0)
		return -1;
	finish_columns(c, since);
	c->result->convert_ms = (clock_mono_ns() - since) / 1000000;
	since = clock_mono_ns();
	save_caches(c);
	publish_columns(c);
	c->result->push_ms = (clock_mono_ns() - since) / 1000000;
	return 0;
}

static void conv_fini(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		for (size_t m = 0; k->part && m < c->source.n; m++)
			part_fini(k, &k->part[m], c->source.image[m].manifest.n_layers);
		free(k->part);
		backend_freep(&k->backend);
		buf_fini(&k->index_text);
		for (size_t m = 0; m < k->push.n; m++)
			free(k->push.m[m].data);
		free(k->push.m);
		if (k->target == &k->pinned)
			target_fini(&k->pinned);
		pthread_mutex_destroy(&k->lock);
	}
	free(c->column);
	for (size_t i = 0; i < c->n_items; i++)
		free(c->item[i].place);
	free(c->item);
	free(c->limits);
	for (size_t i = 0; i < c->n_tagged; i++)
		cache_freep(&c->tagged[i].cache);
	free(c->tagged);
	pool_freep(&c->pool);
	blob_store_fini(&c->store);
	for (size_t i = 0; i < c->n_dictionaries; i++)
		dictionary_freep(&c->dictionary[i].of);
	free(c->dictionary);
	registry_freep(&c->registry);
	resolved_fini(&c->source);
	pthread_mutex_destroy(&c->window);
	pthread_mutex_destroy(&c->lock);
}

/* Wait before retry before final; every failed target is named. */
static int sum_up(struct convert_result *r, struct err *e)
{
	static const int rank[] = {
		[CLASS_FINAL] = 0, [CLASS_RETRY] = 1, [CLASS_WAIT] = 2, [CLASS_SKIP] = -1};
	const struct target_result *worst = NULL;
	size_t failed = 0;

	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target_result *t = &r->targets[i];

		if (t->outcome != TARGET_FAILED)
			continue;
		failed++;
		if (!worst || rank[t->class] > rank[worst->class])
			worst = t;
	}
	if (!failed)
		return 0;
	err_class(e, worst->code, worst->class, "%s", worst->reason);
	e->retry_after_ms = worst->retry_after_ms;
	if (r->n_targets > 1)
		err_wrap(e, "%s", worst->ref.tag[0] ? worst->ref.tag : worst->driver);
	for (size_t i = 0; i < r->n_targets && failed > 1; i++)
		if (&r->targets[i] != worst && r->targets[i].outcome == TARGET_FAILED) {
			size_t n = strlen(e->text);

			snprintf(e->text + n, sizeof(e->text) - n, "; %s: %s",
				 r->targets[i].ref.tag, r->targets[i].reason);
		}
	return -1;
}

static int end(struct conv *c, int rc, struct err *e)
{
	struct convert_result *r = c->result;

	r->cached_layers = c->cached;
	r->in_bytes = c->progress.in_bytes;
	r->out_bytes = c->progress.out_bytes;
	if (rc == 0)
		return sum_up(r, e);
	for (size_t i = 0; i < c->n_columns; i++) {
		if (!c->column[i].active)
			continue;
		if (e->class == CLASS_SKIP)
			end_column(&c->column[i], TARGET_SKIPPED, e->text);
		else
			fail_column(&c->column[i], e);
	}
	if (e->class != CLASS_SKIP)
		return -1;
	r->skipped = true;
	str_copy(r->reason, sizeof(r->reason), e->text);
	err_clear(e);
	return 0;
}

int convert_image(const struct convert_job *job, struct convert_result *r, struct err *e)
{
	struct conv c = {.job = job, .result = r};
	int rc;

	pthread_mutex_init(&c.lock, NULL);
	pthread_mutex_init(&c.window, NULL);
	c.store = (struct blob_store){.push = store_push,
				      .range = store_range,
				      .manifest = store_manifest,
				      .fetch = store_fetch,
				      .bring = store_bring};
	init_columns(&c);
	/* A person may ask for an image that no rule fits; the task says so. */
	rc = job->n_targets ? run(&c, e)
			    : err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "no rule fits this image");
	/* A stop shows up as whatever it interrupted. */
	if (rc < 0 && job->stop && atomic_load(job->stop))
		err_set(e, (enum err_code)atomic_load(job->stop), "cancelled");
	rc = end(&c, rc, e);
	/* All targets skipped for one reason: so is the image. */
	if (rc == 0 && !r->skipped && r->n_targets) {
		bool all = true;

		for (size_t i = 0; i < r->n_targets; i++)
			all &= r->targets[i].outcome == TARGET_SKIPPED;
		if (all) {
			r->skipped = true;
			str_copy(r->reason, sizeof(r->reason), r->targets[0].reason);
		}
	}
	conv_fini(&c);
	return rc;
}

/* ---- the result */
void convert_result_init(struct convert_result *r)
{
	memset(r, 0, sizeof(*r));
}

void convert_result_fini(struct convert_result *r)
{
	for (size_t i = 0; i < r->n_targets; i++)
		free(r->targets[i].layers);
	free(r->targets);
	memset(r, 0, sizeof(*r));
}

static void set_digest(struct json *j, const char *key, const struct digest *d)
{
	char text[DIGEST_TEXT];

	if (digest_is_set(d))
		json_set_str(j, key, digest_text(d, text));
}

static struct json *layer_json(const struct layer_figures *f)
{
	struct json *j = json_new_object();

	if (f->platform[0])
		json_set_str(j, "platform", f->platform);
	json_set_int(j, "index", f->index);
	set_digest(j, "from", &f->from);
	set_digest(j, "to", &f->to);
	json_set_int(j, "in_bytes", (int64_t)f->in_bytes);
	json_set_int(j, "out_bytes", (int64_t)f->out_bytes);
	json_set_int(j, "unpacked", (int64_t)f->unpacked);
	json_set_int(j, "ms", (int64_t)f->ms);
	if (f->cached)
		json_set_bool(j, "cached", true);
	if (f->shared)
		json_set_bool(j, "shared", true);
	if (f->plain[0])
		json_set_str(j, "plain", f->plain);
	return j;
}

static struct json *target_json(const struct target_result *t)
{
	struct json *j = json_new_object(), *list = json_new_array();
	char text[IMAGEREF_TEXT];

	json_set_str(j, "driver", t->driver);
	if (t->format[0])
		json_set_str(j, "format", t->format);
	if (t->ref.repository[0])
		json_set_str(j, "reference", imageref_text(&t->ref, text));
	json_set_str(j, "outcome", target_outcome_name(t->outcome));
	set_digest(j, "digest", &t->digest);
	set_digest(j, "replaced", &t->replaced);
	json_set_int(j, "size", (int64_t)t->size);
	if (t->reason[0])
		json_set_str(j, "reason", t->reason);
	if (t->outcome == TARGET_FAILED) {
		json_set_str(j, "reason_code", err_slug(t->code));
		json_set_str(j, "class", err_class_name(t->class));
	}
	json_set_int(j, "plain_layers", t->plain_layers);
	for (size_t i = 0; i < t->n_layers; i++)
		if (digest_is_set(&t->layers[i].from))
			json_append(list, layer_json(&t->layers[i]));
	json_set(j, "layers", list);
	return j;
}

struct json *convert_result_to_json(const struct convert_result *r)
{
	struct json *j = json_new_object(), *list = json_new_array();

	json_set_bool(j, "skipped", r->skipped);
	if (r->reason[0])
		json_set_str(j, "reason", r->reason);
	set_digest(j, "source_digest", &r->source_digest);
	set_digest(j, "moved_to", &r->moved_to);
	json_set_int(j, "source_size", (int64_t)r->source_size);
	json_set_int(j, "platforms", r->platforms);
	json_set_int(j, "dropped_platforms", r->dropped_platforms);
	json_set_int(j, "unique_layers", r->layers);
	json_set_int(j, "cached_layers", r->cached_layers);
	json_set_int(j, "in_bytes", (int64_t)r->in_bytes);
	json_set_int(j, "out_bytes", (int64_t)r->out_bytes);
	json_set_int(j, "pull_ms", (int64_t)r->pull_ms);
	json_set_int(j, "convert_ms", (int64_t)r->convert_ms);
	json_set_int(j, "push_ms", (int64_t)r->push_ms);
	for (size_t i = 0; i < r->n_targets; i++)
		json_append(list, target_json(&r->targets[i]));
	json_set(j, "targets", list);
	return j;
}
