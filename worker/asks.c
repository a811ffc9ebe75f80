/* worker/asks.c - see asks.h. */
#include "worker/asks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target_tag.h"
#include "worker/packet.h"
#include "worker/slots.h"

#define PAUSE_MAX_MS 3600000
#define MAX_DIGESTS 1100
#define CACHE_ENTRY_BYTES (32u << 10)

/* One question under way.  It outlives its slot, so it keeps the id and not the pointer. */
struct question {
	const struct asks *asks;
	char id[TASK_ID];
	int64_t n;
	uint64_t sent_boot_ms;
	char target[IMAGEREF_TEXT];
};

static struct question *question(const struct asks *a, const struct slot *s, int64_t n)
{
	struct question *q = mem_zalloc(sizeof(*q));

	q->asks = a;
	q->n = n;
	q->sent_boot_ms = clock_boot_ms();
	str_copy(q->id, sizeof(q->id), s->id);
	return q;
}

/* Sends the reply (taken) if its task still runs, and ends the question. */
static void answer(struct question *q, struct json *reply)
{
	struct slot *s = q->asks->find(q->asks->arg, q->id);
	struct err e;

	json_set_str(reply, "t", "reply");
	json_set_int(reply, "n", q->n);
	if (s && slot_send(s, reply, &e) < 0)
		log_warning("a task process does not take its answer", F_STR("task", q->id),
			    F_ERR(&e), NULL);
	json_freep(&reply);
	free(q);
}

static void answer_error(struct question *q, const struct err *e)
{
	struct json *reply = json_new_object(), *x = json_new_object();

	json_set_str(x, "code", err_slug(e->code));
	json_set_str(x, "class", err_class_name(e->class));
	json_set_str(x, "text", e->text);
	json_set(reply, "error", x);
	answer(q, reply);
}

/* ---- which targets are this task's */

/* The referrers fallback tag of with_referrer: sha256-<64 hex> in the source's repository (OCI
 * distribution-spec v1.1, "Referrers Tag Schema"). */
static bool fallback_tag(const struct task_request *r, const struct imageref *t)
{
	uint8_t hash[32];
	bool wanted = false;

	for (size_t i = 0; i < r->n_targets; i++)
		wanted |= r->targets[i].driver == DRIVER_NYDUS && r->targets[i].nydus.with_referrer;
	return wanted && str_starts(t->tag, "sha256-") &&
	       str_unhex(hash, sizeof(hash), t->tag + 7) == 0;
}

static bool target_of(const struct task_request *r, const struct imageref *t)
{
	struct imageref made;

	if (strcmp(t->host, r->source.host) != 0 ||
	    strcmp(t->repository, r->source.repository) != 0 || digest_is_set(&t->digest))
		return false;
	for (size_t i = 0; i < r->n_targets; i++) {
		if (target_ref(&r->targets[i], &r->source, &made, NULL) == 0 &&
		    strcmp(made.tag, t->tag) == 0)
			return true;
		if (r->targets[i].cache_tag && strcmp(r->targets[i].cache_tag, t->tag) == 0)
			return true;
	}
	return fallback_tag(r, t);
}

static int read_target(const struct slot *s, const struct json *packet, char text[IMAGEREF_TEXT],
		       struct err *e)
{
	struct imageref t;
	const char *given;

	if (json_str(packet, "target", "ask", &given, e) < 0 || imageref_parse(&t, given, e) < 0)
		return -1;
	if (!target_of(&s->request, &t))
		return err_class(e, ERR_DENIED, CLASS_FINAL, "%.200s is no target of this task",
				 given);
	imageref_text(&t, text);
	return 0;
}

/* ---- publishing */

static void on_ticket(uint64_t ticket, const struct err *e, void *arg)
{
	struct question *q = arg;
	struct json *reply;

	if (e) {
		answer_error(q, e);
		return;
	}
	reply = json_new_object();
	json_set_int(reply, "ticket", (int64_t)ticket);
	answer(q, reply);
}

static void on_published(const struct published *p, const struct err *e, void *arg)
{
	static const char *const words[] = {
		[PUBLISH_GRANTED] = "granted",	   [PUBLISH_SUPERSEDED] = "superseded",
		[PUBLISH_BUSY] = "busy",	   [PUBLISH_WAIT] = "wait",
		[PUBLISH_CANCELLED] = "cancelled", [PUBLISH_LOST] = "lost",
		[PUBLISH_CONFLICT] = "conflict",
	};
	struct question *q = arg;
	struct json *reply;

	if (e) {
		answer_error(q, e);
		return;
	}
	reply = json_new_object();
	json_set_str(reply, "permission", words[p->outcome]);
	/* counted from when the call was sent: what the network took is lost to us, not to the
	 * fence */
	json_set_int(reply, "until_boot_ms", (int64_t)(q->sent_boot_ms + p->valid_ms));
	json_set_bool(reply, "takeover", p->takeover);
	json_set_str(reply, "other", p->other);
	answer(q, reply);
}

static int ask_publish(const struct asks *a, struct slot *s, const struct json *packet,
		       struct question *q, struct err *e)
{
	char source[IMAGEREF_TEXT];
	struct imageref from = s->request.source;
	const char **digests;
	struct json *list;
	int64_t ticket;
	size_t n;

	if (json_int(packet, "ticket", "ask", &ticket, e) < 0 ||
	    json_array(packet, "digests", "ask", &list, e) < 0)
		return -1;
	n = json_len(list);
	if (n > MAX_DIGESTS)
		return err_set(e, ERR_LIMIT, "%zu digests to publish at once", n);
	digests = mem_array(n + 1, sizeof(*digests));
	for (size_t i = 0; i < n; i++) {
		struct digest d;
		const char *text = json_value_str(json_at(list, i));

		if (!text || digest_parse(&d, text, e) < 0) {
			free(digests);
			return text ? -1 : err_set(e, ERR_INVALID, "digest %zu is no string", i);
		}
		digests[i] = text;
	}
	if (from.tag[0]) /* who owns a target is a question of references, not of what they name
			    today */
		from.digest = (struct digest){0};
	queue_publish(a->queue,
		      &(struct publish){.id = s->id,
					.nonce = s->nonce,
					.target = q->target,
					.source = imageref_text(&from, source),
					.ticket = (uint64_t)ticket,
					.digests = digests,
					.n_digests = n},
		      on_published, q);
	free(digests);
	return 0;
}

/* ---- the source tag moved */

static void on_moved(const struct enqueue_result *r, const struct err *e, void *arg)
{
	struct question *q = arg;
	struct err refused;

	if (!e && (r->outcome == ENQUEUE_FULL || r->outcome == ENQUEUE_GROUP_FULL)) {
		err_class(&refused, ERR_BUSY, CLASS_WAIT,
			  "the queue is full: the new digest waits");
		e = &refused;
	}
	if (e)
		answer_error(q, e);
	else
		answer(q, json_new_object());
}

static int ask_moved(const struct asks *a, struct slot *s, const struct json *packet,
		     struct question *q, struct err *e)
{
	struct task_request next = s->request; /* borrowed for the call, but for what is set here */
	const char *text;
	char id[TASK_ID];

	if (json_str(packet, "digest", "ask", &text, e) < 0 ||
	    digest_parse(&next.source.digest, text, e) < 0)
		return -1;
	next.trigger = TRIGGER_MOVED;
	next.pinned = false;
	next.moves = s->request.moves + 1;
	task_new_id(id);
	queue_enqueue(a->queue,
		      &(struct enqueue){.id = id,
					.request = &next,
					.band = BAND_EVENT,
					.fresh_ms = a->settings->queue.fresh_ms},
		      on_moved, q);
	return 0;
}

/* ---- the layer cache: common/queue/cache_*.lua; a key is 64 hex digits */

/* {entry, repository...} | an integer (ms until a lease is worth asking for again; 0: it is ours) |
 * nil */
static void on_cache(const struct reply *r, const struct err *e, void *arg)
{
	struct question *q = arg;
	struct json *reply, *entry = NULL, *where;

	if (e) {
		answer_error(q, e);
		return;
	}
	reply = json_new_object();
	if (r->kind == REPLY_INT)
		json_set_int(reply, "retry_ms", r->integer);
	if (r->kind == REPLY_ARRAY && r->n > 0 && r->element[0]->kind == REPLY_STR &&
	    json_parse(&entry, r->element[0]->str, r->element[0]->n,
		       &(struct json_limits){.bytes = CACHE_ENTRY_BYTES}, NULL) == 0 &&
	    entry) {
		where = json_new_array();
		for (size_t i = 1; i < r->n; i++)
			if (r->element[i]->kind == REPLY_STR &&
			    imageref_repository_valid(r->element[i]->str))
				json_append(where, json_new_str(r->element[i]->str));
		json_set(entry, "repositories", where);
		json_set(reply, "entry", entry);
	}
	answer(q, reply);
}

/* ARGV: key, host, tenant, task, entry, stored digest, repository.  Where the blob lies is ours to
 * say: the task's own repository. */
static int ask_cache(const struct asks *a, struct slot *s, const char *what,
		     const struct json *packet, struct question *q, struct err *e)
{
	scoped(buf_fini) struct buf entry = BUF_INIT(CACHE_ENTRY_BYTES);
	const char *key, *stored = "", *argv[7];
	char tenant[256];
	uint8_t hash[32];
	size_t lens[7];
	struct digest d;

	if (json_str(packet, "key", "ask", &key, e) < 0)
		return -1;
	if (str_unhex(hash, sizeof(hash), key) < 0)
		return err_set(e, ERR_INVALID, "ask: no cache key");
	imageref_tenant(&s->request.source, tenant);
	if (strcmp(what, "cache_put") == 0) {
		struct json *x, *at = json_get(packet, "entry");

		if (json_str(json_get(at, "stored"), "digest", "entry.stored", &stored, e) < 0 ||
		    digest_parse(&d, stored, e) < 0)
			return -1;
		x = json_clone(at);
		json_del(x, "repositories");
		if (json_write(x, JSON_COMPACT, &entry, e) < 0) {
			json_freep(&x);
			return -1;
		}
		json_freep(&x);
	}
	argv[0] = key;
	argv[1] = s->request.source.host;
	argv[2] = tenant;
	argv[3] = s->id;
	argv[4] = entry.data;
	argv[5] = stored;
	argv[6] = s->request.source.repository;
	for (int i = 0; i < 7; i++)
		lens[i] = strlen(argv[i]);
	redis_script(a->redis, what, 0, 7, argv, lens, on_cache, q);
	return 0;
}

/* ---- which question */

static int take(const struct asks *a, struct slot *s, const struct json *packet, struct question *q,
		struct err *e)
{
	static const char *const cache[] = {"cache_get", "cache_put", "cache_forget", "cache_lease",
					    "cache_release"};
	const char *what;

	if (json_str(packet, "what", "ask", &what, e) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(cache) / sizeof(*cache); i++)
		if (strcmp(cache[i], what) == 0)
			return ask_cache(a, s, cache[i], packet, q, e);
	if (strcmp(what, "moved") == 0)
		return ask_moved(a, s, packet, q, e);
	if (strcmp(what, "ticket") != 0 && strcmp(what, "publish") != 0)
		return err_set(e, ERR_BUG, "ask: unknown '%.40s'", what);
	if (read_target(s, packet, q->target, e) < 0)
		return -1;
	if (strcmp(what, "publish") == 0)
		return ask_publish(a, s, packet, q, e);
	queue_ticket(a->queue, s->id, s->nonce, q->target, on_ticket, q);
	return 0;
}

void asks_take(const struct asks *a, struct slot *s, const struct json *packet)
{
	struct question *q;
	int64_t n = 0;
	struct err e;

	json_opt_int(packet, "n", "ask", &n, NULL);
	q = question(a, s, n);
	if (take(a, s, packet, q, &e) < 0)
		answer_error(q, &e);
}

static void on_done(const struct err *e, void *arg)
{
	if (e)
		log_debug("not told to the queue", F_ERR(e), NULL); /* a lock runs out by itself */
}

void asks_unlock(const struct asks *a, struct slot *s, const struct json *packet)
{
	char target[IMAGEREF_TEXT];

	if (read_target(s, packet, target, NULL) == 0)
		queue_unlock(a->queue, s->nonce, target, on_done, NULL);
}

void asks_pause(const struct asks *a, struct slot *s, const struct json *packet)
{
	const char *host = "";
	int64_t ms = 0;

	if (json_opt_str(packet, "host", "pause", &host, NULL) < 0 ||
	    json_opt_int(packet, "ms", "pause", &ms, NULL) < 0 ||
	    strcmp(host, s->request.source.host) != 0 || ms <= 0)
		return;
	if (ms > PAUSE_MAX_MS)
		ms = PAUSE_MAX_MS;
	log_warning("a registry wants a pause", F_STR("registry", host), F_I64("ms", ms),
		    F_STR("task", s->id), NULL);
	queue_pause_registry(a->queue, host, (uint64_t)ms, on_done, NULL);
}
