/* worker/drivers/nydus.c: what the registry gets, beside what acceld cea8fdb pushed of the same
 * images, key by key. */
#include "tests/unit/rafs_unit.h"

#include "common/json.h"
#include "common/mem.h"
#include "worker/drivers/nydus.h"

#define CAPTURES "tests/fixtures/captures/upstream/registry/"
#define LAYER3 "sha256:a12e129dcaf235f15a7c0f18856b0ab015ca28e0633dd6b8bc9c63e5b27edd6c"

/* ---- a registry in memory */

struct store {
	struct blob_store s;
	struct {
		struct digest d;
		struct buf b;
	} blob[64];
	size_t n;
	const struct manifest *dict; /* the image that a dictionary reference names */
	const struct store *dict_blobs;
	struct digest brought[8];
	size_t n_brought;
};

static int store_push(struct blob_store *s, const void *p, size_t n, struct digest *d,
		      struct err *e)
{
	struct store *st = (struct store *)s;

	assert_true(st->n < 64);
	digest_of(d, DIGEST_SHA256, p, n);
	st->blob[st->n].d = *d;
	buf_init(&st->blob[st->n].b, MEMORY);
	return buf_add(&st->blob[st->n++].b, p, n, e);
}

static const struct buf *store_get(const struct store *s, const struct digest *d)
{
	for (size_t i = 0; i < s->n; i++)
		if (digest_eq(&s->blob[i].d, d))
			return &s->blob[i].b;
	fail_msg("a blob was not pushed");
	return NULL;
}

static int dict_manifest(struct blob_store *s, const char *ref, struct manifest *m, struct err *e)
{
	struct buf b = BUF_INIT(MEMORY);
	int r;

	assert_int_equal(manifest_write(((struct store *)s)->dict, &b, e), 0);
	r = manifest_parse(m, b.data, b.len, e);
	buf_fini(&b);
	return r;
}

static int dict_fetch(struct blob_store *s, const char *ref, const struct descriptor *d, size_t max,
		      struct buf *to, struct err *e)
{
	const struct buf *b = store_get(((struct store *)s)->dict_blobs, &d->digest);

	return buf_add(to, b->data, b->len, e);
}

static int dict_bring(struct blob_store *s, const char *ref, const struct descriptor *d,
		      struct err *e)
{
	struct store *st = (struct store *)s;

	assert_true(st->n_brought < 8);
	st->brought[st->n_brought++] = d->digest;
	return 0;
}

static void store_fini(struct store *s)
{
	blob_store_fini(&s->s);
	for (size_t i = 0; i < s->n; i++)
		buf_fini(&s->blob[i].b);
	s->n = 0;
}

/* ---- one platform converted by the driver, as worker/convert.c does it */

struct image {
	struct manifest src, to;
	struct imageconfig src_cfg, cfg;
	struct descriptor from, done; /* of the manifests */
	size_t layers;
};

static void image_load(struct image *im, const char *name)
{
	struct buf m, c;
	char path[256];
	struct err e = {0};

	memset(im, 0, sizeof(*im));
	manifest_init(&im->src);
	manifest_init(&im->to);
	imageconfig_init(&im->src_cfg);
	descriptor_init(&im->from);
	descriptor_init(&im->done);
	snprintf(path, sizeof(path), CAPTURES "%s.manifest.json", name);
	m = file_bytes(path, false);
	snprintf(path, sizeof(path), CAPTURES "%s.config.json", name);
	c = file_bytes(path, false);
	if (manifest_parse(&im->src, m.data, m.len, &e) < 0 ||
	    manifest_parse(&im->to, m.data, m.len, &e) < 0 ||
	    imageconfig_parse(&im->src_cfg, c.data, c.len, &e) < 0)
		fail_msg("%s: %s", name, e.text);
	imageconfig_copy(&im->cfg, &im->src_cfg);
	strcpy(im->from.media_type, im->src.media_type);
	digest_of(&im->from.digest, DIGEST_SHA256, m.data, m.len);
	im->from.size = m.len;
	buf_fini(&m);
	buf_fini(&c);
}

static void image_fini(struct image *im)
{
	manifest_fini(&im->src);
	manifest_fini(&im->to);
	imageconfig_fini(&im->src_cfg);
	imageconfig_fini(&im->cfg);
	descriptor_fini(&im->from);
	descriptor_fini(&im->done);
}

static void convert_layer(const struct target *t, struct drv_image *im, uint32_t index,
			  const struct descriptor *from, struct pool *pool, struct descriptor *done,
			  struct layer_result *r, struct buf *blob)
{
	const struct driver *drv = driver_of(t);
	struct layer_in in = {.index = index, .from = from, .codec = CODEC_GZIP};
	struct out_opts oo = {.as = drv->encoding(t)};
	scoped(tar_closep) struct tar_reader *tar = NULL;
	scoped(out_freep) struct out *out = NULL;
	struct tar_limits limits = {0};
	struct buf unpacked;
	struct drv_layer *l;
	struct tar_piece piece;
	struct source *s;
	struct err e = {0};
	bool blocks;
	char path[64];
	int rc;

	snprintf(path, sizeof(path), GOLDEN "layer%u.tar.gz", index + 1);
	unpacked = file_bytes(path, true);
	s = source_from_memory(unpacked.data, unpacked.len);
	if (drv->layer_open(&l, im, &in, &blocks, &e) < 0)
		fail_msg("%s", e.text);
	drv->out_opts(l, &oo);
	if (out_open(&out, pool, &oo, &memory_ops, blob, &e) < 0 ||
	    tar_open(&tar, &s, &limits, &e) < 0 || drv->begin(l, 0, out, &e) < 0)
		fail_msg("%s", e.text);
	while ((rc = tar_next(tar, &piece, &e)) > 0)
		if (drv->tar(l, &piece, &e) < 0)
			fail_msg("%s", e.text);
	if (rc < 0 || drv->layer_end(l, r, &e) < 0 ||
	    out_commit(out, &done->digest, &done->size, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(digest_eq(&r->diff_id, &done->digest));
	drv->layer_close(l);
	buf_fini(&unpacked);
}

/* blobs: the layers' blobs, to be reused by a second conversion as if from a cache; or NULL. */
static void convert(struct image *im, const struct target *t, const char *reference,
		    const struct digest *source, struct store *store, struct buf *blobs,
		    bool cached)
{
	const struct driver *drv = driver_of(t);
	struct pool_opts po = {.threads = 2, .buffer_bytes = 4u << 20, .verify = true};
	scoped(pool_freep) struct pool *pool = NULL;
	size_t n = im->src.n_layers;
	struct descriptor *done = mem_array(n, sizeof(*done));
	struct layer_result *r = mem_array(n, sizeof(*r));
	struct driver_source where = {reference, source ? source : &im->from.digest, &im->from};
	struct drv_image *di;
	struct buf text = BUF_INIT(MEMORY);
	struct err e = {0};

	store->s.push = store_push;
	store->s.manifest = store->dict ? dict_manifest : NULL;
	store->s.fetch = dict_fetch;
	store->s.bring = dict_bring;
	if (pool_open(&pool, &po, &e) < 0 ||
	    drv->image_open(&di, t, &im->src, &im->src_cfg, &store->s, &e) < 0)
		fail_msg("%s", e.text);
	for (size_t i = 0; i < n; i++) {
		struct buf here = BUF_INIT(MEMORY), *blob = blobs ? &blobs[i] : &here;

		if (cached) {
			struct memory_at at = memory_at(blob);
			struct layer_in in = {.index = (uint32_t)i, .from = &im->src.layers[i]};

			digest_of(&done[i].digest, DIGEST_SHA256, blob->data, blob->len);
			done[i].size = blob->len;
			if (drv->layer_cached(di, &in, &done[i], &r[i], &at.at, &e) < 0)
				fail_msg("%s", e.text);
		} else {
			convert_layer(t, di, (uint32_t)i, &im->src.layers[i], pool, &done[i], &r[i],
				      blob);
		}
		buf_fini(&here);
	}
	if (drv->finish(di, done, r, n, &im->to, &im->cfg, &e) < 0)
		fail_msg("%s", e.text);
	drv->mark(t, &where, &im->to);
	drv->image_close(di);
	for (size_t i = 0; i < n; i++) {
		descriptor_fini(&done[i]);
		layer_result_fini(&r[i]);
	}
	free(done);
	free(r);
	im->layers = n;
	assert_int_equal(imageconfig_write(&im->cfg, &text, &e), 0);
	digest_of(&im->to.config.digest, DIGEST_SHA256, text.data, text.len);
	im->to.config.size = text.len;
	buf_reset(&text);
	assert_int_equal(manifest_write(&im->to, &text, &e), 0);
	strcpy(im->done.media_type, im->to.media_type);
	digest_of(&im->done.digest, DIGEST_SHA256, text.data, text.len);
	im->done.size = text.len;
	buf_fini(&text);
}

/* ---- JSON beside JSON */

struct known { /* a path (or its beginning, with a '*' at the end) that differs, and why */
	const char *path, *why;
};

static bool is_known(const struct known *k, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(k[i].path);

		if (k[i].path[len - 1] == '*' ? !strncmp(k[i].path, path, len - 1)
					      : !strcmp(k[i].path, path))
			return true;
	}
	return false;
}

static char *text_of(const struct json *j)
{
	struct buf b = BUF_INIT(MEMORY);

	assert_int_equal(json_write(j, JSON_SORTED, &b, NULL), 0);
	return buf_take(&b);
}

static void beside(const char *file, const char *at, const struct json *ours,
		   const struct json *theirs, const struct known *k, size_t n)
{
	scoped_free char *a = text_of(ours), *b = text_of(theirs);
	char path[512];

	if (!strcmp(a, b) || is_known(k, n, at))
		return;
	if (json_kind(ours) == JSON_OBJECT && json_kind(theirs) == JSON_OBJECT) {
		for (struct json_iter i = json_first(ours); i.key; json_next(&i)) {
			snprintf(path, sizeof(path), "%s%s%s", at, *at ? "." : "", i.key);
			beside(file, path, i.value, json_get(theirs, i.key), k, n);
		}
		for (struct json_iter i = json_first(theirs); i.key; json_next(&i)) {
			snprintf(path, sizeof(path), "%s%s%s", at, *at ? "." : "", i.key);
			if (!json_has(ours, i.key) && !is_known(k, n, path))
				fail_msg("%s: %s is missing in ours", file, path);
		}
		return;
	}
	if (json_kind(ours) == JSON_ARRAY && json_kind(theirs) == JSON_ARRAY &&
	    json_len(ours) == json_len(theirs)) {
		for (size_t i = 0; i < json_len(ours); i++) {
			snprintf(path, sizeof(path), "%s[%zu]", at, i);
			beside(file, path, json_at(ours, i), json_at(theirs, i), k, n);
		}
		return;
	}
	fail_msg("%s: %s is %s, theirs %s", file, at, a, b);
}

static struct json *parse(const char *p, size_t n)
{
	struct json *j = NULL;
	struct err e = {0};

	if (json_parse(&j, p, n, NULL, &e) < 0)
		fail_msg("%s", e.text);
	return j;
}

static struct json *capture(const char *file)
{
	char path[256];
	struct buf b;
	struct json *j;

	snprintf(path, sizeof(path), CAPTURES "%s", file);
	b = file_bytes(path, false);
	j = parse(b.data, b.len);
	buf_fini(&b);
	return j;
}

/* acceld's version drops metadata-only layers, its later ones and ours list them. */
static struct json *without_layer3(struct json *doc, const char *parent, const char *list,
				   const char *key)
{
	struct json *holder = parent ? json_get(doc, parent) : doc, *kept = json_new_array();
	struct json *array = json_get(holder, list);

	for (size_t i = 0; i < json_len(array); i++) {
		const struct json *x = json_at(array, i);
		const char *digest = key ? json_value_str(json_get(x, key)) : json_value_str(x);

		if (strcmp(digest, LAYER3) != 0)
			json_append(kept, json_clone(x));
	}
	json_set(holder, list, kept);
	return doc;
}

static const struct known manifest_known[] = {
	{"config.digest", "unknown members of the configuration are kept"},
	{"config.size", "the same"},
	{"layers[2].digest", "the bootstrap's gzip is not Go's; its diff_id is the same"},
	{"layers[2].size", "the same"},
	{"annotations.containerd.io/snapshot/nydus-builder-version", "no nydus-image built it"},
};
static const struct known config_known[] = {
	{"config.Healthcheck", "upstream loses it"},
	{"config.OnBuild", "upstream loses it"},

	{"container_config", "upstream loses it"},
	{"x-unknown", "upstream loses it"},
};
#define KNOWN(k) (k), sizeof(k) / sizeof((k)[0])

static void assert_manifest(const struct image *im, const char *file)
{
	struct buf b = BUF_INIT(MEMORY);
	struct json *ours, *theirs = capture(file);

	assert_int_equal(manifest_write(&im->to, &b, NULL), 0);
	ours = without_layer3(parse(b.data, b.len), NULL, "layers", "digest");
	beside(file, "", ours, theirs, KNOWN(manifest_known));
	json_freep(&ours);
	json_freep(&theirs);
	buf_fini(&b);
}

static void assert_config(const struct image *im, const char *file)
{
	struct buf b = BUF_INIT(MEMORY);
	struct json *ours, *theirs = capture(file);

	assert_int_equal(imageconfig_write(&im->cfg, &b, NULL), 0);
	ours = without_layer3(parse(b.data, b.len), "rootfs", "diff_ids", NULL);
	beside(file, "", ours, theirs, KNOWN(config_known));
	json_freep(&ours);
	json_freep(&theirs);
	buf_fini(&b);
}

static struct target target_of(const char *options)
{
	struct target t;
	scoped_free char *copy = mem_strdup(options);
	struct err e = {0};
	char *save = NULL;

	target_init(&t, DRIVER_NYDUS);
	for (char *o = strtok_r(copy, " ", &save); o; o = strtok_r(NULL, " ", &save)) {
		char *value = strchr(o, '=');

		*value++ = '\0';
		if (target_option(&t, o, value, NULL, &e) < 0)
			fail_msg("%s", e.text);
	}
	return t;
}

static void manifests_and_configs_are_acceld_s_but_for_named_differences(void **state)
{
	static const struct {
		const char *options, *source, *reference, *capture;
	} one[] = {
		{"", "source-golden", "oci", "nydus-default-from-oci"},
		{"", "source-golden-docker", "docker", "nydus-default-from-docker"},
		{"docker2oci=true", "source-golden-docker", "docker",
		 "nydus-docker2oci-from-docker"},
		{"with_referrer=true", "source-golden", "oci", "nydus-with_referrer-from-oci"},
		{"with_referrer=true", "source-golden-docker", "docker",
		 "nydus-with_referrer-from-docker"},
		{"with_referrer=true docker2oci=true", "source-golden-docker", "docker",
		 "nydus-with_referrer-docker2oci-from-docker"},
		{"", "source-golden-multi.0-linux-amd64", "multi-oci",
		 "nydus-multi-from-oci.0-linux-amd64"},
		{"", "source-golden-multi.1-linux-arm64", "multi-oci",
		 "nydus-multi-from-oci.1-linux-arm64"},
		{"with_referrer=true", "source-golden-multi.1-linux-arm64", "multi-oci",
		 "nydus-with_referrer-multi-from-oci.1-linux-arm64"},
		{"docker2oci=true", "source-golden-multi-docker.0-linux-amd64", "multi-docker",
		 "nydus-docker2oci-multi-from-docker.0-linux-amd64"},
		{"merge_manifest=true", "source-golden", "oci",
		 "nydus-merge_manifest-from-oci.1-empty-empty"},
		{"merge_manifest=true docker2oci=true", "source-golden-docker", "docker",
		 "nydus-merge_manifest-docker2oci-from-docker.1-empty-empty"},
	};

	for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
		struct target t = target_of(one[i].options);
		struct store store = {0};
		struct image im;
		char text[256];

		image_load(&im, one[i].source);
		snprintf(text, sizeof(text), "127.0.0.1:15000/lab/golden:%s", one[i].reference);
		convert(&im, &t, text, NULL, &store, NULL, false);
		snprintf(text, sizeof(text), "%s.manifest.json", one[i].capture);
		assert_manifest(&im, text);
		snprintf(text, sizeof(text), "%s.config.json", one[i].capture);
		assert_config(&im, text);
		store_fini(&store);
		image_fini(&im);
		target_fini(&t);
	}
}

static void the_bootstrap_layer_unpacks_to_acceld_s_byte_for_byte(void **state)
{
	struct buf want = file_bytes(GOLDEN "acceld-bootstrap-layer.tar.gz", true),
		   got = BUF_INIT(MEMORY);
	const struct codec_opts o = {0};
	struct target t = target_of("");
	struct store store = {0};
	const struct buf *gz;
	struct image im;
	struct source *s;
	struct err e = {0};

	image_load(&im, "source-golden");
	convert(&im, &t, "r/x:y", NULL, &store, NULL, false);
	gz = store_get(&store, &im.to.layers[im.to.n_layers - 1].digest);
	s = source_from_memory(gz->data, gz->len);
	assert_int_equal(codec_unpack(&s, CODEC_GZIP, &o, &e), 0);
	drain_source(&s, &got);
	assert_bytes("bootstrap layer", &got, want.data, want.len);
	buf_fini(&got);
	buf_fini(&want);
	store_fini(&store);
	image_fini(&im);
	target_fini(&t);
}

static void layers_from_a_cache_give_the_same_image(void **state)
{
	struct target t = target_of("");
	struct store store = {0}, store2 = {0};
	struct buf blobs[3];
	struct image im, again;

	for (int i = 0; i < 3; i++)
		buf_init(&blobs[i], MEMORY);
	image_load(&im, "source-golden");
	image_load(&again, "source-golden");
	convert(&im, &t, "r/x:y", NULL, &store, blobs, false);
	convert(&again, &t, "r/x:y", NULL, &store2, blobs, true);
	assert_true(digest_eq(&im.done.digest, &again.done.digest));
	for (int i = 0; i < 3; i++)
		buf_fini(&blobs[i]);
	store_fini(&store);
	store_fini(&store2);
	image_fini(&im);
	image_fini(&again);
	target_fini(&t);
}

static void a_cached_blob_of_another_chunk_size_is_refused(void **state)
{
	struct target t = target_of("fs_chunk_size=0x10000");
	struct buf blob = file_bytes(GOLDEN "layer1.blob", false);
	struct memory_at at = memory_at(&blob);
	struct layer_in in = {0};
	struct layer_result r = {0};
	struct descriptor d;
	struct drv_image *di;
	struct image im;
	struct store store = {0};
	struct err e = {0};

	image_load(&im, "source-golden");
	descriptor_init(&d);
	assert_int_equal(nydus_driver.image_open(&di, &t, &im.src, &im.cfg, &store.s, &e), 0);
	assert_int_equal(nydus_driver.layer_cached(di, &in, &d, &r, &at.at, &e), -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	assert_text_has(e.text, "chunks of 1048576 bytes for 65536");
	nydus_driver.image_close(di);
	image_fini(&im);
	target_fini(&t);
	buf_fini(&blob);
}

/* ---- a chunk dictionary */

#define DICT_REF                                                                                   \
	"chunk_dict_ref=r.test/dict@"                                                              \
	"sha256:1111111111111111111111111111111111111111111111111111111111111111"

/* The golden image converted twice, the second time against the first: every chunk is there. */
static void what_the_dictionary_has_is_listed_not_stored(void **state)
{
	struct target t = target_of("prefetch_patterns=/"), with = target_of(DICT_REF);
	struct image dict, im;
	struct store store = {0}, store2 = {0};
	struct buf blobs[3];
	const struct buf *boot;
	struct err e = {0};

	for (int i = 0; i < 3; i++)
		buf_init(&blobs[i], MEMORY);
	image_load(&dict, "source-golden");
	convert(&dict, &t, "h/dict:1", NULL, &store, NULL, false);
	image_load(&im, "source-golden");
	store2.dict = &dict.to;
	store2.dict_blobs = &store;
	convert(&im, &with, "h/x:1", NULL, &store2, blobs, false);
	/* three layers of the source, two of the dictionary (its third has no data), bootstrap */
	assert_int_equal(im.to.n_layers, 6);
	assert_int_equal(im.cfg.n_diff_ids, 6);
	for (size_t i = 3; i < 5; i++) {
		const struct descriptor *d = &im.to.layers[i];
		bool known = false;

		for (size_t k = 0; k < 2; k++)
			known |= digest_eq(&d->digest, &dict.to.layers[k].digest) &&
				 d->size == dict.to.layers[k].size;
		assert_true(known);
		assert_true(digest_eq(&d->digest, &im.cfg.diff_ids[i]));
		assert_true(digest_eq(&d->digest, &store2.brought[i - 3]));
		assert_string_equal(annotations_get(&d->annotations, NYDUS_BLOB), "true");
		assert_string_equal(annotations_get(&d->annotations, NYDUS_DICTIONARY),
				    DICT_REF + strlen("chunk_dict_ref="));
	}
	assert_int_equal(store2.n_brought, 2);
	/* what a later layer hides is in no merged image, so in no dictionary: it is stored */
	for (size_t i = 0; i < 3; i++) {
		struct memory_at at = memory_at(&blobs[i]);
		struct rafs_toc toc;
		const struct rafs_section *data;

		assert_int_equal(rafs_toc_read(&toc, &at.at, &e), 0);
		data = rafs_toc_find(&toc, "image.blob");
		assert_true(!data || data->stored < 100);
		assert_int_equal(im.to.layers[i].size, blobs[i].len);
	}
	assert_string_equal(annotations_get(&im.to.layers[5].annotations, NYDUS_BOOTSTRAP), "true");
	boot = store_get(&store2, &im.to.layers[5].digest);
	assert_non_null(boot);
	for (int i = 0; i < 3; i++)
		buf_fini(&blobs[i]);
	store_fini(&store2);
	store_fini(&store);
	image_fini(&im);
	image_fini(&dict);
	target_fini(&with);
	target_fini(&t);
}

static void layers_from_a_cache_refer_to_this_dictionary_alone(void **state)
{
	struct target t = target_of(""), with = target_of(DICT_REF);
	struct image dict, im, again;
	struct store store = {0}, store2 = {0}, store3 = {0};
	struct layer_in in = {0};
	struct layer_result r = {0};
	struct descriptor d;
	struct drv_image *di;
	struct memory_at at;
	struct buf blobs[3];
	struct err e = {0};

	for (int i = 0; i < 3; i++)
		buf_init(&blobs[i], MEMORY);
	image_load(&dict, "source-golden");
	convert(&dict, &t, "h/dict:1", NULL, &store, NULL, false);
	image_load(&im, "source-golden");
	image_load(&again, "source-golden");
	store2.dict = store3.dict = &dict.to;
	store2.dict_blobs = store3.dict_blobs = &store;
	convert(&im, &with, "h/x:1", NULL, &store2, blobs, false);
	convert(&again, &with, "h/x:1", NULL, &store3, blobs, true);
	assert_true(digest_eq(&im.done.digest, &again.done.digest));
	/* without a dictionary such a blob is no layer of ours */
	at = memory_at(&blobs[0]);
	descriptor_init(&d);
	assert_int_equal(nydus_driver.image_open(&di, &t, &im.src, &im.cfg, &store.s, &e), 0);
	assert_int_equal(nydus_driver.layer_cached(di, &in, &d, &r, &at.at, &e), -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	assert_text_has(e.text, "another image's blob");
	nydus_driver.image_close(di);
	for (int i = 0; i < 3; i++)
		buf_fini(&blobs[i]);
	store_fini(&store3);
	store_fini(&store2);
	store_fini(&store);
	image_fini(&again);
	image_fini(&im);
	image_fini(&dict);
	target_fini(&with);
	target_fini(&t);
}

/* What is opened against a dictionary, and why not. */
static void refuse(const struct manifest *dict, const struct store *blobs, const char *options,
		   enum err_code code, const char *says)
{
	struct target t = target_of(options);
	struct store store = {.dict = dict, .dict_blobs = blobs};
	struct drv_image *di;
	struct manifest src;
	struct err e = {0};

	manifest_init(&src);
	store.s.manifest = dict ? dict_manifest : NULL;
	store.s.fetch = dict_fetch;
	assert_int_equal(nydus_driver.image_open(&di, &t, &src, NULL, &store.s, &e), -1);
	assert_text_has(e.text, says);
	assert_int_equal(e.code, code);
	store_fini(&store);
	manifest_fini(&src);
	target_fini(&t);
}

static void a_dictionary_that_does_not_fit_is_refused_in_words(void **state)
{
	struct target t = target_of("");
	struct image dict;
	struct store store = {0};

	image_load(&dict, "source-golden");
	convert(&dict, &t, "h/dict:1", NULL, &store, NULL, false);
	refuse(&dict.to, &store, DICT_REF " compressor=lz4_block", ERR_INVALID,
	       "its compressor is zstd, this target's is lz4_block");
	refuse(&dict.to, &store, DICT_REF " fs_chunk_size=0x10000", ERR_INVALID,
	       "set fs_chunk_size");
	refuse(&dict.to, &store, DICT_REF " digester=sha256", ERR_INVALID, "set digester");
	refuse(&dict.src, &store, DICT_REF, ERR_INVALID, "it is no Nydus image");
	refuse(NULL, NULL, DICT_REF, ERR_UNSUPPORTED, "needs a registry");
	annotations_set(&dict.to.layers[3].annotations, NYDUS_FS_VERSION, "5");
	refuse(&dict.to, &store, DICT_REF, ERR_UNSUPPORTED, "RAFS v5");
	annotations_set(&dict.to.layers[3].annotations, NYDUS_FS_VERSION, "6");
	dict.to.layers[0].digest.bytes[0] ^= 1;
	refuse(&dict.to, &store, DICT_REF, ERR_INVALID, "is no layer of it");
	image_fini(&dict);
	store_fini(&store);
	target_fini(&t);
}

static void another_dictionary_is_another_identity(void **state)
{
	struct target t = target_of(DICT_REF), plain = target_of("");
	char with[1024], without[1024];

	nydus_driver.identity(&t, with, sizeof(with));
	nydus_driver.identity(&plain, without, sizeof(without));
	assert_string_not_equal(with, without);
	assert_text_has(with, "dict=sha256:1111");
	assert_null(strstr(with, "r.test")); /* wherever it lies */
	target_fini(&t);
	target_fini(&plain);
}

/* ---- merge_manifest */

static const struct known index_known[] = {
	{"mediaType", "upstream writes none"},
	{"annotations", "the source index's stay"},
	{"manifests[0].platform", "without an index it is taken from the configuration"},
	{"manifests[1].platform", "the same; upstream's is empty"},
	{"manifests[0].digest", "key order, unknown members"},
	{"manifests[0].size", "the same"},
	{"manifests[1].digest", "the same"},
	{"manifests[1].size", "the same"},
	{"manifests[2].digest", "the same"},
	{"manifests[2].size", "the same"},
	{"manifests[3].digest", "the same"},
	{"manifests[3].size", "the same"},
};

static void assert_merge(const char *options, const char *const *sources, size_t n,
			 const char *index_file, const char *reference, const char *capture_base,
			 const char *const *children)
{
	struct target t = target_of(options);
	struct index_child child[2];
	struct manifest_list push = {0};
	struct store store = {0};
	struct image im[2];
	struct index to, src;
	struct buf b = BUF_INIT(MEMORY), file;
	struct json *ours, *theirs;
	struct err e = {0};
	char text[256];

	index_init(&to);
	index_init(&src);
	if (index_file) {
		snprintf(text, sizeof(text), CAPTURES "%s", index_file);
		file = file_bytes(text, false);
		assert_int_equal(index_parse(&src, file.data, file.len, &e), 0);
		buf_fini(&file);
	}
	for (size_t i = 0; i < n; i++) {
		image_load(&im[i], sources[i]);
		convert(&im[i], &t, reference, NULL, &store, NULL, false);
		if (index_file)
			im[i].from.platform = src.manifests[i].platform;
		child[i] =
			(struct index_child){&im[i].from, &im[i].src, &im[i].src_cfg, &im[i].done};
	}
	assert_int_equal(nydus_driver.index(&t, index_file ? &src : NULL, child, n, &store.s, &push,
					    &to, &e),
			 1);
	assert_int_equal(index_write(&to, &b, &e), 0);
	snprintf(text, sizeof(text), "%s.index.json", capture_base);
	theirs = capture(text);
	ours = parse(b.data, b.len);
	beside(text, "", ours, theirs, KNOWN(index_known));
	json_freep(&ours);
	json_freep(&theirs);
	for (size_t i = 0; i < n; i++) { /* the source's half */
		struct manifest m;

		snprintf(text, sizeof(text), "%s.%s.manifest.json", capture_base, children[i]);
		theirs = capture(text);
		ours = parse(push.m[i].data, push.m[i].n);
		beside(text, "", ours, theirs, manifest_known, 2);
		json_freep(&ours);
		json_freep(&theirs);
		manifest_init(&m);
		assert_int_equal(manifest_parse(&m, push.m[i].data, push.m[i].n, &e), 0);
		assert_int_equal(store_get(&store, &m.layers[0].digest)->len, 32);
		snprintf(text, sizeof(text), "%s.%s.config.json", capture_base, children[i]);
		theirs = capture(text);
		ours = parse(store_get(&store, &m.config.digest)->data, m.config.size);
		beside(text, "", ours, theirs, KNOWN(config_known));
		json_freep(&ours);
		json_freep(&theirs);
		manifest_fini(&m);
		free(push.m[i].data);
		image_fini(&im[i]);
	}
	free(push.m);
	index_fini(&to);
	index_fini(&src);
	store_fini(&store);
	target_fini(&t);
	buf_fini(&b);
}

static void merge_manifest_of_one_image(void **state)
{
	static const char *const oci[] = {"source-golden"}, *const docker[] = {
								    "source-golden-docker"};
	static const char *const none[] = {"0-none-none"};

	assert_merge("merge_manifest=true", oci, 1, NULL, "127.0.0.1:15000/lab/golden:oci",
		     "nydus-merge_manifest-from-oci", none);
	assert_merge("merge_manifest=true", docker, 1, NULL, "127.0.0.1:15000/lab/golden:docker",
		     "nydus-merge_manifest-from-docker", none);
	assert_merge("merge_manifest=true docker2oci=true", docker, 1, NULL,
		     "127.0.0.1:15000/lab/golden:docker",
		     "nydus-merge_manifest-docker2oci-from-docker", none);
}

static void merge_manifest_of_an_index(void **state)
{
	static const char *const two[] = {"source-golden-multi.0-linux-amd64",
					  "source-golden-multi.1-linux-arm64"};
	static const char *const children[] = {"0-linux-amd64", "1-linux-arm64"};

	assert_merge("merge_manifest=true", two, 2, "source-golden-multi.index.json",
		     "127.0.0.1:15000/lab/golden:multi-oci", "nydus-merge_manifest-multi-from-oci",
		     children);
}

static void without_merge_manifest_the_index_is_made_as_usual(void **state)
{
	struct target t = target_of("");
	struct index to;

	index_init(&to);
	assert_int_equal(nydus_driver.index(&t, NULL, NULL, 0, NULL, NULL, &to, NULL), 0);
	index_fini(&to);
	target_fini(&t);
}

static void what_is_not_built_says_so(void **state)
{
	struct target t;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	assert_int_equal(target_option(&t, "fs_version", "5", NULL, &e), -1);
	assert_int_equal(target_option(&t, "encrypt_recipients", "x", NULL, &e), -1);
	target_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(manifests_and_configs_are_acceld_s_but_for_named_differences),
		T(the_bootstrap_layer_unpacks_to_acceld_s_byte_for_byte),
		T(layers_from_a_cache_give_the_same_image),
		T(a_cached_blob_of_another_chunk_size_is_refused),
		T(what_the_dictionary_has_is_listed_not_stored),
		T(layers_from_a_cache_refer_to_this_dictionary_alone),
		T(a_dictionary_that_does_not_fit_is_refused_in_words),
		T(another_dictionary_is_another_identity),
		T(merge_manifest_of_one_image),
		T(merge_manifest_of_an_index),
		T(without_merge_manifest_the_index_is_made_as_usual),
		T(what_is_not_built_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
