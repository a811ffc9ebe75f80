/* worker/oci/index.h - an image index, or a Docker manifest list.  OCI image-spec v1.1,
 * image-index.md. */
#ifndef WORKER_OCI_INDEX_H
#define WORKER_OCI_INDEX_H

#include "worker/oci/descriptor.h"

struct buf;

#define INDEX_MAX_MANIFESTS 1024

struct index {
	char media_type[160];
	char artifact_type[160];
	struct descriptor *manifests;
	size_t n;
	struct annotations annotations;
	bool has_subject;
	struct descriptor subject;
	struct json *extra;
};
void index_init(struct index *x);
void index_fini(struct index *x);
int index_parse(struct index *x, const char *p, size_t n, struct err *e);
int index_write(const struct index *x, struct buf *to, struct err *e);
/* The bytes that Go's MarshalIndent("", "  ") makes of it. */
int index_write_indented(const struct index *x, struct buf *to, struct err *e);
struct descriptor *index_add(struct index *x);

#endif
