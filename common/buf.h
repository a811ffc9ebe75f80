/* common/buf.h - growable bytes with a ceiling fixed at init.
 *
 * data[len] is always 0, so a buf is also a C string (as long as it holds no NUL of its own).  An
 * add that would pass the ceiling returns -1 with ERR_LIMIT, and the contents stay as they were. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stddef.h>
#include <stdint.h>

struct err;

struct buf {
	char *data; /* never NULL after init */
	size_t len, cap, max;
};

#define BUF_INIT(max_bytes)                                                                        \
	{                                                                                          \
		.data = (char *)"", .len = 0, .cap = 0, .max = (max_bytes)                         \
	}

void buf_init(struct buf *b, size_t max_bytes);
void buf_fini(struct buf *b);  /* leaves it empty and usable; wipes nothing */
void buf_wipe(struct buf *b);  /* overwrites, then buf_fini: for secrets */
void buf_reset(struct buf *b); /* len = 0, memory kept */

int buf_add(struct buf *b, const void *p, size_t n, struct err *e);
int buf_add_str(struct buf *b, const char *s, struct err *e);
int buf_add_char(struct buf *b, char c, struct err *e);
int buf_addf(struct buf *b, struct err *e, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int buf_reserve(struct buf *b, size_t extra, struct err *e); /* data + len has room for extra */
void buf_consume(struct buf *b, size_t n);		     /* drops the first n bytes */
char *buf_take(struct buf *b); /* the malloc'd contents, NUL-terminated; b is empty after */

#endif
