/* worker/taskproc.c - see taskproc.h and, for the packets, packet.h. */
#include "worker/taskproc.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/http.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/startup.h"
#include "common/str.h"
#include "common/task.h"
#include "worker/backend/backend.h"
#include "worker/cache.h"
#include "worker/convert/convert.h"
#include "worker/packet.h"
#include "worker/publish.h"
#include "worker/sandbox.h"

#define PROGRESS_EVERY_MS 1000

struct proc {
	char id[TASK_ID];
	struct settings *settings;
	struct task_request request;
	struct http *http;
	struct convert_job job;
	struct cache cache; /* what the supervisor keeps for us; handed out as struct cache * */
	char request_id[64];
	atomic_int stop;
	uint64_t progress_ms;

	pthread_mutex_t lock; /* of the socket's writing side and of what follows */
	pthread_cond_t answered;
	int64_t asked;	    /* number of the last ask */
	struct json *reply; /* to that one, when it came */
	bool gone;	    /* the supervisor went away */
};

/* ---- asking */

static int send_locked(struct proc *p, struct json *j, struct err *e)
{
	int rc = packet_send(PACKET_FD, j, e);

	json_freep(&j);
	return rc;
}

static void tell(struct proc *p, struct json *j)
{
	pthread_mutex_lock(&p->lock);
	send_locked(p, j, NULL);
	pthread_mutex_unlock(&p->lock);
}

static struct json *packet(const char *type)
{
	struct json *j = json_new_object();

	json_set_str(j, "t", type);
	return j;
}

/* An error in a reply: {"error":{"code","class","text"}}. */
static int reply_error(const struct json *reply, struct err *e)
{
	struct json *x = json_get(reply, "error");
	const char *code = "bug", *class = "retry", *text = "the supervisor says nothing";
	enum err_class c = CLASS_RETRY;

	if (!x)
		return 0;
	json_opt_str(x, "code", "error", &code, NULL);
	json_opt_str(x, "class", "error", &class, NULL);
	json_opt_str(x, "text", "error", &text, NULL);
	err_class_parse(class, &c);
	return err_class(e, err_code_of(code), c, "%s", text);
}

/* Takes j.  One ask at a time; others wait for the lock's turn. */
static struct json *ask(struct proc *p, const char *what, struct json *j, struct err *e)
{
	static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
	struct json *reply = NULL;

	pthread_mutex_lock(&turn);
	pthread_mutex_lock(&p->lock);
	json_set_str(j, "what", what);
	json_set_int(j, "n", ++p->asked);
	if (!p->gone && send_locked(p, j, e) == 0) {
		while (!p->reply && !p->gone)
			pthread_cond_wait(&p->answered, &p->lock);
		reply = take_ptr(p->reply);
	}
	if (!reply)
		err_set(e, ERR_CANCELLED, "the supervisor went away");
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_unlock(&turn);
	if (reply && reply_error(reply, e) < 0)
		json_freep(&reply);
	return reply;
}

static struct json *about(const struct imageref *target)
{
	char text[IMAGEREF_TEXT];
	struct json *j = packet("ask");

	json_set_str(j, "target", imageref_text(target, text));
	return j;
}

static int ask_ticket(void *arg, const struct imageref *target, uint64_t *ticket, struct err *e)
{
	scoped(json_freep) struct json *r = ask(arg, "ticket", about(target), e);
	int64_t v;

	if (!r || json_int(r, "ticket", "reply", &v, e) < 0)
		return -1;
	*ticket = (uint64_t)v;
	return 0;
}

static const char *const permissions[] = {
	[PERMIT_GRANTED] = "granted",	[PERMIT_SUPERSEDED] = "superseded", [PERMIT_BUSY] = "busy",
	[PERMIT_WAIT] = "wait",		[PERMIT_CANCELLED] = "cancelled",   [PERMIT_LOST] = "lost",
	[PERMIT_CONFLICT] = "conflict",
};

static int ask_publish(void *arg, const struct imageref *target, uint64_t ticket,
		       const struct digest *d, size_t n, struct grant *g, struct err *e)
{
	struct json *j = about(target), *list = json_new_array();
	scoped(json_freep) struct json *r = NULL;
	const char *word, *other = "";
	char text[DIGEST_TEXT];
	int64_t until = 0;

	for (size_t i = 0; i < n; i++)
		json_append(list, json_new_str(digest_text(&d[i], text)));
	json_set(j, "digests", list);
	json_set_int(j, "ticket", (int64_t)ticket);
	r = ask(arg, "publish", j, e);
	memset(g, 0, sizeof(*g));
	if (!r || json_str(r, "permission", "reply", &word, e) < 0 ||
	    json_opt_int(r, "until_boot_ms", "reply", &until, e) < 0 ||
	    json_opt_bool(r, "takeover", "reply", &g->takeover, e) < 0 ||
	    json_opt_str(r, "other", "reply", &other, e) < 0)
		return -1;
	g->until_boot_ms = (uint64_t)until;
	str_copy(g->other, sizeof(g->other), other);
	for (size_t i = 0; i < sizeof(permissions) / sizeof(*permissions); i++)
		if (strcmp(permissions[i], word) == 0) {
			g->permission = (enum permission)i;
			return 0;
		}
	return err_set(e, ERR_BUG, "reply: permission '%.40s'", word);
}

static int tell_release(void *arg, const struct imageref *target, struct err *e)
{
	struct json *j = about(target);

	json_set_str(j, "t", "unlock");
	tell(arg, j);
	return 0;
}

static int ask_moved(void *arg, const struct digest *now, struct err *e)
{
	struct json *j = packet("ask");
	scoped(json_freep) struct json *r = NULL;
	char text[DIGEST_TEXT];

	json_set_str(j, "digest", digest_text(now, text));
	r = ask(arg, "moved", j, e);
	return r ? 0 : -1;
}

/* ---- the layer cache, which the supervisor keeps in Redis */

static struct proc *proc_of(struct cache *c)
{
	return (struct proc *)((char *)c - offsetof(struct proc, cache));
}

static struct json *about_layer(const char *key, const struct digest *source)
{
	struct json *j = packet("ask");
	char text[DIGEST_TEXT];

	json_set_str(j, "key", key);
	if (source)
		json_set_str(j, "source", digest_text(source, text));
	return j;
}

static int cache_get(struct cache *c, const char *key, const struct digest *source,
		     struct cache_entry *x, struct err *e)
{
	scoped(json_freep) struct json *r =
		ask(proc_of(c), "cache_get", about_layer(key, source), e);

	if (!r)
		return -1;
	if (!json_get(r, "entry"))
		return 0;
	return cache_entry_from_json(x, json_get(r, "entry"), e) < 0 ? -1 : 1;
}

static int cache_put(struct cache *c, const char *key, const struct digest *source,
		     const struct cache_entry *x, struct err *e)
{
	struct json *j = about_layer(key, source);
	scoped(json_freep) struct json *r = NULL;

	json_set(j, "entry", cache_entry_to_json(x));
	r = ask(proc_of(c), "cache_put", j, e);
	return r ? 0 : -1;
}

static void cache_forget(struct cache *c, const char *key)
{
	struct json *r = ask(proc_of(c), "cache_forget", about_layer(key, NULL), NULL);

	json_freep(&r);
}

static int cache_lease(struct cache *c, const char *key, uint64_t *retry_ms, struct err *e)
{
	scoped(json_freep) struct json *r =
		ask(proc_of(c), "cache_lease", about_layer(key, NULL), e);
	int64_t ms = 0;

	if (!r || json_opt_int(r, "retry_ms", "reply", &ms, e) < 0)
		return -1;
	*retry_ms = (uint64_t)ms;
	return ms == 0;
}

static void cache_release(struct cache *c, const char *key)
{
	struct json *r = ask(proc_of(c), "cache_release", about_layer(key, NULL), NULL);

	json_freep(&r);
}

static void cache_free(struct cache *c)
{
}

static const struct cache_ops cache_ops = {
	.get = cache_get,
	.put = cache_put,
	.forget = cache_forget,
	.lease = cache_lease,
	.release = cache_release,
	.free = cache_free,
};

/* ---- telling */

static void tell_layer(void *arg, const struct layer_progress *l,
		       const struct convert_progress *all)
{
	struct proc *p = arg;
	uint64_t now = clock_mono_ms();
	struct json *j;
	char text[65];

	if (now - p->progress_ms < PROGRESS_EVERY_MS && all->layers_done != all->layers_total)
		return;
	p->progress_ms = now;
	snprintf(text, sizeof(text), "%u/%u %llu/%llu %llu", all->layers_done, all->layers_total,
		 (unsigned long long)all->in_bytes, (unsigned long long)all->in_total,
		 (unsigned long long)all->out_bytes);
	j = packet("progress");
	json_set_str(j, "text", text);
	tell(p, j);
}

/* Upstream's lines, so that those who watch its log find them here. */
static void tell_step(void *arg, enum convert_step step, const struct imageref *target,
		      uint64_t elapsed_ns, uint32_t cached, uint32_t layers)
{
	static const char *const words[] = {"pulling image",   "pulled image",	"converting image",
					    "converted image", "pushing image", "pushed image"};
	struct proc *p = arg;
	char ref[IMAGEREF_TEXT], d[CLOCK_TEXT];
	scoped_free char *text = NULL;

	imageref_text(target ? target : &p->request.source, ref);
	clock_go_duration(d, elapsed_ns);
	if (step == STEP_PULLING || step == STEP_CONVERTING || step == STEP_PUSHING)
		text = mem_printf("%s %s", words[step], ref);
	else
		text = mem_printf("%s %s, elapse %s", words[step], ref, d);
	log_info(text, NULL);
}

static void tell_warning(void *arg, const char *msg, const char *key, const char *value)
{
	log_warning(msg, F_STR(key ? key : "detail", value ? value : ""), NULL);
}

static void tell_pause(const char *host, uint64_t ms, void *arg)
{
	struct json *j = packet("pause");

	json_set_str(j, "host", host);
	json_set_int(j, "ms", (int64_t)ms);
	tell(arg, j);
}

static void tell_result(struct proc *p, int rc, const struct convert_result *r, const struct err *e)
{
	struct json *j = packet("result");
	uint64_t size = 0;

	for (size_t i = 0; i < r->n_targets; i++)
		size += r->targets[i].size;
	if (rc == 0) {
		json_set_str(j, "class", r->skipped ? "skipped" : "done");
		json_set_str(j, "reason", r->reason);
	} else {
		json_set_str(j, "class",
			     e->class == CLASS_SKIP ? "skipped" : err_class_name(e->class));
		json_set_str(j, "code", err_slug(e->code));
		json_set_str(j, "reason", e->text);
		json_set_int(j, "retry_after_ms", (int64_t)e->retry_after_ms);
		json_set_bool(j, "missing_source",
			      e->code == ERR_NOTFOUND && !digest_is_set(&r->source_digest));
	}
	json_set_int(j, "source_size", (int64_t)r->source_size);
	json_set_int(j, "target_size", (int64_t)size);
	json_set(j, "detail", convert_result_to_json(r));
	tell(p, j);
}

/* ---- the start packet */

static int opt_secret(const struct json *j, const char *key, struct secret **to, struct err *e)
{
	const char *v = NULL;

	if (json_opt_str(j, key, "source", &v, e) < 0)
		return -1;
	*to = v ? secret_new(v, strlen(v)) : NULL;
	return 0;
}

static int opt_text(const struct json *j, const char *key, char **to, struct err *e)
{
	const char *v = NULL;

	if (json_opt_str(j, key, "source", &v, e) < 0)
		return -1;
	*to = mem_strdup(v);
	return 0;
}

static int read_source(struct source_settings *s, const struct json *j, struct err *e)
{
	const char *host;

	if (json_str(j, "host", "source", &host, e) < 0)
		return -1;
	s->host = mem_strdup(host);
	if (opt_secret(j, "username", &s->username, e) < 0 ||
	    opt_secret(j, "password", &s->password, e) < 0 ||
	    opt_text(j, "ca_file", &s->ca_file, e) < 0 ||
	    opt_text(j, "cert_file", &s->cert_file, e) < 0 ||
	    opt_text(j, "key_file", &s->key_file, e) < 0 ||
	    opt_text(j, "endpoint", &s->endpoint, e) < 0 ||
	    opt_text(j, "realm", &s->realm, e) < 0 ||
	    json_opt_bool(j, "plain_http", "source", &s->plain_http, e) < 0 ||
	    json_opt_bool(j, "insecure", "source", &s->insecure, e) < 0)
		return -1;
	return 0;
}

static int read_sources(struct settings *s, const struct json *start, struct err *e)
{
	struct json *list;

	if (json_array(start, "sources", "start", &list, e) < 0)
		return -1;
	s->source = mem_array(json_len(list) + 1, sizeof(*s->source));
	for (size_t i = 0; i < json_len(list); i++) {
		s->n_sources++;
		if (read_source(&s->source[i], json_at(list, i), e) < 0)
			return -1;
	}
	return 0;
}

/* backends[i]: the key to what the request's target i names, from this worker's configuration.
 * What it does not have is not used, whoever asks: a request could name any folder. */
static int read_backends(struct proc *p, const struct json *start, struct err *e)
{
	struct json *list;

	if (json_array(start, "backends", "start", &list, e) < 0)
		return -1;
	for (size_t i = 0; i < p->request.n_targets; i++) {
		struct target *t = &p->request.targets[i];
		const struct json *j = json_at(list, i);

		if (!backend_wanted(t))
			continue;
		if (!j)
			return err_class(e, ERR_DENIED, CLASS_WAIT,
					 "no backend_type %s with this backend_config here",
					 storage_kind_name(t->nydus.backend));
		if (t->nydus.backend != NYDUS_LOCALFS && !json_get(j, "access_key_id"))
			return err_class(e, ERR_DENIED, CLASS_WAIT,
					 "no access_key_id for this backend_config here");
		if (opt_secret(j, "access_key_id", &t->nydus.backend_key_id, e) < 0 ||
		    opt_secret(j, "access_key_secret", &t->nydus.backend_key_secret, e) < 0)
			return -1;
	}
	return 0;
}

static int read_start(struct proc *p, const struct json *start, uint64_t *cpu_seconds,
		      struct err *e)
{
	scoped(buf_fini) struct buf text = BUF_INIT(PACKET_BYTES);
	int64_t cpus = 1, memory, max_image, verify, timeout, must = 0, cache_size = 0;
	const char *id, *cache_version;

	if (json_str(start, "id", "start", &id, e) < 0 ||
	    json_int(start, "cpus", "start", &cpus, e) < 0 ||
	    json_int(start, "memory", "start", &memory, e) < 0 ||
	    json_int(start, "max_image_size", "start", &max_image, e) < 0 ||
	    json_int(start, "cache_size", "start", &cache_size, e) < 0 ||
	    json_str(start, "cache_version", "start", &cache_version, e) < 0 ||
	    json_int(start, "verify", "start", &verify, e) < 0 ||
	    json_int(start, "timeout_ms", "start", &timeout, e) < 0 ||
	    json_opt_int(start, "must_publish", "start", &must, e) < 0 ||
	    json_write(json_get(start, "request"), JSON_SORTED, &text, e) < 0 ||
	    task_request_parse(&p->request, text.data, text.len, e) < 0)
		return -1;
	str_copy(p->id, sizeof(p->id), id);
	p->settings = settings_default();
	p->settings->cache_size = (uint32_t)cache_size;
	free(p->settings->cache_version);
	p->settings->cache_version = mem_strdup(cache_version);
	if (read_sources(p->settings, start, e) < 0 || read_backends(p, start, e) < 0)
		return -1;
	snprintf(p->request_id, sizeof(p->request_id), "accel-%s", p->id);
	p->job = (struct convert_job){
		.source = p->request.source,
		.pinned = p->request.pinned,
		.rule = p->request.rule,
		.targets = p->request.targets,
		.n_targets = p->request.n_targets,
		.platforms = p->request.platforms,
		.settings = p->settings,
		.verify = (enum verify_mode)verify,
		.threads = (uint32_t)cpus,
		.memory = (uint64_t)memory,
		.max_image_size = (uint64_t)max_image,
		.request_id = p->request_id,
		.must_publish = must != 0,
		.stop = &p->stop,
		.cache = &p->cache,
		.on_pause = tell_pause,
		.pause_arg = p,
	};
	*cpu_seconds = (uint64_t)timeout / 1000 * (uint64_t)cpus + 60;
	return 0;
}

/* ---- the two threads */

static void *convert_thread(void *arg)
{
	struct proc *p = arg;
	const struct publish_ops publish = {.ticket = ask_ticket,
					    .ask = ask_publish,
					    .release = tell_release,
					    .moved = ask_moved,
					    .arg = p};
	const struct convert_ops ops = {
		.step = tell_step, .layer = tell_layer, .warn = tell_warning, .arg = p};
	struct convert_result r;
	struct err e = {0};
	int rc;

	log_bind_task(p->id);
	convert_result_init(&r);
	p->job.publish = &publish;
	p->job.ops = &ops;
	rc = convert_image(&p->job, &r, &e);
	tell_result(p, rc, &r, &e);
	convert_result_fini(&r);
	/* The main thread waits in recv: closing our writing side tells the supervisor that all was
	 * said. */
	shutdown(PACKET_FD, SHUT_WR);
	return NULL;
}

static void stop(struct proc *p, enum err_code why)
{
	int none = 0;

	atomic_compare_exchange_strong(&p->stop, &none, (int)why);
	http_cancel_all(p->http);
}

/* Until the supervisor closes its side, which it does after it has our result. */
static void hear(struct proc *p, struct packet_reader *reader)
{
	struct json *j = NULL;
	struct err e;

	while (packet_read(reader, PACKET_FD, &j, &e) == 1) {
		const char *t = packet_type(j);

		if (strcmp(t, "reply") == 0) {
			pthread_mutex_lock(&p->lock);
			if (!p->reply && json_value_int(json_get(j, "n")) == p->asked) {
				p->reply = take_ptr(j);
				pthread_cond_broadcast(&p->answered);
			}
			pthread_mutex_unlock(&p->lock);
		} else if (strcmp(t, "cancel") == 0 || strcmp(t, "lost") == 0) {
			stop(p, ERR_CANCELLED);
		}
		json_freep(&j);
	}
	pthread_mutex_lock(&p->lock);
	p->gone = true;
	pthread_cond_broadcast(&p->answered);
	pthread_mutex_unlock(&p->lock);
	stop(p, ERR_CANCELLED);
}

/* The folders of localfs backends: made now, and the only ones that stay writable. */
static int prepare_backends(struct proc *p, struct sandbox *box, struct err *e)
{
	for (size_t i = 0; i < p->request.n_targets; i++) {
		const struct target *t = &p->request.targets[i];

		if (!backend_wanted(t) || t->nydus.backend != NYDUS_LOCALFS)
			continue;
		if (backend_prepare(t, e) < 0)
			return -1;
		if (box->n_folders == SANDBOX_FOLDERS)
			return err_set(e, ERR_LIMIT, "more than %d localfs backends in one task",
				       SANDBOX_FOLDERS);
		box->folder[box->n_folders++] = backend_folder(t);
	}
	/* A blob is never larger than what it was made of by more than its tables. */
	box->file_bytes = 2 * p->job.max_image_size;
	return 0;
}

static int begin(struct proc *p, struct packet_reader *reader, struct err *e)
{
	scoped(json_freep) struct json *start = NULL;
	scoped(sandbox_fini) struct sandbox box = {0};
	const char *missing;

	if (packet_read(reader, PACKET_FD, &start, e) != 1 ||
	    strcmp(packet_type(start), "start") != 0)
		return err_set(e, ERR_BUG, "no start packet");
	if (FAULT("task.start", e) < 0 || read_start(p, start, &box.cpu_seconds, e) < 0)
		return -1;
	box.memory = p->job.memory;
	log_bind_task(p->id);
	if (prepare_backends(p, &box, e) < 0)
		return -1;
	if (sandbox_enter(&box, p->settings, &missing, e) < 0)
		return err_wrap(e, "sandbox");
	if (missing)
		log_debug("this kernel lacks a part of the sandbox", F_STR("part", missing), NULL);
	if (http_open(&p->http, 8, e) < 0)
		return -1;
	p->job.http = p->http;
	return 0;
}

int taskproc_main(void)
{
	struct proc p = {.cache = {.ops = &cache_ops},
			 .lock = PTHREAD_MUTEX_INITIALIZER,
			 .answered = PTHREAD_COND_INITIALIZER};
	struct packet_reader reader;
	struct convert_result none;
	struct err e = {0};
	pthread_t t;

	startup_die_with_parent();
	signal(SIGPIPE, SIG_IGN);
	mem_setup();
	log_bind_module("converter");
	packet_reader_init(&reader);
	if (begin(&p, &reader, &e) < 0) {
		convert_result_init(&none);
		tell_result(&p, -1, &none, &e);
	} else if (pthread_create(&t, NULL, convert_thread, &p) != 0) {
		return 1;
	} else {
		hear(&p, &reader);
		pthread_join(t, NULL);
	}
	json_freep(&p.reply);
	http_freep(&p.http);
	task_request_fini(&p.request);
	settings_freep(&p.settings);
	packet_reader_fini(&reader);
	return 0;
}
