/* common/json.c - see json.h.  json-c is the parser; what it is lenient about (duplicate keys,
 * numbers) is checked in a pass of our own over the text first. */
#include "common/json.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"

/* struct json is never defined: a node is a json_object under another name. */
static struct json_object *obj_of(const struct json *j)
{
	return (struct json_object *)j;
}

static struct json *json_of(struct json_object *o)
{
	return (struct json *)o;
}

/* ---- a scan over text that json-c has accepted: duplicate keys (it keeps the last one silently),
 * numbers. */
struct key {
	const char *p;
	size_t n;
	char *own; /* unescaped; p is in it then, else in the text */
};

struct level {
	bool object, key_next;
	struct key *keys;
	size_t n, cap;
};

static void level_fini(struct level *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->keys[i].own);
	free(l->keys);
}

static int by_text(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

	return c ? c : (x->n > y->n) - (x->n < y->n);
}

static const struct key *duplicate(struct level *l)
{
	enum { FEW = 12 }; /* compared each with each: sorting allocates */

	for (size_t i = 1; i < l->n && l->n <= FEW; i++)
		for (size_t k = 0; k < i; k++)
			if (by_text(&l->keys[i], &l->keys[k]) == 0)
				return &l->keys[i];
	if (l->n > FEW)
		qsort(l->keys, l->n, sizeof(*l->keys), by_text);
	for (size_t i = 1; i < l->n && l->n > FEW; i++)
		if (by_text(&l->keys[i - 1], &l->keys[i]) == 0)
			return &l->keys[i];
	return NULL;
}

static size_t string_end(const char *p, size_t i, size_t n)
{
	for (i++; i < n && p[i] != '"'; i++)
		if (p[i] == '\\')
			i++;
	return i;
}

/* The key between its quotes; unescaped by json-c, so that "a" and "\\u0061" are the same. */
static struct key key_of(const char *p, size_t n)
{
	struct json_object *o;
	struct key k = {.p = p, .n = n};
	char *text;

	if (!memchr(p, '\\', n))
		return k;
	text = mem_printf("\"%.*s\"", (int)n, p);
	o = json_tokener_parse(text);
	k.own = mem_strdup(o ? json_object_get_string(o) : text);
	k.p = k.own;
	k.n = strlen(k.own);
	json_object_put(o);
	free(text);
	return k;
}

static size_t digits(const char *p, size_t i, size_t n)
{
	while (i < n && p[i] >= '0' && p[i] <= '9')
		i++;
	return i;
}

/* RFC 8259 §6 at p[i]: where the number ends, or 0 when it is none ("1.", "-", "1e"). */
static size_t number_end(const char *p, size_t i, size_t n)
{
	size_t from = i + (p[i] == '-');

	i = digits(p, from, n);
	if (i == from || (p[from] == '0' && i > from + 1))
		return 0;
	if (i < n && p[i] == '.') {
		from = i + 1;
		i = digits(p, from, n);
		if (i == from)
			return 0;
	}
	if (i < n && (p[i] == 'e' || p[i] == 'E')) {
		from = i + 1;
		from += from < n && (p[from] == '+' || p[from] == '-');
		i = digits(p, from, n);
		if (i == from)
			return 0;
	}
	return i;
}

static int check_keys(const char *p, size_t n, unsigned depth, struct err *e)
{
	struct level *stack = mem_array(depth + 2, sizeof(*stack));
	size_t top = 0;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		struct level *l = &stack[top];

		if (p[i] == '"') {
			size_t end = string_end(p, i, n);

			if (l->object && l->key_next) {
				mem_grow(l->keys, l->n, l->cap);
				l->keys[l->n++] = key_of(p + i + 1, end - i - 1);
				l->key_next = false;
			}
			i = end;
		} else if (p[i] == '{' || p[i] == '[') {
			if (++top > depth + 1)
				break; /* json-c has refused it already */
			stack[top] = (struct level){.object = p[i] == '{', .key_next = true};
		} else if ((p[i] == '}' || p[i] == ']') && top > 0) {
			const struct key *twice = duplicate(l);

			if (twice)
				rc = err_set(e, ERR_INVALID,
					     "key '%.*s' stands twice in one object",
					     (int)(twice->n < 60 ? twice->n : 60), twice->p);
			level_fini(l);
			*l = (struct level){0};
			top--;
		} else if (p[i] == ',') {
			l->key_next = true;
		} else if (p[i] == '-' || (p[i] >= '0' && p[i] <= '9')) {
			size_t end = number_end(p, i, n);

			if (end == 0)
				rc = err_set(e, ERR_INVALID, "JSON: malformed number at byte %zu",
					     i);
			else
				i = end - 1;
		} else if (p[i] == 'N' ||
			   p[i] == 'I') { /* NaN, Infinity: json-c takes them even when strict */
			rc = err_set(e, ERR_INVALID, "JSON: no value at byte %zu", i);
		}
	}
	for (size_t i = 0; i <= top && i < depth + 2; i++)
		level_fini(&stack[i]);
	free(stack);
	return rc;
}

int json_parse(struct json **root, const char *p, size_t n, const struct json_limits *l,
	       struct err *e)
{
	struct json_limits lim = l ? *l : (struct json_limits){0};
	struct json_tokener *t;
	struct json_object *o;
	enum json_tokener_error why;
	bool ended = false;
	size_t end;

	if (lim.bytes == 0)
		lim.bytes = 64u << 20;
	if (lim.depth == 0)
		lim.depth = 32;
	if (n > lim.bytes)
		return err_set(e, ERR_LIMIT, "JSON of %zu bytes is larger than %zu", n, lim.bytes);
	/* A NUL ends json-c's text early, and a control character inside a string passes it. */
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] < 0x20 && p[i] != '\n' && p[i] != '\r' && p[i] != '\t')
			return err_set(e, ERR_INVALID, "JSON: control character at byte %zu", i);
	if (!str_utf8_valid(p, n))
		return err_set(e, ERR_INVALID, "JSON: not UTF-8");
	t = json_tokener_new_ex((int)lim.depth + 1);
	if (!t)
		abort();
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 |
					  (lim.trailing ? JSON_TOKENER_ALLOW_TRAILING_CHARS : 0));
	o = json_tokener_parse_ex(t, p, (int)n);
	why = json_tokener_get_error(t);
	if (why == json_tokener_continue) { /* a bare number or literal ends with the text */
		ended = true;
		o = json_tokener_parse_ex(t, "", 1);
		why = json_tokener_get_error(t);
	}
	end = json_tokener_get_parse_end(t);
	if (ended)
		end = n;
	json_tokener_free(t);
	if (why != json_tokener_success) {
		json_object_put(o);
		return err_set(e, ERR_INVALID, "JSON: %s at byte %zu",
			       why == json_tokener_continue ? "the text ends too early"
							    : json_tokener_error_desc(why),
			       end > n ? n : end);
	}
	if (!lim.trailing)
		for (size_t i = end; i < n; i++)
			if (!strchr(" \t\r\n", p[i])) {
				json_object_put(o);
				return err_set(e, ERR_INVALID,
					       "JSON: something follows the value at byte %zu", i);
			}
	if (check_keys(p, end > n ? n : end, lim.depth, e) < 0) {
		json_object_put(o);
		return -1;
	}
	*root = json_of(o);
	return 0;
}

void json_freep(struct json **root)
{
	json_object_put(obj_of(*root));
	*root = NULL;
}

struct json *json_clone(const struct json *j)
{
	struct json_object *to = NULL;

	if (j && json_object_deep_copy(obj_of(j), &to, NULL) != 0)
		abort();
	return json_of(to);
}

enum json_kind json_kind(const struct json *j)
{
	switch (json_object_get_type(obj_of(j))) {
	case json_type_boolean:
		return JSON_BOOL;
	case json_type_int:
		return JSON_INT;
	case json_type_double:
		return JSON_DOUBLE;
	case json_type_string:
		return JSON_STRING;
	case json_type_array:
		return JSON_ARRAY;
	case json_type_object:
		return JSON_OBJECT;
	default:
		return JSON_NULL;
	}
}

const char *json_kind_name(enum json_kind k)
{
	static const char *const names[] = {"null",	"a boolean", "an integer", "a fraction",
					    "a string", "an array",  "an object"};

	return names[k];
}

struct json *json_get(const struct json *obj, const char *key)
{
	struct json_object *v = NULL;

	if (json_kind(obj) == JSON_OBJECT)
		json_object_object_get_ex(obj_of(obj), key, &v);
	return json_of(v);
}

bool json_has(const struct json *obj, const char *key)
{
	return json_kind(obj) == JSON_OBJECT && json_object_object_get_ex(obj_of(obj), key, NULL);
}

static const char *dot(const char *at)
{
	return at && *at ? "." : "";
}

int json_want(const struct json *j, enum json_kind k, const char *at, struct err *e)
{
	if (json_kind(j) == k)
		return 0;
	return err_set(e, ERR_INVALID, "%s is %s, expected %s", at && *at ? at : "the document",
		       json_kind_name(json_kind(j)), json_kind_name(k));
}

/* Absent or null with `need`: says so.  1 found, 0 absent, -1 wrong. */
static int look(const struct json *obj, const char *key, const char *at, enum json_kind k,
		bool need, struct json **v, struct err *e)
{
	struct json *j;

	if (json_kind(obj) != JSON_OBJECT)
		return json_want(obj, JSON_OBJECT, at, e);
	j = json_get(obj, key);
	if (!j && !need)
		return 0;
	if (!j)
		return err_set(e, ERR_INVALID, "%s%s%s is %s, expected %s", at ? at : "", dot(at),
			       key, json_has(obj, key) ? "null" : "missing", json_kind_name(k));
	if (json_kind(j) != k)
		return err_set(e, ERR_INVALID, "%s%s%s is %s, expected %s", at ? at : "", dot(at),
			       key, json_kind_name(json_kind(j)), json_kind_name(k));
	*v = j;
	return 1;
}

/* json-c saturates integers that do not fit; its text form then differs from the input, which is
 * gone, so the two extremes are refused as a whole. */
static int int_of(const struct json *j, const char *key, const char *at, int64_t *v, struct err *e)
{
	int64_t r = json_object_get_int64(obj_of(j));

	if (r == INT64_MAX || r == INT64_MIN)
		return err_set(e, ERR_INVALID, "%s%s%s is out of range", at ? at : "", dot(at),
			       key);
	*v = r;
	return 0;
}

static int str_of(const struct json *j, const char *key, const char *at, const char **v,
		  struct err *e)
{
	const char *s = json_object_get_string(obj_of(j));

	if (strlen(s) != (size_t)json_object_get_string_len(obj_of(j)))
		return err_set(e, ERR_INVALID, "%s%s%s holds a NUL", at ? at : "", dot(at), key);
	*v = s;
	return 0;
}

int json_str(const struct json *obj, const char *key, const char *at, const char **v, struct err *e)
{
	struct json *j;

	return look(obj, key, at, JSON_STRING, true, &j, e) < 0 ? -1 : str_of(j, key, at, v, e);
}

int json_int(const struct json *obj, const char *key, const char *at, int64_t *v, struct err *e)
{
	struct json *j;

	return look(obj, key, at, JSON_INT, true, &j, e) < 0 ? -1 : int_of(j, key, at, v, e);
}

int json_obj(const struct json *obj, const char *key, const char *at, struct json **v,
	     struct err *e)
{
	return look(obj, key, at, JSON_OBJECT, true, v, e) < 0 ? -1 : 0;
}

int json_array(const struct json *obj, const char *key, const char *at, struct json **v,
	       struct err *e)
{
	return look(obj, key, at, JSON_ARRAY, true, v, e) < 0 ? -1 : 0;
}

int json_opt_str(const struct json *obj, const char *key, const char *at, const char **v,
		 struct err *e)
{
	struct json *j;
	int r = look(obj, key, at, JSON_STRING, false, &j, e);

	return r <= 0 ? r : str_of(j, key, at, v, e);
}

int json_opt_int(const struct json *obj, const char *key, const char *at, int64_t *v, struct err *e)
{
	struct json *j;
	int r = look(obj, key, at, JSON_INT, false, &j, e);

	return r <= 0 ? r : int_of(j, key, at, v, e);
}

int json_opt_bool(const struct json *obj, const char *key, const char *at, bool *v, struct err *e)
{
	struct json *j;
	int r = look(obj, key, at, JSON_BOOL, false, &j, e);

	if (r > 0)
		*v = json_object_get_boolean(obj_of(j));
	return r < 0 ? -1 : 0;
}

int json_opt_object(const struct json *obj, const char *key, const char *at, struct json **v,
		    struct err *e)
{
	return look(obj, key, at, JSON_OBJECT, false, v, e) < 0 ? -1 : 0;
}

int json_opt_array(const struct json *obj, const char *key, const char *at, struct json **v,
		   struct err *e)
{
	return look(obj, key, at, JSON_ARRAY, false, v, e) < 0 ? -1 : 0;
}

size_t json_len(const struct json *j)
{
	if (json_kind(j) == JSON_ARRAY)
		return json_object_array_length(obj_of(j));
	return json_kind(j) == JSON_OBJECT ? (size_t)json_object_object_length(obj_of(j)) : 0;
}

struct json *json_at(const struct json *array, size_t i)
{
	return json_kind(array) == JSON_ARRAY ? json_of(json_object_array_get_idx(obj_of(array), i))
					      : NULL;
}

const char *json_value_str(const struct json *j)
{
	return json_kind(j) == JSON_STRING ? json_object_get_string(obj_of(j)) : NULL;
}

size_t json_value_len(const struct json *j)
{
	return json_kind(j) == JSON_STRING ? (size_t)json_object_get_string_len(obj_of(j)) : 0;
}

int64_t json_value_int(const struct json *j)
{
	return json_object_get_int64(obj_of(j));
}

bool json_value_bool(const struct json *j)
{
	return json_object_get_boolean(obj_of(j));
}

static struct json_iter iter_at(struct lh_entry *entry)
{
	if (!entry)
		return (struct json_iter){0};
	return (struct json_iter){.key = lh_entry_k(entry),
				  .value = json_of((struct json_object *)lh_entry_v(entry)),
				  .next = entry->next};
}

struct json_iter json_first(const struct json *obj)
{
	if (json_kind(obj) != JSON_OBJECT)
		return (struct json_iter){0};
	return iter_at(json_object_get_object(obj_of(obj))->head);
}

void json_next(struct json_iter *i)
{
	*i = iter_at(i->next);
}

struct json *json_new_object(void)
{
	return json_of(json_object_new_object());
}

struct json *json_new_array(void)
{
	return json_of(json_object_new_array());
}

struct json *json_new_str(const char *s)
{
	return json_of(json_object_new_string(s));
}

struct json *json_new_int(int64_t v)
{
	return json_of(json_object_new_int64(v));
}

struct json *json_new_bool(bool v)
{
	return json_of(json_object_new_boolean(v));
}

void json_set(struct json *obj, const char *key, struct json *value)
{
	if (json_object_object_add(obj_of(obj), key, obj_of(value)) != 0)
		abort();
}

void json_set_str(struct json *obj, const char *key, const char *s)
{
	json_set(obj, key, s ? json_new_str(s) : NULL);
}

void json_set_int(struct json *obj, const char *key, int64_t v)
{
	json_set(obj, key, json_new_int(v));
}

void json_set_bool(struct json *obj, const char *key, bool v)
{
	json_set(obj, key, json_new_bool(v));
}

void json_del(struct json *obj, const char *key)
{
	json_object_object_del(obj_of(obj), key);
}

void json_append(struct json *array, struct json *value)
{
	if (json_object_array_add(obj_of(array), obj_of(value)) != 0)
		abort();
}

/* ---- writing */
int json_quote(struct buf *to, const char *s, size_t n, struct err *e)
{
	static const char esc[] = {['"'] = '"',	 ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r',
				   ['\t'] = 't', ['\b'] = 'b',	['\f'] = 'f'};
	size_t from = 0;

	if (buf_reserve(to, n + 2, e) < 0 || buf_add_char(to, '"', e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		if (buf_add(to, s + from, i - from, e) < 0)
			return -1;
		from = i + 1;
		if ((c < sizeof(esc) && esc[c] ? buf_addf(to, e, "\\%c", esc[c])
					       : buf_addf(to, e, "\\u%04x", c)) < 0)
			return -1;
	}
	if (buf_add(to, s + from, n - from, e) < 0)
		return -1;
	return buf_add_char(to, '"', e);
}

static int indent(struct buf *to, enum json_style style, unsigned depth, struct err *e)
{
	if (style != JSON_PRETTY)
		return 0;
	if (buf_add_char(to, '\n', e) < 0)
		return -1;
	while (depth--)
		if (buf_add_str(to, "  ", e) < 0)
			return -1;
	return 0;
}

static int write_node(const struct json *j, enum json_style style, unsigned depth, struct buf *to,
		      struct err *e);

static int by_member(const void *a, const void *b)
{
	const struct json_iter *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static int write_object(const struct json *j, enum json_style style, unsigned depth, struct buf *to,
			struct err *e)
{
	size_t n = json_len(j), k = 0;
	struct json_iter *m = mem_array(n ? n : 1, sizeof(*m));
	int rc = buf_add_char(to, '{', e);

	for (struct json_iter i = json_first(j); i.key; json_next(&i))
		m[k++] = i;
	if (style == JSON_SORTED && n > 1)
		qsort(m, n, sizeof(*m), by_member);
	for (k = 0; k < n && rc == 0; k++) {
		if ((k && buf_add_char(to, ',', e) < 0) || indent(to, style, depth + 1, e) < 0 ||
		    json_quote(to, m[k].key, strlen(m[k].key), e) < 0 ||
		    buf_add_str(to, style == JSON_PRETTY ? ": " : ":", e) < 0 ||
		    write_node(m[k].value, style, depth + 1, to, e) < 0)
			rc = -1;
	}
	free(m);
	if (rc < 0 || (n && indent(to, style, depth, e) < 0))
		return -1;
	return buf_add_char(to, '}', e);
}

static int write_array(const struct json *j, enum json_style style, unsigned depth, struct buf *to,
		       struct err *e)
{
	size_t n = json_len(j);

	if (buf_add_char(to, '[', e) < 0)
		return -1;
	for (size_t k = 0; k < n; k++)
		if ((k && buf_add_char(to, ',', e) < 0) || indent(to, style, depth + 1, e) < 0 ||
		    write_node(json_at(j, k), style, depth + 1, to, e) < 0)
			return -1;
	if (n && indent(to, style, depth, e) < 0)
		return -1;
	return buf_add_char(to, ']', e);
}

static int write_node(const struct json *j, enum json_style style, unsigned depth, struct buf *to,
		      struct err *e)
{
	switch (json_kind(j)) {
	case JSON_NULL:
		return buf_add_str(to, "null", e);
	case JSON_BOOL:
		return buf_add_str(to, json_value_bool(j) ? "true" : "false", e);
	case JSON_INT: /* through json-c: a number over INT64_MAX keeps its digits */
	case JSON_DOUBLE:
		return buf_add_str(
			to, json_object_to_json_string_ext(obj_of(j), JSON_C_TO_STRING_PLAIN), e);
	case JSON_STRING:
		return json_quote(to, json_object_get_string(obj_of(j)),
				  (size_t)json_object_get_string_len(obj_of(j)), e);
	case JSON_ARRAY:
		return write_array(j, style, depth, to, e);
	case JSON_OBJECT:
		return write_object(j, style, depth, to, e);
	}
	return 0;
}

int json_write(const struct json *j, enum json_style style, struct buf *to, struct err *e)
{
	return write_node(j, style, 0, to, e);
}
