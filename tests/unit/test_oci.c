/* tests/unit/test_oci.c - manifests, indexes and configs, JSON both ways. */
#include "tests/unit/unit.h"

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/scope.h"
#include "worker/oci/imageconfig.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"

#define DIG "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define CONFIG                                                                                     \
	"{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"" DIG            \
	"\",\"size\":2}"
#define LAYER "{\"mediaType\":\"x/y\",\"digest\":\"" DIG "\",\"size\":7}"

static const char *round_trip_manifest(const char *text, struct buf *b)
{
	struct manifest m;
	struct err e = {0};

	buf_reset(b);
	if (manifest_parse(&m, text, strlen(text), &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(manifest_write(&m, b, &e), 0);
	manifest_fini(&m);
	return b->data;
}

static void a_manifest_comes_out_as_it_went_in(void **s)
{
	static const char text[] =
		"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
		"\"config\":" CONFIG ",\"layers\":[" LAYER ",{\"mediaType\":\"x\",\"digest\":\"" DIG
		"\",\"size\":1,\"annotations\":{\"b\":\"1\",\"a\":\"2\"},\"urls\":[\"http://h/"
		"\"]}],"
		"\"subject\":" LAYER ",\"annotations\":{\"k\":\"v\"},\"future\":{\"x\":[1,null,1.5]"
		"}}";
	struct buf b = BUF_INIT(1 << 20);

	assert_string_equal(round_trip_manifest(text, &b), text);
	buf_fini(&b);
}

static void urls_are_seen_and_an_unknown_platform_member_survives(void **s)
{
	static const char text[] =
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"m\",\"digest\":\"" DIG
		"\",\"size\":5,\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\","
		"\"os.version\":\"10\",\"os.features\":[\"f\"],\"variant\":\"v2\",\"own\":1},"
		"\"artifactType\":\"t\",\"data\":\"e30=\"}],\"annotations\":{\"z\":\"\"},\"own\":"
		"null}";
	struct buf b = BUF_INIT(1 << 20);
	struct index x;
	struct err e = {0};

	assert_int_equal(index_parse(&x, text, strlen(text), &e), 0);
	assert_string_equal(x.manifests[0].platform.variant, "v2");
	assert_false(x.manifests[0].has_urls);
	assert_int_equal(index_write(&x, &b, &e), 0);
	assert_string_equal(b.data, text);
	index_fini(&x);
	buf_fini(&b);
}

static void null_layers_are_no_layers(void **s)
{
	struct buf b = BUF_INIT(1 << 20);

	assert_text_has(round_trip_manifest(
				"{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":null}", &b),
			"\"layers\":[]");
	buf_fini(&b);
}

static void refused(const char *text, const char *why)
{
	struct manifest m;
	struct index x;
	struct err e = {0};
	bool index = strstr(text, "manifests") && !strstr(text, "config");
	int r = index ? index_parse(&x, text, strlen(text), &e)
		      : manifest_parse(&m, text, strlen(text), &e);

	if (r == 0)
		fail_msg("accepted: %s", text);
	assert_text_has(e.text, why);
}

static void what_is_not_a_manifest_is_refused_with_its_path(void **s)
{
	refused("[]", "the manifest is an array");
	refused("{\"schemaVersion\":1,\"config\":" CONFIG "}", "schemaVersion is 1");
	refused("{\"schemaVersion\":2}", "config is missing");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[{}]}",
		"layers[0].digest is missing");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG
		",\"layers\":[{\"digest\":\"md5:00\",\"size\":1}]}",
		"layers[0].digest");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[{\"digest\":\"" DIG
		"\",\"size\":-1}]}",
		"layers[0].size is negative");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"annotations\":{\"a\":1}}",
		"annotations.a is an integer");
	refused("{\"schemaVersion\":2,\"config\":" CONFIG ",\"manifests\":[]}", "both");
	refused("{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", "both");
	refused("{\"schemaVersion\":2,\"manifests\":[7]}", "manifests[0] is an integer");
}

static void more_layers_than_the_bound_is_a_limit(void **s)
{
	struct buf b = BUF_INIT(1 << 20);
	struct manifest m;
	struct err e = {0};

	buf_add_str(&b, "{\"schemaVersion\":2,\"config\":" CONFIG ",\"layers\":[", &e);
	for (int i = 0; i <= MANIFEST_MAX_LAYERS; i++)
		buf_addf(&b, &e, "%s%s", i ? "," : "", LAYER);
	buf_add_str(&b, "]}", &e);
	assert_int_equal(manifest_parse(&m, b.data, b.len, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	buf_fini(&b);
}

static const char config_text[] =
	"{\"architecture\":\"arm64\",\"variant\":\"v8\",\"os\":\"linux\",\"config\":{\"Image\":"
	"\"sha256:1\",\"Entrypoint\":null,\"Healthcheck\":{\"Test\":[\"NONE\"]}},"
	"\"container_config\":{\"Image\":\"x\"},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":"
	"[\"" DIG "\"]},\"history\":[{\"created_by\":\"a\"}],\"moby.buildkit\":\"e30\"}";

static void a_config_keeps_what_it_does_not_know(void **s)
{
	struct buf b = BUF_INIT(1 << 20);
	struct imageconfig c, copy;
	struct digest d[2];
	struct err e = {0};

	assert_int_equal(imageconfig_parse(&c, config_text, sizeof(config_text) - 1, &e), 0);
	assert_string_equal(c.platform.arch, "arm64");
	assert_string_equal(c.platform.variant, "v8");
	assert_int_equal(c.n_diff_ids, 1);
	assert_int_equal(imageconfig_write(&c, &b, &e), 0);
	assert_string_equal(b.data, config_text);

	imageconfig_copy(&copy, &c);
	digest_of(&d[0], DIGEST_SHA256, "x", 1);
	d[1] = c.diff_ids[0];
	imageconfig_set_diff_ids(&copy, d, 2);
	imageconfig_add_history(&copy, false, "last", "c", false);
	imageconfig_add_history(&copy, true, NULL, "first", true);
	imageconfig_drop_legacy_image(&copy);
	buf_reset(&b);
	assert_int_equal(imageconfig_write(&copy, &b, &e), 0);
	assert_text_has(b.data,
			"\"history\":[{\"comment\":\"first\",\"empty_layer\":true},"
			"{\"created_by\":\"a\"},{\"created_by\":\"last\",\"comment\":\"c\"}]");
	assert_text_has(b.data, "\"config\":{\"Entrypoint\":null,\"Healthcheck\"");
	assert_text_has(b.data, "\"container_config\":{}");
	assert_text_has(b.data, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
	assert_text_has(b.data, "\"moby.buildkit\"");
	assert_int_equal(copy.n_diff_ids, 2);
	imageconfig_fini(&copy);
	imageconfig_fini(&c);
	buf_fini(&b);
}

static void a_config_that_is_none_is_refused(void **s)
{
	struct imageconfig c;
	struct err e = {0};
	static const char *const bad[] = {"null",
					  "[]",
					  "{\"rootfs\":[]}",
					  "{\"os\":1}",
					  "{\"rootfs\":{\"diff_ids\":[1]}}",
					  "{\"rootfs\":{\"diff_ids\":[\"x\"]}}"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(imageconfig_parse(&c, bad[i], strlen(bad[i]), &e), -1);
	assert_int_equal(imageconfig_parse(&c, "{}", 2, &e), 0);
	assert_int_equal(c.n_diff_ids, 0);
	imageconfig_fini(&c);
}

static void annotations_keep_their_order_and_replace_in_place(void **s)
{
	struct annotations a = {0};

	annotations_set(&a, "b", "1");
	annotations_set(&a, "a", "2");
	annotations_set(&a, "b", "3");
	assert_int_equal(a.n, 2);
	assert_string_equal(a.a[0].key, "b");
	assert_string_equal(annotations_get(&a, "b"), "3");
	annotations_del(&a, "b");
	annotations_del(&a, "nothing");
	assert_null(annotations_get(&a, "b"));
	assert_string_equal(a.a[0].value, "2");
	annotations_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_manifest_comes_out_as_it_went_in),
		T(urls_are_seen_and_an_unknown_platform_member_survives),
		T(null_layers_are_no_layers),
		T(what_is_not_a_manifest_is_refused_with_its_path),
		T(more_layers_than_the_bound_is_a_limit),
		T(a_config_keeps_what_it_does_not_know),
		T(a_config_that_is_none_is_refused),
		T(annotations_keep_their_order_and_replace_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
