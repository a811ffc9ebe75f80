/* worker/drivers/driver.c - the list of drivers; what they have in common. */
#include "worker/drivers/driver.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/str.h"

const struct driver *const drivers[DRIVERS] = {
	[DRIVER_ESTARGZ] = &estargz_driver,
	[DRIVER_ZSTDCHUNKED] = &zstdchunked_driver,
	[DRIVER_NYDUS] = &nydus_driver,
};

const struct driver *driver_of(const struct target *t)
{
	return drivers[t->driver];
}

struct kept {
	char *key;
	void *thing;
	void (*free_fn)(void *thing);
	struct kept *next;
};

void *blob_store_kept(const struct blob_store *s, const char *key)
{
	for (const struct kept *k = s->kept; k; k = k->next)
		if (str_eq(k->key, key))
			return k->thing;
	return NULL;
}

void blob_store_keep(struct blob_store *s, const char *key, void *thing, void (*free_fn)(void *))
{
	struct kept *k = mem_alloc(sizeof(*k));

	*k = (struct kept){mem_strdup(key), thing, free_fn, s->kept};
	s->kept = k;
}

void blob_store_fini(struct blob_store *s)
{
	while (s->kept) {
		struct kept *k = s->kept;

		s->kept = k->next;
		k->free_fn(k->thing);
		free(k->key);
		free(k);
	}
}

void layer_result_fini(struct layer_result *r)
{
	annotations_fini(&r->annotations);
	memset(r, 0, sizeof(*r));
}

struct json *layer_result_to_json(const struct layer_result *r)
{
	struct json *j = json_new_object(), *a = annotations_to_json(&r->annotations);
	char text[DIGEST_TEXT];

	json_set_str(j, "media_type", r->media_type);
	if (a)
		json_set(j, "annotations", a);
	if (digest_is_set(&r->diff_id))
		json_set_str(j, "diff_id", digest_text(&r->diff_id, text));
	json_set_int(j, "unpacked", (int64_t)r->unpacked);
	if (r->absent)
		json_set_bool(j, "absent", true);
	if (r->verbatim)
		json_set_bool(j, "verbatim", true);
	if (r->plain_reason[0])
		json_set_str(j, "plain", r->plain_reason);
	return j;
}

int layer_result_from_json(struct layer_result *r, const struct json *j, const char *at,
			   struct err *e)
{
	const char *media_type, *diff_id = NULL, *plain = NULL;
	struct layer_result x = {0};
	struct json *annotations = NULL;
	int64_t unpacked = 0;

	if (json_want(j, JSON_OBJECT, at, e) < 0 ||
	    json_str(j, "media_type", at, &media_type, e) < 0 ||
	    json_opt_str(j, "diff_id", at, &diff_id, e) < 0 ||
	    json_opt_str(j, "plain", at, &plain, e) < 0 ||
	    json_int(j, "unpacked", at, &unpacked, e) < 0 ||
	    json_opt_bool(j, "absent", at, &x.absent, e) < 0 ||
	    json_opt_bool(j, "verbatim", at, &x.verbatim, e) < 0 ||
	    json_opt_object(j, "annotations", at, &annotations, e) < 0)
		return -1;
	if (unpacked < 0 || strlen(media_type) >= sizeof(x.media_type))
		return err_set(e, ERR_INVALID, "%s: not a layer's result", at);
	if (diff_id && digest_parse(&x.diff_id, diff_id, e) < 0)
		return err_wrap(e, "%s.diff_id", at);
	if (annotations && annotations_from_json(&x.annotations, annotations, at, e) < 0)
		return -1;
	x.unpacked = (uint64_t)unpacked;
	str_copy(x.media_type, sizeof(x.media_type), media_type);
	str_copy(x.plain_reason, sizeof(x.plain_reason), plain ? plain : "");
	*r = x;
	return 0;
}

/* ---- what formats share whose layers are tars */

static const char *const stale[] = {
	"containerd.io/snapshot/stargz/toc.digest",
	"io.containers.estargz.uncompressed-size",
	"io.containers.zstd-chunked.manifest-checksum",
	"io.containers.zstd-chunked.manifest-position",
	"io.github.containers.zstd-chunked.manifest-checksum",
	"io.github.containers.zstd-chunked.manifest-position",
	"io.github.containers.zstd-chunked.tarsplit-position",
};

static void set_layer(struct descriptor *to, const struct descriptor *done,
		      const struct layer_result *r)
{
	to->digest = done->digest;
	to->size = done->size;
	str_copy(to->media_type, sizeof(to->media_type), r->media_type);
	for (size_t i = 0; i < sizeof(stale) / sizeof(*stale);
	     i++) /* the source was converted once before */
		annotations_del(&to->annotations, stale[i]);
	for (size_t i = 0; i < r->annotations.n; i++)
		annotations_set(&to->annotations, r->annotations.a[i].key,
				r->annotations.a[i].value);
}

int driver_finish_tars(const struct descriptor *done, const struct layer_result *r, size_t n,
		       struct manifest *to, struct imageconfig *cfg, struct err *e)
{
	bool changed = false;

	if (to->n_layers != n || cfg->n_diff_ids != n)
		return err_set(e, ERR_INVALID,
			       "the image has %zu layers, but %zu diff_ids in its configuration",
			       to->n_layers, cfg->n_diff_ids);
	for (size_t i = 0; i < n; i++) {
		set_layer(&to->layers[i], &done[i], &r[i]);
		changed = changed || !digest_eq(&cfg->diff_ids[i], &r[i].diff_id);
	}
	/* Docker's types lose every annotation of a layer in containerd: formats/estargz.md §8. */
	str_copy(to->media_type, sizeof(to->media_type), MT_OCI_MANIFEST);
	str_copy(to->config.media_type, sizeof(to->config.media_type), MT_OCI_CONFIG);
	if (changed) {
		struct digest *d = mem_array(n, sizeof(*d));

		for (size_t i = 0; i < n; i++)
			d[i] = r[i].diff_id;
		imageconfig_set_diff_ids(cfg, d, n);
		imageconfig_drop_legacy_image(cfg);
		free(d);
	}
	return 0;
}
