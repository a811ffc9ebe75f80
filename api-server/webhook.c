/* api-server/webhook.c - see webhook.h.  The payloads: reference harbor, "Payload fields". */
#include "api-server/webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

void webhook_fini(struct webhook *w)
{
	for (size_t i = 0; i < w->n; i++) {
		free(w->item[i].given);
		free(w->item[i].digest);
	}
	free(w->item);
	free(w->type);
	free(w->request_id);
	*w = (struct webhook){0};
}

static int parse_item(struct webhook_item *it, const struct json *j, const char *at, struct err *e)
{
	const char *url, *digest = NULL;
	struct digest d;

	if (json_want(j, JSON_OBJECT, at, e) < 0 || json_str(j, "resource_url", at, &url, e) < 0 ||
	    json_opt_str(j, "digest", at, &digest, e) < 0)
		return -1;
	if (strlen(url) != json_value_len(json_get(j, "resource_url")))
		return err_set(e, ERR_INVALID, "%s.resource_url holds a NUL", at);
	if (digest && *digest && digest_parse(&d, digest, e) < 0)
		return err_wrap(e, "%s.digest", at);
	it->given = mem_strdup(url);
	it->digest = digest && *digest ? mem_strdup(digest) : NULL;
	return 0;
}

/* data: `event_data` of the default format, `data` of a CloudEvent. */
static int parse_resources(struct webhook *w, const struct json *data, const char *at,
			   struct err *e)
{
	struct json *list = NULL;
	char path[64];
	size_t n;

	if (json_opt_array(data, "resources", at, &list, e) < 0)
		return -1;
	n = json_len(list);
	if (n > WEBHOOK_ITEMS)
		return err_set(e, ERR_INVALID,
			       "%s.resources has %zu elements, at most %d are taken", at, n,
			       WEBHOOK_ITEMS);
	w->item = mem_array(n + 1, sizeof(*w->item));
	for (size_t i = 0; i < n; i++, w->n++) {
		str_copy(path, sizeof(path), at);
		snprintf(path + strlen(path), sizeof(path) - strlen(path), ".resources[%zu]", i);
		if (parse_item(&w->item[i], json_at(list, i), path, e) < 0)
			return -1;
	}
	return 0;
}

static int parse_default(struct webhook *w, const struct json *j, struct err *e)
{
	const char *type = "";
	struct json *data;

	if (json_opt_str(j, "type", "", &type, e) < 0)
		return -1;
	w->type = mem_strdup(type);
	w->event = json_get(j, "occur_at") != NULL;
	w->push = !strcmp(type, "PUSH_ARTIFACT");
	if (!w->push)
		return 0;
	if (json_obj(j, "event_data", "", &data, e) < 0)
		return -1;
	return parse_resources(w, data, "event_data", e);
}

static int parse_cloudevent(struct webhook *w, const struct json *j, struct err *e)
{
	const char *version, *type, *id = NULL;
	struct json *data;

	if (json_str(j, "specversion", "", &version, e) < 0 ||
	    json_str(j, "type", "", &type, e) < 0)
		return -1;
	if (strcmp(version, "1.0") != 0)
		return err_set(e, ERR_INVALID, "specversion is '%.16s', expected 1.0", version);
	w->type = mem_strdup(type);
	w->event = true;
	w->push = !strcmp(type, "harbor.artifact.pushed");
	if (!w->push)
		return 0;
	if (json_opt_str(j, "requestid", "", &id, e) < 0 || json_obj(j, "data", "", &data, e) < 0)
		return -1;
	w->request_id = mem_strdup(id);
	return parse_resources(w, data, "data", e);
}

static int parse_json(struct webhook *w, bool cloudevent, const char *body, size_t n, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;

	if (json_parse(&j, body, n, NULL, e) < 0)
		return -1;
	if (!j && !cloudevent) { /* null, as upstream takes it */
		w->type = mem_strdup("");
		return 0;
	}
	if (json_want(j, JSON_OBJECT, "the body", e) < 0)
		return -1;
	return cloudevent || json_has(j, "specversion") ? parse_cloudevent(w, j, e)
							: parse_default(w, j, e);
}

/* "application/json; charset=utf-8" is a "application/json" */
static bool is_type(const char *content_type, const char *want)
{
	size_t n = strlen(want);

	return content_type && strlen(content_type) >= n && !strncasecmp(content_type, want, n) &&
	       (!content_type[n] || strchr("; ,", content_type[n]));
}

int webhook_parse(struct webhook *to, const char *content_type, const char *body, size_t n,
		  struct err *e)
{
	struct webhook w = {0};
	bool cloudevent = is_type(content_type, "application/cloudevents+json");

	/* No body has no type, and a form has no JSON in it: both are 200 in upstream. */
	if (n == 0 || is_type(content_type, "application/x-www-form-urlencoded") ||
	    is_type(content_type, "multipart/form-data")) {
		*to = (struct webhook){.type = mem_strdup("")};
		return 0;
	}
	if (!cloudevent && !is_type(content_type, "application/json"))
		return err_set(e, ERR_INVALID,
			       "Content-Type is '%.64s', expected application/json or "
			       "application/cloudevents+json",
			       content_type ? content_type : "");
	if (parse_json(&w, cloudevent, body, n, e) < 0) {
		webhook_fini(&w);
		return -1;
	}
	*to = w;
	return 0;
}

/* Old Harbor wrote a digest as if it were a tag: repo:sha256:<hex>. */
static char *repaired(const char *url)
{
	char *text = mem_strdup(url), *at = strstr(text, ":sha256:");

	if (at && !strchr(text, '@') && strlen(at) == 8 + 64)
		*at = '@';
	return text;
}

int webhook_references(struct webhook *w, size_t *bad, struct err *e)
{
	for (size_t i = 0; i < w->n; i++) {
		struct webhook_item *it = &w->item[i];
		scoped_free char *text = repaired(it->given);

		if (imageref_parse(&it->ref, text, e) < 0) {
			*bad = i;
			return -1;
		}
		if (!it->ref.tag[0] && !digest_is_set(&it->ref.digest))
			strcpy(it->ref.tag, "latest");
	}
	return 0;
}
