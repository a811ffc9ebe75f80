/* common/target_json.c - see target_json.h. */
#include "common/target_json.h"

#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/target.h"
#include "common/target_tag.h"

static void add_option(void *options, const char *key, const char *value)
{
	json_set_str(options, key, value);
}

struct json *target_to_json(const struct target *t)
{
	struct json *j = json_new_object(), *options = json_new_object();

	json_set_str(j, "driver", driver_name(t->driver));
	json_set_str(j, "tag", t->tag_template);
	target_options_each(t, add_option, options);
	json_set(j, "options", options);
	if (t->overwrite)
		json_set_bool(j, "overwrite", true);
	if (t->upstream_form)
		json_set_bool(j, "upstream", true);
	if (t->cache_tag)
		json_set_str(j, "cache_tag", t->cache_tag);
	return j;
}

int target_write(const struct target *t, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;

	if (t->sealed_json)
		return buf_add_str(to, t->sealed_json, e);
	j = target_to_json(t);
	return json_write(j, JSON_SORTED, to, e);
}

void target_seal(struct target *t)
{
	scoped(buf_fini) struct buf b = BUF_INIT(TARGET_TEXT_MAX);

	target_unseal(t);
	t->sealed_options = target_options_text(t);
	if (target_write(t, &b, NULL) == 0) /* else it is too long for any request, too */
		t->sealed_json = mem_strdup(b.data);
}

static int options_from_json(struct target *t, const struct json *options, struct err *e)
{
	const char *value;

	for (struct json_iter i = json_first(options); i.key; json_next(&i)) {
		if (json_kind(i.value) != JSON_STRING)
			return err_set(e, ERR_INVALID, "options.%.80s: expected a string", i.key);
		value = json_value_str(i.value);
		if (strlen(value) != json_value_len(i.value))
			return err_set(e, ERR_INVALID, "options.%.80s: holds a NUL", i.key);
		if (target_option(t, i.key, value, NULL, e) < 0)
			return -1;
	}
	return 0;
}

static int fill_from_json(struct target *t, const struct json *j, struct err *e)
{
	struct json *options = NULL;
	const char *tag, *cache_tag = NULL;

	if (json_str(j, "tag", "", &tag, e) < 0 ||
	    json_opt_str(j, "cache_tag", "", &cache_tag, e) < 0 ||
	    json_opt_bool(j, "overwrite", "", &t->overwrite, e) < 0 ||
	    json_opt_bool(j, "upstream", "", &t->upstream_form, e) < 0 ||
	    json_opt_object(j, "options", "", &options, e) < 0)
		return -1;
	if (target_template_check(tag, e) < 0)
		return -1;
	if (cache_tag && !imageref_tag_valid(cache_tag))
		return err_set(e, ERR_INVALID, "cache_tag: not a tag");
	t->tag_template = mem_strdup(tag);
	t->cache_tag = mem_strdup(cache_tag);
	if (options && options_from_json(t, options, e) < 0)
		return -1;
	return target_check(t, e);
}

int target_from_json(struct target *to, const struct json *j, const char *at, struct err *e)
{
	struct target t;
	enum driver_id d;
	const char *name;

	if (json_want(j, JSON_OBJECT, at, e) < 0)
		return -1;
	if (json_str(j, "driver", at, &name, e) < 0)
		return -1;
	if (target_driver_parse(&d, name, e) < 0)
		return err_wrap(e, "%s", at);
	target_init(&t, d);
	if (fill_from_json(&t, j, e) < 0) {
		target_fini(&t);
		return err_wrap(e, "%s", at);
	}
	*to = t;
	return 0;
}
