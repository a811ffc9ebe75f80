/* common/imageref.c - the grammar of distribution/reference v0.6, read from left to right:
 *
 *   reference  [host "/"] path [":" tag] ["@" digest]
 *   host       (name *("." name) | "[" IPv6 "]") [":" port]
 *   path       component *("/" component); a component is lower-case letters and digits, joined by
 *              one of "." "_" "__" or any number of "-"
 *   tag        [A-Za-z0-9_] then up to 127 of [A-Za-z0-9_.-]
 *
 * What comes before the first slash is a host only if it could not be a path component: it has a
 * dot or a colon, an upper-case letter, or is "localhost".  All else belongs to docker.io. */
#include "common/imageref.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/str.h"

#define HUB "docker.io"
#define HUB_OLD "index.docker.io"
#define PATH_MAX_CHARS 255 /* distribution/reference: RepositoryNameTotalLengthMax */

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* One path component of n bytes. */
static bool component_valid(const char *p, size_t n)
{
	size_t i = 0;

	for (;;) {
		size_t start = i;

		while (i < n && is_lower_alnum(p[i]))
			i++;
		if (i == start)
			return false; /* a separator leads, trails, or is doubled */
		if (i == n)
			return true;
		if (p[i] == '-') {
			while (i < n && p[i] == '-')
				i++;
		} else if (p[i] == '_') {
			i += i + 1 < n && p[i + 1] == '_' ? 2 : 1;
		} else if (p[i] == '.') {
			i++;
		} else {
			return false;
		}
	}
}

bool imageref_repository_valid(const char *repository)
{
	const char *p = repository;

	if (strlen(p) > PATH_MAX_CHARS)
		return false;
	for (;;) {
		size_t n = strcspn(p, "/");

		if (!component_valid(p, n))
			return false;
		if (!p[n])
			return true;
		p += n + 1;
	}
}

bool imageref_tag_valid(const char *tag)
{
	size_t n = strlen(tag);

	if (n == 0 || n > IMAGEREF_TAG_MAX || tag[0] == '.' || tag[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(tag[i]) && !strchr("_.-", tag[i]))
			return false;
	return true;
}

/* Names between dots: letters, digits and hyphens, no hyphen at either end. */
static bool domain_valid(const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t end = i;

		while (end < n && (is_alnum(p[end]) || p[end] == '-'))
			end++;
		if (end == i || p[i] == '-' || p[end - 1] == '-')
			return false;
		if (end == n)
			return true;
		if (p[end] != '.')
			return false;
		i = end + 1;
	}
	return false; /* empty, or a dot at the end */
}

static bool port_valid(const char *p, size_t n)
{
	unsigned port = 0;

	if (n == 0 || n > 5)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		port = port * 10 + (unsigned)(p[i] - '0');
	}
	return port >= 1 && port <= 65535;
}

static bool host_valid(const char *p, size_t n)
{
	size_t name = 0;

	if (n > 0 && p[0] == '[') {
		const char *end = memchr(p, ']', n);

		if (!end || end == p + 1)
			return false;
		for (const char *c = p + 1; c < end; c++)
			if (!is_hex(*c) && *c != ':')
				return false;
		name = (size_t)(end - p) + 1;
	} else {
		while (name < n && p[name] != ':')
			name++;
		if (!domain_valid(p, name))
			return false;
	}
	if (name == n)
		return true;
	return p[name] == ':' && port_valid(p + name + 1, n - name - 1);
}

/* What was wrong, quoted so that it can be shown: bounded, and without control characters. */
static int refuse(struct err *e, const char *what, const char *p, size_t n)
{
	char shown[160];

	snprintf(shown, sizeof(shown), "%.*s", (int)(n < 150 ? n : 150), p);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "image reference: %s: \"%s\"", what, shown);
}

static bool is_host(const char *p, size_t n)
{
	if (n == strlen("localhost") && memcmp(p, "localhost", n) == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (p[i] == '.' || p[i] == ':' || (p[i] >= 'A' && p[i] <= 'Z'))
			return true;
	return false;
}

static void lower_copy(char *to, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] - 'A' + 'a') : p[i];
	to[n] = 0;
}

/* Sets host; *rest is where the path begins. */
static int parse_host(struct imageref *r, const char *text, size_t n, size_t *rest, struct err *e)
{
	const char *slash = memchr(text, '/', n);
	size_t first = slash ? (size_t)(slash - text) : n;

	*rest = 0;
	strcpy(r->host, HUB);
	if (!slash || !is_host(text, first))
		return 0;
	if (first >= sizeof(r->host) || !host_valid(text, first))
		return refuse(e, "the host is not NAME[:PORT], ADDRESS[:PORT] or [IPv6][:PORT]",
			      text, first);
	lower_copy(r->host, text, first);
	if (!is_host(r->host, first)) /* written back it would be read as docker.io/NAME */
		return refuse(e, "a host in upper case needs a dot or a port", text, first);
	if (strcmp(r->host, HUB_OLD) == 0)
		strcpy(r->host, HUB);
	*rest = first + 1;
	return 0;
}

static int parse_repository(struct imageref *r, const char *p, size_t n, struct err *e)
{
	/* "nginx" on Docker Hub is library/nginx. */
	const char *prefix = strcmp(r->host, HUB) == 0 && !memchr(p, '/', n) ? "library/" : "";
	size_t before = strlen(prefix);

	if (n == 0)
		return err_set(e, ERR_INVALID, "image reference: no repository");
	if (before + n > PATH_MAX_CHARS)
		return err_set(e, ERR_INVALID,
			       "image reference: the repository has %zu characters, at most %d are "
			       "allowed",
			       before + n, PATH_MAX_CHARS);
	memcpy(r->repository, prefix, before);
	memcpy(r->repository + before, p, n);
	r->repository[before + n] = 0;
	if (imageref_repository_valid(r->repository))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			return refuse(e, "the repository must be lower case", p, n);
	return refuse(
		e, "the repository is not made of lower-case letters, digits and single separators",
		p, n);
}

static int parse_tag(struct imageref *r, const char *p, size_t n, struct err *e)
{
	if (n > IMAGEREF_TAG_MAX)
		return err_set(
			e, ERR_INVALID,
			"image reference: the tag has %zu characters, at most %d are allowed", n,
			IMAGEREF_TAG_MAX);
	memcpy(r->tag, p, n);
	r->tag[n] = 0;
	if (strlen(r->tag) != n || !imageref_tag_valid(r->tag))
		return refuse(e, "the tag is not [A-Za-z0-9_] followed by [A-Za-z0-9_.-]", p, n);
	return 0;
}

static bool is_bare_id(const char *p, size_t n)
{
	if (n != 64)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_hex(p[i]) || (p[i] >= 'A' && p[i] <= 'F'))
			return false;
	return true;
}

int imageref_parse(struct imageref *to, const char *text, struct err *e)
{
	struct imageref r = {0};
	size_t n = strlen(text), rest = 0;
	const char *at, *colon = NULL;

	if (n == 0)
		return err_set(e, ERR_INVALID, "image reference: empty");
	if (n >= IMAGEREF_TEXT)
		return err_set(e, ERR_INVALID,
			       "image reference: %zu characters, at most %d are allowed", n,
			       IMAGEREF_TEXT - 1);
	if (is_bare_id(text, n))
		return refuse(e, "64 hexadecimal digits are an image id, not a name", text, n);
	at = memchr(text, '@', n);
	if (at) {
		if (digest_parse(&r.digest, at + 1, e) < 0)
			return err_wrap(e, "image reference");
		n = (size_t)(at - text);
	}
	if (parse_host(&r, text, n, &rest, e) < 0)
		return -1;
	text += rest;
	n -= rest;
	colon = memchr(text, ':', n);
	if (colon) {
		if (parse_tag(&r, colon + 1, n - (size_t)(colon - text) - 1, e) < 0)
			return -1;
		n = (size_t)(colon - text);
	}
	if (parse_repository(&r, text, n, e) < 0)
		return -1;
	*to = r;
	return 0;
}

const char *imageref_name(const struct imageref *r, char to[IMAGEREF_TEXT])
{
	snprintf(to, IMAGEREF_TEXT, "%s/%s", r->host, r->repository);
	return to;
}

const char *imageref_text(const struct imageref *r, char to[IMAGEREF_TEXT])
{
	char digest[DIGEST_TEXT] = "";
	bool pinned = digest_is_set(&r->digest);

	if (pinned)
		digest_text(&r->digest, digest);
	snprintf(to, IMAGEREF_TEXT, "%s/%s%s%s%s%s", r->host, r->repository, r->tag[0] ? ":" : "",
		 r->tag, pinned ? "@" : "", digest);
	return to;
}

bool imageref_eq(const struct imageref *a, const struct imageref *b)
{
	return strcmp(a->host, b->host) == 0 && strcmp(a->repository, b->repository) == 0 &&
	       strcmp(a->tag, b->tag) == 0 && digest_eq(&a->digest, &b->digest);
}

bool imageref_host_is_loopback(const char *host)
{
	char name[256];
	const char *end;
	struct in_addr v4;
	struct in6_addr v6;
	size_t n;

	if (host[0] == '[') {
		end = strchr(host, ']');
		host++;
	} else {
		end = strchr(host, ':');
	}
	n = end ? (size_t)(end - host) : strlen(host);
	if (n == 0 || n >= sizeof(name))
		return false;
	lower_copy(name, host, n);
	if (strcmp(name, "localhost") == 0 || str_ends(name, ".localhost"))
		return true;
	if (inet_pton(AF_INET, name, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

void imageref_tenant(const struct imageref *r, char to[256])
{
	size_t n = strcspn(r->repository, "/");

	memcpy(to, r->repository, n);
	to[n] = 0;
}
