/* worker/classify.c - see classify.h.  Texts: registries.md, "Error classes". */
#include "worker/classify.h"

#include <string.h>

#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/rules.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/registry/registry.h"

#define NYDUS_BLOB "application/vnd.oci.image.layer.nydus.blob.v1"
#define NYDUS_CONFIG "application/vnd.nydus.image.config.v1+json"
#define NYDUS_ARTIFACT "application/vnd.nydus.image.manifest.v1+json"

#define skip(e, ...) err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, __VA_ARGS__)

static bool one_of(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(s, *list) == 0)
			return true;
	return false;
}

/* Without a type that we know, the members decide (GHCR ignores Accept, old registries drop
 * mediaType). */
static int kind_by_content(const struct manifest_body *b, enum manifest_kind *kind, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;

	if (json_parse(&j, b->data, b->n, NULL, e) < 0)
		return err_wrap(e, "read the manifest");
	if (json_kind(json_get(j, "manifests")) == JSON_ARRAY)
		*kind = KIND_INDEX;
	else if (json_has(j, "config") && json_has(j, "layers"))
		*kind = KIND_IMAGE;
	else if (json_value_int(json_get(j, "schemaVersion")) == 1)
		return skip(e, "Docker schema 1 image: too old to convert");
	else
		return skip(e, "not a container image (manifest type %s)",
			    b->media_type[0] ? b->media_type : "unknown");
	return 0;
}

int classify_body(const struct manifest_body *b, enum manifest_kind *kind, struct err *e)
{
	static const char *const indexes[] = {MT_OCI_INDEX, MT_DOCKER_LIST, NULL};
	static const char *const images[] = {MT_OCI_MANIFEST, MT_DOCKER_MANIFEST, NULL};
	static const char *const schema1[] = {MT_DOCKER_SCHEMA1, MT_DOCKER_SCHEMA1_SIGNED, NULL};

	if (one_of(b->media_type, schema1))
		return skip(e, "Docker schema 1 image: too old to convert");
	if (one_of(b->media_type, indexes))
		*kind = KIND_INDEX;
	else if (one_of(b->media_type, images))
		*kind = KIND_IMAGE;
	else
		return kind_by_content(b, kind, e);
	return 0;
}

int classify_annotations(const struct annotations *a, struct err *e)
{
	const char *generation = annotations_get(a, ANN_GENERATION);
	const char *format = annotations_get(a, ANN_FORMAT);

	if (format)
		return skip(e, "already converted: %s made from %s", format,
			    annotations_get(a, ANN_SOURCE_REFERENCE)
				    ? annotations_get(a, ANN_SOURCE_REFERENCE)
				    : "another image");
	if (generation && strcmp(generation, "0") != 0)
		return skip(e, "already converted (generation %s)", generation);
	if (annotations_get(a, "containerd.io/snapshot/nydus-source-digest"))
		return skip(e, "already converted: a Nydus image");
	if (annotations_get(a, "containerd.io/snapshot/nydus-cache-version"))
		return skip(e, "a layer cache of Nydus, not an image");
	return 0;
}

/* ---- layers */
static const char *format_of(const struct descriptor *d)
{
	static const struct {
		const char *key, *name;
	} marks[] = {
		{"containerd.io/snapshot/stargz/toc.digest", "eStargz"},
		{"io.github.containers.zstd-chunked.manifest-checksum", "zstd:chunked"},
		{"containerd.io/snapshot/nydus-blob", "Nydus"},
		{"containerd.io/snapshot/nydus-bootstrap", "Nydus"},
		{"containerd.io/snapshot/overlaybd/blob-digest", "overlaybd"},
	};

	if (strcmp(d->media_type, NYDUS_BLOB) == 0)
		return "Nydus";
	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++)
		if (annotations_get(&d->annotations, marks[i].key))
			return marks[i].name;
	return NULL;
}

static bool foreign(const struct descriptor *d)
{
	return d->has_urls || strstr(d->media_type, ".foreign.") ||
	       strstr(d->media_type, ".nondistributable.");
}

static int classify_layer(const struct descriptor *d, size_t number, struct err *e)
{
	static const char *const types[] = {MT_OCI_LAYER,
					    MT_OCI_LAYER_GZIP,
					    MT_OCI_LAYER_ZSTD,
					    MT_DOCKER_LAYER,
					    MT_DOCKER_LAYER_GZIP,
					    MT_DOCKER_LAYER_ZSTD,
					    NULL};

	if (str_ends(d->media_type, "+encrypted"))
		return skip(e, "layer %zu is encrypted", number);
	if (foreign(d))
		return skip(e, "layer %zu is a foreign layer: its bytes are elsewhere", number);
	if (!one_of(d->media_type, types))
		return skip(e, "not a container image (layer type %s)",
			    d->media_type[0] ? d->media_type : "missing");
	return 0;
}

int classify_manifest(const struct manifest *m, struct err *e)
{
	static const char *const configs[] = {MT_OCI_CONFIG, MT_DOCKER_CONFIG, NULL};
	size_t marked = 0;

	if (classify_annotations(&m->annotations, e) < 0)
		return -1;
	if (strcmp(m->config.media_type, NYDUS_CONFIG) == 0)
		return skip(e, "already converted: a Nydus image");
	if (!one_of(m->config.media_type, configs))
		return skip(e, "not a container image (config type %s)",
			    m->config.media_type[0] ? m->config.media_type : "missing");
	for (size_t i = 0; i < m->n_layers; i++) {
		const char *format = format_of(&m->layers[i]);

		/* These are no tars any more; eStargz and zstd:chunked are, and may lie below new
		 * layers. */
		if (format && (str_eq(format, "Nydus") || str_eq(format, "overlaybd")))
			return skip(e, "already converted: %s %s image",
				    str_eq(format, "overlaybd") ? "an" : "a", format);
		if (classify_layer(&m->layers[i], i + 1, e) < 0)
			return -1;
		marked += format != NULL;
	}
	if (m->n_layers && marked == m->n_layers)
		return skip(e, "already converted: every layer is %s", format_of(&m->layers[0]));
	return 0;
}

int classify_config(const struct manifest *m, const struct imageconfig *c, struct err *e)
{
	if (str_ieq(c->platform.os, "windows"))
		return skip(e, "Windows image");
	if (m->n_layers && c->n_diff_ids == 0)
		return skip(e, "not a container image (its config has no diff_ids)");
	if (m->n_layers != c->n_diff_ids)
		return err_set(e, ERR_CORRUPT,
			       "the manifest has %zu layers, its config %zu diff_ids", m->n_layers,
			       c->n_diff_ids);
	return 0;
}

bool classify_child_is_image(const struct descriptor *d, const char **why)
{
	static const char *const images[] = {MT_OCI_MANIFEST, MT_DOCKER_MANIFEST, NULL};
	static const char *const indexes[] = {MT_OCI_INDEX, MT_DOCKER_LIST, NULL};

	*why = NULL;
	if (annotations_get(&d->annotations, "vnd.docker.reference.type"))
		*why = "an attestation";
	else if (one_of(d->media_type, indexes))
		*why = "an index inside an index";
	else if (!one_of(d->media_type, images))
		*why = "not an image manifest";
	else if (strcmp(d->artifact_type, NYDUS_ARTIFACT) == 0)
		*why = "a Nydus image";
	else if (d->artifact_type[0])
		*why = "an artifact";
	else if (str_ieq(d->platform.os, "windows"))
		*why = "a Windows image";
	return !*why;
}

int classify_reference(const struct rules *rules, const struct imageref *ref, struct err *e)
{
	char text[IMAGEREF_TEXT];

	if (!ref->tag[0] || !rules_is_output(rules, ref))
		return 0;
	return skip(e, "%s is the output of a rule", imageref_text(ref, text));
}
