/* worker/rafs/rafs_tree.c - see rafs_tree.h.  Children hang in glibc's tsearch trees: balanced, so
 * that a hostile order of names costs no more than a friendly one. */
#include "worker/rafs/rafs_tree.h"

#include <search.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/tar/tar_reader.h"

#define PATH_BYTES 4096u
#define LARGE 65536u /* nodes */
#define LINKS_FOLLOWED 40

static int by_name(const void *pa, const void *pb)
{
	const struct rafs_node *a = pa, *b = pb;
	size_t n = a->name_len < b->name_len ? a->name_len : b->name_len;
	int r = memcmp(a->name, b->name, n);

	return r ? r : (int)a->name_len - (int)b->name_len;
}

/* ---- inodes */

struct rafs_inode *rafs_inode_new(uint16_t mode)
{
	struct rafs_inode *i = mem_zalloc(sizeof(*i));

	i->refs = 1;
	i->mode = mode;
	return i;
}

void rafs_inode_put(struct rafs_inode *i)
{
	if (!i || --i->refs)
		return;
	free(i->link);
	free(i->xattr);
	free(i->chunks);
	free(i);
}

static void inode_putp(struct rafs_inode **i)
{
	rafs_inode_put(*i);
	*i = NULL;
}

size_t rafs_xattr_disk(const struct rafs_inode *i)
{
	return i->xattr_n ? V6_XATTR_HEADER + i->xattr_n : 0;
}

static size_t xattr_bytes(const struct v6_xattr *x)
{
	return rafs_up(sizeof(*x) + x->name_len + le16_get(x->value_len), 4);
}

/* Offset of an attribute in i->xattr, or i->xattr_n. */
static size_t xattr_find(const struct rafs_inode *i, uint8_t index, const char *name)
{
	size_t at = 0, n = strlen(name);

	while (at < i->xattr_n) {
		const struct v6_xattr *x = (const void *)(i->xattr + at);

		if (x->name_index == index && x->name_len == n && !memcmp(x + 1, name, n))
			break;
		at += xattr_bytes(x);
	}
	return at;
}

const uint8_t *rafs_xattr(const struct rafs_inode *i, uint8_t index, const char *name, size_t *n)
{
	const struct v6_xattr *x;
	size_t at = xattr_find(i, index, name);

	if (at >= i->xattr_n)
		return NULL;
	x = (const void *)(i->xattr + at);
	*n = le16_get(x->value_len);
	return (const uint8_t *)(x + 1) + x->name_len;
}

void rafs_xattr_del(struct rafs_inode *i, uint8_t index, const char *name)
{
	size_t at = xattr_find(i, index, name), n;

	if (at >= i->xattr_n)
		return;
	n = xattr_bytes((const void *)(i->xattr + at));
	memmove(i->xattr + at, i->xattr + at + n, i->xattr_n - at - n);
	i->xattr_n -= (uint32_t)n;
}

/* ---- nodes */

static struct rafs_node *node_new(const char *name, size_t n)
{
	struct rafs_node *node = mem_zalloc(sizeof(*node) + n + 1);

	node->name_len = (uint8_t)n;
	memcpy(node->name, name, n);
	return node;
}

struct rafs_node *rafs_child(const struct rafs_node *dir, const char *name, size_t n)
{
	union {
		struct rafs_node node;
		char room[sizeof(struct rafs_node) + RAFS_NAME_MAX + 1];
	} key;
	struct rafs_node **found;

	if (n > RAFS_NAME_MAX)
		return NULL;
	memset(&key, 0, sizeof(key.node));
	key.node.name_len = (uint8_t)n;
	memcpy(key.room + offsetof(struct rafs_node, name), name, n);
	found = tfind(&key, (void *const *)&dir->children, by_name);
	return found ? *found : NULL;
}

void rafs_attach(struct rafs *fs, struct rafs_node *dir, struct rafs_node *node)
{
	if (!tsearch(node, &dir->children, by_name))
		abort(); /* out of memory, as mem_alloc does */
	node->parent = dir;
	dir->n_children++;
}

struct rafs_node *rafs_insert(struct rafs *fs, struct rafs_node *dir, const char *name, size_t n,
			      struct rafs_inode *inode, struct err *e)
{
	struct rafs_node *node;

	if (fs->nodes >= RAFS_MAX_NODES) {
		rafs_inode_put(inode);
		err_set(e, ERR_LIMIT, "more than %u files and directories", RAFS_MAX_NODES);
		return NULL;
	}
	node = node_new(name, n);
	node->inode = inode;
	rafs_attach(fs, dir, node);
	fs->nodes++;
	return node;
}

struct rafs_node *rafs_detach(struct rafs *fs, struct rafs_node *node)
{
	tdelete(node, &node->parent->children, by_name);
	node->parent->n_children--;
	node->parent = node;
	return node;
}

struct list {
	struct rafs_node *head; /* chained by `parent` */
};

static void to_list(const void *nodep, VISIT which, void *arg)
{
	struct rafs_node *node = *(struct rafs_node *const *)nodep;
	struct list *l = arg;

	if (which == postorder || which == leaf) {
		node->parent = l->head;
		l->head = node;
	}
}

static void keep(void *node)
{
}

static void children_to_list(struct rafs_node *dir, struct list *l)
{
	twalk_r(dir->children, to_list, l);
	tdestroy(dir->children, keep);
	dir->children = NULL;
	dir->n_children = 0;
}

void rafs_clear(struct rafs *fs, struct rafs_node *dir)
{
	struct list l = {NULL};

	children_to_list(dir, &l);
	while (l.head) {
		struct rafs_node *node = l.head;

		l.head = node->parent;
		children_to_list(node, &l);
		rafs_inode_put(node->inode);
		free(node);
		fs->nodes--;
	}
}

void rafs_remove(struct rafs *fs, struct rafs_node *node)
{
	rafs_clear(fs, node);
	rafs_detach(fs, node);
	rafs_inode_put(node->inode);
	free(node);
	fs->nodes--;
}

void rafs_set_inode(struct rafs_node *node, struct rafs_inode *inode)
{
	struct rafs_inode *old = node->inode;

	node->inode = inode;
	rafs_inode_put(old);
}

struct fill {
	struct rafs_node **to;
	size_t n;
};

static void to_array(const void *nodep, VISIT which, void *arg)
{
	struct fill *f = arg;

	if (which == postorder || which == leaf) /* "postorder" is what others call in order */
		f->to[f->n++] = *(struct rafs_node *const *)nodep;
}

void rafs_children(const struct rafs_node *dir, struct rafs_node **to)
{
	struct fill f = {to, 0};

	twalk_r(dir->children, to_array, &f);
}

/* The next component of a clean path: its length, or 0 at the end. */
static size_t component(const char **path)
{
	while (**path == '/')
		(*path)++;
	return strcspn(*path, "/");
}

struct rafs_node *rafs_lookup(const struct rafs *fs, const char *clean)
{
	struct rafs_node *node = fs->root;
	size_t n;

	for (; node && (n = component(&clean)); clean += n)
		node = rafs_is_dir(node) ? rafs_child(node, clean, n) : NULL;
	return node;
}

/* ---- whole trees */

struct rafs *rafs_new(uint32_t chunk_size, enum v6_compressor c, enum v6_digester d)
{
	struct rafs *fs = mem_zalloc(sizeof(*fs));

	fs->chunk_size = chunk_size;
	fs->compressor = c;
	fs->digester = d;
	fs->root = node_new("", 0);
	fs->root->parent = fs->root;
	fs->root->implied = true;
	fs->root->inode = rafs_inode_new(S_IFDIR | 0755);
	fs->nodes = 1;
	return fs;
}

void rafs_blob_put(struct rafs_blob *b)
{
	if (!b || --b->refs)
		return;
	free(b->chunks);
	free(b);
}

bool rafs_blob_same(const struct rafs_blob *a, const struct rafs_blob *b)
{
	return a->chunk_size == b->chunk_size && a->chunk_count == b->chunk_count &&
	       a->compressor == b->compressor && a->digester == b->digester &&
	       !((a->features ^ b->features) & ~V6_UNKNOWN_HIGH) && a->unpacked == b->unpacked &&
	       a->ci_compressor == b->ci_compressor && a->ci_offset == b->ci_offset &&
	       a->ci_stored == b->ci_stored && a->ci_unpacked == b->ci_unpacked;
}

struct rafs_blob *rafs_add_blob(struct rafs *fs)
{
	mem_grow(fs->blobs, fs->n_blobs, fs->cap_blobs);
	fs->blobs[fs->n_blobs] = mem_zalloc(sizeof(struct rafs_blob));
	fs->blobs[fs->n_blobs]->refs = 1;
	return fs->blobs[fs->n_blobs++];
}

void rafs_freep(struct rafs **fsp)
{
	struct rafs *fs = *fsp;
	bool large;

	*fsp = NULL;
	if (!fs)
		return;
	large = fs->nodes > LARGE;
	rafs_clear(fs, fs->root);
	rafs_inode_put(fs->root->inode);
	free(fs->root);
	for (size_t i = 0; i < fs->n_blobs; i++)
		rafs_blob_put(fs->blobs[i]);
	free(fs->blobs);
	free(fs);
	if (large) /* what comes next are bootstraps, in pages of their own */
		mem_trim();
}

/* Copies of inodes with several names are found again by the original's address. */
struct twin {
	const struct rafs_inode *of;
	struct rafs_inode *copy;
};

static int by_original(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)((const struct twin *)a)->of,
		  y = (uintptr_t)((const struct twin *)b)->of;

	return x < y ? -1 : x > y;
}

static struct rafs_inode *inode_copy(const struct rafs_inode *i, void **twins)
{
	struct twin key = {i, NULL}, *new, **found;
	struct rafs_inode *c;

	if (i->refs > 1 && (found = tfind(&key, twins, by_original))) {
		(*found)->copy->refs++;
		return (*found)->copy;
	}
	c = mem_dup(i, sizeof(*i));
	c->refs = 1;
	c->link = mem_strdup(i->link);
	c->xattr = i->xattr_n ? mem_dup(i->xattr, i->xattr_n) : NULL;
	c->chunks = i->chunks ? mem_dup(i->chunks, i->n_chunks * sizeof(i->chunks[0])) : NULL;
	if (i->refs > 1) {
		new = mem_alloc(sizeof(*new));
		*new = (struct twin){i, c};
		if (!tsearch(new, twins, by_original))
			abort();
	}
	return c;
}

struct pair {
	const struct rafs_node *from;
	struct rafs_node *to;
};

static void copy_children(struct rafs *c, struct pair p, struct pair **todo, size_t *n, size_t *cap,
			  void **twins)
{
	scoped_free struct rafs_node **list =
		mem_array(p.from->n_children, sizeof(struct rafs_node *));

	rafs_children(p.from, list);
	for (size_t i = 0; i < p.from->n_children; i++) {
		struct rafs_node *node = node_new(list[i]->name, list[i]->name_len);

		node->implied = list[i]->implied;
		node->inode = inode_copy(list[i]->inode, twins);
		rafs_attach(c, p.to, node);
		c->nodes++;
		if (list[i]->n_children) {
			mem_grow(*todo, *n, *cap);
			(*todo)[(*n)++] = (struct pair){list[i], node};
		}
	}
}

struct rafs *rafs_clone(const struct rafs *fs)
{
	struct rafs *c = rafs_new(fs->chunk_size, fs->compressor, fs->digester);
	scoped_free struct pair *todo = NULL;
	size_t n = 0, cap = 0;
	void *twins = NULL;

	rafs_set_inode(c->root, inode_copy(fs->root->inode, &twins));
	c->root->implied = fs->root->implied;
	mem_grow(todo, n, cap);
	todo[n++] = (struct pair){fs->root, c->root};
	while (n) {
		struct pair p = todo[--n];

		copy_children(c, p, &todo, &n, &cap, &twins);
	}
	for (size_t i = 0; i < fs->n_blobs; i++) {
		mem_grow(c->blobs, c->n_blobs, c->cap_blobs);
		c->blobs[c->n_blobs++] = fs->blobs[i];
		fs->blobs[i]->refs++;
	}
	tdestroy(twins, free);
	return c;
}

/* ---- a layer's tar */

/* EROFS, "Inline xattrs": prefixes are numbers on disk. */
static const struct {
	const char *prefix;
	uint8_t index;
	bool whole;
} prefixes[] = {
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
};

static int by_xattr_name(const void *a, const void *b)
{
	return strcmp(((const struct tar_xattr *)a)->name, ((const struct tar_xattr *)b)->name);
}

static int xattr_index(const struct tar_xattr *x, uint8_t *index, const char **rest, struct err *e)
{
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t n = strlen(prefixes[i].prefix);

		if (strncmp(x->name, prefixes[i].prefix, n) != 0 ||
		    (prefixes[i].whole != (x->name[n] == '\0')))
			continue;
		*index = prefixes[i].index;
		*rest = x->name + n;
		if (*index == 4 && !strcmp(*rest, RAFS_XATTR_LINK))
			break;
		return 0;
	}
	return err_set(e, ERR_UNSUPPORTED,
		       "attribute \"%s\": EROFS knows user., trusted., security. and POSIX ACLs",
		       x->name);
}

static int set_xattrs(struct rafs_inode *inode, const struct tar_xattr *from, size_t n,
		      struct err *e)
{
	scoped_free struct tar_xattr *x = mem_array(n, sizeof(*x));
	scoped_free uint8_t *disk = NULL;
	size_t bytes = 0, at = 0;

	memcpy(x, from, n * sizeof(*x));
	qsort(x, n, sizeof(*x), by_xattr_name);
	for (size_t i = 0; i < n; i++) {
		const char *rest;
		uint8_t index;

		if (xattr_index(&x[i], &index, &rest, e) < 0)
			return -1;
		if (strlen(rest) > 255 || x[i].n > UINT16_MAX)
			return err_set(e, ERR_UNSUPPORTED,
				       "attribute \"%.300s\": name or value is too long for EROFS",
				       x[i].name);
		bytes += rafs_up(sizeof(struct v6_xattr) + strlen(rest) + x[i].n, 4);
	}
	if (bytes / 4 + 1 > UINT16_MAX)
		return err_set(e, ERR_UNSUPPORTED, "%zu bytes of attributes are too many for EROFS",
			       bytes);
	disk = mem_zalloc(bytes);
	for (size_t i = 0; i < n; i++) {
		struct v6_xattr h = {.value_len = le16_of((uint16_t)x[i].n)};
		const char *rest = "";

		xattr_index(&x[i], &h.name_index, &rest, NULL);
		h.name_len = (uint8_t)strlen(rest);
		memcpy(disk + at, &h, sizeof(h));
		memcpy(disk + at + sizeof(h), rest, h.name_len);
		if (x[i].n)
			memcpy(disk + at + sizeof(h) + h.name_len, x[i].value, x[i].n);
		at += xattr_bytes((const void *)(disk + at));
	}
	inode->xattr = take_ptr(disk);
	inode->xattr_n = (uint32_t)bytes;
	return 0;
}

static const uint16_t types[256] = {
	['0'] = S_IFREG, ['1'] = S_IFREG, ['2'] = S_IFLNK, ['3'] = S_IFCHR,
	['4'] = S_IFBLK, ['5'] = S_IFDIR, ['6'] = S_IFIFO,
};

/* Linux new_encode_dev: 12 bits of major, 20 of minor. */
static int set_rdev(struct rafs_inode *inode, const struct tar_entry *t, struct err *e)
{
	if (t->dev_major > 0xfff || t->dev_minor > 0xfffff)
		return err_set(e, ERR_UNSUPPORTED, "device number %u:%u is too large", t->dev_major,
			       t->dev_minor);
	inode->rdev = (t->dev_minor & 0xff) | t->dev_major << 8 | (t->dev_minor & ~0xffu) << 12;
	return 0;
}

static struct rafs_inode *inode_of(const struct rafs *fs, const struct tar_entry *t, struct err *e)
{
	scoped(inode_putp) struct rafs_inode *inode =
		rafs_inode_new((uint16_t)(types[(uint8_t)t->type] | (t->mode & 07777)));

	if (t->uid > UINT32_MAX || t->gid > UINT32_MAX) {
		err_set(e, ERR_UNSUPPORTED, "owner %llu:%llu is too large",
			(unsigned long long)t->uid, (unsigned long long)t->gid);
		return NULL;
	}
	inode->uid = (uint32_t)t->uid;
	inode->gid = (uint32_t)t->gid;
	inode->mtime = t->mtime;
	if (t->n_xattr && set_xattrs(inode, t->xattr, t->n_xattr, e) < 0)
		return NULL;
	if ((t->type == '3' || t->type == '4') && set_rdev(inode, t, e) < 0)
		return NULL;
	if (t->type == '2') {
		inode->size = strlen(t->link);
		if (!inode->size || inode->size > RAFS_LINK_MAX) {
			err_set(e, ERR_UNSUPPORTED, "symbolic link to a path of %llu bytes",
				(unsigned long long)inode->size);
			return NULL;
		}
		inode->link = mem_strdup(t->link);
	}
	inode->explicit = t->type == '5';
	if (t->type == '0') {
		inode->size = t->size;
		if (t->size > (uint64_t)fs->chunk_size * RAFS_MAX_CHUNKS) {
			err_set(e, ERR_LIMIT, "a file of %llu bytes", (unsigned long long)t->size);
			return NULL;
		}
		inode->n_chunks = (uint32_t)((t->size + fs->chunk_size - 1) / fs->chunk_size);
	}
	return take_ptr(inode);
}

/* path, of which the n bytes at `at` are the symbolic link `link`: what it leads to instead. */
static int go_through(char path[PATH_BYTES], const char *at, size_t n, const struct rafs_node *link,
		      struct err *e)
{
	const char *to = link->inode->link;
	char whole[2 * PATH_BYTES + RAFS_LINK_MAX];

	snprintf(whole, sizeof(whole), "%.*s/%s/%s", to[0] == '/' ? 0 : (int)(at - path), path, to,
		 at + n);
	if (tar_clean_name(whole, path, PATH_BYTES) >= PATH_BYTES)
		return err_set(e, ERR_UNSUPPORTED, "a path of more than %u bytes", PATH_BYTES - 1);
	return 0;
}

/* What lies at path, links on the way to it followed; or NULL. */
struct rafs_node *rafs_lookup_through(const struct rafs *fs, const char *clean)
{
	char whole[PATH_BYTES];
	struct rafs_node *node = fs->root;
	const char *path = whole;
	int links = 0;
	size_t n;

	if (strlen(clean) >= sizeof(whole))
		return NULL;
	strcpy(whole, clean);
	while (node && (n = component(&path))) {
		node = rafs_is_dir(node) ? rafs_child(node, path, n) : NULL;
		if (node && path[n] && S_ISLNK(node->inode->mode)) {
			if (++links > LINKS_FOLLOWED || go_through(whole, path, n, node, NULL) < 0)
				return NULL;
			path = whole;
			node = fs->root;
			continue;
		}
		path += n;
	}
	return node;
}

/* The target's inode, counted, or a file that stands for it until the merge. */
static struct rafs_inode *linked(const struct rafs *fs, const struct tar_entry *t, struct err *e)
{
	char path[PATH_BYTES];
	size_t n = tar_clean_name(t->link, path, sizeof(path));
	const struct rafs_node *to;
	struct rafs_inode *inode;

	if (n >= sizeof(path)) {
		err_set(e, ERR_UNSUPPORTED, "hard link to a path of %zu bytes", n);
		return NULL;
	}
	to = rafs_lookup_through(fs, path);
	if (to && rafs_is_dir(to)) {
		err_set(e, ERR_INVALID, "hard link to a directory");
		return NULL;
	}
	if (to) {
		to->inode->refs++;
		return to->inode;
	}
	inode = inode_of(fs, t, e);
	if (!inode)
		return NULL;
	struct v6_xattr h = {sizeof(RAFS_XATTR_LINK) - 1, 4, le16_of((uint16_t)n)};

	free(inode->xattr);
	inode->xattr_n = (uint32_t)xattr_bytes(&h);
	inode->xattr = mem_zalloc(inode->xattr_n);
	memcpy(inode->xattr, &h, sizeof(h));
	memcpy(inode->xattr + sizeof(h), RAFS_XATTR_LINK, h.name_len);
	memcpy(inode->xattr + sizeof(h) + h.name_len, path, n);
	return inode;
}

/* The directory that holds the last component, made where it is missing; *last is that component.
 * A link of this layer on the way is followed, as it is by who unpacks the layer: path changes. */
static struct rafs_node *parents(struct rafs *fs, char whole[PATH_BYTES], const char **last,
				 struct err *e)
{
	struct rafs_node *dir = fs->root;
	const char *path = whole;
	int links = 0;
	size_t n;

	while ((n = component(&path))) {
		struct rafs_node *next;

		if (n > RAFS_NAME_MAX) {
			err_set(e, ERR_UNSUPPORTED, "a name of %zu bytes", n);
			return NULL;
		}
		if (!path[n])
			break;
		next = rafs_child(dir, path, n);
		if (!next) {
			next = rafs_insert(fs, dir, path, n, rafs_inode_new(S_IFDIR | 0755), e);
			if (!next)
				return NULL;
			next->implied = true;
		} else if (S_ISLNK(next->inode->mode)) {
			if (++links > LINKS_FOLLOWED) {
				err_set(e, ERR_INVALID,
					"it lies behind symbolic links in a circle");
				return NULL;
			}
			if (go_through(whole, path, n, next, e) < 0)
				return NULL;
			path = whole;
			dir = fs->root;
			continue;
		} else if (!rafs_is_dir(next)) {
			rafs_set_inode(next, rafs_inode_new(S_IFDIR | 0755));
			next->implied = true;
		}
		dir = next;
		path += n;
	}
	*last = path;
	return dir;
}

static int place(struct rafs *fs, char path[PATH_BYTES], struct rafs_inode **inode, struct err *e)
{
	bool is_dir = S_ISDIR((*inode)->mode);
	struct rafs_node *dir, *node;
	const char *last;

	if (!*path && !is_dir)
		return err_set(e, ERR_INVALID, "the root is not a directory");
	dir = parents(fs, path, &last, e);
	if (!dir)
		return -1;
	node = *last ? rafs_child(dir, last, strlen(last)) : dir;
	if (!node)
		return rafs_insert(fs, dir, last, strlen(last), take_ptr(*inode), e) ? 0 : -1;
	if (!is_dir)
		rafs_clear(fs, node);
	rafs_set_inode(node, take_ptr(*inode));
	node->implied = false;
	return 0;
}

int rafs_add_entry(struct rafs *fs, const struct tar_entry *t, struct rafs_inode **file,
		   struct err *e)
{
	static const char *const skipped[] = {"stargz.index.json", ".prefetch.landmark",
					      ".no.prefetch.landmark"};
	scoped(inode_putp) struct rafs_inode *inode = NULL;
	struct rafs_inode *made;
	char path[PATH_BYTES];
	size_t n;

	*file = NULL;
	if (t->type == 'g')
		return 0;
	n = tar_clean_name(t->name, path, sizeof(path));
	if (n >= sizeof(path))
		return err_set(e, ERR_UNSUPPORTED, "a path of %zu bytes (\"%.80s...\")", n,
			       t->name);
	for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++)
		if (!strcmp(path, skipped[i]))
			return 0;
	if (!types[(uint8_t)t->type]) {
		err_set(e, ERR_UNSUPPORTED, "entry type '%c'", t->type);
		goto named;
	}
	inode = t->type == '1' ? linked(fs, t, e) : inode_of(fs, t, e);
	if (!inode)
		goto named;
	made = inode;
	if (place(fs, path, &inode, e) < 0)
		goto named;
	if (t->type == '0' && made->size)
		*file = made;
	return 0;
named:
	return err_wrap(e, "\"%s\"", path);
}
