/* worker/codec/encode.h - one closed piece of compressed output: a gzip member, a zstd frame, an
 * lz4 block. Same input and level, same bytes, whatever the thread.  Each compressor thread owns
 * one `struct encoder`. */
#ifndef WORKER_CODEC_ENCODE_H
#define WORKER_CODEC_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "worker/codec/zstd.h"

struct err;

/* The fastest whose eStargz is no larger than Go's level 9 makes it: 360 MB of files from Debian
 * packages give 137.5 MB, ctr-remote 139.2 MB (another choice of packages: 132.1 and 133.3).
 * Scripts and text alone are up to 1.2 % larger than Go's; level 5 is smaller with everything,
 * for 1.3 times the time. */
#define DEFLATE_LEVEL 4
#define ZSTD_LEVEL 3

enum encoding { ENCODE_RAW, ENCODE_GZIP, ENCODE_ZSTD, ENCODE_LZ4 };
/* zstd: ZSTD_c_checksumFlag on where `checksum`; content size written. */
struct encode_as {
	enum encoding encoding;
	int level; /* libdeflate 1..12, zstd 1..19; 0: DEFLATE_LEVEL, ZSTD_LEVEL */
	int checksum;
	enum zstd_search search;
};

struct encoder; /* scratch state of one thread */
struct encoder *encoder_new(void);
void encoder_freep(struct encoder **x);
size_t encode_bound(const struct encode_as *as, size_t n); /* output never needs more */
/* 0 and *out_n; cap is at least encode_bound. */
int encode(struct encoder *x, const struct encode_as *as, const void *in, size_t n, void *out,
	   size_t cap, size_t *out_n, struct err *e);
/* Unpacks `out` again into scratch of its own and compares with `in`: ERR_CORRUPT names the first
 * difference. */
int encode_verify(struct encoder *x, const struct encode_as *as, const void *in, size_t n,
		  const void *out, size_t out_n, struct err *e);
/* Unpacks one closed piece whole; *out_n <= cap.  ERR_CORRUPT. */
int decode(struct encoder *x, enum encoding how, const void *in, size_t n, void *out, size_t cap,
	   size_t *out_n, struct err *e);
/* Versions of the codecs, part of the layer cache's key: "libdeflate 1.14, zstd 1.5.4, lz4 1.9.4".
 */
const char *encode_versions(void);

#endif
