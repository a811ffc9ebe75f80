/* worker/oci/imageconfig.c - see imageconfig.h. */
#include "worker/oci/imageconfig.h"

#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/oci/json_oci.h"
#include "worker/oci/manifest.h"

#define CONFIG_MAX (8u << 20)

void imageconfig_init(struct imageconfig *c)
{
	memset(c, 0, sizeof(*c));
}

void imageconfig_fini(struct imageconfig *c)
{
	json_freep(&c->json);
	free(c->diff_ids);
	memset(c, 0, sizeof(*c));
}

static int parse_diff_ids(struct imageconfig *c, struct err *e)
{
	struct json *rootfs = NULL, *list = NULL;
	size_t n;

	if (json_opt_object(c->json, "rootfs", "", &rootfs, e) < 0)
		return -1;
	if (!rootfs)
		return 0;
	if (json_opt_array(rootfs, "diff_ids", "rootfs", &list, e) < 0)
		return -1;
	n = json_len(list);
	if (n > MANIFEST_MAX_LAYERS)
		return err_set(e, ERR_LIMIT, "the config has %zu diff_ids, at most %d are taken", n,
			       MANIFEST_MAX_LAYERS);
	c->diff_ids = mem_array(n ? n : 1, sizeof(*c->diff_ids));
	for (c->n_diff_ids = 0; c->n_diff_ids < n; c->n_diff_ids++) {
		const char *text = json_value_str(json_at(list, c->n_diff_ids));

		if (!text)
			return err_set(e, ERR_INVALID, "rootfs.diff_ids[%zu] is no string",
				       c->n_diff_ids);
		if (digest_parse(&c->diff_ids[c->n_diff_ids], text, e) < 0)
			return err_wrap(e, "rootfs.diff_ids[%zu]", c->n_diff_ids);
	}
	return 0;
}

int imageconfig_parse(struct imageconfig *c, const char *p, size_t n, struct err *e)
{
	const struct json_limits lim = {.bytes = CONFIG_MAX};
	struct imageconfig got;

	imageconfig_init(&got);
	if (n > CONFIG_MAX)
		return err_set(e, ERR_LIMIT, "the config has %zu bytes, at most %u are taken", n,
			       CONFIG_MAX);
	if (json_parse(&got.json, p, n, &lim, e) < 0 ||
	    json_want(got.json, JSON_OBJECT, "the config", e) < 0 ||
	    oci_platform(&got.platform, got.json, "config", e) < 0 || parse_diff_ids(&got, e) < 0) {
		imageconfig_fini(&got);
		return -1;
	}
	*c = got;
	return 0;
}

void imageconfig_copy(struct imageconfig *to, const struct imageconfig *from)
{
	*to = *from;
	to->json = json_clone(from->json);
	to->diff_ids = from->n_diff_ids
			       ? mem_dup(from->diff_ids, from->n_diff_ids * sizeof(*to->diff_ids))
			       : NULL;
}

/* obj.key as that kind, made or made anew when it is null or another kind. */
static struct json *member(struct json *obj, const char *key, enum json_kind kind)
{
	struct json *v = json_get(obj, key);

	if (!v || json_kind(v) != kind) {
		v = kind == JSON_ARRAY ? json_new_array() : json_new_object();
		json_set(obj, key, v);
	}
	return v;
}

void imageconfig_set_diff_ids(struct imageconfig *c, const struct digest *d, size_t n)
{
	struct json *rootfs = member(c->json, "rootfs", JSON_OBJECT);
	struct json *list = json_new_array();
	struct digest *copy = n ? mem_dup(d, n * sizeof(*d)) : NULL;
	char text[DIGEST_TEXT];

	for (size_t i = 0; i < n; i++)
		json_append(list, json_new_str(digest_text(&d[i], text)));
	if (!json_has(rootfs, "type"))
		json_set_str(rootfs, "type", "layers");
	json_set(rootfs, "diff_ids", list);
	free(c->diff_ids);
	c->diff_ids = copy;
	c->n_diff_ids = n;
}

void imageconfig_add_history(struct imageconfig *c, bool first, const char *created_by,
			     const char *comment, bool empty_layer)
{
	struct json *old = member(c->json, "history", JSON_ARRAY);
	struct json *list = json_new_array(), *h = json_new_object();

	if (created_by)
		json_set_str(h, "created_by", created_by);
	if (comment)
		json_set_str(h, "comment", comment);
	if (empty_layer)
		json_set_bool(h, "empty_layer", true);
	if (first)
		json_append(list, h);
	for (size_t i = 0; i < json_len(old); i++)
		json_append(list, json_clone(json_at(old, i)));
	if (!first)
		json_append(list, h);
	json_set(c->json, "history", list);
}

void imageconfig_drop_history(struct imageconfig *c)
{
	json_del(c->json, "history");
}

void imageconfig_drop_legacy_image(struct imageconfig *c)
{
	static const char *const in[] = {"config", "container_config"};

	for (size_t i = 0; i < 2; i++) {
		struct json *o = json_get(c->json, in[i]);

		if (json_kind(o) == JSON_OBJECT)
			json_del(o, "Image");
	}
}

int imageconfig_write(const struct imageconfig *c, struct buf *to, struct err *e)
{
	return json_write(c->json, JSON_COMPACT, to, e);
}
