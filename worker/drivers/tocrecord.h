/* worker/drivers/tocrecord.h - the entries of one table of contents in as few bytes as they go
 * into: about 30 and the name, with no pointer, because an image has hundreds of thousands.
 *
 * A record's id is its place among them and grows in the order of the tar.  It is written once; of
 * it only `ref` and the marks change later.  What is put was checked by the caller; what comes out
 * is what went in, but for owners' names that are not UTF-8, which are left out, and the extended
 * attributes, which come sorted by name. */
#ifndef WORKER_DRIVERS_TOCRECORD_H
#define WORKER_DRIVERS_TOCRECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "worker/drivers/table.h"

struct err;
struct tar_entry;

#define TOC_NONE UINT32_MAX
#define TOC_BYTES_MAX ((size_t)1 << 30) /* of all records, or of anything else of one table */

/* Marks. */
enum {
	TOC_DEAD = 1,	/* replaced, or below something that was */
	TOC_MOVED = 64, /* a hard link that is written in the place of its dead target */
};

struct toc_records {
	struct buf arena;		/* ids are places in it, its length is the end */
	struct buf strings;		/* owners' names */
	struct table interned;		/* of strings */
	uint32_t last_user, last_group; /* in strings */
};

/* A record, decoded; what it points to is valid until the next toc_record_put. */
struct toc_record {
	uint32_t id, next;
	char type;
	uint8_t flags;
	uint32_t ref;		 /* as it was put or set; TOC_NONE */
	const char *name, *link; /* end in NUL */
	size_t name_n, link_n;
	uint64_t mode, uid, gid, size, dev_major, dev_minor, ns;
	uint64_t user, group; /* places in strings, 0: none; the same name is the same place */
	int64_t mtime, atime, ctime;
	uint64_t atime_ns, ctime_ns; /* 1 + nanoseconds; 0: there is no such time */
	uint64_t n_xattr;
	const uint8_t *xattr; /* name, value, name, value ... as toc_record_string reads them */
	size_t xattr_n;	      /* bytes */
};

void toc_records_init(struct toc_records *t);
void toc_records_fini(struct toc_records *t);

/* Its id is where the arena ended.  times: keep atime and ctime. */
int toc_record_put(struct toc_records *t, const struct tar_entry *n, uint32_t ref, bool times,
		   struct err *e);
void toc_record_decode(const struct toc_records *t, uint32_t id, struct toc_record *r);
/* The next string of a record's xattr: *p moves behind it; ends in NUL, which *n does not count. */
const char *toc_record_string(const uint8_t **p, size_t *n);

/* One field, without decoding the rest. */
char toc_record_type(const struct toc_records *t, uint32_t id);
const char *toc_record_name(const struct toc_records *t, uint32_t id);
uint8_t toc_record_flags(const struct toc_records *t, uint32_t id);
void toc_record_mark(struct toc_records *t, uint32_t id, uint8_t flag);
/* Of files and hard links alone; what it means is the caller's. */
uint32_t toc_record_ref(const struct toc_records *t, uint32_t id);
void toc_record_set_ref(struct toc_records *t, uint32_t id, uint32_t ref);

#endif
