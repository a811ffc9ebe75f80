/* worker/out.h - the one ordered writer of one blob: it alone writes, counts and hashes.
 *
 * A driver appends bytes to the open segment and cuts it: what was appended since the last cut
 * becomes one closed piece (gzip member, zstd frame, lz4 block, raw) made by a compressor thread.
 * Pieces leave in the order of the cuts, so where one landed is known only then: `on_land` tells,
 * in order, on the thread that called out_*. A segment may be larger than a buffer only if the
 * driver cuts it; out_room tells how much fits. */
#ifndef WORKER_OUT_H
#define WORKER_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/codec/encode.h"
#include "worker/pool.h" /* enum segment_hash */

struct err;
struct out;

/* Where the bytes go.  commit is what makes the blob exist; abort takes back. */
struct out_ops {
	int (*write)(void *dest, const void *p, size_t n, struct err *e);
	int (*commit)(void *dest, const struct digest *d, uint64_t size, struct err *e);
	void (*abort)(void *dest); /* frees dest; called by out_freep, committed or not */
};

struct landed {
	uint64_t cookie;	 /* as given to out_cut */
	uint64_t offset, stored; /* in the blob; bytes */
	uint32_t unpacked;	 /* bytes of the segment */
	bool raw;	  /* compression did not pay: stored as it is (only with raw_if_larger) */
	uint8_t hash[32]; /* of the segment's hashed part */
	const uint8_t *bytes; /* the piece as it will be written; valid during the call */
};
struct out_opts {
	struct encode_as as;
	bool raw_if_larger; /* Nydus: a chunk that does not shrink is stored raw */
	/* In order, before the piece is written.  1: write it; 0: drop it (a duplicate: offset is
	 * then meaningless); -1: fail.  NULL: write all. */
	int (*on_land)(void *arg, const struct landed *l, struct err *e);
	void *arg;
	/* What on_land will drop anyway, told by its hash alone, need not be encoded; or NULL. */
	segment_known *known;
	const void *known_arg;
};

int out_open(struct out **o, struct pool *p, const struct out_opts *opts, const struct out_ops *ops,
	     void *dest, struct err *e); /* takes dest, on failure too */
/* From now on pieces are made that way (a plain layer, a TOC). */
void out_encode_as(struct out *o, const struct encode_as *as);

size_t out_open_bytes(const struct out *o); /* in the open segment */
size_t out_room(const struct out *o);	    /* how much the open segment still takes */
int out_append(struct out *o, const void *p, size_t n, struct err *e); /* n <= out_room */
int out_append_zeros(struct out *o, size_t n, struct err *e);
/* The open segment is done; hash covers its bytes [hash_from, hash_from + hash_n).  Empty segments
 * are not written and land nowhere. */
int out_cut(struct out *o, uint64_t cookie, enum segment_hash hash, size_t hash_from, size_t hash_n,
	    struct err *e);
/* In order, as it is, after everything cut before. */
int out_literal(struct out *o, const void *p, size_t n, struct err *e);
/* Everything cut has landed and was written. */
int out_drain(struct out *o, struct err *e);
uint64_t out_offset(const struct out *o); /* bytes written; exact only after out_drain */
/* SHA-256 of what was written since the last mark (or the start); drains first. */
int out_mark(struct out *o, struct digest *section, struct err *e);
/* Drains; digest and size of the whole blob so far. */
int out_sum(struct out *o, struct digest *d, uint64_t *size, struct err *e);
/* Drains, then commits. */
int out_commit(struct out *o, struct digest *d, uint64_t *size, struct err *e);
void out_freep(struct out **o); /* waits for its batches; not committed: abort */

#endif
