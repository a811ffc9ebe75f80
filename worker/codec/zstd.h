/* worker/codec/zstd.h - libzstd: frames from whole buffers and back, and a zstd stream as a source.
 */
#ifndef WORKER_CODEC_ZSTD_H
#define WORKER_CODEC_ZSTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct zstd; /* contexts of one thread */

/* How zstd looks for matches: as its level says, or in a way that no level has (codec/zstd.c). */
enum zstd_search { SEARCH_BY_LEVEL, SEARCH_FAST, SEARCH_CHAINS };

struct zstd *zstd_new(void);
void zstd_freep(struct zstd **z);
size_t zstd_bound(size_t n);
/* One frame with its content size.  What `search` does not say is as the level has it. */
int zstd_pack(struct zstd *z, int level, enum zstd_search search, bool checksum, const void *in,
	      size_t n, void *out, size_t cap, size_t *out_n, struct err *e);
int zstd_unpack(struct zstd *z, const void *in, size_t n, void *out, size_t cap, size_t *out_n,
		struct err *e);
const char *zstd_version(void);

enum { ZSTD_HEAD_MAX = 18 }; /* bytes that zstd_head may need */
struct zstd_frame {
	uint64_t window;  /* 0: a skippable frame */
	uint64_t content; /* bytes it unpacks to; UINT64_MAX: it does not say */
};
/* What the first bytes of a frame say.  1: *f is set; 0: n bytes are too few; -1: no frame starts
 * like this. */
int zstd_head(const void *p, size_t n, struct zstd_frame *f);

#define ZSTD_WINDOW_NORMAL (8ull << 20)
#define ZSTD_WINDOW_LARGE (128ull << 20)
/* Takes *body, leaves the unpacked bytes there: codec.h's promises. */
int zstd_source(struct source **body, bool large_window, struct err *e);

#endif
