/* worker/dictionary.c - see dictionary.h. */
#include "worker/dictionary.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "common/str.h"
#include "worker/drivers/nydus.h"
#include "worker/oci/descriptor.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"
#include "worker/registry/registry.h"

#define CHILDREN 64 /* of an index that are looked at */

struct dictionary {
	struct imageref ref; /* by digest */
	char pinned[IMAGEREF_TEXT];
	struct registry *own;		  /* the task's */
	struct registry *registry;	  /* where it is read from */
	struct source_settings anonymous; /* of a registry that was opened here; borrowed texts */
};

void dictionary_freep(struct dictionary **dp)
{
	struct dictionary *d = take_ptr(*dp);

	if (!d)
		return;
	if (d->registry != d->own)
		registry_freep(&d->registry);
	free(d);
}

/* A tenant is the first component of a repository. */
static bool same_tenant(const struct imageref *a, const struct imageref *b)
{
	size_t n = strcspn(a->repository, "/");

	return strcmp(a->host, b->host) == 0 && n == strcspn(b->repository, "/") &&
	       strncmp(a->repository, b->repository, n) == 0;
}

static int open_anonymous(struct dictionary *d, const struct dictionary_opts *o, struct err *e)
{
	const struct source_settings *s = settings_source(o->settings, d->ref.host);

	if (!s)
		return err_set(e, ERR_DENIED, "%s is not in provider.source", d->ref.host);
	d->anonymous = *s;
	d->anonymous.username = d->anonymous.password = NULL;
	d->anonymous.cert_file = d->anonymous.key_file = NULL;
	return registry_open(&d->registry, o->http, &d->anonymous, o->registry, e);
}

static int get(struct dictionary *d, const struct imageref *ref, struct manifest_body *b,
	       struct err *e)
{
	struct err why = {0};

	if (registry_get_manifest(d->registry, ref, b, &why) == 0)
		return 0;
	if (e)
		*e = why;
	if (d->registry == d->own || (why.code != ERR_DENIED && why.code != ERR_NOTFOUND))
		return -1;
	return err_wrap(e,
			"it is in another project and cannot be read without a login: put a copy "
			"into this one, or make that one public");
}

static bool is_nydus(const struct manifest *m)
{
	return m->n_layers &&
	       annotations_get(&m->layers[m->n_layers - 1].annotations, NYDUS_BOOTSTRAP);
}

/* 1: the child is a Nydus image. */
static int look_at_child(struct dictionary *d, const struct digest *child, struct err *e)
{
	struct imageref ref = d->ref;
	struct manifest_body b;
	struct manifest m;
	int r;

	ref.tag[0] = '\0';
	ref.digest = *child;
	if (get(d, &ref, &b, e) < 0)
		return -1;
	r = manifest_parse(&m, b.data, b.n, e);
	manifest_body_fini(&b);
	if (r < 0)
		return -1;
	r = is_nydus(&m);
	manifest_fini(&m);
	return r;
}

static int choose_child(struct dictionary *d, const struct index *x, struct err *e)
{
	size_t found = 0;

	if (x->n > CHILDREN)
		return err_set(e, ERR_INVALID, "an index of %zu images; name one by digest", x->n);
	for (size_t i = 0; i < x->n; i++) {
		int r = look_at_child(d, &x->manifests[i].digest, e);

		if (r < 0)
			return -1;
		if (r && !found++)
			d->ref.digest = x->manifests[i].digest;
	}
	if (found == 1)
		return 0;
	return found ? err_set(e, ERR_INVALID,
			       "an index of %zu Nydus images, one a platform; name one by digest",
			       found)
		     : err_set(e, ERR_INVALID, "an index without a Nydus image in it");
}

static int resolve_ref(struct dictionary *d, struct err *e)
{
	struct manifest_body b;
	struct manifest m;
	struct index x;
	struct err why = {0};
	int r = 0;

	if (get(d, &d->ref, &b, e) < 0)
		return -1;
	d->ref.digest = b.digest;
	if (manifest_parse(&m, b.data, b.n, &why) == 0) {
		if (!is_nydus(&m))
			r = err_set(e, ERR_INVALID,
				    "it is no Nydus image: its last layer is no bootstrap");
		manifest_fini(&m);
	} else if (index_parse(&x, b.data, b.n, e) == 0) {
		r = choose_child(d, &x, e);
		index_fini(&x);
	} else {
		r = -1;
	}
	manifest_body_fini(&b);
	return r;
}

static int open_ref(struct dictionary *d, const char *asked, const struct dictionary_opts *o,
		    struct err *e)
{
	if (imageref_parse(&d->ref, asked, e) < 0)
		return -1;
	if (!d->ref.tag[0] && !digest_is_set(&d->ref.digest))
		str_copy(d->ref.tag, sizeof(d->ref.tag), "latest");
	if (same_tenant(&d->ref, o->source))
		d->registry = o->own;
	else if (open_anonymous(d, o, e) < 0)
		return -1;
	if (resolve_ref(d, e) < 0)
		return -1;
	d->ref.tag[0] = '\0';
	imageref_text(&d->ref, d->pinned);
	return 0;
}

int dictionary_open(struct dictionary **to, const char *asked, const struct dictionary_opts *o,
		    struct err *e)
{
	scoped(dictionary_freep) struct dictionary *d = mem_zalloc(sizeof(*d));

	d->own = o->own;
	if (open_ref(d, asked, o, e) < 0)
		return err_wrap(e, "chunk dictionary %s", asked);
	*to = take_ptr(d);
	return 0;
}

const char *dictionary_pinned(const struct dictionary *d)
{
	return d->pinned;
}

int dictionary_manifest(struct dictionary *d, struct manifest *m, struct err *e)
{
	struct manifest_body b;
	int r;

	if (get(d, &d->ref, &b, e) < 0)
		return -1;
	r = manifest_parse(m, b.data, b.n, e);
	manifest_body_fini(&b);
	return r;
}

int dictionary_fetch(struct dictionary *d, const struct descriptor *blob, size_t max,
		     struct buf *to, struct err *e)
{
	return blob_fetch(d->registry, d->ref.repository, blob, max, to, e);
}

static int copy(struct dictionary *d, const char *repository, const struct descriptor *blob,
		struct err *e)
{
	scoped(source_freep) struct source *body = NULL;
	scoped(upload_freep) struct upload *u = NULL;
	scoped_free char *piece = mem_alloc(256 << 10);
	ssize_t n;

	if (blob_source(&body, d->registry, d->ref.repository, blob, e) < 0)
		return err_wrap(e, "download");
	if (upload_open(&u, d->own, repository, e) < 0)
		return err_wrap(e, "start upload");
	while ((n = source_read(body, piece, 256 << 10, e)) > 0)
		if (upload_write(u, piece, (size_t)n, e) < 0)
			return err_wrap(e, "upload");
	if (n < 0) /* size and digest are checked at the end */
		return err_wrap(e, "download");
	return upload_commit(u, &blob->digest, blob->size, e);
}

int dictionary_bring(struct dictionary *d, const char *repository, const struct descriptor *blob,
		     struct err *e)
{
	bool here = strcmp(registry_host(d->own), d->ref.host) == 0;
	char text[DIGEST_TEXT];
	uint64_t size = 0;
	struct err why;
	int r = blob_exists(d->own, repository, &blob->digest, &size, e);

	if (r < 0)
		return -1;
	if (r == 1 && size != blob->size)
		return err_set(e, ERR_CORRUPT, "blob %s: %llu bytes, its manifest says %llu",
			       digest_short(&blob->digest, text), (unsigned long long)size,
			       (unsigned long long)blob->size);
	if (r == 1 ||
	    (here && blob_mount(d->own, repository, d->ref.repository, &blob->digest, &why) == 1))
		return 0;
	return copy(d, repository, blob, e) < 0
		       ? err_wrap(e, "blob %s", digest_short(&blob->digest, text))
		       : 0;
}
