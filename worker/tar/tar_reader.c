/* Everything is read into one buffer and handed out from there.  A header is gathered whole before
 * it is shown (PAX and GNU records first, then the block they are about), so the buffer grows for
 * one that is long; data goes out as it lies in the buffer, without a copy.  What belongs to an
 * entry longer than one piece (names, xattrs) is copied once. */
#include "worker/tar/tar_reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/tar/tar_header.h"

#define BUFFER_BYTES ((size_t)256 << 10)
#define PIECE_MAX ((size_t)1 << 20)
#define RECORDS_MAX                                                                                \
	((size_t)1                                                                                 \
	 << 20) /* one PAX or GNU record, one sparse map; Go's and libarchive's bound too */
#define HEADER_MAX ((size_t)4 << 20) /* all records before one entry */

enum map_kind {
	MAP_NONE,
	MAP_BLOCKS,
	MAP_LINES
}; /* still to be read: old GNU's blocks, PAX 1.0's lines */

/* What a PAX header says, before it is applied: the last record of a key counts, an empty one not
 * at all. */
enum pax_key {
	PAX_PATH,
	PAX_LINKPATH,
	PAX_UNAME,
	PAX_GNAME,
	PAX_UID,
	PAX_GID,
	PAX_SIZE,
	PAX_MTIME,
	PAX_ATIME,
	PAX_CTIME,
	PAX_SPARSE_MAJOR,
	PAX_SPARSE_MINOR,
	PAX_SPARSE_MAP,
	PAX_SPARSE_NAME,
	PAX_SPARSE_SIZE,
	PAX_SPARSE_REALSIZE,
	PAX_SPARSE_NUMBLOCKS,
	PAX_KEYS,
};
static const char *const pax_keys[PAX_KEYS] = {
	[PAX_PATH] = "path",
	[PAX_LINKPATH] = "linkpath",
	[PAX_UNAME] = "uname",
	[PAX_GNAME] = "gname",
	[PAX_UID] = "uid",
	[PAX_GID] = "gid",
	[PAX_SIZE] = "size",
	[PAX_MTIME] = "mtime",
	[PAX_ATIME] = "atime",
	[PAX_CTIME] = "ctime",
	[PAX_SPARSE_MAJOR] = "GNU.sparse.major",
	[PAX_SPARSE_MINOR] = "GNU.sparse.minor",
	[PAX_SPARSE_MAP] = "GNU.sparse.map",
	[PAX_SPARSE_NAME] = "GNU.sparse.name",
	[PAX_SPARSE_SIZE] = "GNU.sparse.size",
	[PAX_SPARSE_REALSIZE] = "GNU.sparse.realsize",
	[PAX_SPARSE_NUMBLOCKS] = "GNU.sparse.numblocks",
};

struct tar_reader {
	struct source *from;
	struct tar_limits limits;
	enum { AT_HEADER, AT_MAP, AT_DATA, AT_PADDING, AT_TRAILER, AT_END } state;

	uint8_t *buf;
	size_t cap, at, n; /* not yet handed out: buf[at, n) */
	bool eof;
	uint64_t pos; /* in the tar, of buf[at] */

	struct tar_entry entry;
	uint64_t stored; /* bytes of the entry's data that are left in the tar */
	size_t padding;	 /* after them */
	uint64_t file_pos;
	uint64_t entries, names_bytes, unpacked; /* so far, for the limits */

	char *text; /* the entry's strings */
	size_t text_n, text_cap;
	struct tar_xattr *xattr;
	size_t n_xattr, xattr_cap;

	enum map_kind map_kind;
	struct tar_span *map; /* of a sparse file: where it has data */
	size_t n_map, map_cap, map_at;
	char *pairs; /* GNU.sparse.offset and .numbytes, as the text of a GNU.sparse.map */
	size_t n_pairs, pairs_cap, pairs_count;
};

int tar_open(struct tar_reader **to, struct source **s, const struct tar_limits *l, struct err *e)
{
	struct tar_reader *t = mem_zalloc(sizeof(*t));

	if (l)
		t->limits = *l;
	if (!t->limits.entries)
		t->limits.entries = 4 << 20;
	if (!t->limits.names_bytes)
		t->limits.names_bytes = 128 << 20;
	if (!t->limits.unpacked)
		t->limits.unpacked = UINT64_MAX;
	t->cap = BUFFER_BYTES;
	t->buf = mem_alloc(t->cap);
	t->from = take_ptr(*s);
	*to = t;
	return 0;
}

void tar_closep(struct tar_reader **t)
{
	if (!*t)
		return;
	source_freep(&(*t)->from);
	free((*t)->buf);
	free((*t)->text);
	free((*t)->xattr);
	free((*t)->map);
	free((*t)->pairs);
	free(*t);
	*t = NULL;
}

/* Sees to it that `want` bytes lie at buf + at, if the tar has them; how many lie there, or -1. */
static ssize_t have(struct tar_reader *t, size_t want, struct err *e)
{
	ssize_t r;

	if (t->n - t->at >= want || t->eof)
		return (ssize_t)(t->n - t->at);
	if (t->at > 0) {
		memmove(t->buf, t->buf + t->at, t->n - t->at);
		t->n -= t->at;
		t->at = 0;
	}
	while (t->cap < want) {
		t->cap *= 2;
		t->buf = mem_resize(t->buf, t->cap, 1);
	}
	r = source_read(t->from, t->buf + t->n, t->cap - t->n, e);
	if (r < 0)
		return -1;
	t->eof = (size_t)r < t->cap - t->n;
	t->n += (size_t)r;
	return (ssize_t)t->n;
}

static int truncated(const struct tar_reader *t, const char *where, struct err *e)
{
	return err_set(e, ERR_CORRUPT, "the tar ends after %" PRIu64 " bytes, in the middle of %s",
		       (t->pos + (t->n - t->at)), where);
}

static int bad_entry(const struct tar_reader *t, struct err *e, const char *what)
{
	return err_set(e, ERR_CORRUPT, "tar entry \"%.200s\" at byte %" PRIu64 ": %s",
		       t->entry.name, t->pos, what);
}

/* Hands out n bytes as they lie. */
static int give(struct tar_reader *t, struct tar_piece *p, int kind, size_t n)
{
	*p = (struct tar_piece){
		.kind = kind,
		.entry = kind == TAR_TRAILER ? NULL : &t->entry,
		.raw = t->buf + t->at,
		.len = n,
		.tar_pos = t->pos,
		.file_pos = t->file_pos,
	};
	t->at += n;
	t->pos += n;
	return 1;
}

/* ---- the entry's strings */

static void text_start(struct tar_reader *t, size_t most)
{
	if (t->text_cap < most) {
		free(t->text);
		t->text = mem_alloc(most);
		t->text_cap = most;
	}
	t->text_n = 0;
}

/* A copy with a NUL behind it; text_start made room. */
static char *keep(struct tar_reader *t, struct tar_text s)
{
	char *p = t->text + t->text_n;

	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = 0;
	t->text_n += s.n + 1;
	return p;
}

static char *keep_name(struct tar_reader *t, const struct tar_block *h)
{
	char *p;

	if (h->prefix.n == 0)
		return keep(t, h->name);
	p = keep(t, h->prefix);
	p[h->prefix.n] = '/';
	keep(t, h->name);
	return p;
}

/* ---- PAX records */

struct records { /* what stands before an entry's own block; all borrowed from buf */
	struct tar_text pax;
	struct tar_text long_name, long_link; /* GNU L and K */
	struct tar_text key[PAX_KEYS];
};

static bool same(struct tar_text a, const char *b, size_t n)
{
	return a.n == n && memcmp(a.p, b, n) == 0;
}

/* GNU sparse 0.0: pairs of records, alternating, make the map of 0.1. */
static int add_pair(struct tar_reader *t, bool offset, struct tar_text v, struct err *e)
{
	if (offset != (t->pairs_count % 2 == 0) || memchr(v.p, ',', v.n))
		return err_set(e, ERR_CORRUPT,
			       "PAX header: the records of its sparse map are out of order");
	while (t->pairs_cap < t->n_pairs + v.n + 1) {
		t->pairs_cap = t->pairs_cap ? 2 * t->pairs_cap : 1024;
		t->pairs = mem_resize(t->pairs, t->pairs_cap, 1);
	}
	if (t->pairs_count++)
		t->pairs[t->n_pairs++] = ',';
	memcpy(t->pairs + t->n_pairs, v.p, v.n);
	t->n_pairs += v.n;
	return 0;
}

static void add_xattr(struct tar_reader *t, struct tar_text name, struct tar_text value)
{
	if (name.n == 0)
		return; /* nothing can have that name */
	mem_grow(t->xattr, t->n_xattr, t->xattr_cap);
	t->xattr[t->n_xattr].name = keep(t, name);
	t->xattr[t->n_xattr].value = keep(t, value);
	t->xattr[t->n_xattr++].n = value.n;
}

static int xattr_order(const void *a, const void *b)
{
	const struct tar_xattr *x = *(const struct tar_xattr *const *)a,
			       *y = *(const struct tar_xattr *const *)b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x > y) - (x < y);
}

/* Each name once: the last value at the first one's place.  Sorted, since a header may hold tens of
 * thousands. */
static void unique_xattrs(struct tar_reader *t)
{
	scoped_free struct tar_xattr **by_name = NULL;
	size_t n = 0;

	if (t->n_xattr < 2)
		return;
	by_name = mem_array(t->n_xattr, sizeof(*by_name));
	for (size_t i = 0; i < t->n_xattr; i++)
		by_name[i] = &t->xattr[i];
	qsort(by_name, t->n_xattr, sizeof(*by_name), xattr_order);
	for (size_t i = 0, first = 0; i < t->n_xattr; i++) {
		if (strcmp(by_name[i]->name, by_name[first]->name) != 0)
			first = i;
		if (i == first)
			continue;
		by_name[first]->value = by_name[i]->value;
		by_name[first]->n = by_name[i]->n;
		by_name[i]->name = by_name[first]->name; /* equal, for strcmp above; marked below */
		by_name[i]->value = NULL;
	}
	for (size_t i = 0; i < t->n_xattr; i++)
		if (t->xattr[i].value)
			t->xattr[n++] = t->xattr[i];
	t->n_xattr = n;
}

static int parse_pax(struct tar_reader *t, struct records *r, struct err *e)
{
	static const char xattr[] = "SCHILY.xattr.";
	struct tar_text rest = r->pax, key, value;
	int more;

	while ((more = tar_pax_next(&rest, &key, &value, e)) > 0) {
		bool offset = same(key, "GNU.sparse.offset", 17);

		if (key.n >= sizeof(xattr) - 1 && memcmp(key.p, xattr, sizeof(xattr) - 1) == 0) {
			key.p += sizeof(xattr) - 1;
			key.n -= sizeof(xattr) - 1;
			add_xattr(t, key, value);
			continue;
		}
		if (offset || same(key, "GNU.sparse.numbytes", 19)) {
			if (add_pair(t, offset, value, e) < 0)
				return -1;
			continue;
		}
		for (size_t i = 0; i < PAX_KEYS; i++)
			if (same(key, pax_keys[i], strlen(pax_keys[i])))
				r->key[i] = value;
	}
	unique_xattrs(t);
	if (t->pairs_count)
		r->key[PAX_SPARSE_MAP] = (struct tar_text){t->pairs, t->n_pairs};
	return more;
}

/* A 'g' header is only looked at, as Go does: it must be well formed. */
static int check_pax(struct tar_text rest, struct err *e)
{
	struct tar_text key, value;
	int more;

	while ((more = tar_pax_next(&rest, &key, &value, e)) > 0)
		;
	return more;
}

static int apply_number(struct tar_text v, int64_t *to, const char *key, struct err *e)
{
	if (v.n > 0 && !tar_decimal(v, to))
		return err_set(e, ERR_CORRUPT, "PAX header: its %s is not a number", key);
	return 0;
}

static int apply_time(struct tar_text v, int64_t *s, uint32_t *ns, bool *has, const char *key,
		      struct err *e)
{
	if (v.n == 0)
		return 0;
	if (!tar_time(v, s, ns))
		return err_set(e, ERR_CORRUPT, "PAX header: its %s is not a time", key);
	*has = true;
	return 0;
}

/* ---- sparse files */

static int add_span(struct tar_reader *t, int64_t offset, int64_t n, struct err *e)
{
	if (offset < 0 || n < 0)
		return bad_entry(t, e, "its sparse map has negative numbers");
	mem_grow(t->map, t->n_map, t->map_cap);
	t->map[t->n_map++] = (struct tar_span){(uint64_t)offset, (uint64_t)n};
	return 0;
}

/* The next number of a list; `text` moves past its delimiter. */
static bool list_number(struct tar_text *list, char delimiter, int64_t *v)
{
	const char *end = memchr(list->p, delimiter, list->n);
	size_t n = end ? (size_t)(end - list->p) : list->n;

	if (!tar_decimal((struct tar_text){list->p, n}, v))
		return false;
	n += end != NULL;
	list->p += n;
	list->n -= n;
	return true;
}

/* 0.1 (and 0.0, made into it): "offset,length,offset,length" */
static int map_of_records(struct tar_reader *t, const struct records *r, struct err *e)
{
	struct tar_text list = r->key[PAX_SPARSE_MAP];
	int64_t count, offset, n;
	size_t numbers = list.n > 0;

	if (!tar_decimal(r->key[PAX_SPARSE_NUMBLOCKS], &count))
		return bad_entry(t, e, "its sparse map has no number of extents");
	for (size_t i = 0; i < list.n; i++)
		numbers += list.p[i] == ',';
	if (count < 0 || numbers % 2 || numbers / 2 != (uint64_t)count)
		return bad_entry(t, e, "its sparse map has another number of extents than it says");
	for (int64_t i = 0; i < count; i++) {
		if (!list_number(&list, ',', &offset) || !list_number(&list, ',', &n))
			return bad_entry(t, e, "its sparse map is not a list of numbers");
		if (add_span(t, offset, n, e) < 0)
			return -1;
	}
	return 0;
}

/* In order, inside the file, and exactly the bytes that are stored. */
static int check_map(struct tar_reader *t, struct err *e)
{
	uint64_t end = 0, sum = 0;

	for (size_t i = 0; i < t->n_map; i++) {
		if (t->map[i].offset < end || t->map[i].n > t->entry.size ||
		    t->map[i].offset > t->entry.size - t->map[i].n)
			return bad_entry(t, e,
					 "its sparse map overlaps itself or passes the file's end");
		end = t->map[i].offset + t->map[i].n;
		sum += t->map[i].n;
	}
	if (sum != t->stored)
		return err_set(e, ERR_CORRUPT,
			       "tar entry \"%.200s\": its sparse map has %" PRIu64
			       " bytes, %" PRIu64 " are stored",
			       t->entry.name, sum, t->stored);
	return 0;
}

/* Is it a sparse file by its PAX records (block is its header), and by which map?  As Go: a version
 * that is not known makes an ordinary file of it. */
static int find_sparse(struct tar_reader *t, const struct tar_block *h, const uint8_t *block,
		       const struct records *r, struct err *e)
{
	struct tar_text major = r->key[PAX_SPARSE_MAJOR], minor = r->key[PAX_SPARSE_MINOR];
	struct tar_text size = r->key[PAX_SPARSE_SIZE];
	int64_t real = (int64_t)t->entry.size;
	bool more;
	int n;

	if (h->type == 'S') {
		t->entry.sparse = true;
		if (h->format != TAR_GNU || !tar_gnu_real_size(block, &real) || real < 0)
			return bad_entry(t, e, "its type S is not GNU's");
		t->entry.size = (uint64_t)real;
		t->map_cap = t->map_cap < TAR_GNU_SPARSE_HEAD ? TAR_GNU_SPARSE_HEAD : t->map_cap;
		t->map = mem_resize(t->map, t->map_cap, sizeof(*t->map));
		n = tar_gnu_spans(block + TAR_GNU_SPARSE_AT, TAR_GNU_SPARSE_HEAD, t->map, &more, e);
		if (n < 0)
			return -1;
		t->n_map = (size_t)n;
		t->map_kind = more ? MAP_BLOCKS : MAP_NONE;
		return more ? 0 : check_map(t, e);
	}
	if (same(major, "1", 1) && same(minor, "0", 1))
		t->map_kind = MAP_LINES;
	else if (!(same(major, "0", 1) && (same(minor, "0", 1) || same(minor, "1", 1))) &&
		 (major.n || minor.n || !r->key[PAX_SPARSE_MAP].n))
		return 0;
	t->entry.sparse = true;
	if (size.n == 0)
		size = r->key[PAX_SPARSE_REALSIZE];
	if (apply_number(size, &real, "GNU.sparse.size", e) < 0)
		return -1;
	if (real < 0 || t->entry.type != '0')
		return bad_entry(t, e, "it is sparse and no file, or its size is negative");
	t->entry.size = (uint64_t)real;
	if (t->map_kind == MAP_LINES)
		return 0;
	return map_of_records(t, r, e) < 0 ? -1 : check_map(t, e);
}

/* Old GNU: blocks of 21 extents follow the header. */
static int read_map_blocks(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	size_t n = 0;
	bool more = true;

	while (more) {
		ssize_t r = have(t, n + TAR_BLOCK, e);
		struct tar_span spans[TAR_GNU_SPARSE_MORE];
		int k;

		if (r < 0)
			return -1;
		if ((size_t)r < n + TAR_BLOCK)
			return truncated(t, "a sparse map", e);
		k = tar_gnu_spans(t->buf + t->at + n, TAR_GNU_SPARSE_MORE, spans, &more, e);
		if (k < 0)
			return -1;
		for (int i = 0; i < k; i++)
			add_span(t, (int64_t)spans[i].offset, (int64_t)spans[i].n, NULL);
		n += TAR_BLOCK;
		if (n > RECORDS_MAX)
			return err_set(e, ERR_LIMIT,
				       "tar entry \"%.200s\" has a sparse map of over %zu bytes",
				       t->entry.name, RECORDS_MAX);
	}
	if (check_map(t, e) < 0)
		return -1;
	return give(t, p, TAR_MAP, n);
}

/* Blocks from the data's start until they hold so many lines; 0, or -1. */
static int have_lines(struct tar_reader *t, uint64_t lines, uint64_t *seen, size_t *n,
		      struct err *e)
{
	while (*seen < lines) {
		ssize_t r;

		if (*n + TAR_BLOCK > RECORDS_MAX)
			return err_set(e, ERR_LIMIT,
				       "tar entry \"%.200s\" has a sparse map of over %zu bytes",
				       t->entry.name, RECORDS_MAX);
		if (*n + TAR_BLOCK > t->stored)
			return bad_entry(t, e, "its sparse map is cut off");
		r = have(t, *n + TAR_BLOCK, e);
		if (r < 0)
			return -1;
		if ((size_t)r < *n + TAR_BLOCK)
			return truncated(t, "a sparse map", e);
		for (size_t i = 0; i < TAR_BLOCK; i++)
			*seen += t->buf[t->at + *n + i] == '\n';
		*n += TAR_BLOCK;
	}
	return 0;
}

/* PAX 1.0: the data starts with decimal lines, the number of extents first, filled up to a block.
 */
static int read_map_lines(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	struct tar_text list;
	uint64_t seen = 0;
	int64_t count, offset, len;
	size_t n = 0;

	if (have_lines(t, 1, &seen, &n, e) < 0)
		return -1;
	list = (struct tar_text){(const char *)t->buf + t->at, n};
	if (!list_number(&list, '\n', &count) || count < 0 || count > INT64_MAX / 4)
		return bad_entry(t, e, "its sparse map does not start with the number of extents");
	if (have_lines(t, 1 + 2 * (uint64_t)count, &seen, &n, e) < 0)
		return -1;
	list = (struct tar_text){(const char *)t->buf + t->at, n};
	list_number(&list, '\n', &count);
	for (int64_t i = 0; i < count; i++) {
		if (!list_number(&list, '\n', &offset) || !list_number(&list, '\n', &len))
			return bad_entry(t, e, "its sparse map is not a list of numbers");
		if (add_span(t, offset, len, e) < 0)
			return -1;
	}
	t->stored -= n;
	if (check_map(t, e) < 0)
		return -1;
	return give(t, p, TAR_MAP, n);
}

/* ---- headers */

static int spend(uint64_t *used, uint64_t n, uint64_t most, const char *what, struct err *e)
{
	if (n > most || *used > most - n)
		return err_set(e, ERR_LIMIT, "the layer has more than %" PRIu64 " %s", most, what);
	*used += n;
	return 0;
}

static int charge(struct tar_reader *t, struct err *e)
{
	uint64_t names = strlen(t->entry.name) + strlen(t->entry.link);

	for (size_t i = 0; i < t->n_xattr; i++)
		names += strlen(t->xattr[i].name) + t->xattr[i].n;
	if (spend(&t->entries, 1, t->limits.entries, "entries", e) < 0 ||
	    spend(&t->names_bytes, names, t->limits.names_bytes,
		  "bytes of names and extended attributes", e) < 0)
		return -1;
	return spend(&t->unpacked, t->entry.size, t->limits.unpacked, "bytes of files", e);
}

/* Go's isHeaderOnlyType: no data follows, whatever the size says. */
static bool header_only(char type)
{
	return type >= '1' && type <= '6';
}

/* The type that drivers see; 0: none that a layer can have. */
static char entry_type(const struct tar_reader *t, char type)
{
	size_t n = strlen(t->entry.name);

	switch (type) {
	case 0:
		return n > 0 && t->entry.name[n - 1] == '/' ? '5' : '0';
	case '0' ... '6':
		return type;
	case '7':
	case 'S':
		return '0';
	}
	return 0;
}

static int apply_records(struct tar_reader *t, const struct tar_block *h, const struct records *r,
			 int64_t *size, struct err *e)
{
	const struct tar_text *k = r->key;
	struct tar_entry *n = &t->entry;
	int64_t uid = h->uid, gid = h->gid;
	bool has_mtime;

	n->name = r->long_name.n  ? keep(t, r->long_name)
		  : k[PAX_PATH].n ? keep(t, k[PAX_PATH])
				  : keep_name(t, h);
	n->link = keep(t, r->long_link.n      ? r->long_link
			  : k[PAX_LINKPATH].n ? k[PAX_LINKPATH]
					      : h->link);
	n->user = keep(t, k[PAX_UNAME].n ? k[PAX_UNAME] : h->user);
	n->group = keep(t, k[PAX_GNAME].n ? k[PAX_GNAME] : h->group);
	if (apply_number(k[PAX_UID], &uid, "uid", e) < 0 ||
	    apply_number(k[PAX_GID], &gid, "gid", e) < 0 ||
	    apply_number(k[PAX_SIZE], size, "size", e) < 0 ||
	    apply_time(k[PAX_MTIME], &n->mtime, &n->mtime_ns, &has_mtime, "mtime", e) < 0 ||
	    apply_time(k[PAX_ATIME], &n->atime, &n->atime_ns, &n->has_atime, "atime", e) < 0 ||
	    apply_time(k[PAX_CTIME], &n->ctime, &n->ctime_ns, &n->has_ctime, "ctime", e) < 0)
		return -1;
	if (uid < 0 || gid < 0)
		n->odd = "a negative owner";
	n->uid = uid < 0 ? (uint32_t)uid : (uint64_t)uid; /* -1 is what chown makes of it */
	n->gid = gid < 0 ? (uint32_t)gid : (uint64_t)gid;
	return 0;
}

/* What Go's reader shows of a header and an entry does not: other readers of the same header may
 * insist on it. */
static const char *oddity(const struct tar_block *h, const struct tar_entry *n, int64_t size)
{
	bool device = n->type == '3' || n->type == '4';

	if (size != 0 && header_only(n->type))
		return "a size, and no data";
	if (n->link[0] && n->type != '1' && n->type != '2')
		return "a link's target, and is none";
	if ((h->dev_major || h->dev_minor) && !device)
		return "a device's number, and is none";
	if (h->dev_major != n->dev_major || h->dev_minor != n->dev_minor)
		return "a device's number of more than 32 bits";
	if (h->mode != n->mode)
		return "a mode of more than 32 bits";
	return NULL;
}

/* From block and records to t->entry, and to how its data is read. */
static int decode_entry(struct tar_reader *t, const struct tar_block *h, const uint8_t *block,
			struct records *r, struct err *e)
{
	int64_t size = h->size;

	t->entry = (struct tar_entry){
		.name = "",
		.link = "",
		.mode = (uint32_t)h->mode,
		.mtime = h->mtime,
		.has_atime = h->has_atime,
		.has_ctime = h->has_ctime,
		.atime = h->atime,
		.ctime = h->ctime,
		.dev_major = (uint32_t)h->dev_major,
		.dev_minor = (uint32_t)h->dev_minor,
		.index = t->entries,
	};
	t->n_xattr = t->n_map = t->map_at = 0;
	t->n_pairs = t->pairs_count = 0;
	t->map_kind = MAP_NONE;
	t->file_pos = 0;
	text_start(t, 1024 + r->long_name.n + r->long_link.n + 2 * r->pax.n);
	if (parse_pax(t, r, e) < 0 || apply_records(t, h, r, &size, e) < 0)
		return err_wrap(e, "at byte %" PRIu64, t->pos);
	t->entry.type = entry_type(t, h->type);
	if (!t->entry.type)
		return err_set(e, ERR_UNSUPPORTED,
			       "tar entry \"%.200s\" has type 0x%02x, which no layer can have",
			       t->entry.name, (unsigned char)h->type);
	if (!t->entry.odd) /* its owner may have been */
		t->entry.odd = oddity(h, &t->entry, size);
	if (t->entry.type != '1' && t->entry.type != '2')
		t->entry.link = "";
	if (header_only(t->entry.type))
		size = 0;
	if (size < 0)
		return bad_entry(t, e, "its size is negative");
	t->stored = t->entry.size = (uint64_t)size;
	t->padding = tar_padding(t->stored);
	if (find_sparse(t, h, block, r, e) < 0)
		return -1;
	if (t->entry.sparse && r->key[PAX_SPARSE_NAME].n) {
		if (memchr(r->key[PAX_SPARSE_NAME].p, 0, r->key[PAX_SPARSE_NAME].n))
			return bad_entry(t, e, "its sparse name holds a NUL");
		t->entry.name = keep(t, r->key[PAX_SPARSE_NAME]);
	}
	t->entry.xattr = t->xattr;
	t->entry.n_xattr = t->n_xattr;
	t->entry.name_utf8 = tar_utf8((struct tar_text){t->entry.name, strlen(t->entry.name)}) &&
			     tar_utf8((struct tar_text){t->entry.link, strlen(t->entry.link)});
	return charge(t, e);
}

/* A PAX global header becomes an entry of its own, with everything before it. */
static int global_entry(struct tar_reader *t, const struct tar_block *h, struct tar_text records,
			struct err *e)
{
	if (check_pax(records, e) < 0)
		return err_wrap(e, "at byte %" PRIu64, t->pos);
	text_start(t, 1024);
	t->entry = (struct tar_entry){
		.type = 'g', .link = "", .user = "", .group = "", .index = t->entries};
	t->entry.name = keep_name(t, h);
	t->entry.name_utf8 = tar_utf8((struct tar_text){t->entry.name, strlen(t->entry.name)});
	t->n_xattr = t->n_map = 0;
	t->map_kind = MAP_NONE;
	t->file_pos = t->stored = 0;
	t->padding = tar_padding((uint64_t)h->size);
	return charge(t, e);
}

/* The content of an x, g, L or K entry whose block lies at buf + at + off. */
static int read_records(struct tar_reader *t, const struct tar_block *h, size_t off,
			struct tar_text *content, size_t *end, struct err *e)
{
	size_t size = (size_t)h->size, all;
	ssize_t r;

	if (h->size < 0)
		return err_set(e, ERR_CORRUPT,
			       "tar header at byte %" PRIu64 ": its size is negative",
			       (t->pos + off));
	if (h->size > (int64_t)RECORDS_MAX || off > HEADER_MAX)
		return err_set(e, ERR_LIMIT,
			       "tar header at byte %" PRIu64 ": its records are over %zu bytes",
			       (t->pos + off), off > HEADER_MAX ? HEADER_MAX : RECORDS_MAX);
	all = off + TAR_BLOCK + size + tar_padding(size);
	r = have(t, all, e);
	if (r < 0)
		return -1;
	if ((size_t)r < off + TAR_BLOCK + size)
		return truncated(t, "a header", e);
	*content = (struct tar_text){(const char *)t->buf + t->at + off + TAR_BLOCK, size};
	*end = (size_t)r < all ? (size_t)r : all; /* a tar may lack its very last padding */
	return 0;
}

/* At a block of zeros, `off` bytes of stray records before it: the end, if another one or nothing
 * follows. */
static int at_end_marker(struct tar_reader *t, size_t off, struct err *e)
{
	ssize_t r = have(t, off + 2 * TAR_BLOCK, e);

	if (r < 0)
		return -1;
	if ((size_t)r == off + TAR_BLOCK)
		return 0;
	if ((size_t)r < off + 2 * TAR_BLOCK)
		return truncated(t, "the end marker", e);
	if (!tar_block_is_zero(t->buf + t->at + off + TAR_BLOCK))
		return err_set(e, ERR_CORRUPT,
			       "the tar goes on at byte %" PRIu64 " after a single block of zeros",
			       (t->pos + off + TAR_BLOCK));
	return 0;
}

static void to_start(struct tar_text *s)
{
	s->n = strnlen(s->p, s->n);
}

/* An entry's header: 1; the tar's end: 0 and state AT_TRAILER. */
static int read_header(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	size_t pax_at = 0, name_at = 0, link_at = 0, off = 0, end = 0;
	struct records r = {0};

	for (;;) {
		ssize_t got = have(t, off + TAR_BLOCK, e);
		struct tar_text content;
		struct tar_block h;

		if (got < 0)
			return -1;
		if ((size_t)got == off)
			break;
		if ((size_t)got < off + TAR_BLOCK)
			return truncated(t, "a header", e);
		if (tar_block_is_zero(t->buf + t->at + off)) {
			if (at_end_marker(t, off, e) < 0)
				return -1;
			break;
		}
		if (tar_block_decode(&h, t->buf + t->at + off, e) < 0)
			return err_wrap(e, "at byte %" PRIu64, (t->pos + off));
		if (h.type == 'x' || h.type == 'g' || h.type == 'L' || h.type == 'K') {
			if (read_records(t, &h, off, &content, &end, e) < 0)
				return -1;
			if (h.type == 'g') {
				/* read_records may have moved the block */
				if (tar_block_decode(&h, t->buf + t->at + off, e) < 0 ||
				    global_entry(t, &h, content, e) < 0)
					return -1;
				t->state = AT_DATA;
				return give(t, p, TAR_HEADER, off + TAR_BLOCK + content.n);
			}
			*(h.type == 'x'	  ? &pax_at
			  : h.type == 'L' ? &name_at
					  : &link_at) = off + TAR_BLOCK;
			*(h.type == 'x'	  ? &r.pax
			  : h.type == 'L' ? &r.long_name
					  : &r.long_link) = content;
			if (h.type == 'x' && check_pax(content, e) < 0)
				return err_wrap(e, "at byte %" PRIu64, (t->pos + off));
			off = end;
			continue;
		}
		/* the buffer may have moved since they were read */
		r.pax.p = (const char *)t->buf + t->at + pax_at;
		r.long_name.p = (const char *)t->buf + t->at + name_at;
		r.long_link.p = (const char *)t->buf + t->at + link_at;
		to_start(&r.long_name);
		to_start(&r.long_link);
		if (decode_entry(t, &h, t->buf + t->at + off, &r, e) < 0)
			return -1;
		t->state = t->map_kind == MAP_NONE ? AT_DATA : AT_MAP;
		return give(t, p, TAR_HEADER, off + TAR_BLOCK);
	}
	t->state = AT_TRAILER;
	return 0;
}

/* ---- data */

static int give_data(struct tar_reader *t, struct tar_piece *p, uint64_t most, struct err *e)
{
	ssize_t r = have(t, 1, e);
	size_t n;

	if (r < 0)
		return -1;
	if (r == 0)
		return err_set(e, ERR_CORRUPT,
			       "the tar ends after %" PRIu64 " bytes, in the middle of \"%.200s\"",
			       t->pos, t->entry.name);
	n = (size_t)r < PIECE_MAX ? (size_t)r : PIECE_MAX;
	if (n > most)
		n = (size_t)most;
	give(t, p, TAR_DATA, n);
	t->stored -= n;
	t->file_pos += n;
	return 1;
}

static int give_hole(struct tar_reader *t, struct tar_piece *p, uint64_t n)
{
	*p = (struct tar_piece){
		.kind = TAR_HOLE,
		.entry = &t->entry,
		.len = (size_t)n,
		.tar_pos = t->pos,
		.file_pos = t->file_pos,
	};
	t->file_pos += n;
	return 1;
}

/* Data up to the extent's end, or the hole before it; 0: the file is complete. */
static int next_sparse(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	const struct tar_span *m;

	while (t->map_at < t->n_map &&
	       (t->map[t->map_at].n == 0 ||
		t->map[t->map_at].offset + t->map[t->map_at].n <= t->file_pos))
		t->map_at++;
	if (t->map_at == t->n_map)
		return t->file_pos < t->entry.size ? give_hole(t, p, t->entry.size - t->file_pos)
						   : 0;
	m = &t->map[t->map_at];
	if (t->file_pos < m->offset)
		return give_hole(t, p, m->offset - t->file_pos);
	return give_data(t, p, m->offset + m->n - t->file_pos, e);
}

static int next_data(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	int r = t->entry.sparse ? next_sparse(t, p, e)
		: t->stored > 0 ? give_data(t, p, t->stored, e)
				: 0;

	if (r == 0)
		t->state = AT_PADDING;
	return r;
}

/* What is left of a block; as Go, a tar may end without it. */
static int next_padding(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	ssize_t r = t->padding ? have(t, 1, e) : 0;
	size_t n;

	if (r < 0)
		return -1;
	if (r == 0) {
		t->state = AT_HEADER;
		return 0;
	}
	n = (size_t)r < t->padding ? (size_t)r : t->padding;
	t->padding -= n;
	return give(t, p, TAR_PADDING, n);
}

static int next_trailer(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	ssize_t r = have(t, 1, e);

	if (r < 0)
		return -1;
	if (r == 0) {
		t->state = AT_END;
		return 0;
	}
	t->file_pos = 0;
	return give(t, p, TAR_TRAILER, (size_t)r < PIECE_MAX ? (size_t)r : PIECE_MAX);
}

int tar_next(struct tar_reader *t, struct tar_piece *p, struct err *e)
{
	int r = 0;

	while (r == 0) { /* 0: nothing more of that kind */
		switch (t->state) {
		case AT_HEADER:
			r = read_header(t, p, e);
			break;
		case AT_MAP:
			r = t->map_kind == MAP_LINES ? read_map_lines(t, p, e)
						     : read_map_blocks(t, p, e);
			t->state = AT_DATA;
			break;
		case AT_DATA:
			r = next_data(t, p, e);
			break;
		case AT_PADDING:
			r = next_padding(t, p, e);
			break;
		case AT_TRAILER:
			r = next_trailer(t, p, e);
			break;
		case AT_END:
			return 0;
		}
	}
	return r;
}
