/* worker/drivers/tocrecord.c - see tocrecord.h.
 *
 * An entry in `arena`:  type, flags, [ref u32], then varints and strings as toc_record_put writes
 * them. */
#include "worker/drivers/tocrecord.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/tar/tar_reader.h"

/* Flags beside TOC_DEAD and TOC_MOVED. */
enum {
	HAS_NS = 2,    /* of mtime */
	HAS_TIMES = 4, /* atime, ctime */
	HAS_XATTR = 8,
	HAS_IDS = 16,
	HAS_NAMES = 32,
};

void toc_records_init(struct toc_records *t)
{
	*t = (struct toc_records){0};
	buf_init(&t->arena, TOC_BYTES_MAX);
	buf_init(&t->strings, TOC_BYTES_MAX);
	table_init(&t->interned);
	buf_add_char(&t->strings, 0, NULL); /* 0: no name */
}

void toc_records_fini(struct toc_records *t)
{
	buf_fini(&t->arena);
	buf_fini(&t->strings);
	table_fini(&t->interned);
}

static int put_varint(struct buf *b, uint64_t v, struct err *e)
{
	uint8_t tmp[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		tmp[n++] = (uint8_t)(v | 0x80);
	tmp[n++] = (uint8_t)v;
	return buf_add(b, tmp, n, e);
}

static int put_signed(struct buf *b, int64_t v, struct err *e)
{
	return put_varint(b, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63), e);
}

static int put_string(struct buf *b, const void *p, size_t n, struct err *e)
{
	return put_varint(b, n, e) < 0 || buf_add(b, p, n, e) < 0 ? -1 : buf_add_char(b, 0, e);
}

static uint64_t get_varint(const uint8_t **p)
{
	uint64_t v = 0;
	unsigned shift = 0;

	while (**p & 0x80) {
		v |= (uint64_t)(*(*p)++ & 0x7f) << shift;
		shift += 7;
	}
	return v | (uint64_t) * (*p)++ << shift;
}

static int64_t get_signed(const uint8_t **p)
{
	uint64_t v = get_varint(p);

	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

const char *toc_record_string(const uint8_t **p, size_t *n)
{
	const char *s;

	*n = get_varint(p);
	s = (const char *)*p;
	*p += *n + 1;
	return s;
}

static bool has_ref(char type)
{
	return type == '0' || type == '1';
}

static uint8_t *record_at(const struct toc_records *t, uint32_t id)
{
	return (uint8_t *)t->arena.data + id;
}

char toc_record_type(const struct toc_records *t, uint32_t id)
{
	return (char)record_at(t, id)[0];
}

uint8_t toc_record_flags(const struct toc_records *t, uint32_t id)
{
	return record_at(t, id)[1];
}

void toc_record_mark(struct toc_records *t, uint32_t id, uint8_t flag)
{
	record_at(t, id)[1] |= flag;
}

uint32_t toc_record_ref(const struct toc_records *t, uint32_t id)
{
	uint32_t ref;

	memcpy(&ref, record_at(t, id) + 2, sizeof(ref));
	return ref;
}

void toc_record_set_ref(struct toc_records *t, uint32_t id, uint32_t ref)
{
	memcpy(record_at(t, id) + 2, &ref, sizeof(ref));
}

const char *toc_record_name(const struct toc_records *t, uint32_t id)
{
	const uint8_t *p = record_at(t, id);
	size_t n;

	p += has_ref((char)p[0]) ? 6 : 2;
	return toc_record_string(&p, &n);
}

void toc_record_decode(const struct toc_records *t, uint32_t id, struct toc_record *r)
{
	const uint8_t *p = record_at(t, id);

	*r = (struct toc_record){
		.id = id, .type = (char)p[0], .flags = p[1], .link = "", .ref = TOC_NONE};
	p += 2;
	if (has_ref(r->type)) {
		r->ref = toc_record_ref(t, id);
		p += 4;
	}
	r->name = toc_record_string(&p, &r->name_n);
	if (r->type == '1' || r->type == '2')
		r->link = toc_record_string(&p, &r->link_n);
	r->mode = get_varint(&p);
	r->mtime = get_signed(&p);
	r->ns = r->flags & HAS_NS ? get_varint(&p) : 0;
	if (r->type == '0')
		r->size = get_varint(&p);
	if (r->type == '3' || r->type == '4') {
		r->dev_major = get_varint(&p);
		r->dev_minor = get_varint(&p);
	}
	if (r->flags & HAS_IDS) {
		r->uid = get_varint(&p);
		r->gid = get_varint(&p);
	}
	if (r->flags & HAS_NAMES) {
		r->user = get_varint(&p);
		r->group = get_varint(&p);
	}
	if (r->flags & HAS_TIMES) {
		/* each is its seconds and 1 + nanoseconds, 0: there is none */
		r->atime = get_signed(&p);
		r->atime_ns = get_varint(&p);
		r->ctime = get_signed(&p);
		r->ctime_ns = get_varint(&p);
	}
	if (r->flags & HAS_XATTR) {
		size_t n;

		r->n_xattr = get_varint(&p);
		r->xattr = p;
		for (uint64_t i = 0; i < 2 * r->n_xattr; i++)
			toc_record_string(&p, &n);
		r->xattr_n = (size_t)(p - r->xattr);
	}
	r->next = (uint32_t)(p - (const uint8_t *)t->arena.data);
}

static bool same_string(const void *ctx, uint32_t at, const void *key, size_t n)
{
	const char *s = ((const struct buf *)ctx)->data + at;

	return !strncmp(s, key, n) && !s[n];
}

/* User and group names are few: each is kept once. */
static int intern(struct toc_records *t, const char *s, uint32_t *last, uint64_t *to, struct err *e)
{
	size_t n = s && str_utf8_valid(s, strlen(s)) ? strlen(s) : 0; /* JSON has no others */
	uint32_t at = (uint32_t)t->strings.len;

	if (!n) {
		*to = 0;
		return 0;
	}
	if (*last && !strcmp(t->strings.data + *last, s)) {
		*to = *last;
		return 0;
	}
	if (!table_find(&t->interned, s, n, same_string, &t->strings, last)) {
		if (buf_add(&t->strings, s, n + 1, e) < 0 ||
		    table_set(&t->interned, s, n, same_string, &t->strings, at, e) < 0)
			return -1;
		*last = at;
	}
	*to = *last;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct tar_xattr *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int put_xattrs(struct toc_records *t, const struct tar_entry *n, struct err *e)
{
	struct buf *b = &t->arena;
	scoped_free struct tar_xattr *x = mem_array(n->n_xattr, sizeof(*x));

	memcpy(x, n->xattr, n->n_xattr * sizeof(*x));
	qsort(x, n->n_xattr, sizeof(*x), by_name);
	if (put_varint(b, n->n_xattr, e) < 0)
		return -1;
	for (size_t i = 0; i < n->n_xattr; i++)
		if (put_string(b, x[i].name, strlen(x[i].name), e) < 0 ||
		    put_string(b, x[i].value, x[i].n, e) < 0)
			return -1;
	return 0;
}

static int put_times(struct buf *b, const struct tar_entry *n, struct err *e)
{
	return put_signed(b, n->has_atime ? n->atime : 0, e) < 0 ||
			       put_varint(b, n->has_atime ? 1u + n->atime_ns : 0, e) < 0 ||
			       put_signed(b, n->has_ctime ? n->ctime : 0, e) < 0 ||
			       put_varint(b, n->has_ctime ? 1u + n->ctime_ns : 0, e) < 0
		       ? -1
		       : 0;
}

int toc_record_put(struct toc_records *t, const struct tar_entry *n, uint32_t ref, bool times,
		   struct err *e)
{
	struct buf *b = &t->arena;
	uint64_t user, group;
	uint8_t head[6] = {(uint8_t)n->type};

	if (intern(t, n->user, &t->last_user, &user, e) < 0 ||
	    intern(t, n->group, &t->last_group, &group, e) < 0)
		return -1;
	head[1] = (uint8_t)((n->mtime_ns ? HAS_NS : 0) |
			    (times && (n->has_atime || n->has_ctime) ? HAS_TIMES : 0) |
			    (n->n_xattr ? HAS_XATTR : 0) | (n->uid || n->gid ? HAS_IDS : 0) |
			    (user || group ? HAS_NAMES : 0));
	memcpy(head + 2, &ref, sizeof(ref));
	if (buf_add(b, head, has_ref(n->type) ? 6 : 2, e) < 0 ||
	    put_string(b, n->name, strlen(n->name), e) < 0)
		return -1;
	if ((n->type == '1' || n->type == '2') && put_string(b, n->link, strlen(n->link), e) < 0)
		return -1;
	if (put_varint(b, n->mode, e) < 0 || put_signed(b, n->mtime, e) < 0 ||
	    (n->mtime_ns && put_varint(b, n->mtime_ns, e) < 0) ||
	    (n->type == '0' && put_varint(b, n->size, e) < 0))
		return -1;
	if ((n->type == '3' || n->type == '4') &&
	    (put_varint(b, n->dev_major, e) < 0 || put_varint(b, n->dev_minor, e) < 0))
		return -1;
	if ((head[1] & HAS_IDS) && (put_varint(b, n->uid, e) < 0 || put_varint(b, n->gid, e) < 0))
		return -1;
	if ((head[1] & HAS_NAMES) && (put_varint(b, user, e) < 0 || put_varint(b, group, e) < 0))
		return -1;
	if ((head[1] & HAS_TIMES) && put_times(b, n, e) < 0)
		return -1;
	return head[1] & HAS_XATTR ? put_xattrs(t, n, e) : 0;
}
