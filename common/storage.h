/* common/storage.h - where Nydus blobs go instead of the registry: upstream's backend_type and
 * backend_config.
 *
 * What names the place (`where`: sorted JSON, defaults left out) is public: it travels in requests
 * and counts in the dedup key.  The access key never does: it stays in the configuration of who
 * needs it, and the worker's supervisor hands it to the one task process that does. */
#ifndef COMMON_STORAGE_H
#define COMMON_STORAGE_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct secret;

enum nydus_backend { NYDUS_REGISTRY, NYDUS_LOCALFS, NYDUS_S3, NYDUS_OSS };

const char *storage_kind_name(enum nydus_backend kind); /* "s3" */

/* A backend_config taken apart: where, for storage_open, and the access key (NULL: none there);
 * access_key_secret_file is read here.  An error never quotes the text. */
int storage_split(const char *json, char **where, struct secret **key_id,
		  struct secret **key_secret, struct err *e);

struct storage { /* all text is owned */
	enum nydus_backend kind;
	char *dir;			    /* localfs: absolute */
	char *endpoint;			    /* HOST[:PORT], lower case */
	char *scheme;			    /* "https" or "http" */
	char *bucket, *region;		    /* region: s3 */
	char *prefix;			    /* of the objects' keys; may be "" */
	struct secret *key_id, *key_secret; /* both or none */
};
/* What `where` names, checked: every key that the kind needs, and none that it does not know.
 * The secrets are copied. */
int storage_open(struct storage *s, enum nydus_backend kind, const char *where,
		 const struct secret *key_id, const struct secret *key_secret, struct err *e);
void storage_fini(struct storage *s);
/* "s3 bucket b at minio:9000", "directory /srv/blobs": for messages. */
const char *storage_name(const struct storage *s, char text[320]);

#endif
