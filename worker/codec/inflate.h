/* worker/codec/inflate.h - gzip as a source.  The framing (RFC 1952) is read here, once, for every
 * engine that does the deflate stream inside (RFC 1951): ISA-L or zlib in inflate.c, zlib with
 * block boundaries in blocks.c. */
#ifndef WORKER_CODEC_INFLATE_H
#define WORKER_CODEC_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct codec_opts;

struct input { /* compressed bytes at hand; engines move p and pos on */
	const uint8_t *p;
	size_t n;
	uint64_t pos; /* in the blob, of *p */
};
#define INPUT_BACK 16 /* so many bytes before p may be given back */

struct engine; /* first member of an engine's own struct: its ops */
struct engine_ops {
	/* A member's deflate stream starts at in->pos; so much was unpacked before it. */
	int (*start)(struct engine *x, const struct input *in, uint64_t out_pos, struct err *e);
	/* Unpacks up to cap bytes. 1: the stream ended (*got may be over 0 then too), 0: goes on,
	 * -1 with words. */
	int (*run)(struct engine *x, struct input *in, void *out, size_t cap, size_t *got,
		   struct err *e);
	void (*free)(struct engine *x);
};
struct engine {
	const struct engine_ops *ops;
};

struct engine *engine_zlib(struct err *e);
struct engine *engine_isal(void); /* NULL: not built in */
struct engine *engine_blocks(const struct codec_opts *o, struct err *e);

/* Takes *body, leaves the unpacked bytes there: codec.h's promises. */
int gzip_source(struct source **body, const struct codec_opts *o, struct err *e);

#endif
