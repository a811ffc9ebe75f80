/* worker/convert/result.c - a result as JSON, and its end. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "worker/convert/conv.h"

static const char *const outcome_names[] = {"published", "unchanged", "skipped", "failed"};

const char *target_outcome_name(enum target_outcome o)
{
	return outcome_names[o];
}

void convert_result_init(struct convert_result *r)
{
	memset(r, 0, sizeof(*r));
}

void convert_result_fini(struct convert_result *r)
{
	for (size_t i = 0; i < r->n_targets; i++)
		free(r->targets[i].layers);
	free(r->targets);
	memset(r, 0, sizeof(*r));
}

static void set_digest(struct json *j, const char *key, const struct digest *d)
{
	char text[DIGEST_TEXT];

	if (digest_is_set(d))
		json_set_str(j, key, digest_text(d, text));
}

static struct json *layer_json(const struct layer_figures *f)
{
	struct json *j = json_new_object();

	if (f->platform[0])
		json_set_str(j, "platform", f->platform);
	json_set_int(j, "index", f->index);
	set_digest(j, "from", &f->from);
	set_digest(j, "to", &f->to);
	json_set_int(j, "in_bytes", (int64_t)f->in_bytes);
	json_set_int(j, "out_bytes", (int64_t)f->out_bytes);
	json_set_int(j, "unpacked", (int64_t)f->unpacked);
	json_set_int(j, "ms", (int64_t)f->ms);
	if (f->cached)
		json_set_bool(j, "cached", true);
	if (f->shared)
		json_set_bool(j, "shared", true);
	if (f->plain[0])
		json_set_str(j, "plain", f->plain);
	return j;
}

static struct json *target_json(const struct target_result *t)
{
	struct json *j = json_new_object(), *list = json_new_array();
	char text[IMAGEREF_TEXT];

	json_set_str(j, "driver", t->driver);
	if (t->format[0])
		json_set_str(j, "format", t->format);
	if (t->ref.repository[0])
		json_set_str(j, "reference", imageref_text(&t->ref, text));
	json_set_str(j, "outcome", target_outcome_name(t->outcome));
	set_digest(j, "digest", &t->digest);
	set_digest(j, "replaced", &t->replaced);
	json_set_int(j, "size", (int64_t)t->size);
	if (t->reason[0])
		json_set_str(j, "reason", t->reason);
	if (t->outcome == TARGET_FAILED) {
		json_set_str(j, "reason_code", err_slug(t->code));
		json_set_str(j, "class", err_class_name(t->class));
	}
	json_set_int(j, "plain_layers", t->plain_layers);
	for (size_t i = 0; i < t->n_layers; i++)
		if (digest_is_set(&t->layers[i].from))
			json_append(list, layer_json(&t->layers[i]));
	json_set(j, "layers", list);
	return j;
}

struct json *convert_result_to_json(const struct convert_result *r)
{
	struct json *j = json_new_object(), *list = json_new_array();

	json_set_bool(j, "skipped", r->skipped);
	if (r->reason[0])
		json_set_str(j, "reason", r->reason);
	set_digest(j, "source_digest", &r->source_digest);
	set_digest(j, "moved_to", &r->moved_to);
	json_set_int(j, "source_size", (int64_t)r->source_size);
	json_set_int(j, "platforms", r->platforms);
	json_set_int(j, "dropped_platforms", r->dropped_platforms);
	json_set_int(j, "unique_layers", r->layers);
	json_set_int(j, "cached_layers", r->cached_layers);
	json_set_int(j, "in_bytes", (int64_t)r->in_bytes);
	json_set_int(j, "out_bytes", (int64_t)r->out_bytes);
	json_set_int(j, "pull_ms", (int64_t)r->pull_ms);
	json_set_int(j, "convert_ms", (int64_t)r->convert_ms);
	json_set_int(j, "push_ms", (int64_t)r->push_ms);
	for (size_t i = 0; i < r->n_targets; i++)
		json_append(list, target_json(&r->targets[i]));
	json_set(j, "targets", list);
	return j;
}
