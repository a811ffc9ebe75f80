/* common/reply.c - see reply.h. */
#include "common/reply.h"

#include <stdlib.h>

#include "common/str.h"

const struct reply *reply_at(const struct reply *r, size_t i)
{
	return r->kind == REPLY_ARRAY && i < r->n ? r->element[i] : NULL;
}

const char *reply_text(const struct reply *r, size_t i)
{
	const struct reply *v = reply_at(r, i);

	return v && v->kind == REPLY_STR ? v->str : NULL;
}

int64_t reply_int(const struct reply *r, size_t i)
{
	const struct reply *v = reply_at(r, i);

	if (v && v->kind == REPLY_STR)
		return strtoll(v->str, NULL, 10);
	return v && v->kind == REPLY_INT ? v->integer : 0;
}

bool reply_is(const struct reply *r, const char *word)
{
	return str_eq(reply_text(r, 0), word);
}
