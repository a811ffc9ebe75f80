/* worker/listing.c - see listing.h. */
#include "worker/listing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

#define NONE UINT32_MAX
#define LINKS_FOLLOWED 40

struct node { /* an inode: what all its names share */
	char type;
	uint32_t mode;
	uint64_t uid, gid, size;
	int64_t mtime;
	uint32_t dev_major, dev_minor;
	char *link;	   /* '2' */
	uint8_t xattr[32]; /* SHA-256 over them, sorted; zeros: none */
	uint8_t data[32];
	uint32_t first; /* the smallest of its names' order when compared */
};
struct name {
	char *path;
	uint32_t node;
	char *pending; /* a hard link whose target was not there yet */
};

struct listing {
	struct name *name;
	size_t n, cap;
	struct node *node;
	size_t n_nodes, cap_nodes;
	uint32_t *slot; /* hash table of names */
	size_t n_slots;
	struct hasher *hash; /* of the file whose data comes */
	uint32_t open;	     /* its node, or NONE */
};

struct listing *listing_new(void)
{
	struct listing *l = mem_zalloc(sizeof(*l));

	l->hash = hasher_new(DIGEST_SHA256);
	l->open = NONE;
	return l;
}

void listing_freep(struct listing **pl)
{
	struct listing *l = *pl;

	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++) {
		free(l->name[i].path);
		free(l->name[i].pending);
	}
	for (size_t i = 0; i < l->n_nodes; i++)
		free(l->node[i].link);
	free(l->name);
	free(l->node);
	free(l->slot);
	hasher_freep(&l->hash);
	free(l);
	*pl = NULL;
}

size_t listing_entries(const struct listing *l)
{
	return l->n;
}

/* ---- names */
static uint64_t hash_of(const char *s)
{
	uint64_t h = 1469598103934665603u;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 1099511628211u;
	return h ^ h >> 29;
}

static size_t slot_of(const struct listing *l, const char *path)
{
	size_t i = hash_of(path) & (l->n_slots - 1);

	while (l->slot[i] != NONE && strcmp(l->name[l->slot[i]].path, path) != 0)
		i = (i + 1) & (l->n_slots - 1);
	return i;
}

static void rehash(struct listing *l)
{
	free(l->slot);
	l->n_slots = l->n_slots ? l->n_slots * 2 : 256;
	l->slot = mem_array(l->n_slots, sizeof(*l->slot));
	memset(l->slot, 0xff, l->n_slots * sizeof(*l->slot));
	for (size_t i = 0; i < l->n; i++)
		l->slot[slot_of(l, l->name[i].path)] = (uint32_t)i;
}

static struct name *find(const struct listing *l, const char *path)
{
	size_t i = l->n_slots ? slot_of(l, path) : 0;

	return l->n_slots && l->slot[i] != NONE ? &l->name[l->slot[i]] : NULL;
}

static struct name *name_of(struct listing *l, const char *path)
{
	struct name *n = find(l, path);

	if (n)
		return n;
	if ((l->n + 1) * 2 > l->n_slots)
		rehash(l);
	mem_grow(l->name, l->n, l->cap);
	l->slot[slot_of(l, path)] = (uint32_t)l->n;
	l->name[l->n] = (struct name){.path = mem_strdup(path), .node = NONE};
	return &l->name[l->n++];
}

static char *clean(const char *name)
{
	size_t n = strlen(name) + 1;
	char *s = mem_alloc(n);

	tar_clean_name(name, s, n);
	return s;
}

/* Where the first n bytes of path lead if they are a symbolic link, or NULL. */
static const char *link_at(const struct listing *l, char *path, size_t n)
{
	char then = path[n];
	const struct name *found;

	path[n] = '\0';
	found = find(l, path);
	path[n] = then;
	return found && found->node != NONE ? l->node[found->node].link : NULL;
}

/* A symbolic link on the way is followed, as it is by who unpacks the layer.  Takes path. */
static char *through_links(const struct listing *l, char *path)
{
	size_t at = 0, end;
	int links = 0;

	while (path[end = at + strcspn(path + at, "/")] && links < LINKS_FOLLOWED) {
		const char *to = link_at(l, path, end);
		size_t from =
			at; /* of the link's own name: before it is the directory that holds it */
		char *whole;

		at = end + 1;
		if (!to)
			continue;
		whole = mem_printf("%.*s/%s%s", to[0] == '/' ? 0 : (int)from, path, to, path + end);
		free(path);
		path = clean(whole);
		free(whole);
		at = 0;
		links++;
	}
	return path;
}

/* ---- entries */
static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct tar_xattr *const *)a)->name,
		      (*(const struct tar_xattr *const *)b)->name);
}

static void hash_xattrs(uint8_t sum[32], const struct tar_entry *t)
{
	scoped(hasher_freep) struct hasher *h = NULL;
	scoped_free const struct tar_xattr **x = NULL;
	struct digest d;

	memset(sum, 0, 32);
	if (!t->n_xattr)
		return;
	h = hasher_new(DIGEST_SHA256);
	x = mem_array(t->n_xattr, sizeof(*x));
	for (size_t i = 0; i < t->n_xattr; i++)
		x[i] = &t->xattr[i];
	qsort(x, t->n_xattr, sizeof(*x), by_name);
	for (size_t i = 0; i < t->n_xattr; i++) {
		uint64_t n = x[i]->n;

		hasher_update(h, x[i]->name, strlen(x[i]->name) + 1);
		hasher_update(h, &n, sizeof(n));
		hasher_update(h, x[i]->value, x[i]->n);
	}
	hasher_final(h, &d);
	memcpy(sum, d.bytes, 32);
}

static uint32_t add_node(struct listing *l, const struct tar_entry *t)
{
	struct node n = {.type = t->type == '7' ? '0' : t->type,
			 .mode = t->mode & 07777,
			 .uid = t->uid,
			 .gid = t->gid,
			 .size = t->size,
			 .mtime = t->mtime,
			 .first = NONE};

	if (t->type == '2') {
		n.link = mem_strdup(t->link);
		n.mode = 0777; /* no one reads a link's mode */
	}
	if (t->type == '3' || t->type == '4') {
		n.dev_major = t->dev_major;
		n.dev_minor = t->dev_minor;
	}
	hash_xattrs(n.xattr, t);
	mem_grow(l->node, l->n_nodes, l->cap_nodes);
	l->node[l->n_nodes] = n;
	return (uint32_t)l->n_nodes++;
}

static void close_file(struct listing *l)
{
	struct digest d;

	if (l->open == NONE)
		return;
	hasher_final(l->hash, &d);
	memcpy(l->node[l->open].data, d.bytes, 32);
	l->open = NONE;
}

static bool added_by_formats(const char *path)
{
	return str_eq(path, ".prefetch.landmark") || str_eq(path, ".no.prefetch.landmark") ||
	       str_eq(path, "stargz.index.json");
}

static void header(struct listing *l, const struct tar_entry *t)
{
	scoped_free char *path = through_links(l, clean(t->name));
	struct name *n;

	if (t->type == 'g' || added_by_formats(path))
		return;
	n = name_of(l, path);
	free(n->pending);
	n->pending = NULL;
	if (t->type == '1') {
		scoped_free char *to = through_links(l, clean(t->link));
		const struct name *target = find(l, to);

		if (target && target->node != NONE)
			n->node = target->node;
		else
			n->pending = take_ptr(to);
		return;
	}
	n->node = add_node(l, t);
	if (l->node[n->node].type == '0')
		l->open = n->node;
}

int listing_piece(void *arg, const struct tar_piece *p, struct err *e)
{
	static const uint8_t zeros[65536];
	struct listing *l = arg;

	switch (p->kind) {
	case TAR_HEADER:
		close_file(l);
		header(l, p->entry);
		break;
	case TAR_DATA:
		if (l->open != NONE)
			hasher_update(l->hash, p->raw, p->len);
		break;
	case TAR_HOLE:
		for (size_t left = p->len; left && l->open != NONE;) {
			size_t n = left < sizeof(zeros) ? left : sizeof(zeros);

			hasher_update(l->hash, zeros, n);
			left -= n;
		}
		break;
	default:
		break;
	}
	return 0;
}

int listing_end(struct listing *l, struct err *e)
{
	close_file(l);
	for (size_t round = 0; round < 2; round++) /* a link to a link that stands later */
		for (size_t i = 0; i < l->n; i++) {
			const struct name *to =
				l->name[i].pending ? find(l, l->name[i].pending) : NULL;

			if (to && to->node != NONE) {
				l->name[i].node = to->node;
				free(l->name[i].pending);
				l->name[i].pending = NULL;
			}
		}
	return 0;
}

/* ---- comparing */
static int by_path(const void *a, const void *b)
{
	return strcmp((*(const struct name *const *)a)->path,
		      (*(const struct name *const *)b)->path);
}

static const struct name **sorted(const struct listing *l)
{
	const struct name **s = mem_array(l->n ? l->n : 1, sizeof(*s));

	for (size_t i = 0; i < l->n; i++)
		s[i] = &l->name[i];
	qsort(s, l->n, sizeof(*s), by_path);
	for (size_t i = 0; i < l->n_nodes; i++)
		l->node[i].first = NONE;
	for (size_t i = 0; i < l->n; i++)
		if (s[i]->node != NONE && l->node[s[i]->node].first == NONE)
			l->node[s[i]->node].first = (uint32_t)(s[i] - l->name);
	return s;
}

/* Stands for a path only: formats with a tree must have it, others leave it out. */
static bool only_a_path(const struct listing *l, const struct name *n)
{
	const struct node *d = n->node == NONE ? NULL : &l->node[n->node];
	static const uint8_t none[32];

	return d && d->type == '5' &&
	       (n->path[0] == '\0' ||
		(d->mode == 0755 && !d->uid && !d->gid && memcmp(d->xattr, none, 32) == 0));
}

/* Formats keep whole seconds, some round. */
static bool times_differ(int64_t a, int64_t b)
{
	return a > b ? a - b > 1 : b - a > 1;
}

static const char *difference(const struct listing *lw, const struct name *w,
			      const struct listing *lg, const struct name *g, char text[160])
{
	const struct node *a = w->node == NONE ? NULL : &lw->node[w->node];
	const struct node *b = g->node == NONE ? NULL : &lg->node[g->node];

	if (!a || !b) {
		if (!a == !b)
			return NULL;
		snprintf(text, 160, "hard link without a target in %s",
			 a ? "the result" : "the source");
	} else if (a->type != b->type) {
		snprintf(text, 160, "type %c, the source has %c", b->type, a->type);
	} else if (a->mode != b->mode && a->type != '2') {
		snprintf(text, 160, "mode %04o, the source has %04o", b->mode, a->mode);
	} else if (a->uid != b->uid || a->gid != b->gid) {
		snprintf(text, 160,
			 "owner %" PRIu64 ":%" PRIu64 ", the source has %" PRIu64 ":%" PRIu64,
			 b->uid, b->gid, a->uid, a->gid);
	} else if (a->type == '0' && a->size != b->size) {
		snprintf(text, 160, "%" PRIu64 " bytes, the source has %" PRIu64, b->size, a->size);
	} else if (a->type == '0' && memcmp(a->data, b->data, 32) != 0) {
		snprintf(text, 160, "its bytes differ");
	} else if (times_differ(a->mtime, b->mtime)) {
		snprintf(text, 160, "time %" PRId64 ", the source has %" PRId64, b->mtime,
			 a->mtime);
	} else if (!str_eq(a->link, b->link)) {
		snprintf(text, 160, "it points elsewhere");
	} else if (a->dev_major != b->dev_major || a->dev_minor != b->dev_minor) {
		snprintf(text, 160, "device %u:%u, the source has %u:%u", b->dev_major,
			 b->dev_minor, a->dev_major, a->dev_minor);
	} else if (memcmp(a->xattr, b->xattr, 32) != 0) {
		snprintf(text, 160, "its xattrs differ");
	} else if (!str_eq(lw->name[a->first].path, lg->name[b->first].path)) {
		snprintf(text, 160, "it is a hard link to %.120s, not to that",
			 lg->name[b->first].path);
	} else {
		return NULL;
	}
	return text;
}

size_t listing_compare(const struct listing *want, const struct listing *got,
		       const struct listing_ops *o)
{
	scoped_free const struct name **w = sorted(want), **g = sorted(got);
	size_t i = 0, k = 0, differ = 0;
	char text[160];

	while (i < want->n || k < got->n) {
		int c = i >= want->n ? 1 : k >= got->n ? -1 : strcmp(w[i]->path, g[k]->path);
		const struct name *at = c <= 0 ? w[i] : g[k];
		const char *what;

		if (c < 0)
			what = only_a_path(want, w[i++]) ? NULL : "it is missing";
		else if (c > 0)
			what = only_a_path(got, g[k++]) ? NULL : "the source does not have it";
		else
			what = difference(want, w[i++], got, g[k++], text);
		if (!what)
			continue;
		differ++;
		o->differs(o->arg, at->path[0] ? at->path : "/", what);
	}
	return differ;
}
