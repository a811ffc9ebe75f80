/* worker/codec/deflate.h - libdeflate: gzip members from whole buffers and back, and the fast
 * CRC-32 that all of gzip uses. */
#ifndef WORKER_CODEC_DEFLATE_H
#define WORKER_CODEC_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct deflater; /* of one thread */

struct deflater *deflater_new(void);
void deflater_freep(struct deflater **d);
size_t deflater_bound(size_t n);
/* One gzip member: no name, no time, OS "unknown".  cap is at least deflater_bound. */
int deflater_gzip(struct deflater *d, int level, const void *in, size_t n, void *out, size_t cap,
		  size_t *out_n, struct err *e);
/* Exactly one member, nothing after it; its CRC and size are checked.  ERR_CORRUPT. */
int deflater_gunzip(struct deflater *d, const void *in, size_t n, void *out, size_t cap,
		    size_t *out_n, struct err *e);
uint32_t deflate_crc32(uint32_t crc, const void *p, size_t n); /* starts from 0 */
const char *deflate_version(void);

#endif
