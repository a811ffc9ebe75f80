/* common/str.h - borrowed slices; strict parsing of what people and programs write.
 *
 * Parsers take the whole string or refuse: no leading space, no sign, no trailing garbage. */
#ifndef COMMON_STR_H
#define COMMON_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct buf;

struct slice {
	const char *p;
	size_t n;
};

struct slice slice_of(const char *s); /* NULL: empty */
bool slice_eq(struct slice s, const char *z);
struct slice slice_trim(const char *p, size_t n); /* without spaces, tabs and CR at both ends */
char *slice_dup(struct slice s);		  /* mem_strndup */

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
bool str_ieq(const char *a, const char *b); /* ASCII case folded */

/* Decimal, no sign, no leading zeros but "0" itself. */
int str_u64(const char *s, uint64_t *v, struct err *e);
/* "67108864", "64MiB", "64 MB", "1.5GiB", "10g": bytes.  kB, MB, GB are powers of 1000, KiB, MiB,
 * GiB of 1024; a bare k, m, g, t counts as 1000s (as go-humanize, which upstream uses). */
int str_size(const char *s, uint64_t *bytes, struct err *e);
/* "30s", "1m30s", "250ms", "2h", "1.5h"; a bare number is seconds. */
int str_duration_ms(const char *s, uint64_t *ms, struct err *e);
/* Go's strconv.ParseBool: 1 t T TRUE true True, 0 f F FALSE false False. */
int str_bool(const char *s, bool *v, struct err *e);

/* Rewrites in place what could lie on a terminal or in a table: control characters, DEL, tab,
 * newline, bidi overrides (U+202A..E, U+2066..9, U+200E/F, U+061C) and malformed UTF-8 become '?'
 * or ' '. */
void str_clean(char *s);
bool str_utf8_valid(const char *s, size_t n);
/* Copies at most n - 1 bytes, always terminated, never cut inside a UTF-8 sequence. */
void str_copy(char *to, size_t n, const char *from);

void str_hex(char *to, const void *bytes, size_t n);   /* lower case, 2n + 1 bytes */
int str_unhex(uint8_t *to, size_t n, const char *hex); /* exactly 2n lower-case digits, or -1 */
/* RFC 4648 standard alphabet with padding. */
int str_base64(struct buf *to, const void *bytes, size_t n, struct err *e);
int str_unbase64(struct buf *to, const char *s, size_t n, struct err *e); /* strict */
/* Distance of two short words (Levenshtein, ASCII), for "did you mean". */
unsigned str_distance(const char *a, const char *b);
/* The nearest of n words within a third of its length, or NULL. */
const char *str_nearest(const char *word, const char *const *words, size_t n);

#endif
