/* common/json.h - JSON: strict parsing, typed getters that name the path they refuse, building,
 * writing.
 *
 * Parsing is strict RFC 8259: UTF-8 validated, no duplicate keys, nothing after the value, bounded
 * depth and size.  Integers beyond int64 and fractions are refused where an integer is asked for.
 * Nodes form a tree: only the root is freed; a node handed to json_set_* or json_append belongs to
 * its parent. Getters with a default return it when the key is absent or null; a wrong type is
 * always an error. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct buf;
struct json; /* a node; NULL stands for JSON null in values read */

struct json_limits {
	size_t bytes;	/* 0: 64 MiB */
	unsigned depth; /* 0: 32 */
	bool trailing;	/* bytes after the value are allowed */
};

int json_parse(struct json **root, const char *p, size_t n, const struct json_limits *l,
	       struct err *e); /* ERR_INVALID says at which byte; *root may be NULL: "null" */
void json_freep(struct json **root);
struct json *json_clone(const struct json *j);

enum json_kind {
	JSON_NULL,
	JSON_BOOL,
	JSON_INT,
	JSON_DOUBLE,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT
};
enum json_kind json_kind(const struct json *j);
const char *json_kind_name(enum json_kind k); /* "an object", "a string", ... for messages */

/* `at` is a path for messages, such as "event_data.resources[0]"; may be "". */
struct json *json_get(const struct json *obj,
		      const char *key); /* NULL: absent, null, or not an object */
bool json_has(const struct json *obj, const char *key);
int json_want(const struct json *j, enum json_kind k, const char *at, struct err *e);
/* Required: absent, null or of another kind is an error that names at.key. */
int json_str(const struct json *obj, const char *key, const char *at, const char **v,
	     struct err *e);
int json_int(const struct json *obj, const char *key, const char *at, int64_t *v, struct err *e);
int json_obj(const struct json *obj, const char *key, const char *at, struct json **v,
	     struct err *e);
int json_array(const struct json *obj, const char *key, const char *at, struct json **v,
	       struct err *e);
/* Optional: absent or null leaves the default. */
int json_opt_str(const struct json *obj, const char *key, const char *at, const char **v,
		 struct err *e);
int json_opt_int(const struct json *obj, const char *key, const char *at, int64_t *v,
		 struct err *e);
int json_opt_bool(const struct json *obj, const char *key, const char *at, bool *v, struct err *e);
int json_opt_object(const struct json *obj, const char *key, const char *at, struct json **v,
		    struct err *e);
int json_opt_array(const struct json *obj, const char *key, const char *at, struct json **v,
		   struct err *e);

size_t json_len(const struct json *array_or_object);
struct json *json_at(const struct json *array, size_t i);
const char *
json_value_str(const struct json *j); /* a string's value, else NULL; may hold NULs: see _len */
size_t json_value_len(const struct json *j);
int64_t json_value_int(const struct json *j);
bool json_value_bool(const struct json *j);
/* Members in the order of the text: for (i = json_first(o); i.key; json_next(&i)). */
struct json_iter {
	const char *key;
	struct json *value;
	void *next;
};
struct json_iter json_first(const struct json *obj);
void json_next(struct json_iter *i);

struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_str(const char *s); /* must be valid UTF-8 */
struct json *json_new_int(int64_t v);
struct json *json_new_bool(bool v);
/* Set replaces; order of first insertion is kept.  Values are taken over. */
void json_set(struct json *obj, const char *key, struct json *value);
void json_set_str(struct json *obj, const char *key, const char *s);
void json_set_int(struct json *obj, const char *key, int64_t v);
void json_set_bool(struct json *obj, const char *key, bool v);
void json_del(struct json *obj, const char *key);
void json_append(struct json *array, struct json *value);

enum json_style {
	JSON_COMPACT, /* no spaces, order kept */
	JSON_SORTED,  /* compact, keys sorted by byte: canonical */
	JSON_PRETTY,  /* two spaces, as Go's MarshalIndent("", "  ") */
};
/* Escapes only what RFC 8259 needs (not '/'); control characters as \u00xx, \n \r \t \b \f short.
 */
int json_write(const struct json *j, enum json_style style, struct buf *to, struct err *e);
int json_quote(struct buf *to, const char *s, size_t n, struct err *e); /* with its quotes */

#endif
