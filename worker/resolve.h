/* worker/resolve.h - a reference becomes images: manifests and configs read, children of an index
 * filtered.
 *
 * Without `any`, what is not to be converted is an error of CLASS_SKIP with its reason; children of
 * an index that are no images (attestations, artifacts, Windows) are dropped, and the whole is
 * skipped when none is left. */
#ifndef WORKER_RESOLVE_H
#define WORKER_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/classify.h"
#include "worker/registry/registry.h"

struct err;
struct imageref;

struct resolved_image {
	struct descriptor from; /* of its manifest: as the index says, or made from the manifest */
	struct manifest manifest;
	struct imageconfig config;
};
struct resolved {
	struct manifest_body body; /* what the reference names */
	bool tag_agrees;	   /* of a reference with both: the tag names the digest too */
	enum manifest_kind kind;
	struct index index; /* KIND_INDEX */
	struct resolved_image *image;
	size_t n;
	uint32_t dropped;
	char dropped_why[200]; /* of the first that was dropped as no image */
	uint64_t size;	       /* configs + layers */
};
void resolved_fini(struct resolved *r);

struct resolve_opts {
	const char *platforms; /* normalised; "" or NULL: all */
	bool any;	       /* converted images too: for inspect and check */
};
/* r starts as zeroes and is freed by the caller either way: on failure it tells what was read so
 * far. */
int resolve(struct resolved *r, struct registry *reg, const struct imageref *ref,
	    const struct resolve_opts *o, struct err *e);
uint64_t resolved_image_size(const struct resolved_image *im);
/* "linux/arm64/v8", or "" */
const char *platform_text(const struct platform *p, char text[136]);

#endif
