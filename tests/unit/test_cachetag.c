/* tests/unit/test_cachetag.c - the layer cache in a tag, against a registry in memory. */
#include "tests/unit/unit.h"

#include "tests/unit/mockreg.h"

#include "worker/cachetag.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"

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

static void put(struct cache *c, int i)
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
		T(a_key_depends_on_source_driver_and_codecs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
