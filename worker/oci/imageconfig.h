/* worker/oci/imageconfig.h - the image configuration, kept whole as JSON (unknown fields survive);
 * what we read and change of it is platform, rootfs.diff_ids and history.  OCI image-spec v1.1,
 * config.md. */
#ifndef WORKER_OCI_IMAGECONFIG_H
#define WORKER_OCI_IMAGECONFIG_H

#include "worker/oci/descriptor.h"

struct buf;
struct json;

struct imageconfig {
	struct json *json; /* the whole document */
	struct platform platform;
	struct digest *diff_ids;
	size_t n_diff_ids;
};
void imageconfig_init(struct imageconfig *c);
void imageconfig_fini(struct imageconfig *c);
int imageconfig_parse(struct imageconfig *c, const char *p, size_t n,
		      struct err *e); /* at most 8 MiB */
void imageconfig_copy(struct imageconfig *to, const struct imageconfig *from);
void imageconfig_set_diff_ids(struct imageconfig *c, const struct digest *d, size_t n);
/* Appended, or put first; any of the texts may be NULL. */
void imageconfig_add_history(struct imageconfig *c, bool first, const char *created_by,
			     const char *comment, bool empty_layer);
void imageconfig_drop_history(struct imageconfig *c);
/* diff_ids changed: the legacy `Image` keys of config and container_config name another image. */
void imageconfig_drop_legacy_image(struct imageconfig *c);
int imageconfig_write(const struct imageconfig *c, struct buf *to, struct err *e);

#endif
