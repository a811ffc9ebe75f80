/* worker/publish.c - see publish.h. */
#include "worker/publish.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/registry/registry.h"

#define ASK_AGAIN_MS 250
#define ASK_FOR_MS 90000  /* a lock lasts 60 s; one more holder may be in between */
#define TAKEOVER_MS 60000 /* a server may apply a PUT after its client gave up */
#define ALWAYS_MS (10 * 60 * 1000)

/* ---- one-time mode: no one else */
static int always_ticket(void *arg, const struct imageref *target, uint64_t *ticket, struct err *e)
{
	*ticket = (uint64_t)clock_wall_ns() / 1000;
	return 0;
}

static int always_ask(void *arg, const struct imageref *target, uint64_t ticket,
		      const struct digest *digests, size_t n, struct grant *g, struct err *e)
{
	*g = (struct grant){.permission = PERMIT_GRANTED,
			    .until_boot_ms = clock_boot_ms() + ALWAYS_MS};
	return 0;
}

static int always_release(void *arg, const struct imageref *target, struct err *e)
{
	return 0;
}

static int always_moved(void *arg, const struct digest *now, struct err *e)
{
	return 0;
}

const struct publish_ops publish_always = {
	.ticket = always_ticket,
	.ask = always_ask,
	.release = always_release,
	.moved = always_moved,
};

/* ---- */
static int stopped(const atomic_int *stop, struct err *e)
{
	int code = stop ? atomic_load(stop) : 0;

	return code ? err_set(e, (enum err_code)code, "stopped") : 0;
}

static int pause_ms(const atomic_int *stop, uint64_t ms, struct err *e)
{
	uint64_t until = clock_mono_ms() + ms;

	while (clock_mono_ms() < until) {
		struct timespec t = {.tv_nsec = 50 * 1000 * 1000};

		if (stopped(stop, e) < 0)
			return -1;
		nanosleep(&t, NULL);
	}
	return 0;
}

int publish_source_unchanged(struct registry *r, const struct imageref *source,
			     const struct digest *digest, struct digest *now, struct err *e)
{
	struct imageref by_tag = *source;
	char media_type[160];
	uint64_t size;
	int found;

	memset(now, 0, sizeof(*now));
	if (!source->tag[0])
		return 1;
	memset(&by_tag.digest, 0, sizeof(by_tag.digest));
	found = registry_head_manifest(r, &by_tag, now, &size, media_type, e);
	if (found < 0)
		return err_wrap(e, "read the source tag again");
	if (!found)
		memset(now, 0, sizeof(*now));
	return found && digest_eq(now, digest);
}

/* The source tag names something else: 1 and *a says what it means, 0 go on. */
static int superseded(const struct publish *p, struct publish_answer *a, struct err *e)
{
	char text[DIGEST_TEXT];
	int same = publish_source_unchanged(p->registry, p->source, p->source_digest, &a->now, e);

	if (same != 0)
		return same < 0 ? -1 : 0;
	if (!digest_is_set(&a->now)) {
		a->as = AS_SOURCE_GONE;
		str_copy(a->reason, sizeof(a->reason), "source tag deleted");
		return 1;
	}
	if (p->must_publish)
		return 0;
	a->as = AS_SUPERSEDED;
	snprintf(a->reason, sizeof(a->reason), "superseded by %s", digest_text(&a->now, text));
	if (!p->pinned && p->ops->moved(p->ops->arg, &a->now, e) < 0)
		return -1; /* no other event may be coming: the task must not end before it */
	return 1;
}

static int refused(const struct publish *p, const struct grant *g, struct publish_answer *a,
		   struct err *e)
{
	char one[IMAGEREF_TEXT], two[IMAGEREF_TEXT];

	switch (g->permission) {
	case PERMIT_SUPERSEDED:
		a->as = AS_SUPERSEDED;
		str_copy(a->reason, sizeof(a->reason), "superseded by a later conversion");
		return 0;
	case PERMIT_CONFLICT:
		return err_set(e, ERR_INVALID, "%s is the target of %s already, not of %s",
			       imageref_text(p->target, one), g->other,
			       imageref_text(p->source, two));
	case PERMIT_CANCELLED:
		return err_set(e, ERR_CANCELLED, "cancelled");
	case PERMIT_LOST:
		return err_class(e, ERR_BUSY, CLASS_WAIT, "another worker has this task now");
	case PERMIT_BUSY:
		return err_class(e, ERR_BUSY, CLASS_WAIT,
				 "another task has been publishing %s for %d s",
				 imageref_text(p->target, one), ASK_FOR_MS / 1000);
	default:
		return err_class(e, ERR_BUSY, CLASS_WAIT,
				 "the queue was away; publishing waits for the others");
	}
}

/* 0 granted, 1 *a says why not, -1. */
static int ask(const struct publish *p, uint64_t ticket, struct grant *g, struct publish_answer *a,
	       struct err *e)
{
	scoped_free struct digest *digests = mem_array(p->n_children + 1, sizeof(*digests));
	uint64_t until = clock_mono_ms() + ASK_FOR_MS;

	for (size_t i = 0; i < p->n_children; i++)
		digests[i] = p->children[i].digest;
	digests[p->n_children] = p->top->digest;
	for (;;) {
		memset(g, 0, sizeof(*g));
		if (p->ops->ask(p->ops->arg, p->target, ticket, digests, p->n_children + 1, g, e) <
		    0)
			return -1;
		if (g->permission == PERMIT_GRANTED)
			return 0;
		if (g->permission != PERMIT_BUSY || clock_mono_ms() >= until)
			return refused(p, g, a, e) < 0 ? -1 : 1;
		if (pause_ms(p->stop, ASK_AGAIN_MS, e) < 0)
			return -1;
	}
}

static int put(const struct publish *p, const struct publish_manifest *m, bool by_tag,
	       uint64_t until, struct err *e)
{
	struct imageref to = *p->target;
	struct put_opts o = {0};
	uint64_t now = clock_boot_ms();

	if (now >= until)
		return err_class(e, ERR_BUSY, CLASS_RETRY, "the time to publish in was over");
	o.timeout_ms = until - now;
	to.digest = m->digest;
	if (!by_tag)
		to.tag[0] = '\0';
	return registry_put_manifest(p->registry, &to, m->media_type, m->data, m->n, &o, e);
}

/* 1 the target is what we PUT, 0 it is not, -1. */
static int stands(const struct publish *p, struct err *e)
{
	struct imageref by_tag = *p->target;
	char media_type[160];
	struct digest now;
	uint64_t size;
	int found;

	memset(&by_tag.digest, 0, sizeof(by_tag.digest));
	found = registry_head_manifest(p->registry, &by_tag, &now, &size, media_type, e);
	if (found < 0)
		return err_wrap(e, "read the target after publishing");
	return found && digest_eq(&now, &p->top->digest);
}

/* What a holder that vanished had under way may land after ours: look at once, and when its server
 * must have given up.  By then our own grant is over: the late look asks anew, and leaves the
 * target to whoever got a later one. */
static int repair(const struct publish *p, uint64_t ticket, const struct grant *g, struct err *e)
{
	struct publish_answer a = {0};
	struct grant again;
	int r = stands(p, e);

	if (r < 0 || (r == 0 && put(p, p->top, true, g->until_boot_ms, e) < 0))
		return -1;
	if (pause_ms(p->stop, FAULT_MS("publish.takeover", TAKEOVER_MS), e) < 0)
		return -1;
	r = stands(p, e);
	if (r != 0)
		return r < 0 ? -1 : 0;
	r = ask(p, ticket, &again, &a, e);
	if (r != 0)
		return r < 0 ? -1 : 0;
	return put(p, p->top, true, again.until_boot_ms, e);
}

/* *sent: the tag may move from here on. */
static int put_all(const struct publish *p, uint64_t ticket, const struct grant *g, bool *sent,
		   struct err *e)
{
	for (size_t i = 0; i < p->n_children; i++)
		if (put(p, &p->children[i], false, g->until_boot_ms, e) < 0)
			return err_wrap(e, "push manifest %zu of %zu", i + 1, p->n_children + 1);
	if (FAULT("publish.before_put", e) < 0)
		return -1;
	*sent = true;
	if (put(p, p->top, true, g->until_boot_ms, e) < 0 || FAULT("publish.after_put", e) < 0)
		return -1;
	return g->takeover ? repair(p, ticket, g, e) : 0;
}

/* Before the task ends: a push in between must not be lost. */
static int look_again(const struct publish *p, struct publish_answer *a, struct err *e)
{
	struct digest now;
	int same = publish_source_unchanged(p->registry, p->source, p->source_digest, &now, e);

	if (same < 0)
		return -1;
	if (same || !digest_is_set(&now) || p->pinned)
		return 0;
	a->now = now;
	return p->ops->moved(p->ops->arg, &now, e);
}

int publish_target(const struct publish *p, struct publish_answer *a, struct err *e)
{
	struct publish_answer got = {.as = AS_PUBLISHED};
	struct err why = {0}, quiet;
	bool sent = false;
	uint64_t ticket = 0;
	struct grant g;
	int r;

	if (p->ops->ticket(p->ops->arg, p->target, &ticket, e) < 0)
		return -1;
	r = superseded(p, &got, e);
	if (r == 0)
		r = ask(p, ticket, &g, &got, e);
	if (r < 0)
		return -1;
	if (r > 0) {
		*a = got;
		return 0;
	}
	r = put_all(p, ticket, &g, &sent, &why);
	/* Without an answer the PUT may still land: the lock then stays, and who takes it over
	 * repairs. */
	if (r == 0 || !sent || why.status)
		p->ops->release(p->ops->arg, p->target, &quiet);
	if (r < 0) {
		if (e)
			*e = why;
		return -1;
	}
	if (look_again(p, &got, e) < 0)
		return -1;
	*a = got;
	return 0;
}
