/* common/target_tag.h - the tag under which a target is published: a template such as "{tag}-esgz",
 * filled with the source's tag. */
#ifndef COMMON_TARGET_TAG_H
#define COMMON_TARGET_TAG_H

#include <stdbool.h>

struct err;
struct imageref;
struct target;

/* A template holds {tag} exactly once and something besides; the rest is valid in a tag. */
int target_template_check(const char *template, struct err *e);
/* The tag could have been made by this template. */
bool target_tag_matches(const char *template, const char *tag);
/* The target's reference for a source (design: "Publishing exactly").  ERR_INVALID when the tag
 * gets over 128 characters or equals the source. */
int target_ref(const struct target *t, const struct imageref *source, struct imageref *to,
	       struct err *e);

#endif
