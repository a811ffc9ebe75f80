/* tests/unit/test_classify.c - what is converted, and what is skipped with which words. */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/classify.h"
#include "worker/registry/registry.h"

static void body_is(const char *type, const char *text, int kind, const char *words)
{
	struct manifest_body b = {.data = (char *)text, .n = strlen(text)};
	enum manifest_kind got = KIND_IMAGE;
	struct err e = {0};
	int r;

	str_copy(b.media_type, sizeof(b.media_type), type);
	r = classify_body(&b, &got, &e);
	if (words) {
		assert_int_equal(r, -1);
		assert_int_equal(e.class, CLASS_SKIP);
		assert_string_equal(e.text, words);
	} else {
		assert_int_equal(r, 0);
		assert_int_equal(got, kind);
	}
}

static void a_body_is_told_by_type_and_else_by_its_members(void **s)
{
	static const char image[] = "{\"schemaVersion\":2,\"config\":{},\"layers\":[]}";
	static const char index[] = "{\"schemaVersion\":2,\"manifests\":[]}";

	body_is(MT_OCI_MANIFEST, image, KIND_IMAGE, NULL);
	body_is(MT_DOCKER_MANIFEST, image, KIND_IMAGE, NULL);
	body_is(MT_OCI_INDEX, index, KIND_INDEX, NULL);
	body_is(MT_DOCKER_LIST, index, KIND_INDEX, NULL);
	body_is("application/json", image, KIND_IMAGE, NULL);
	body_is("", index, KIND_INDEX, NULL);
	body_is(MT_DOCKER_SCHEMA1_SIGNED, "{", 0, "Docker schema 1 image: too old to convert");
	body_is("text/plain", "{\"schemaVersion\":1}", 0,
		"Docker schema 1 image: too old to convert");
	body_is("application/x", "{}", 0, "not a container image (manifest type application/x)");
}

struct one {
	const char *config, *layer, *key, *value, *words; /* of one layer */
	bool on_manifest, urls;
};

static void an_image_is_skipped_with_its_reason(void **s)
{
	static const struct one all[] = {
		{.words = NULL},
		{.layer = MT_DOCKER_LAYER_GZIP, .config = MT_DOCKER_CONFIG},
		{.layer = MT_OCI_LAYER_ZSTD},
		{.layer = MT_OCI_LAYER},
		{.config = "application/vnd.cncf.helm.config.v1+json",
		 .words = "not a container image (config type "
			  "application/vnd.cncf.helm.config.v1+json)"},
		{.config = "application/vnd.oci.empty.v1+json",
		 .words = "not a container image (config type application/vnd.oci.empty.v1+json)"},
		{.layer = "application/vnd.in-toto+json",
		 .words = "not a container image (layer type application/vnd.in-toto+json)"},
		{.layer = "application/vnd.dev.cosign.simplesigning.v1+json",
		 .words = "not a container image (layer type "
			  "application/vnd.dev.cosign.simplesigning.v1+json)"},
		{.layer = MT_OCI_LAYER_GZIP "+encrypted", .words = "layer 1 is encrypted"},
		{.layer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		 .words = "layer 1 is a foreign layer: its bytes are elsewhere"},
		{.layer = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		 .words = "layer 1 is a foreign layer: its bytes are elsewhere"},
		{.urls = true, .words = "layer 1 is a foreign layer: its bytes are elsewhere"},
		{.layer = "application/vnd.oci.image.layer.nydus.blob.v1",
		 .words = "already converted: a Nydus image"},
		{.key = "containerd.io/snapshot/nydus-bootstrap",
		 .value = "true",
		 .words = "already converted: a Nydus image"},
		{.key = "containerd.io/snapshot/overlaybd/blob-digest",
		 .value = "x",
		 .words = "already converted: an overlaybd image"},
		{.key = "containerd.io/snapshot/stargz/toc.digest",
		 .value = "x",
		 .words = "already converted: every layer is eStargz"},
		{.on_manifest = true,
		 .key = ANN_GENERATION,
		 .value = "1",
		 .words = "already converted (generation 1)"},
		{.on_manifest = true,
		 .key = ANN_FORMAT,
		 .value = "nydus/1",
		 .words = "already converted: nydus/1 made from another image"},
		{.on_manifest = true,
		 .key = "containerd.io/snapshot/nydus-source-digest",
		 .value = "x",
		 .words = "already converted: a Nydus image"},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		const struct one *o = &all[i];
		struct manifest m;
		struct descriptor *d;
		struct err e = {0};
		int r;

		manifest_init(&m);
		str_copy(m.config.media_type, sizeof(m.config.media_type),
			 o->config ? o->config : MT_OCI_CONFIG);
		d = manifest_add_layer(&m);
		str_copy(d->media_type, sizeof(d->media_type),
			 o->layer ? o->layer : MT_OCI_LAYER_GZIP);
		d->has_urls = o->urls;
		if (o->key)
			annotations_set(o->on_manifest ? &m.annotations : &d->annotations, o->key,
					o->value);
		r = classify_manifest(&m, &e);
		if (!o->words && r < 0)
			fail_msg("%zu: %s", i, e.text);
		if (o->words) {
			assert_int_equal(r, -1);
			assert_int_equal(e.class, CLASS_SKIP);
			assert_string_equal(e.text, o->words);
		}
		manifest_fini(&m);
	}
}

static void an_estargz_base_under_new_layers_is_converted(void **s)
{
	struct manifest m;
	struct err e = {0};

	manifest_init(&m);
	str_copy(m.config.media_type, sizeof(m.config.media_type), MT_OCI_CONFIG);
	for (int i = 0; i < 2; i++) {
		struct descriptor *d = manifest_add_layer(&m);

		str_copy(d->media_type, sizeof(d->media_type), MT_OCI_LAYER_GZIP);
		if (i == 0)
			annotations_set(&d->annotations, "containerd.io/snapshot/stargz/toc.digest",
					"x");
	}
	assert_int_equal(classify_manifest(&m, &e), 0);
	manifest_fini(&m);
}

static void a_config_must_fit_its_layers(void **s)
{
	static const struct {
		const char *config, *words;
		enum err_class class;
	} all[] = {
		{"{\"os\":\"windows\",\"rootfs\":{\"diff_ids\":[]}}", "Windows image", CLASS_SKIP},
		{"{\"os\":\"linux\"}", "not a container image (its config has no diff_ids)",
		 CLASS_SKIP},
		{"{\"rootfs\":{\"diff_ids\":[\"sha256:"
		 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"sha256:"
		 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}}",
		 "the manifest has 1 layers, its config 2 diff_ids", CLASS_FINAL},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct imageconfig c;
		struct manifest m;
		struct err e = {0};

		manifest_init(&m);
		manifest_add_layer(&m);
		assert_int_equal(imageconfig_parse(&c, all[i].config, strlen(all[i].config), &e),
				 0);
		assert_int_equal(classify_config(&m, &c, &e), -1);
		assert_string_equal(e.text, all[i].words);
		assert_int_equal(e.class, all[i].class);
		imageconfig_fini(&c);
		manifest_fini(&m);
	}
}

static void a_child_is_told_by_its_annotation_not_its_platform(void **s)
{
	struct descriptor d;
	const char *why;

	descriptor_init(&d);
	str_copy(d.media_type, sizeof(d.media_type), MT_OCI_MANIFEST);
	str_copy(d.platform.os, sizeof(d.platform.os), "unknown");
	assert_true(classify_child_is_image(&d, &why));
	annotations_set(&d.annotations, "vnd.docker.reference.type", "attestation-manifest");
	assert_false(classify_child_is_image(&d, &why));
	assert_string_equal(why, "an attestation");
	annotations_fini(&d.annotations);
	str_copy(d.media_type, sizeof(d.media_type), MT_OCI_INDEX);
	assert_false(classify_child_is_image(&d, &why));
	assert_string_equal(why, "an index inside an index");
	str_copy(d.media_type, sizeof(d.media_type), MT_DOCKER_MANIFEST);
	str_copy(d.platform.os, sizeof(d.platform.os), "windows");
	assert_false(classify_child_is_image(&d, &why));
	assert_string_equal(why, "a Windows image");
	descriptor_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_body_is_told_by_type_and_else_by_its_members),
		T(an_image_is_skipped_with_its_reason),
		T(an_estargz_base_under_new_layers_is_converted),
		T(a_config_must_fit_its_layers),
		T(a_child_is_told_by_its_annotation_not_its_platform),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
