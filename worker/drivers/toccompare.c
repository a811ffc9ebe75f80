/* worker/drivers/toccompare.c - see toccompare.h. */
#include "worker/drivers/toccompare.h"

#include <inttypes.h>
#include <string.h>

#include "common/err.h"
#include "common/str.h"
#include "worker/drivers/toc.h"
#include "worker/drivers/tocrecord.h"

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

static int compare_numbers(const struct toc_record *a, const struct toc_record *b,
			   struct slice name, struct err *e)
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

static int compare_times(const struct toc *t, const struct toc_record *a,
			 const struct toc_record *b, struct slice name, struct err *e)
{
	int64_t rounded = b->mtime ? b->mtime + (b->ns >= 500000000) : 0;

	if (toc_form(t) == TOC_ESTARGZ)
		return a->ns || a->mtime != (toc_year_fits(rounded) ? rounded : 0)
			       ? differs_in(e, name, "modtime")
			       : 0;
	if (a->mtime != b->mtime || a->ns != b->ns)
		return differs_in(e, name, "modtime");
	return a->atime != b->atime || a->atime_ns != b->atime_ns || a->ctime != b->ctime ||
			       a->ctime_ns != b->ctime_ns
		       ? differs_in(e, name, "access or change time")
		       : 0;
}

static int compare_links(struct toc *ta, const struct toc_record *a, struct toc *tb,
			 const struct toc_record *b, struct slice name, struct err *e)
{
	struct slice x, y;

	if (a->type == '2')
		return a->link_n != b->link_n || memcmp(a->link, b->link, a->link_n)
			       ? differs_in(e, name, "link target")
			       : 0;
	if (a->type != '1')
		return 0;
	if (toc_link_target(ta, a, &x, e) < 0 || toc_link_target(tb, b, &y, e) < 0)
		return -1;
	return x.n != y.n || memcmp(x.p, y.p, x.n) ? differs_in(e, name, "link target") : 0;
}

static int compare_owners(const struct toc *ta, const struct toc_record *a, const struct toc *tb,
			  const struct toc_record *b, struct slice name, struct err *e)
{
	if (a->user && strcmp(toc_owner(ta, a->user), toc_owner(tb, b->user)) != 0)
		return differs_in(e, name, "user name");
	if (a->group && strcmp(toc_owner(ta, a->group), toc_owner(tb, b->group)) != 0)
		return differs_in(e, name, "group name");
	return 0;
}

static int compare_xattrs(const struct toc_record *a, const struct toc_record *b, struct slice name,
			  struct err *e)
{
	return a->n_xattr != b->n_xattr || a->xattr_n != b->xattr_n ||
			       (a->xattr_n && memcmp(a->xattr, b->xattr, a->xattr_n))
		       ? differs_in(e, name, "set of extended attributes")
		       : 0;
}

static int compare_chunks(const struct toc *ta, const struct toc_record *a, const struct toc *tb,
			  const struct toc_record *b, struct slice name, struct err *e)
{
	const struct toc_chunk *x, *y;

	if (!a->size || a->type != '0')
		return 0;
	if (a->ref == TOC_NONE || b->ref == TOC_NONE)
		return err_set(e, ERR_CORRUPT, "%.*s: no chunk starts where its bytes are",
			       (int)name.n, name.p);
	for (x = toc_chunks(ta, a), y = toc_chunks(tb, b);; x++, y++) {
		if (x->whole != y->whole || x->last != y->last || x->size != y->size)
			return differs_in(e, name, "number or size of chunks");
		if (x->offset != y->offset && !(x->whole && toc_form(ta) == TOC_ESTARGZ))
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
	struct toc_record a, b;
	uint32_t i = 0, k = 0;

	for (;;) {
		bool more = toc_next(ta, &i, &a, &name), found = toc_next(tb, &k, &b, &other);

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
		    compare_xattrs(&a, &b, name, e) < 0 ||
		    compare_chunks(ta, &a, tb, &b, name, e) < 0)
			return -1;
	}
}
