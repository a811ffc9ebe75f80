/* common/rules.h - which image becomes what: the first rule whose pattern fits wins; it has many
 * targets. Patterns: `*` within one path segment, `**` across, a leading `!` negates; `**` and
 * a slash also stand for no segment.  All of host, repository and tag must match. */
#ifndef COMMON_RULES_H
#define COMMON_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/target.h"

struct rule {
	char *name;
	char *host;	  /* pattern or NULL: any */
	char *repository; /* pattern or NULL: any */
	char *tag;	  /* pattern or NULL: any */
	char *platforms;  /* normalised; NULL: converter.platforms */
	struct target *targets;
	size_t n_targets;
};

struct rules {
	struct rule *rule;
	size_t n;
	char *platforms; /* converter.platforms, normalised; "" : all */
};

void rules_fini(struct rules *r);
/* Two targets of one rule with the same reference, an empty rule, ... */
int rules_check(const struct rules *r, struct err *e);
/* NULL when none fits. */
const struct rule *rules_find(const struct rules *r, const struct imageref *source);
/* "host", "repository" or "tag": what the rule refuses the source for; NULL when it fits. */
const char *rule_refuses(const struct rule *r, const struct imageref *source);
const char *rules_platforms(const struct rules *r, const struct rule *rule);
/* The tag could be the output of any target of any rule (or a cache_tag): never convert it again.
 */
bool rules_is_output(const struct rules *r, const struct imageref *ref);
bool pattern_match(const char *pattern, const char *text);
int pattern_check(const char *pattern, struct err *e);

#endif
