/* common/err.h - what went wrong, in words a user can act on.
 *
 * A call that can fail returns 0 or -1 (or a count, or NULL) and takes `struct err *e`.  The text
 * has a fixed size, so failing needs no memory.  The callee says what happened, the caller to which
 * thing: at the top the chain is the task's reason, and the code's slug its reason_code. Passing e
 * == NULL is allowed everywhere: then nothing is told. */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#include <stdarg.h>
#include <stdint.h>

enum err_code {
	ERR_OK,
	ERR_INVALID,	 /* the caller's input is wrong */
	ERR_DENIED,	 /* not allowed, login refused, certificate not trusted */
	ERR_NOTFOUND,	 /* it is not there */
	ERR_CANCELLED,	 /* someone asked for it to stop */
	ERR_LIMIT,	 /* larger than a bound of ours or of theirs */
	ERR_UNSUPPORTED, /* well formed, but we (or they) do not do that */
	ERR_CORRUPT,	 /* bytes are not what a digest or a format says */
	ERR_BUG,	 /* our mistake */
	ERR_NET,	 /* the network or the other side failed */
	ERR_SYSTEM,	 /* this machine failed */
	ERR_BUSY,	 /* asked to come back later */
	ERR_CODES,
};

/* What is done about it.  The code's row has a default; the place that knows better sets it. */
enum err_class {
	CLASS_FINAL, /* stop, tell the user */
	CLASS_RETRY, /* again, with backoff; counts as an attempt */
	CLASS_WAIT,  /* again later; no attempt is counted, the task's deadline goes on */
	CLASS_SKIP,  /* no failure: there is nothing to convert, and why */
};

struct err {
	enum err_code code;
	enum err_class class;
	int status;		 /* HTTP status of the other side's answer, 0: none */
	uint64_t retry_after_ms; /* the other side's wish, 0: none */
	char text[1024];
};

/* Each returns -1, so that a failing function can end in `return err_set(e, ...)`. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int err_class(struct err *e, enum err_code code, enum err_class class, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int err_errno(struct err *e, int errnum, const char *fmt,
	      ...) /* ERR_SYSTEM: "<text>: <strerror>" */
	__attribute__((format(printf, 3, 4)));
/* Puts "<text>: " in front.  The cause is never cut: if both do not fit, the front is. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_clear(struct err *e);

const char *err_slug(enum err_code code);    /* "invalid", "denied", ...; static */
enum err_code err_code_of(const char *slug); /* ERR_BUG for an unknown one */
enum err_class err_default_class(enum err_code code);
const char *err_class_name(enum err_class class); /* "final", "retry", "wait", "skip" */
int err_class_parse(const char *name, enum err_class *class);
int err_http_status(enum err_code code); /* for our own routes: 400, 403, 404, ... */
int err_exit_status(enum err_code code); /* of our own commands; reference: cli-ui, "Exit status" */

#endif
