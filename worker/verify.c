/* worker/verify.c - see verify.h. */
#include "worker/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream.h"
#include "worker/backend/backend.h"
#include "worker/blobat.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/nydus.h"
#include "worker/listing.h"
#include "worker/rafs/rafs_check.h"
#include "worker/resolve.h"

struct check {
	struct registry *reg;
	const struct imageref *to, *from;
	const struct verify_ops *ops;
	struct verify_report *report;
	struct backend *backend; /* of this image's blobs; NULL: the registry */
	char platform[136];
	size_t layer;
	const struct manifest *image;	/* the converted one that is looked at */
	struct blobat_registry **other; /* its layers that others refer to, once asked for */
};

struct layer_at { /* a layer, with the others of its image */
	struct blobat_registry blob;
	struct check *check;
};

/* A converted blob, wherever it is. */
struct stored {
	struct blobat_registry registry;
	struct blobat_backend backend;
	struct blob_at *at;
};

static void stored_init(struct stored *s, const struct check *c, const struct descriptor *d)
{
	blobat_registry_init(&s->registry, c->reg, c->to->repository, d);
	blobat_backend_init(&s->backend, c->backend, &d->digest, d->size);
	s->at = c->backend ? &s->backend.at : &s->registry.at;
}

static void stored_fini(struct stored *s)
{
	blobat_registry_fini(&s->registry);
	blobat_backend_fini(&s->backend);
}

static void problem(struct check *c, const char *path, const char *what)
{
	c->report->problems++;
	if (c->ops->problem)
		c->ops->problem(c->ops->arg, c->platform, c->layer, path, what);
}

static void on_difference(void *arg, const char *path, const char *what)
{
	problem(arg, path, what);
}

/* A failure to read is ours or the network's; a broken blob is a finding. */
static int finding(struct check *c, struct err *e)
{
	if (e->code != ERR_CORRUPT && e->code != ERR_INVALID && e->code != ERR_NOTFOUND)
		return -1;
	problem(c, "", e->text);
	err_clear(e);
	return 0;
}

/* ---- reading a layer that is a tar */
static int read_tar(struct check *c, const char *repository, const struct descriptor *d,
		    const struct digest *diff_id, struct listing *l, struct err *e)
{
	scoped(source_freep) struct source *body = NULL;
	scoped(tar_closep) struct tar_reader *tar = NULL;
	const struct codec_opts o = {.large_window = true};
	enum codec codec;
	struct tar_piece p;
	int r;

	if (blob_source(&body, c->reg, repository, d, e) < 0)
		return err_wrap(e, "download");
	if (codec_sniff(&body, &codec, e) < 0)
		return err_wrap(e, "download");
	if (codec_unpack(&body, codec, &o, e) < 0)
		return err_wrap(e, "unpack");
	if (diff_id)
		body = source_verify(&body, diff_id, UINT64_MAX);
	if (tar_open(&tar, &body, NULL, e) < 0)
		return -1;
	while ((r = tar_next(tar, &p, e)) > 0)
		if (l && listing_piece(l, &p, e) < 0)
			return -1;
	return r < 0 || !l ? r : listing_end(l, e);
}

static const char *format_of(const struct descriptor *d, const struct driver **drv)
{
	static const struct {
		const char *key, *name;
		enum driver_id driver;
	} marks[] = {
		{"containerd.io/snapshot/stargz/toc.digest", "eStargz", DRIVER_ESTARGZ},
		{"io.github.containers.zstd-chunked.manifest-checksum", "zstd:chunked",
		 DRIVER_ZSTDCHUNKED},
		{"io.containers.zstd-chunked.manifest-checksum", "zstd:chunked",
		 DRIVER_ZSTDCHUNKED},
		{"containerd.io/snapshot/nydus-blob", "Nydus", DRIVER_NYDUS},
		{"containerd.io/snapshot/nydus-bootstrap", "Nydus bootstrap", DRIVER_NYDUS},
	};

	*drv = NULL;
	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++)
		if (annotations_get(&d->annotations, marks[i].key)) {
			/* both dialects of zstd:chunked share the first mark of stargz */
			*drv = drivers[marks[i].driver];
			if (marks[i].driver == DRIVER_ESTARGZ && strstr(d->media_type, "zstd")) {
				*drv = drivers[DRIVER_ZSTDCHUNKED];
				return "zstd:chunked";
			}
			return marks[i].name;
		}
	return "plain";
}

/* Of a chunk dictionary; nothing but layers of the same image is ever read. */
static int other_layer(struct blob_at *b, const char *id, struct blob_at **to, struct err *e)
{
	struct check *c = ((struct layer_at *)b)->check;
	char hex[DIGEST_TEXT];

	for (size_t i = 0; i < c->image->n_layers; i++) {
		if (!str_eq(digest_hex(&c->image->layers[i].digest, hex), id))
			continue;
		if (!c->other[i]) {
			c->other[i] = mem_zalloc(sizeof(*c->other[i]));
			blobat_registry_init(c->other[i], c->reg, c->to->repository,
					     &c->image->layers[i]);
		}
		*to = &c->other[i]->at;
		return 0;
	}
	return err_set(e, ERR_CORRUPT, "the image has no such layer");
}

/* The converted side by the format's own reader, all its rules with it. */
static int read_format(struct check *c, const struct driver *drv, const struct descriptor *d,
		       struct listing *l, struct err *e)
{
	struct layer_at at = {.check = c};
	struct blobat_backend elsewhere;
	int r;

	blobat_registry_init(&at.blob, c->reg, c->to->repository, d);
	at.blob.at.other = other_layer;
	blobat_backend_init(&elsewhere, c->backend, &d->digest, d->size);
	r = drv->check(c->backend ? &elsewhere.at : &at.blob.at, d, listing_piece, l, e);
	blobat_registry_fini(&at.blob);
	blobat_backend_fini(&elsewhere);
	return r < 0 ? err_wrap(e, "%s", drv->name) : listing_end(l, e);
}

const char *verify_format(const struct descriptor *d)
{
	const struct driver *drv;

	return format_of(d, &drv);
}

/* oci_ref: the blob is an index of the source layer. */
static int compare_ref(struct check *c, const struct descriptor *from, const struct descriptor *to,
		       struct err *e)
{
	scoped(source_freep) struct source *body = NULL;
	const struct codec_opts o = {0};
	struct blobat_registry gz; /* where nydusd looks for it: in the result's own repository */
	struct stored s;
	int r = blob_source(&body, c->reg, c->from->repository, from, e);

	if (r == 0)
		r = codec_unpack(&body, CODEC_GZIP, &o, e);
	if (r < 0)
		return finding(c, (err_wrap(e, "source layer"), e));
	stored_init(&s, c, to);
	blobat_registry_init(&gz, c->reg, c->to->repository, from);
	r = rafs_check_ref(s.at, &body, &from->digest, &gz.at, e);
	blobat_registry_fini(&gz);
	stored_fini(&s);
	if (r < 0)
		return finding(c, e);
	c->report->layers++;
	if (c->ops->layer)
		c->ops->layer(c->ops->arg, c->platform, c->layer, 0, 0, "Nydus, in place");
	return 0;
}

static int compare_layer(struct check *c, const struct descriptor *from,
			 const struct digest *from_diff, const struct descriptor *to,
			 const struct digest *to_diff, struct err *e)
{
	scoped(listing_freep) struct listing *want = listing_new(), *got = listing_new();
	const struct driver *drv;
	const char *format = format_of(to, &drv);
	const struct listing_ops lo = {.differs = on_difference, .arg = c};
	bool tar = !drv || drv != drivers[DRIVER_NYDUS];

	if (annotations_get(&to->annotations, "containerd.io/snapshot/nydus-ref"))
		return compare_ref(c, from, to, e);
	if (read_tar(c, c->from->repository, from, from_diff, want, e) < 0)
		return finding(c, (err_wrap(e, "source layer"), e));
	/* As any client pulls it: digest, size, diff_id. */
	if (tar &&
	    read_tar(c, c->to->repository, to, to_diff, drv && drv->check ? NULL : got, e) < 0)
		return finding(c, e);
	if (drv && drv->check && read_format(c, drv, to, got, e) < 0)
		return finding(c, e);
	listing_compare(want, got, &lo);
	c->report->layers++;
	c->report->entries += listing_entries(want);
	if (c->ops->layer)
		c->ops->layer(c->ops->arg, c->platform, c->layer, 0, listing_entries(want), format);
	return 0;
}

/* ---- configs: equal but for what a conversion changes */
static char *config_text(const struct imageconfig *cfg)
{
	static const char *const changed[] = {"rootfs", "history"};
	struct buf b = BUF_INIT(16u << 20);
	struct imageconfig copy;

	imageconfig_copy(&copy, cfg);
	imageconfig_drop_legacy_image(&copy);
	for (size_t i = 0; i < 2; i++)
		json_del(copy.json, changed[i]);
	json_write(copy.json, JSON_SORTED, &b, NULL);
	imageconfig_fini(&copy);
	return buf_take(&b);
}

static void compare_configs(struct check *c, const struct resolved_image *from,
			    const struct resolved_image *to)
{
	scoped_free char *a = config_text(&from->config), *b = config_text(&to->config);

	if (strcmp(a, b) != 0)
		problem(c, "", "the configs differ in more than rootfs and history");
	if (to->manifest.n_layers != to->config.n_diff_ids &&
	    !annotations_get(&to->manifest.annotations, "containerd.io/snapshot/nydus-fs-version"))
		problem(c, "", "the number of layers and diff_ids differ");
}

static bool is_bootstrap(const struct descriptor *d)
{
	return annotations_get(&d->annotations, "containerd.io/snapshot/nydus-bootstrap") != NULL;
}

/* ---- Nydus: the bootstrap says what the layers say, merged */
static int read_boot(struct check *c, const struct descriptor *d, const struct digest *diff_id,
		     struct buf *to, struct err *e)
{
	scoped(source_freep) struct source *body = NULL;
	scoped(tar_closep) struct tar_reader *tar = NULL;
	const struct codec_opts o = {0};
	struct tar_piece p;
	int r;

	if (blob_source(&body, c->reg, c->to->repository, d, e) < 0 ||
	    codec_unpack(&body, CODEC_GZIP, &o, e) < 0)
		return -1;
	if (diff_id)
		body = source_verify(&body, diff_id, UINT64_MAX);
	if (tar_open(&tar, &body, NULL, e) < 0)
		return -1;
	while ((r = tar_next(tar, &p, e)) > 0)
		if (p.kind == TAR_DATA && strcmp(p.entry->name, "image/image.boot") == 0 &&
		    buf_add(to, p.raw, p.len, e) < 0)
			return -1;
	if (r == 0 && !to->len)
		return err_set(e, ERR_CORRUPT, "no image/image.boot in it");
	return r;
}

/* n: layers of the source; those of a chunk dictionary have no place in the merge. */
static int check_bootstrap(struct check *c, const struct resolved_image *to, size_t n,
			   struct err *e)
{
	size_t last = to->manifest.n_layers - 1;
	struct rafs_layer *layers = mem_array(n, sizeof(*layers));
	struct buf boot = BUF_INIT((size_t)1 << 31);
	int r = read_boot(c, &to->manifest.layers[last],
			  last < to->config.n_diff_ids ? &to->config.diff_ids[last] : NULL, &boot,
			  e);

	for (size_t i = 0; i < n && r == 0; i++) {
		struct stored s;

		stored_init(&s, c, &to->manifest.layers[i]);
		r = rafs_layer_read(&layers[i], s.at, e);
		stored_fini(&s);
		if (r == 0 && rafs_layer_is_ref(&layers[i]))
			rafs_layer_name_ref(&layers[i], NULL, &to->manifest.layers[i].digest,
					    to->manifest.layers[i].size);
		else if (r == 0)
			rafs_layer_name(&layers[i], &to->manifest.layers[i].digest);
	}
	if (r == 0)
		r = rafs_check_image(layers, n, boot.data, boot.len, e);
	for (size_t i = 0; i < n; i++)
		rafs_layer_fini(&layers[i]);
	free(layers);
	buf_fini(&boot);
	c->layer = last + 1;
	return r < 0 ? finding(c, (err_wrap(e, "bootstrap"), e)) : 0;
}

static bool of_dictionary(const struct descriptor *d)
{
	return annotations_get(&d->annotations, NYDUS_DICTIONARY) != NULL;
}

static int compare_layers(struct check *c, const struct resolved_image *from,
			  const struct resolved_image *to, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		c->layer = i + 1;
		if (compare_layer(c, &from->manifest.layers[i],
				  i < from->config.n_diff_ids ? &from->config.diff_ids[i] : NULL,
				  &to->manifest.layers[i],
				  i < to->config.n_diff_ids ? &to->config.diff_ids[i] : NULL,
				  e) < 0)
			return err_wrap(e, "layer %zu", i + 1);
	}
	return 0;
}

static int compare_blobs(struct check *c, const struct resolved_image *from,
			 const struct resolved_image *to, struct err *e)
{
	size_t all = to->manifest.n_layers, n = all;
	char what[160];
	int r;

	while (n && is_bootstrap(&to->manifest.layers[n - 1]))
		n--;
	while (n > from->manifest.n_layers && of_dictionary(&to->manifest.layers[n - 1]))
		n--;
	if (n != from->manifest.n_layers) {
		snprintf(what, sizeof(what), "%zu layers, the source has %zu", n,
			 from->manifest.n_layers);
		problem(c, "", what);
		return 0;
	}
	c->image = &to->manifest;
	c->other = mem_array(all ? all : 1, sizeof(*c->other));
	r = compare_layers(c, from, to, n, e);
	if (r == 0 && all && is_bootstrap(&to->manifest.layers[all - 1]))
		r = check_bootstrap(c, to, n, e);
	for (size_t i = 0; i < all; i++) {
		if (c->other[i])
			blobat_registry_fini(c->other[i]);
		free(c->other[i]);
	}
	free(c->other);
	return r;
}

/* ---- blobs that are not in the registry */
size_t verify_backend_blobs(const struct manifest *m, struct digest **blobs)
{
	const char *s = annotations_get(&m->annotations, NYDUS_BACKEND_BLOBS);
	size_t n = 0;

	*blobs = NULL;
	if (!s || m->n_layers != 1 || !is_bootstrap(&m->layers[0]))
		return 0;
	*blobs = mem_array(MANIFEST_MAX_LAYERS, sizeof(**blobs));
	while (*s && n < MANIFEST_MAX_LAYERS) {
		size_t len = strcspn(s, ",");

		if (digest_parse_n(&(*blobs)[n++], s, len, NULL) < 0)
			return 0;
		s += len + (s[len] == ',');
	}
	return n;
}

/* 1: the first of the backends that has it. */
static int find_blob(struct check *c, const struct digest *d, uint64_t *size, struct err *e)
{
	for (size_t i = 0; i < c->ops->n_backends; i++) {
		int r = c->backend && c->backend != c->ops->backend[i]
				? 0
				: backend_find(c->ops->backend[i], d, size, e);

		if (r == 1)
			c->backend = c->ops->backend[i];
		if (r != 0)
			return r;
	}
	return 0;
}

static int list_blobs(struct check *c, const struct digest *blob, size_t n, struct manifest *to,
		      struct err *e)
{
	char text[DIGEST_TEXT], what[DIGEST_TEXT + 64];

	for (size_t i = 0; i < n; i++) {
		struct descriptor *d = manifest_add_layer(to);
		int r = find_blob(c, &blob[i], &d->size, e);

		if (r < 0)
			return -1;
		if (r == 0) {
			c->layer = i + 1;
			snprintf(what, sizeof(what), "its blob %s is not in %s",
				 digest_text(&blob[i], text),
				 c->backend ? backend_name(c->backend) : "any backend of --config");
			problem(c, "", what);
			return 0;
		}
		d->digest = blob[i];
		str_copy(d->media_type, sizeof(d->media_type), NYDUS_BLOB_TYPE);
		annotations_set(&d->annotations, NYDUS_BLOB, "true");
	}
	return 1;
}

/* The image as it would be in the registry: its blobs, then the bootstrap. */
static int compare_elsewhere(struct check *c, const struct resolved_image *from,
			     const struct resolved_image *to, const struct digest *blob, size_t n,
			     struct err *e)
{
	scoped_free struct digest *ids = mem_array(n + 1, sizeof(*ids));
	struct resolved_image view = *to;
	int r;

	if (!c->ops->n_backends)
		return err_set(
			e, ERR_UNSUPPORTED,
			"its %zu blobs are in a storage backend: name it with --config FILE, "
			"whose rules have its backend_type and backend_config",
			n);
	memset(&view.manifest, 0, sizeof(view.manifest));
	manifest_init(&view.manifest);
	r = list_blobs(c, blob, n, &view.manifest, e);
	if (r == 1) {
		descriptor_copy(manifest_add_layer(&view.manifest), &to->manifest.layers[0]);
		memcpy(ids, blob, n * sizeof(*ids));
		view.config.n_diff_ids = n;
		if (to->config.n_diff_ids == 1)
			ids[view.config.n_diff_ids++] = to->config.diff_ids[0];
		view.config.diff_ids = ids; /* view is never freed as a whole */
		r = compare_blobs(c, from, &view, e);
	}
	manifest_fini(&view.manifest);
	c->backend = NULL;
	return r < 0 ? -1 : 0;
}

static int compare_images(struct check *c, const struct resolved_image *from,
			  const struct resolved_image *to, struct err *e)
{
	scoped_free struct digest *blob = NULL;
	size_t n;

	platform_text(&to->config.platform, c->platform);
	c->layer = 0;
	c->report->platforms++;
	compare_configs(c, from, to);
	n = verify_backend_blobs(&to->manifest, &blob);
	return n ? compare_elsewhere(c, from, to, blob, n, e) : compare_blobs(c, from, to, e);
}

/* ---- which source image each converted one came from */
static const struct resolved_image *counterpart(const struct resolved *from,
						const struct resolved_image *to)
{
	const char *digest = annotations_get(&to->manifest.annotations, ANN_SOURCE_DIGEST);
	char text[DIGEST_TEXT], a[136], b[136];

	for (size_t i = 0; i < from->n; i++)
		if (str_eq(digest, digest_text(&from->image[i].from.digest, text)))
			return &from->image[i];
	for (size_t i = 0; i < from->n; i++)
		if (strcmp(platform_text(&from->image[i].config.platform, a),
			   platform_text(&to->config.platform, b)) == 0)
			return &from->image[i];
	return NULL;
}

static int source_reference(const struct resolved *to, struct imageref *from, struct err *e)
{
	const struct annotations *a = to->kind == KIND_INDEX ? &to->index.annotations
							     : &to->image[0].manifest.annotations;
	const char *ref = annotations_get(a, ANN_SOURCE_REFERENCE);
	const char *digest = annotations_get(a, ANN_SOURCE_DIGEST);

	if (!ref || !digest)
		return err_set(
			e, ERR_INVALID,
			"the image does not say what it was made from; name it with --source");
	if (imageref_parse(from, ref, e) < 0 || digest_parse(&from->digest, digest, e) < 0)
		return err_wrap(e, "its source reference");
	return 0;
}

static int check_all(struct check *c, const struct resolved *from, const struct resolved *to,
		     struct err *e)
{
	for (size_t i = 0; i < to->n; i++) {
		const struct resolved_image *of = counterpart(from, &to->image[i]);

		platform_text(&to->image[i].config.platform, c->platform);
		c->layer = 0;
		if (str_eq(to->image[i].manifest.config.media_type, MT_DOCKER_CONFIG) ||
		    str_eq(to->image[i].manifest.config.media_type, MT_OCI_CONFIG) || of) {
			if (!of)
				problem(c, "", "the source has no image for it");
			else if (compare_images(c, of, &to->image[i], e) < 0)
				return -1;
		}
	}
	return 0;
}

int verify_image(struct registry *reg, const struct imageref *converted,
		 const struct imageref *source, const struct verify_ops *o, struct verify_report *r,
		 struct err *e)
{
	const struct resolve_opts any = {.any = true};
	struct resolved to = {0}, from = {0};
	struct imageref from_ref;
	struct check c = {.reg = reg, .to = converted, .ops = o, .report = r};
	int rc;

	memset(r, 0, sizeof(*r));
	rc = resolve(&to, reg, converted, &any, e);
	if (rc == 0 && source)
		from_ref = *source;
	else if (rc == 0)
		rc = source_reference(&to, &from_ref, e);
	if (rc == 0 && strcmp(from_ref.host, converted->host) != 0)
		rc = err_set(e, ERR_UNSUPPORTED, "source and result are at different registries");
	if (rc == 0) {
		c.from = &from_ref;
		rc = resolve(&from, reg, &from_ref, &any, e);
		if (rc < 0)
			err_wrap(e, "source");
	}
	if (rc == 0)
		rc = check_all(&c, &from, &to, e);
	resolved_fini(&to);
	resolved_fini(&from);
	return rc;
}
