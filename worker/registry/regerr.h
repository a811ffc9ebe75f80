/* worker/registry/regerr.h - a registry's answer -> struct err.
 *
 * reference/registries.md §3 as a table: the status decides, then the error code, then (Harbor's
 * 412 and 403 only) fixed words of the message.  §4: what is read of a body, and what never gets
 * into a text. */
#ifndef WORKER_REGISTRY_REGERR_H
#define WORKER_REGISTRY_REGERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct http_response;

enum regerr_what {
	ASK_MANIFEST_GET = 1,
	ASK_MANIFEST_PUT = 2,
	ASK_BLOB_GET = 4,
	ASK_UPLOAD = 8, /* POST, PATCH, PUT of a blob */
	ASK_TOKEN = 16,
	ASK_OTHER = 32,
};

struct regerr_ask { /* what was asked, for the text; strings may be NULL */
	enum regerr_what what;
	const char *host; /* of the registry, or of its token service */
	const char *method;
	const char *path;	/* without query */
	const char *ref;	/* host/repo:tag or host/repo@digest */
	const char *repository; /* without host */
	const char *tag;
	const char *digest; /* of the blob */
	const char *user;   /* NULL: anonymous */
	bool push;
	uint64_t bytes; /* of the body that was sent */
};

/* An answer reduced to what decides. */
struct regerr_answer {
	int status;
	const char *content_type, *retry_after, *request_id; /* or NULL */
	const char *body;
	size_t n;
	bool away; /* another host answered: its body is never quoted */
};

/* Always -1. */
int regerr_set(const struct regerr_ask *a, const struct regerr_answer *r, struct err *e);
int regerr_response(const struct regerr_ask *a, const struct http_response *r, struct err *e);
/* The error code ("MANIFEST_UNKNOWN") and message of a body, cleaned; "" where there is none. */
void regerr_read(const char *body, size_t n, char code[64], char message[201]);
/* A 200 that is a web page: a proxy or a login page is in the way. */
bool regerr_is_page(const char *content_type, const char *body, size_t n);
int regerr_page(const char *host, const char *instead_of, struct err *e);
/* Seconds or an HTTP date, bounded to 1 s .. 1 h; 0 when it is absent or bad. */
uint64_t regerr_retry_after_ms(const char *value);

#endif
