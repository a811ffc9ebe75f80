/* common/url.h - URLs taken apart and put together.  Only http and https are known. */
#ifndef COMMON_URL_H
#define COMMON_URL_H

struct err;

/* Resolves `location` against `base` (RFC 3986); ERR_INVALID for anything but http and https. */
int url_resolve(const char *base, const char *location, char **url, struct err *e);
/* Appends name=value with '?' or '&', percent-encoded. */
int url_add_query(char **url, const char *name, const char *value, struct err *e);
/* scheme, host[:port] and path of a URL, for messages and comparisons; the caller frees each (any
 * may be NULL). */
int url_split(const char *url, char **scheme, char **host_port, char **path, struct err *e);
/* Percent-encodes one query value or path segment; the caller frees. */
char *url_escape(const char *s);

#endif
