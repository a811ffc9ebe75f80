/* accelctl/connect.c - see connect.h. */
#include "accelctl/connect.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/err.h"
#include "common/http.h"
#include "common/imageref.h"
#include "common/mem.h"
#include "common/secret.h"
#include "common/str.h"
#include "worker/backend/backend.h"
#include "worker/registry/credentials.h"
#include "worker/registry/registry.h"

static int load(struct settings **s, const char *path, struct err *e)
{
	struct config_report r = {0};
	int rc;

	if (!path) {
		*s = settings_default();
		return 0;
	}
	if (access(path, R_OK) < 0)
		return err_set(e, ERR_INVALID, "load config: %s: open %s: %s", path, path,
			       errno == ENOENT ? "no such file or directory" : strerror(errno));
	rc = config_load(s, path, &r);
	for (size_t i = 0; rc < 0 && i < r.n; i++)
		if (r.p[i].fatal) {
			err_set(e, ERR_INVALID, "load config: %s: %s", r.p[i].where, r.p[i].text);
			if (r.n_fatal > 1)
				err_wrap(e, "first of %zu errors (see accelctl config check)",
					 r.n_fatal);
			break;
		}
	config_report_fini(&r);
	return rc;
}

static struct source_settings *source_of(struct settings *s, const char *host)
{
	struct source_settings *x;

	for (size_t i = 0; i < s->n_sources; i++)
		if (str_eq(s->source[i].host, host))
			return &s->source[i];
	s->source = mem_resize(s->source, s->n_sources + 1, sizeof(*s->source));
	x = &s->source[s->n_sources++];
	*x = (struct source_settings){.host = mem_strdup(host),
				      .plain_http = imageref_host_is_loopback(host)};
	return x;
}

int connect_settings(struct settings **out, const char *path, const char *host, struct err *e)
{
	struct settings *s = NULL;
	struct source_settings *x;
	struct credentials c = {0};

	if (load(&s, path, e) < 0)
		return -1;
	x = source_of(s, host);
	if (!x->username && !x->password) {
		if (credentials_find(&c, host, e) < 0) {
			settings_freep(&s);
			return -1;
		}
		x->username = c.identity_token ? secret_new("<token>", 7) : secret_dup(c.username);
		x->password = secret_dup(c.identity_token ? c.identity_token : c.password);
		credentials_fini(&c);
	}
	*out = s;
	return 0;
}

int connect_reference(struct imageref *r, const char *text, struct err *e)
{
	if (imageref_parse(r, text, e) < 0)
		return -1;
	if (!r->tag[0] && !digest_is_set(&r->digest))
		str_copy(r->tag, sizeof(r->tag), "latest");
	return 0;
}

int connect_open(struct connection *c, const char *config, const struct imageref *ref,
		 struct err *e)
{
	const struct registry_opts o = {0};

	memset(c, 0, sizeof(*c));
	if (connect_settings(&c->settings, config, ref->host, e) < 0)
		return -1;
	if (http_open(&c->http, 16, e) < 0 ||
	    registry_open(&c->registry, c->http, settings_source(c->settings, ref->host), &o, e) <
		    0) {
		connect_close(c);
		return -1;
	}
	return 0;
}

static bool named_before(const struct rules *r, size_t rule, size_t target)
{
	const struct nydus_options *o = &r->rule[rule].targets[target].nydus;

	for (size_t i = 0; i <= rule; i++)
		for (size_t k = 0; k < (i < rule ? r->rule[i].n_targets : target); k++) {
			const struct target *x = &r->rule[i].targets[k];

			if (backend_wanted(x) && x->nydus.backend == o->backend &&
			    str_eq(x->nydus.backend_config, o->backend_config))
				return true;
		}
	return false;
}

void connect_backends(struct connection *c)
{
	const struct rules *r = &c->settings->rules;

	for (size_t i = 0; i < r->n; i++)
		for (size_t k = 0; k < r->rule[i].n_targets; k++) {
			const struct target *t = &r->rule[i].targets[k];
			struct err e = {0};

			if (!backend_wanted(t) || named_before(r, i, k))
				continue;
			c->backend =
				mem_resize(c->backend, c->n_backends + 1, sizeof(struct backend *));
			if (backend_open(&c->backend[c->n_backends], c->http, t, &e) < 0)
				fprintf(stderr, "accelctl: not looked into: %s\n", e.text);
			else
				c->n_backends++;
		}
}

void connect_close(struct connection *c)
{
	for (size_t i = 0; i < c->n_backends; i++)
		backend_freep(&c->backend[i]);
	free(c->backend);
	registry_freep(&c->registry);
	http_freep(&c->http);
	settings_freep(&c->settings);
}

/* ---- signals: a thread waits for them, so that nothing is done inside a handler */
struct catcher {
	atomic_int *stop;
	struct http *http;
	sigset_t set;
};

static void *catcher_thread(void *arg)
{
	struct catcher *c = arg;
	int sig;

	sigwait(&c->set, &sig);
	atomic_store(c->stop, ERR_CANCELLED);
	http_cancel_all(c->http);
	sigwait(&c->set, &sig);
	if (isatty(STDERR_FILENO))
		fputs("\033[?25h", stderr);
	_exit(128 + sig);
}

static void set_of_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP); /* the terminal was closed */
}

void connect_block_signals(void)
{
	sigset_t set;

	set_of_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int connect_catch_signals(atomic_int *stop, struct http *http, struct err *e)
{
	static struct catcher c; /* lives as long as the process, as its thread does */
	pthread_t t;
	int rc;

	c.stop = stop;
	c.http = http;
	set_of_signals(&c.set);
	rc = pthread_create(&t, NULL, catcher_thread, &c);
	if (rc)
		return err_errno(e, rc, "start a thread");
	pthread_detach(t);
	return 0;
}
