/* common/http_message.h - what is asked over HTTP, of whom, and what was answered. */
#ifndef COMMON_HTTP_MESSAGE_H
#define COMMON_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct http_peer { /* how one host is reached; borrowed for the call */
	/* ca_file: trusted for this host instead of the system's; on a foreign redirect beside
	 * them. The client certificate is never shown to a foreign host. */
	const char *ca_file, *cert_file, *key_file;
	bool insecure;	    /* no certificate check */
	bool plain_http;    /* http:// is allowed */
	bool allow_private; /* this host may be at a loopback or private address; foreign redirects
			       may be only if it is.  Link-local addresses never. */
};

struct http_request {
	const char *method;
	const char *url;	    /* absolute */
	const char *const *headers; /* "Name: value", NULL-terminated; or NULL */
	const char
		*authorization; /* value of Authorization, or NULL; dropped on a foreign redirect */
	const struct http_peer *peer;
	const void *body; /* for http_do */
	size_t body_n;
	uint64_t timeout_ms;   /* whole exchange; 0: only the idle limits */
	uint64_t max_response; /* bytes of body kept by http_do; more is ERR_LIMIT; 0: 64 KiB */
	uint64_t idle_ms;      /* no byte for that long is an error; 0: 60 s */
	bool no_redirect;
	bool expect_continue;
	/* Of a streamed body: ending it early does no harm, and the answer is worth having.  When
	 * all is cancelled it is ended so, and the answer may come for 2 s. */
	bool may_end_early;
	bool fresh_connection; /* after a broken one */
	bool foreign; /* the URL leads to a host that is not the peer: no Authorization, no client
			 certificate */
};

struct http_field {
	char *name, *value;
};

struct http_response { /* read it by the functions below */
	int status;
	struct http_field *header;
	size_t n, cap, header_bytes;
	char *url;
	bool away, private_address;
	struct buf body;
};

int http_status(const struct http_response *r);
/* First header of that name (case-insensitive), control bytes removed; NULL if absent. */
const char *http_header(const struct http_response *r, const char *name);
/* Walks all values of one name: *i starts at 0. */
const char *http_header_next(const struct http_response *r, const char *name, size_t *i);
/* The address that answered is a loopback or private one. */
bool http_from_private(const struct http_response *r);
const char *http_final_url(const struct http_response *r); /* after redirects */
bool http_redirected_away(
	const struct http_response *r); /* to another host: never quote its body */
const char *http_body(const struct http_response *r, size_t *n); /* of http_do */
void http_response_freep(struct http_response **r);

/* ---- for the transfer that the answer comes to */
/* One line of a head, without its end; what is no header is left out. */
void http_response_add(struct http_response *r, const char *p, size_t n);
void http_response_clear(struct http_response *r); /* no headers again: another head begins */

#endif
