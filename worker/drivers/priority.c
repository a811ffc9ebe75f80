/* worker/drivers/priority.c - see priority.h.
 *
 * Membership goes by name, so that entries of one name stay in their order: the last one must win.
 * For the same reason a path brings its whiteout along (".wh.x" removes x when it is unpacked
 * later), and a path that occurs twice brings every hard link to it. */
#include "worker/drivers/priority.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/drivers/table.h"
#include "worker/tar/tar_reader.h"

#define NAMES_MAX ((size_t)1 << 30)

enum { SEEN = 1, TWICE = 2, FIRST = 4 };

struct hardlink {
	uint32_t name, target; /* in `names` */
};

struct priority {
	const char *paths;
	struct buf names; /* each: flags, the cleaned name, NUL; the table's value is where the name
			     starts */
	struct table table;
	struct buf scratch;
	struct hardlink *link;
	size_t n_links, cap_links;
};

struct priority *priority_new(const char *paths)
{
	struct priority *p = mem_zalloc(sizeof(*p));

	p->paths = paths;
	buf_init(&p->names, NAMES_MAX);
	buf_init(&p->scratch, NAMES_MAX);
	table_init(&p->table);
	return p;
}

void priority_freep(struct priority **pp)
{
	struct priority *p = take_ptr(*pp);

	if (!p)
		return;
	buf_fini(&p->names);
	buf_fini(&p->scratch);
	table_fini(&p->table);
	free(p->link);
	free(p);
}

static bool same(const void *ctx, uint32_t at, const void *key, size_t n)
{
	const char *s = ((const struct buf *)ctx)->data + at;

	return !strncmp(s, key, n) && !s[n];
}

static bool find(const struct priority *p, struct slice name, uint32_t *at)
{
	return table_find(&p->table, name.p, name.n, same, &p->names, at);
}

static char *flags_of(struct priority *p, uint32_t at)
{
	return p->names.data + at - 1;
}

/* The cleaned form of a name, in scratch. */
static int cleaned(struct priority *p, const char *name, size_t n, struct slice *to, struct err *e)
{
	scoped_free char *copy = mem_strndup(name, n);

	buf_reset(&p->scratch);
	if (buf_reserve(&p->scratch, n + 1, e) < 0)
		return -1;
	to->n = tar_clean_name(copy, p->scratch.data, n + 1);
	to->p = p->scratch.data;
	return 0;
}

static int add(struct priority *p, const char *name, uint32_t *at, struct err *e)
{
	struct slice s;
	char none = 0;

	if (cleaned(p, name, strlen(name), &s, e) < 0)
		return -1;
	if (find(p, s, at))
		return 0;
	*at = (uint32_t)p->names.len + 1;
	if (buf_add(&p->names, &none, 1, e) < 0 || buf_add(&p->names, s.p, s.n, e) < 0 ||
	    buf_add(&p->names, &none, 1, e) < 0)
		return -1;
	return table_set(&p->table, p->names.data + *at, s.n, same, &p->names, *at, e);
}

int priority_see(struct priority *p, const struct tar_entry *n, struct err *e)
{
	struct hardlink l;
	char *f;

	if (add(p, n->name, &l.name, e) < 0)
		return -1;
	f = flags_of(p, l.name);
	*f |= *f & SEEN ? TWICE : SEEN;
	if (n->type != '1')
		return 0;
	if (add(p, n->link, &l.target, e) < 0)
		return -1;
	mem_grow(p->link, p->n_links, p->cap_links);
	p->link[p->n_links++] = l;
	return 0;
}

static void mark(struct priority *p, struct slice name);

/* ".wh.x" beside x. */
static void mark_whiteout(struct priority *p, struct slice name)
{
	scoped_free char *wh = mem_alloc(name.n + 5);
	size_t base = name.n;
	uint32_t at;

	while (base && name.p[base - 1] != '/')
		base--;
	memcpy(wh, name.p, base);
	memcpy(wh + base, ".wh.", 4);
	memcpy(wh + base + 4, name.p + base, name.n - base);
	if (find(p, (struct slice){wh, name.n + 4}, &at))
		*flags_of(p, at) |= FIRST;
}

/* A name and its parents. */
static void mark(struct priority *p, struct slice name)
{
	uint32_t at;

	for (;;) {
		if (find(p, name, &at)) {
			if (*flags_of(p, at) & FIRST)
				return;
			*flags_of(p, at) |= FIRST;
		}
		if (!name.n)
			return;
		mark_whiteout(p, name);
		while (name.n && name.p[name.n - 1] != '/')
			name.n--;
		name.n -= name.n > 0;
	}
}

static void mark_at(struct priority *p, uint32_t at)
{
	mark(p, slice_of(p->names.data + at));
}

static void follow_links(struct priority *p)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < p->n_links; i++) {
			char name = *flags_of(p, p->link[i].name),
			     target = *flags_of(p, p->link[i].target);

			if (name & FIRST && !(target & FIRST)) {
				mark_at(p, p->link[i].target);
				changed = true;
			}
			if (target & FIRST && target & TWICE && !(name & FIRST)) {
				mark_at(p, p->link[i].name);
				changed = true;
			}
		}
	}
}

bool priority_settle(struct priority *p)
{
	bool any = false;
	uint32_t at;

	for (const char *s = p->paths; s && *s;) {
		size_t n = strcspn(s, "\n");
		struct slice name;

		if (n && cleaned(p, s, n, &name, NULL) == 0 && find(p, name, &at) &&
		    *flags_of(p, at) & SEEN) {
			any = true;
			mark_at(p, at);
		}
		s += n + (s[n] == '\n');
	}
	if (any)
		follow_links(p);
	return any;
}

bool priority_first(struct priority *p, const char *name)
{
	struct slice s;
	uint32_t at;

	return cleaned(p, name, strlen(name), &s, NULL) == 0 && find(p, s, &at) &&
	       *flags_of(p, at) & FIRST;
}
