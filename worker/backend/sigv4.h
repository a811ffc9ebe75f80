/* worker/backend/sigv4.h - AWS signature version 4 in the Authorization header.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
#ifndef WORKER_BACKEND_SIGV4_H
#define WORKER_BACKEND_SIGV4_H

#include <stddef.h>

struct err;
struct buf;
struct secret;

#define SIGV4_DATE 17 /* "20150830T123600Z" and NUL */

struct sigv4_header {
	const char *name, *value; /* name: lower case */
};
struct sigv4 {
	const char *key_id;
	const struct secret *secret;
	const char *region, *service;
	const char *date; /* as in x-amz-date */
	const char *method;
	const char *path;  /* percent-encoded once, as in the URL */
	const char *query; /* canonical: encoded, sorted by name, "name=" without a value; or "" */
	const struct sigv4_header *header; /* what is signed, sorted by name; host among them */
	size_t n_headers;
	const char *payload; /* hex SHA-256 of the body */
};
/* The canonical request, as the specification names it. */
int sigv4_canonical(const struct sigv4 *q, struct buf *to, struct err *e);
/* The value of Authorization. */
int sigv4_authorization(const struct sigv4 *q, struct buf *to, struct err *e);
/* From wall-clock nanoseconds. */
void sigv4_date(char date[SIGV4_DATE], long long wall_ns);

#endif
