/* worker/convert/store.c - the registry (or a backend) as drivers and layers see it: sources in,
 * blobs out, dictionaries. */
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/stream.h"
#include "worker/backend/backend.h"
#include "worker/convert/conv.h"
#include "worker/dictionary.h"
#include "worker/registry/registry.h"

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
const char *conv_pin_dictionary(struct conv *c, const char *asked, struct err *e)
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

int conv_open_source(void *arg, struct source **body, const struct descriptor *from, struct err *e)
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

int conv_create_target(void *arg, const struct target *t, const struct out_ops **ops, void **dest,
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

void conv_store_init(struct blob_store *s)
{
	*s = (struct blob_store){.push = store_push,
				 .range = store_range,
				 .manifest = store_manifest,
				 .fetch = store_fetch,
				 .bring = store_bring};
}
