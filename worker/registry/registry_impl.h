/* worker/registry/registry_impl.h - what registry.c, blob.c and upload.c share: the registry's
 * struct, and one request with login, renewal and repetition. */
#ifndef WORKER_REGISTRY_REGISTRY_IMPL_H
#define WORKER_REGISTRY_REGISTRY_IMPL_H

#include <pthread.h>

#include "common/http.h"
#include "worker/registry/regerr.h"
#include "worker/registry/registry.h"
#include "worker/registry/token.h"

struct registry {
	struct http *h;
	const struct source_settings *s;
	struct registry_opts o;
	char *base; /* "https://host:port" */
	struct http_peer peer;
	struct login *login;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t commits, max_commits; /* at a time; halved after a 502 */
	bool is_private;	       /* it answered from a private address */
	/* what was learnt about it: uploads */
	bool no_stream;	  /* a streamed PATCH was refused or cut */
	uint64_t piece;	  /* 0: 4 MiB */
	uint64_t idle_ms; /* 0: http.h's; shorter in tests */
};

struct ask {
	const char *method;
	const char *url;
	const char *repository;
	const char *mount_from;
	bool push;
	enum regerr_what what;
	const char *tag, *digest, *ref; /* for messages */
	const char *accept, *content_type, *range, *content_range;
	const char *request_id;
	const void *body;
	size_t body_n;
	uint64_t timeout_ms, idle_ms, max_response;
	bool fresh_login; /* before a commit */
	bool once;	  /* not to be repeated when the connection breaks */
};

/* The answer, whatever its status (but never a 401 that a renewed login could help); body as
 * http_get's, or NULL when the whole answer is wanted. */
int registry_ask(struct registry *r, const struct ask *a, struct http_response **resp,
		 struct source **body, struct err *e);
/* The same, for a body that the caller streams: *sink is open. One attempt. */
int registry_send(struct registry *r, const struct ask *a, uint64_t content_length,
		  struct sink **sink, struct err *e);
/* What a bad answer means; passes a 429 on. Always -1. */
int registry_bad(struct registry *r, const struct ask *a, const struct http_response *resp,
		 struct err *e);
/* An upload's next URL from Location (our host, another scheme or port: ours are kept). */
int registry_location(struct registry *r, const char *request_url, const struct http_response *resp,
		      char **url, struct err *e);
/* "https://host/v2/<repository>/<rest>"; the caller frees. */
char *registry_url(const struct registry *r, const char *repository, const char *rest);
bool registry_url_is_ours(const struct registry *r, const char *url);
/* blob_exists; push: with the login of an upload, so that no second token is asked for. */
int registry_blob_head(struct registry *r, const char *repository, const struct digest *d,
		       bool push, uint64_t *size, struct err *e);
/* At most max_commits at a time.  Held for the PUT alone: a thread that waits for it may hold open
 * streams. */
void registry_commit_begin(struct registry *r);
void registry_commit_end(struct registry *r);

#endif
