/* worker/publish.h - the tag moves last, once, and never backwards.
 *
 * Two conversions for one target must not overtake each other: take a ticket, then look at the
 * source tag, then ask with that ticket; who is granted has until `until_boot_ms` (CLOCK_BOOTTIME)
 * to PUT.  In a task process the answers come from the queue through the supervisor; accelctl alone
 * always grants. */
#ifndef WORKER_PUBLISH_H
#define WORKER_PUBLISH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/imageref.h"

struct err;
struct registry;

enum permission {
	PERMIT_GRANTED,
	PERMIT_SUPERSEDED, /* a later ticket was granted: it saw a later source tag */
	PERMIT_BUSY,	   /* another task holds the target's lock: ask again shortly */
	PERMIT_WAIT,	   /* after an outage of the queue: the task comes back later */
	PERMIT_CANCELLED,
	PERMIT_LOST,	 /* the lease is not ours any more */
	PERMIT_CONFLICT, /* another source reference owns this target */
};
struct grant {
	enum permission permission;
	uint64_t until_boot_ms;
	bool takeover; /* the last holder did not release: read the target after the PUT, and 60 s
			  later */
	char other[IMAGEREF_TEXT]; /* CONFLICT: the other source */
};
struct publish_ops { /* each may block; -1: no answer (class says what then) */
	int (*ticket)(void *arg, const struct imageref *target, uint64_t *ticket, struct err *e);
	/* digests: all manifests about to be pushed, so that their events are known as echoes. */
	int (*ask)(void *arg, const struct imageref *target, uint64_t ticket,
		   const struct digest *digests, size_t n, struct grant *g, struct err *e);
	int (*release)(void *arg, const struct imageref *target, struct err *e);
	/* The source tag names another digest now: enqueue that before this task ends. */
	int (*moved)(void *arg, const struct digest *now, struct err *e);
	void *arg;
};
extern const struct publish_ops publish_always;

struct publish_manifest { /* pushed by digest, children first; borrowed */
	const char *media_type;
	const char *data;
	size_t n;
	struct digest digest;
};
struct publish {
	struct registry *registry;
	const struct publish_ops *ops;
	const struct imageref *source; /* as asked; its tag is read again when it has one */
	const struct digest *source_digest;
	const struct imageref *target;
	const struct publish_manifest *children;
	size_t n_children;
	const struct publish_manifest *top;
	bool pinned;	   /* a person's tag@digest: superseded enqueues nothing */
	bool must_publish; /* publish although the source tag moved */
	const atomic_int *stop;
};
enum published_as { AS_PUBLISHED, AS_SUPERSEDED, AS_SOURCE_GONE };
struct publish_answer {
	enum published_as as;
	struct digest now; /* what the source tag names, when that is another digest */
	char reason[256];  /* not AS_PUBLISHED */
};
int publish_target(const struct publish *p, struct publish_answer *a, struct err *e);

/* What the source tag names now: 1 the same, 0 another (*now), -1; a tag that is gone is 0 with
 * *now unset. */
int publish_source_unchanged(struct registry *r, const struct imageref *source,
			     const struct digest *digest, struct digest *now, struct err *e);

#endif
