/* worker/codec/codec.h - what a layer is packed with, found by its magic and not by its declared
 * type; unpacking. */
#ifndef WORKER_CODEC_CODEC_H
#define WORKER_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct block;

enum codec { CODEC_NONE, CODEC_GZIP, CODEC_ZSTD };
const char *codec_name(enum codec c);

/* Reads the first bytes of *body (which stay readable: *body is replaced) and says what it is. An
 * empty or unknown beginning is CODEC_NONE. */
int codec_sniff(struct source **body, enum codec *c, struct err *e);

/* The window that unpacking will need (zstd: its first frame's, 0 if that does not say; gzip: 32
 * KiB), so that a caller can have one large one at a time.  *body stays readable from its start. */
int codec_window(struct source **body, enum codec c, uint64_t *window, struct err *e);

struct codec_opts {	  /* NULL where passed: all zero */
	uint64_t max_out; /* unpacked bytes; more is ERR_LIMIT; 0: no bound */
	/* wants_blocks: unpack with zlib and report each deflate block boundary (zran); or NULL. */
	int (*on_block)(void *arg, const struct block *b, struct err *e);
	void *arg;
	bool portable;	   /* never ISA-L: for comparisons in tests */
	bool large_window; /* zstd windows over 8 MiB up to 128 MiB are allowed */
};
/* Takes *body and leaves the unpacked bytes there.  All members or frames; the stream must end
 * properly and be followed by nothing but zeros (gzip) or skippable frames (zstd): anything else is
 * ERR_CORRUPT with the offset. */
int codec_unpack(struct source **body, enum codec c, const struct codec_opts *o, struct err *e);

#endif
