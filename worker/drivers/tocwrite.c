/* worker/drivers/tocwrite.c - see tocwrite.h. */
#include "worker/drivers/tocwrite.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/drivers/table.h"
#include "worker/drivers/tocrecord.h"

#define OUT_BYTES (64u << 10)

struct owners { /* the name last written for an id */
	struct table ids;
	struct buf list; /* struct owner */
};
struct owner {
	uint64_t id;
	uint64_t name;
};

struct writer {
	struct toc *t;
	toc_put *put;
	void *arg;
	struct err *e;
	bool failed;
	uint64_t items;
	size_t n;
	struct owners users, groups;
	char out[OUT_BYTES];
};

static void flush(struct writer *w)
{
	if (!w->failed && w->n && w->put(w->arg, w->out, w->n, w->e) < 0)
		w->failed = true;
	w->n = 0;
}

static void text_n(struct writer *w, const char *p, size_t n)
{
	while (n) {
		size_t part = n < OUT_BYTES - w->n ? n : OUT_BYTES - w->n;

		memcpy(w->out + w->n, p, part);
		w->n += part;
		p += part;
		n -= part;
		if (w->n == OUT_BYTES)
			flush(w);
	}
}

static void text(struct writer *w, const char *s)
{
	text_n(w, s, strlen(s));
}

static void number(struct writer *w, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + v % 10);
	while (v /= 10);
	text_n(w, digits + at, sizeof(digits) - at);
}

/* As Go's encoder, so that digests of small tables can be compared by eye: also <, > and & are
 * escaped. */
static void quoted(struct writer *w, const char *s, size_t n)
{
	size_t from = 0;

	text_n(w, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		char esc[8];

		if (c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&')
			continue;
		text_n(w, s + from, i - from);
		from = i + 1;
		if (c == '"' || c == '\\')
			snprintf(esc, sizeof(esc), "\\%c", c);
		else
			snprintf(esc, sizeof(esc), "\\u%04x", c);
		text(w, esc);
	}
	text_n(w, s + from, n - from);
	text_n(w, "\"", 1);
}

static void key_text(struct writer *w, const char *key, const char *s, size_t n)
{
	text(w, key);
	quoted(w, s, n);
}

static void key_number(struct writer *w, const char *key, uint64_t v)
{
	if (!v)
		return;
	text(w, key);
	number(w, v);
}

static void key_sha256(struct writer *w, const char *key, const uint8_t hash[32])
{
	char hex[65];

	str_hex(hex, hash, 32);
	text(w, key);
	text(w, "\"sha256:");
	text_n(w, hex, 64);
	text_n(w, "\"", 1);
}

static void key_time(struct writer *w, const char *key, int64_t s, uint64_t ns)
{
	char when[64], *end;
	struct tm tm;
	time_t c = (time_t)s;

	if (!toc_year_fits(s) || !gmtime_r(&c, &tm))
		return;
	end = when + snprintf(when, sizeof(when) - 16, "%04d-%02d-%02dT%02d:%02d:%02d",
			      tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
			      tm.tm_sec);
	if (ns) {
		end += sprintf(end, ".%09u", (unsigned)ns);
		while (end[-1] == '0')
			*--end = 0;
	}
	strcpy(end, "Z");
	text(w, key);
	text_n(w, "\"", 1);
	text(w, when);
	text_n(w, "\"", 1);
}

static bool same_owner(const void *ctx, uint32_t i, const void *key, size_t n)
{
	const struct owner *o =
		(const struct owner *)(const void *)((const struct buf *)ctx)->data + i;

	return !memcmp(&o->id, key, n);
}

/* Only where it differs from what was last written for this id: readers carry it on. */
static void key_owner(struct writer *w, const char *key, struct owners *x, uint64_t id,
		      uint64_t name)
{
	struct owner o = {id, name}, *known;
	uint32_t i = (uint32_t)(x->list.len / sizeof(o));

	if (!name)
		return;
	if (table_find(&x->ids, &id, sizeof(id), same_owner, &x->list, &i)) {
		known = (struct owner *)(void *)x->list.data + i;
		if (known->name == name)
			return;
		known->name = name;
	} else if (buf_add(&x->list, &o, sizeof(o), w->e) < 0 ||
		   table_set(&x->ids, &id, sizeof(id), same_owner, &x->list, i, w->e) < 0) {
		w->failed = true;
		return;
	}
	key_text(w, key, toc_owner(w->t, name), strlen(toc_owner(w->t, name)));
}

static void xattrs(struct writer *w, const struct toc_record *r)
{
	scoped(buf_fini) struct buf b64 = BUF_INIT(TOC_BYTES_MAX);
	const uint8_t *p = r->xattr;

	if (!r->n_xattr)
		return;
	text(w, ",\"xattrs\":{");
	for (uint64_t i = 0; i < r->n_xattr; i++) {
		size_t n;
		const char *s = toc_record_string(&p, &n);

		if (i)
			text_n(w, ",", 1);
		quoted(w, s, n);
		s = toc_record_string(&p, &n);
		buf_reset(&b64);
		if (str_base64(&b64, s, n, w->e) < 0)
			w->failed = true;
		key_text(w, ":", b64.data, b64.len);
	}
	text_n(w, "}", 1);
}

static const char *type_name(char type)
{
	static const char *const names[] = {"reg",   "hardlink", "symlink", "char",
					    "block", "dir",	 "fifo"};

	assert(type >= '0' && type <= '6');
	return names[type - '0'];
}

static const uint8_t empty_sha256[32] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14,
					 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
					 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
					 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};

/* The chunks of a file of more than one; and the digest of all of it. */
static const struct toc_chunk *whole_of(const struct toc *t, const struct toc_record *r)
{
	const struct toc_chunk *c = toc_chunks(t, r);

	while (!c->last)
		c++;
	return c == toc_chunks(t, r) && toc_form(t) == TOC_ESTARGZ ? c : c + 1;
}

/* estargz.md §4: the last, shorter chunk tells no size. */
static uint64_t estargz_chunk_size(const struct toc *t, const struct toc_chunk *c)
{
	return c->size == toc_full_chunk(t) ? c->size : 0;
}

static void estargz_chunks(struct writer *w, const struct toc_record *r, const char *name,
			   size_t name_n)
{
	const struct toc_chunk *c = toc_chunks(w->t, r);
	uint64_t at = 0;

	key_number(w, ",\"chunkSize\":", estargz_chunk_size(w->t, c));
	key_sha256(w, ",\"chunkDigest\":", c->hash);
	while (!c->last) {
		at += c->size;
		c++;
		w->items++;
		key_text(w, "},{\"name\":", name, name_n);
		text(w, ",\"type\":\"chunk\"");
		key_number(w, ",\"offset\":", c->offset);
		key_number(w, ",\"chunkOffset\":", at);
		key_number(w, ",\"chunkSize\":", estargz_chunk_size(w->t, c));
		key_sha256(w, ",\"chunkDigest\":", c->hash);
	}
}

static void estargz_entry(struct writer *w, const struct toc_record *r, const char *name,
			  size_t name_n)
{
	struct toc *t = w->t;
	int64_t rounded = r->mtime + (r->ns >= 500000000);
	struct slice link = toc_link_name(t, r);

	key_text(w, "{\"name\":", name, name_n);
	key_text(w, ",\"type\":", type_name(r->type), strlen(type_name(r->type)));
	key_number(w, ",\"size\":", r->size);
	if (r->mtime != 0)
		key_time(w, ",\"modtime\":", rounded, 0);
	if (link.n)
		key_text(w, ",\"linkName\":", link.p, link.n);
	key_number(w, ",\"mode\":", r->mode);
	key_number(w, ",\"uid\":", r->uid);
	key_number(w, ",\"gid\":", r->gid);
	key_owner(w, ",\"userName\":", &w->users, r->uid, r->user);
	key_owner(w, ",\"groupName\":", &w->groups, r->gid, r->group);
	if (r->size)
		key_number(w, ",\"offset\":", toc_chunks(t, r)->offset);
	key_number(w, ",\"devMajor\":", r->dev_major);
	key_number(w, ",\"devMinor\":", r->dev_minor);
	xattrs(w, r);
	if (r->type == '0')
		key_sha256(w, ",\"digest\":", r->size ? whole_of(t, r)->hash : empty_sha256);
	if (r->size)
		estargz_chunks(w, r, name, name_n);
}

static void podman_chunk(struct writer *w, const struct toc_chunk *c, uint64_t at, uint64_t end,
			 bool alone)
{
	key_number(w, ",\"offset\":", c->offset);
	key_number(w, ",\"endOffset\":", end);
	if (!alone)
		key_number(w, ",\"chunkSize\":", c->size);
	key_number(w, ",\"chunkOffset\":", at);
	if (!alone || toc_form(w->t) == TOC_BOTH) /* containerd's reader wants one on every chunk */
		key_sha256(w, ",\"chunkDigest\":", c->hash);
	if (!alone && c->zeros)
		text(w, ",\"chunkType\":\"zeros\"");
}

static void podman_chunks(struct writer *w, const struct toc_record *r)
{
	const struct toc_chunk *c = toc_chunks(w->t, r);
	const struct toc_chunk *whole = whole_of(w->t, r);
	uint64_t at = 0;

	key_sha256(w, ",\"digest\":", c->last ? c->hash : whole->hash);
	podman_chunk(w, c, 0, whole->offset, c->last);
	while (!c->last) {
		at += c->size;
		c++;
		w->items++;
		key_text(w, "},{\"type\":\"chunk\",\"name\":", r->name, r->name_n);
		podman_chunk(w, c, at, 0, false);
	}
}

static void podman_entry(struct writer *w, const struct toc_record *r)
{
	struct slice link = toc_link_name(w->t, r);

	key_text(w, "{\"type\":", type_name(r->type), strlen(type_name(r->type)));
	key_text(w, ",\"name\":", r->name, r->name_n);
	if (link.n)
		key_text(w, ",\"linkName\":", link.p, link.n);
	key_number(w, ",\"mode\":", r->mode);
	key_number(w, ",\"size\":", r->size);
	key_number(w, ",\"uid\":", r->uid);
	key_number(w, ",\"gid\":", r->gid);
	if (toc_form(w->t) == TOC_BOTH) {
		key_owner(w, ",\"userName\":", &w->users, r->uid, r->user);
		key_owner(w, ",\"groupName\":", &w->groups, r->gid, r->group);
	}
	key_time(w, ",\"modtime\":", r->mtime, r->ns);
	if (r->atime_ns)
		key_time(w, ",\"accesstime\":", r->atime, r->atime_ns - 1);
	if (r->ctime_ns)
		key_time(w, ",\"changetime\":", r->ctime, r->ctime_ns - 1);
	key_number(w, ",\"devMajor\":", r->dev_major);
	key_number(w, ",\"devMinor\":", r->dev_minor);
	xattrs(w, r);
	if (r->size)
		podman_chunks(w, r);
}

static void entry(struct writer *w, const struct toc_record *r, const char *name, size_t name_n)
{
	if (w->items++)
		text_n(w, ",", 1);
	if (toc_form(w->t) == TOC_ESTARGZ)
		estargz_entry(w, r, name, name_n);
	else
		podman_entry(w, r);
	text_n(w, "}", 1);
}

static void entries(struct writer *w)
{
	struct slice name;
	struct toc_record r;
	uint32_t at = 0;

	while (!w->failed && toc_next(w->t, &at, &r, &name))
		entry(w, &r, name.p, name.n);
}

static void owners_init(struct owners *x)
{
	table_init(&x->ids);
	buf_init(&x->list, TOC_BYTES_MAX);
}

static void owners_fini(struct owners *x)
{
	table_fini(&x->ids);
	buf_fini(&x->list);
}

int toc_write(struct toc *t, const char *tail, toc_put *put, void *arg, uint64_t *items,
	      struct err *e)
{
	scoped_free struct writer *w = mem_alloc(sizeof(*w));

	assert(!toc_unfit(t));
	*w = (struct writer){.t = t, .put = put, .arg = arg, .e = e};
	owners_init(&w->users);
	owners_init(&w->groups);
	text(w, "{\"version\":1,\"entries\":[");
	entries(w);
	text(w, "]");
	if (tail) {
		text(w, ",");
		text(w, tail);
	}
	text(w, "}");
	flush(w);
	owners_fini(&w->users);
	owners_fini(&w->groups);
	if (w->failed)
		return -1;
	if (items)
		*items = w->items;
	return 0;
}
