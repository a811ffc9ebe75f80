/* worker/oci/descriptor.h - what names a blob or manifest: type, digest, size, annotations.
 * OCI image-spec v1.1, descriptor.md.  Unknown members survive in `extra`. */
#ifndef WORKER_OCI_DESCRIPTOR_H
#define WORKER_OCI_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"

struct err;
struct json;

/* Media types we know. */
#define MT_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define MT_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MT_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define MT_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define MT_OCI_LAYER_GZIP "application/vnd.oci.image.layer.v1.tar+gzip"
#define MT_OCI_LAYER_ZSTD "application/vnd.oci.image.layer.v1.tar+zstd"
#define MT_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define MT_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MT_DOCKER_SCHEMA1 "application/vnd.docker.distribution.manifest.v1+json"
#define MT_DOCKER_SCHEMA1_SIGNED "application/vnd.docker.distribution.manifest.v1+prettyjws"
#define MT_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define MT_DOCKER_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define MT_DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar"
#define MT_DOCKER_LAYER_ZSTD                                                                       \
	"application/vnd.docker.image.rootfs.diff.tar.zstd" /* podman has written it */

struct annotation {
	char *key, *value;
};
struct annotations { /* in the order given; keys are unique */
	struct annotation *a;
	size_t n, cap;
};
void annotations_set(struct annotations *s, const char *key, const char *value); /* copies */
const char *annotations_get(const struct annotations *s, const char *key);	 /* NULL: none */
void annotations_del(struct annotations *s, const char *key);
void annotations_copy(struct annotations *to, const struct annotations *from); /* to is replaced */
void annotations_fini(struct annotations *s);
int annotations_from_json(struct annotations *s, const struct json *obj, const char *at,
			  struct err *e);
struct json *annotations_to_json(const struct annotations *s); /* NULL when empty */

struct platform {
	char os[32], arch[32], variant[32], os_version[64];
	bool set; /* the descriptor had one */
};

struct descriptor {
	char media_type[160];
	struct digest digest;
	uint64_t size;
	struct annotations annotations;
	struct platform platform;
	char artifact_type[160];
	bool has_urls;	    /* foreign: never followed */
	struct json *extra; /* members not named here (platform's own unknown ones too), or NULL */
};
void descriptor_init(struct descriptor *d);
void descriptor_fini(struct descriptor *d);
void descriptor_copy(struct descriptor *to,
		     const struct descriptor *from); /* to is initialised by it */
int descriptor_from_json(struct descriptor *d, const struct json *j, const char *at, struct err *e);
struct json *descriptor_to_json(const struct descriptor *d);

#endif
