/* common/settings_write.c - settings as YAML, secrets redacted; the table of keys for
 * documentation. */
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/settings_impl.h"
#include "common/str.h"
#include "common/target_json.h"

/* ---- written back */

static int put_line(struct buf *to, size_t depth, const char *key, const char *value, struct err *e)
{
	return buf_addf(to, e, "%*s%s:%s%s\n", (int)depth * 2, "", key, *value ? " " : "", value);
}

/* Double-quoted YAML.  JSON's quoting would not do: YAML folds U+2028 and refuses U+007F. */
static int put_yaml(struct buf *to, const char *s, struct err *e)
{
	int r = buf_add_char(to, '"', e);

	while (*s && r == 0) {
		unsigned char c = (unsigned char)*s;
		unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0, code = c;

		if (more && strnlen(s, more + 1) == more + 1 && str_utf8_valid(s, more + 1)) {
			code = c & (0x3fu >> more);
			for (unsigned i = 1; i <= more; i++)
				code = code << 6 | ((unsigned char)s[i] & 0x3f);
			s += more;
		}
		s++;
		if (code == '"' || code == '\\')
			r = buf_addf(to, e, "\\%c", (int)code);
		else if (code >= 0x20 && code < 0x7f)
			r = buf_add_char(to, (char)code, e);
		else
			r = buf_addf(to, e, "\\U%08X", code);
	}
	return r < 0 ? -1 : buf_add_char(to, '"', e);
}

static int put_quoted(struct buf *to, size_t depth, const char *key, const char *value,
		      struct err *e)
{
	if (buf_addf(to, e, "%*s%s: ", (int)depth * 2, "", key) < 0 || put_yaml(to, value, e) < 0)
		return -1;
	return buf_add_char(to, '\n', e);
}

/* The value as text, NULL when there is none; *quote: it is a string. */
static const char *value_text(const struct key *k, const void *base, char small[32], bool *quote)
{
	const void *at = (const char *)base + k->at;
	uint64_t v = 0;
	int word = 0;

	*quote = false;
	if (k->type == KEY_NUMBER || k->type == KEY_OCTAL || k->type == KEY_SIZE ||
	    k->type == KEY_TIME)
		v = k->size == 2   ? *(const uint16_t *)at
		    : k->size == 4 ? *(const uint32_t *)at
				   : *(const uint64_t *)at;
	switch (k->type) {
	case KEY_TEXT:
	case KEY_FILE:
	case KEY_URL:
		*quote = true;
		return *(char *const *)at;
	case KEY_BOOL:
		return *(const bool *)at ? "true" : "false";
	case KEY_NUMBER:
		snprintf(small, 32, "%llu", (unsigned long long)v);
		return small;
	case KEY_OCTAL:
		*quote = true;
		snprintf(small, 32, "%04o", (unsigned)v);
		return small;
	case KEY_SIZE:
		key_size_text(v, small);
		return small;
	case KEY_TIME:
		key_time_text(v, small);
		return small;
	case KEY_WORD:
		memcpy(&word, at, sizeof(word));
		for (const struct choice *c = k->words; c->text; c++)
			if (c->value == word && !c->refused)
				return c->text;
		return NULL;
	case KEY_SECRET:
		*quote = true;
		return *(struct secret *const *)at ? "<redacted>" : NULL;
	default:
		return NULL;
	}
}

/* "a.b.c" after "a.x" opens b: one line per new part but the last. */
static int open_sections(struct buf *to, size_t depth, char last[64], const char *path,
			 size_t *parts, struct err *e)
{
	size_t at = 0, n = 0;
	bool same = true;

	for (;; n++) {
		size_t len = strcspn(path + at, ".");

		if (!path[at + len])
			break;
		same = same && strncmp(last, path, at + len + 1) == 0;
		if (!same && buf_addf(to, e, "%*s%.*s:\n", (int)(depth + n) * 2, "", (int)len,
				      path + at) < 0)
			return -1;
		at += len + 1;
	}
	snprintf(last, 64, "%s", path);
	*parts = n;
	return 0;
}

static int write_other(const struct settings *s, const struct key *k, size_t depth, struct buf *to,
		       struct err *e);

static int write_rows(const struct settings *s, const struct key *rows, size_t n, const void *base,
		      size_t depth, struct buf *to, struct err *e)
{
	char last[64] = "", small[32];
	size_t parts;
	bool quote = false;

	for (size_t i = 0; i < n; i++) {
		const struct key *k = &rows[i];
		const char *dot = strrchr(k->path, '.'), *value = NULL;

		if (k->type != KEY_OTHER && !(value = value_text(k, base, small, &quote)))
			continue;
		if (k->type == KEY_OTHER &&
		    (strcmp(k->path, "rules") == 0 || strcmp(k->path, "converter.driver") == 0))
			continue; /* written as converter.rules */
		if (open_sections(to, depth, last, k->path, &parts, e) < 0)
			return -1;
		if (k->type == KEY_OTHER ? write_other(s, k, depth + parts, to, e)
		    : quote ? put_quoted(to, depth + parts, dot ? dot + 1 : k->path, value, e)
			    : put_line(to, depth + parts, dot ? dot + 1 : k->path, value, e))
			return -1;
	}
	return 0;
}

static int write_sources(const struct settings *s, size_t depth, struct buf *to, struct err *e)
{
	if (put_line(to, depth, "source", s->n_sources ? "" : "{}", e) < 0)
		return -1;
	for (size_t i = 0; i < s->n_sources; i++) {
		const struct source_settings *src = &s->source[i];

		if (buf_addf(to, e, "%*s\"%s\":\n", (int)(depth + 1) * 2, "", src->host) < 0 ||
		    write_rows(s, settings_source_keys, settings_n_source_keys, src, depth + 2, to,
			       e) < 0)
			return -1;
	}
	return 0;
}

static int write_target(const struct target *t, size_t depth, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = target_to_json(t);
	const struct json *options = json_get(j, "options");
	int pad = (int)depth * 2;

	if (buf_addf(to, e, "%*s- driver: %s\n%*s  tag: \"%s\"\n", pad, "", driver_name(t->driver),
		     pad, "", t->tag_template) < 0)
		return -1;
	if (t->cache_tag && put_quoted(to, depth + 1, "cache_tag", t->cache_tag, e) < 0)
		return -1;
	/* Upstream's form overwrites, and so must what is written for it. */
	if ((t->overwrite || t->upstream_form) &&
	    put_line(to, depth + 1, "overwrite", "true", e) < 0)
		return -1;
	if (json_len(options) && put_line(to, depth + 1, "config", "", e) < 0)
		return -1;
	for (struct json_iter i = json_first(options); i.key; json_next(&i))
		if (put_quoted(to, depth + 2, i.key, json_value_str(i.value), e) < 0)
			return -1;
	return 0;
}

static int write_rule(const struct rule *r, size_t depth, struct buf *to, struct err *e)
{
	const struct {
		const char *key, *value;
	} match[] = {{"host", r->host},
		     {"repository", r->repository},
		     {"tag", r->tag},
		     {"platforms", r->platforms}};
	bool any = r->host || r->repository || r->tag || r->platforms;

	if (buf_addf(to, e, "%*s- name: ", (int)depth * 2, "") < 0 ||
	    put_yaml(to, r->name, e) < 0 || buf_add_char(to, '\n', e) < 0)
		return -1;
	if (any && put_line(to, depth + 1, "match", "", e) < 0)
		return -1;
	for (size_t i = 0; i < COUNT(match); i++)
		if (match[i].value &&
		    put_quoted(to, depth + 2, match[i].key, match[i].value, e) < 0)
			return -1;
	if (put_line(to, depth + 1, "targets", "", e) < 0)
		return -1;
	for (size_t i = 0; i < r->n_targets; i++)
		if (write_target(&r->targets[i], depth + 2, to, e) < 0)
			return -1;
	return 0;
}

static int write_tokens(const struct settings *s, size_t depth, struct buf *to, struct err *e)
{
	if (put_line(to, depth, "tokens", s->auth.n_tokens ? "" : "[]", e) < 0)
		return -1;
	for (size_t i = 0; i < s->auth.n_tokens; i++) {
		const struct token_settings *t = &s->auth.token[i];

		if (buf_addf(to, e, "%*s- sha256: \"%s\"\n", (int)(depth + 1) * 2, "", t->sha256) <
			    0 ||
		    put_quoted(to, depth + 2, "name", t->name, e) < 0 ||
		    put_line(to, depth + 2, "scopes",
			     t->admin	? "[admin]"
			     : t->write ? "[write]"
					: "[read]",
			     e) < 0)
			return -1;
	}
	return 0;
}

static int write_other(const struct settings *s, const struct key *k, size_t depth, struct buf *to,
		       struct err *e)
{
	if (strcmp(k->path, "provider.source") == 0)
		return write_sources(s, depth, to, e);
	if (strcmp(k->path, "converter.platforms") == 0)
		return put_quoted(to, depth, "platforms", s->rules.platforms, e);
	if (strcmp(k->path, "auth.tokens") == 0)
		return write_tokens(s, depth, to, e);
	if (put_line(to, depth, "rules", s->rules.n ? "" : "[]", e) < 0)
		return -1;
	for (size_t i = 0; i < s->rules.n; i++)
		if (write_rule(&s->rules.rule[i], depth + 1, to, e) < 0)
			return -1;
	return 0;
}

int settings_write(const struct settings *s, struct buf *to, struct err *e)
{
	return write_rows(s, settings_keys, settings_n_keys, s, 0, to, e);
}

bool config_key_doc(size_t i, struct config_key_doc *doc)
{
	const struct key *k;
	static const char *const prefix = "provider.source.HOST.";

	if (i < settings_n_keys)
		k = &settings_keys[i];
	else if (i < settings_n_keys + settings_n_source_keys)
		k = &settings_source_keys[i - settings_n_keys];
	else
		return false;
	snprintf(doc->path, sizeof(doc->path), "%s%s", i < settings_n_keys ? "" : prefix, k->path);
	doc->def = k->def;
	doc->doc = k->type == KEY_REFUSED ? NULL : k->doc;
	key_expected(k, doc->expected, sizeof(doc->expected));
	return true;
}
