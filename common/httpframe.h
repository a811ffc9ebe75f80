/* common/httpframe.h - one HTTP/1.1 request out of raw bytes, strictly: the framing rules of httpd.
 *
 * A parser that is lenient here lets two programs in a row disagree on where a request ends, and
 * then one client's bytes become another's request.  So everything that is not plainly RFC 9112 is
 * refused, with the status to answer and why; after that the connection can only be closed.
 * Refused among others: a bare LF or CR, control bytes, folded lines, a space before a colon, a
 * missing or second Host, a second or signed Content-Length, any Transfer-Encoding but "chunked",
 * both together, a body on GET or HEAD, extensions and trailers of chunks, absolute URIs, "..",
 * %00, %zz.  Bytes may come in any pieces: the result is the same. */
#ifndef COMMON_HTTPFRAME_H
#define COMMON_HTTPFRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define HTTPFRAME_FIELDS 100

struct httpframe_field {
	const char *name, *value; /* into head; the value trimmed */
};

struct httpframe {
	enum { FRAME_HEAD, FRAME_BODY, FRAME_DONE, FRAME_BAD } state;
	int status;	 /* FRAME_BAD: what to answer */
	const char *why; /* FRAME_BAD: static text */
	size_t max_header, max_body;
	struct buf head, body;
	const char *method, *target; /* into head, once it is complete */
	int minor;		     /* HTTP/1.minor */
	struct httpframe_field field[HTTPFRAME_FIELDS];
	size_t n_fields;
	bool chunked, close;
	bool expect; /* the client waits for "100 Continue" */
	/* inner state */
	uint64_t left; /* of the body, or of the chunk */
	int step;
	unsigned digits;
	size_t line; /* where the header line that is being read begins */
};

void httpframe_init(struct httpframe *f, size_t max_header, size_t max_body);
void httpframe_fini(struct httpframe *f);
/* Takes bytes until the request is complete or refused; returns how many were taken.  What follows
 * them belongs to the next request. */
size_t httpframe_feed(struct httpframe *f, const char *p, size_t n);
const char *httpframe_field(const struct httpframe *f, const char *name); /* NULL: absent */

/* Percent-decodes n bytes of a checked target into to (n + 1 bytes).  plus: '+' is a space. */
void httpframe_decode(char *to, const char *p, size_t n, bool plus);

#endif
