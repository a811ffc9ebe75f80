/* common/target.c - one table of options per driver.  Parsing, defaults, canonical text, JSON,
 * messages and the manual page all read it, so an option is added by adding a row.
 *
 * Two hashes are made here, and both are promises: the dedup key decides whether two requests are
 * the same task, the options hash whether a tag in a registry already is what is wanted.  Their
 * golden tests in test_target.c must not be changed without raising "acc-dedup-1" or the format
 * version. */
#include "common/target.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define LINES_MAX                                                                                  \
	(32 * 1024) /* prioritized_files, prefetch_patterns: they travel in each request */
#define TEXT_MAX (256 * 1024)
#define TAG_WORD "{tag}"

enum option_type {
	OPT_BOOL,	 /* bool */
	OPT_SIZE,	 /* uint64_t */
	OPT_INT,	 /* int */
	OPT_WORD,	 /* an enum, or an int */
	OPT_DIALECT,	 /* both enums of zstdchunked, from one word */
	OPT_LINES,	 /* char *: trimmed lines, empty ones dropped; NULL when none */
	OPT_REFERENCE,	 /* char *: an image, in full; NULL when none */
	OPT_COMPRESSION, /* chooses the driver */
	OPT_BACKEND,	 /* JSON that may hold an access key: apart from it; never quoted */
	OPT_UNUSED,	 /* accepted, and the note says why it does nothing */
	OPT_REFUSED,	 /* known, and the note says that it is not built */
};

enum option_flags {
	IN_OUTPUT = 1, /* changes the result: part of the canonical text */
	POWER_OF_TWO = 2,
	ALWAYS_OCI = 4, /* docker2oci of the stargz family: false has no effect */
};

struct word {
	const char *text;
	int value;
	const char *refused; /* known, and why it is not taken */
};

struct option {
	const char *key, *old; /* old: the name that upstream used before */
	enum option_type type;
	size_t at; /* in struct target */
	const char *def;
	unsigned flags;
	uint64_t min, max;
	const struct word *words;
	const char *doc, *note;
};

#define AT(member) offsetof(struct target, member)
#define KIB 1024
#define MIB (1024 * 1024)

static const struct word compression_words[] = {
	{"estargz", DRIVER_ESTARGZ, NULL}, {"zstdchunked", DRIVER_ZSTDCHUNKED, NULL}, {0}};

#define DIALECT(dialect, face) ((dialect)*8 + (face))
static const struct word dialect_words[] = {
	{"containerd", DIALECT(DIALECT_CONTAINERD, DIALECT_CONTAINERD), NULL},
	{"podman", DIALECT(DIALECT_PODMAN, DIALECT_PODMAN), NULL},
	{"both/containerd", DIALECT(DIALECT_BOTH, DIALECT_CONTAINERD), NULL},
	{"both/podman", DIALECT(DIALECT_BOTH, DIALECT_PODMAN), NULL},
	{"both", 0,
	 "is two targets with a tag each, over one blob; write {driver: zstdchunked, tag: "
	 "\"{tag}-zst\", config: {dialect: both/containerd}} and {driver: zstdchunked, tag: "
	 "\"{tag}-zst-podman\", config: {dialect: both/podman}} under a rule's targets"},
	{0}};

static const struct word fs_version_words[] = {
	{"6", 6, NULL}, {"5", 5, "RAFS v5 is not built; use 6"}, {0}};

static const struct word compressor_words[] = {
	{"none", NYDUS_NONE, NULL},
	{"lz4_block", NYDUS_LZ4, NULL},
	{"zstd", NYDUS_ZSTD, NULL},
	{"gzip", 0, "no Nydus reader takes it for native blobs; use zstd, lz4_block or none"},
	{0}};

static const struct word digester_words[] = {{"blake3", 0, NULL}, {"sha256", 1, NULL}, {0}};

static const struct word backend_words[] = {{"registry", NYDUS_REGISTRY, NULL},
					    {"localfs", NYDUS_LOCALFS, NULL},
					    {"s3", NYDUS_S3, NULL},
					    {"oss", NYDUS_OSS, NULL},
					    {0}};

/* The rows are sorted by key: the canonical text comes out sorted. */
static const struct option estargz_options[] = {
	{"chunk_size", NULL, OPT_SIZE, AT(estargz.chunk_size), "4MiB", IN_OUTPUT, 4 * KIB, 64 * MIB,
	 NULL, "Files are cut into chunks of this size; a reader fetches whole chunks.", NULL},
	{"compression", NULL, OPT_COMPRESSION, 0, "estargz", 0, 0, 0, compression_words,
	 "With zstdchunked the driver is zstdchunked.", NULL},
	{"compression_level", NULL, OPT_INT, AT(estargz.compression_level), "0", IN_OUTPUT, 0, 12,
	 NULL,
	 "libdeflate's level, 1 to 12; 0 is the fastest whose output is no larger than upstream's.",
	 NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(estargz.docker2oci), "true", ALWAYS_OCI, 0, 0, NULL,
	 "The result always has OCI media types, or no node could mount it lazily.",
	 "docker2oci has no effect: the result always has OCI media types"},
	{"prioritized_files", NULL, OPT_LINES, AT(estargz.prioritized_files), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL,
	 "Paths, one a line, that stand first in the blob and are fetched before the container "
	 "starts.",
	 NULL},
	{0}};

static const struct option zstdchunked_options[] = {
	{"chunk_size", NULL, OPT_SIZE, AT(zstdchunked.chunk_size), "4MiB", IN_OUTPUT, 4 * KIB,
	 64 * MIB, NULL, "Files are cut into chunks of this size (containerd's dialect).", NULL},
	{"compression", NULL, OPT_COMPRESSION, 0, "zstdchunked", 0, 0, 0, compression_words,
	 "Upstream's way to choose between estargz and zstdchunked.", NULL},
	{"compression_level", NULL, OPT_INT, AT(zstdchunked.compression_level), "0", IN_OUTPUT, 0,
	 19, NULL,
	 "zstd's level, 1 to 19; 0 is fast, with an output about as large as what the dialect's "
	 "own tools make: near 2 for containerd, 4 for podman and both.",
	 NULL},
	{"dialect", NULL, OPT_DIALECT, 0, "containerd", IN_OUTPUT, 0, 0, dialect_words,
	 "Who reads it lazily: containerd's stargz-snapshotter, or podman and CRI-O.  Two targets "
	 "with "
	 "both/containerd and both/podman share one blob.",
	 NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(zstdchunked.docker2oci), "true", ALWAYS_OCI, 0, 0, NULL,
	 "The result always has OCI media types.",
	 "docker2oci has no effect: the result always has OCI media types"},
	{"prioritized_files", NULL, OPT_LINES, AT(zstdchunked.prioritized_files), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL, "As for estargz (containerd's dialect).", NULL},
	{0}};

static const struct option nydus_options[] = {
	{"backend_config", NULL, OPT_BACKEND, AT(nydus.backend_config), "", IN_OUTPUT, 0, 0, NULL,
	 "For localfs {dir}; for s3 {endpoint, scheme, bucket_name, region, object_prefix, "
	 "access_key_id, access_key_secret}; for oss {endpoint, bucket_name, object_prefix, "
	 "access_key_id, access_key_secret}.  JSON in one text, as upstream has it, or a map.  "
	 "access_key_secret_file names a file with the secret instead.",
	 NULL},
	{"backend_force_push", NULL, OPT_BOOL, AT(nydus.backend_force_push), "false", 0, 0, 0, NULL,
	 "Blobs that the backend has already are written again.", NULL},
	{"backend_type", NULL, OPT_WORD, AT(nydus.backend), "registry", IN_OUTPUT, 0, 0,
	 backend_words,
	 "Where the blobs are stored.  With other than registry the manifest lists the bootstrap "
	 "alone, and the nodes' nydusd needs the same backend in its own configuration.",
	 NULL},
	{"batch_size", NULL, OPT_SIZE, AT(nydus.batch_size), "0", IN_OUTPUT | POWER_OF_TWO, 0,
	 16 * MIB, NULL, "Small files are compressed together up to this size; 0 is off.", NULL},
	{"builder", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL, "Ignored: Nydus is written natively.",
	 "builder is not used: Nydus is written natively, without nydus-image"},
	{"chunk_dict_ref", NULL, OPT_REFERENCE, AT(nydus.chunk_dict_ref), "", IN_OUTPUT, 0, 0, NULL,
	 "A Nydus image whose chunks are not stored again: layers refer to its blobs, and the "
	 "result lists those that it needs.  It must have this target's fs_chunk_size, digester "
	 "and compressor, be of RAFS v6, and not made with oci_ref.  It must lie in the same "
	 "project of the same registry, or be readable without a login: who may pull a result may "
	 "read the dictionary's blobs, too.  Who can push to it decides what results hold, so name "
	 "it by digest where that matters.  It is resolved once a task; another dictionary makes "
	 "other results.",
	 NULL},
	{"compression_level", NULL, OPT_INT, AT(nydus.compression_level), "3", IN_OUTPUT, 1, 19,
	 NULL, "zstd's level.", NULL},
	{"compressor", "rafs_compressor", OPT_WORD, AT(nydus.compressor), "zstd", IN_OUTPUT, 0, 0,
	 compressor_words, "How chunks are compressed.", NULL},
	{"digester", NULL, OPT_WORD, AT(nydus.sha256), "blake3", IN_OUTPUT, 0, 0, digester_words,
	 "The digest of chunks.", NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(nydus.docker2oci), "false", IN_OUTPUT, 0, 0, NULL,
	 "A Docker manifest becomes an OCI one.  Set by oci_ref.", NULL},
	{"encrypt_recipients", NULL, OPT_REFUSED, 0, "", 0, 0, 0, NULL, "Not built.",
	 "encryption is not built"},
	{"fs_align_chunk", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL, "For RAFS v5 only.",
	 "fs_align_chunk has no effect: RAFS v6 always aligns"},
	{"fs_chunk_size", NULL, OPT_SIZE, AT(nydus.chunk_size), "0x100000",
	 IN_OUTPUT | POWER_OF_TWO, 0x1000, 0x1000000, NULL,
	 "Files are cut into chunks of this size.", NULL},
	{"fs_version", "rafs_version", OPT_WORD, AT(nydus.fs_version), "6", IN_OUTPUT, 0, 0,
	 fs_version_words, "The version of RAFS.", NULL},
	{"merge_manifest", NULL, OPT_BOOL, AT(nydus.merge_manifest), "false", IN_OUTPUT, 0, 0, NULL,
	 "The result is an index of the source's manifests and the Nydus ones.", NULL},
	{"oci_ref", NULL, OPT_BOOL, AT(nydus.oci_ref), "false", IN_OUTPUT, 0, 0, NULL,
	 "The source's gzip layers are used as they are; only an index of them is pushed (zran).",
	 NULL},
	{"prefetch_patterns", NULL, OPT_LINES, AT(nydus.prefetch_patterns), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL,
	 "Absolute paths, one a line, that are fetched ahead.  Unset: none in the layers, / in the "
	 "merged "
	 "bootstrap.",
	 NULL},
	{"with_referrer", NULL, OPT_BOOL, AT(nydus.with_referrer), "false", IN_OUTPUT, 0, 0, NULL,
	 "Sets subject to the source's manifest.  Harbor then hides the result from its artifact "
	 "list.",
	 NULL},
	{"work_dir", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL,
	 "Ignored: a conversion writes no file.",
	 "work_dir of the driver is not used: a conversion writes no file"},
	{0}};

static const struct {
	const char *name;
	const struct option *options;
	uint32_t version; /* target_format_version */
} driver_rows[DRIVERS] = {
	[DRIVER_ESTARGZ] = {"estargz", estargz_options, 1},
	[DRIVER_ZSTDCHUNKED] = {"zstdchunked", zstdchunked_options, 1},
	[DRIVER_NYDUS] = {"nydus", nydus_options, 1},
};

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

static const struct option *option_find(enum driver_id d, const char *key)
{
	for (const struct option *o = driver_rows[d].options; o->key; o++)
		if (strcmp(o->key, key) == 0 || str_eq(o->old, key))
			return o;
	return NULL;
}

bool target_option_known(enum driver_id d, const char *key)
{
	return option_find(d, key) != NULL;
}

static void size_text(uint64_t v, char to[32])
{
	if (v >= MIB && v % MIB == 0)
		snprintf(to, 32, "%lluMiB", (unsigned long long)(v / MIB));
	else if (v >= KIB && v % KIB == 0)
		snprintf(to, 32, "%lluKiB", (unsigned long long)(v / KIB));
	else
		snprintf(to, 32, "%llu", (unsigned long long)v);
}

static void words_text(const struct word *w, char *to, size_t n)
{
	size_t len = 0;
	bool first = true;

	to[0] = 0;
	for (; w->text; w++) {
		if (w->refused)
			continue;
		len += (size_t)snprintf(to + len, n - len, "%s%s", first ? "" : ", ", w->text);
		assert(len < n);
		first = false;
	}
}

/* "a size from 4KiB to 64MiB" */
static void expected_text(const struct option *o, char *to, size_t n)
{
	char min[32], max[32], words[120];

	switch (o->type) {
	case OPT_BOOL:
		snprintf(to, n, "true or false");
		return;
	case OPT_SIZE:
		size_text(o->min, min);
		size_text(o->max, max);
		snprintf(to, n, "%s from %s to %s",
			 o->flags & POWER_OF_TWO ? "a power of two" : "a size", min, max);
		return;
	case OPT_INT:
		snprintf(to, n, "a number from %d to %d", (int)o->min, (int)o->max);
		return;
	case OPT_WORD:
	case OPT_DIALECT:
	case OPT_COMPRESSION:
		words_text(o->words, words, sizeof(words));
		snprintf(to, n, "one of %s", words);
		return;
	case OPT_LINES:
		snprintf(to, n, "lines of text, up to %d bytes", (int)o->max);
		return;
	case OPT_REFERENCE:
		snprintf(to, n, "an image: HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST");
		return;
	case OPT_BACKEND:
		snprintf(to, n, "a JSON object of texts");
		return;
	case OPT_UNUSED:
	case OPT_REFUSED:
		snprintf(to, n, "nothing");
		return;
	}
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
	expected_text(&o[i], doc->expected, sizeof(doc->expected));
	return true;
}

static int not_expected(const struct option *o, const char *value, struct err *e)
{
	char expected[160], shown[80];

	expected_text(o, expected, sizeof(expected));
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
	} else if (o->at == AT(nydus.sha256)) {
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

static void break_seal(struct target *t)
{
	free(t->sealed_options);
	free(t->sealed_json);
	t->sealed_options = t->sealed_json = NULL;
}

int target_option(struct target *t, const char *key, const char *value, const char **warning,
		  struct err *e)
{
	const struct option *o = option_find(t->driver, key);
	const char *ignored;

	if (!warning)
		warning = &ignored;
	*warning = NULL;
	if (!o)
		return unknown_option(t->driver, key, e);
	break_seal(t);
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
	break_seal(t);
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
		       : o->at == AT(nydus.sha256) ? (int)t->nydus.sha256
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
	struct buf b = BUF_INIT(TEXT_MAX); /* every option is bounded where it is parsed */
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

/* ---- tags */

int target_template_check(const char *template, struct err *e)
{
	const char *at = strstr(template, TAG_WORD);
	char sample[IMAGEREF_TAG_MAX + 16], shown[80];
	size_t literal;

	str_copy(shown, sizeof(shown), template);
	str_clean(shown);
	if (!at || strstr(at + 1, TAG_WORD))
		return err_set(e, ERR_INVALID, "tag \"%s\": expected {tag} exactly once", shown);
	literal = strlen(template) - strlen(TAG_WORD);
	if (literal == 0)
		return err_set(
			e, ERR_INVALID,
			"tag \"%s\": expected more than {tag}, or the source would be overwritten",
			shown);
	if (literal >= IMAGEREF_TAG_MAX)
		return err_set(e, ERR_INVALID,
			       "tag \"%s\": no room for a tag: at most %d characters in all", shown,
			       IMAGEREF_TAG_MAX);
	snprintf(sample, sizeof(sample), "%.*sx%s", (int)(at - template), template,
		 at + strlen(TAG_WORD));
	if (!imageref_tag_valid(sample))
		return err_set(e, ERR_INVALID,
			       "tag \"%s\": around {tag} expected letters, digits, _ . -, not "
			       "starting with . or -",
			       shown);
	return 0;
}

bool target_tag_matches(const char *template, const char *tag)
{
	const char *at = strstr(template, TAG_WORD);
	size_t before, after, n = strlen(tag);

	if (!at)
		return false;
	before = (size_t)(at - template);
	after = strlen(at + strlen(TAG_WORD));
	return n > before + after && memcmp(tag, template, before) == 0 &&
	       strcmp(tag + n - after, at + strlen(TAG_WORD)) == 0;
}

int target_ref(const struct target *t, const struct imageref *source, struct imageref *to,
	       struct err *e)
{
	const char *at = strstr(t->tag_template, TAG_WORD);
	char hex[DIGEST_TEXT], name[DIGEST_TEXT + 8], tag[512];
	const char *base = source->tag;
	struct imageref r = {0};
	int n;

	if (!at)
		return err_set(e, ERR_BUG, "tag template without {tag}: %s", t->tag_template);
	if (!base[0]) {
		if (!digest_is_set(&source->digest))
			return err_set(e, ERR_INVALID, "the source has neither tag nor digest");
		snprintf(name, sizeof(name), "%s-%s",
			 source->digest.alg == DIGEST_SHA512 ? "sha512" : "sha256",
			 digest_hex(&source->digest, hex));
		base = name;
	}
	n = snprintf(tag, sizeof(tag), "%.*s%s%s", (int)(at - t->tag_template), t->tag_template,
		     base, at + strlen(TAG_WORD));
	if (n > IMAGEREF_TAG_MAX)
		return err_set(
			e, ERR_INVALID,
			"the target's tag would have %d characters, at most %d are allowed: %.160s",
			n, IMAGEREF_TAG_MAX, tag);
	if (strcmp(tag, source->tag) == 0)
		return err_set(e, ERR_INVALID, "the target's tag %s is the source's own", tag);
	strcpy(r.host, source->host);
	strcpy(r.repository, source->repository);
	strcpy(r.tag, tag);
	*to = r;
	return 0;
}

/* ---- JSON */

struct json *target_to_json(const struct target *t)
{
	struct json *j = json_new_object(), *options = json_new_object();
	struct target fresh;
	char small[32];

	json_set_str(j, "driver", driver_name(t->driver));
	json_set_str(j, "tag", t->tag_template);
	target_init(&fresh, t->driver);
	for (const struct option *o = driver_rows[t->driver].options; o->key; o++)
		if (!is_default(t, &fresh, o))
			json_set_str(options, o->key, option_text(t, o, small));
	target_fini(&fresh);
	json_set(j, "options", options);
	if (t->overwrite)
		json_set_bool(j, "overwrite", true);
	if (t->upstream_form)
		json_set_bool(j, "upstream", true);
	if (t->cache_tag)
		json_set_str(j, "cache_tag", t->cache_tag);
	return j;
}

int target_write(const struct target *t, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = NULL;

	if (t->sealed_json)
		return buf_add_str(to, t->sealed_json, e);
	j = target_to_json(t);
	return json_write(j, JSON_SORTED, to, e);
}

void target_seal(struct target *t)
{
	scoped(buf_fini) struct buf b = BUF_INIT(TEXT_MAX);

	break_seal(t);
	t->sealed_options = target_options_text(t);
	if (target_write(t, &b, NULL) == 0) /* else it is too long for any request, too */
		t->sealed_json = mem_strdup(b.data);
}

static int options_from_json(struct target *t, const struct json *options, struct err *e)
{
	const char *value;

	for (struct json_iter i = json_first(options); i.key; json_next(&i)) {
		if (json_kind(i.value) != JSON_STRING)
			return err_set(e, ERR_INVALID, "options.%.80s: expected a string", i.key);
		value = json_value_str(i.value);
		if (strlen(value) != json_value_len(i.value))
			return err_set(e, ERR_INVALID, "options.%.80s: holds a NUL", i.key);
		if (target_option(t, i.key, value, NULL, e) < 0)
			return -1;
	}
	return 0;
}

static int fill_from_json(struct target *t, const struct json *j, struct err *e)
{
	struct json *options = NULL;
	const char *tag, *cache_tag = NULL;

	if (json_str(j, "tag", "", &tag, e) < 0 ||
	    json_opt_str(j, "cache_tag", "", &cache_tag, e) < 0 ||
	    json_opt_bool(j, "overwrite", "", &t->overwrite, e) < 0 ||
	    json_opt_bool(j, "upstream", "", &t->upstream_form, e) < 0 ||
	    json_opt_object(j, "options", "", &options, e) < 0)
		return -1;
	if (target_template_check(tag, e) < 0)
		return -1;
	if (cache_tag && !imageref_tag_valid(cache_tag))
		return err_set(e, ERR_INVALID, "cache_tag: not a tag");
	t->tag_template = mem_strdup(tag);
	t->cache_tag = mem_strdup(cache_tag);
	if (options && options_from_json(t, options, e) < 0)
		return -1;
	return target_check(t, e);
}

int target_from_json(struct target *to, const struct json *j, const char *at, struct err *e)
{
	struct target t;
	enum driver_id d;
	const char *name;

	if (json_want(j, JSON_OBJECT, at, e) < 0)
		return -1;
	if (json_str(j, "driver", at, &name, e) < 0)
		return -1;
	if (target_driver_parse(&d, name, e) < 0)
		return err_wrap(e, "%s", at);
	target_init(&t, d);
	if (fill_from_json(&t, j, e) < 0) {
		target_fini(&t);
		return err_wrap(e, "%s", at);
	}
	*to = t;
	return 0;
}

/* ---- hashes */

static void add_line(struct buf *b, const char *line)
{
	buf_add_str(b, line, NULL);
	buf_add_char(b, '\n', NULL);
}

static void add_target(struct buf *b, const struct target *t, const char *tag,
		       const char *platforms)
{
	scoped_free char *options = target_options_text(t);
	char version[16];

	add_line(b, driver_name(t->driver));
	add_line(b, tag);
	buf_add_str(b, options, NULL); /* whole lines already */
	snprintf(version, sizeof(version), "%u", target_format_version(t->driver));
	add_line(b, version);
	add_line(b, platforms);
}

struct tagged {
	struct imageref ref;
	const struct target *target;
};

static int tagged_cmp(const void *a, const void *b)
{
	return strcmp(((const struct tagged *)a)->ref.tag, ((const struct tagged *)b)->ref.tag);
}

int target_dedup_key(const struct imageref *source, const struct target *targets, size_t n,
		     const char *platforms, char hex[65], struct err *e)
{
	scoped_free struct tagged *order = mem_array(n ? n : 1, sizeof(*order));
	scoped(buf_fini) struct buf b = BUF_INIT((n + 1) * 2 * TEXT_MAX); /* never reached */
	char text[IMAGEREF_TEXT], digest[DIGEST_TEXT] = "";
	struct digest sum;

	for (size_t i = 0; i < n; i++) {
		order[i].target = &targets[i];
		if (target_ref(&targets[i], source, &order[i].ref, e) < 0)
			return -1;
	}
	qsort(order, n, sizeof(*order), tagged_cmp);
	if (digest_is_set(&source->digest))
		digest_text(&source->digest, digest);
	buf_reserve(&b, 1000, NULL);
	add_line(&b, "acc-dedup-1");
	add_line(&b, imageref_name(source, text));
	add_line(&b, source->tag);
	add_line(&b, digest);
	for (size_t i = 0; i < n; i++)
		add_target(&b, order[i].target, order[i].ref.tag, platforms);
	digest_of(&sum, DIGEST_SHA256, b.data, b.len);
	str_hex(hex, sum.bytes, 32);
	return 0;
}

void target_options_hash(const struct target *t, const char *platforms, char hex[17])
{
	scoped_free char *options = target_options_text(t);
	scoped(buf_fini) struct buf b = BUF_INIT(2 * TEXT_MAX);
	struct digest sum;
	char format[32];

	buf_add_str(&b, options, NULL);
	add_line(&b, target_format(t, format));
	add_line(&b, platforms);
	digest_of(&sum, DIGEST_SHA256, b.data, b.len);
	str_hex(hex, sum.bytes, 8);
}
