/* worker/registry/challenge.c - see challenge.h.
 *
 * The grammar is ambiguous without looking ahead: after a comma a word is a parameter's name when
 * '=' follows, and the scheme of the next challenge otherwise. */
#include "worker/registry/challenge.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"

enum { VALUE_MAX = 4096 };

static void skip_space(const char **p)
{
	while (**p == ' ' || **p == '\t')
		(*p)++;
}

static size_t token_len(const char *p)
{
	return strspn(p, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
			 "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

/* A quoted string or a bare value; NULL when there is none.  The caller frees. */
static char *read_value(const char **p)
{
	char *to, *w;
	size_t n;

	if (**p != '"') {
		n = strcspn(*p, ", \t");
		to = mem_strndup(*p, n < VALUE_MAX ? n : VALUE_MAX);
		*p += n;
		return to;
	}
	(*p)++;
	n = strlen(*p);
	to = w = mem_alloc((n < VALUE_MAX ? n : VALUE_MAX) + 1);
	for (; **p && **p != '"'; (*p)++) {
		if (**p == '\\' && (*p)[1])
			(*p)++;
		if (w - to < VALUE_MAX)
			*w++ = **p;
	}
	*w = '\0';
	if (**p == '"')
		(*p)++;
	return to;
}

static void keep(struct challenge *c, const char *name, size_t n, char *value)
{
	const struct {
		const char *name;
		char **to;
	} known[] = {{"realm", &c->realm},
		     {"service", &c->service},
		     {"scope", &c->scope},
		     {"error", &c->error}};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strlen(known[i].name) == n && !strncasecmp(name, known[i].name, n) &&
		    !*known[i].to) {
			*known[i].to = value;
			return;
		}
	free(value);
}

static enum challenge_scheme scheme_of(const char *p, size_t n)
{
	if (n == 5 && !strncasecmp(p, "Basic", 5))
		return CHALLENGE_BASIC;
	if (n == 6 && !strncasecmp(p, "Bearer", 6))
		return CHALLENGE_BEARER;
	return CHALLENGE_OTHER;
}

/* Parameters up to the next scheme.  c may be NULL: they are read and dropped. */
static void read_params(const char **p, struct challenge *c)
{
	for (;;) {
		const char *start, *after;
		size_t n;
		char *value;

		while (**p == ',' || **p == ' ' || **p == '\t')
			(*p)++;
		start = *p;
		n = token_len(start);
		if (n == 0)
			return;
		after = start + n;
		skip_space(&after);
		if (*after != '=')
			return; /* a scheme */
		after++;
		skip_space(&after);
		*p = after;
		value = read_value(p);
		if (c)
			keep(c, start, n, value);
		else
			free(value);
	}
}

void challenges_parse(struct challenges *to, const char *value)
{
	const char *p = value;

	while (*p) {
		struct challenge *c = NULL;
		size_t n;

		while (*p == ',' || *p == ' ' || *p == '\t')
			p++;
		n = token_len(p);
		if (n == 0) {
			p += *p != '\0'; /* no word starts here: look further on */
			continue;
		}
		if (to->n < CHALLENGES_MAX) {
			c = &to->c[to->n++];
			*c = (struct challenge){.scheme = scheme_of(p, n)};
		}
		p += n;
		read_params(&p, c);
	}
}

const struct challenge *challenges_find(const struct challenges *c, enum challenge_scheme scheme)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->c[i].scheme == scheme)
			return &c->c[i];
	return NULL;
}

void challenges_fini(struct challenges *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->c[i].realm);
		free(c->c[i].service);
		free(c->c[i].scope);
		free(c->c[i].error);
	}
	c->n = 0;
}
