/* common/httpframe.c - see httpframe.h. */
#include "common/httpframe.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

enum { METHOD_MAX = 16, HEAD_FIRST = 1000 };
/* Steps of a chunked body. */
enum {
	CHUNK_SIZE,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	CHUNK_END,
	CHUNK_END_LF
};

void httpframe_init(struct httpframe *f, size_t max_header, size_t max_body)
{
	memset(f, 0, sizeof(*f));
	f->max_header = max_header;
	f->max_body = max_body;
	buf_init(&f->head, max_header);
	if (max_header >= HEAD_FIRST)
		buf_reserve(&f->head, HEAD_FIRST, NULL);
	buf_init(&f->body, max_body);
}

void httpframe_fini(struct httpframe *f)
{
	buf_wipe(&f->head); /* it held an Authorization header, perhaps */
	buf_fini(&f->body);
}

static bool bad(struct httpframe *f, int status, const char *why)
{
	f->state = FRAME_BAD;
	f->status = status;
	f->why = why;
	return false;
}

/* RFC 9110 §5.6.2 */
static bool is_token(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'))
			continue;
		if (!c || !strchr("!#$%&'*+-.^_`|~", c))
			return false;
	}
	return n > 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void httpframe_decode(char *to, const char *p, size_t n, bool plus)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '%' && i + 2 < n) {
			*to++ = (char)(hex_digit(p[i + 1]) << 4 | hex_digit(p[i + 2]));
			i += 2;
		} else {
			*to++ = plus && p[i] == '+' ? ' ' : p[i];
		}
	}
	*to = 0;
}

const char *httpframe_field(const struct httpframe *f, const char *name)
{
	for (size_t i = 0; i < f->n_fields; i++)
		if (!strcasecmp(f->field[i].name, name))
			return f->field[i].value;
	return NULL;
}

static unsigned count_fields(const struct httpframe *f, const char *name)
{
	unsigned n = 0;

	for (size_t i = 0; i < f->n_fields; i++)
		n += !strcasecmp(f->field[i].name, name);
	return n;
}

/* A segment of the path that is "." or "..", in any spelling. */
static bool is_dots(const char *p, size_t n)
{
	char text[12];

	if (!n || n > 6)
		return false;
	httpframe_decode(text, p, n, false);
	return !strcmp(text, ".") || !strcmp(text, "..");
}

static bool check_target(struct httpframe *f)
{
	const char *t = f->target, *query = strchr(t, '?'), *end = query ? query : t + strlen(t);

	if (*t != '/')
		return bad(f, 400, "the target of the request line must begin with a slash");
	for (const char *p = t; *p; p++) {
		unsigned char c = (unsigned char)*p;
		int high, low;

		if (c >= 0x7f || c == '#')
			return bad(f, 400, "the target holds a byte that must be percent-encoded");
		if (c != '%')
			continue;
		high = hex_digit(p[1]);
		low = high < 0 ? -1 : hex_digit(p[2]);
		if (low < 0)
			return bad(f, 400, "a percent sign in the target without two hex digits");
		if (high < 2 || (high == 7 && low == 15))
			return bad(f, 400, "an encoded control byte in the target");
	}
	for (const char *p = t; p < end;) {
		size_t n = strcspn(++p, "/?");

		if (is_dots(p, n))
			return bad(f, 400, "the path holds a dot segment");
		p += n;
	}
	return true;
}

static bool parse_request_line(struct httpframe *f, char *line)
{
	char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

	if (!version || strchr(version + 1, ' ') || strchr(line, '\t'))
		return bad(f, 400,
			   "the request line is not METHOD TARGET VERSION with single spaces");
	*target++ = 0;
	*version++ = 0;
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return bad(f, 400, "the version is neither HTTP/1.1 nor HTTP/1.0");
	if (!is_token(line, strlen(line)) || strlen(line) > METHOD_MAX)
		return bad(f, 400, "the method is no word");
	f->minor = version[7] - '0';
	f->method = line;
	f->target = target;
	f->close = f->minor == 0;
	return check_target(f);
}

static bool parse_field(struct httpframe *f, char *line)
{
	char *colon = strchr(line, ':'), *value, *end;

	if (*line == ' ' || *line == '\t')
		return bad(f, 400, "a header folded over two lines");
	if (!colon || !is_token(line, (size_t)(colon - line)))
		return bad(f, 400, "a header line is not NAME: VALUE");
	if (f->n_fields == HTTPFRAME_FIELDS)
		return bad(f, 431, "more than 100 header lines");
	*colon = 0;
	value = colon + 1 + strspn(colon + 1, " \t");
	end = value + strlen(value);
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = 0;
	f->field[f->n_fields++] = (struct httpframe_field){.name = line, .value = value};
	return true;
}

static bool check_host(struct httpframe *f)
{
	unsigned n = count_fields(f, "Host");
	const char *host = httpframe_field(f, "Host");

	if (n > 1)
		return bad(f, 400, "more than one Host header");
	if (n == 0)
		return f->minor == 0 ? true : bad(f, 400, "no Host header");
	for (const char *p = host; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789.-_:[]%",
			    *p | (*p >= 'A' && *p <= 'Z' ? 32 : 0)))
			return bad(f, 400, "the Host header is no host");
	return true;
}

static bool parse_length(struct httpframe *f, const char *text)
{
	uint64_t v = 0;

	if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
		return bad(f, 400, "Content-Length is no plain number");
	for (; *text; text++)
		v = v * 10 + (uint64_t)(*text - '0');
	if (v > f->max_body)
		return bad(f, 413, "the body is larger than server.max_body");
	f->left = v;
	return true;
}

static bool list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	while (*list) {
		list += strspn(list, " \t,");
		size_t len = strcspn(list, " \t,");

		if (len == n && !strncasecmp(list, word, n))
			return true;
		list += len;
	}
	return false;
}

static bool check_body(struct httpframe *f)
{
	unsigned lengths = count_fields(f, "Content-Length");
	unsigned encodings = count_fields(f, "Transfer-Encoding");
	const char *expect = httpframe_field(f, "Expect");

	if (lengths > 1)
		return bad(f, 400, "more than one Content-Length");
	if (encodings && lengths)
		return bad(f, 400, "Content-Length beside Transfer-Encoding");
	if (encodings > 1 ||
	    (encodings && (strcasecmp(httpframe_field(f, "Transfer-Encoding"), "chunked") != 0 ||
			   f->minor == 0)))
		return bad(f, 400, "the only Transfer-Encoding is \"chunked\", once, in HTTP/1.1");
	if (lengths && !parse_length(f, httpframe_field(f, "Content-Length")))
		return false;
	f->chunked = encodings > 0;
	if ((f->chunked || f->left) && (!strcmp(f->method, "GET") || !strcmp(f->method, "HEAD")))
		return bad(f, 400, "GET and HEAD have no body");
	if (expect && f->minor == 1) {
		if (strcasecmp(expect, "100-continue") != 0)
			return bad(f, 417, "the only expectation is 100-continue");
		f->expect = f->chunked || f->left;
	}
	f->state = f->chunked || f->left ? FRAME_BODY : FRAME_DONE;
	return true;
}

/* head holds all lines with their CRLFs; the last is empty.  Lines become strings in place. */
static bool parse_head(struct httpframe *f)
{
	char *p = f->head.data, *next;

	for (size_t i = 0; *p != '\r'; i++, p = next) {
		char *end = memchr(p, '\r', f->head.len - (size_t)(p - f->head.data));

		assert(end);
		*end = 0;
		next = end + 2;
		if (!(i == 0 ? parse_request_line(f, p) : parse_field(f, p)))
			return false;
	}
	for (size_t i = 0; i < f->n_fields; i++)
		if (!strcasecmp(f->field[i].name, "Connection") &&
		    list_has(f->field[i].value, "close"))
			f->close = true;
	if (f->minor == 0 && httpframe_field(f, "Connection") &&
	    list_has(httpframe_field(f, "Connection"), "keep-alive"))
		f->close = false;
	return check_host(f) && check_body(f);
}

/* Bytes that may stand inside a line. */
static size_t plain_bytes(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && (((unsigned char)p[i] >= 0x20 && p[i] != 0x7f) || p[i] == '\t'))
		i++;
	return i;
}

/* A whole line is in: the last byte was its LF.  true: the head is complete, or bad. */
static bool head_line(struct httpframe *f)
{
	if (f->head.len - f->line != 2) {
		f->line = f->head.len;
		return false;
	}
	if (f->line == 0)
		bad(f, 400, "an empty line before the request line");
	else
		parse_head(f);
	return true;
}

static size_t feed_head(struct httpframe *f, const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		bool after_cr = f->head.len > 0 && f->head.data[f->head.len - 1] == '\r';
		size_t k = after_cr ? 0 : plain_bytes(p + i, n - i);
		char c = p[i];

		if (!k && after_cr != (c == '\n'))
			bad(f, 400, after_cr ? "a CR without LF" : "a line that ends in a bare LF");
		else if (!k && c != '\r' && c != '\n')
			bad(f, 400, "a control byte in the header");
		else if (buf_add(&f->head, p + i, k ? k : 1, NULL) < 0)
			bad(f, 431, "the header is larger than server.max_header");
		i += k ? k : 1;
		if (f->state == FRAME_BAD || (!k && c == '\n' && head_line(f)))
			return i;
	}
	return n;
}

static bool chunk_byte(struct httpframe *f, char c)
{
	int v;

	switch (f->step) {
	case CHUNK_SIZE:
		v = hex_digit(c);
		if (v >= 0 && f->digits < 8) {
			f->left = f->left << 4 | (uint64_t)v;
			f->digits++;
			return true;
		}
		if (c != '\r' || !f->digits)
			return bad(f, 400, "a chunk's size is not 1 to 8 hex digits");
		if (f->left > f->max_body - f->body.len)
			return bad(f, 413, "the body is larger than server.max_body");
		f->step = CHUNK_SIZE_LF;
		return true;
	case CHUNK_SIZE_LF:
		f->step = f->left ? CHUNK_DATA : CHUNK_END;
		break;
	case CHUNK_DATA_CR:
		f->step = CHUNK_DATA_LF;
		return c == '\r' ? true : bad(f, 400, "a chunk is longer than its size");
	case CHUNK_DATA_LF:
		f->step = CHUNK_SIZE;
		f->digits = 0;
		break;
	case CHUNK_END:
		f->step = CHUNK_END_LF;
		return c == '\r' ? true : bad(f, 400, "trailers are not taken");
	default:
		f->state = FRAME_DONE;
	}
	return c == '\n' ? true : bad(f, 400, "a chunk's line does not end in CRLF");
}

static size_t feed_bytes(struct httpframe *f, const char *p, size_t n)
{
	size_t k = n < f->left ? n : (size_t)f->left;

	if (buf_add(&f->body, p, k, NULL) < 0)
		bad(f, 413, "the body is larger than server.max_body");
	f->left -= k;
	return k;
}

static size_t feed_chunked(struct httpframe *f, const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && f->state == FRAME_BODY) {
		if (f->step != CHUNK_DATA) {
			chunk_byte(f, p[i++]);
			continue;
		}
		i += feed_bytes(f, p + i, n - i);
		if (!f->left)
			f->step = CHUNK_DATA_CR;
	}
	return i;
}

size_t httpframe_feed(struct httpframe *f, const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && (f->state == FRAME_HEAD || f->state == FRAME_BODY)) {
		if (f->state == FRAME_HEAD) {
			i += feed_head(f, p + i, n - i);
		} else if (f->chunked) {
			i += feed_chunked(f, p + i, n - i);
		} else {
			i += feed_bytes(f, p + i, n - i);
			if (!f->left && f->state == FRAME_BODY)
				f->state = FRAME_DONE;
		}
	}
	return i;
}
