/* worker/drivers/tocread.c - see tocread.h.
 *
 * A state machine a byte, because the text may be hundreds of megabytes: `scan` finds tokens,
 * `on_token` knows where in the document they are.  Depth 1 is the document, 2 the array of
 * entries, 3 an entry, 4 its xattrs. */
#include "worker/drivers/tocread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

#define TEXT_MAX ((size_t)16 << 20) /* one entry */
#define DEPTH_MAX 16

enum token { OBJECT, OBJECT_END, ARRAY, ARRAY_END, KEY, STRING, NUMBER, LITERAL };
enum scan {
	VALUE,
	FIRST_VALUE,
	FIRST_KEY,
	NEXT_KEY,
	COLON,
	AFTER,
	IN_STRING,
	ESCAPE,
	UNICODE,
	IN_NUMBER,
	IN_WORD,
	DONE
};

enum field {
	F_NONE,
	F_NAME,
	F_TYPE,
	F_SIZE,
	F_MODTIME,
	F_LINK,
	F_MODE,
	F_UID,
	F_GID,
	F_USER,
	F_GROUP,
	F_OFFSET,
	F_INNER,
	F_MAJOR,
	F_MINOR,
	F_XATTRS,
	F_DIGEST,
	F_CHUNK_OFFSET,
	F_CHUNK_SIZE,
	F_CHUNK_DIGEST,
	F_END_OFFSET,
	F_CHUNK_TYPE,
	F_ATIME,
	F_CTIME,
};

static const struct {
	const char *key;
	enum field field;
} fields[] = {
	{"name", F_NAME},
	{"type", F_TYPE},
	{"size", F_SIZE},
	{"modtime", F_MODTIME},
	{"linkName", F_LINK},
	{"mode", F_MODE},
	{"uid", F_UID},
	{"gid", F_GID},
	{"userName", F_USER},
	{"groupName", F_GROUP},
	{"offset", F_OFFSET},
	{"innerOffset", F_INNER},
	{"devMajor", F_MAJOR},
	{"devMinor", F_MINOR},
	{"xattrs", F_XATTRS},
	{"digest", F_DIGEST},
	{"chunkOffset", F_CHUNK_OFFSET},
	{"chunkSize", F_CHUNK_SIZE},
	{"chunkDigest", F_CHUNK_DIGEST},
	{"endOffset", F_END_OFFSET},
	{"chunkType", F_CHUNK_TYPE},
	{"accesstime", F_ATIME},
	{"changetime", F_CTIME},
};

struct toc_reader {
	toc_on_item *on;
	void *arg;
	uint64_t pos, items;
	/* scanning */
	enum scan scan;
	bool is_key;
	char nest[DEPTH_MAX]; /* '{' or '[' */
	unsigned depth;
	struct buf text;     /* the token */
	uint32_t code, high; /* of a \u escape; the first of a pair */
	unsigned code_digits;
	/* the document */
	char top[32]; /* the key at depth 1 */
	bool saw_entries, saw_version;
	struct digest tarsplit;
	/* the entry */
	enum field field;
	uint32_t seen;	    /* fields */
	struct buf strings; /* names and xattrs of the entry, by place */
	size_t name, type, link, user, group;
	struct {
		size_t name, value, n;
	} * xattr;
	size_t n_xattr, cap_xattr;
	struct toc_item item;
};

struct toc_reader *toc_reader_new(toc_on_item *on, void *arg)
{
	struct toc_reader *r = mem_zalloc(sizeof(*r));

	r->on = on;
	r->arg = arg;
	r->scan = FIRST_VALUE;
	buf_init(&r->text, TEXT_MAX);
	buf_init(&r->strings, TEXT_MAX);
	return r;
}

void toc_reader_freep(struct toc_reader **rr)
{
	struct toc_reader *r = take_ptr(*rr);

	if (!r)
		return;
	buf_fini(&r->text);
	buf_fini(&r->strings);
	free(r->xattr);
	free(r);
}

uint64_t toc_reader_items(const struct toc_reader *r)
{
	return r->items;
}

static int corrupt(const struct toc_reader *r, const char *what, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "the table of contents is malformed at byte %" PRIu64 ": %s",
		       r->pos, what);
}

/* ---- values of an entry */

static int keep(struct toc_reader *r, size_t *at, struct err *e)
{
	*at = r->strings.len;
	return buf_add(&r->strings, r->text.data, r->text.len + 1, e);
}

static int want_sha256(struct toc_reader *r, uint8_t to[32], bool *has, struct err *e)
{
	struct digest d;

	if (digest_parse_n(&d, r->text.data, r->text.len, e) < 0 || d.alg != DIGEST_SHA256)
		return corrupt(r, "a digest is not of the form sha256:<64 hex digits>", e);
	memcpy(to, d.bytes, 32);
	*has = true;
	return 0;
}

/* RFC 3339 of any year from 0 to 9999, as far as our own and Go's writers go: in UTC. */
static int want_time(struct toc_reader *r, int64_t *sec, uint32_t *ns, struct err *e)
{
	const char *s = r->text.data;
	unsigned y, mo, d, h, mi, se;
	int used = 0;
	int64_t days, era;
	unsigned yoe, doy;

	if (sscanf(s, "%4u-%2u-%2uT%2u:%2u:%2u%n", &y, &mo, &d, &h, &mi, &se, &used) != 6 ||
	    used != 19 || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || se > 59)
		return corrupt(r, "a time is not RFC 3339", e);
	s += used;
	*ns = 0;
	if (*s == '.') {
		uint32_t unit = 100000000;

		for (s++; *s >= '0' && *s <= '9'; s++, unit /= 10)
			*ns += unit * (uint32_t)(*s - '0');
	}
	if (strcmp(s, "Z") != 0)
		return corrupt(r, "a time is not in UTC", e);
	/* days since 1970 of a proleptic Gregorian date */
	y -= mo <= 2;
	era = ((int64_t)(int)y >= 0 ? (int64_t)(int)y : (int64_t)(int)y - 399) / 400;
	yoe = (unsigned)((int64_t)(int)y - era * 400);
	doy = (153 * (mo > 2 ? mo - 3 : mo + 9) + 2) / 5 + d - 1;
	days = era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
	*sec = days * 86400 + h * 3600 + mi * 60 + se;
	return 0;
}

static int string_value(struct toc_reader *r, struct err *e)
{
	struct tar_entry *n = &r->item.entry;

	if (r->field == F_NONE)
		return 0;
	if (memchr(r->text.data, 0, r->text.len) || !str_utf8_valid(r->text.data, r->text.len))
		return corrupt(r, "a string holds a NUL or is not UTF-8", e);
	switch (r->field) {
	case F_NAME:
		return keep(r, &r->name, e);
	case F_TYPE:
		return keep(r, &r->type, e);
	case F_LINK:
		return keep(r, &r->link, e);
	case F_USER:
		return keep(r, &r->user, e);
	case F_GROUP:
		return keep(r, &r->group, e);
	case F_MODTIME:
		return want_time(r, &n->mtime, &n->mtime_ns, e);
	case F_ATIME:
		n->has_atime = true;
		return want_time(r, &n->atime, &n->atime_ns, e);
	case F_CTIME:
		n->has_ctime = true;
		return want_time(r, &n->ctime, &n->ctime_ns, e);
	case F_DIGEST:
		return r->text.len ? want_sha256(r, r->item.digest, &r->item.has_digest, e) : 0;
	case F_CHUNK_DIGEST:
		return r->text.len
			       ? want_sha256(r, r->item.chunk_digest, &r->item.has_chunk_digest, e)
			       : 0;
	case F_CHUNK_TYPE:
		r->item.zeros = !strcmp(r->text.data, "zeros");
		if (!r->item.zeros && r->text.len)
			return corrupt(r, "an unknown chunkType", e);
		return 0;
	default:
		return corrupt(r, "a string where a number is expected", e);
	}
}

static int number_value(struct toc_reader *r, struct err *e)
{
	struct tar_entry *n = &r->item.entry;
	uint64_t v = 0;

	if (r->field == F_NONE)
		return 0;
	/* Go writes int64; negative and fractional numbers mean nothing here. */
	for (const char *s = r->text.data; *s; s++) {
		if (*s < '0' || *s > '9' || v > (UINT64_MAX >> 1) / 10)
			return corrupt(r, "a number is not a natural one of 63 bits", e);
		v = v * 10 + (uint64_t)(*s - '0');
	}
	switch (r->field) {
	case F_SIZE:
		n->size = v;
		return 0;
	case F_MODE:
		n->mode = (uint32_t)v;
		return v > UINT32_MAX ? corrupt(r, "a mode of more than 32 bits", e) : 0;
	case F_UID:
		n->uid = v;
		return 0;
	case F_GID:
		n->gid = v;
		return 0;
	case F_MAJOR:
		n->dev_major = (uint32_t)v;
		return v > UINT32_MAX ? corrupt(r, "a device number of more than 32 bits", e) : 0;
	case F_MINOR:
		n->dev_minor = (uint32_t)v;
		return v > UINT32_MAX ? corrupt(r, "a device number of more than 32 bits", e) : 0;
	case F_OFFSET:
		r->item.offset = v;
		return 0;
	case F_INNER:
		r->item.inner_offset = v;
		return 0;
	case F_END_OFFSET:
		r->item.end_offset = v;
		return 0;
	case F_CHUNK_OFFSET:
		r->item.chunk_offset = v;
		return 0;
	case F_CHUNK_SIZE:
		r->item.chunk_size = v;
		return 0;
	default:
		return corrupt(r, "a number where a string is expected", e);
	}
}

static int xattr_value(struct toc_reader *r, struct err *e)
{
	scoped(buf_fini) struct buf raw = BUF_INIT(TEXT_MAX);
	char nul = 0;

	if (str_unbase64(&raw, r->text.data, r->text.len, e) < 0)
		return corrupt(r, "an extended attribute is not base64", e);
	r->xattr[r->n_xattr - 1].value = r->strings.len;
	r->xattr[r->n_xattr - 1].n = raw.len;
	return buf_add(&r->strings, raw.data, raw.len, e) < 0 ? -1
							      : buf_add(&r->strings, &nul, 1, e);
}

static int xattr_key(struct toc_reader *r, struct err *e)
{
	if (memchr(r->text.data, 0, r->text.len) || !str_utf8_valid(r->text.data, r->text.len))
		return corrupt(r, "an extended attribute's name is not a string", e);
	mem_grow(r->xattr, r->n_xattr, r->cap_xattr);
	return keep(r, &r->xattr[r->n_xattr++].name, e);
}

/* ---- entries */

static void begin_item(struct toc_reader *r)
{
	memset(&r->item, 0, sizeof(r->item));
	buf_reset(&r->strings);
	buf_add(&r->strings, "", 1, NULL); /* 0: the empty string */
	r->name = r->type = r->link = r->user = r->group = 0;
	r->n_xattr = 0;
	r->seen = 0;
	r->field = F_NONE;
}

static int item_type(struct toc_reader *r, struct err *e)
{
	static const char *const names[] = {"reg",   "hardlink", "symlink", "char",
					    "block", "dir",	 "fifo"};
	const char *type = r->strings.data + r->type;

	r->item.chunk = !strcmp(type, "chunk");
	if (r->item.chunk)
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(type, names[i])) {
			r->item.entry.type = (char)('0' + i);
			return 0;
		}
	return corrupt(r, "an entry of unknown type", e);
}

static int end_item(struct toc_reader *r, struct err *e)
{
	scoped_free struct tar_xattr *x = NULL;
	struct tar_entry *n = &r->item.entry;

	if (item_type(r, e) < 0)
		return -1;
	n->name = r->strings.data + r->name;
	n->link = r->strings.data + r->link;
	n->user = r->strings.data + r->user;
	n->group = r->strings.data + r->group;
	n->name_utf8 = true;
	n->index = r->items++;
	x = mem_array(r->n_xattr + 1, sizeof(*x));
	for (size_t i = 0; i < r->n_xattr; i++)
		x[i] = (struct tar_xattr){r->strings.data + r->xattr[i].name,
					  r->strings.data + r->xattr[i].value, r->xattr[i].n};
	n->xattr = x;
	n->n_xattr = r->n_xattr;
	if (!(r->seen & 1u << F_NAME))
		return corrupt(r, "an entry without a name", e);
	return r->on(r->arg, &r->item, e);
}

static int entry_key(struct toc_reader *r, struct err *e)
{
	r->field = F_NONE;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (!strcmp(fields[i].key, r->text.data) && strlen(fields[i].key) == r->text.len)
			r->field = fields[i].field;
	if (r->field != F_NONE && r->seen & 1u << r->field)
		return corrupt(r, "a key occurs twice in an entry", e);
	r->seen |= 1u << r->field;
	return 0;
}

static bool in_entries(const struct toc_reader *r)
{
	return !strcmp(r->top, "entries") && r->nest[1] == '[';
}

static int top_value(struct toc_reader *r, enum token t, struct err *e)
{
	if (!strcmp(r->top, "version")) {
		r->saw_version = true;
		if (t != NUMBER || strcmp(r->text.data, "1") != 0)
			return corrupt(r, "version is not 1", e);
	} else if (!strcmp(r->top, "entries") && t != ARRAY && t != LITERAL) {
		return corrupt(r, "entries is not an array", e);
	} else if (!strcmp(r->top, "tarSplitDigest") && t == STRING) {
		if (digest_parse_n(&r->tarsplit, r->text.data, r->text.len, e) < 0)
			return corrupt(r, "tarSplitDigest is not a digest", e);
	}
	return 0;
}

/* A scalar, or the beginning of an object or array, at the depth it stands in. */
static int on_value(struct toc_reader *r, enum token t, struct err *e)
{
	switch (r->depth) {
	case 0:
		return t == OBJECT ? 0 : corrupt(r, "it is not an object", e);
	case 1:
		return top_value(r, t, e);
	case 2:
		if (!in_entries(r))
			return 0;
		if (t != OBJECT)
			return corrupt(r, "an entry is not an object", e);
		begin_item(r);
		return 0;
	case 3:
		if (!in_entries(r))
			return 0;
		if (r->field == F_XATTRS)
			return t == OBJECT || t == LITERAL
				       ? 0
				       : corrupt(r, "xattrs is not an object", e);
		if (t == STRING)
			return string_value(r, e);
		if (t == NUMBER)
			return number_value(r, e);
		return r->field == F_NONE || t == LITERAL
			       ? 0
			       : corrupt(r, "a value of the wrong kind", e);
	case 4:
		if (!in_entries(r) || r->field != F_XATTRS)
			return 0;
		return t == STRING ? xattr_value(r, e)
				   : corrupt(r, "an extended attribute is not a string", e);
	default:
		return 0;
	}
}

static int on_key(struct toc_reader *r, struct err *e)
{
	if (r->depth == 1) {
		str_copy(r->top, sizeof(r->top), r->text.data);
		if (strcmp(r->top, "entries") != 0)
			return 0;
		if (r->saw_entries)
			return corrupt(r, "entries occurs twice", e);
		r->saw_entries = true;
		return 0;
	}
	if (r->depth == 3 && in_entries(r))
		return entry_key(r, e);
	if (r->depth == 4 && in_entries(r) && r->field == F_XATTRS)
		return xattr_key(r, e);
	return 0;
}

static int push(struct toc_reader *r, char c, struct err *e)
{
	if (on_value(r, c == '{' ? OBJECT : ARRAY, e) < 0)
		return -1;
	if (r->depth == DEPTH_MAX)
		return corrupt(r, "nested too deep", e);
	r->nest[r->depth++] = c;
	r->scan = c == '{' ? FIRST_KEY : FIRST_VALUE;
	return 0;
}

static int pop(struct toc_reader *r, char c, struct err *e)
{
	if (!r->depth || r->nest[r->depth - 1] != (c == '}' ? '{' : '['))
		return corrupt(r, "brackets do not match", e);
	if (r->depth == 3 && c == '}' && in_entries(r) && end_item(r, e) < 0)
		return -1;
	r->depth--;
	r->scan = r->depth ? AFTER : DONE;
	return 0;
}

/* ---- bytes */

static int token_end(struct toc_reader *r, enum token t, struct err *e)
{
	r->scan = t == KEY ? COLON : r->depth ? AFTER : DONE;
	return t == KEY ? on_key(r, e) : on_value(r, t, e);
}

static int add_code(struct toc_reader *r, uint32_t c, struct err *e)
{
	char u[4];
	size_t n = 0;

	if (c < 0x80) {
		u[n++] = (char)c;
	} else if (c < 0x800) {
		u[n++] = (char)(0xc0 | c >> 6);
		u[n++] = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		u[n++] = (char)(0xe0 | c >> 12);
		u[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		u[n++] = (char)(0x80 | (c & 0x3f));
	} else {
		u[n++] = (char)(0xf0 | c >> 18);
		u[n++] = (char)(0x80 | (c >> 12 & 0x3f));
		u[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		u[n++] = (char)(0x80 | (c & 0x3f));
	}
	return buf_add(&r->text, u, n, e);
}

static int unicode(struct toc_reader *r, char c, struct err *e)
{
	unsigned d = c >= '0' && c <= '9'		  ? (unsigned)(c - '0')
		     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (unsigned)((c | 32) - 'a' + 10)
							  : 99;

	if (d > 15)
		return corrupt(r, "a bad \\u escape", e);
	r->code = r->code << 4 | d;
	if (++r->code_digits < 4)
		return 0;
	r->scan = IN_STRING;
	if (r->high && (r->code < 0xdc00 || r->code > 0xdfff))
		return corrupt(r, "half of a surrogate pair", e);
	if (r->high) {
		uint32_t whole = 0x10000 + ((r->high - 0xd800) << 10) + (r->code - 0xdc00);

		r->high = 0;
		return add_code(r, whole, e);
	}
	if (r->code >= 0xd800 && r->code <= 0xdbff) {
		r->high = r->code;
		return 0;
	}
	return r->code >= 0xdc00 && r->code <= 0xdfff ? corrupt(r, "half of a surrogate pair", e)
						      : add_code(r, r->code, e);
}

static int escape(struct toc_reader *r, char c, struct err *e)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p = c ? strchr(from, c) : NULL;

	if (c == 'u') {
		r->scan = UNICODE;
		r->code = r->code_digits = 0;
		return 0;
	}
	if (!p || r->high)
		return corrupt(r, "a bad escape", e);
	r->scan = IN_STRING;
	return buf_add(&r->text, &to[p - from], 1, e);
}

static int in_string(struct toc_reader *r, char c, struct err *e)
{
	if (c == '\\') {
		r->scan = ESCAPE;
		return 0;
	}
	if (r->high)
		return corrupt(r, "half of a surrogate pair", e);
	if (c == '"')
		return token_end(r, r->is_key ? KEY : STRING, e);
	return (unsigned char)c < 0x20 ? corrupt(r, "a control character in a string", e)
				       : buf_add(&r->text, &c, 1, e);
}

static int start_value(struct toc_reader *r, char c, struct err *e)
{
	if (c == '{' || c == '[')
		return push(r, c, e);
	if (c == ']' && r->scan == FIRST_VALUE && r->depth)
		return pop(r, c, e);
	buf_reset(&r->text);
	if (c == '"') {
		r->scan = IN_STRING;
		r->is_key = false;
		return 0;
	}
	r->scan = c == '-' || (c >= '0' && c <= '9') ? IN_NUMBER : IN_WORD;
	if (r->scan == IN_WORD && c != 't' && c != 'f' && c != 'n')
		return corrupt(r, "a value is expected", e);
	return buf_add(&r->text, &c, 1, e);
}

static int after(struct toc_reader *r, char c, struct err *e)
{
	if (c == '}' || c == ']')
		return pop(r, c, e);
	if (c != ',')
		return corrupt(r, "a comma is expected", e);
	r->scan = r->nest[r->depth - 1] == '{' ? NEXT_KEY : VALUE;
	return 0;
}

static int word_end(struct toc_reader *r, struct err *e)
{
	if (r->scan == IN_NUMBER)
		return token_end(r, NUMBER, e);
	if (strcmp(r->text.data, "true") && strcmp(r->text.data, "false") &&
	    strcmp(r->text.data, "null"))
		return corrupt(r, "an unknown word", e);
	return token_end(r, LITERAL, e);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int feed_byte(struct toc_reader *r, char c, struct err *e)
{
	if (r->scan == IN_NUMBER || r->scan == IN_WORD) {
		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '.' || c == 'E' ||
		    c == '+' || c == '-')
			return buf_add(&r->text, &c, 1, e);
		if (word_end(r, e) < 0)
			return -1;
	}
	switch (r->scan) {
	case IN_STRING:
		return in_string(r, c, e);
	case ESCAPE:
		return escape(r, c, e);
	case UNICODE:
		return unicode(r, c, e);
	default:
		break;
	}
	if (is_space(c))
		return 0;
	switch (r->scan) {
	case VALUE:
	case FIRST_VALUE:
		return start_value(r, c, e);
	case FIRST_KEY:
	case NEXT_KEY:
		if (c == '}' && r->scan == FIRST_KEY)
			return pop(r, c, e);
		if (c != '"')
			return corrupt(r, "a key is expected", e);
		buf_reset(&r->text);
		r->is_key = true;
		r->scan = IN_STRING;
		return 0;
	case COLON:
		r->scan = VALUE;
		return c == ':' ? 0 : corrupt(r, "a colon is expected", e);
	case AFTER:
		return after(r, c, e);
	default:
		return corrupt(r, "bytes after the document", e);
	}
}

int toc_reader_feed(struct toc_reader *r, const void *p, size_t n, struct err *e)
{
	const char *s = p;

	for (size_t i = 0; i < n; i++, r->pos++) {
		if (r->scan == IN_STRING && !r->high) { /* the bulk of the text */
			size_t from = i;

			while (i < n && s[i] != '"' && s[i] != '\\' && (unsigned char)s[i] >= 0x20)
				i++;
			r->pos += i - from;
			if (buf_add(&r->text, s + from, i - from, e) < 0)
				return -1;
			if (i == n)
				return 0;
		}
		if (feed_byte(r, s[i], e) < 0)
			return -1;
	}
	return 0;
}

int toc_reader_finish(struct toc_reader *r, struct digest *tarsplit, struct err *e)
{
	if (r->scan != DONE)
		return corrupt(r, "it ends too early", e);
	if (!r->saw_entries || !r->saw_version)
		return corrupt(r, "version or entries is missing", e);
	*tarsplit = r->tarsplit;
	return 0;
}

/* ---- into a table */

static int chunk_of(struct toc_builder *b, const struct toc_item *it, struct err *e)
{
	uint64_t n = it->chunk_size ? it->chunk_size : b->file_left;
	uint32_t chunk;

	if (it->inner_offset)
		return err_set(e, ERR_UNSUPPORTED, "the table of contents uses innerOffset");
	if (it->chunk_offset != b->file_pos || n > b->file_left || !n)
		return err_set(e, ERR_CORRUPT,
			       "%s: a chunk at %" PRIu64 " of %" PRIu64
			       " bytes does not follow the ones before",
			       it->entry.name, it->chunk_offset, n);
	if (it->offset <= b->last_offset)
		return err_set(e, ERR_CORRUPT,
			       "%s: offset %" PRIu64 " does not lie behind %" PRIu64,
			       it->entry.name, it->offset, b->last_offset);
	b->last_offset = it->offset;
	b->file_pos += n;
	b->file_left -= n;
	if (toc_chunk(b->toc, b->id, n, it->zeros, &chunk, e) < 0)
		return -1;
	memcpy(b->chunk_digest, it->has_chunk_digest ? it->chunk_digest : it->digest, 32);
	b->chunks++;
	toc_chunk_landed(b->toc, chunk, it->offset, 0, b->chunk_digest);
	return 0;
}

static int file_done(struct toc_builder *b, struct err *e)
{
	struct digest d = {.alg = DIGEST_SHA256};

	if (!b->open)
		return 0;
	if (b->file_left)
		return err_set(e, ERR_CORRUPT, "a file's chunks end %" PRIu64 " bytes too early",
			       b->file_left);
	b->open = false;
	if (b->chunks == 1 && memcmp(b->digest, b->chunk_digest, 32) != 0)
		return err_set(e, ERR_CORRUPT, "a file of one chunk has two digests");
	memcpy(d.bytes, b->digest, 32);
	return toc_file_end_at(b->toc, b->id, &d, b->end_offset, e);
}

int toc_build(void *arg, const struct toc_item *it, struct err *e)
{
	struct toc_builder *b = arg;

	if (it->chunk)
		return b->open ? chunk_of(b, it, e)
			       : err_set(e, ERR_CORRUPT, "%s: a chunk of no file", it->entry.name);
	if (file_done(b, e) < 0 || toc_add(b->toc, &it->entry, &b->id, e) < 0)
		return -1;
	if (toc_unfit(b->toc))
		return err_set(e, ERR_CORRUPT, "%s", toc_unfit(b->toc));
	if (it->entry.type != '0' || !it->entry.size)
		return 0;
	if (!it->has_digest)
		return err_set(e, ERR_CORRUPT, "%s has no digest", it->entry.name);
	b->open = true;
	b->end_offset = it->end_offset;
	b->chunks = 0;
	memcpy(b->digest, it->digest, 32);
	b->file_left = it->entry.size;
	b->file_pos = 0;
	return chunk_of(b, it, e);
}

int toc_build_end(struct toc_builder *b, struct err *e)
{
	return file_done(b, e);
}
