/* api-server/webhook.h - Harbor's two payloads (its default format, and CloudEvents 1.0 in
 * structured mode), and what upstream's accelctl sends, into plain structs; nothing else.
 *
 * A body with `occur_at`, and every CloudEvent, is an event; the rest are requests by people
 * (design "HTTP contract").  The body is checked as a whole before anything of it is used. */
#ifndef API_SERVER_WEBHOOK_H
#define API_SERVER_WEBHOOK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/imageref.h"

struct err;

enum { WEBHOOK_ITEMS = 256 }; /* resources of one body */

struct webhook_item {
	char *given;	     /* resource_url, as received */
	char *digest;	     /* of the event, or NULL */
	struct imageref ref; /* after webhook_references */
};

struct webhook {
	char *type; /* "PUSH_ARTIFACT", "harbor.artifact.deleted", ...; "" when there is none */
	bool push;  /* type says that something was pushed */
	bool event;
	char *request_id; /* CloudEvents' requestid, or NULL */
	struct webhook_item *item;
	size_t n;
};

/* Anything but a push has no items.  ERR_INVALID names the field. */
int webhook_parse(struct webhook *w, const char *content_type, const char *body, size_t n,
		  struct err *e);
/* Parses each resource_url; a reference without tag and digest gets the tag latest, as Docker's do.
 * ERR_INVALID: *bad is the index of the one that is none. */
int webhook_references(struct webhook *w, size_t *bad, struct err *e);
void webhook_fini(struct webhook *w);

#endif
