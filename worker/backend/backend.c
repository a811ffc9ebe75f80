/* worker/backend/backend.c - see backend.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target.h"
#include "worker/backend/backend_impl.h"

#define WINDOW (1u << 20)
#define RANGE_MAX (16u << 20) /* of one request */

bool backend_wanted(const struct target *t)
{
	return t->driver == DRIVER_NYDUS && t->nydus.backend != NYDUS_REGISTRY;
}

static int storage_of(struct storage *s, const struct target *t, struct err *e)
{
	const struct nydus_options *o = &t->nydus;

	if (!o->backend_config)
		return err_set(e, ERR_INVALID, "backend_type %s needs backend_config",
			       storage_kind_name(o->backend));
	return storage_open(s, o->backend, o->backend_config, o->backend_key_id,
			    o->backend_key_secret, e);
}

int backend_open(struct backend **to, struct http *h, const struct target *t, struct err *e)
{
	scoped(storage_fini) struct storage s = {0};
	struct backend *b = NULL;

	if (storage_of(&s, t, e) < 0)
		return -1;
	if ((s.kind == NYDUS_LOCALFS ? localfs_open(&b, &s, e) : bucket_open(&b, &s, e)) < 0)
		return -1;
	b->s = s;
	memset(&s, 0, sizeof(s));
	b->http = h;
	b->force = t->nydus.backend_force_push;
	storage_name(&b->s, b->name);
	str_clean(b->name);
	*to = b;
	return 0;
}

void backend_freep(struct backend **b)
{
	struct backend *old = *b;

	if (!old)
		return;
	*b = NULL;
	storage_fini(&old->s);
	old->ops->free(old);
}

int backend_prepare(const struct target *t, struct err *e)
{
	scoped(storage_fini) struct storage s = {0};

	if (t->nydus.backend != NYDUS_LOCALFS)
		return 0;
	return storage_of(&s, t, e) < 0 ? -1 : localfs_prepare(s.dir, e);
}

char *backend_folder(const struct target *t)
{
	scoped(storage_fini) struct storage s = {0};

	if (t->nydus.backend != NYDUS_LOCALFS || storage_of(&s, t, NULL) < 0)
		return NULL;
	return mem_strdup(s.dir);
}

int backend_find(struct backend *b, const struct digest *d, uint64_t *size, struct err *e)
{
	char name[BACKEND_NAME];
	int r = b->ops->find(b, digest_hex(d, name), size, e);

	return r < 0 ? err_wrap(e, "%s", b->name) : r;
}

int backend_create(struct backend *b, const struct out_ops **ops, void **dest, struct err *e)
{
	*ops = &b->ops->out;
	return b->ops->create(b, dest, e) < 0 ? err_wrap(e, "%s", b->name) : 0;
}

size_t backend_held_bytes(const struct backend *b)
{
	return b->ops->held;
}

const char *backend_name(const struct backend *b)
{
	return b->name;
}

void backend_temporary(char name[BACKEND_TEMPORARY])
{
	uint8_t random[12];
	char hex[25];

	digest_random(random, sizeof(random));
	str_hex(hex, random, sizeof(random));
	snprintf(name, BACKEND_TEMPORARY, "acceld-upload-%s", hex);
}

/* ---- read by ranges */
static int read_range(struct blobat_backend *x, uint64_t offset, size_t n, void *to, struct err *e)
{
	char name[BACKEND_NAME];

	digest_hex(&x->digest, name);
	for (size_t done = 0; done < n;) {
		size_t piece = n - done < RANGE_MAX ? n - done : RANGE_MAX;

		if (x->backend->ops->range(x->backend, name, offset + done, piece,
					   (char *)to + done, e) < 0)
			return err_wrap(e, "%s", x->backend->name);
		done += piece;
	}
	return 0;
}

static int backend_read(struct blob_at *at, uint64_t offset, void *to, size_t n, struct err *e)
{
	struct blobat_backend *x = (struct blobat_backend *)at;

	if (offset > at->size || n > at->size - offset)
		return err_set(e, ERR_CORRUPT, "bytes %llu to %llu are wanted, the blob has %llu",
			       (unsigned long long)offset, (unsigned long long)(offset + n),
			       (unsigned long long)at->size);
	if (n >= WINDOW)
		return read_range(x, offset, n, to, e);
	if (offset < x->from || offset + n > x->from + x->n) {
		if (!x->window)
			x->window = mem_alloc(WINDOW);
		x->n = 0;
		x->from = offset;
		if (at->size - offset < WINDOW) /* readers look at the end first */
			x->from = at->size > WINDOW ? at->size - WINDOW : 0;
		x->n = at->size - x->from < WINDOW ? (size_t)(at->size - x->from) : WINDOW;
		if (read_range(x, x->from, x->n, x->window, e) < 0) {
			x->n = 0;
			return -1;
		}
	}
	memcpy(to, x->window + (offset - x->from), n);
	return 0;
}

void blobat_backend_init(struct blobat_backend *x, struct backend *b, const struct digest *d,
			 uint64_t size)
{
	*x = (struct blobat_backend){
		.at = {.size = size, .read = backend_read}, .backend = b, .digest = *d};
}

void blobat_backend_fini(struct blobat_backend *x)
{
	free(x->window);
	x->window = NULL;
	x->n = 0;
}
