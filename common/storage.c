/* common/storage.c - see storage.h.  The keys are upstream's (nydus-snapshotter's backends), and
 * one more: access_key_secret_file, so that a configuration can be shown around. */
#include "common/storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define CONFIG_MAX (16 * 1024)
#define DIR_MAX 3800 /* a blob's name and that of its temporary file follow */
#define PREFIX_MAX 512
#define SHOWN 120

enum { FOR_LOCALFS = 1 << NYDUS_LOCALFS, FOR_S3 = 1 << NYDUS_S3, FOR_OSS = 1 << NYDUS_OSS };

enum key_use { USE_WHERE, USE_ID, USE_SECRET, USE_FILE };

static const struct key {
	const char *name;
	enum key_use use;
	int kinds, needed;
	size_t at; /* in struct storage */
	const char *def;
} keys[] = {
	{"access_key_id", USE_ID, FOR_S3 | FOR_OSS, 0, 0, NULL},
	{"access_key_secret", USE_SECRET, FOR_S3 | FOR_OSS, 0, 0, NULL},
	{"access_key_secret_file", USE_FILE, FOR_S3 | FOR_OSS, 0, 0, NULL},
	{"bucket_name", USE_WHERE, FOR_S3 | FOR_OSS, FOR_S3 | FOR_OSS,
	 offsetof(struct storage, bucket), NULL},
	{"dir", USE_WHERE, FOR_LOCALFS, FOR_LOCALFS, offsetof(struct storage, dir), NULL},
	{"endpoint", USE_WHERE, FOR_S3 | FOR_OSS, FOR_OSS, offsetof(struct storage, endpoint),
	 "s3.amazonaws.com"},
	{"object_prefix", USE_WHERE, FOR_S3 | FOR_OSS, 0, offsetof(struct storage, prefix), ""},
	{"region", USE_WHERE, FOR_S3, FOR_S3, offsetof(struct storage, region), NULL},
	{"scheme", USE_WHERE, FOR_S3 | FOR_OSS, 0, offsetof(struct storage, scheme), "https"},
};
#define KEYS (sizeof(keys) / sizeof(*keys))

const char *storage_kind_name(enum nydus_backend kind)
{
	static const char *const names[] = {"registry", "localfs", "s3", "oss"};

	return names[kind];
}

static const struct key *key_find(const char *name)
{
	for (size_t i = 0; i < KEYS; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

/* ---- taken apart */
static int unknown_key(const char *name, struct err *e)
{
	const char *names[KEYS], *near;
	char shown[80];

	for (size_t i = 0; i < KEYS; i++)
		names[i] = keys[i].name;
	near = str_nearest(name, names, KEYS);
	str_copy(shown, sizeof(shown), name);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "no backend has a key \"%s\"%s%s%s", shown,
		       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

struct parts {
	struct json *where;
	struct secret *id, *secret;
};

static void parts_fini(struct parts *p)
{
	json_freep(&p->where);
	secret_freep(&p->id);
	secret_freep(&p->secret);
}

static int take_secret(struct secret **to, const struct key *k, const char *value, struct err *e)
{
	if (*to)
		return err_set(e, ERR_INVALID,
			       "access_key_secret and access_key_secret_file: keep one");
	*to = k->use == USE_FILE ? secret_from_config(value, e) : secret_new(value, strlen(value));
	return *to ? 0 : err_wrap(e, "%s", k->name);
}

static int take_key(struct parts *p, const char *name, const struct json *j, struct err *e)
{
	const struct key *k = key_find(name);
	const char *value = json_value_str(j);

	if (!k)
		return unknown_key(name, e);
	if (!value || strlen(value) != json_value_len(j))
		return err_set(e, ERR_INVALID, "%s: expected text", name);
	if (!value[0])
		return 0; /* as if it were not there */
	if (k->use == USE_WHERE && !(k->def && strcmp(k->def, value) == 0))
		json_set_str(p->where, name, value);
	else if (k->use == USE_ID)
		p->id = secret_new(value, strlen(value));
	else if (k->use != USE_WHERE)
		return take_secret(&p->secret, k, value, e);
	return 0;
}

static int write_where(const struct json *where, char **to, struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(CONFIG_MAX * 6);

	if (json_write(where, JSON_SORTED, &b, e) < 0)
		return -1;
	*to = mem_strdup(b.data);
	return 0;
}

int storage_split(const char *json, char **where, struct secret **key_id,
		  struct secret **key_secret, struct err *e)
{
	const struct json_limits lim = {.bytes = CONFIG_MAX, .depth = 2};
	scoped(json_freep) struct json *j = NULL;
	scoped(parts_fini) struct parts p = {.where = json_new_object()};

	/* The parser's own words may quote what stands there. */
	if (json_parse(&j, json, strlen(json), &lim, NULL) < 0 || json_kind(j) != JSON_OBJECT)
		return err_set(
			e, ERR_INVALID,
			"expected a JSON object of texts, such as {\"dir\": \"/srv/blobs\"}");
	for (struct json_iter i = json_first(j); i.key; json_next(&i))
		if (take_key(&p, i.key, i.value, e) < 0)
			return -1;
	if (!p.id != !p.secret)
		return err_set(e, ERR_INVALID, "%s without %s",
			       p.id ? "access_key_id" : "access_key_secret",
			       p.id ? "access_key_secret" : "access_key_id");
	if (write_where(p.where, where, e) < 0)
		return -1;
	*key_id = take_ptr(p.id);
	*key_secret = take_ptr(p.secret);
	return 0;
}

/* ---- checked */
static int bad(struct err *e, const char *key, const char *value, const char *expected)
{
	char shown[SHOWN];

	str_copy(shown, sizeof(shown), value);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "%s: \"%s\" is not %s", key, shown, expected);
}

static bool only(const char *s, const char *also)
{
	for (; *s; s++)
		if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') &&
		    !(*s >= '0' && *s <= '9') && !strchr(also, *s))
			return false;
	return true;
}

/* No part of a path that climbs or stays: URLs and folders drop those in silence. */
static bool plain_path(const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "/");

		if ((n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		s += n + (s[n] == '/');
	}
	return true;
}

static bool printable(const char *s)
{
	scoped_free char *clean = mem_strdup(s);

	str_clean(clean);
	return strcmp(clean, s) == 0;
}

static int check_localfs(const struct storage *s, struct err *e)
{
	if (s->dir[0] != '/' || !s->dir[1] || strlen(s->dir) > DIR_MAX || !plain_path(s->dir) ||
	    !printable(s->dir))
		return bad(e, "dir", s->dir, "an absolute path of a folder");
	return 0;
}

/* OSS's own clients take the scheme in front of the endpoint. */
static int split_scheme(struct storage *s, struct err *e)
{
	static const char *const schemes[] = {"https", "http"};

	for (size_t i = 0; i < 2 && s->kind == NYDUS_OSS; i++) {
		size_t n = strlen(schemes[i]);

		if (strncmp(s->endpoint, schemes[i], n) != 0 ||
		    strncmp(s->endpoint + n, "://", 3) != 0)
			continue;
		free(s->scheme);
		s->scheme = mem_strdup(schemes[i]);
		memmove(s->endpoint, s->endpoint + n + 3, strlen(s->endpoint) - n - 2);
	}
	if (!str_eq(s->scheme, "https") && !str_eq(s->scheme, "http"))
		return bad(e, "scheme", s->scheme, "https or http");
	return 0;
}

static int check_objects(struct storage *s, struct err *e)
{
	size_t n;

	if (split_scheme(s, e) < 0)
		return -1;
	for (char *p = s->endpoint; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
	n = strlen(s->endpoint);
	if (n && s->endpoint[n - 1] == '/')
		s->endpoint[--n] = '\0';
	if (n == 0 || n > 255 || !only(s->endpoint, ".-_:[]"))
		return bad(e, "endpoint", s->endpoint, "HOST or HOST:PORT");
	if (strlen(s->bucket) > 255 || !only(s->bucket, ".-_") || s->bucket[0] == '.')
		return bad(e, "bucket_name", s->bucket, "the name of a bucket");
	if (s->region && (strlen(s->region) > 64 || !only(s->region, "-_.")))
		return bad(e, "region", s->region, "the name of a region");
	if (strlen(s->prefix) > PREFIX_MAX || s->prefix[0] == '/' || !plain_path(s->prefix) ||
	    !printable(s->prefix))
		return bad(e, "object_prefix", s->prefix,
			   "up to 512 characters such as \"nydus/\", not starting with /");
	return 0;
}

static int fill(struct storage *s, const struct json *where, struct err *e)
{
	int kind = 1 << s->kind;

	for (struct json_iter i = json_first(where); i.key; json_next(&i))
		if (!key_find(i.key) || !(key_find(i.key)->kinds & kind))
			return err_set(e, ERR_INVALID, "%s: backend_type %s has no such key", i.key,
				       storage_kind_name(s->kind));
	for (size_t i = 0; i < KEYS; i++) {
		const struct key *k = &keys[i];
		const char *value = k->def;

		if (k->use != USE_WHERE || !(k->kinds & kind))
			continue;
		if (k->needed & kind && !json_has(where, k->name))
			return err_set(e, ERR_INVALID, "%s: missing, backend_type %s needs it",
				       k->name, storage_kind_name(s->kind));
		if (json_opt_str(where, k->name, "", &value, e) < 0)
			return -1;
		*(char **)((char *)s + k->at) = mem_strdup(value);
	}
	return 0;
}

int storage_open(struct storage *s, enum nydus_backend kind, const char *where,
		 const struct secret *key_id, const struct secret *key_secret, struct err *e)
{
	const struct json_limits lim = {.bytes = CONFIG_MAX * 6, .depth = 2};
	scoped(json_freep) struct json *j = NULL;
	scoped(storage_fini) struct storage new = {.kind = kind};

	if (json_parse(&j, where, strlen(where), &lim, e) < 0 ||
	    json_want(j, JSON_OBJECT, "", e) < 0 || fill(&new, j, e) < 0)
		return -1;
	if (kind == NYDUS_LOCALFS && (key_id || key_secret))
		return err_set(e, ERR_INVALID, "backend_type localfs takes no access key");
	if ((kind == NYDUS_LOCALFS ? check_localfs(&new, e) : check_objects(&new, e)) < 0)
		return -1;
	new.key_id = secret_dup(key_id);
	new.key_secret = secret_dup(key_secret);
	*s = new;
	memset(&new, 0, sizeof(new));
	return 0;
}

void storage_fini(struct storage *s)
{
	free(s->dir);
	free(s->endpoint);
	free(s->scheme);
	free(s->bucket);
	free(s->region);
	free(s->prefix);
	secret_freep(&s->key_id);
	secret_freep(&s->key_secret);
	memset(s, 0, sizeof(*s));
}

const char *storage_name(const struct storage *s, char text[320])
{
	if (s->kind == NYDUS_LOCALFS)
		snprintf(text, 320, "directory %.300s", s->dir);
	else
		snprintf(text, 320, "%s bucket %.120s at %.160s", storage_kind_name(s->kind),
			 s->bucket, s->endpoint);
	return text;
}
