/* common/redis.c - see redis.h.
 *
 * A connection is ready after a handshake in one pipeline: AUTH, SELECT, CLIENT SETNAME, INFO
 * (version, role, eviction policy, append-only file), and the script hello (schema, rights).  A
 * call whose deadline passes is answered at once, but keeps its place in line, so that the reply
 * that comes late is not taken for another's.  If nothing at all was heard since it was sent, Redis
 * is taken for stalled: no call goes there until it speaks again, and after STALL_MS the connection
 * is made anew. */
#include "common/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/resp.h"
#include "common/scope.h"
#include "common/scripts.h"
#include "common/secret.h"
#include "common/str.h"

enum {
	SCHEMA = 1,
	DEADLINE_MS = 1000,
	HELLO_MS = 2000,
	STALL_MS = 2000,
	PATIENCE_MS = 300, /* a break that is waited out */
	MAX_WAITING = 1024,
	SCAN_MS = 50,
	SAY_AGAIN_MS = 5000, /* the same failure in the log */
};

static const char meta_key[] = REDIS_PREFIX "meta";

struct call {
	TAILQ_ENTRY(call) next; /* while unanswered */
	struct redis *redis;
	redis_fn *on;
	void *arg;
	uint64_t sent_ms, until_ms, span_ms;
	bool waiting;  /* not sent yet */
	bool answered; /* told; only its place in line is left */
	int script;    /* or -1 */
	bool evaled;
	struct resp_args args;
};
TAILQ_HEAD(calls, call);

struct redis {
	struct loop *loop;
	struct resp *resp;
	struct loop_timer *scan;
	char *name, *username;
	struct secret *password;
	uint32_t db;
	enum durability durability;
	void (*on_state)(bool ready, const struct err *why, void *arg);
	void *arg;
	struct calls calls;
	size_t n_waiting;
	bool scanning, ready, stalled;
	bool shaking; /* a handshake is under way */
	uint64_t shake_until_ms, lost_ms, stalled_ms, said_ms;
	char said[1024];
	struct err why; /* the last failure */
	struct resp_args evalsha[SCRIPTS], nothing;
	unsigned depth;
	bool dead;
};

static void enter(struct redis *r)
{
	r->depth++;
}

static void leave(struct redis *r)
{
	if (--r->depth || !r->dead)
		return;
	secret_freep(&r->password);
	free(r->name);
	free(r->username);
	for (int i = 0; i < SCRIPTS; i++)
		resp_args_fini(&r->evalsha[i]);
	free(r);
}

bool redis_ready(const struct redis *r)
{
	return r->ready && !r->stalled;
}

struct loop *redis_loop(const struct redis *r)
{
	return r->loop;
}

static void tell(struct redis *r, const struct err *why)
{
	uint64_t now = clock_mono_ms();

	if (why)
		r->why = *why;
	/* A second of trying is twenty failures: each text is said once, and again after a while.
	 */
	if (!why) {
		log_info("redis ready", F_MODULE("redis"), F_STR("addr", resp_addr(r->resp)), NULL);
		r->said[0] = 0;
	} else if (!str_eq(r->said, why->text) || now - r->said_ms > SAY_AGAIN_MS) {
		log_warning("redis not ready", F_MODULE("redis"), F_ERR(why), NULL);
		str_copy(r->said, sizeof(r->said), why->text);
		r->said_ms = now;
	}
	if (r->on_state)
		r->on_state(!why, why, r->arg);
}

/* ---- calls */

static void call_free(struct call *c)
{
	buf_fini(&c->args.b);
	free(c);
}

static void answer(struct call *c, const struct reply *reply, const struct err *e)
{
	struct redis *r = c->redis;

	c->answered = true;
	TAILQ_REMOVE(&r->calls, c, next);
	c->on(reply, e, c->arg); /* may free r: nothing of it is touched after */
}

static const struct {
	const char *word;
	enum err_code code;
	bool again; /* the connection is of no use until the handshake says otherwise */
} meanings[] = {
	{"LOADING", ERR_BUSY, true},	{"READONLY", ERR_BUSY, true},
	{"MASTERDOWN", ERR_BUSY, true}, {"CLUSTERDOWN", ERR_BUSY, false},
	{"TRYAGAIN", ERR_BUSY, false},	{"MOVED", ERR_BUSY, false},
	{"ASK", ERR_BUSY, false},	{"BUSY", ERR_BUSY, false},
	{"UNBLOCKED", ERR_BUSY, true},	{"NOREPLICAS", ERR_BUSY, false},
	{"MISCONF", ERR_BUSY, false},	{"NOSCRIPT", ERR_BUSY, false},
	{"OOM", ERR_LIMIT, false},	{"NOPERM", ERR_DENIED, false},
	{"NOAUTH", ERR_DENIED, true},	{"WRONGPASS", ERR_DENIED, false},
};

static bool is_error(const struct reply *reply, const char *word)
{
	size_t n = strlen(word);

	return reply->kind == REPLY_ERROR && strncmp(reply->str, word, n) == 0 &&
	       (reply->str[n] == ' ' || reply->str[n] == 0);
}

static bool meaning(const struct redis *r, const struct reply *reply, struct err *e)
{
	char text[400];

	str_copy(text, sizeof(text), reply->str);
	str_clean(text);
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (is_error(reply, meanings[i].word)) {
			err_set(e, meanings[i].code, "Redis at %s: %s", resp_addr(r->resp), text);
			return meanings[i].again;
		}
	if (strstr(text, "run this command") || strstr(text, "access at least one of the keys"))
		err_set(e, ERR_DENIED, "Redis at %s: %s", resp_addr(r->resp), text);
	else if (strstr(text, "OOM command not allowed"))
		err_set(e, ERR_LIMIT, "Redis at %s: %s", resp_addr(r->resp), text);
	else
		err_set(e, ERR_BUG, "Redis at %s: %s", resp_addr(r->resp), text);
	return false;
}

static int send_call(struct redis *r, struct call *c);

static void on_reply(const struct reply *reply, const struct err *e, void *arg)
{
	struct call *c = arg;
	struct redis *r = c->redis;
	struct err bad;
	bool again;

	enter(r);
	if (reply && r->stalled) {
		r->stalled = false;
		tell(r, NULL);
	}
	if (c->answered) {
		call_free(c);
		leave(r);
		return;
	}
	if (reply && c->script >= 0 && !c->evaled && is_error(reply, "NOSCRIPT")) {
		c->evaled = true;
		if (send_call(r, c) == 0) {
			leave(r);
			return;
		}
	}
	if (!reply || reply->kind != REPLY_ERROR) {
		answer(c, reply, e);
	} else {
		again = meaning(r, reply, &bad);
		answer(c, NULL, &bad);
		if (again && !r->dead && r->ready)
			resp_drop(r->resp, &bad);
	}
	call_free(c);
	leave(r);
}

/* What stands in front of a script's own arguments. */
static void script_head(struct resp_args *a, const char *word, const char *script)
{
	resp_args_init(a);
	resp_arg(a, word, strlen(word));
	resp_arg(a, script, strlen(script));
	resp_arg(a, "1", 1);
	resp_arg(a, meta_key, strlen(meta_key));
}

static int send_call(struct redis *r, struct call *c)
{
	struct resp_args eval;
	int rc;

	if (c->script < 0)
		return resp_send_args(r->resp, &r->nothing, &c->args, on_reply, c);
	if (!c->evaled)
		return resp_send_args(r->resp, &r->evalsha[c->script], &c->args, on_reply, c);
	script_head(&eval, "EVAL", scripts[c->script].text);
	rc = resp_send_args(r->resp, &eval, &c->args, on_reply, c);
	resp_args_fini(&eval);
	return rc;
}

static void scan_soon(struct redis *r, uint64_t ms)
{
	if (r->dead || (r->scanning && ms))
		return;
	r->scanning = true;
	loop_timer_again(r->scan, ms);
}

/* What cannot be sent waits a little for the connection to come back, then fails from the scan:
 * never inside the caller's call. */
static void submit(struct redis *r, struct call *c)
{
	uint64_t now = clock_mono_ms();

	TAILQ_INSERT_TAIL(&r->calls, c, next);
	c->sent_ms = now;
	if (redis_ready(r) && send_call(r, c) == 0) {
		scan_soon(r, SCAN_MS);
		return;
	}
	c->waiting = true;
	r->n_waiting++;
	if (!r->stalled && now - r->lost_ms < PATIENCE_MS && r->n_waiting < MAX_WAITING) {
		if (c->until_ms > r->lost_ms + PATIENCE_MS)
			c->until_ms = r->lost_ms + PATIENCE_MS;
		scan_soon(r, SCAN_MS);
	} else {
		c->until_ms = now;
		scan_soon(r, 0);
	}
}

static void flush_waiting(struct redis *r)
{
	struct call *c, *then;

	for (c = TAILQ_FIRST(&r->calls); c; c = then) {
		then = TAILQ_NEXT(c, next);
		if (!c->waiting || send_call(r, c) < 0)
			continue;
		c->waiting = false;
		r->n_waiting--;
		c->sent_ms = clock_mono_ms();
		c->until_ms = c->sent_ms + c->span_ms;
	}
}

/* One call past its deadline, or NULL. */
static struct call *overdue(struct redis *r, uint64_t now)
{
	struct call *c;

	TAILQ_FOREACH(c, &r->calls, next)
	if (c->until_ms <= now)
		return c;
	return NULL;
}

static void on_scan(void *arg)
{
	struct redis *r = arg;
	uint64_t now = clock_mono_ms();
	struct call *c;
	struct err e;

	enter(r);
	r->scanning = false;
	if (r->shaking && now >= r->shake_until_ms) {
		err_set(&e, ERR_NET, "Redis at %s: no answer to the handshake within %d ms",
			resp_addr(r->resp), HELLO_MS);
		resp_drop(r->resp, &e);
	}
	while (!r->dead && (c = overdue(r, now))) {
		if (c->waiting) {
			r->n_waiting--;
			if (r->why.code)
				e = r->why;
			else
				err_set(&e, ERR_NET, "Redis at %s: not connected yet",
					resp_addr(r->resp));
			answer(c, NULL, &e);
			call_free(c); /* it has no place in line */
			continue;
		}
		err_set(&e, ERR_NET, "Redis at %s: no answer within %llu ms", resp_addr(r->resp),
			(unsigned long long)(now - c->sent_ms));
		if (!r->stalled && resp_heard_ms(r->resp) <= c->sent_ms) {
			r->stalled = true;
			r->stalled_ms = now;
			answer(c, NULL, &e);
			if (!r->dead)
				tell(r, &e);
		} else {
			answer(c, NULL, &e);
		}
	}
	if (!r->dead && r->stalled && now - r->stalled_ms >= STALL_MS) {
		err_set(&e, ERR_NET, "Redis at %s: silent for %d ms", resp_addr(r->resp), STALL_MS);
		resp_drop(r->resp, &e);
	}
	if (!r->dead && (!TAILQ_EMPTY(&r->calls) || r->shaking || r->stalled))
		scan_soon(r, SCAN_MS);
	leave(r);
}

static struct call *call_new(struct redis *r, int script, uint64_t deadline_ms,
			     struct resp_args *args, redis_fn *on, void *arg)
{
	struct call *c = mem_zalloc(sizeof(*c));

	c->redis = r;
	c->on = on;
	c->arg = arg;
	c->script = script;
	c->span_ms = deadline_ms ? deadline_ms : DEADLINE_MS;
	c->until_ms = clock_mono_ms() + c->span_ms;
	c->args = *args;
	resp_args_init(args);
	return c;
}

static void encode(struct resp_args *to, size_t argc, const char *const *argv, const size_t *lens)
{
	resp_args_init(to);
	for (size_t i = 0; i < argc; i++)
		resp_arg(to, argv[i], lens ? lens[i] : strlen(argv[i]));
}

void redis_call(struct redis *r, uint64_t deadline_ms, size_t argc, const char *const *argv,
		const size_t *lens, redis_fn *on, void *arg)
{
	struct resp_args a;

	encode(&a, argc, argv, lens);
	submit(r, call_new(r, -1, deadline_ms, &a, on, arg));
}

void redis_script_args(struct redis *r, const char *name, uint64_t deadline_ms, struct resp_args *a,
		       redis_fn *on, void *arg)
{
	int script = script_find(name);

	if (script < 0)
		abort();
	submit(r, call_new(r, script, deadline_ms, a, on, arg));
}

void redis_script(struct redis *r, const char *name, uint64_t deadline_ms, size_t argc,
		  const char *const *argv, const size_t *lens, redis_fn *on, void *arg)
{
	struct resp_args a;

	encode(&a, argc, argv, lens);
	redis_script_args(r, name, deadline_ms, &a, on, arg);
}

/* ---- the handshake */

static void refuse(struct redis *r, enum err_code code, const char *text, const char *detail)
{
	struct err e;

	err_class(&e, code, CLASS_FINAL, "Redis at %s: %s%s", resp_addr(r->resp), text, detail);
	resp_drop(r->resp, &e);
}

/* The value of "name:" in INFO's answer, up to the line's end. */
static bool info_value(const char *info, const char *name, char *to, size_t n)
{
	size_t len = strlen(name), k;
	const char *at = info;

	for (; at; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, name, len) == 0 && at[len] == ':')
			break;
	}
	if (!at)
		return false;
	at += len + 1;
	k = strcspn(at, "\r\n");
	snprintf(to, n, "%.*s", (int)k, at);
	str_clean(to);
	return true;
}

static void failed_step(struct redis *r, const struct reply *reply, const char *what)
{
	struct err e;

	meaning(r, reply, &e);
	if (e.code == ERR_DENIED)
		e.class = CLASS_FINAL;
	if (is_error(reply, "NOAUTH"))
		refuse(r, ERR_DENIED, "it wants a login: set redis.password_file", "");
	else if (str_eq(what, "login"))
		refuse(r, ERR_DENIED, "login refused: ", reply->str);
	else if (e.code == ERR_DENIED && str_eq(what, "hello"))
		refuse(r, ERR_DENIED, "this user may not use " REDIS_PREFIX "*: ", reply->str);
	else
		resp_drop(r->resp, &e);
}

static void on_login(const struct reply *reply, const struct err *e, void *arg)
{
	if (reply && reply->kind == REPLY_ERROR)
		failed_step(arg, reply, "login");
}

static void on_select(const struct reply *reply, const struct err *e, void *arg)
{
	struct redis *r = arg;

	if (!reply || reply->kind != REPLY_ERROR)
		return;
	if (is_error(reply, "NOAUTH") || is_error(reply, "LOADING"))
		failed_step(r, reply, "select");
	else
		refuse(r, ERR_DENIED, "redis.db cannot be used: ", reply->str);
}

static void on_name(const struct reply *reply, const struct err *e, void *arg)
{
	/* Refused by a narrow ACL: the name is only for people who look at CLIENT LIST. */
}

static void on_info(const struct reply *reply, const struct err *e, void *arg)
{
	struct redis *r = arg;
	char v[64] = "";

	if (!reply)
		return;
	if (reply->kind == REPLY_ERROR) {
		failed_step(r, reply, "info");
		return;
	}
	if (reply->kind != REPLY_STR || !info_value(reply->str, "redis_version", v, sizeof(v))) {
		refuse(r, ERR_UNSUPPORTED, "its INFO names no redis_version: is this a Redis?", "");
		return;
	}
	if (strtoul(v, NULL, 10) < 7) {
		refuse(r, ERR_UNSUPPORTED, "Redis 7.0 or newer is needed, this is ", v);
		return;
	}
	if (info_value(reply->str, "maxmemory_policy", v, sizeof(v)) &&
	    strcmp(v, "noeviction") != 0) {
		refuse(r, ERR_UNSUPPORTED,
		       "maxmemory-policy must be noeviction, or accepted tasks get lost; it is ",
		       v);
		return;
	}
	if (info_value(reply->str, "aof_enabled", v, sizeof(v)) && strcmp(v, "0") == 0 &&
	    !r->lost_ms)
		log_warning("redis keeps no append-only file: a restart of it loses tasks",
			    F_MODULE("redis"), F_STR("addr", resp_addr(r->resp)), NULL);
}

static void on_appendfsync(const struct reply *reply, const struct err *e, void *arg)
{
	struct redis *r = arg;
	const char *v = NULL;

	if (!reply)
		return;
	if (reply->kind == REPLY_ARRAY && reply->n == 2 && reply->element[1]->kind == REPLY_STR)
		v = reply->element[1]->str;
	if (!v)
		log_warning("redis.durability is fsync, but this user may not ask whether "
			    "appendfsync is always",
			    F_MODULE("redis"), NULL);
	else if (strcmp(v, "always") != 0)
		refuse(r, ERR_UNSUPPORTED,
		       "redis.durability is fsync: appendfsync must be always; it is ", v);
}

static void on_hello(const struct reply *reply, const struct err *e, void *arg)
{
	struct redis *r = arg;
	const char *word;
	char list[300] = "", n[32];

	if (!reply)
		return;
	if (reply->kind == REPLY_ERROR) {
		failed_step(r, reply, "hello");
		return;
	}
	word = reply->kind == REPLY_ARRAY && reply->n && reply->element[0]->kind == REPLY_STR
		       ? reply->element[0]->str
		       : "";
	for (size_t i = 1; reply->kind == REPLY_ARRAY && i < reply->n; i++)
		if (reply->element[i]->kind == REPLY_STR &&
		    strlen(list) + reply->element[i]->n + 3 < sizeof(list)) {
			strcat(list, list[0] ? ", " : "");
			strcat(list, reply->element[i]->str);
		}
	str_clean(list);
	snprintf(n, sizeof(n), "; this program's is %d", SCHEMA);
	if (str_eq(word, "NOPERM")) {
		refuse(r, ERR_DENIED, "this user may not use " REDIS_PREFIX "* with ", list);
	} else if (str_eq(word, "SCHEMA")) {
		strcat(list, n);
		refuse(r, ERR_UNSUPPORTED, "the queue's schema is ", list);
	} else if (str_eq(word, "WRITER")) {
		strcat(list, n);
		refuse(r, ERR_UNSUPPORTED, "the queue wants programs of schema ", list);
	} else if (!str_eq(word, "OK")) {
		refuse(r, ERR_BUG, "an unknown answer to hello", "");
	} else {
		r->ready = true;
		r->shaking = false;
		err_clear(&r->why);
		resp_settled(r->resp);
		enter(r);
		tell(r, NULL);
		if (!r->dead && r->ready)
			flush_waiting(r);
		leave(r);
	}
}

static void shake(struct redis *r, size_t argc, const char *const *argv, resp_fn *on)
{
	size_t lens[6];

	for (size_t i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	resp_send(r->resp, argc, argv, lens, on, r); /* just opened: it takes what it gets */
}

static void on_open(void *arg)
{
	struct redis *r = arg;
	char db[16], schema[16];

	r->shaking = true;
	r->shake_until_ms = clock_mono_ms() + HELLO_MS;
	scan_soon(r, SCAN_MS);
	if (r->password && r->username)
		shake(r, 3, (const char *[]){"AUTH", r->username, secret_value(r->password)},
		      on_login);
	else if (r->password)
		shake(r, 2, (const char *[]){"AUTH", secret_value(r->password)}, on_login);
	if (r->db) {
		snprintf(db, sizeof(db), "%u", r->db);
		shake(r, 2, (const char *[]){"SELECT", db}, on_select);
	}
	shake(r, 3, (const char *[]){"CLIENT", "SETNAME", r->name}, on_name);
	shake(r, 1, (const char *[]){"INFO"}, on_info);
	if (r->durability == DURABILITY_FSYNC)
		shake(r, 3, (const char *[]){"CONFIG", "GET", "appendfsync"}, on_appendfsync);
	snprintf(schema, sizeof(schema), "%d", SCHEMA);
	shake(r, 5,
	      (const char *[]){"EVAL", scripts[script_find("hello")].text, "1", meta_key, schema},
	      on_hello);
}

static void on_lost(const struct err *why, void *arg)
{
	struct redis *r = arg;

	enter(r);
	if (r->ready || !r->lost_ms)
		r->lost_ms = clock_mono_ms();
	r->ready = r->shaking = r->stalled = false;
	tell(r, why);
	leave(r);
}

int redis_open(struct redis **to, struct loop *l, const struct settings *s, const char *client_name,
	       void (*on_state)(bool ready, const struct err *why, void *arg), void *arg,
	       struct err *e)
{
	struct redis *r;
	char sha[41];
	struct resp_opts o = {
		.addr = s->redis.addr,
		.tls = s->redis.tls,
		.ca_file = s->redis.ca_file,
		.cert_file = s->redis.cert_file,
		.key_file = s->redis.key_file,
	};

	if (!o.addr)
		return err_set(e, ERR_INVALID, "redis.addr is not set");
	r = mem_zalloc(sizeof(*r));
	TAILQ_INIT(&r->calls);
	r->loop = l;
	r->name = mem_strdup(client_name);
	r->username = mem_strdup(s->redis.username);
	r->password = secret_dup(s->redis.password);
	r->db = s->redis.db;
	r->durability = s->redis.durability;
	r->on_state = on_state;
	r->arg = arg;
	resp_args_init(&r->nothing);
	for (int i = 0; i < SCRIPTS; i++) {
		script_sha1(scripts[i].text, sha);
		script_head(&r->evalsha[i], "EVALSHA", sha);
	}
	r->depth = 1;
	if (resp_open(&r->resp, l, &o, on_open, on_lost, r, e) < 0) {
		r->dead = true;
		leave(r);
		return -1;
	}
	r->depth = 0;
	r->scan = loop_timer(l, 1u << 30, 0, on_scan, r);
	*to = r;
	return 0;
}

void redis_freep(struct redis **to)
{
	struct redis *r = *to;
	struct call *c;
	struct err e;

	if (!r)
		return;
	*to = NULL;
	enter(r);
	r->dead = true;
	r->ready = false;
	loop_timer_freep(&r->scan);
	resp_freep(&r->resp); /* tells all that were sent */
	err_set(&e, ERR_CANCELLED, "the connection to Redis was given up");
	while ((c = TAILQ_FIRST(&r->calls))) {
		answer(c, NULL, &e);
		call_free(c);
	}
	leave(r);
}
