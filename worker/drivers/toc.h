/* worker/drivers/toc.h - the table of contents of eStargz and zstd:chunked: compact records while a
 * layer passes, JSON at its end.  formats/estargz.md §3..§6, formats/zstd-chunked.md §3.3.
 *
 * An entry is about 30 bytes and its name; a chunk is 48 bytes.  What a later entry replaced stays
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

struct err;
struct tar_entry;
struct toc;

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

typedef int toc_put(void *arg, const void *p, size_t n, struct err *e);
/* The JSON, the same at every call.  tail: members after `entries` (`"tarSplitDigest":"..."`) or
 * NULL. */
int toc_write(struct toc *t, const char *tail, toc_put *put, void *arg, struct err *e);
uint64_t toc_written(const struct toc *t); /* objects of the last toc_write, chunks too */

/* Both sealed, both with toc_file_end_at: what was read, and what the tar and the bytes say.
 * ERR_CORRUPT names the first entry that differs, and in what. */
int toc_compare(struct toc *told, struct toc *found, struct err *e);

#endif
