/* worker/rafs/rafs_merge.c - see rafs_merge.h.  Inodes are shared, nodes made anew; pairs of
 * directories (one of each side) wait in a list.  Where an implied directory meets a symbolic link
 * below, its turn comes when everything else is in place: only then it is sure what the link leads
 * to, and that nothing takes it away again. */
#include "worker/rafs/rafs_merge.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/tar/tar_reader.h"

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
#define LINKS_FOLLOWED 40

struct pair {
	struct rafs_node *below, *above;
};

struct merge {
	struct rafs *fs, *upper;
	struct pair *todo;
	size_t n, cap;
	struct rafs_node **later; /* of upper: implied directories where a link is below */
	size_t n_later, cap_later;
};

static void push(struct merge *m, struct rafs_node *below, struct rafs_node *above)
{
	mem_grow(m->todo, m->n, m->cap);
	m->todo[m->n++] = (struct pair){below, above};
}

/* ---- hard links to files of lower layers */

static int resolve(struct merge *m, struct rafs_node *node, struct err *e)
{
	struct rafs_node *to;
	const uint8_t *path;
	char text[RAFS_LINK_MAX + 1];
	size_t n;

	if (!S_ISREG(node->inode->mode) || !node->inode->xattr_n)
		return 0;
	path = rafs_xattr(node->inode, 4, RAFS_XATTR_LINK, &n);
	if (!path)
		return 0;
	if (n >= sizeof(text))
		return err_set(e, ERR_CORRUPT, "hard link to a path of %zu bytes", n);
	memcpy(text, path, n);
	text[n] = '\0';
	to = rafs_lookup_through(m->fs, text);
	if (!to || rafs_is_dir(to))
		return err_set(
			e, ERR_INVALID,
			"\"%s\" is a hard link to \"%s\", which is a file in no layer up to it",
			node->name, text);
	to->inode->refs++;
	rafs_set_inode(node, to->inode);
	return 0;
}

static int resolve_all(struct merge *m, struct err *e)
{
	scoped_free struct rafs_node **todo =
		mem_array(m->upper->nodes, sizeof(struct rafs_node *));
	size_t n = 0;

	todo[n++] = m->upper->root;
	while (n) {
		struct rafs_node *node = todo[--n];

		if (resolve(m, node, e) < 0)
			return -1;
		rafs_children(node, todo + n);
		n += node->n_children;
	}
	return 0;
}

/* ---- the overlay */

/* Where a symbolic link in fs leads, if that is a directory. */
static struct rafs_node *follow(const struct rafs *fs, struct rafs_node *link)
{
	char path[2 * RAFS_LINK_MAX + 2], clean[sizeof(path)];
	struct rafs_node *at = link->parent, *parts[RAFS_LINK_MAX];
	size_t n = 0, used = 0;

	for (int i = 0; i < LINKS_FOLLOWED && S_ISLNK(link->inode->mode); i++) {
		n = used = 0;
		for (at = link->parent; link->inode->link[0] != '/' && at->parent != at;
		     at = at->parent)
			if (n == RAFS_LINK_MAX)
				return NULL;
			else
				parts[n++] = at;
		while (n--) {
			if (used + parts[n]->name_len + 1u > RAFS_LINK_MAX)
				return NULL;
			path[used++] = '/';
			memcpy(path + used, parts[n]->name, parts[n]->name_len);
			used += parts[n]->name_len;
		}
		path[used++] = '/';
		memcpy(path + used, link->inode->link, link->inode->size + 1);
		tar_clean_name(path, clean, sizeof(clean));
		link = rafs_lookup(fs, clean);
		if (!link)
			return NULL;
	}
	return rafs_is_dir(link) ? link : NULL;
}

static void white_out(struct merge *m, struct rafs_node *below, struct rafs_node **above, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(above[i]->name, OPAQUE))
			rafs_clear(m->fs, below);
	for (size_t i = 0; i < n; i++) {
		const char *name = above[i]->name + sizeof(WHITEOUT) - 1;
		struct rafs_node *gone;

		if (strncmp(above[i]->name, WHITEOUT, sizeof(WHITEOUT) - 1) != 0)
			continue;
		gone = rafs_child(below, name, strlen(name));
		if (gone)
			rafs_remove(m->fs, gone);
	}
}

static int lay(struct merge *m, struct rafs_node *dir, struct rafs_node *above, struct err *e)
{
	struct rafs_node *below = rafs_child(dir, above->name, above->name_len);

	if (below && above->implied && S_ISLNK(below->inode->mode) && follow(m->fs, below)) {
		mem_grow(m->later, m->n_later, m->cap_later);
		m->later[m->n_later++] = above;
		return 0;
	}
	if (below && rafs_is_dir(below) && rafs_is_dir(above)) {
		if (!above->implied) {
			above->inode->refs++;
			rafs_set_inode(below, above->inode);
			below->implied = false;
		}
		push(m, below, above);
		return 0;
	}
	if (below)
		rafs_remove(m->fs, below);
	if (m->fs->nodes >= RAFS_MAX_NODES)
		return err_set(e, ERR_LIMIT, "more than %u files and directories", RAFS_MAX_NODES);
	above->inode->refs++;
	below = rafs_insert(m->fs, dir, above->name, above->name_len, above->inode, e);
	if (!below)
		return -1;
	below->implied = above->implied;
	if (rafs_is_dir(above)) /* what is in it may be whiteouts */
		push(m, below, above);
	return 0;
}

static int merge_pair(struct merge *m, struct pair p, struct err *e)
{
	size_t n = p.above->n_children;
	scoped_free struct rafs_node **above = mem_array(n, sizeof(struct rafs_node *));

	rafs_children(p.above, above);
	white_out(m, p.below, above, n);
	for (size_t i = 0; i < n; i++)
		if (strncmp(above[i]->name, WHITEOUT, sizeof(WHITEOUT) - 1) != 0 &&
		    lay(m, p.below, above[i], e) < 0)
			return -1;
	return 0;
}

static int drain(struct merge *m, struct err *e)
{
	while (m->n) {
		struct pair p = m->todo[--m->n];

		if (merge_pair(m, p, e) < 0)
			return -1;
	}
	return 0;
}

/* The directory in fs under the name that `above` has in upper, links followed. */
static struct rafs_node *find_below(const struct merge *m, const struct rafs_node *above)
{
	const struct rafs_node *names[RAFS_LINK_MAX / 2 + 1];
	struct rafs_node *at = m->fs->root;
	size_t n = 0;

	for (; above != m->upper->root && n < sizeof(names) / sizeof(names[0]);
	     above = above->parent)
		names[n++] = above;
	while (at && n--) {
		at = rafs_child(at, names[n]->name, names[n]->name_len);
		if (at && S_ISLNK(at->inode->mode))
			at = follow(m->fs, at);
		if (at && !rafs_is_dir(at))
			at = NULL;
	}
	return at;
}

static int merge_later(struct merge *m, struct err *e)
{
	for (size_t i = 0; i < m->n_later; i++) {
		struct rafs_node *below = find_below(m, m->later[i]);

		if (!below)
			return err_set(e, ERR_INVALID,
				       "\"%s\" lies behind a symbolic link that leads nowhere",
				       m->later[i]->name);
		push(m, below, m->later[i]);
		if (drain(m, e) < 0)
			return -1;
	}
	return 0;
}

/* The lowest layer, on nothing: its tree is taken as it is, but for whiteouts. */
static void adopt(struct rafs *fs, struct rafs *up)
{
	scoped_free struct rafs_node **todo = mem_array(up->nodes, sizeof(struct rafs_node *));
	struct rafs_node *root = fs->root;
	uint64_t nodes = fs->nodes;
	size_t n = 0;

	todo[n++] = up->root;
	while (n) {
		struct rafs_node *dir = todo[--n], **kid = todo + n;
		size_t kids = dir->n_children;

		rafs_children(dir, kid);
		for (size_t i = 0; i < kids; i++)
			if (strncmp(kid[i]->name, WHITEOUT, sizeof(WHITEOUT) - 1) == 0)
				rafs_remove(up, kid[i]);
			else if (kid[i]->n_children)
				todo[n++] = kid[i];
	}
	fs->root = up->root;
	fs->nodes = up->nodes;
	up->root = root;
	up->nodes = nodes;
}

int rafs_merge(struct rafs *fs, struct rafs **upper, struct err *e)
{
	scoped(rafs_freep) struct rafs *up = take_ptr(*upper);
	struct merge m = {.fs = fs, .upper = up};
	int rc;

	if (up->chunk_size != fs->chunk_size)
		return err_set(e, ERR_INVALID, "chunks of %u bytes on chunks of %u", up->chunk_size,
			       fs->chunk_size);
	rc = resolve_all(&m, e);
	if (rc == 0 && fs->root->implied && !fs->root->n_children)
		adopt(fs, up);
	else if (rc == 0 && !up->root->implied) {
		up->root->inode->refs++;
		rafs_set_inode(fs->root, up->root->inode);
		fs->root->implied = false;
	}
	push(&m, fs->root, up->root);
	if (rc == 0)
		rc = drain(&m, e);
	if (rc == 0)
		rc = merge_later(&m, e);
	free(m.todo);
	free(m.later);
	fs->compressor = up->compressor;
	fs->digester = up->digester;
	for (size_t i = 0; i < up->n_blobs; i++) {
		mem_grow(fs->blobs, fs->n_blobs, fs->cap_blobs);
		fs->blobs[fs->n_blobs++] = up->blobs[i];
		up->blobs[i]->refs++;
	}
	return rc;
}
