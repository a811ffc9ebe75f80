/* worker/oci/manifest.c - see manifest.h. */
#include "worker/oci/manifest.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/oci/json_oci.h"

void manifest_init(struct manifest *m)
{
	memset(m, 0, sizeof(*m));
}

void manifest_fini(struct manifest *m)
{
	descriptor_fini(&m->config);
	for (size_t i = 0; i < m->n_layers; i++)
		descriptor_fini(&m->layers[i]);
	free(m->layers);
	annotations_fini(&m->annotations);
	descriptor_fini(&m->subject);
	json_freep(&m->extra);
	memset(m, 0, sizeof(*m));
}

static int parse_layers(struct manifest *m, const struct json *layers, struct err *e)
{
	char at[32];

	if (json_len(layers) > MANIFEST_MAX_LAYERS)
		return err_set(e, ERR_LIMIT, "the manifest has %zu layers, at most %d are taken",
			       json_len(layers), MANIFEST_MAX_LAYERS);
	for (size_t i = 0; i < json_len(layers); i++) {
		struct descriptor d;

		snprintf(at, sizeof(at), "layers[%zu]", i);
		if (descriptor_from_json(&d, json_at(layers, i), at, e) < 0)
			return -1;
		*manifest_add_layer(m) = d;
	}
	return 0;
}

static int parse(struct manifest *m, const struct json *j, struct err *e)
{
	static const char *const known[] = {"schemaVersion", "mediaType", "artifactType", "config",
					    "layers",	     "subject",	  "annotations",  NULL};
	struct json *config, *layers = NULL, *ann = NULL, *subject = NULL;
	int64_t schema;

	if (json_want(j, JSON_OBJECT, "the manifest", e) < 0 ||
	    json_int(j, "schemaVersion", "", &schema, e) < 0 ||
	    oci_text(j, "mediaType", "manifest", false, m->media_type, sizeof(m->media_type), e) <
		    0 ||
	    oci_text(j, "artifactType", "manifest", false, m->artifact_type,
		     sizeof(m->artifact_type), e) < 0)
		return -1;
	if (schema != 2)
		return err_set(e, ERR_INVALID, "schemaVersion is %lld, expected 2",
			       (long long)schema);
	/* One document must not be an index for one reader and an image for another
	 * (CVE-2021-41190). */
	if (json_has(j, "manifests"))
		return err_set(e, ERR_INVALID, "the manifest is both an image and an index");
	if (json_obj(j, "config", "", &config, e) < 0 ||
	    json_opt_array(j, "layers", "", &layers, e) < 0 ||
	    json_opt_object(j, "annotations", "", &ann, e) < 0 ||
	    json_opt_object(j, "subject", "", &subject, e) < 0 ||
	    descriptor_from_json(&m->config, config, "config", e) < 0 ||
	    parse_layers(m, layers, e) < 0 ||
	    annotations_from_json(&m->annotations, ann, "annotations", e) < 0)
		return -1;
	if (subject && descriptor_from_json(&m->subject, subject, "subject", e) < 0)
		return -1;
	m->has_subject = subject != NULL;
	m->extra = oci_extra(j, known, NULL);
	return 0;
}

int manifest_parse(struct manifest *m, const char *p, size_t n, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;
	struct manifest got;

	manifest_init(&got);
	if (json_parse(&j, p, n, NULL, e) < 0 || parse(&got, j, e) < 0) {
		manifest_fini(&got);
		return -1;
	}
	*m = got;
	return 0;
}

int manifest_write(const struct manifest *m, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = json_new_object();
	struct json *layers = json_new_array();

	json_set_int(j, "schemaVersion", 2);
	if (m->media_type[0])
		json_set_str(j, "mediaType", m->media_type);
	if (m->artifact_type[0])
		json_set_str(j, "artifactType", m->artifact_type);
	json_set(j, "config", descriptor_to_json(&m->config));
	for (size_t i = 0; i < m->n_layers; i++)
		json_append(layers, descriptor_to_json(&m->layers[i]));
	json_set(j, "layers", layers);
	if (m->has_subject)
		json_set(j, "subject", descriptor_to_json(&m->subject));
	if (m->annotations.n)
		json_set(j, "annotations", annotations_to_json(&m->annotations));
	oci_add_extra(j, m->extra);
	return json_write(j, JSON_COMPACT, to, e);
}

struct descriptor *manifest_add_layer(struct manifest *m)
{
	m->layers = mem_resize(m->layers, m->n_layers + 1, sizeof(*m->layers));
	descriptor_init(&m->layers[m->n_layers]);
	return &m->layers[m->n_layers++];
}
