/* common/err.c - see err.h. */
#include "common/err.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The one table: code -> slug, default class, HTTP status of our own routes, exit status of our
 * commands. */
static const struct {
	const char *slug;
	enum err_class class;
	int http, exit;
} rows[ERR_CODES] = {
	[ERR_OK] = {"ok", CLASS_FINAL, 200, 0},
	[ERR_INVALID] = {"invalid", CLASS_FINAL, 400, 1},
	[ERR_DENIED] = {"denied", CLASS_FINAL, 403, 4},
	[ERR_NOTFOUND] = {"notfound", CLASS_FINAL, 404, 5},
	[ERR_CANCELLED] = {"cancelled", CLASS_FINAL, 409, 1},
	[ERR_LIMIT] = {"limit", CLASS_FINAL, 413, 1},
	[ERR_UNSUPPORTED] = {"unsupported", CLASS_FINAL, 422, 1},
	[ERR_CORRUPT] = {"corrupt", CLASS_FINAL, 422, 1},
	[ERR_BUG] = {"bug", CLASS_FINAL, 500, 1},
	[ERR_NET] = {"net", CLASS_RETRY, 500, 3},
	[ERR_SYSTEM] = {"system", CLASS_RETRY, 500, 1},
	[ERR_BUSY] = {"busy", CLASS_WAIT, 429, 1},
};

static const char *const class_names[] = {"final", "retry", "wait", "skip"};

/* A text never ends inside a UTF-8 sequence: it becomes JSON sooner or later. */
static void cut_utf8(char *text, size_t n)
{
	size_t i = n;

	while (i > 0 && i > n - 4 && ((unsigned char)text[i - 1] & 0xC0) == 0x80)
		i--;
	if (i > 0 && (unsigned char)text[i - 1] >= 0xC0)
		text[i - 1] = '\0';
}

static void fill(struct err *e, enum err_code code, enum err_class class, const char *fmt,
		 va_list ap)
{
	char text[sizeof(e->text)]; /* an argument may be e->text itself */
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	if (n >= (int)sizeof(text))
		cut_utf8(text, sizeof(text) - 1);
	memset(e, 0, sizeof(*e));
	e->code = code;
	e->class = class;
	strcpy(e->text, text);
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, code, rows[code].class, fmt, ap);
	va_end(ap);
	return -1;
}

int err_class(struct err *e, enum err_code code, enum err_class class, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, code, class, fmt, ap);
	va_end(ap);
	return -1;
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
	char why[128];
	size_t len;
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, ERR_SYSTEM, CLASS_RETRY, fmt, ap);
	va_end(ap);
	len = strlen(e->text);
	if (len > sizeof(e->text) - sizeof(why))
		len = sizeof(e->text) - sizeof(why);
	snprintf(e->text + len, sizeof(e->text) - len, ": %s",
		 strerror_r(errnum, why, sizeof(why)));
	return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char front[sizeof(e->text)];
	size_t cause, room, n;
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	vsnprintf(front, sizeof(front), fmt, ap);
	va_end(ap);
	cause = strlen(e->text);
	room = sizeof(e->text) - 1 - cause;
	if (room < 2)
		return -1;
	n = strlen(front);
	if (n > room - 2) {
		n = room - 2;
		front[n] = '\0';
		cut_utf8(front, n);
		n = strlen(front);
	}
	memmove(e->text + n + 2, e->text, cause + 1);
	memcpy(e->text, front, n);
	memcpy(e->text + n, ": ", 2);
	return -1;
}

void err_clear(struct err *e)
{
	if (e)
		memset(e, 0, sizeof(*e));
}

const char *err_slug(enum err_code code)
{
	return code < ERR_CODES ? rows[code].slug : rows[ERR_BUG].slug;
}

enum err_code err_code_of(const char *slug)
{
	for (int i = 0; i < ERR_CODES; i++)
		if (strcmp(rows[i].slug, slug) == 0)
			return (enum err_code)i;
	return ERR_BUG;
}

enum err_class err_default_class(enum err_code code)
{
	return rows[code].class;
}

const char *err_class_name(enum err_class class)
{
	return class_names[class];
}

int err_class_parse(const char *name, enum err_class *class)
{
	for (unsigned i = 0; i < sizeof(class_names) / sizeof(*class_names); i++)
		if (strcmp(class_names[i], name) == 0) {
			*class = (enum err_class)i;
			return 0;
		}
	return -1;
}

int err_http_status(enum err_code code)
{
	return rows[code].http;
}

int err_exit_status(enum err_code code)
{
	return rows[code].exit;
}
