/* worker/drivers/toc.c - see toc.h.
 *
 * ref of a file's record: its first chunk; of a hard link's: the id of the entry at the end of its
 * chain, or TOC_NONE. */
#include "worker/drivers/toc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/drivers/table.h"
#include "worker/drivers/tocrecord.h"
#include "worker/tar/tar_reader.h"

struct pair { /* of ids, sorted by from */
	uint32_t from, to;
};

struct toc {
	enum toc_form form;
	uint64_t chunk_size;
	struct toc_records records;
	struct buf chunks;  /* struct toc_chunk: of a file after one another, then its `whole` */
	struct table names; /* a clean name: the record that it means now */
	struct buf clean_a, clean_b; /* scratch */
	struct buf parent;	     /* the parent that was last found to be a directory */
	bool parent_known;
	bool whiteouts;	    /* there was one */
	struct buf other;   /* scratch of check_whiteout */
	struct pair *subst; /* a dead file, the link that takes its place */
	size_t n_subst, cap_subst;
	struct pair *cuts; /* a directory, what else its name meant before: older things below it
			      are gone */
	size_t n_cuts, cap_cuts;
	char unfit[160];
};

struct toc *toc_new(enum toc_form form, uint64_t chunk_size)
{
	struct toc *t = mem_zalloc(sizeof(*t));

	t->form = form;
	t->chunk_size = chunk_size;
	toc_records_init(&t->records);
	buf_init(&t->chunks, TOC_BYTES_MAX);
	buf_init(&t->clean_a, TOC_BYTES_MAX);
	buf_init(&t->clean_b, TOC_BYTES_MAX);
	buf_init(&t->parent, TOC_BYTES_MAX);
	buf_init(&t->other, TOC_BYTES_MAX);
	table_init(&t->names);
	return t;
}

void toc_freep(struct toc **tt)
{
	struct toc *t = take_ptr(*tt);

	if (!t)
		return;
	toc_records_fini(&t->records);
	buf_fini(&t->chunks);
	buf_fini(&t->clean_a);
	buf_fini(&t->clean_b);
	buf_fini(&t->parent);
	buf_fini(&t->other);
	table_fini(&t->names);
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
	return t->records.arena.len == 0;
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

/* ---- one entry after the other */

struct same_name {
	const struct toc *t;
	struct buf *scratch;
};

static bool same_name(const void *ctx, uint32_t id, const void *key, size_t n)
{
	const struct same_name *x = ctx;
	struct slice s;

	return clean(x->scratch, toc_record_name(&x->t->records, id), &s, NULL) == 0 && s.n == n &&
	       !memcmp(s.p, key, n);
}

/* The entry that a clean name means now. */
static bool lookup(struct toc *t, struct slice name, uint32_t *id)
{
	struct same_name x = {t, &t->clean_b};

	return table_find(&t->names, name.p, name.n, same_name, &x, id);
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
	if (ancestor(t, &up, &id) && toc_record_type(&t->records, id) != '5') {
		toc_spoil(t, "%.*s lies below %s, which is not a directory", (int)name.n, name.p,
			  toc_record_name(&t->records, id));
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

	*root = TOC_NONE;
	if (n->type != '1')
		return 0;
	if (toc_reserved(n->link))
		return err_set(e, ERR_UNSUPPORTED,
			       "%s is a hard link to %s, a name that the format keeps for itself",
			       n->name, n->link);
	if (clean(&t->clean_a, n->link, &link, e) < 0)
		return -1;
	if (lookup(t, link, root) && toc_record_type(&t->records, *root) == '1')
		*root = toc_record_ref(&t->records, *root);
	if (*root != TOC_NONE && toc_record_type(&t->records, *root) == '5')
		toc_spoil(t, "%s is a hard link to the directory %s", n->name, n->link);
	return 0;
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
	if (!toc_year_fits(n->mtime) || (n->has_atime && !toc_year_fits(n->atime)) ||
	    (n->has_ctime && !toc_year_fits(n->ctime)))
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
	bool was_dir = toc_record_type(&t->records, before) == '5';

	toc_record_mark(&t->records, before, TOC_DEAD);
	if (type != '5' || (was_dir && !older))
		return;
	mem_grow(t->cuts, t->n_cuts, t->cap_cuts);
	t->cuts[t->n_cuts++] = (struct pair){id, was_dir ? older->to : before};
}

int toc_add(struct toc *t, const struct tar_entry *n, uint32_t *id, struct err *e)
{
	struct same_name x = {t, &t->clean_b};
	struct slice name;
	uint32_t before = TOC_NONE, root;
	bool seen;

	*id = TOC_NONE;
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
	if (t->records.arena.len >= TOC_NONE - 1)
		return err_set(e, ERR_LIMIT, "more than 4 GiB of entries");
	if (n->type != '5')
		forget_parent(t, name);
	*id = (uint32_t)t->records.arena.len;
	if (seen)
		replace(t, before, *id, n->type);
	if (toc_record_put(&t->records, n, root, t->form != TOC_ESTARGZ, e) < 0)
		return -1;
	return table_set(&t->names, name.p, name.n, same_name, &x, *id, e);
}

/* ---- chunks */

static struct toc_chunk *chunk_at(const struct toc *t, uint32_t i)
{
	return (struct toc_chunk *)(void *)t->chunks.data + i;
}

static int add_chunk(struct toc *t, const struct toc_chunk *c, uint32_t *i, struct err *e)
{
	*i = (uint32_t)(t->chunks.len / sizeof(*c));
	return buf_add(&t->chunks, c, sizeof(*c), e);
}

int toc_chunk(struct toc *t, uint32_t id, uint64_t size, bool zeros, uint32_t *chunk, struct err *e)
{
	struct toc_chunk c = {.size = size, .zeros = zeros};

	if (add_chunk(t, &c, chunk, e) < 0)
		return -1;
	if (toc_record_ref(&t->records, id) == TOC_NONE)
		toc_record_set_ref(&t->records, id, *chunk);
	return 0;
}

int toc_file_end(struct toc *t, uint32_t id, const struct digest *whole, struct err *e)
{
	uint32_t n = (uint32_t)(t->chunks.len / sizeof(struct toc_chunk)), i;
	struct toc_chunk c = {.whole = 1};

	assert(n && toc_record_ref(&t->records, id) < n);
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
	struct toc_chunk c = {.whole = 1, .offset = end};
	uint32_t i = (uint32_t)(t->chunks.len / sizeof(c));

	assert(i && toc_record_ref(&t->records, id) < i);
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
	struct toc_chunk *c = chunk_at(t, i);

	if (c->last && t->form != TOC_ESTARGZ)
		c[1].offset = end;
}

void toc_chunk_landed(struct toc *t, uint32_t i, uint64_t offset, uint64_t stored,
		      const uint8_t *hash)
{
	struct toc_chunk *c = chunk_at(t, i);

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
		if (toc_record_type(&t->records, id) != '5')
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
	struct toc_record r;

	t->parent_known = false;
	for (uint32_t at = 0; at < t->records.arena.len; at = r.next) {
		toc_record_decode(&t->records, at, &r);
		if (r.flags & TOC_DEAD)
			continue;
		if (clean(&t->clean_a, r.name, &name, e) < 0)
			return -1;
		parent = parent_of(name);
		if (t->parent_known && parent.n == t->parent.len &&
		    !memcmp(parent.p, t->parent.data, parent.n))
			continue;
		t->parent_known = !taken_away(t, at, name);
		if (!t->parent_known)
			toc_record_mark(&t->records, at, TOC_DEAD);
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
	struct toc_record r;
	size_t n = 0;

	for (uint32_t at = 0; at < t->records.arena.len; at = r.next) {
		toc_record_decode(&t->records, at, &r);
		if (r.type != '1' || (r.flags & TOC_DEAD))
			continue;
		for (int depth = 0; r.ref == TOC_NONE && depth < 64; depth++) {
			uint32_t id;

			if (clean(&t->clean_a, r.link, &link, e) < 0)
				return -1;
			if (!lookup(t, link, &id) || id == at)
				break;
			r.ref = toc_record_type(&t->records, id) == '1'
					? toc_record_ref(&t->records, id)
					: id;
			if (r.ref == TOC_NONE) { /* a link to a link that is still open */
				struct toc_record other;

				toc_record_decode(&t->records, id, &other);
				r.link = other.link;
			}
		}
		if (r.ref == TOC_NONE || toc_record_type(&t->records, r.ref) == '5') {
			toc_spoil(t, "%s is a hard link to %s, which is not in this layer", r.name,
				  r.link);
			return 0;
		}
		if (t->form != TOC_ESTARGZ && is_special(toc_record_type(&t->records, r.ref)))
			toc_spoil(t, "%s is a hard link to %s, which is not made by a partial pull",
				  r.name, toc_record_name(&t->records, r.ref));
		toc_record_set_ref(&t->records, at, r.ref);
		if (toc_record_flags(&t->records, r.ref) & TOC_DEAD) {
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
			toc_record_mark(&t->records, t->subst[n - 1].to, TOC_MOVED);
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

/* ---- a sealed table, read */

enum toc_form toc_form(const struct toc *t)
{
	return t->form;
}

uint64_t toc_full_chunk(const struct toc *t)
{
	return t->chunk_size;
}

bool toc_year_fits(int64_t t)
{
	return t >= -62167219200 && t <= 253402300799; /* 0000 .. 9999 */
}

/* The entries in the order of the table, the first at 0.  *name is the one it goes by. */
bool toc_next(const struct toc *t, uint32_t *at, struct toc_record *r, struct slice *name)
{
	while (*at < t->records.arena.len) {
		const struct pair *s = NULL;

		toc_record_decode(&t->records, *at, r);
		*at = r->next;
		if (r->flags & TOC_MOVED || (r->flags & TOC_DEAD && !(s = find_subst(t, r->id))))
			continue;
		*name = s ? slice_of(toc_record_name(&t->records, s->to))
			  : (struct slice){r->name, r->name_n};
		return true;
	}
	return false;
}

const char *toc_owner(const struct toc *t, uint64_t name)
{
	return t->records.strings.data + name;
}

const struct toc_chunk *toc_chunks(const struct toc *t, const struct toc_record *r)
{
	return chunk_at(t, r->ref);
}

/* What hard links of the table point at: a name that means the same file at the end. */
struct slice toc_link_name(struct toc *t, const struct toc_record *r)
{
	const struct pair *s;
	struct slice spelled;
	uint32_t id;

	if (r->type != '1')
		return (struct slice){r->link, r->link_n};
	s = toc_record_flags(&t->records, r->ref) & TOC_DEAD ? find_subst(t, r->ref) : NULL;
	if (s)
		return slice_of(toc_record_name(&t->records, s->to));
	if (clean(&t->clean_a, r->link, &spelled, NULL) == 0 && lookup(t, spelled, &id) &&
	    (id == r->ref || (toc_record_type(&t->records, id) == '1' &&
			      toc_record_ref(&t->records, id) == r->ref)))
		return (struct slice){r->link, r->link_n};
	return slice_of(toc_record_name(&t->records, r->ref));
}

/* The name under which the end of a link's chain stands in the table. */
static const char *target_of(const struct toc *t, const struct toc_record *r)
{
	const struct pair *s =
		toc_record_flags(&t->records, r->ref) & TOC_DEAD ? find_subst(t, r->ref) : NULL;

	return toc_record_name(&t->records, s ? s->to : r->ref);
}

int toc_link_target(struct toc *t, const struct toc_record *r, struct slice *to, struct err *e)
{
	return clean(&t->clean_a, target_of(t, r), to, e);
}
