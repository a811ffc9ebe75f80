/* worker/codec/lz4.h - lz4 blocks (no frame), for Nydus chunks. */
#ifndef WORKER_CODEC_LZ4_H
#define WORKER_CODEC_LZ4_H

#include <stddef.h>

struct err;

size_t lz4_bound(size_t n);   /* 0: too long for one block */
size_t lz4_state_bytes(void); /* scratch for lz4_pack */
int lz4_pack(void *state, const void *in, size_t n, void *out, size_t cap, size_t *out_n,
	     struct err *e);
int lz4_unpack(const void *in, size_t n, void *out, size_t cap, size_t *out_n, struct err *e);
const char *lz4_version(void);

#endif
