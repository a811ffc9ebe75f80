/* common/rules.c - which image becomes what.
 *
 * A pattern is matched by going through it once with the set of positions in the text that it may
 * have reached, so that no pattern, however starred, takes more than length times length steps. */
#include "common/rules.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/target_tag.h"

#define PATTERN_MAX 255
#define TEXT_MAX 255 /* host, repository and tag are all shorter */

void rules_fini(struct rules *r)
{
	for (size_t i = 0; i < r->n; i++) {
		struct rule *rule = &r->rule[i];

		for (size_t k = 0; k < rule->n_targets; k++)
			target_fini(&rule->targets[k]);
		free(rule->targets);
		free(rule->name);
		free(rule->host);
		free(rule->repository);
		free(rule->tag);
		free(rule->platforms);
	}
	free(r->rule);
	free(r->platforms);
	memset(r, 0, sizeof(*r));
}

/* ---- patterns */

static bool pattern_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("._-/:[]*", c));
}

int pattern_check(const char *pattern, struct err *e)
{
	const char *p = pattern + (pattern[0] == '!');
	char shown[80];

	str_copy(shown, sizeof(shown), pattern);
	str_clean(shown);
	if (!*p)
		return err_set(e, ERR_INVALID, "pattern \"%s\": nothing to match", shown);
	if (strlen(p) > PATTERN_MAX)
		return err_set(e, ERR_INVALID,
			       "pattern \"%s...\": %zu characters, at most %d are allowed", shown,
			       strlen(p), PATTERN_MAX);
	for (; *p; p++)
		if (!pattern_char(*p))
			return err_set(e, ERR_INVALID,
				       "pattern \"%s\": expected letters, digits, . _ - / : and * "
				       "(within a "
				       "segment), ** (across), a leading ! (not)",
				       shown);
	if (strstr(pattern, "***"))
		return err_set(e, ERR_INVALID, "pattern \"%s\": expected * or **, not more", shown);
	return 0;
}

/* at[i]: the text's first i bytes are matched by what came of the pattern so far. */
static void step_star(bool *at, const char *text, size_t n, bool across)
{
	for (size_t i = 1; i <= n; i++)
		if (at[i - 1] && (across || text[i - 1] != '/'))
			at[i] = true;
}

static void step_char(bool *at, const char *text, size_t n, char c)
{
	for (size_t i = n; i > 0; i--)
		at[i] = at[i - 1] && text[i - 1] == c;
	at[0] = false;
}

static bool match(const char *pattern, const char *text)
{
	size_t n = strlen(text);
	bool at[TEXT_MAX + 1] = {true}, before[TEXT_MAX + 1];

	if (n > TEXT_MAX)
		return false;
	for (const char *p = pattern; *p; p++) {
		if (p[0] != '*') {
			step_char(at, text, n, *p);
		} else if (p[1] != '*') {
			step_star(at, text, n, false);
		} else if (p[2] == '/') { /* any number of segments, none too */
			memcpy(before, at, sizeof(at));
			step_star(at, text, n, true);
			step_char(at, text, n, '/');
			for (size_t i = 0; i <= n; i++)
				at[i] = at[i] || (before[i] && (i == 0 || text[i - 1] == '/'));
			p += 2;
		} else {
			step_star(at, text, n, true);
			p++;
		}
	}
	return at[n];
}

bool pattern_match(const char *pattern, const char *text)
{
	return pattern[0] == '!' ? !match(pattern + 1, text) : match(pattern, text);
}

/* ---- rules */

const char *rule_refuses(const struct rule *r, const struct imageref *source)
{
	if (r->host && !pattern_match(r->host, source->host))
		return "host";
	if (r->repository && !pattern_match(r->repository, source->repository))
		return "repository";
	if (r->tag && !pattern_match(r->tag, source->tag))
		return "tag";
	return NULL;
}

const struct rule *rules_find(const struct rules *r, const struct imageref *source)
{
	for (size_t i = 0; i < r->n; i++)
		if (!rule_refuses(&r->rule[i], source))
			return &r->rule[i];
	return NULL;
}

const char *rules_platforms(const struct rules *r, const struct rule *rule)
{
	if (rule->platforms)
		return rule->platforms;
	return r->platforms ? r->platforms : "";
}

bool rules_is_output(const struct rules *r, const struct imageref *ref)
{
	if (!ref->tag[0])
		return false;
	for (size_t i = 0; i < r->n; i++)
		for (size_t k = 0; k < r->rule[i].n_targets; k++) {
			const struct target *t = &r->rule[i].targets[k];

			if (target_tag_matches(t->tag_template, ref->tag) ||
			    str_eq(t->cache_tag, ref->tag))
				return true;
		}
	return false;
}

static int check_rule(const struct rule *r, struct err *e)
{
	const char *patterns[] = {r->host, r->repository, r->tag};

	if (r->n_targets == 0)
		return err_set(e, ERR_INVALID, "no targets: expected at least one {driver, tag}");
	for (size_t i = 0; i < 3; i++)
		if (patterns[i] && pattern_check(patterns[i], e) < 0)
			return -1;
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target *t = &r->targets[i];

		if (target_template_check(t->tag_template, e) < 0 || target_check(t, e) < 0)
			return err_wrap(e, "target %zu", i + 1);
		if (t->cache_tag && !imageref_tag_valid(t->cache_tag))
			return err_set(e, ERR_INVALID, "target %zu: cache_tag: not a tag", i + 1);
		for (size_t k = 0; k < i; k++)
			if (strcmp(t->tag_template, r->targets[k].tag_template) == 0)
				return err_set(
					e, ERR_INVALID,
					"targets %zu and %zu have the same reference: tag \"%s\"",
					k + 1, i + 1, t->tag_template);
	}
	return 0;
}

int rules_check(const struct rules *r, struct err *e)
{
	for (size_t i = 0; i < r->n; i++)
		if (check_rule(&r->rule[i], e) < 0)
			return err_wrap(e, "rule %zu (%s)", i + 1,
					r->rule[i].name ? r->rule[i].name : "unnamed");
	return 0;
}
