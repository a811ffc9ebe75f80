/* worker/verify.h - a converted image read back and compared with its source: `accelctl check`.
 *
 * Per layer: the blob's digest and size, what it unpacks to against the config's diff_id, the
 * format's own rules (the driver's check), and every entry against the source layer. */
#ifndef WORKER_VERIFY_H
#define WORKER_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/imageref.h"

struct err;
struct backend;
struct descriptor;
struct manifest;
struct registry;

struct verify_ops {
	/* platform: "linux/amd64" or "".  layer: 0 for the image as a whole. */
	void (*problem)(void *arg, const char *platform, size_t layer, const char *path,
			const char *what);
	void (*layer)(void *arg, const char *platform, size_t layer, size_t layers, size_t entries,
		      const char *format);
	void *arg;
	/* Where the blobs of images that keep them outside the registry may be. */
	struct backend *const *backend;
	size_t n_backends;
};
struct verify_report {
	size_t platforms, layers, entries, problems;
};
/* source NULL: from the image's own annotation.  0 whether problems were found or not: see the
 * report. */
int verify_image(struct registry *reg, const struct imageref *converted,
		 const struct imageref *source, const struct verify_ops *o, struct verify_report *r,
		 struct err *e);

/* "eStargz", "zstd:chunked", "Nydus", "plain": by a layer's annotations. */
const char *verify_format(const struct descriptor *d);
/* The blobs that a manifest keeps in a storage backend, lowest layer first, in a new array; 0 for
 * all other images. */
size_t verify_backend_blobs(const struct manifest *m, struct digest **blobs);

#endif
