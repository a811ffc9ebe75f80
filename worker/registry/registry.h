/* worker/registry/registry.h - one registry as the source or target of images: manifests, tags,
 * blobs. OCI distribution-spec v1.1; what breaks clients and what ours does:
 * reference/registries.md.
 *
 * Every call blocks its own thread; all of them share the process's one `struct http`.  Errors are
 * classed by regerr.c.  Transient failures are tried again here where the same request may simply
 * be repeated (twice, on a new connection); what is longer is the queue's business.  Safe from
 * several threads. */
#ifndef WORKER_REGISTRY_REGISTRY_H
#define WORKER_REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/imageref.h"

struct err;
struct buf;
struct http;
struct sink;
struct source;
struct descriptor;
struct registry;
struct source_settings;

struct registry_opts {
	const char *request_id; /* X-Request-Id of manifest PUTs: "accel-<task id>"; or NULL */
	/* Tells a shared pause (429): the task process passes it on; or NULL. */
	void (*on_pause)(const char *host, uint64_t ms, void *arg);
	void *arg;
	uint32_t max_uploads; /* 0: 4 */
};

/* s: borrowed until registry_freep. */
int registry_open(struct registry **r, struct http *h, const struct source_settings *s,
		  const struct registry_opts *o, struct err *e);
void registry_freep(struct registry **r);
const char *registry_host(const struct registry *r);

struct manifest_body {
	struct digest digest; /* of the bytes, computed; equals the reference's when that has one */
	char media_type[160]; /* the body's mediaType, else Content-Type */
	char *data;
	size_t n;
};
void manifest_body_fini(struct manifest_body *m);
/* ref->digest if set, else ref->tag.  Accepts every type we know at once.  At most 4 MiB. */
int registry_get_manifest(struct registry *r, const struct imageref *ref, struct manifest_body *m,
			  struct err *e);
/* HEAD: 1 and its digest and size, 0 when 404.  A registry without Docker-Content-Digest: by GET.
 */
int registry_head_manifest(struct registry *r, const struct imageref *ref, struct digest *d,
			   uint64_t *size, char media_type[160], struct err *e);
struct put_opts {
	uint64_t timeout_ms; /* the rest of a publishing grant; 0: 60 s */
	bool *subject_taken; /* out: the answer had OCI-Subject; or NULL */
};
/* To ref->tag, or by digest when the tag is empty.  412 on an immutable tag that already holds
 * these bytes is success. */
int registry_put_manifest(struct registry *r, const struct imageref *ref, const char *media_type,
			  const void *p, size_t n, const struct put_opts *o, struct err *e);
/* The Referrers API: 1 and *index (JSON, caller frees), 0 when the registry has none (404). */
int registry_referrers(struct registry *r, const char *repository, const struct digest *subject,
		       char **index, size_t *n, struct err *e);

/* ---- blobs: worker/registry/blob.c */
int blob_exists(struct registry *r, const char *repository, const struct digest *d, uint64_t *size,
		struct err *e); /* 1, 0 */
/* Streams a blob; checks size and digest at the end (ERR_CORRUPT); resumes a broken transfer by
 * Range. */
int blob_source(struct source **s, struct registry *r, const char *repository,
		const struct descriptor *d, struct err *e);
/* [offset, offset + n) of a blob, at most 64 MiB, all or error. */
int blob_range(struct registry *r, const char *repository, const struct digest *d, uint64_t offset,
	       size_t n, void *to, struct err *e);
/* A whole small blob (config) into memory, checked. */
int blob_fetch(struct registry *r, const char *repository, const struct descriptor *d, size_t max,
	       struct buf *to, struct err *e);
/* 1: mounted (201).  0: it was not, for whatever reason; an upload that the registry opened is
 * closed. */
int blob_mount(struct registry *r, const char *repository, const char *from, const struct digest *d,
	       struct err *e);

/* ---- uploads: worker/registry/upload.c */
struct upload;
/* Nothing is sent until 2 MiB are there or upload_commit is called: small blobs take HEAD, POST,
 * PUT. */
int upload_open(struct upload **u, struct registry *r, const char *repository, struct err *e);
int upload_write(struct upload *u, const void *p, size_t n, struct err *e);
/* The PUT that makes the blob exist.  Only called when everything about it was checked. */
int upload_commit(struct upload *u, const struct digest *d, uint64_t size, struct err *e);
void upload_freep(struct upload **u); /* not committed: DELETEs what was begun */
/* A blob from memory: skipped when it is there already. */
int blob_push(struct registry *r, const char *repository, const void *p, size_t n,
	      const struct digest *d, struct err *e);

#endif
