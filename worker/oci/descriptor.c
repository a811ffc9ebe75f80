/* worker/oci/descriptor.c - see descriptor.h. */
#include "worker/oci/descriptor.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/oci/json_oci.h"

/* OCI image-spec v1.1 sets no bound; registries take 4 MiB for a whole manifest. */
#define ANNOTATIONS_MAX 4096

int oci_text(const struct json *obj, const char *key, const char *at, bool need, char *to, size_t n,
	     struct err *e)
{
	const char *v = "";

	if ((need ? json_str(obj, key, at, &v, e) : json_opt_str(obj, key, at, &v, e)) < 0)
		return -1;
	if (strlen(v) >= n)
		return err_set(e, ERR_INVALID, "%s.%s is longer than %zu characters", at, key,
			       n - 1);
	str_copy(to, n, v);
	return 0;
}

struct json *oci_extra(const struct json *obj, const char *const *known, struct json *extra)
{
	for (struct json_iter i = json_first(obj); i.key; json_next(&i)) {
		bool ours = false;

		for (const char *const *k = known; *k && !ours; k++)
			ours = str_eq(*k, i.key);
		if (ours)
			continue;
		if (!extra)
			extra = json_new_object();
		json_set(extra, i.key, json_clone(i.value));
	}
	return extra;
}

void oci_add_extra(struct json *obj, const struct json *extra)
{
	for (struct json_iter i = json_first(extra); i.key; json_next(&i))
		if (!json_has(obj, i.key))
			json_set(obj, i.key, json_clone(i.value));
}

/* ---- annotations */
static struct annotation *find(const struct annotations *s, const char *key)
{
	for (size_t i = 0; i < s->n; i++)
		if (str_eq(s->a[i].key, key))
			return &s->a[i];
	return NULL;
}

void annotations_set(struct annotations *s, const char *key, const char *value)
{
	struct annotation *a = find(s, key);

	if (!a) {
		mem_grow(s->a, s->n, s->cap);
		a = &s->a[s->n++];
		a->key = mem_strdup(key);
	} else {
		free(a->value);
	}
	a->value = mem_strdup(value);
}

const char *annotations_get(const struct annotations *s, const char *key)
{
	const struct annotation *a = find(s, key);

	return a ? a->value : NULL;
}

void annotations_del(struct annotations *s, const char *key)
{
	struct annotation *a = find(s, key);
	size_t at;

	if (!a)
		return;
	at = (size_t)(a - s->a);
	free(a->key);
	free(a->value);
	s->n--;
	memmove(a, a + 1, (s->n - at) * sizeof(*a));
}

void annotations_copy(struct annotations *to, const struct annotations *from)
{
	annotations_fini(to);
	for (size_t i = 0; i < from->n; i++)
		annotations_set(to, from->a[i].key, from->a[i].value);
}

void annotations_fini(struct annotations *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->a[i].key);
		free(s->a[i].value);
	}
	free(s->a);
	*s = (struct annotations){0};
}

int annotations_from_json(struct annotations *s, const struct json *obj, const char *at,
			  struct err *e)
{
	struct annotations got = {0};

	if (json_len(obj) > ANNOTATIONS_MAX)
		return err_set(e, ERR_LIMIT, "%s has %zu members, at most %d are taken", at,
			       json_len(obj), ANNOTATIONS_MAX);
	for (struct json_iter i = json_first(obj); i.key; json_next(&i)) {
		const char *v = "";

		/* Go reads null as "" */
		if (json_opt_str(obj, i.key, at, &v, e) < 0) {
			annotations_fini(&got);
			return -1;
		}
		mem_grow(got.a, got.n, got.cap);
		got.a[got.n++] =
			(struct annotation){.key = mem_strdup(i.key), .value = mem_strdup(v)};
	}
	annotations_fini(s);
	*s = got;
	return 0;
}

struct json *annotations_to_json(const struct annotations *s)
{
	struct json *obj;

	if (s->n == 0)
		return NULL;
	obj = json_new_object();
	for (size_t i = 0; i < s->n; i++)
		json_set_str(obj, s->a[i].key, s->a[i].value);
	return obj;
}

/* ---- descriptor */
void descriptor_init(struct descriptor *d)
{
	memset(d, 0, sizeof(*d));
}

void descriptor_fini(struct descriptor *d)
{
	annotations_fini(&d->annotations);
	json_freep(&d->extra);
	memset(d, 0, sizeof(*d));
}

void descriptor_copy(struct descriptor *to, const struct descriptor *from)
{
	*to = *from;
	to->annotations = (struct annotations){0};
	annotations_copy(&to->annotations, &from->annotations);
	to->extra = json_clone(from->extra);
}

int oci_platform(struct platform *p, const struct json *obj, const char *at, struct err *e)
{
	struct platform got = {.set = true};

	if (oci_text(obj, "os", at, false, got.os, sizeof(got.os), e) < 0 ||
	    oci_text(obj, "architecture", at, false, got.arch, sizeof(got.arch), e) < 0 ||
	    oci_text(obj, "variant", at, false, got.variant, sizeof(got.variant), e) < 0 ||
	    oci_text(obj, "os.version", at, false, got.os_version, sizeof(got.os_version), e) < 0)
		return -1;
	*p = got;
	return 0;
}

static int parse(struct descriptor *d, const struct json *j, const char *at, struct err *e)
{
	static const char *const known[] = {"mediaType", "digest",	 "size", "annotations",
					    "platform",	 "artifactType", NULL};
	static const char *const in_platform[] = {"os", "architecture", "variant", "os.version",
						  NULL};
	struct json *ann = NULL, *plat = NULL, *rest;
	const char *text;
	int64_t size;
	char *sub;
	int r;

	if (json_want(j, JSON_OBJECT, at, e) < 0 ||
	    oci_text(j, "mediaType", at, false, d->media_type, sizeof(d->media_type), e) < 0 ||
	    oci_text(j, "artifactType", at, false, d->artifact_type, sizeof(d->artifact_type), e) <
		    0 ||
	    json_str(j, "digest", at, &text, e) < 0 || json_int(j, "size", at, &size, e) < 0 ||
	    json_opt_object(j, "annotations", at, &ann, e) < 0 ||
	    json_opt_object(j, "platform", at, &plat, e) < 0)
		return -1;
	if (digest_parse(&d->digest, text, e) < 0)
		return err_wrap(e, "%s.digest", at);
	if (size < 0)
		return err_set(e, ERR_INVALID, "%s.size is negative", at);
	d->size = (uint64_t)size;
	sub = mem_printf("%s.annotations", at);
	r = annotations_from_json(&d->annotations, ann, sub, e);
	free(sub);
	if (r < 0)
		return -1;
	d->extra = oci_extra(j, known, NULL);
	d->has_urls = json_len(json_get(j, "urls")) > 0;
	if (!plat)
		return 0;
	sub = mem_printf("%s.platform", at);
	r = oci_platform(&d->platform, plat, sub, e);
	free(sub);
	rest = r < 0 ? NULL : oci_extra(plat, in_platform, NULL);
	if (rest) {
		if (!d->extra)
			d->extra = json_new_object();
		json_set(d->extra, "platform", rest);
	}
	return r;
}

int descriptor_from_json(struct descriptor *d, const struct json *j, const char *at, struct err *e)
{
	struct descriptor got;

	descriptor_init(&got);
	if (parse(&got, j, at, e) < 0) {
		descriptor_fini(&got);
		return -1;
	}
	*d = got;
	return 0;
}

struct json *descriptor_to_json(const struct descriptor *d)
{
	struct json *j = json_new_object();
	char text[DIGEST_TEXT];

	if (d->media_type[0])
		json_set_str(j, "mediaType", d->media_type);
	json_set_str(j, "digest", digest_text(&d->digest, text));
	json_set_int(j, "size", (int64_t)d->size);
	if (d->annotations.n)
		json_set(j, "annotations", annotations_to_json(&d->annotations));
	if (d->platform.set) {
		struct json *p = json_new_object();

		json_set_str(p, "architecture", d->platform.arch);
		json_set_str(p, "os", d->platform.os);
		if (d->platform.os_version[0])
			json_set_str(p, "os.version", d->platform.os_version);
		if (json_has(json_get(d->extra, "platform"), "os.features")) /* Go's order */
			json_set(p, "os.features",
				 json_clone(
					 json_get(json_get(d->extra, "platform"), "os.features")));
		if (d->platform.variant[0])
			json_set_str(p, "variant", d->platform.variant);
		oci_add_extra(p, json_get(d->extra, "platform"));
		json_set(j, "platform", p);
	}
	if (d->artifact_type[0])
		json_set_str(j, "artifactType", d->artifact_type);
	for (struct json_iter i = json_first(d->extra); i.key; json_next(&i))
		if (!str_eq(i.key, "platform") && !json_has(j, i.key))
			json_set(j, i.key, json_clone(i.value));
	return j;
}
