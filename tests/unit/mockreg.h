/* tests/unit/mockreg.h - a registry in memory in place of worker/registry: same functions, one
 * repository, counters and ways to fail.  Linked before libworker.a, so that the real one is not
 * pulled in. */
#ifndef TESTS_UNIT_MOCKREG_H
#define TESTS_UNIT_MOCKREG_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/stream.h"
#include "common/stream_impl.h"
#include "worker/oci/descriptor.h"
#include "worker/registry/registry.h"

struct mock_blob {
	struct digest digest;
	char *data;
	size_t n;
	char media_type[160]; /* manifests */
	bool manifest;
};
struct mock_tag {
	char tag[129];
	struct digest digest;
};
static struct mock {
	pthread_mutex_t lock;
	struct mock_blob *blob;
	size_t n, cap;
	struct mock_tag tag[16];
	size_t n_tags;
	/* counters */
	int gets, ranges, uploads, open_uploads, commits, tag_puts, mounts;
	/* failing */
	struct digest flip;	    /* this blob arrives with its last byte changed */
	int break_uploads;	    /* so many uploads fail with NET after 1000 bytes */
	int put_fails;		    /* manifest PUTs fail with NET and no answer */
	void (*before_put)(void);   /* called before a tag moves */
	void (*before_child)(void); /* called before a manifest is put by digest */
	void (*on_get)(void);	    /* when a blob is asked for */
} mock = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void mock_reset(void)
{
	for (size_t i = 0; i < mock.n; i++)
		free(mock.blob[i].data);
	free(mock.blob);
	mock = (struct mock){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static inline struct mock_blob *mock_find(const struct digest *d, bool manifest)
{
	for (size_t i = 0; i < mock.n; i++)
		if (mock.blob[i].manifest == manifest && digest_eq(&mock.blob[i].digest, d))
			return &mock.blob[i];
	return NULL;
}

static inline struct digest mock_add(const void *p, size_t n, const char *manifest_type)
{
	struct digest d;

	digest_of(&d, DIGEST_SHA256, p, n);
	pthread_mutex_lock(&mock.lock);
	if (!mock_find(&d, manifest_type != NULL)) {
		struct mock_blob *b;

		mem_grow(mock.blob, mock.n, mock.cap);
		b = &mock.blob[mock.n++];
		*b = (struct mock_blob){.digest = d, .n = n, .manifest = manifest_type != NULL};
		b->data = mem_dup(n ? p : "", n ? n : 1);
		str_copy(b->media_type, sizeof(b->media_type), manifest_type ? manifest_type : "");
	}
	pthread_mutex_unlock(&mock.lock);
	return d;
}

static inline struct mock_tag *mock_tag_of(const char *tag)
{
	for (size_t i = 0; i < mock.n_tags; i++)
		if (str_eq(mock.tag[i].tag, tag))
			return &mock.tag[i];
	return NULL;
}

static inline void mock_set_tag(const char *tag, const struct digest *d)
{
	struct mock_tag *t = mock_tag_of(tag);

	if (!t)
		t = &mock.tag[mock.n_tags++];
	str_copy(t->tag, sizeof(t->tag), tag);
	t->digest = *d;
}

/* ---- worker/registry/registry.h */
struct registry {
	char *host;
};

int registry_open(struct registry **r, struct http *h, const struct source_settings *s,
		  const struct registry_opts *o, struct err *e)
{
	*r = mem_zalloc(sizeof(**r));
	(*r)->host = mem_strdup(s->host);
	return 0;
}

void registry_freep(struct registry **r)
{
	if (*r)
		free((*r)->host);
	free(*r);
	*r = NULL;
}

const char *registry_host(const struct registry *r)
{
	return r->host;
}

void manifest_body_fini(struct manifest_body *m)
{
	free(m->data);
	memset(m, 0, sizeof(*m));
}

static struct mock_blob *mock_manifest(const struct imageref *ref)
{
	const struct digest *d = &ref->digest;

	if (!digest_is_set(d)) {
		const struct mock_tag *t = mock_tag_of(ref->tag);

		if (!t)
			return NULL;
		d = &t->digest;
	}
	return mock_find(d, true);
}

int registry_get_manifest(struct registry *r, const struct imageref *ref, struct manifest_body *m,
			  struct err *e)
{
	struct mock_blob *b = mock_manifest(ref);

	if (!b)
		return err_set(e, ERR_NOTFOUND, "%s not found at %s", ref->tag, ref->host);
	m->digest = b->digest;
	m->n = b->n;
	m->data = mem_strndup(b->data, b->n);
	str_copy(m->media_type, sizeof(m->media_type), b->media_type);
	return 0;
}

int registry_head_manifest(struct registry *r, const struct imageref *ref, struct digest *d,
			   uint64_t *size, char media_type[160], struct err *e)
{
	struct mock_blob *b = mock_manifest(ref);

	if (!b)
		return 0;
	*d = b->digest;
	*size = b->n;
	str_copy(media_type, 160, b->media_type);
	return 1;
}

int registry_put_manifest(struct registry *r, const struct imageref *ref, const char *media_type,
			  const void *p, size_t n, const struct put_opts *o, struct err *e)
{
	struct digest d;

	if (ref->tag[0] && mock.before_put)
		mock.before_put();
	if (!ref->tag[0] && mock.before_child)
		mock.before_child();
	if (mock.put_fails > 0) {
		mock.put_fails--;
		return err_set(e, ERR_NET, "%s closed the connection without an answer", ref->host);
	}
	d = mock_add(p, n, media_type);
	if (ref->tag[0]) {
		mock_set_tag(ref->tag, &d);
		mock.tag_puts++;
	}
	return 0;
}

int registry_referrers(struct registry *r, const char *repository, const struct digest *subject,
		       char **index, size_t *n, struct err *e)
{
	return 0;
}

int blob_exists(struct registry *r, const char *repository, const struct digest *d, uint64_t *size,
		struct err *e)
{
	struct mock_blob *b;

	pthread_mutex_lock(&mock.lock);
	b = mock_find(d, false);
	if (b)
		*size = b->n;
	pthread_mutex_unlock(&mock.lock);
	return b != NULL;
}

struct mock_source {
	struct source base;
	char *data;
	size_t n, at;
};

static ssize_t mock_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct mock_source *m = (struct mock_source *)s;

	if (n > m->n - m->at)
		n = m->n - m->at;
	if (n > 50000)
		n = 50000;
	memcpy(buf, m->data + m->at, n);
	m->at += n;
	return (ssize_t)n;
}

static void mock_free(struct source *s)
{
	free(((struct mock_source *)s)->data);
	free(s);
}

int blob_source(struct source **s, struct registry *r, const char *repository,
		const struct descriptor *d, struct err *e)
{
	static const struct source_ops ops = {.read = mock_read, .free = mock_free};
	struct mock_source *m;
	struct mock_blob *b;
	struct source *plain;

	if (mock.on_get)
		mock.on_get();
	pthread_mutex_lock(&mock.lock);
	mock.gets++;
	b = mock_find(&d->digest, false);
	if (!b) {
		pthread_mutex_unlock(&mock.lock);
		return err_set(e, ERR_NOTFOUND, "it is missing at %s", r->host);
	}
	m = mem_zalloc(sizeof(*m));
	m->base.ops = &ops;
	m->n = b->n;
	m->data = mem_dup(b->data, b->n ? b->n : 1);
	if (digest_eq(&mock.flip, &d->digest))
		m->data[m->n - 1] ^= 1;
	pthread_mutex_unlock(&mock.lock);
	plain = &m->base;
	*s = source_verify(&plain, &d->digest, d->size);
	return 0;
}

int blob_range(struct registry *r, const char *repository, const struct digest *d, uint64_t offset,
	       size_t n, void *to, struct err *e)
{
	struct mock_blob *b;

	pthread_mutex_lock(&mock.lock);
	mock.ranges++;
	b = mock_find(d, false);
	if (b && offset + n <= b->n)
		memcpy(to, b->data + offset, n);
	else
		b = NULL;
	pthread_mutex_unlock(&mock.lock);
	return b ? 0 : err_set(e, ERR_NOTFOUND, "no such range");
}

int blob_fetch(struct registry *r, const char *repository, const struct descriptor *d, size_t max,
	       struct buf *to, struct err *e)
{
	struct mock_blob *b = mock_find(&d->digest, false);

	if (!b)
		return err_set(e, ERR_NOTFOUND, "no such blob");
	return buf_add(to, b->data, b->n, e);
}

int blob_mount(struct registry *r, const char *repository, const char *from, const struct digest *d,
	       struct err *e)
{
	mock.mounts++;
	return 0;
}

int blob_push(struct registry *r, const char *repository, const void *p, size_t n,
	      const struct digest *d, struct err *e)
{
	mock_add(p, n, NULL);
	return 0;
}

struct upload {
	struct buf b;
	bool breaks;
};

int upload_open(struct upload **u, struct registry *r, const char *repository, struct err *e)
{
	*u = mem_zalloc(sizeof(**u));
	buf_init(&(*u)->b, 1u << 30);
	pthread_mutex_lock(&mock.lock);
	mock.uploads++;
	mock.open_uploads++;
	if (mock.break_uploads > 0) {
		mock.break_uploads--;
		(*u)->breaks = true;
	}
	pthread_mutex_unlock(&mock.lock);
	return 0;
}

int upload_write(struct upload *u, const void *p, size_t n, struct err *e)
{
	if (u->breaks && u->b.len + n > 100)
		return err_set(e, ERR_NET, "connection reset");
	return buf_add(&u->b, p, n, e);
}

int upload_commit(struct upload *u, const struct digest *d, uint64_t size, struct err *e)
{
	struct digest got = mock_add(u->b.data, u->b.len, NULL);

	if (!digest_eq(&got, d) || size != u->b.len)
		return err_set(e, ERR_BUG, "out counted wrongly");
	pthread_mutex_lock(&mock.lock);
	mock.commits++;
	pthread_mutex_unlock(&mock.lock);
	return 0;
}

void upload_freep(struct upload **u)
{
	if (!*u)
		return;
	pthread_mutex_lock(&mock.lock);
	mock.open_uploads--;
	pthread_mutex_unlock(&mock.lock);
	buf_fini(&(*u)->b);
	free(*u);
	*u = NULL;
}

#endif
