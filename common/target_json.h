/* common/target_json.h - {driver, tag, options{...}} both ways, for the request record; overwrite,
 * upstream and cache_tag where set.  An access key of backend_config is left out: the worker's own
 * configuration has it. */
#ifndef COMMON_TARGET_JSON_H
#define COMMON_TARGET_JSON_H

struct buf;
struct err;
struct json;
struct target;

struct json *target_to_json(const struct target *t);
int target_write(const struct target *t, struct buf *to, struct err *e); /* the same as text */
/* at: where j stands, for messages. */
int target_from_json(struct target *t, const struct json *j, const char *at, struct err *e);
/* It changes no more: what is asked of it for each task is worked out once (canonical options,
 * JSON).  Copies have it too; target_option breaks the seal. */
void target_seal(struct target *t);

#endif
