/* worker/oci/index.c - see index.h. */
#include "worker/oci/index.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/oci/json_oci.h"

void index_init(struct index *x)
{
	memset(x, 0, sizeof(*x));
}

void index_fini(struct index *x)
{
	for (size_t i = 0; i < x->n; i++)
		descriptor_fini(&x->manifests[i]);
	free(x->manifests);
	annotations_fini(&x->annotations);
	descriptor_fini(&x->subject);
	json_freep(&x->extra);
	memset(x, 0, sizeof(*x));
}

static int parse_manifests(struct index *x, const struct json *list, struct err *e)
{
	char at[32];

	if (json_len(list) > INDEX_MAX_MANIFESTS)
		return err_set(e, ERR_LIMIT, "the index has %zu manifests, at most %d are taken",
			       json_len(list), INDEX_MAX_MANIFESTS);
	for (size_t i = 0; i < json_len(list); i++) {
		struct descriptor d;

		snprintf(at, sizeof(at), "manifests[%zu]", i);
		if (descriptor_from_json(&d, json_at(list, i), at, e) < 0)
			return -1;
		*index_add(x) = d;
	}
	return 0;
}

static int parse(struct index *x, const struct json *j, struct err *e)
{
	static const char *const known[] = {
		"schemaVersion", "mediaType", "artifactType", "manifests", "annotations",
		"subject",	 NULL};
	struct json *list = NULL, *ann = NULL, *subject = NULL;
	int64_t schema;

	if (json_want(j, JSON_OBJECT, "the index", e) < 0 ||
	    json_int(j, "schemaVersion", "", &schema, e) < 0 ||
	    oci_text(j, "mediaType", "index", false, x->media_type, sizeof(x->media_type), e) < 0 ||
	    oci_text(j, "artifactType", "index", false, x->artifact_type, sizeof(x->artifact_type),
		     e) < 0)
		return -1;
	if (schema != 2)
		return err_set(e, ERR_INVALID, "schemaVersion is %lld, expected 2",
			       (long long)schema);
	/* One document must not be an index for one reader and an image for another
	 * (CVE-2021-41190). */
	if (json_has(j, "layers") || json_has(j, "config"))
		return err_set(e, ERR_INVALID, "the manifest is both an image and an index");
	if (json_opt_array(j, "manifests", "", &list, e) < 0 ||
	    json_opt_object(j, "annotations", "", &ann, e) < 0 ||
	    json_opt_object(j, "subject", "", &subject, e) < 0 || parse_manifests(x, list, e) < 0 ||
	    annotations_from_json(&x->annotations, ann, "annotations", e) < 0)
		return -1;
	if (subject && descriptor_from_json(&x->subject, subject, "subject", e) < 0)
		return -1;
	x->has_subject = subject != NULL;
	x->extra = oci_extra(j, known, NULL);
	return 0;
}

int index_parse(struct index *x, const char *p, size_t n, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;
	struct index got;

	index_init(&got);
	if (json_parse(&j, p, n, NULL, e) < 0 || parse(&got, j, e) < 0) {
		index_fini(&got);
		return -1;
	}
	*x = got;
	return 0;
}

static int write_as(const struct index *x, enum json_style style, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = json_new_object();
	struct json *list = json_new_array();

	json_set_int(j, "schemaVersion", 2);
	if (x->media_type[0])
		json_set_str(j, "mediaType", x->media_type);
	if (x->artifact_type[0])
		json_set_str(j, "artifactType", x->artifact_type);
	for (size_t i = 0; i < x->n; i++)
		json_append(list, descriptor_to_json(&x->manifests[i]));
	json_set(j, "manifests", list);
	if (x->has_subject)
		json_set(j, "subject", descriptor_to_json(&x->subject));
	if (x->annotations.n)
		json_set(j, "annotations", annotations_to_json(&x->annotations));
	oci_add_extra(j, x->extra);
	return json_write(j, style, to, e);
}

int index_write(const struct index *x, struct buf *to, struct err *e)
{
	return write_as(x, JSON_COMPACT, to, e);
}

int index_write_indented(const struct index *x, struct buf *to, struct err *e)
{
	return write_as(x, JSON_PRETTY, to, e);
}

struct descriptor *index_add(struct index *x)
{
	x->manifests = mem_resize(x->manifests, x->n + 1, sizeof(*x->manifests));
	descriptor_init(&x->manifests[x->n]);
	return &x->manifests[x->n++];
}
