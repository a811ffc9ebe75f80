/* worker/cache.c - see cache.h. */
#include "worker/cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/codec/encode.h"

void cache_key(char key[CACHE_KEY], const struct digest *source, const char *identity)
{
	char text[DIGEST_TEXT], hex[DIGEST_TEXT];
	struct digest d;
	char *all = mem_printf("acc-layer-1\n%s\n%s\n%s\n", digest_text(source, text), identity,
			       encode_versions());

	digest_of(&d, DIGEST_SHA256, all, strlen(all));
	free(all);
	memcpy(key, digest_hex(&d, hex), CACHE_KEY);
}

void cache_entry_fini(struct cache_entry *c)
{
	descriptor_fini(&c->stored);
	layer_result_fini(&c->result);
	for (size_t i = 0; i < c->n_repositories; i++)
		free(c->repository[i]);
	memset(c, 0, sizeof(*c));
}

struct json *cache_entry_to_json(const struct cache_entry *c)
{
	struct json *j = json_new_object(), *list = json_new_array();

	json_set_int(j, "v", 1);
	json_set(j, "stored", descriptor_to_json(&c->stored));
	json_set(j, "result", layer_result_to_json(&c->result));
	for (size_t i = 0; i < c->n_repositories; i++)
		json_append(list, json_new_str(c->repository[i]));
	json_set(j, "repositories", list);
	return j;
}

static int parse(struct cache_entry *c, const struct json *j, struct err *e)
{
	struct json *stored, *result, *list = NULL;
	int64_t v;

	if (json_int(j, "v", "", &v, e) < 0 || json_obj(j, "stored", "", &stored, e) < 0 ||
	    json_obj(j, "result", "", &result, e) < 0 ||
	    json_opt_array(j, "repositories", "", &list, e) < 0 ||
	    descriptor_from_json(&c->stored, stored, "stored", e) < 0 ||
	    layer_result_from_json(&c->result, result, "result", e) < 0)
		return -1;
	if (v != 1)
		return err_set(e, ERR_UNSUPPORTED, "version %lld of a cache entry, expected 1",
			       (long long)v);
	for (size_t i = 0; i < json_len(list) && c->n_repositories < CACHE_REPOSITORIES; i++) {
		const char *text = json_value_str(json_at(list, i));

		if (!text)
			return err_set(e, ERR_INVALID, "repositories[%zu] is no string", i);
		c->repository[c->n_repositories++] = mem_strdup(text);
	}
	return 0;
}

int cache_entry_from_json(struct cache_entry *c, const struct json *j, struct err *e)
{
	struct cache_entry got;

	memset(&got, 0, sizeof(got));
	if (parse(&got, j, e) < 0) {
		cache_entry_fini(&got);
		return -1;
	}
	*c = got;
	return 0;
}

void cache_freep(struct cache **c)
{
	if (*c)
		(*c)->ops->free(*c);
	*c = NULL;
}
