/* tests/integration/queue_drive.c - the queue's operations by hand, for the tests beside it.
 *
 *   queue_drive CONFIG
 * Reads lines of tab-separated words, `TAG OP ARGUMENT...` ("-" is none), makes the call, and
 * prints `TAG ANSWER...` when the answer comes; `state ready`, `state lost CLASS TEXT` as the
 * connection changes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/str.h"

enum { WORDS = 24 };

static struct {
	struct loop *loop;
	struct redis *redis, *blocking;
	struct queue *queue;
	struct settings *settings;
	struct buf in;
} d;

static void say(char *tag, const struct err *e, const char *fmt, ...)
{
	va_list ap;

	printf("%s ", tag);
	if (e) {
		printf("ERR %s %s", err_slug(e->code), e->text);
	} else {
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
	}
	printf("\n");
	fflush(stdout);
	free(tag);
}

static void on_enqueue(const struct enqueue_result *r, const struct err *e, void *arg)
{
	static const char *const words[] = {"ENQUEUED", "JOINED", "FULL", "GROUP_FULL", "ECHO"};

	say(arg, e, "%s %s", r ? words[r->outcome] : "", r ? r->id : "");
}

static void on_claim(const struct claimed *c, const struct err *e, void *arg)
{
	if (c && c->kind == CLAIM_TASK)
		say(arg, e, "TASK %s %llu %u %u %s %llu %.*s", c->id, (unsigned long long)c->epoch,
		    c->attempt, c->crashes, c->replay ? "replay" : "new",
		    (unsigned long long)c->deadline_ms, (int)c->request_n, c->request);
	else if (c && c->kind == CLAIM_EMPTY)
		say(arg, e, "EMPTY %lld", (long long)c->next_due_ms);
	else
		say(arg, e, "PAUSED");
}

static void on_beat(const enum beat *b, size_t n, const struct err *e, void *arg)
{
	static const char *const words[] = {"OK", "CANCEL", "LOST", "GONE"};

	say(arg, e, "%s", n ? words[b[0]] : "");
}

static void on_finish(enum finish_outcome o, enum task_state now, const struct err *e, void *arg)
{
	static const char *const words[] = {"OK", "REPLAY", "STALE", "GONE"};

	say(arg, e, "%s %s", words[o], task_state_name(now));
}

static void on_ticket(uint64_t ticket, const struct err *e, void *arg)
{
	say(arg, e, "%llu", (unsigned long long)ticket);
}

static void on_publish(const struct published *p, const struct err *e, void *arg)
{
	static const char *const words[] = {"GRANTED",	 "SUPERSEDED", "BUSY",	  "WAIT",
					    "CANCELLED", "LOST",       "CONFLICT"};

	say(arg, e, "%s %llu %d %s", p ? words[p->outcome] : "",
	    p ? (unsigned long long)p->valid_ms : 0, p ? p->takeover : 0, p ? p->other : "");
}

static void on_plain(const struct err *e, void *arg)
{
	say(arg, e, "OK");
}

static void on_cancel(enum cancel_outcome o, const struct err *e, void *arg)
{
	static const char *const words[] = {"DONE", "FLAGGED", "TERMINAL", "TOO_LATE", "GONE"};

	say(arg, e, "%s", words[o]);
}

static void on_tick(const struct ticked *t, const struct err *e, void *arg)
{
	say(arg, e, "%llu %llu %llu %s", t ? (unsigned long long)t->expired : 0,
	    t ? (unsigned long long)t->promoted : 0, t ? (unsigned long long)t->ended : 0,
	    t && t->grace ? "grace" : "-");
}

static void on_get(const struct task *t, const struct err *e, void *arg)
{
	struct json *j = t ? task_to_json(t, true) : NULL;
	struct buf b;

	buf_init(&b, 1 << 20);
	json_write(j, JSON_COMPACT, &b, NULL);
	say(arg, e, "%s", b.data);
	buf_fini(&b);
	json_freep(&j);
}

static void on_list(const struct task *t, size_t n, uint64_t total, const struct err *e, void *arg)
{
	struct json *list = json_new_array();
	struct buf b;

	for (size_t i = 0; i < n; i++)
		json_append(list, task_to_json(&t[i], false));
	buf_init(&b, 16 << 20);
	json_write(list, JSON_COMPACT, &b, NULL);
	say(arg, e, "%llu %s", (unsigned long long)total, b.data);
	buf_fini(&b);
	json_freep(&list);
}

static void on_counts(const struct queue_counts *c, const struct err *e, void *arg)
{
	struct queue_counts zero = {0};

	c = c ? c : &zero;
#define U(x) (unsigned long long)c->x
	say(arg, e,
	    "{\"ready\":%llu,\"running\":%llu,\"delayed\":%llu,\"finished\":%llu,\"dead\":%llu,"
	    "\"done\":%llu,"
	    "\"failed\":%llu,\"cancelled\":%llu,\"retry\":%llu,\"stale\":%llu,\"joined\":%llu,"
	    "\"expired\":%llu,"
	    "\"accepted\":%llu,\"crashed\":%llu,\"echo\":%llu,\"bytes\":%llu,\"total_dead\":%llu}",
	    U(ready), U(running), U(delayed), U(finished), U(dead), U(total_done), U(total_failed),
	    U(total_cancelled), U(total_retry), U(total_stale), U(total_joined), U(total_expired),
	    U(total_accepted), U(total_crashed), U(total_echo), U(kept_bytes), U(total_dead));
}

static void on_fsck(const char *findings, size_t n, const struct err *e, void *arg)
{
	char *text = mem_strdup(findings ? findings : "");

	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ';';
	say(arg, e, "%zu %s", n, text);
	free(text);
}

static void on_events(const char *last, const char *const *ids, const char *const *states, size_t n,
		      bool gap, const struct err *e, void *arg)
{
	struct buf b;

	buf_init(&b, 1 << 20);
	for (size_t i = 0; i < n; i++)
		buf_addf(&b, NULL, " %s=%s", ids[i], states[i]);
	say(arg, e, "%s %s%s", last, gap ? "gap" : "-", b.data);
	buf_fini(&b);
}

static void on_hint(bool hint, const struct err *e, void *arg)
{
	say(arg, e, "%s", hint ? "HINT" : "TIME");
}

static void on_call(const struct reply *r, const struct err *e, void *arg)
{
	say(arg, e, "kind %d", r ? (int)r->kind : -1);
}

static uint64_t number(const char *s)
{
	return s ? strtoull(s, NULL, 10) : 0;
}

static void enqueue(char *tag, char **w)
{
	const struct rule *rule;
	struct task_request rq = {0};
	struct imageref source;
	struct enqueue c = {0};
	struct err e;

	if (imageref_parse(&source, w[1], &e) < 0 ||
	    !(rule = rules_find(&d.settings->rules, &source)) ||
	    task_request_from_rule(
		    &rq, &source, w[1], rule, rules_platforms(&d.settings->rules, rule),
		    number(w[2]) ? TRIGGER_EVENT : TRIGGER_REQUEST, "trace-1", &e) < 0) {
		say(tag, &e, "");
		return;
	}
	c.id = w[0];
	c.request = &rq;
	c.band = (enum band)number(w[2]);
	c.delay_ms = number(w[3]);
	c.fresh_ms = number(w[4]);
	c.parent = w[5];
	c.event_digest = w[6];
	queue_enqueue(d.queue, &c, on_enqueue, tag);
	task_request_fini(&rq);
}

static void finish(char *tag, char **w)
{
	static const char *const words[] = {"done",    "failed", "cancelled", "retry",
					    "release", "wait",	 "crashed"};
	struct finish f = {.id = w[0], .nonce = w[1], .code = w[3], .reason = w[4]};

	for (size_t i = 0; i < 7; i++)
		if (str_eq(words[i], w[2]))
			f.outcome = (enum outcome)i;
	f.delay_ms = number(w[5]);
	f.fresh_ms = number(w[6]);
	f.skipped = number(w[7]) != 0;
	f.source_size = number(w[8]);
	f.target_size = number(w[9]);
	f.attempt_json = w[10];
	f.result_json = w[11];
	queue_finish(d.queue, &f, on_finish, tag);
}

static void publish(char *tag, char **w)
{
	const char *digests[8];
	struct publish p = {
		.id = w[0], .nonce = w[1], .target = w[2], .source = w[3], .ticket = number(w[4])};

	for (; p.n_digests < 8 && w[5 + p.n_digests]; p.n_digests++)
		digests[p.n_digests] = w[5 + p.n_digests];
	p.digests = digests;
	queue_publish(d.queue, &p, on_publish, tag);
}

static void do_line(char *line)
{
	char *w[WORDS + 1] = {0}, *save = NULL, *tag, *op;
	size_t n = 0;

	for (char *p = strtok_r(line, "\t", &save); p && n < WORDS; p = strtok_r(NULL, "\t", &save))
		w[n++] = str_eq(p, "-") ? NULL : p;
	if (n < 2)
		return;
	tag = mem_strdup(w[0]);
	op = w[1];
	char **a = w + 2;

	if (str_eq(op, "enqueue"))
		enqueue(tag, a);
	else if (str_eq(op, "claim"))
		queue_claim(d.queue, a[0], a[1], on_claim, tag);
	else if (str_eq(op, "beat"))
		queue_heartbeat(d.queue, &(struct heartbeat){a[0], a[1], a[2]}, 1, on_beat, tag);
	else if (str_eq(op, "finish"))
		finish(tag, a);
	else if (str_eq(op, "ticket"))
		queue_ticket(d.queue, a[0], a[1], a[2], on_ticket, tag);
	else if (str_eq(op, "publish"))
		publish(tag, a);
	else if (str_eq(op, "unlock"))
		queue_unlock(d.queue, a[0], a[1], on_plain, tag);
	else if (str_eq(op, "cancel"))
		queue_cancel(d.queue, a[0], on_cancel, tag);
	else if (str_eq(op, "tick"))
		queue_tick(d.queue, on_tick, tag);
	else if (str_eq(op, "pause"))
		queue_pause_registry(d.queue, a[0], number(a[1]), on_plain, tag);
	else if (str_eq(op, "get"))
		queue_get(d.queue, a[0], on_get, tag);
	else if (str_eq(op, "list"))
		queue_list(d.queue,
			   &(struct queue_filter){.offset = number(a[0]),
						  .limit = (uint32_t)number(a[1]),
						  .status = a[2],
						  .phase = a[3],
						  .source = a[4]},
			   on_list, tag);
	else if (str_eq(op, "counts"))
		queue_counts(d.queue, on_counts, tag);
	else if (str_eq(op, "fsck"))
		queue_fsck(d.queue, number(a[0]) != 0, on_fsck, tag);
	else if (str_eq(op, "events"))
		queue_events(d.blocking, a[0], number(a[1]), on_events, tag);
	else if (str_eq(op, "hint"))
		queue_wait_hint(d.blocking, number(a[0]), on_hint, tag);
	else if (str_eq(op, "call"))
		redis_call(d.redis, number(a[0]), n - 3, (const char *const *)(a + 1), NULL,
			   on_call, tag);
	else
		say(tag, NULL, "what is %s?", op);
}

static void on_input(int what, void *arg)
{
	char bytes[65536], *end;
	ssize_t n = read(0, bytes, sizeof(bytes));

	if (n <= 0) {
		loop_stop(d.loop);
		return;
	}
	buf_add(&d.in, bytes, (size_t)n, NULL);
	while ((end = memchr(d.in.data, '\n', d.in.len))) {
		*end = 0;
		do_line(d.in.data);
		buf_consume(&d.in, (size_t)(end + 1 - d.in.data));
	}
}

static void on_state(bool ready, const struct err *why, void *arg)
{
	if (ready)
		printf("state ready\n");
	else
		printf("state lost %s %s\n", err_class_name(why->class), why->text);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct config_report report = {0};
	struct loop_fd *in;
	struct err e;

	log_setup(LOG_INFO, LOG_TEXT, 2);
	if (argc != 2 || config_load(&d.settings, argv[1], &report) < 0) {
		for (size_t i = 0; i < report.n; i++)
			fprintf(stderr, "%s: %s\n", report.p[i].where, report.p[i].text);
		return 2;
	}
	config_report_fini(&report);
	buf_init(&d.in, 1 << 20);
	if (loop_open(&d.loop, &e) < 0 ||
	    redis_open(&d.redis, d.loop, d.settings, "drive", on_state, NULL, &e) < 0 ||
	    redis_open(&d.blocking, d.loop, d.settings, "drive-blocking", NULL, NULL, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	d.queue = queue_new(d.redis, d.settings);
	in = loop_fd(d.loop, 0, LOOP_READ, on_input, NULL);
	loop_run(d.loop, NULL);
	loop_fd_freep(&in);
	redis_freep(&d.blocking);
	redis_freep(&d.redis);
	queue_freep(&d.queue);
	settings_freep(&d.settings);
	loop_freep(&d.loop);
	buf_fini(&d.in);
	return 0;
}
