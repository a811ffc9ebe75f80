/* tests/unit/test_cachetag.c - the layer cache in a tag, against a registry in memory. */
#include "tests/unit/unit.h"

#include "tests/unit/mockreg.h"

#include "common/json.h"
#include "common/scope.h"
#include "worker/cachetag.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"

#define CAPTURES "tests/fixtures/captures/upstream/registry/cache-tag-nydus."

static const struct imageref tag = {.host = "h:1", .repository = "p/r", .tag = "cache"};

static struct cache *open_tag(const char *version, uint32_t max, bool found)
{
	struct cache *c = NULL;
	struct registry *r = NULL;
	struct err e = {0};
	bool got = !found;

	if (cachetag_open(&c, r, &tag, version, max, &got, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(got, found);
	return c;
}

static const struct platform amd64 = {.set = true, .os = "linux", .arch = "amd64"},
			     arm64 = {.set = true, .os = "linux", .arch = "arm64", .variant = "v8"};

static struct digest source_of(int i)
{
	struct digest d;

	digest_of(&d, DIGEST_SHA256, &i, sizeof(i));
	return d;
}

/* An image of one layer. */
static void image(struct cache *c, const struct platform *p, int i)
{
	const struct digest d = source_of(i);

	cachetag_image(c, p, &d, 1);
}

static void put_only(struct cache *c, int i)
{
	struct cache_entry x = {0};
	struct digest source;
	char key[CACHE_KEY];
	struct err e = {0};

	digest_of(&source, DIGEST_SHA256, &i, sizeof(i));
	digest_of(&x.stored.digest, DIGEST_SHA256, "blob", (size_t)(i % 4));
	x.stored.size = (uint64_t)i;
	str_copy(x.stored.media_type, sizeof(x.stored.media_type), MT_OCI_LAYER_GZIP);
	str_copy(x.result.media_type, sizeof(x.result.media_type), MT_OCI_LAYER_GZIP);
	annotations_set(&x.result.annotations, "toc", "digest");
	x.result.diff_id = source;
	x.result.unpacked = 77;
	str_copy(x.result.plain_reason, sizeof(x.result.plain_reason), i == 3 ? "odd" : "");
	cache_key(key, &source, "driver/1 options");
	assert_int_equal(c->ops->put(c, key, &source, &x, &e), 0);
	cache_entry_fini(&x);
}

static void put(struct cache *c, int i)
{
	put_only(c, i);
	image(c, &amd64, i);
}

static int get(struct cache *c, int i, struct cache_entry *x)
{
	struct digest source;
	char key[CACHE_KEY];
	struct err e = {0};

	digest_of(&source, DIGEST_SHA256, &i, sizeof(i));
	cache_key(key, &source, "driver/1 options");
	return c->ops->get(c, key, &source, x, &e);
}

static bool has(struct cache *c, int i)
{
	struct cache_entry x = {0};
	int r = get(c, i, &x);

	if (r == 1)
		cache_entry_fini(&x);
	return r == 1;
}

static void save(struct cache *c, int want)
{
	struct err e = {0};
	int r = cachetag_save(c, &e);

	if (r != want)
		fail_msg("%d %s", r, e.text);
}

static void what_was_put_is_found_by_the_next_one(void **s)
{
	struct cache *c = open_tag("v1", 200, false);
	struct cache_entry x = {0};

	save(c, 0); /* nothing new: the tag is not made */
	assert_null(mock_tag_of("cache"));
	put(c, 3);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 200, true);
	assert_int_equal(get(c, 3, &x), 1);
	assert_int_equal(x.stored.size, 3);
	assert_int_equal(x.result.unpacked, 77);
	assert_string_equal(x.result.plain_reason, "odd");
	assert_string_equal(annotations_get(&x.result.annotations, "toc"), "digest");
	assert_int_equal(x.stored.annotations.n, 1); /* the cache's own are gone again */
	assert_string_equal(x.repository[0], "p/r");
	cache_entry_fini(&x);
	assert_false(has(c, 4));
	cache_freep(&c);
	mock_reset();
}

static void another_version_and_other_things_count_as_empty(void **s)
{
	struct cache *c = open_tag("v1", 200, false);
	struct digest d;

	put(c, 1);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v2", 200, false);
	assert_false(has(c, 1));
	cache_freep(&c);
	d = mock_add("{\"schemaVersion\":2,\"config\":1}", 29, MT_OCI_MANIFEST);
	mock_set_tag("cache", &d);
	c = open_tag("v1", 200, false);
	put(c, 2);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 200, true);
	assert_true(has(c, 2));
	cache_freep(&c);
	mock_reset();
}

static void two_writers_keep_each_others_layers(void **s)
{
	struct cache *a = open_tag("v1", 200, false), *b = open_tag("v1", 200, false);

	put(a, 1);
	put(b, 2);
	save(a, 1);
	save(b, 1);
	cache_freep(&a);
	cache_freep(&b);
	a = open_tag("v1", 200, true);
	assert_true(has(a, 1));
	assert_true(has(a, 2));
	a->ops->forget(a, "0000");
	cache_freep(&a);
	mock_reset();
}

static void the_oldest_go_when_it_is_full(void **s)
{
	struct cache *c = open_tag("v1", 3, false);

	put(c, 1);
	put(c, 2);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 3, true);
	put(c, 3);
	put(c, 4);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 3, true);
	assert_true(has(c, 3));
	assert_true(has(c, 4));
	assert_true(has(c, 1));
	assert_false(has(c, 2));
	cache_freep(&c);
	mock_reset();
}

/* ---- platforms */

static char *slurp_capture(const char *name, size_t *n)
{
	char path[256], *text = mem_alloc(64 << 10);
	FILE *f;

	snprintf(path, sizeof(path), CAPTURES "%s", name);
	f = fopen(path, "re");
	if (!f)
		fail_msg("no %s", path);
	*n = fread(text, 1, 64 << 10, f);
	fclose(f);
	return text;
}

static struct manifest manifest_at(const struct digest *d)
{
	const struct mock_blob *b = mock_find(d, true);
	struct manifest m;
	struct err e;

	assert_non_null(b);
	if (manifest_parse(&m, b->data, b->n, &e) < 0)
		fail_msg("%s", e.text);
	return m;
}

static struct index index_of_tag(void)
{
	const struct mock_tag *t = mock_tag_of("cache");
	const struct mock_blob *b = t ? mock_find(&t->digest, true) : NULL;
	struct index x;
	struct err e;

	assert_non_null(b);
	if (index_parse(&x, b->data, b->n, &e) < 0)
		fail_msg("%s", e.text);
	return x;
}

static void each_platform_has_its_manifest_lower_layers_first(void **s)
{
	struct cache *c = open_tag("v1", 200, false);
	const struct digest three[] = {source_of(5), source_of(1), source_of(2)};
	struct index x;
	struct manifest m;
	char text[DIGEST_TEXT];

	for (int i = 2; i > 0; i--) /* layers end in any order */
		put_only(c, i);
	put_only(c, 5);
	cachetag_image(c, &amd64, three, 3);
	image(c, &arm64, 2);
	save(c, 1);
	x = index_of_tag();
	assert_int_equal(x.n, 2);
	assert_string_equal(x.manifests[0].platform.arch, "amd64");
	assert_string_equal(x.manifests[1].platform.arch, "arm64");
	assert_string_equal(x.manifests[1].platform.variant, "v8");
	m = manifest_at(&x.manifests[0].digest);
	assert_int_equal(m.n_layers, 3);
	for (int i = 0; i < 3; i++)
		assert_string_equal(annotations_get(&m.layers[i].annotations,
						    "containerd.io/snapshot/nydus-source-digest"),
				    digest_text(&three[i], text));
	manifest_fini(&m);
	m = manifest_at(&x.manifests[1].digest);
	assert_int_equal(m.n_layers, 1);
	manifest_fini(&m);
	index_fini(&x);
	cache_freep(&c);

	/* another image of one platform: the other's manifest stays byte for byte */
	x = index_of_tag();
	c = open_tag("v1", 200, true);
	put(c, 9);
	save(c, 1);
	cache_freep(&c);
	struct index y = index_of_tag();

	assert_true(digest_eq(&x.manifests[1].digest, &y.manifests[1].digest));
	assert_false(digest_eq(&x.manifests[0].digest, &y.manifests[0].digest));
	m = manifest_at(&y.manifests[0].digest);
	assert_int_equal(m.n_layers, 4);
	index_fini(&x);
	index_fini(&y);
	manifest_fini(&m);
	mock_reset();
}

/* ---- upstream's own */

static struct digest upstreams(void)
{
	static const char *const names[] = {"0-linux-amd64.manifest.json",
					    "1-linux-arm64.manifest.json"};
	struct digest d;
	char *text;
	size_t n;

	for (size_t i = 0; i < 2; i++) {
		text = slurp_capture(names[i], &n);
		mock_add(text, n, MT_OCI_MANIFEST);
		free(text);
	}
	text = slurp_capture("index.json", &n);
	d = mock_add(text, n, MT_OCI_INDEX);
	free(text);
	mock_set_tag("cache", &d);
	return d;
}

/* What upstream's acceld cea8fdb wrote of the golden image, given to our writer as its own: the
 * same index and manifests, but for what ours adds to a layer. */
static void ours_is_what_upstream_writes_but_for_two_annotations(void **s)
{
	static const char *const added[] = {"io.acceld.cache.key", "io.acceld.cache.result"};
	struct digest tag_was = upstreams();
	struct index theirs = index_of_tag(), ours;
	struct cache *c;
	struct err e = {0};

	mock.n_tags = 0;
	c = open_tag("v1", 200, false);
	for (size_t i = 0; i < theirs.n; i++) {
		struct manifest m = manifest_at(&theirs.manifests[i].digest);
		struct digest source[8];

		for (size_t k = 0; k < m.n_layers; k++) {
			struct cache_entry x = {0};
			char key[CACHE_KEY];

			assert_int_equal(digest_parse(&source[k],
						      annotations_get(&m.layers[k].annotations,
								      "containerd.io/snapshot/"
								      "nydus-source-digest"),
						      &e),
					 0);
			descriptor_copy(&x.stored, &m.layers[k]);
			annotations_fini(&x.stored.annotations);
			annotations_set(&x.stored.annotations, "containerd.io/snapshot/nydus-blob",
					"true");
			str_copy(x.result.media_type, sizeof(x.result.media_type),
				 m.layers[k].media_type);
			annotations_copy(&x.result.annotations, &x.stored.annotations);
			x.result.diff_id = m.layers[k].digest;
			cache_key(key, &source[k], "nydus/1");
			assert_int_equal(c->ops->put(c, key, &source[k], &x, &e), 0);
			cache_entry_fini(&x);
		}
		cachetag_image(c, &theirs.manifests[i].platform, source, m.n_layers);
		manifest_fini(&m);
	}
	save(c, 1);
	cache_freep(&c);
	ours = index_of_tag();
	assert_int_equal(ours.n, theirs.n);
	for (size_t i = 0; i < theirs.n; i++) {
		struct manifest a = manifest_at(&ours.manifests[i].digest),
				b = manifest_at(&theirs.manifests[i].digest);
		struct buf ta = BUF_INIT(1 << 20), tb = BUF_INIT(1 << 20);

		for (size_t k = 0; k < a.n_layers; k++)
			for (size_t n = 0; n < 2; n++) {
				assert_non_null(
					annotations_get(&a.layers[k].annotations, added[n]));
				annotations_del(&a.layers[k].annotations, added[n]);
			}
		assert_int_equal(manifest_write(&a, &ta, &e), 0);
		assert_int_equal(manifest_write(&b, &tb, &e), 0);
		assert_string_equal(ta.data, tb.data);
		/* the entries differ in what names the bytes alone */
		ours.manifests[i].digest = theirs.manifests[i].digest;
		ours.manifests[i].size = theirs.manifests[i].size;
		buf_fini(&ta);
		buf_fini(&tb);
		manifest_fini(&a);
		manifest_fini(&b);
	}
	{
		struct buf ta = BUF_INIT(1 << 20), tb = BUF_INIT(1 << 20);

		assert_int_equal(index_write(&ours, &ta, &e), 0);
		assert_int_equal(index_write(&theirs, &tb, &e), 0);
		assert_string_equal(ta.data, tb.data);
		buf_fini(&ta);
		buf_fini(&tb);
	}
	assert_true(digest_is_set(&tag_was));
	index_fini(&ours);
	index_fini(&theirs);
	mock_reset();
}

static void what_upstream_wrote_is_given_out_and_kept(void **s)
{
	static const char source[] =
		"sha256:ebf09a0f00b5373ab70916e7bb2a5722cd178c7724773b5d303898a5e9d022a5";
	struct cache_entry x = {0};
	struct cache *c;
	struct digest d;
	struct index i;
	struct manifest m;
	struct err e = {0};

	upstreams();
	c = open_tag("v1", 200, true);
	assert_int_equal(digest_parse(&d, source, &e), 0);
	assert_int_equal(c->ops->get(c, "any key", &d, &x, &e), 1);
	assert_true(x.foreign);
	assert_int_equal(x.stored.size, 41431);
	assert_true(digest_eq(&x.result.diff_id, &x.stored.digest));
	assert_int_equal(x.stored.annotations.n, 1); /* nydus-blob */
	cache_entry_fini(&x);
	put(c, 1);
	save(c, 1);
	cache_freep(&c);
	i = index_of_tag();
	assert_int_equal(i.n, 2);
	m = manifest_at(&i.manifests[0].digest);
	assert_int_equal(m.n_layers, 4); /* ours first, upstream's three as they were */
	assert_string_equal(annotations_get(&m.layers[1].annotations,
					    "containerd.io/snapshot/nydus-source-digest"),
			    source);
	assert_int_equal(m.layers[1].annotations.n, 3);
	manifest_fini(&m);
	index_fini(&i);
	c = open_tag("v1", 200, true);
	assert_true(has(c, 1));
	assert_int_equal(c->ops->get(c, "any key", &d, &x, &e), 1);
	cache_entry_fini(&x);
	cache_freep(&c);
	mock_reset();
}

/* ---- others between the reading and the PUT */

static void someone_else(void)
{
	static struct cache *c;

	mock.before_child = NULL;
	c = open_tag("v1", 200, false);
	put(c, 2);
	save(c, 1);
	cache_freep(&c);
}

static void who_came_between_is_merged_not_overwritten(void **s)
{
	struct cache *c = open_tag("v1", 200, false);

	put(c, 1);
	mock.before_child = someone_else; /* ours has read the tag, and not yet written it */
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 200, true);
	assert_true(has(c, 1));
	assert_true(has(c, 2));
	cache_freep(&c);
	assert_int_equal(mock.tag_puts, 2); /* the first try was not sent */
	mock_reset();
}

static void someone_else_again(void)
{
	static int n;
	char text[96];
	struct digest d;

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[],\"x\":%d}", n++);
	d = mock_add(text, strlen(text), MT_OCI_INDEX);
	mock_set_tag("cache", &d);
}

static void a_tag_that_never_rests_is_left_alone(void **s)
{
	struct cache *c = open_tag("v1", 200, false);
	struct err e = {0};

	put(c, 1);
	mock.before_child = someone_else_again;
	assert_int_equal(cachetag_save(c, &e), -1);
	assert_int_equal(e.code, ERR_BUSY);
	assert_int_equal(mock.tag_puts, 0);
	cache_freep(&c);
	mock_reset();
}

static void the_same_again_is_not_written_again(void **s)
{
	struct cache *c = open_tag("v1", 200, false);

	put(c, 1);
	save(c, 1);
	cache_freep(&c);
	c = open_tag("v1", 200, true);
	put(c, 1);
	save(c, 1);
	cache_freep(&c);
	assert_int_equal(mock.tag_puts, 1);
	mock_reset();
}

static void a_key_depends_on_source_driver_and_codecs(void **s)
{
	struct digest a, b;
	char one[CACHE_KEY], two[CACHE_KEY];

	digest_of(&a, DIGEST_SHA256, "a", 1);
	digest_of(&b, DIGEST_SHA256, "b", 1);
	cache_key(one, &a, "x");
	assert_int_equal(strlen(one), 64);
	cache_key(two, &b, "x");
	assert_string_not_equal(one, two);
	cache_key(two, &a, "y");
	assert_string_not_equal(one, two);
	cache_key(two, &a, "x");
	assert_string_equal(one, two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_put_is_found_by_the_next_one),
		T(another_version_and_other_things_count_as_empty),
		T(two_writers_keep_each_others_layers),
		T(the_oldest_go_when_it_is_full),
		T(each_platform_has_its_manifest_lower_layers_first),
		T(ours_is_what_upstream_writes_but_for_two_annotations),
		T(what_upstream_wrote_is_given_out_and_kept),
		T(who_came_between_is_merged_not_overwritten),
		T(a_tag_that_never_rests_is_left_alone),
		T(the_same_again_is_not_written_again),
		T(a_key_depends_on_source_driver_and_codecs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
