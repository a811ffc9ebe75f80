/* accelctl/api_client.h - calls of the API server: one connection each, blocking, over TCP, a unix
 * socket or TLS.  Errors read as upstream's client words them. */
#ifndef ACCELCTL_API_CLIENT_H
#define ACCELCTL_API_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct json;
struct secret;

struct api_client {
	char *addr;		      /* "host:port", "http(s)://...", "unix:///path" */
	bool guessed;		      /* nobody named it: the local socket, or localhost:2077 */
	struct secret *authorization; /* value of the header, or NULL */
	uint64_t timeout_ms;	      /* the whole call; 0: one minute */
};

struct api_reply {
	int status;
	char *body;
	size_t n;
	char *location, *task_id; /* headers, or NULL */
};

/* addr NULL: $ACCEL_ADDR, then our own local socket if someone listens there, then localhost:2077.
 * The header comes from $ACCEL_AUTH_HEADER_FILE, $ACCEL_TOKEN_FILE or $ACCEL_TOKEN. */
int api_client_init(struct api_client *c, const char *addr, struct err *e);
void api_client_fini(struct api_client *c);
/* 0 whatever the status; ERR_NET when there is no answer.  body NULL: none. */
int api_call(const struct api_client *c, const char *method, const char *target, const char *body,
	     struct api_reply *r, struct err *e);
void api_reply_fini(struct api_reply *r);
/* -1 with what the server says when the status is an error; upstream's client takes only 400 to 500
 * for one, so `strict` is for our own calls. */
int api_check(const struct api_reply *r, bool strict, struct err *e);

#endif
