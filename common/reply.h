/* common/reply.h - a reply of Redis, decoded; and looks into it that always have an answer, so that
 * a script's reply of another shape is not read past its end. */
#ifndef COMMON_REPLY_H
#define COMMON_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum reply_kind { REPLY_NIL, REPLY_INT, REPLY_STR, REPLY_ARRAY, REPLY_STATUS, REPLY_ERROR };
struct reply { /* borrowed, valid during the callback */
	enum reply_kind kind;
	int64_t integer;
	const char *str; /* NUL-terminated, may hold NULs; never NULL for STR, STATUS, ERROR */
	size_t n;	 /* bytes of str, or elements */
	const struct reply *const *element;
};

/* Element i of an array; NULL: r is none, or has fewer. */
const struct reply *reply_at(const struct reply *r, size_t i);
const char *reply_text(const struct reply *r, size_t i); /* of a string there, else NULL */
int64_t reply_int(const struct reply *r, size_t i);	 /* a number, also as text; else 0 */
/* An array whose first element is this word. */
bool reply_is(const struct reply *r, const char *word);

#endif
