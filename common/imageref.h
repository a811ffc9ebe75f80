/* common/imageref.h - registry/repository:tag@digest.
 *
 * The grammar is distribution's reference.go (distribution/reference v0.6) with Docker's
 * normalisation: "nginx" is docker.io/library/nginx, a first component with a dot, a colon, or
 * "localhost" is a host; [IPv6]:port works.  The host is lower-cased. */
#ifndef COMMON_IMAGEREF_H
#define COMMON_IMAGEREF_H

#include <stdbool.h>
#include <stddef.h>

#include "common/digest.h"

struct err;

#define IMAGEREF_TAG_MAX 128
#define IMAGEREF_TEXT 1024 /* any reference we make, with its NUL */

struct imageref {
	char host[256];			/* "docker.io", "harbor.example.com:8443", "[::1]:5000" */
	char repository[256];		/* "library/nginx" */
	char tag[IMAGEREF_TAG_MAX + 1]; /* "" when none */
	struct digest digest;		/* alg DIGEST_NONE when none */
};

/* ERR_INVALID says what is wrong with which part.  No default tag is added. */
int imageref_parse(struct imageref *r, const char *text, struct err *e);
/* "host/repo:tag@digest", each of the last two if set.  Returns to. */
const char *imageref_text(const struct imageref *r, char to[IMAGEREF_TEXT]);
/* host/repository alone. */
const char *imageref_name(const struct imageref *r, char to[IMAGEREF_TEXT]);
bool imageref_tag_valid(const char *tag);
bool imageref_repository_valid(const char *repository);
bool imageref_eq(const struct imageref *a, const struct imageref *b);
/* The host is an address of this machine: localhost, *.localhost, 127.0.0.0/8, [::1]. */
bool imageref_host_is_loopback(const char *host);
/* "harbor.example.com:8443" -> the first component of the repository. */
void imageref_tenant(const struct imageref *r, char to[256]);

#endif
