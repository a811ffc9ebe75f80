/* common/settings_rules.c - platforms, drivers and rules: ours, and upstream's form of a driver
 * with tag_suffix and cache_tag. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/platform.h"
#include "common/scope.h"
#include "common/settings_impl.h"
#include "common/str.h"
#include "common/target_tag.h"

#define MIB (1024 * 1024)

/* ---- platforms, drivers, rules */

/* Text, or a list of texts joined by `with`.  NULL after saying what was wrong. */
static char *joined_text(struct loader *l, const struct node *n, const char *path, const char *with)
{
	struct buf b = BUF_INIT(MIB); /* a configuration is no larger */
	char *text;

	if (n->kind == NODE_TEXT || n->kind == NODE_NULL)
		return mem_strdup(n->text);
	for (size_t i = 0; n->kind == NODE_LIST && i < n->n; i++) {
		if (n->kid[i]->kind != NODE_TEXT) {
			loader_expected(l, n->kid[i], path, "text");
			buf_fini(&b);
			return NULL;
		}
		buf_add_str(&b, i ? with : "", NULL);
		buf_add_str(&b, n->kid[i]->text, NULL);
	}
	if (n->kind != NODE_LIST)
		loader_expected(l, n, path, "text");
	text = n->kind == NODE_LIST ? mem_strdup(b.data) : NULL;
	buf_fini(&b);
	return text;
}

void loader_platforms(struct loader *l, const struct node *n, const char *path, char **to)
{
	scoped_free char *text = joined_text(l, n, path, ",");
	struct err e = {0};
	char *sorted;

	if (!text)
		return;
	if (platforms_normalize(text, &sorted, &e) < 0) {
		loader_say(l, SEVERITY_FATAL, n, false, path, e.text);
		return;
	}
	free(*to);
	*to = sorted;
}

/* A map of texts as JSON: backend_config may be written so. */
static char *map_json(struct loader *l, const struct node *map, const char *path)
{
	scoped(buf_fini) struct buf b = BUF_INIT(MIB);
	scoped(json_freep) struct json *j = json_new_object();

	for (size_t i = 0; i < map->n; i++) {
		const struct node *v = map->kid[i];

		if (v->kind != NODE_TEXT && v->kind != NODE_NULL) {
			scoped_free char *at = mem_printf("%s.%s", path, v->key);

			loader_expected(l, v, at, "text");
			return NULL;
		}
		json_set_str(j, v->key, v->text ? v->text : "");
	}
	json_write(j, JSON_COMPACT, &b, NULL);
	return mem_strdup(b.data);
}

static void read_option(struct loader *l, struct target *t, const struct node *n, const char *path)
{
	scoped_free char *at = mem_printf("%s.%s", path, n->key);
	scoped_free char *value = NULL;
	const char *warning = NULL;
	struct err e = {0};
	bool known = target_option_known(t->driver, n->key);

	value = known && n->kind == NODE_MAP && strcmp(n->key, "backend_config") == 0
			? map_json(l, n, at)
			: joined_text(l, n, at, "\n");
	if (!value)
		return;
	if (target_option(t, n->key, value, &warning, &e) < 0)
		loader_say(l, known ? SEVERITY_FATAL : SEVERITY_WARNING, n, !known, at, e.text);
	else if (warning)
		loader_say(l, SEVERITY_NOTE, n, true, at, warning);
}

/* compression first: it decides which options there are. */
static void read_options(struct loader *l, struct target *t, const struct node *map,
			 const char *path)
{
	const struct node *first = node_get(map, "compression");
	struct err e = {0};

	if (map->kind != NODE_MAP) {
		if (map->kind != NODE_NULL)
			loader_expected(l, map, path, "a map");
		return;
	}
	if (first)
		read_option(l, t, first, path);
	for (size_t i = 0; i < map->n; i++)
		if (map->kid[i] != first)
			read_option(l, t, map->kid[i], path);
	if (target_check(t, &e) < 0)
		loader_say(l, SEVERITY_FATAL, map, true, path, e.text);
}

/* t is initialised even when something was wrong. */
static void read_driver(struct loader *l, struct target *t, const struct node *parent,
			const struct node *name, const char *path)
{
	enum driver_id d = DRIVER_NYDUS;
	struct err e = {0};

	if (!name || name->kind == NODE_NULL)
		loader_sayf(l, SEVERITY_FATAL, parent, path,
			    "missing: expected estargz, zstdchunked or nydus");
	else if (name->kind != NODE_TEXT)
		loader_expected(l, name, path, "estargz, zstdchunked or nydus");
	else if (target_driver_parse(&d, name->text, &e) < 0)
		loader_say(l, SEVERITY_FATAL, name, false, path, e.text);
	target_init(t, d);
}

static void known_keys(struct loader *l, const struct node *map, const char *path,
		       const char *const *names, size_t n, bool fatal)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct node *v = map->kid[i];
		bool known = false;

		for (size_t k = 0; k < n; k++)
			known = known || strcmp(names[k], v->key) == 0;
		if (!known) {
			scoped_free char *at = mem_printf("%s.%s", path, v->key);

			loader_unknown_key(l, v, at, fatal, str_nearest(v->key, names, n));
		}
	}
}

/* The text of an optional key; NULL when absent, empty, or wrong. */
static const char *opt_text(struct loader *l, const struct node *map, const char *key,
			    const char *path)
{
	const struct node *n = node_get(map, key);

	if (!n || n->kind == NODE_NULL)
		return NULL;
	if (n->kind != NODE_TEXT) {
		scoped_free char *at = mem_printf("%s.%s", path, key);

		loader_expected(l, n, at, "text");
		return NULL;
	}
	return n->text[0] ? n->text : NULL;
}

static void set_cache_tag(struct loader *l, struct target *t, const struct node *n,
			  const char *path)
{
	if (!imageref_tag_valid(n->text)) {
		loader_sayf(l, SEVERITY_FATAL, n, path, "cache_tag: not a tag");
		return;
	}
	t->cache_tag = mem_strdup(n->text);
	if (t->driver == DRIVER_NYDUS && t->nydus.backend != NYDUS_REGISTRY)
		loader_sayf(l, SEVERITY_NOTE, n, path,
			    "cache_tag: not used with backend_type %s, whose blobs are not in the "
			    "registry",
			    storage_kind_name(t->nydus.backend));
	loader_sayf(l, SEVERITY_NOTE, n, path,
		    "cache_tag: images of this tag are not converted; layers are remembered under "
		    "it, not in Redis");
}

static void read_cache_tag(struct loader *l, struct target *t, const struct node *map,
			   const char *path)
{
	const char *tag = opt_text(l, map, "cache_tag", path);

	if (tag)
		set_cache_tag(l, t, node_get(map, "cache_tag"), path);
}

static void read_target(struct loader *l, struct target *t, const struct node *n, const char *path)
{
	static const char *const names[] = {"driver", "tag", "config", "overwrite", "cache_tag"};
	const struct node *config = node_get(n, "config"), *overwrite = node_get(n, "overwrite");
	scoped_free char *at_config = mem_printf("%s.config", path);
	scoped_free char *at_driver = mem_printf("%s.driver", path);
	const char *tag = opt_text(l, n, "tag", path);
	struct err e = {0};

	read_driver(l, t, n, node_get(n, "driver"), at_driver);
	if (n->kind != NODE_MAP) {
		loader_expected(l, n, path, "a map with driver and tag");
		t->tag_template = mem_strdup("{tag}-");
		return;
	}
	known_keys(l, n, path, names, COUNT(names), true);
	if (!tag)
		loader_sayf(l, SEVERITY_FATAL, n, path,
			    "tag: missing, expected such as \"{tag}-nydus\"");
	else if (target_template_check(tag, &e) < 0)
		loader_say(l, SEVERITY_FATAL, node_get(n, "tag"), false, path, e.text);
	t->tag_template = mem_strdup(tag ? tag : "{tag}-");
	if (config)
		read_options(l, t, config, at_config);
	if (overwrite &&
	    (overwrite->kind != NODE_TEXT || key_parse_bool(overwrite->text, &t->overwrite) < 0))
		loader_sayf(l, SEVERITY_FATAL, overwrite, path,
			    "overwrite: expected true or false");
	read_cache_tag(l, t, n, path);
}

static char *read_pattern(struct loader *l, const struct node *match, const char *key,
			  const char *path)
{
	const char *text = opt_text(l, match, key, path);
	struct err e = {0};

	if (!text)
		return NULL;
	if (pattern_check(text, &e) < 0) {
		loader_say(l, SEVERITY_FATAL, node_get(match, key), false, path, e.text);
		return NULL;
	}
	return mem_strdup(text);
}

static void read_match(struct loader *l, struct rule *r, const struct node *match, const char *path)
{
	static const char *const names[] = {"host", "repository", "tag", "platforms"};
	const struct node *platforms = node_get(match, "platforms");

	if (match->kind != NODE_MAP) {
		if (match->kind != NODE_NULL)
			loader_expected(l, match, path, "a map");
		return;
	}
	known_keys(l, match, path, names, COUNT(names), true);
	r->host = read_pattern(l, match, "host", path);
	for (char *p = r->host; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	r->repository = read_pattern(l, match, "repository", path);
	r->tag = read_pattern(l, match, "tag", path);
	if (platforms)
		loader_platforms(l, platforms, path, &r->platforms);
}

static struct rule *add_rule(struct loader *l)
{
	struct rules *r = &l->s->rules;

	r->rule = mem_resize(r->rule, r->n + 1, sizeof(*r->rule));
	memset(&r->rule[r->n], 0, sizeof(*r->rule));
	return &r->rule[r->n++];
}

static void check_last_rule(struct loader *l, const struct node *n, const char *path,
			    size_t fatal_before)
{
	struct rules one = {.rule = &l->s->rules.rule[l->s->rules.n - 1], .n = 1};
	struct err e = {0};

	if (l->report->n_fatal == fatal_before && rules_check(&one, &e) < 0)
		loader_say(l, SEVERITY_FATAL, n, false, path, e.text);
}

static void read_rule(struct loader *l, const struct node *n, const char *path)
{
	static const char *const names[] = {"name", "match", "targets"};
	const struct node *match = node_get(n, "match"), *targets = node_get(n, "targets");
	scoped_free char *at_match = mem_printf("%s.match", path);
	const char *name = opt_text(l, n, "name", path);
	size_t fatal_before = l->report->n_fatal;
	struct rule *r = add_rule(l);

	r->name = mem_strdup(name ? name : path);
	known_keys(l, n, path, names, COUNT(names), true);
	if (match)
		read_match(l, r, match, at_match);
	if (!targets || targets->kind != NODE_LIST || targets->n == 0) {
		loader_sayf(l, SEVERITY_FATAL, targets ? targets : n, path,
			    "targets: expected a list of {driver, tag}");
		return;
	}
	r->targets = mem_array(targets->n, sizeof(*r->targets));
	for (size_t i = 0; i < targets->n; i++) {
		scoped_free char *at = mem_printf("%s.targets[%zu]", path, i);

		read_target(l, &r->targets[i], targets->kid[i], at);
		r->n_targets = i + 1;
	}
	check_last_rule(l, n, path, fatal_before);
}

static bool upstream_item(const struct node *n)
{
	return n->kind == NODE_MAP && !node_get(n, "targets") &&
	       (node_get(n, "tag_suffix") || node_get(n, "cache_tag"));
}

/* Upstream: the first tag_suffix and the first cache_tag of the list, whichever items hold them. */
static const struct node *first_of(const struct node *list, const char *key)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct node *v =
			upstream_item(list->kid[i]) ? node_get(list->kid[i], key) : NULL;

		if (v && v->kind == NODE_TEXT && v->text[0])
			return v;
	}
	return NULL;
}

static void read_upstream_rule(struct loader *l, const struct node *list, const char *path)
{
	static const char *const names[] = {"type", "config"};
	const struct node *suffix = first_of(list, "tag_suffix"),
			  *cache = first_of(list, "cache_tag");
	const struct node *config = l->driver ? node_get(l->driver, "config") : NULL;
	struct rule *r = add_rule(l);
	struct target *t;
	struct err e = {0};

	r->name = mem_strdup("default");
	r->targets = mem_array(1, sizeof(*r->targets));
	r->n_targets = 1;
	t = &r->targets[0];
	read_driver(l, t, l->driver ? l->driver : list,
		    l->driver ? node_get(l->driver, "type") : NULL, "converter.driver.type");
	t->upstream_form = true;
	if (l->driver)
		known_keys(l, l->driver, "converter.driver", names, COUNT(names), false);
	if (config)
		read_options(l, t, config, "converter.driver.config");
	if (!suffix) {
		loader_sayf(l, SEVERITY_FATAL, list, path,
			    "tag_suffix: missing, expected such as -nydus");
	} else {
		t->tag_template = mem_printf("{tag}%s", suffix->text);
		if (target_template_check(t->tag_template, &e) < 0)
			loader_sayf(l, SEVERITY_FATAL, suffix, path, "tag_suffix: %s", e.text);
	}
	if (cache)
		set_cache_tag(l, t, cache, path);
}

static void read_rules(struct loader *l, const struct node *list, const char *path)
{
	static const char *const names[] = {"tag_suffix", "cache_tag"};
	bool upstream = false;

	if (list->kind != NODE_LIST) {
		loader_expected(l, list, path, "a list");
		return;
	}
	for (size_t i = 0; i < list->n; i++) {
		const struct node *n = list->kid[i];
		scoped_free char *at = mem_printf("%s[%zu]", path, i);

		if (upstream_item(n)) {
			known_keys(l, n, at, names, COUNT(names), false);
			if (!upstream)
				read_upstream_rule(l, list, path);
			upstream = true;
		} else if (n->kind == NODE_MAP) {
			read_rule(l, n, at);
		} else {
			loader_expected(l, n, at,
					"a rule: {tag_suffix}, or {name, match, targets}");
		}
	}
	if (l->driver && !upstream)
		loader_say(l, SEVERITY_WARNING, l->driver, true, "converter.driver",
			   "not used: no rule has a tag_suffix");
}

void loader_rules(struct loader *l, const struct node *root)
{
	if (l->rules && l->our_rules) {
		loader_say(l, SEVERITY_FATAL, l->our_rules, true, "rules",
			   "converter.rules is there as well; keep one");
		return;
	}
	if (l->rules)
		read_rules(l, l->rules, "converter.rules");
	else if (l->our_rules)
		read_rules(l, l->our_rules, "rules");
	else
		loader_say(l, SEVERITY_WARNING, root, false, "converter.rules",
			   "no rule: no image will be converted");
}
