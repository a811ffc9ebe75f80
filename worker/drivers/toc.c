/* worker/drivers/toc.c - see toc.h.
 *
 * An entry in `arena`:  type, flags, [ref u32], then varints and strings as put_record writes them.
 * Its id is its place there.  ref of a file: its first chunk; of a hard link: the id of the entry
 * at the end of its chain, or NONE. */
#include "worker/drivers/toc.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/drivers/table.h"
#include "worker/tar/tar_reader.h"

#define NONE UINT32_MAX
#define RECORDS_MAX ((size_t)1 << 30)

enum {
	DEAD = 1,      /* replaced, or below something that was */
	HAS_NS = 2,    /* of mtime */
	HAS_TIMES = 4, /* atime, ctime */
	HAS_XATTR = 8,
	HAS_IDS = 16,
	HAS_NAMES = 32,
	MOVED = 64, /* a hard link that is written in the place of its dead target */
};

struct chunk {
	uint64_t offset;
	uint64_t size : 61, zeros : 1, last : 1,
		whole : 1; /* whole: no chunk, but the file: digest, end */
	uint8_t hash[32];
};

struct pair { /* of ids, sorted by from */
	uint32_t from, to;
};

struct toc {
	enum toc_form form;
	uint64_t chunk_size;
	struct buf arena, chunks, strings;
	struct table names, interned;
	struct buf clean_a, clean_b; /* scratch */
	struct buf parent;	     /* the parent that was last found to be a directory */
	bool parent_known;
	bool whiteouts;			/* there was one */
	struct buf other;		/* scratch of check_whiteout */
	uint32_t last_user, last_group; /* in strings */
	struct pair *subst;		/* a dead file, the link that takes its place */
	size_t n_subst, cap_subst;
	struct pair *cuts; /* a directory, what else its name meant before: older things below it
			      are gone */
	size_t n_cuts, cap_cuts;
	uint64_t written;
	char unfit[160];
};

/* A record, decoded. */
struct record {
	uint32_t id, next;
	char type;
	uint8_t flags;
	uint32_t ref;
	const char *name, *link; /* end in NUL */
	size_t name_n, link_n;
	uint64_t mode, uid, gid, user, group, size, dev_major, dev_minor, ns, atime_ns, ctime_ns;
	int64_t mtime, atime, ctime;
	uint64_t n_xattr;
	const uint8_t *xattr;
};

struct toc *toc_new(enum toc_form form, uint64_t chunk_size)
{
	struct toc *t = mem_zalloc(sizeof(*t));

	t->form = form;
	t->chunk_size = chunk_size;
	buf_init(&t->arena, RECORDS_MAX);
	buf_init(&t->chunks, RECORDS_MAX);
	buf_init(&t->strings, RECORDS_MAX);
	buf_init(&t->clean_a, RECORDS_MAX);
	buf_init(&t->clean_b, RECORDS_MAX);
	buf_init(&t->parent, RECORDS_MAX);
	buf_init(&t->other, RECORDS_MAX);
	table_init(&t->names);
	table_init(&t->interned);
	buf_add_char(&t->strings, 0, NULL); /* 0: no name */
	return t;
}

void toc_freep(struct toc **tt)
{
	struct toc *t = take_ptr(*tt);

	if (!t)
		return;
	buf_fini(&t->arena);
	buf_fini(&t->chunks);
	buf_fini(&t->strings);
	buf_fini(&t->clean_a);
	buf_fini(&t->clean_b);
	buf_fini(&t->parent);
	buf_fini(&t->other);
	table_fini(&t->names);
	table_fini(&t->interned);
	free(t->subst);
	free(t->cuts);
	free(t);
}

void toc_spoil(struct toc *t, const char *fmt, ...)
{
	va_list ap;

	if (t->unfit[0])
		return;
	va_start(ap, fmt);
	vsnprintf(t->unfit, sizeof(t->unfit), fmt, ap);
	va_end(ap);
	str_clean(t->unfit);
}

bool toc_empty(const struct toc *t)
{
	return t->arena.len == 0;
}

const char *toc_unfit(const struct toc *t)
{
	return t->unfit[0] ? t->unfit : NULL;
}

/* ---- names */

/* Most names are clean already: then nothing is copied. */
static bool is_clean(const char *s)
{
	if (*s == '/' || !*s)
		return !*s;
	for (const char *p = s; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (*p == '/' || *p == 0 || (p[0] == '.' && (p[1] == '/' || p[1] == 0)) ||
		    (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0)))
			return false;
	}
	return true;
}

static int clean(struct buf *scratch, const char *name, struct slice *to, struct err *e)
{
	size_t n;

	if (is_clean(name)) {
		*to = slice_of(name);
		return 0;
	}
	buf_reset(scratch);
	if (buf_reserve(scratch, strlen(name) + 1, e) < 0)
		return -1;
	n = tar_clean_name(name, scratch->data, strlen(name) + 1);
	*to = (struct slice){scratch->data, n};
	return 0;
}

bool toc_reserved(const char *name)
{
	char text[32];

	return tar_clean_name(name, text, sizeof(text)) < sizeof(text) &&
	       (!strcmp(text, LANDMARK_PREFETCH) || !strcmp(text, LANDMARK_NONE) ||
		!strcmp(text, TOC_NAME));
}

/* ---- records */

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

static const char *get_string(const uint8_t **p, size_t *n)
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

static uint8_t *record_at(const struct toc *t, uint32_t id)
{
	return (uint8_t *)t->arena.data + id;
}

static uint32_t ref_of(const struct toc *t, uint32_t id)
{
	uint32_t ref;

	memcpy(&ref, record_at(t, id) + 2, sizeof(ref));
	return ref;
}

static void set_ref(struct toc *t, uint32_t id, uint32_t ref)
{
	memcpy(record_at(t, id) + 2, &ref, sizeof(ref));
}

static const char *name_of(const struct toc *t, uint32_t id)
{
	const uint8_t *p = record_at(t, id);
	size_t n;

	p += has_ref((char)p[0]) ? 6 : 2;
	return get_string(&p, &n);
}

static void decode(const struct toc *t, uint32_t id, struct record *r)
{
	const uint8_t *p = record_at(t, id);

	*r = (struct record){.id = id, .type = (char)p[0], .flags = p[1], .link = "", .ref = NONE};
	p += 2;
	if (has_ref(r->type)) {
		r->ref = ref_of(t, id);
		p += 4;
	}
	r->name = get_string(&p, &r->name_n);
	if (r->type == '1' || r->type == '2')
		r->link = get_string(&p, &r->link_n);
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
			get_string(&p, &n);
	}
	r->next = (uint32_t)(p - (const uint8_t *)t->arena.data);
}

static bool same_string(const void *ctx, uint32_t at, const void *key, size_t n)
{
	const char *s = ((const struct buf *)ctx)->data + at;

	return !strncmp(s, key, n) && !s[n];
}

/* User and group names are few: each is kept once. */
static int intern(struct toc *t, const char *s, uint32_t *last, uint64_t *to, struct err *e)
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

static int put_xattrs(struct toc *t, const struct tar_entry *n, struct err *e)
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

static int put_record(struct toc *t, const struct tar_entry *n, uint32_t ref, struct err *e)
{
	struct buf *b = &t->arena;
	uint64_t user, group;
	uint8_t head[6] = {(uint8_t)n->type};
	bool podman = t->form != TOC_ESTARGZ;

	if (intern(t, n->user, &t->last_user, &user, e) < 0 ||
	    intern(t, n->group, &t->last_group, &group, e) < 0)
		return -1;
	head[1] = (uint8_t)((n->mtime_ns ? HAS_NS : 0) |
			    (podman && (n->has_atime || n->has_ctime) ? HAS_TIMES : 0) |
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

/* ---- one entry after the other */

struct same_name {
	const struct toc *t;
	struct buf *scratch;
};

static bool same_name(const void *ctx, uint32_t id, const void *key, size_t n)
{
	const struct same_name *x = ctx;
	struct slice s;

	return clean(x->scratch, name_of(x->t, id), &s, NULL) == 0 && s.n == n &&
	       !memcmp(s.p, key, n);
}

/* The entry that a clean name means now. */
static bool lookup(struct toc *t, struct slice name, uint32_t *id)
{
	struct same_name x = {t, &t->clean_b};

	return table_find(&t->names, name.p, name.n, same_name, &x, id);
}

static char type_of(const struct toc *t, uint32_t id)
{
	return (char)record_at(t, id)[0];
}

static struct slice parent_of(struct slice name)
{
	while (name.n && name.p[name.n - 1] != '/')
		name.n--;
	if (name.n)
		name.n--;
	return name;
}

/* *name becomes its nearest recorded ancestor below the root; false: all are implied. */
static bool ancestor(struct toc *t, struct slice *name, uint32_t *id)
{
	while ((*name = parent_of(*name)).n)
		if (lookup(t, *name, id))
			return true;
	return false;
}

/* A tar may put a file below what is no directory: unpacking follows a symbolic link there (or
 * fails), the lazy tree would not.  A directory that is not listed, or only later, podman's partial
 * pull makes without any permission, and two of its threads that make it at once fail the pull. */
static int check_parent(struct toc *t, struct slice name, struct err *e)
{
	struct slice parent = parent_of(name), up = name;
	uint32_t id;

	if (t->parent_known && parent.n == t->parent.len &&
	    !memcmp(parent.p, t->parent.data, parent.n))
		return 0;
	if (ancestor(t, &up, &id) && type_of(t, id) != '5') {
		toc_spoil(t, "%.*s lies below %s, which is not a directory", (int)name.n, name.p,
			  name_of(t, id));
		return 0;
	}
	if (t->form != TOC_ESTARGZ && up.n != parent.n)
		toc_spoil(t, "%.*s has no entry before what it holds", (int)parent.n, parent.p);
	buf_reset(&t->parent);
	t->parent_known = true;
	return buf_add(&t->parent, parent.p, parent.n, e);
}

static void forget_parent(struct toc *t, struct slice name)
{
	if (name.n <= t->parent.len && !memcmp(name.p, t->parent.data, name.n))
		t->parent_known = false;
}

/* What a hard link means at this place of the tar: the entry at the end of the chain. */
static int resolve(struct toc *t, const struct tar_entry *n, uint32_t *root, struct err *e)
{
	struct slice link;

	*root = NONE;
	if (n->type != '1')
		return 0;
	if (toc_reserved(n->link))
		return err_set(e, ERR_UNSUPPORTED,
			       "%s is a hard link to %s, a name that the format keeps for itself",
			       n->name, n->link);
	if (clean(&t->clean_a, n->link, &link, e) < 0)
		return -1;
	if (lookup(t, link, root) && type_of(t, *root) == '1')
		*root = ref_of(t, *root);
	if (*root != NONE && type_of(t, *root) == '5')
		toc_spoil(t, "%s is a hard link to the directory %s", n->name, n->link);
	return 0;
}

static bool year_fits(int64_t t)
{
	return t >= -62167219200 && t <= 253402300799; /* 0000 .. 9999 */
}

/* podman applies entries in order: "x" and ".wh.x" in one layer fail its pull. */
static int check_whiteout(struct toc *t, const struct tar_entry *n, struct slice name,
			  struct err *e)
{
	struct slice dir = parent_of(name), other;
	size_t from = dir.n ? dir.n + 1 : 0, base_n = name.n - from;
	const char *base = name.p + from;
	bool whiteout = base_n > 4 && !memcmp(base, ".wh.", 4);
	uint32_t id;

	if (whiteout && n->size) /* its bytes are nowhere when they are read back */
		toc_spoil(t, "%s is a whiteout and has contents", n->name);
	if (whiteout && base_n > 8 && !memcmp(base, ".wh..wh.", 8))
		return 0;
	t->whiteouts = t->whiteouts || whiteout;
	if (!t->whiteouts)
		return 0;
	buf_reset(&t->other);
	if (buf_add(&t->other, name.p, from, e) < 0 ||
	    buf_add(&t->other, ".wh.", whiteout ? 0 : 4, e) < 0 ||
	    buf_add(&t->other, base + (whiteout ? 4 : 0), base_n - (whiteout ? 4 : 0), e) < 0)
		return -1;
	other = (struct slice){t->other.data, t->other.len};
	if (lookup(t, other, &id))
		toc_spoil(t, "%s is removed and made in the same layer", n->name);
	return 0;
}

/* zstd-chunked.md §3.6: what podman's readers refuse, although an ordinary pull takes it. */
static void check_podman(struct toc *t, const struct tar_entry *n, bool seen)
{
	if (seen)
		toc_spoil(t, "%s occurs twice", n->name);
	if (n->sparse)
		toc_spoil(t, "%s is a sparse file", n->name);
	if (n->type == '0' && n->size && *n->name && n->name[strlen(n->name) - 1] == '/')
		toc_spoil(t, "%s is a file and is spelled as a directory", n->name);
	if (n->odd) /* they compare the table with every field of the header */
		toc_spoil(t, "the header of %s has %s", n->name, n->odd);
	if (!year_fits(n->mtime) || (n->has_atime && !year_fits(n->atime)) ||
	    (n->has_ctime && !year_fits(n->ctime)))
		toc_spoil(t, "%s has a time outside the years 0 to 9999", n->name);
	for (const char *p = n->name; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]))
			toc_spoil(t, "%s holds \"..\"", n->name);
	}
}

static void check_texts(struct toc *t, const struct tar_entry *n)
{
	if (!n->name_utf8)
		toc_spoil(t, "the name %s is not UTF-8", n->name);
	for (size_t i = 0; i < n->n_xattr; i++)
		if (!str_utf8_valid(n->xattr[i].name, strlen(n->xattr[i].name)))
			toc_spoil(t, "%s has an extended attribute whose name is not UTF-8",
				  n->name);
}

static const struct pair *find_pair(const struct pair *list, size_t n, uint32_t from)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (list[mid].from < from)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && list[lo].from == from ? &list[lo] : NULL;
}

static void replace(struct toc *t, uint32_t before, uint32_t id, char type)
{
	const struct pair *older = find_pair(t->cuts, t->n_cuts, before);
	bool was_dir = type_of(t, before) == '5';

	record_at(t, before)[1] |= DEAD;
	if (type != '5' || (was_dir && !older))
		return;
	mem_grow(t->cuts, t->n_cuts, t->cap_cuts);
	t->cuts[t->n_cuts++] = (struct pair){id, was_dir ? older->to : before};
}

int toc_add(struct toc *t, const struct tar_entry *n, uint32_t *id, struct err *e)
{
	struct same_name x = {t, &t->clean_b};
	struct slice name;
	uint32_t before = NONE, root;
	bool seen;

	*id = NONE;
	check_texts(t, n);
	if (resolve(t, n, &root, e) < 0 || clean(&t->clean_a, n->name, &name, e) < 0)
		return -1;
	seen = lookup(t, name, &before);
	if (!name.n && n->type != '5')
		toc_spoil(t, "\"%s\" is the root and no directory", n->name);
	if (t->form != TOC_ESTARGZ) {
		check_podman(t, n, seen);
		if (check_whiteout(t, n, name, e) < 0)
			return -1;
	}
	if (check_parent(t, name, e) < 0)
		return -1;
	if (toc_unfit(t))
		return 0;
	if (t->arena.len >= NONE - 1)
		return err_set(e, ERR_LIMIT, "more than 4 GiB of entries");
	if (n->type != '5')
		forget_parent(t, name);
	*id = (uint32_t)t->arena.len;
	if (seen)
		replace(t, before, *id, n->type);
	if (put_record(t, n, root, e) < 0)
		return -1;
	return table_set(&t->names, name.p, name.n, same_name, &x, *id, e);
}

/* ---- chunks */

static struct chunk *chunk_at(const struct toc *t, uint32_t i)
{
	return (struct chunk *)(void *)t->chunks.data + i;
}

static int add_chunk(struct toc *t, const struct chunk *c, uint32_t *i, struct err *e)
{
	*i = (uint32_t)(t->chunks.len / sizeof(*c));
	return buf_add(&t->chunks, c, sizeof(*c), e);
}

int toc_chunk(struct toc *t, uint32_t id, uint64_t size, bool zeros, uint32_t *chunk, struct err *e)
{
	struct chunk c = {.size = size, .zeros = zeros};

	if (add_chunk(t, &c, chunk, e) < 0)
		return -1;
	if (ref_of(t, id) == NONE)
		set_ref(t, id, *chunk);
	return 0;
}

int toc_file_end(struct toc *t, uint32_t id, const struct digest *whole, struct err *e)
{
	uint32_t n = (uint32_t)(t->chunks.len / sizeof(struct chunk)), i;
	struct chunk c = {.whole = 1};

	assert(n && ref_of(t, id) < n);
	chunk_at(t, n - 1)->last = 1;
	if (!whole && t->form == TOC_ESTARGZ)
		return 0;
	if (whole)
		memcpy(c.hash, whole->bytes, sizeof(c.hash));
	return add_chunk(t, &c, &i, e);
}

int toc_file_end_at(struct toc *t, uint32_t id, const struct digest *whole, uint64_t end,
		    struct err *e)
{
	struct chunk c = {.whole = 1, .offset = end};
	uint32_t i = (uint32_t)(t->chunks.len / sizeof(c));

	assert(i && ref_of(t, id) < i);
	chunk_at(t, i - 1)->last = 1;
	memcpy(c.hash, whole->bytes, sizeof(c.hash));
	return add_chunk(t, &c, &i, e);
}

void toc_chunk_hash(struct toc *t, uint32_t i, const uint8_t hash[32])
{
	memcpy(chunk_at(t, i)->hash, hash, 32);
}

void toc_chunk_size(struct toc *t, uint32_t i, uint64_t size)
{
	chunk_at(t, i)->size = size & (((uint64_t)1 << 61) - 1);
}

void toc_chunk_end(struct toc *t, uint32_t i, uint64_t end)
{
	struct chunk *c = chunk_at(t, i);

	if (c->last && t->form != TOC_ESTARGZ)
		c[1].offset = end;
}

void toc_chunk_landed(struct toc *t, uint32_t i, uint64_t offset, uint64_t stored,
		      const uint8_t *hash)
{
	struct chunk *c = chunk_at(t, i);

	c->offset = offset;
	if (hash)
		memcpy(c->hash, hash, sizeof(c->hash));
	toc_chunk_end(t, i, offset + stored);
}

/* ---- the end of the tar */

/* Something on the way to this entry is no directory any more, or was none in between. */
static bool taken_away(struct toc *t, uint32_t at, struct slice name)
{
	const struct pair *cut;
	uint32_t id;

	while (ancestor(t, &name, &id)) {
		if (type_of(t, id) != '5')
			return true;
		cut = find_pair(t->cuts, t->n_cuts, id);
		if (cut && cut->to > at)
			return true;
	}
	return false;
}

/* Unpacking a file over a directory removes all that was in it. */
static int sweep(struct toc *t, struct err *e)
{
	struct slice parent, name;
	struct record r;

	t->parent_known = false;
	for (uint32_t at = 0; at < t->arena.len; at = r.next) {
		decode(t, at, &r);
		if (r.flags & DEAD)
			continue;
		if (clean(&t->clean_a, r.name, &name, e) < 0)
			return -1;
		parent = parent_of(name);
		if (t->parent_known && parent.n == t->parent.len &&
		    !memcmp(parent.p, t->parent.data, parent.n))
			continue;
		t->parent_known = !taken_away(t, at, name);
		if (!t->parent_known)
			record_at(t, at)[1] |= DEAD;
		buf_reset(&t->parent);
		if (t->parent_known && buf_add(&t->parent, parent.p, parent.n, e) < 0)
			return -1;
	}
	return 0;
}

static int by_from(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	return x->from != y->from ? (x->from < y->from ? -1 : 1)
				  : (x->to < y->to ? -1 : x->to > y->to);
}

static bool is_special(char type)
{
	return type == '3' || type == '4' || type == '6';
}

/* Hard links whose target came later, or was replaced. */
static int settle_links(struct toc *t, struct err *e)
{
	struct slice link;
	struct record r;
	size_t n = 0;

	for (uint32_t at = 0; at < t->arena.len; at = r.next) {
		decode(t, at, &r);
		if (r.type != '1' || (r.flags & DEAD))
			continue;
		for (int depth = 0; r.ref == NONE && depth < 64; depth++) {
			uint32_t id;

			if (clean(&t->clean_a, r.link, &link, e) < 0)
				return -1;
			if (!lookup(t, link, &id) || id == at)
				break;
			r.ref = type_of(t, id) == '1' ? ref_of(t, id) : id;
			if (r.ref == NONE) { /* a link to a link that is still open */
				struct record other;

				decode(t, id, &other);
				r.link = other.link;
			}
		}
		if (r.ref == NONE || type_of(t, r.ref) == '5') {
			toc_spoil(t, "%s is a hard link to %s, which is not in this layer", r.name,
				  r.link);
			return 0;
		}
		if (t->form != TOC_ESTARGZ && is_special(type_of(t, r.ref)))
			toc_spoil(t, "%s is a hard link to %s, which is not made by a partial pull",
				  r.name, name_of(t, r.ref));
		set_ref(t, at, r.ref);
		if (record_at(t, r.ref)[1] & DEAD) {
			mem_grow(t->subst, t->n_subst, t->cap_subst);
			t->subst[t->n_subst++] = (struct pair){r.ref, at};
		}
	}
	if (!t->n_subst)
		return 0;
	qsort(t->subst, t->n_subst, sizeof(*t->subst), by_from);
	for (size_t i = 0; i < t->n_subst; i++) /* the first link to each takes its place */
		if (!n || t->subst[n - 1].from != t->subst[i].from) {
			t->subst[n++] = t->subst[i];
			record_at(t, t->subst[n - 1].to)[1] |= MOVED;
		}
	t->n_subst = n;
	return 0;
}

int toc_seal(struct toc *t, struct err *e)
{
	if (toc_unfit(t))
		return 0;
	return sweep(t, e) < 0 ? -1 : settle_links(t, e);
}

/* The link that is written in the place of a dead file. */
static const struct pair *find_subst(const struct toc *t, uint32_t root)
{
	return find_pair(t->subst, t->n_subst, root);
}

/* ---- JSON */

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

	if (!year_fits(s) || !gmtime_r(&c, &tm))
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
	key_text(w, key, w->t->strings.data + name, strlen(w->t->strings.data + name));
}

static void xattrs(struct writer *w, const struct record *r)
{
	scoped(buf_fini) struct buf b64 = BUF_INIT(RECORDS_MAX);
	const uint8_t *p = r->xattr;

	if (!r->n_xattr)
		return;
	text(w, ",\"xattrs\":{");
	for (uint64_t i = 0; i < r->n_xattr; i++) {
		size_t n;
		const char *s = get_string(&p, &n);

		if (i)
			text_n(w, ",", 1);
		quoted(w, s, n);
		s = get_string(&p, &n);
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

/* What hard links of the table point at: a name that means the same file at the end. */
static struct slice link_name(struct toc *t, const struct record *r)
{
	const struct pair *s;
	struct slice spelled;
	uint32_t id;

	if (r->type != '1')
		return (struct slice){r->link, r->link_n};
	s = record_at(t, r->ref)[1] & DEAD ? find_subst(t, r->ref) : NULL;
	if (s)
		return slice_of(name_of(t, s->to));
	if (clean(&t->clean_a, r->link, &spelled, NULL) == 0 && lookup(t, spelled, &id) &&
	    (id == r->ref || (type_of(t, id) == '1' && ref_of(t, id) == r->ref)))
		return (struct slice){r->link, r->link_n};
	return slice_of(name_of(t, r->ref));
}

/* The chunks of a file of more than one; and the digest of all of it. */
static const struct chunk *whole_of(const struct toc *t, const struct record *r)
{
	const struct chunk *c = chunk_at(t, r->ref);

	while (!c->last)
		c++;
	return c == chunk_at(t, r->ref) && t->form == TOC_ESTARGZ ? c : c + 1;
}

/* estargz.md §4: the last, shorter chunk tells no size. */
static uint64_t estargz_chunk_size(const struct toc *t, const struct chunk *c)
{
	return c->size == t->chunk_size ? c->size : 0;
}

static void estargz_chunks(struct writer *w, const struct record *r, const char *name,
			   size_t name_n)
{
	const struct chunk *c = chunk_at(w->t, r->ref);
	uint64_t at = 0;

	key_number(w, ",\"chunkSize\":", estargz_chunk_size(w->t, c));
	key_sha256(w, ",\"chunkDigest\":", c->hash);
	while (!c->last) {
		at += c->size;
		c++;
		w->t->written++;
		key_text(w, "},{\"name\":", name, name_n);
		text(w, ",\"type\":\"chunk\"");
		key_number(w, ",\"offset\":", c->offset);
		key_number(w, ",\"chunkOffset\":", at);
		key_number(w, ",\"chunkSize\":", estargz_chunk_size(w->t, c));
		key_sha256(w, ",\"chunkDigest\":", c->hash);
	}
}

static void estargz_entry(struct writer *w, const struct record *r, const char *name, size_t name_n)
{
	struct toc *t = w->t;
	int64_t rounded = r->mtime + (r->ns >= 500000000);
	struct slice link = link_name(t, r);

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
		key_number(w, ",\"offset\":", chunk_at(t, r->ref)->offset);
	key_number(w, ",\"devMajor\":", r->dev_major);
	key_number(w, ",\"devMinor\":", r->dev_minor);
	xattrs(w, r);
	if (r->type == '0')
		key_sha256(w, ",\"digest\":", r->size ? whole_of(t, r)->hash : empty_sha256);
	if (r->size)
		estargz_chunks(w, r, name, name_n);
}

static void podman_chunk(struct writer *w, const struct chunk *c, uint64_t at, uint64_t end,
			 bool alone)
{
	key_number(w, ",\"offset\":", c->offset);
	key_number(w, ",\"endOffset\":", end);
	if (!alone)
		key_number(w, ",\"chunkSize\":", c->size);
	key_number(w, ",\"chunkOffset\":", at);
	if (!alone || w->t->form == TOC_BOTH) /* containerd's reader wants one on every chunk */
		key_sha256(w, ",\"chunkDigest\":", c->hash);
	if (!alone && c->zeros)
		text(w, ",\"chunkType\":\"zeros\"");
}

static void podman_chunks(struct writer *w, const struct record *r)
{
	const struct chunk *c = chunk_at(w->t, r->ref);
	const struct chunk *whole = whole_of(w->t, r);
	uint64_t at = 0;

	key_sha256(w, ",\"digest\":", c->last ? c->hash : whole->hash);
	podman_chunk(w, c, 0, whole->offset, c->last);
	while (!c->last) {
		at += c->size;
		c++;
		w->t->written++;
		key_text(w, "},{\"type\":\"chunk\",\"name\":", r->name, r->name_n);
		podman_chunk(w, c, at, 0, false);
	}
}

static void podman_entry(struct writer *w, const struct record *r)
{
	struct slice link = link_name(w->t, r);

	key_text(w, "{\"type\":", type_name(r->type), strlen(type_name(r->type)));
	key_text(w, ",\"name\":", r->name, r->name_n);
	if (link.n)
		key_text(w, ",\"linkName\":", link.p, link.n);
	key_number(w, ",\"mode\":", r->mode);
	key_number(w, ",\"size\":", r->size);
	key_number(w, ",\"uid\":", r->uid);
	key_number(w, ",\"gid\":", r->gid);
	if (w->t->form == TOC_BOTH) {
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

static void entry(struct writer *w, const struct record *r, const char *name, size_t name_n)
{
	if (w->t->written++)
		text_n(w, ",", 1);
	if (w->t->form == TOC_ESTARGZ)
		estargz_entry(w, r, name, name_n);
	else
		podman_entry(w, r);
	text_n(w, "}", 1);
}

/* The entries in the order of the table, the first at 0.  *name is the one it goes by. */
static bool next_written(const struct toc *t, uint32_t *at, struct record *r, struct slice *name)
{
	while (*at < t->arena.len) {
		const struct pair *s = NULL;

		decode(t, *at, r);
		*at = r->next;
		if (r->flags & MOVED || (r->flags & DEAD && !(s = find_subst(t, r->id))))
			continue;
		*name = s ? slice_of(name_of(t, s->to)) : (struct slice){r->name, r->name_n};
		return true;
	}
	return false;
}

static void entries(struct writer *w)
{
	struct slice name;
	struct record r;
	uint32_t at = 0;

	while (!w->failed && next_written(w->t, &at, &r, &name))
		entry(w, &r, name.p, name.n);
}

static void owners_init(struct owners *x)
{
	table_init(&x->ids);
	buf_init(&x->list, RECORDS_MAX);
}

static void owners_fini(struct owners *x)
{
	table_fini(&x->ids);
	buf_fini(&x->list);
}

int toc_write(struct toc *t, const char *tail, toc_put *put, void *arg, struct err *e)
{
	scoped_free struct writer *w = mem_alloc(sizeof(*w));

	assert(!toc_unfit(t));
	*w = (struct writer){.t = t, .put = put, .arg = arg, .e = e};
	owners_init(&w->users);
	owners_init(&w->groups);
	t->written = 0;
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
	return w->failed ? -1 : 0;
}

uint64_t toc_written(const struct toc *t)
{
	return t->written;
}

/* ---- two tables side by side */

static int differs(struct err *e, struct slice name, const char *what, uint64_t told,
		   uint64_t found)
{
	return err_set(e, ERR_CORRUPT,
		       "%.*s: the table of contents says %s %" PRIu64 ", the blob has %" PRIu64,
		       (int)name.n, name.p, what, told, found);
}

static int differs_in(struct err *e, struct slice name, const char *what)
{
	return err_set(e, ERR_CORRUPT, "%.*s: the table of contents has another %s than the blob",
		       (int)name.n, name.p, what);
}

static int compare_numbers(const struct record *a, const struct record *b, struct slice name,
			   struct err *e)
{
	const struct {
		const char *what;
		uint64_t a, b;
	} n[] = {
		{"type", (uint64_t)a->type, (uint64_t)b->type},
		{"size", a->size, b->size},
		{"mode", a->mode, b->mode},
		{"uid", a->uid, b->uid},
		{"gid", a->gid, b->gid},
		{"device major", a->dev_major, b->dev_major},
		{"device minor", a->dev_minor, b->dev_minor},
	};

	for (size_t i = 0; i < sizeof(n) / sizeof(*n); i++)
		if (n[i].a != n[i].b)
			return differs(e, name, n[i].what, n[i].a, n[i].b);
	return 0;
}

static int compare_times(const struct toc *t, const struct record *a, const struct record *b,
			 struct slice name, struct err *e)
{
	int64_t rounded = b->mtime ? b->mtime + (b->ns >= 500000000) : 0;

	if (t->form == TOC_ESTARGZ)
		return a->ns || a->mtime != (year_fits(rounded) ? rounded : 0)
			       ? differs_in(e, name, "modtime")
			       : 0;
	if (a->mtime != b->mtime || a->ns != b->ns)
		return differs_in(e, name, "modtime");
	return a->atime != b->atime || a->atime_ns != b->atime_ns || a->ctime != b->ctime ||
			       a->ctime_ns != b->ctime_ns
		       ? differs_in(e, name, "access or change time")
		       : 0;
}

/* The name under which the end of a link's chain stands in the table. */
static const char *target_of(const struct toc *t, const struct record *r)
{
	const struct pair *s = record_at(t, r->ref)[1] & DEAD ? find_subst(t, r->ref) : NULL;

	return name_of(t, s ? s->to : r->ref);
}

static int compare_links(struct toc *ta, const struct record *a, struct toc *tb,
			 const struct record *b, struct slice name, struct err *e)
{
	struct slice x, y;

	if (a->type == '2')
		return a->link_n != b->link_n || memcmp(a->link, b->link, a->link_n)
			       ? differs_in(e, name, "link target")
			       : 0;
	if (a->type != '1')
		return 0;
	if (clean(&ta->clean_a, target_of(ta, a), &x, e) < 0 ||
	    clean(&tb->clean_b, target_of(tb, b), &y, e) < 0)
		return -1;
	return x.n != y.n || memcmp(x.p, y.p, x.n) ? differs_in(e, name, "link target") : 0;
}

static int compare_owners(const struct toc *ta, const struct record *a, const struct toc *tb,
			  const struct record *b, struct slice name, struct err *e)
{
	if (a->user && strcmp(ta->strings.data + a->user, tb->strings.data + b->user) != 0)
		return differs_in(e, name, "user name");
	if (a->group && strcmp(ta->strings.data + a->group, tb->strings.data + b->group) != 0)
		return differs_in(e, name, "group name");
	return 0;
}

static int compare_xattrs(const struct toc *ta, const struct record *a, const struct toc *tb,
			  const struct record *b, struct slice name, struct err *e)
{
	size_t an = a->n_xattr ? (size_t)(record_at(ta, a->next) - a->xattr) : 0;
	size_t bn = b->n_xattr ? (size_t)(record_at(tb, b->next) - b->xattr) : 0;

	return a->n_xattr != b->n_xattr || an != bn || (an && memcmp(a->xattr, b->xattr, an))
		       ? differs_in(e, name, "set of extended attributes")
		       : 0;
}

static int compare_chunks(const struct toc *ta, const struct record *a, const struct toc *tb,
			  const struct record *b, struct slice name, struct err *e)
{
	const struct chunk *x, *y;

	if (!a->size || a->type != '0')
		return 0;
	if (a->ref == NONE || b->ref == NONE)
		return err_set(e, ERR_CORRUPT, "%.*s: no chunk starts where its bytes are",
			       (int)name.n, name.p);
	for (x = chunk_at(ta, a->ref), y = chunk_at(tb, b->ref);; x++, y++) {
		if (x->whole != y->whole || x->last != y->last || x->size != y->size)
			return differs_in(e, name, "number or size of chunks");
		if (x->offset != y->offset && !(x->whole && ta->form == TOC_ESTARGZ))
			return differs(e, name, x->whole ? "end offset" : "offset", x->offset,
				       y->offset);
		if (memcmp(x->hash, y->hash, sizeof(x->hash)))
			return differs_in(e, name, x->whole ? "digest" : "chunk digest");
		if (x->whole)
			return 0;
	}
}

int toc_compare(struct toc *ta, struct toc *tb, struct err *e)
{
	struct slice name, other;
	struct record a, b;
	uint32_t i = 0, k = 0;

	for (;;) {
		bool more = next_written(ta, &i, &a, &name),
		     found = next_written(tb, &k, &b, &other);

		if (!more && !found)
			return 0;
		if (!more || !found)
			return err_set(e, ERR_CORRUPT, "%s is in the %s alone",
				       more ? name.p : other.p, more ? "table of contents" : "tar");
		if (name.n != other.n || memcmp(name.p, other.p, name.n))
			return err_set(e, ERR_CORRUPT,
				       "the table of contents has %s where the tar has %s", name.p,
				       other.p);
		if (compare_numbers(&a, &b, name, e) < 0 ||
		    compare_times(ta, &a, &b, name, e) < 0 ||
		    compare_links(ta, &a, tb, &b, name, e) < 0 ||
		    compare_owners(ta, &a, tb, &b, name, e) < 0 ||
		    compare_xattrs(ta, &a, tb, &b, name, e) < 0 ||
		    compare_chunks(ta, &a, tb, &b, name, e) < 0)
			return -1;
	}
}
