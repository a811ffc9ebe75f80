/* worker/rafs/rafs_layout.c - see rafs_layout.h. */
#include "worker/rafs/rafs_layout.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/tar/tar_reader.h"

/* ---- order: a directory's children together, then each child directory in turn */

static int number(struct rafs_layout *l, struct rafs *fs)
{
	scoped_free struct rafs_node **stack =
		NULL; /* directories still to be visited, the next on top */
	size_t n = 0, cap = 0, cap_dirs = 0;

	l->order = mem_array(fs->nodes, sizeof(l->order[0]));
	l->order[l->n++] = fs->root;
	fs->root->inode->ino = 1;
	mem_grow(stack, n, cap);
	stack[n++] = fs->root;
	while (n) {
		struct rafs_node *dir = stack[--n];
		struct rafs_node **child = l->order + l->n;

		mem_grow(l->dirs, l->n_dirs, cap_dirs);
		l->dirs[l->n_dirs++] = (struct rafs_visit){dir, l->n};
		rafs_children(dir, child);
		l->n += dir->n_children;
		for (size_t i = dir->n_children; i--;) {
			if (!rafs_is_dir(child[i]))
				continue;
			mem_grow(stack, n, cap);
			stack[n++] = child[i];
		}
	}
	return 0;
}

static void count_links(struct rafs_layout *l)
{
	for (size_t i = 0; i < l->n; i++) {
		l->order[i]->inode->nlink = 0;
		l->order[i]->inode->ino = 0;
	}
	for (size_t i = 0; i < l->n; i++) {
		struct rafs_inode *inode = l->order[i]->inode;

		if (!inode->ino)
			inode->ino = (uint32_t)i + 1; /* of the first path, if there are several */
		inode->nlink += S_ISDIR(inode->mode) ? 2 : 1;
		if (i && S_ISDIR(inode->mode))
			l->order[i]->parent->inode->nlink++;
		if (inode->xattr_n)
			l->has_xattr = true;
	}
}

/* ---- blobs and chunks, in the order files first refer to them */

static int list_blob(struct rafs_layout *l, struct rafs_blob *b, struct err *e)
{
	if (b->index != UINT32_MAX)
		return 0;
	for (size_t i = 0; i < l->n_blobs; i++)
		if (!strcmp(l->blobs[i]->id, b->id)) { /* two layers gave the same blob */
			b->index = (uint32_t)i;
			return 0;
		}
	if (l->n_blobs == RAFS_MAX_BLOBS)
		return err_set(e, ERR_UNSUPPORTED, "files lie in more than %u blobs",
			       RAFS_MAX_BLOBS);
	b->index = (uint32_t)l->n_blobs;
	l->blobs[l->n_blobs++] = b;
	return 0;
}

static int by_digest(const void *pa, const void *pb)
{
	const struct rafs_chunk *a = *(struct rafs_chunk *const *)pa,
				*b = *(struct rafs_chunk *const *)pb;
	int r = memcmp(a->digest, b->digest, sizeof(a->digest));

	if (r)
		return r;
	if (a->blob->index != b->blob->index)
		return a->blob->index < b->blob->index ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static int list_chunks(struct rafs_layout *l, struct err *e)
{
	size_t cap = 0, kept = 0;
	int r = 0;

	for (size_t i = 0; i < l->fs->n_blobs; i++)
		l->fs->blobs[i]->index = UINT32_MAX;
	for (size_t i = 0; l->layer && i < l->fs->n_blobs; i++)
		if (l->fs->blobs[i]->own && l->fs->blobs[i]->chunk_count &&
		    list_blob(l, l->fs->blobs[i], e) < 0)
			return -1;
	for (size_t i = 0; i < l->n && !r; i++) {
		const struct rafs_inode *inode = l->order[i]->inode;

		for (uint32_t k = 0; k < inode->n_chunks && !r; k++) {
			struct rafs_chunk *c = inode->chunks[k];

			if (c->seen)
				continue;
			r = list_blob(l, c->blob, e);
			if (r < 0)
				break;
			c->seen = true;
			mem_grow(l->rows, l->n_rows, cap);
			l->rows[l->n_rows++] = c;
		}
	}
	for (size_t i = 0; i < l->n_rows; i++)
		l->rows[i]->seen = false;
	if (r < 0 || !l->n_rows)
		return r;
	qsort(l->rows, l->n_rows, sizeof(l->rows[0]), by_digest);
	for (size_t i = 1; i < l->n_rows; i++)
		if (by_digest(&l->rows[kept], &l->rows[i]) != 0)
			l->rows[++kept] = l->rows[i];
	l->n_rows = kept + 1;
	return 0;
}

/* ---- directories */

void rafs_entries(const struct rafs_layout *l, const struct rafs_visit *v, struct rafs_entry *to)
{
	struct rafs_entry dots[2] = {{".", 1, v->dir}, {"..", 2, v->dir->parent}};
	size_t n = v->dir->n_children, dot = 0;

	for (size_t i = 0; i < n; i++) {
		struct rafs_node *c = l->order[v->first + i];

		/* "-" and others sort before "."; a name is never "." or ".." itself */
		while (dot < 2 && strcmp(dots[dot].name, c->name) < 0)
			*to++ = dots[dot++];
		*to++ = (struct rafs_entry){c->name, c->name_len, c};
	}
	while (dot < 2)
		*to++ = dots[dot++];
}

static void size_directory(const struct rafs_layout *l, const struct rafs_visit *v)
{
	size_t n = v->dir->n_children + 2u;
	scoped_free struct rafs_entry *entry = mem_array(n, sizeof(*entry));
	uint64_t full = 0, used = 0;

	rafs_entries(l, v, entry);
	for (size_t i = 0; i < n; i++) {
		if (!rafs_entry_fits(used, entry[i].n)) {
			full += RAFS_BLOCK;
			used = 0;
		}
		used += sizeof(struct v6_dirent) + entry[i].n;
	}
	v->dir->inode->size = full + used;
}

/* ---- space: a cursor, and what was left of blocks it had to leave */

#define SLOTS (RAFS_BLOCK / RAFS_SLOT)
struct space {
	uint64_t cursor;
	struct rest {
		uint64_t *block;
		size_t first, n, cap;
	} rest[SLOTS]; /* blocks with so many slots free at their end, first in first out */
};

static void remember(struct space *s, uint64_t from)
{
	uint64_t used = from % RAFS_BLOCK;
	struct rest *r = &s->rest[(RAFS_BLOCK - used) / RAFS_SLOT % SLOTS];

	if (!used)
		return;
	mem_grow(r->block, r->n, r->cap);
	r->block[r->n++] = from - used;
}

/* A place in a block left behind, or 0. */
static uint64_t from_rest(struct space *s, uint64_t bytes)
{
	size_t need = (size_t)((bytes + RAFS_SLOT - 1) / RAFS_SLOT);

	for (size_t i = need; bytes < RAFS_BLOCK && i < SLOTS; i++) {
		struct rest *r = &s->rest[i];
		uint64_t at;

		if (r->first == r->n)
			continue;
		at = r->block[r->first++] + RAFS_BLOCK - i * RAFS_SLOT;
		remember(s, at + need * RAFS_SLOT);
		return at;
	}
	return 0;
}

static void next_block(struct space *s)
{
	remember(s, s->cursor);
	s->cursor = rafs_up(s->cursor, RAFS_BLOCK);
}

static void place_with_tail(struct space *s, struct rafs_inode *i) /* directory or symbolic link */
{
	uint64_t tail = i->size % RAFS_BLOCK, bytes = rafs_inode_bytes(i);

	if (rafs_inlined(i)) {
		bytes += tail;
		i->at = from_rest(s, bytes);
		if (!i->at) {
			if (RAFS_BLOCK - s->cursor % RAFS_BLOCK < bytes)
				next_block(s);
			i->at = s->cursor;
			s->cursor += bytes;
		}
		if (i->size != tail)
			next_block(s);
		i->data_at = s->cursor;
		s->cursor += i->size - tail;
		return;
	}
	i->at = from_rest(s, bytes);
	if (!i->at) {
		i->at = s->cursor;
		s->cursor += bytes;
	}
	next_block(s);
	i->data_at = s->cursor;
	s->cursor = rafs_up(s->cursor + i->size, RAFS_BLOCK);
}

static void place_inode(struct space *s, struct rafs_inode *i)
{
	if (S_ISDIR(i->mode) || S_ISLNK(i->mode)) {
		place_with_tail(s, i);
	} else {
		uint64_t bytes = rafs_inode_bytes(i);

		i->at = 0;
		if (S_ISREG(i->mode)) {
			bytes = rafs_up(bytes, 8) +
				i->n_chunks * (uint64_t)sizeof(struct v6_chunk_index);
			i->at = from_rest(s, bytes);
		}
		if (!i->at) {
			i->at = s->cursor;
			s->cursor += bytes;
		}
	}
	s->cursor = rafs_up(s->cursor, RAFS_SLOT);
}

static void place_all(struct rafs_layout *l, struct space *s)
{
	for (size_t d = 0; d < l->n_dirs; d++) {
		const struct rafs_visit *v = &l->dirs[d];

		size_directory(l, v);
		place_inode(s, v->dir->inode);
		for (size_t i = v->first; i < v->first + v->dir->n_children; i++)
			if (!rafs_is_dir(l->order[i]) && l->order[i]->inode->ino == i + 1)
				place_inode(s, l->order[i]->inode);
	}
}

static void list_prefetch(struct rafs_layout *l, const char *patterns)
{
	size_t cap = 0;

	while (patterns && *patterns && l->n_blobs) {
		size_t n = strcspn(patterns, "\n");
		scoped_free char *line = mem_strndup(patterns, n);
		scoped_free char *path = mem_alloc(n + 2);
		const struct rafs_node *node;

		patterns += n + (patterns[n] == '\n');
		if (line[0] != '/')
			continue;
		tar_clean_name(line, path, n + 2);
		node = rafs_lookup(l->fs, path);
		if (!node)
			continue;
		mem_grow(l->prefetch, l->n_prefetch, cap);
		l->prefetch[l->n_prefetch++] = node->inode->ino; /* its inode number once placed */
	}
}

int rafs_layout(struct rafs_layout *l, struct rafs *fs, const struct rafs_layout_opts *o,
		struct err *e)
{
	struct space s = {0};

	*l = (struct rafs_layout){.fs = fs, .layer = o->layer};
	number(l, fs);
	count_links(l);
	if (list_chunks(l, e) < 0)
		return -1;
	list_prefetch(l, o->prefetch);
	l->blob_table =
		rafs_up(RAFS_DEVICES_AT + l->n_blobs * sizeof(struct v6_device), RAFS_BLOCK);
	l->prefetch_table = l->blob_table + l->n_blobs * sizeof(struct v6_blob);
	if (l->n_blobs)
		l->meta = rafs_up(l->prefetch_table + 4 * l->n_prefetch, RAFS_BLOCK);
	s.cursor = l->meta + RAFS_BLOCK; /* so that no inode is number 0 */
	place_all(l, &s);
	for (size_t i = 0; i < SLOTS; i++)
		free(s.rest[i].block);
	for (size_t i = 0; i < l->n_prefetch; i++)
		l->prefetch[i] =
			(uint32_t)((l->order[l->prefetch[i] - 1]->inode->at - l->meta) / RAFS_SLOT);
	l->chunk_table = rafs_up(s.cursor, RAFS_BLOCK);
	l->size = rafs_up(l->chunk_table + l->n_rows * sizeof(struct v6_chunk), RAFS_BLOCK);
	if (l->size > RAFS_MAX_BOOTSTRAP)
		return err_set(e, ERR_LIMIT, "%zu files need a bootstrap of %llu bytes", l->n,
			       (unsigned long long)l->size);
	return 0;
}

void rafs_layout_fini(struct rafs_layout *l)
{
	free(l->order);
	free(l->dirs);
	free(l->rows);
	free(l->prefetch);
	*l = (struct rafs_layout){0};
}
