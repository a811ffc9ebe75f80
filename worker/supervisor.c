/* worker/supervisor.c - see supervisor.h; queue.md §8 is the loop that is written here.
 *
 * A claim that got no answer is sent again with the same nonce; so is a finish: both are
 * repeatable.  A lost lease means that nothing of the task counts any more: its process is stopped
 * and no outcome is reported. */
#include "worker/supervisor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/scope.h"
#include "common/startup.h"
#include "common/str.h"
#include "worker/asks.h"
#include "worker/packet.h"
#include "worker/pool.h"
#include "worker/slots.h"
#include "worker/startpacket.h"
#include "worker/workermetrics.h"

#define CANCEL_KILL_MS 10000
#define RELEASE_KILL_MS 2000
#define HINT_WAIT_MS 20000
#define AGAIN_MS 1000
#define MISSING_SOURCE_MS 60000 /* storage that is replicated lags behind its event */
#define CARD_SECONDS "30"

struct supervisor {
	struct loop *loop;
	struct settings *settings;
	struct supervisor_opts o;
	struct redis *redis, *blocking;
	struct queue *queue;
	struct metrics *metrics;
	struct asks asks;
	char name[64]; /* this worker, as leases and cards have it */
	struct slot *slots;
	uint32_t busy;

	bool ready, paused;
	char why[256];		 /* Redis is not there, because */
	char nonce[QUEUE_NONCE]; /* of the claim that has no answer yet */
	bool claiming, waiting;
	struct loop_timer *claim_again, *beat, *tick, *card, *drain_end;
	int drains;
	uint32_t threads;
};

/* What the supervisor keeps of a slot beside the process: its outcome until the queue has it. */
struct outcome_kept {
	struct supervisor *v;
	char id[TASK_ID];
	struct finish f;
	char *code, *reason, *attempt, *result;
	char *request;	    /* JSON, while credentials are looked up */
	struct json *login; /* what was found: username, password */
	struct loop_timer *again;
	uint64_t seconds_ms;
};

static void claim(void *arg);
static void send_finish(struct slot *s);

static struct outcome_kept *kept(struct slot *s)
{
	return s->owner;
}

static struct supervisor *of(struct slot *s)
{
	return kept(s)->v;
}

static struct slot *find(void *arg, const char *id)
{
	struct supervisor *v = arg;

	for (struct slot *s = v->slots; s; s = s->next)
		if (strcmp(s->id, id) == 0)
			return s;
	return NULL;
}

static void new_nonce(char nonce[QUEUE_NONCE])
{
	uint8_t b[16];

	digest_random(b, sizeof(b));
	str_hex(nonce, b, sizeof(b));
}

static uint64_t random_below(uint64_t n)
{
	uint64_t r;

	digest_random(&r, sizeof(r));
	return n ? r % n : 0;
}

/* ---- the end of a slot */

static void free_outcome(struct outcome_kept *k)
{
	loop_timer_freep(&k->again);
	free(k->code);
	free(k->reason);
	free(k->attempt);
	free(k->result);
	free(k->request);
	json_freep(&k->login);
	free(k);
}

/* Draining, and nothing is left: no task, and no claim whose answer may be one. */
static bool drained(struct supervisor *v)
{
	if (!v->drains || v->slots || v->nonce[0])
		return false;
	loop_stop(v->loop);
	return true;
}

/* When its process is gone and the queue has its outcome (or must not have one). */
static void maybe_free(struct slot *s)
{
	struct supervisor *v = of(s);

	if (s->process || !s->finished)
		return;
	for (struct slot **p = &v->slots; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	v->busy--;
	metrics_set(v->metrics, M_BUSY, NULL, v->busy);
	free_outcome(kept(s));
	slot_freep(&s);
	if (!drained(v))
		claim(v);
}

static void finish_later(void *arg)
{
	struct slot *s = arg;

	loop_timer_freep(&kept(s)->again);
	send_finish(s);
}

static void on_finished(enum finish_outcome o, enum task_state now, const struct err *e, void *arg)
{
	struct outcome_kept *ref = arg; /* only v and id: the slot may be gone */
	struct slot *s = find(ref->v, ref->id);
	struct supervisor *v = ref->v;

	free(ref);
	if (!s)
		return;
	if (e && (e->class == CLASS_RETRY || e->class == CLASS_WAIT || e->code == ERR_LIMIT)) {
		/* the outcome waits for Redis, and the lease with it: the same nonce is believed
		 * again */
		kept(s)->again = loop_timer(v->loop, AGAIN_MS / 2 + random_below(AGAIN_MS), 0,
					    finish_later, s);
		return;
	}
	if (e)
		log_error("the queue refuses an outcome", F_STR("task", s->id), F_ERR(e), NULL);
	else if (o == FINISH_STALE || o == FINISH_GONE) {
		metrics_add(v->metrics, M_STALE, NULL, 1);
		log_warning("an outcome came too late: the task has another holder or is gone",
			    F_STR("task", s->id), NULL);
	} else {
		FAULT("supervisor.after_finish", NULL);
		workermetrics_outcome(v->metrics, &kept(s)->f, clock_mono_ms() - s->started_ms);
		log_info("task ended", F_STR("task", s->id), F_STR("state", task_state_name(now)),
			 F_STR("reason", kept(s)->reason), F_STR("reason_code", kept(s)->code),
			 F_U64("attempt", s->attempt), F_U64("ms", clock_mono_ms() - s->started_ms),
			 F_STR("source", s->request.given ? s->request.given : ""), NULL);
	}
	s->finished = true;
	maybe_free(s);
}

static void send_finish(struct slot *s)
{
	struct outcome_kept *ref = mem_zalloc(sizeof(*ref));

	ref->v = of(s);
	str_copy(ref->id, sizeof(ref->id), s->id);
	FAULT("supervisor.before_finish", NULL);
	queue_finish(ref->v->queue, &kept(s)->f, on_finished, ref);
}

/* What this attempt was, for the task's history. */
static char *attempt_text(struct slot *s, const struct finish *f, const char *word)
{
	scoped(json_freep) struct json *j = json_new_object();
	scoped(buf_fini) struct buf b = BUF_INIT(8192);
	char when[CLOCK_TEXT];

	clock_rfc3339(when, s->started_wall_ns, 3);
	json_set_int(j, "attempt", s->attempt);
	json_set_int(j, "epoch", (int64_t)s->epoch);
	json_set_str(j, "worker", of(s)->name);
	json_set_str(j, "started", when);
	json_set_int(j, "ms", (int64_t)(clock_mono_ms() - s->started_ms));
	json_set_str(j, "outcome", word);
	json_set_str(j, "reason_code", f->code ? f->code : "");
	json_set_str(j, "reason", f->reason ? f->reason : "");
	if (json_write(j, JSON_COMPACT, &b, NULL) < 0)
		return NULL;
	return buf_take(&b);
}

/* f: outcome, delay, sizes, skipped; code and reason are copied. */
static void finish(struct slot *s, const struct finish *f, const char *word)
{
	struct outcome_kept *k = kept(s);
	struct supervisor *v = k->v;

	if (s->has_result)
		return;
	s->has_result = true;
	k->f = *f;
	k->code = mem_strdup(f->code ? f->code : "");
	k->reason = mem_strdup(f->reason ? f->reason : "");
	str_clean(k->reason);
	k->attempt = attempt_text(s, f, word);
	k->f.id = s->id;
	k->f.nonce = s->nonce;
	k->f.code = k->code;
	k->f.reason = k->reason;
	k->f.attempt_json = k->attempt;
	k->f.result_json = k->result;
	k->f.fresh_ms = s->request.trigger == TRIGGER_EVENT || s->request.trigger == TRIGGER_MOVED
				? v->settings->queue.fresh_ms
				: 0;
	send_finish(s);
}

static uint64_t backoff(const struct settings *c, uint32_t attempt, uint64_t at_least_ms)
{
	uint64_t cap = c->queue.backoff_ms;

	for (uint32_t i = 1; i < attempt && cap < c->queue.backoff_max_ms; i++)
		cap *= 2;
	if (cap > c->queue.backoff_max_ms)
		cap = c->queue.backoff_max_ms;
	cap = random_below(cap + 1);
	return cap > at_least_ms ? cap : at_least_ms;
}

/* Stopped by us: what is told depends on why, not on what the process said about it. */
static bool finish_stopped(struct slot *s)
{
	char text[128];

	switch (s->stop) {
	case STOP_NONE:
		return false;
	case STOP_LOST:
		s->has_result = s->finished = true;
		return true;
	case STOP_CANCEL:
		finish(s,
		       &(struct finish){.outcome = OUT_CANCELLED,
					.code = "cancelled",
					.reason = "cancelled"},
		       "cancelled");
		return true;
	case STOP_RELEASE:
		finish(s, &(struct finish){.outcome = OUT_RELEASE, .code = "", .reason = ""},
		       "released");
		return true;
	case STOP_TIMEOUT:
		snprintf(text, sizeof(text), "not done within %" PRIu64 " s (worker.task_timeout)",
			 of(s)->settings->worker.task_timeout_ms / 1000);
		finish(s,
		       &(struct finish){.outcome = OUT_RETRY,
					.code = "limit",
					.reason = text,
					.delay_ms = backoff(of(s)->settings, s->attempt, 0)},
		       "timeout");
		return true;
	}
	return false;
}

/* ---- what a task process says */

/* The outcome that a class stands for. */
static void finish_as(struct slot *s, const char *class, const char *code, const char *reason,
		      uint64_t retry_after, bool missing_source, struct finish *f)
{
	const struct settings *c = of(s)->settings;

	f->code = code;
	f->reason = reason;
	if (missing_source && s->request.trigger == TRIGGER_EVENT &&
	    clock_wall_ms() - s->enqueued_ms < MISSING_SOURCE_MS) {
		f->outcome = OUT_WAIT;
		f->delay_ms = 5000 + random_below(10000);
	} else if (strcmp(class, "done") == 0 || strcmp(class, "skipped") == 0) {
		f->outcome = OUT_DONE;
		f->skipped = class[0] == 's';
	} else if (strcmp(class, "wait") == 0) {
		f->outcome = OUT_WAIT;
		f->delay_ms = retry_after ? retry_after + random_below(retry_after / 10 + 1)
					  : 30000 + random_below(30000);
	} else if (strcmp(class, "retry") == 0) {
		f->outcome = OUT_RETRY;
		f->delay_ms = backoff(c, s->attempt, retry_after);
	} else {
		f->outcome = OUT_FAILED;
	}
	finish(s, f, class);
}

static void take_result(struct slot *s, const struct json *j)
{
	const char *class = "", *code = "", *reason = "";
	int64_t retry_after = 0, source = 0, target = 0;
	bool missing = false;
	scoped(buf_fini) struct buf detail = BUF_INIT(256u << 10);
	struct finish f = {0};

	if (s->has_result)
		return;
	if (json_opt_str(j, "class", "result", &class, NULL) < 0 ||
	    json_opt_str(j, "code", "result", &code, NULL) < 0 ||
	    json_opt_str(j, "reason", "result", &reason, NULL) < 0 ||
	    json_opt_int(j, "retry_after_ms", "result", &retry_after, NULL) < 0 ||
	    json_opt_int(j, "source_size", "result", &source, NULL) < 0 ||
	    json_opt_int(j, "target_size", "result", &target, NULL) < 0 ||
	    json_opt_bool(j, "missing_source", "result", &missing, NULL) < 0) {
		class = "retry";
		code = "bug";
		reason = "the task process gave a result that cannot be read";
	}
	workermetrics_figures(of(s)->metrics, json_get(j, "detail"));
	if (json_write(json_get(j, "detail"), JSON_COMPACT, &detail, NULL) == 0)
		kept(s)->result = buf_take(&detail);
	if (strcmp(class, "done") == 0 ||
	    strcmp(class, "skipped") == 0) /* it got there before our word to stop */
		s->stop = s->stop == STOP_LOST ? STOP_LOST : STOP_NONE;
	slot_close(s);
	if (finish_stopped(s))
		return;
	code = *code ? err_slug(err_code_of(code)) : "";
	f.source_size = source > 0 ? (uint64_t)source : 0;
	f.target_size = target > 0 ? (uint64_t)target : 0;
	finish_as(s, class, code, reason, retry_after > 0 ? (uint64_t)retry_after : 0, missing, &f);
}

static void on_packet(struct slot *s, struct json *j)
{
	struct supervisor *v = of(s);
	const char *t = packet_type(j), *text = "";

	if (strcmp(t, "progress") == 0) {
		if (json_opt_str(j, "text", "progress", &text, NULL) == 0) {
			str_copy(s->progress, sizeof(s->progress), text);
			str_clean(s->progress);
		}
	} else if (strcmp(t, "ask") == 0) {
		asks_take(&v->asks, s, j);
	} else if (strcmp(t, "unlock") == 0) {
		asks_unlock(&v->asks, s, j);
	} else if (strcmp(t, "pause") == 0) {
		asks_pause(&v->asks, s, j);
	} else if (strcmp(t, "result") == 0) {
		take_result(s, j);
	} else {
		log_warning("a task process said something unknown", F_STR("task", s->id),
			    F_STR("type", t), NULL);
	}
}

/* How a process ended, in words. */
static void end_words(int status, char *text, size_t n)
{
	if (WIFSIGNALED(status))
		snprintf(text, n, "the task process died of signal %d (%s)%s", WTERMSIG(status),
			 strsignal(WTERMSIG(status)),
			 WTERMSIG(status) == SIGKILL ? ": out of memory, or killed" : "");
	else
		snprintf(text, n, "the task process ended with status %d and no result",
			 WEXITSTATUS(status));
}

static void on_ended(struct slot *s, int status)
{
	char text[160];

	if (!s->has_result && !finish_stopped(s)) {
		end_words(status, text, sizeof(text));
		log_error("a task process died", F_STR("task", s->id), F_STR("how", text), NULL);
		finish(s, &(struct finish){.outcome = OUT_CRASHED, .code = "bug", .reason = text},
		       "crashed");
	}
	maybe_free(s);
}

/* ---- starting a task */

static uint32_t threads_for(const struct supervisor *v)
{
	uint32_t share = v->threads / (v->busy ? v->busy : 1);

	if (v->settings->worker.threads)
		return v->settings->worker.threads;
	return share ? share : 1;
}

static void start_converting(struct slot *s, const char *request, size_t n)
{
	static const struct slot_events on = {.packet = on_packet, .ended = on_ended};
	struct supervisor *v = of(s);
	scoped(json_freep) struct json *start =
		startpacket(v->settings, s, threads_for(v), request, n, kept(s)->login);
	struct err e;

	if (slot_start(s, v->loop, "--task", NULL, start, &on, &e) == 0)
		return;
	log_error("cannot start a task process", F_STR("task", s->id), F_ERR(&e), NULL);
	finish(s,
	       &(struct finish){.outcome = OUT_RELEASE,
				.code = "system",
				.reason = e.text,
				.delay_ms = AGAIN_MS * 5},
	       "released");
}

/* No login is configured: docker's files and helpers are asked, in a process of their own, since a
 * helper may take seconds, and this loop must not. */
static void on_login(struct slot *s, struct json *j)
{
	if (strcmp(packet_type(j), "credentials") == 0 && !kept(s)->login)
		kept(s)->login = json_clone(j);
}

static void on_login_ended(struct slot *s, int status)
{
	const char *why = json_value_str(json_get(kept(s)->login, "error"));

	if (why)
		log_warning("credentials of this machine cannot be read", F_STR("task", s->id),
			    F_STR("error", why), NULL);
	if (s->stop == STOP_NONE)
		start_converting(s, kept(s)->request, strlen(kept(s)->request));
	else
		finish_stopped(s);
	maybe_free(s);
}

static void look_up_login(struct slot *s, const struct claimed *c)
{
	static const struct slot_events on = {.packet = on_login, .ended = on_login_ended};
	struct err e;

	kept(s)->request = mem_strndup(c->request, c->request_n);
	if (slot_start(s, of(s)->loop, "--credentials", s->request.source.host, NULL, &on, &e) < 0)
		start_converting(s, c->request, c->request_n);
}

static void start_task(struct supervisor *v, struct slot *s, const struct claimed *c)
{
	const struct source_settings *own;
	char text[400];
	struct err e;

	if (task_request_parse(&s->request, c->request, c->request_n, &e) < 0) {
		snprintf(text, sizeof(text), "the task's request cannot be read: %.300s", e.text);
		finish(s,
		       &(struct finish){.outcome = OUT_FAILED, .code = "corrupt", .reason = text},
		       "final");
		return;
	}
	own = settings_source(v->settings, s->request.source.host);
	if (!own) {
		snprintf(text, sizeof(text), "no provider.source for %s here",
			 s->request.source.host);
		finish(s,
		       &(struct finish){.outcome = OUT_WAIT,
					.code = "denied",
					.reason = text,
					.delay_ms = 60000},
		       "wait");
	} else if (own->username) {
		start_converting(s, c->request, c->request_n);
	} else {
		look_up_login(s, c);
	}
}

static void take_task(struct supervisor *v, const struct claimed *c)
{
	struct slot *s;
	struct outcome_kept *k;

	if (find(v, c->id)) /* a replayed answer to a claim that we have acted on */
		return;
	s = mem_zalloc(sizeof(*s));
	k = mem_zalloc(sizeof(*k));
	k->v = v;
	s->owner = k;
	str_copy(s->id, sizeof(s->id), c->id);
	str_copy(s->nonce, sizeof(s->nonce), v->nonce);
	s->epoch = c->epoch;
	s->attempt = c->attempt;
	s->crashes = c->crashes;
	s->enqueued_ms = c->enqueued_ms;
	s->started_ms = clock_mono_ms();
	s->started_wall_ns = clock_wall_ns();
	s->next = v->slots;
	v->slots = s;
	v->busy++;
	metrics_set(v->metrics, M_BUSY, NULL, v->busy);
	FAULT("supervisor.after_claim", NULL);
	start_task(v, s, c);
	log_info("task started", F_STR("task", s->id),
		 F_STR("source", s->request.given ? s->request.given : ""),
		 F_U64("attempt", s->attempt), F_U64("epoch", s->epoch), F_I64("pid", slot_pid(s)),
		 NULL);
}

/* ---- claiming */

static void claim_in(struct supervisor *v, uint64_t ms)
{
	if (v->claim_again)
		loop_timer_again(v->claim_again, ms);
	else
		v->claim_again = loop_timer(v->loop, ms, 0, claim, v);
}

static void on_hint(bool hint, const struct err *e, void *arg)
{
	struct supervisor *v = arg;

	v->waiting = false;
	if (e)
		claim_in(v, AGAIN_MS / 2 + random_below(AGAIN_MS));
	else
		claim(v);
}

static void wait_hint(struct supervisor *v, uint64_t next_due_ms)
{
	uint64_t ms = HINT_WAIT_MS * 7 / 10 + random_below(HINT_WAIT_MS * 6 / 10);

	if (v->waiting || v->drains)
		return;
	if (next_due_ms < ms)
		ms = next_due_ms ? next_due_ms : 1;
	v->waiting = true;
	queue_wait_hint(v->blocking, ms, on_hint, v);
}

static void on_claimed(const struct claimed *c, const struct err *e, void *arg)
{
	struct supervisor *v = arg;

	v->claiming = false;
	if (e) { /* the same nonce again: if it was claimed, the answer is the same task */
		claim_in(v, AGAIN_MS / 2 + random_below(AGAIN_MS));
		return;
	}
	if (c->kind == CLAIM_TASK)
		take_task(v, c);
	v->nonce[0] = '\0';
	v->paused = c->kind == CLAIM_PAUSED;
	if (drained(v))
		return;
	if (c->kind == CLAIM_TASK)
		claim(v);
	else if (c->kind == CLAIM_PAUSED)
		claim_in(v, 5 * AGAIN_MS);
	else
		wait_hint(v, c->next_due_ms);
}

static void claim(void *arg)
{
	struct supervisor *v = arg;

	if (v->claiming || v->waiting || !v->ready)
		return;
	/* a claim without an answer must be asked for even while draining: the task may be ours */
	if (!v->nonce[0] && (v->drains || v->busy >= v->settings->converter.worker))
		return;
	if (!v->nonce[0])
		new_nonce(v->nonce);
	v->claiming = true;
	queue_claim(v->queue, v->name, v->nonce, on_claimed, v);
}

/* ---- heartbeat and tick */

struct beats {
	struct supervisor *v;
	size_t n;
	char id[][TASK_ID];
};

static void on_beats(const enum beat *b, size_t n, const struct err *e, void *arg)
{
	struct beats *sent = arg;
	struct supervisor *v = sent->v;

	if (e)
		metrics_add(v->metrics, M_BEATS, NULL, 1);
	for (size_t i = 0; !e && i < n && i < sent->n; i++) {
		struct slot *s = find(v, sent->id[i]);

		if (!s || s->has_result)
			continue;
		if (b[i] == BEAT_CANCEL && s->stop == STOP_NONE) {
			log_info("task is cancelled", F_STR("task", s->id), NULL);
			slot_stop(s, STOP_CANCEL, CANCEL_KILL_MS);
		} else if (b[i] == BEAT_LOST || b[i] == BEAT_GONE) {
			log_warning("the lease of a task is lost", F_STR("task", s->id), NULL);
			slot_stop(s, STOP_LOST, RELEASE_KILL_MS);
			s->finished = true;
			maybe_free(s);
		}
	}
	free(sent);
}

static void beat(void *arg)
{
	struct supervisor *v = arg;
	struct heartbeat *b = mem_array(v->busy + 1, sizeof(*b));
	struct beats *sent = mem_zalloc(sizeof(*sent) + (v->busy + 1) * TASK_ID);
	size_t n = 0;

	for (struct slot *s = v->slots; s && n < v->busy; s = s->next) {
		if (s->finished || s->stop == STOP_LOST)
			continue;
		if (s->process && !s->has_result && s->stop == STOP_NONE &&
		    clock_mono_ms() - s->started_ms > v->settings->worker.task_timeout_ms)
			slot_stop(s, STOP_TIMEOUT, CANCEL_KILL_MS);
		b[n].id = s->id;
		b[n].nonce = s->nonce;
		b[n].progress = s->progress[0] ? s->progress : NULL;
		str_copy(sent->id[n++], TASK_ID, s->id);
	}
	sent->v = v;
	sent->n = n;
	if (n)
		queue_heartbeat(v->queue, b, n, on_beats, sent);
	else
		free(sent);
	free(b);
}

static void on_tick(const struct ticked *t, const struct err *e, void *arg)
{
	if (!e && t->expired)
		log_warning("leases ran out", F_U64("tasks", t->expired), NULL);
}

static void tick(void *arg)
{
	struct supervisor *v = arg;

	if (v->ready)
		queue_tick(v->queue, on_tick, v);
	loop_timer_again(v->tick, v->settings->queue.tick_ms * 3 / 4 +
					  random_below(v->settings->queue.tick_ms / 2));
}

/* ---- the worker's card, and its metrics for acceld's page */

static void ignore(const struct reply *r, const struct err *e, void *arg)
{
}

static void command(struct supervisor *v, size_t argc, const char *const *argv)
{
	size_t lens[16];

	for (size_t i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	redis_call(v->redis, 0, argc, argv, lens, ignore, NULL);
}

static void write_card(void *arg)
{
	struct supervisor *v = arg;
	char key[96], slots[24], busy[24], host[65] = "";
	scoped(buf_fini) struct buf text = BUF_INIT(1u << 20);

	if (!v->ready)
		return;
	gethostname(host, sizeof(host) - 1);
	snprintf(key, sizeof(key), "acc:{0}:w:%s", v->name);
	snprintf(slots, sizeof(slots), "%u", v->settings->converter.worker);
	snprintf(busy, sizeof(busy), "%u", v->busy);
	command(v, 12,
		(const char *[]){"HSET", key, "host", host, "version", startup_version(), "slots",
				 slots, "busy", busy, "state", v->drains ? "draining" : "running"});
	command(v, 3, (const char *[]){"EXPIRE", key, CARD_SECONDS});
	if (v->o.publish_metrics && supervisor_metrics(v, &text, NULL) == 0)
		command(v, 5,
			(const char *[]){"SET", "acc:{0}:metrics", text.data, "EX", CARD_SECONDS});
}

/* ---- life */

static void on_redis(bool ready, const struct err *why, void *arg)
{
	struct supervisor *v = arg;

	v->ready = ready;
	metrics_set(v->metrics, M_REDIS, NULL, ready);
	str_copy(v->why, sizeof(v->why), why ? why->text : "");
	if (!ready)
		return;
	beat(v); /* leases first */
	claim(v);
	write_card(v);
}

static void on_blocking(bool ready, const struct err *why, void *arg)
{
	/* a wait in progress is told by its own callback */
}

int supervisor_open(struct supervisor **to, struct loop *l, struct settings **s,
		    const struct supervisor_opts *o, struct err *e)
{
	struct supervisor *v = mem_zalloc(sizeof(*v));
	uint8_t tail[4];
	char host[40] = "", hex[9];

	*to = v;
	v->loop = l;
	v->settings = take_ptr(*s);
	v->o = *o;
	v->threads = pool_cpus();
	digest_random(tail, sizeof(tail));
	str_hex(hex, tail, sizeof(tail));
	gethostname(host, sizeof(host) - 1);
	snprintf(v->name, sizeof(v->name), "%.39s-%d-%s", host, (int)getpid() % 1000000, hex);
	str_copy(v->why, sizeof(v->why), "not connected yet");
	v->metrics = workermetrics_new();
	metrics_set(v->metrics, M_SLOTS, NULL, v->settings->converter.worker);
	metrics_set(v->metrics, M_BUSY, NULL, 0);
	metrics_set(v->metrics, M_REDIS, NULL, 0);
	if (redis_open(&v->redis, l, v->settings, "accel-worker", on_redis, v, e) < 0 ||
	    redis_open(&v->blocking, l, v->settings, "accel-worker-wait", on_blocking, v, e) < 0)
		return -1;
	v->queue = queue_new(v->redis, v->settings);
	v->asks = (struct asks){.queue = v->queue,
				.redis = v->redis,
				.settings = v->settings,
				.find = find,
				.arg = v};
	v->beat = loop_timer(l, v->settings->queue.heartbeat_ms, v->settings->queue.heartbeat_ms,
			     beat, v);
	v->tick = loop_timer(l, v->settings->queue.tick_ms, 0, tick, v);
	v->card = loop_timer(l, 5000, 5000, write_card, v);
	return 0;
}

void supervisor_reload(struct supervisor *v, struct settings **s)
{
	queue_settings(v->queue, *s);
	settings_freep(&v->settings);
	v->settings = take_ptr(*s);
	v->asks.settings = v->settings;
	metrics_set(v->metrics, M_SLOTS, NULL, v->settings->converter.worker);
	claim(v);
}

static void release_all(void *arg)
{
	struct supervisor *v = arg;

	for (struct slot *s = v->slots; s; s = s->next)
		if (!s->has_result)
			slot_stop(s, STOP_RELEASE, RELEASE_KILL_MS);
	/* a claim that gets no answer is not waited for: if it was one, its lease runs out */
	v->nonce[0] = '\0';
	drained(v);
}

void supervisor_drain(struct supervisor *v)
{
	uint64_t timeout = v->settings->worker.drain_timeout_ms;

	v->drains++;
	if (v->drains > 1) {
		release_all(v);
		return;
	}
	log_info("draining", F_U64("running", v->busy), F_U64("timeout_ms", timeout), NULL);
	if (drained(v))
		return;
	v->drain_end = loop_timer(v->loop, v->slots ? timeout : RELEASE_KILL_MS, 0, release_all, v);
	write_card(v);
}

bool supervisor_ready(const struct supervisor *v, const char **why)
{
	*why = v->drains ? "draining" : v->ready ? "" : v->why;
	return !v->drains && v->ready;
}

void supervisor_status(const struct supervisor *v, struct buf *to)
{
	scoped(json_freep) struct json *j = json_new_object();
	const char *why;

	json_set_bool(j, "ready", supervisor_ready(v, &why));
	json_set_str(j, "reason", why);
	json_set_str(j, "worker", v->name);
	json_set_int(j, "slots", v->settings->converter.worker);
	json_set_int(j, "busy", v->busy);
	json_set_bool(j, "paused", v->paused);
	json_write(j, JSON_COMPACT, to, NULL);
	buf_add_char(to, '\n', NULL);
}

int supervisor_metrics(struct supervisor *v, struct buf *to, struct err *e)
{
	return metrics_write(v->metrics, to, e);
}

void supervisor_freep(struct supervisor **p)
{
	struct supervisor *v = *p;

	if (!v)
		return;
	loop_timer_freep(&v->beat);
	loop_timer_freep(&v->tick);
	loop_timer_freep(&v->card);
	loop_timer_freep(&v->drain_end);
	while (v->slots) {
		struct slot *s = v->slots;

		v->slots = s->next;
		free_outcome(s->owner);
		slot_freep(&s);
	}
	redis_freep(&v->redis); /* callbacks still under way are told, and find no slot */
	redis_freep(&v->blocking);
	loop_timer_freep(&v->claim_again); /* the last of them may have set it once more */
	queue_freep(&v->queue);
	metrics_freep(&v->metrics);
	settings_freep(&v->settings);
	free(v);
	*p = NULL;
}
