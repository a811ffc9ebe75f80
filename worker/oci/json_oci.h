/* worker/oci/json_oci.h - what the documents of this folder share: bounded texts, unknown members,
 * platforms. */
#ifndef WORKER_OCI_JSON_OCI_H
#define WORKER_OCI_JSON_OCI_H

#include "worker/oci/descriptor.h"

struct json;

/* obj.key into to[n]; longer is ERR_INVALID.  Not needed and absent: "". */
int oci_text(const struct json *obj, const char *key, const char *at, bool need, char *to, size_t n,
	     struct err *e);
/* The members of obj that are not in known (NULL-terminated), cloned into extra (made when NULL).
 */
struct json *oci_extra(const struct json *obj, const char *const *known, struct json *extra);
/* Adds those members again, behind ours. */
void oci_add_extra(struct json *obj, const struct json *extra);
int oci_platform(struct platform *p, const struct json *obj, const char *at, struct err *e);

#endif
