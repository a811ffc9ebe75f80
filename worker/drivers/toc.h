/* worker/drivers/toc.h - the table of contents of eStargz and zstd:chunked: what the entries of a
 * tar mean together, as they come, and then, sealed, in order.  tocwrite.h tells it in JSON,
 * tocread.h reads that back, toccompare.h holds two against each other.  formats/estargz.md §3..§6,
 * formats/zstd-chunked.md §3.3.
 *
 * An entry is a record of tocrecord.h; a chunk is 48 bytes.  What a later entry replaced stays
 * recorded but is not written; a hard link to a replaced file takes its place, so that offsets grow
 * along the table, as readers need. A layer that cannot be told in this way (a name that is not
 * UTF-8, a hard link to nothing; for podman's readers also a directory without an entry of its own)
 * makes the table unfit: it says why, and the caller leaves the layer plain. */
#ifndef WORKER_DRIVERS_TOC_H
#define WORKER_DRIVERS_TOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/str.h"

struct err;
struct tar_entry;
struct toc;
struct toc_record; /* tocrecord.h */

enum toc_form {
	TOC_ESTARGZ, /* also containerd's zstd:chunked */
	TOC_PODMAN,
	TOC_BOTH, /* podman's, with what containerd's readers need besides */
};

#define LANDMARK_PREFETCH ".prefetch.landmark"
#define LANDMARK_NONE ".no.prefetch.landmark"
#define TOC_NAME "stargz.index.json"
#define LANDMARK_BYTE 0x0f

struct toc *toc_new(enum toc_form form, uint64_t chunk_size);
void toc_freep(struct toc **t);

/* The cleaned name is one of ours: landmarks and TOC in the root. */
bool toc_reserved(const char *name);

/* One tar entry, in the order of the blob.  *id names it for the calls below; UINT32_MAX once the
 * table is unfit. */
int toc_add(struct toc *t, const struct tar_entry *entry, uint32_t *id, struct err *e);
/* The next chunk of the file last added; *chunk names it. */
int toc_chunk(struct toc *t, uint32_t id, uint64_t size, bool zeros, uint32_t *chunk,
	      struct err *e);
/* The file's last chunk was told.  whole: the digest of all of it; NULL when it has one chunk,
 * whose digest it is. */
int toc_file_end(struct toc *t, uint32_t id, const struct digest *whole, struct err *e);
/* The same for a table that was read: the digest is kept for one chunk too, and where the last
 * chunk ends. */
int toc_file_end_at(struct toc *t, uint32_t id, const struct digest *whole, uint64_t end,
		    struct err *e);
/* Where a chunk came to lie. hash may be NULL: it was, or will be, set by toc_chunk_hash. */
void toc_chunk_landed(struct toc *t, uint32_t chunk, uint64_t offset, uint64_t stored,
		      const uint8_t *hash);
void toc_chunk_hash(struct toc *t, uint32_t chunk, const uint8_t hash[32]);
void toc_chunk_size(struct toc *t, uint32_t chunk,
		    uint64_t size); /* when it was not known before */
/* Where the bytes of a file's last chunk end (podman's endOffset), when they are several frames. */
void toc_chunk_end(struct toc *t, uint32_t chunk, uint64_t end);

/* Makes it unfit for a reason seen elsewhere; the first reason stays. */
void toc_spoil(struct toc *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* After the last entry: links, and what replaced directories took away.  Then unfit() is final. */
int toc_seal(struct toc *t, struct err *e);
bool toc_empty(const struct toc *t);	    /* no entry at all */
const char *toc_unfit(const struct toc *t); /* NULL: it can be written */

/* ---- a sealed table, read */

struct toc_chunk {
	uint64_t offset;
	uint64_t size : 61, zeros : 1, last : 1,
		whole : 1; /* whole: no chunk, but the file: digest, end */
	uint8_t hash[32];
};

/* The entries in the order of the table, the first at *at 0; false: that was the last.  name is the
 * one it goes by, which ends in NUL. */
bool toc_next(const struct toc *t, uint32_t *at, struct toc_record *r, struct slice *name);
/* The first chunk of a file that is not empty: the others follow until `last`, then, unless an
 * eStargz file has one chunk, the one that is `whole`. */
const struct toc_chunk *toc_chunks(const struct toc *t, const struct toc_record *r);
/* What a symbolic link says; of a hard link a name that means the same file at the end. */
struct slice toc_link_name(struct toc *t, const struct toc_record *r);
/* The clean name under which the file of a hard link stands; valid until the next call for t. */
int toc_link_target(struct toc *t, const struct toc_record *r, struct slice *to, struct err *e);
const char *toc_owner(const struct toc *t, uint64_t name); /* user or group of a record */
enum toc_form toc_form(const struct toc *t);
uint64_t toc_full_chunk(const struct toc *t); /* bytes: the chunk_size of toc_new */
bool toc_year_fits(int64_t seconds);	      /* since 1970: in the years 0 to 9999 */

#endif
