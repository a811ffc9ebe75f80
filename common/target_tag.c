/* common/target_tag.c - see target_tag.h. */
#include "common/target_tag.h"

#include <stdio.h>
#include <string.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/str.h"
#include "common/target.h"

#define TAG_WORD "{tag}"

int target_template_check(const char *template, struct err *e)
{
	const char *at = strstr(template, TAG_WORD);
	char sample[IMAGEREF_TAG_MAX + 16], shown[80];
	size_t literal;

	str_copy(shown, sizeof(shown), template);
	str_clean(shown);
	if (!at || strstr(at + 1, TAG_WORD))
		return err_set(e, ERR_INVALID, "tag \"%s\": expected {tag} exactly once", shown);
	literal = strlen(template) - strlen(TAG_WORD);
	if (literal == 0)
		return err_set(
			e, ERR_INVALID,
			"tag \"%s\": expected more than {tag}, or the source would be overwritten",
			shown);
	if (literal >= IMAGEREF_TAG_MAX)
		return err_set(e, ERR_INVALID,
			       "tag \"%s\": no room for a tag: at most %d characters in all", shown,
			       IMAGEREF_TAG_MAX);
	snprintf(sample, sizeof(sample), "%.*sx%s", (int)(at - template), template,
		 at + strlen(TAG_WORD));
	if (!imageref_tag_valid(sample))
		return err_set(e, ERR_INVALID,
			       "tag \"%s\": around {tag} expected letters, digits, _ . -, not "
			       "starting with . or -",
			       shown);
	return 0;
}

bool target_tag_matches(const char *template, const char *tag)
{
	const char *at = strstr(template, TAG_WORD);
	size_t before, after, n = strlen(tag);

	if (!at)
		return false;
	before = (size_t)(at - template);
	after = strlen(at + strlen(TAG_WORD));
	return n > before + after && memcmp(tag, template, before) == 0 &&
	       strcmp(tag + n - after, at + strlen(TAG_WORD)) == 0;
}

int target_ref(const struct target *t, const struct imageref *source, struct imageref *to,
	       struct err *e)
{
	const char *at = strstr(t->tag_template, TAG_WORD);
	char hex[DIGEST_TEXT], name[DIGEST_TEXT + 8], tag[512];
	const char *base = source->tag;
	struct imageref r = {0};
	int n;

	if (!at)
		return err_set(e, ERR_BUG, "tag template without {tag}: %s", t->tag_template);
	if (!base[0]) {
		if (!digest_is_set(&source->digest))
			return err_set(e, ERR_INVALID, "the source has neither tag nor digest");
		snprintf(name, sizeof(name), "%s-%s",
			 source->digest.alg == DIGEST_SHA512 ? "sha512" : "sha256",
			 digest_hex(&source->digest, hex));
		base = name;
	}
	n = snprintf(tag, sizeof(tag), "%.*s%s%s", (int)(at - t->tag_template), t->tag_template,
		     base, at + strlen(TAG_WORD));
	if (n > IMAGEREF_TAG_MAX)
		return err_set(
			e, ERR_INVALID,
			"the target's tag would have %d characters, at most %d are allowed: %.160s",
			n, IMAGEREF_TAG_MAX, tag);
	if (strcmp(tag, source->tag) == 0)
		return err_set(e, ERR_INVALID, "the target's tag %s is the source's own", tag);
	strcpy(r.host, source->host);
	strcpy(r.repository, source->repository);
	strcpy(r.tag, tag);
	*to = r;
	return 0;
}
