/* common/target.c - see target.h; the options themselves are rows of driver_options.c. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/driver_options.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define MIB (1024 * 1024)

const char *driver_name(enum driver_id d)
{
	assert(d < DRIVERS);
	return driver_rows[d].name;
}

uint32_t target_format_version(enum driver_id d)
{
	assert(d < DRIVERS);
	return driver_rows[d].version;
}

const char *target_format(const struct target *t, char text[32])
{
	snprintf(text, 32, "%s/%u", driver_name(t->driver), target_format_version(t->driver));
	return text;
}

int target_driver_parse(enum driver_id *d, const char *name, struct err *e)
{
	const char *names[DRIVERS], *near;
	char shown[64];

	for (int i = 0; i < DRIVERS; i++) {
		names[i] = driver_rows[i].name;
		if (strcmp(name, names[i]) == 0) {
			*d = (enum driver_id)i;
			return 0;
		}
	}
	near = str_nearest(name, names, DRIVERS);
	str_copy(shown, sizeof(shown), name);
	str_clean(shown);
	return err_set(e, ERR_INVALID,
		       "unknown driver \"%s\", expected estargz, zstdchunked or nydus%s%s%s", shown,
		       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* ---- options: one value in, one value out */

static void *value_of(struct target *t, const struct option *o)
{
	return (char *)t + o->at;
}

static const void *value_in(const struct target *t, const struct option *o)
{
	return (const char *)t + o->at;
}

bool target_option_known(enum driver_id d, const char *key)
{
	return driver_option_find(d, key) != NULL;
}

bool target_option_doc(enum driver_id d, size_t i, struct target_option_doc *doc)
{
	const struct option *o = driver_rows[d].options;

	for (size_t k = 0; k <= i; k++)
		if (!o[k].key)
			return false;
	doc->key = o[i].key;
	doc->def = o[i].def;
	doc->doc = o[i].doc;
	driver_option_expected(&o[i], doc->expected, sizeof(doc->expected));
	return true;
}

static int not_expected(const struct option *o, const char *value, struct err *e)
{
	char expected[160], shown[80];

	driver_option_expected(o, expected, sizeof(expected));
	str_copy(shown, sizeof(shown), value);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "option %s: \"%s\" is not %s", o->key, shown, expected);
}

/* Decimal, with a unit, or as Nydus' own tools write it: 0x100000. */
static int parse_size(const char *s, uint64_t *v)
{
	uint64_t n = 0;

	if (!str_starts(s, "0x") && !str_starts(s, "0X"))
		return str_size(s, v, NULL);
	s += 2;
	if (!*s || strlen(s) > 15)
		return -1;
	for (; *s; s++) {
		int digit = *s >= '0' && *s <= '9'   ? *s - '0'
			    : *s >= 'a' && *s <= 'f' ? *s - 'a' + 10
			    : *s >= 'A' && *s <= 'F' ? *s - 'A' + 10
						     : -1;
		if (digit < 0)
			return -1;
		n = n * 16 + (uint64_t)digit;
	}
	*v = n;
	return 0;
}

static const struct word *word_find(const struct option *o, const char *value, struct err *e)
{
	for (const struct word *w = o->words; w->text; w++) {
		if (strcmp(w->text, value) != 0)
			continue;
		if (!w->refused)
			return w;
		err_set(e, ERR_UNSUPPORTED, "option %s: %s: %s", o->key, value, w->refused);
		return NULL;
	}
	not_expected(o, value, e);
	return NULL;
}

/* Lines without surrounding blanks, empty ones dropped, joined by newlines; NULL when none is left.
 */
static char *tidy_lines(const char *value)
{
	char *to = mem_alloc(strlen(value) + 1);
	size_t len = 0;

	while (*value) {
		size_t n = strcspn(value, "\n");
		struct slice line = slice_trim(value, n);

		if (line.n > 0) {
			if (len > 0)
				to[len++] = '\n';
			memcpy(to + len, line.p, line.n);
			len += line.n;
		}
		value += n + (value[n] ? 1 : 0);
	}
	to[len] = 0;
	if (len == 0) {
		free(to);
		return NULL;
	}
	return to;
}

static int set_lines(char **to, const struct option *o, const char *value, struct err *e)
{
	if (strlen(value) > o->max)
		return err_set(e, ERR_INVALID, "option %s: %zu bytes, expected at most %llu",
			       o->key, strlen(value), (unsigned long long)o->max);
	if (!str_utf8_valid(value, strlen(value)))
		return err_set(e, ERR_INVALID, "option %s: not UTF-8", o->key);
	free(*to);
	*to = tidy_lines(value);
	return 0;
}

static int set_reference(char **to, const struct option *o, const char *value, struct err *e)
{
	char text[IMAGEREF_TEXT];
	struct imageref ref;

	if (*value && imageref_parse(&ref, value, e) < 0)
		return err_wrap(e, "option %s", o->key);
	if (*value && !ref.tag[0] && !digest_is_set(&ref.digest))
		str_copy(ref.tag, sizeof(ref.tag), "latest");
	free(*to);
	*to = *value ? mem_strdup(imageref_text(&ref, text)) : NULL;
	return 0;
}

/* estargz -> zstdchunked, taking along what was set before. */
static void become_zstdchunked(struct target *t)
{
	struct estargz_options old = t->estargz;
	struct target fresh;

	target_init(&fresh, DRIVER_ZSTDCHUNKED);
	t->driver = DRIVER_ZSTDCHUNKED;
	t->zstdchunked = fresh.zstdchunked;
	t->zstdchunked.chunk_size = old.chunk_size;
	t->zstdchunked.docker2oci = old.docker2oci;
	t->zstdchunked.prioritized_files = old.prioritized_files;
	if (old.compression_level > 0)
		t->zstdchunked.compression_level = old.compression_level;
}

static int set_compression(struct target *t, const struct option *o, const char *value,
			   struct err *e)
{
	const struct word *w = word_find(o, value, e);

	if (!w)
		return -1;
	if (w->value == (int)t->driver)
		return 0;
	if (t->driver != DRIVER_ESTARGZ)
		return err_set(e, ERR_INVALID, "option compression: %s contradicts driver %s",
			       value, driver_name(t->driver));
	become_zstdchunked(t);
	return 0;
}

static int set_number(struct target *t, const struct option *o, const char *value, struct err *e)
{
	uint64_t v = 0;
	int r = o->type == OPT_SIZE ? parse_size(value, &v) : str_u64(value, &v, NULL);

	if (r < 0 || v < o->min || v > o->max || (o->flags & POWER_OF_TWO && (v & (v - 1))))
		return not_expected(o, value, e);
	if (o->type == OPT_SIZE)
		*(uint64_t *)value_of(t, o) = v;
	else
		*(int *)value_of(t, o) = (int)v;
	return 0;
}

static int set_word(struct target *t, const struct option *o, const char *value, struct err *e)
{
	const struct word *w = word_find(o, value, e);

	if (!w)
		return -1;
	if (o->type == OPT_DIALECT) {
		t->zstdchunked.dialect = (enum zstd_dialect)(w->value / 8);
		t->zstdchunked.face = (enum zstd_dialect)(w->value % 8);
	} else if (o->at == offsetof(struct target, nydus.sha256)) {
		t->nydus.sha256 = w->value;
	} else {
		*(int *)value_of(t, o) =
			w->value; /* an int or an enum, which gcc and clang make int-sized */
	}
	return 0;
}
static_assert(sizeof(enum nydus_compressor) == sizeof(int), "set_word writes an int");

static int set_bool(struct target *t, const struct option *o, const char *value, struct err *e)
{
	bool v;

	if (str_bool(value, &v, NULL) < 0)
		return not_expected(o, value, e);
	*(bool *)value_of(t, o) = v;
	return 0;
}

static void drop_backend(struct nydus_options *o)
{
	free(take_ptr(o->backend_config));
	secret_freep(&o->backend_key_id);
	secret_freep(&o->backend_key_secret);
}

static int set_backend(struct target *t, const struct option *o, const char *value, struct err *e)
{
	struct nydus_options *n = &t->nydus;
	struct secret *id, *secret;
	char *where;

	if (!*value) {
		drop_backend(n);
		return 0;
	}
	if (storage_split(value, &where, &id, &secret, e) < 0)
		return err_wrap(e, "option %s", o->key);
	drop_backend(n);
	n->backend_config = where;
	n->backend_key_id = id;
	n->backend_key_secret = secret;
	return 0;
}

/* An empty value means the default, as upstream's empty YAML values do. */
static int set_option(struct target *t, const struct option *o, const char *value,
		      const char **warning, struct err *e)
{
	bool empty = !*value;

	switch (o->type) {
	case OPT_BOOL:
		if (empty && t->driver == DRIVER_NYDUS)
			value = "false"; /* as upstream's Nydus driver takes it */
		else if (empty)
			value = o->def;
		if (set_bool(t, o, value, e) < 0)
			return -1;
		if (o->flags & ALWAYS_OCI && !*(const bool *)value_in(t, o))
			*warning = o->note;
		return 0;
	case OPT_SIZE:
	case OPT_INT:
		return set_number(t, o, empty ? o->def : value, e);
	case OPT_WORD:
	case OPT_DIALECT:
		return set_word(t, o, empty ? o->def : value, e);
	case OPT_COMPRESSION:
		return empty ? 0 : set_compression(t, o, value, e);
	case OPT_LINES:
		return set_lines(value_of(t, o), o, value, e);
	case OPT_REFERENCE:
		return set_reference(value_of(t, o), o, value, e);
	case OPT_BACKEND:
		return set_backend(t, o, value, e);
	case OPT_UNUSED:
		*warning = o->note;
		return 0;
	case OPT_REFUSED:
		return empty ? 0 : err_set(e, ERR_UNSUPPORTED, "option %s: %s", o->key, o->note);
	}
	return err_set(e, ERR_BUG, "option %s has no type", o->key);
}

static int unknown_option(enum driver_id d, const char *key, struct err *e)
{
	const char *keys[32], *near;
	char shown[80];
	size_t n = 0;

	for (const struct option *o = driver_rows[d].options; o->key; o++) {
		assert(n < 32);
		keys[n++] = o->key;
	}
	near = str_nearest(key, keys, n);
	str_copy(shown, sizeof(shown), key);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "driver %s has no option \"%s\"%s%s%s", driver_name(d),
		       shown, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

void target_unseal(struct target *t)
{
	free(t->sealed_options);
	free(t->sealed_json);
	t->sealed_options = t->sealed_json = NULL;
}

int target_option(struct target *t, const char *key, const char *value, const char **warning,
		  struct err *e)
{
	const struct option *o = driver_option_find(t->driver, key);
	const char *ignored;

	if (!warning)
		warning = &ignored;
	*warning = NULL;
	if (!o)
		return unknown_option(t->driver, key, e);
	target_unseal(t);
	if (set_option(t, o, value, warning, e) < 0)
		return -1;
	if (t->driver == DRIVER_NYDUS && t->nydus.oci_ref)
		t->nydus.docker2oci = true; /* as upstream: zran names OCI layers */
	return 0;
}

void target_init(struct target *t, enum driver_id d)
{
	const char *warning;
	struct err e = {0};

	memset(t, 0, sizeof(*t));
	t->driver = d;
	for (const struct option *o = driver_rows[d].options; o->key; o++) {
		if (o->type == OPT_UNUSED || o->type == OPT_REFUSED)
			continue;
		if (set_option(t, o, o->def, &warning, &e) < 0)
			assert(!"a default does not parse");
	}
}

static bool owns_text(const struct option *o)
{
	return o->type == OPT_LINES || o->type == OPT_REFERENCE || o->type == OPT_BACKEND;
}

void target_fini(struct target *t)
{
	for (const struct option *o = driver_rows[t->driver].options; o->key; o++)
		if (owns_text(o))
			free(*(char **)value_of(t, o));
	if (t->driver == DRIVER_NYDUS) {
		secret_freep(&t->nydus.backend_key_id);
		secret_freep(&t->nydus.backend_key_secret);
	}
	free(t->tag_template);
	free(t->cache_tag);
	target_unseal(t);
	memset(t, 0, sizeof(*t));
}

void target_copy(struct target *to, const struct target *from)
{
	*to = *from;
	for (const struct option *o = driver_rows[from->driver].options; o->key; o++)
		if (owns_text(o))
			*(char **)value_of(to, o) = mem_strdup(*(char *const *)value_in(from, o));
	if (from->driver == DRIVER_NYDUS) {
		to->nydus.backend_key_id = secret_dup(from->nydus.backend_key_id);
		to->nydus.backend_key_secret = secret_dup(from->nydus.backend_key_secret);
	}
	to->tag_template = mem_strdup(from->tag_template);
	to->cache_tag = mem_strdup(from->cache_tag);
	to->sealed_options = mem_strdup(from->sealed_options);
	to->sealed_json = mem_strdup(from->sealed_json);
}

/* The value as it is written: decimal, true or false, a word, text.  NULL text is "". */
static const char *option_text(const struct target *t, const struct option *o, char small[32])
{
	int word;

	switch (o->type) {
	case OPT_BOOL:
		return *(const bool *)value_in(t, o) ? "true" : "false";
	case OPT_SIZE:
		snprintf(small, 32, "%llu", (unsigned long long)*(const uint64_t *)value_in(t, o));
		return small;
	case OPT_INT:
		snprintf(small, 32, "%d", *(const int *)value_in(t, o));
		return small;
	case OPT_DIALECT:
	case OPT_WORD:
		word = o->type == OPT_DIALECT
			       ? DIALECT((int)t->zstdchunked.dialect, (int)t->zstdchunked.face)
		       : o->at == offsetof(struct target, nydus.sha256)
			       ? (int)t->nydus.sha256
			       : *(const int *)value_in(t, o);
		for (const struct word *w = o->words; w->text; w++)
			if (w->value == word && !w->refused)
				return w->text;
		return "";
	case OPT_LINES:
	case OPT_REFERENCE:
	case OPT_BACKEND:
		return *(char *const *)value_in(t, o) ? *(char *const *)value_in(t, o) : "";
	default:
		return "";
	}
}

static bool is_default(const struct target *t, const struct target *fresh, const struct option *o)
{
	char a[32], b[32];

	return strcmp(option_text(t, o, a), option_text(fresh, o, b)) == 0;
}

/* Newlines and backslashes are escaped, so that a line stays a line. */
static void add_escaped(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			buf_add_str(b, "\\n", NULL);
		else if (*s == '\\')
			buf_add_str(b, "\\\\", NULL);
		else
			buf_add_char(b, *s, NULL);
	}
}

char *target_options_text(const struct target *t)
{
	struct buf b = BUF_INIT(TARGET_TEXT_MAX); /* every option is bounded where it is parsed */
	struct target fresh;
	char small[32];
	char *text;

	if (t->sealed_options)
		return mem_strdup(t->sealed_options);
	target_init(&fresh, t->driver);
	for (const struct option *o = driver_rows[t->driver].options; o->key; o++) {
		if (!(o->flags & IN_OUTPUT) || is_default(t, &fresh, o))
			continue;
		buf_add_str(&b, o->key, NULL);
		buf_add_char(&b, '=', NULL);
		add_escaped(&b, option_text(t, o, small));
		buf_add_char(&b, '\n', NULL);
	}
	target_fini(&fresh);
	text = mem_strdup(b.data);
	buf_fini(&b);
	return text;
}

void target_options_each(const struct target *t,
			 void (*on)(void *arg, const char *key, const char *value), void *arg)
{
	struct target fresh;
	char small[32];

	target_init(&fresh, t->driver);
	for (const struct option *o = driver_rows[t->driver].options; o->key; o++)
		if (!is_default(t, &fresh, o))
			on(arg, o->key, option_text(t, o, small));
	target_fini(&fresh);
}

static int check_zstdchunked(const struct zstdchunked_options *o, struct err *e)
{
	if (o->dialect == DIALECT_PODMAN && o->prioritized_files)
		return err_set(e, ERR_INVALID,
			       "prioritized_files: podman's dialect has no place for it; use "
			       "dialect containerd");
	if (o->dialect == DIALECT_PODMAN && o->chunk_size != 4 * MIB)
		return err_set(e, ERR_INVALID,
			       "chunk_size: podman's dialect cuts files by content; leave it out");
	return 0;
}

static int check_backend(const struct nydus_options *o, struct err *e)
{
	struct storage s;

	if (o->backend == NYDUS_REGISTRY)
		return o->backend_config
			       ? err_set(e, ERR_INVALID, "backend_config without backend_type")
			       : 0;
	if (!o->backend_config)
		return err_set(e, ERR_INVALID, "backend_type %s needs backend_config",
			       storage_kind_name(o->backend));
	if (o->oci_ref)
		return err_set(e, ERR_INVALID,
			       "oci_ref contradicts backend_type %s: its readers want the source's "
			       "layers, which are in the registry",
			       storage_kind_name(o->backend));
	if (o->chunk_dict_ref)
		return err_set(e, ERR_INVALID,
			       "chunk_dict_ref contradicts backend_type %s: the dictionary's blobs "
			       "are in the registry",
			       storage_kind_name(o->backend));
	if (storage_open(&s, o->backend, o->backend_config, o->backend_key_id,
			 o->backend_key_secret, e) < 0)
		return err_wrap(e, "backend_config");
	storage_fini(&s);
	return 0;
}

static int check_nydus(const struct nydus_options *o, struct err *e)
{
	if (check_backend(o, e) < 0)
		return -1;
	if (o->batch_size && o->batch_size < 0x1000)
		return err_set(e, ERR_INVALID, "batch_size: %llu is below 4096 (0 is off)",
			       (unsigned long long)o->batch_size);
	if (o->batch_size > o->chunk_size)
		return err_set(e, ERR_INVALID, "batch_size: %llu is over fs_chunk_size %llu",
			       (unsigned long long)o->batch_size,
			       (unsigned long long)o->chunk_size);
	if (o->oci_ref && o->batch_size)
		return err_set(e, ERR_INVALID,
			       "batch_size contradicts oci_ref, which stores no chunk");
	if (o->oci_ref && o->chunk_dict_ref)
		return err_set(e, ERR_INVALID,
			       "chunk_dict_ref contradicts oci_ref, which stores no chunk");
	if (o->compressor != NYDUS_ZSTD && o->compression_level != 3)
		return err_set(e, ERR_INVALID, "compression_level is for compressor zstd alone");
	return 0;
}

int target_check(const struct target *t, struct err *e)
{
	switch (t->driver) {
	case DRIVER_ZSTDCHUNKED:
		return check_zstdchunked(&t->zstdchunked, e);
	case DRIVER_NYDUS:
		return check_nydus(&t->nydus, e);
	default:
		return 0;
	}
}
