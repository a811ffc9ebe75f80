/* worker/codec/member.h - one gzip member or one zstd frame of any length, made as its bytes come.
 *
 * The table of contents of eStargz must be a single member (its readers stop after the first), that
 * of zstd:chunked a single frame, and either may be hundreds of megabytes; encode.h wants all of a
 * piece in memory.  Same input, same bytes: no time, no name, one thread. */
#ifndef WORKER_CODEC_MEMBER_H
#define WORKER_CODEC_MEMBER_H

#include <stddef.h>

#include "worker/codec/encode.h"

struct err;
struct member;

typedef int member_put(void *arg, const void *p, size_t n, struct err *e);

/* as: ENCODE_GZIP (level as zlib's, 0: 6) or ENCODE_ZSTD (level 0: 3).  put gets the packed bytes
 * as they are made. */
int member_open(struct member **m, const struct encode_as *as, member_put *put, void *arg,
		struct err *e);
int member_write(struct member *m, const void *p, size_t n, struct err *e);
int member_finish(struct member *m, struct err *e); /* once, last */
void member_freep(struct member **m);

#endif
