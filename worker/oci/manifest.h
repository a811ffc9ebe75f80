/* worker/oci/manifest.h - an image manifest: config, layers, annotations, subject.
 * OCI image-spec v1.1, manifest.md; Docker image manifest v2 schema 2. */
#ifndef WORKER_OCI_MANIFEST_H
#define WORKER_OCI_MANIFEST_H

#include "worker/oci/descriptor.h"

struct buf;

#define MANIFEST_MAX_LAYERS 1024

struct manifest {
	char media_type[160];
	char artifact_type[160];
	struct descriptor config;
	struct descriptor *layers;
	size_t n_layers;
	struct annotations annotations;
	bool has_subject;
	struct descriptor subject;
	struct json *extra; /* unknown members, or NULL */
};
void manifest_init(struct manifest *m);
void manifest_fini(struct manifest *m);
int manifest_parse(struct manifest *m, const char *p, size_t n, struct err *e);
/* Compact JSON, members in OCI's order, extra last; the same input gives the same bytes. */
int manifest_write(const struct manifest *m, struct buf *to, struct err *e);
struct descriptor *manifest_add_layer(struct manifest *m); /* zeroed */

#endif
