/* common/settings.c - a tree of nodes into settings: keys by the table of settings_keys.c,
 * registries and tokens here, rules in settings_rules.c. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/settings_impl.h"
#include "common/str.h"
#include "common/target_json.h"

/* ---- settings without a file */

static uint32_t cpus(void)
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > 1024 ? 1024 : (uint32_t)n;
}

static char *default_work_dir(void)
{
	char *below = NULL;

	if (geteuid() != 0) {
		scoped_free char *state = env_path("XDG_STATE_HOME", ".local/state");

		if (state)
			below = mem_printf("%s/accel", state);
	}
	return below ? below : mem_strdup("/var/lib/accel");
}

struct settings *settings_default(void)
{
	struct settings *s = mem_zalloc(sizeof(*s));
	struct err e = {0};

	for (size_t i = 0; i < settings_n_keys; i++) {
		const struct key *k = &settings_keys[i];

		if (k->def && k->type != KEY_OTHER && key_set(k, s, k->def, &e) < 0)
			assert(!"a default does not parse");
	}
	s->converter.worker = cpus();
	s->work_dir = default_work_dir();
	s->rules.platforms = mem_strdup("");
	return s;
}

static void source_fini(struct source_settings *s)
{
	for (size_t i = 0; i < settings_n_source_keys; i++)
		key_free(&settings_source_keys[i], s);
	free(s->host);
}

void settings_freep(struct settings **sp)
{
	struct settings *s = *sp;

	if (!s)
		return;
	for (size_t i = 0; i < settings_n_keys; i++)
		if (settings_keys[i].size)
			key_free(&settings_keys[i], s);
	for (size_t i = 0; i < s->n_sources; i++)
		source_fini(&s->source[i]);
	free(s->source);
	for (size_t i = 0; i < s->auth.n_tokens; i++) {
		free(s->auth.token[i].name);
		free(s->auth.token[i].sha256);
	}
	free(s->auth.token);
	rules_fini(&s->rules);
	free(s);
	*sp = NULL;
}

const struct source_settings *settings_source(const struct settings *s, const char *host)
{
	for (size_t i = 0; i < s->n_sources; i++)
		if (strcmp(s->source[i].host, host) == 0)
			return &s->source[i];
	return NULL;
}

/* ---- what is wrong, and where */

void loader_say(struct loader *l, enum severity s, const struct node *n, bool at_key,
		const char *path, const char *text)
{
	char where[512];

	config_where(n, at_key, where, sizeof(where));
	config_report_add(l->report, s, where, "%s: %s", path, text);
}

void loader_sayf(struct loader *l, enum severity s, const struct node *n, const char *path,
		 const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	loader_say(l, s, n, false, path, text);
}

/* Unknown keys in these are mistakes; upstream ignored those in its own sections, so we warn there.
 */
static const char *const our_sections[] = {"redis", "queue", "worker", "auth",
					   "log",   "ui",    "rules"};

static bool our_section(const char *path)
{
	size_t n = strcspn(path, ".[");

	for (size_t i = 0; i < COUNT(our_sections); i++)
		if (strlen(our_sections[i]) == n && strncmp(path, our_sections[i], n) == 0)
			return true;
	return false;
}

/* ---- walking a tree */

/* A map whose keys are rows: the whole file, or one registry. */
struct scope {
	const struct key *rows;
	size_t n;
	void *base;
	const char *shown; /* in front of each path in messages: "provider.source.HOST." */
};

static struct scope top_scope(struct loader *l)
{
	return (struct scope){settings_keys, settings_n_keys, l->s, ""};
}

static bool is_section(const struct scope *sc, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < sc->n; i++)
		if (strncmp(sc->rows[i].path, path, n) == 0 && sc->rows[i].path[n] == '.')
			return true;
	return false;
}

/* The nearest name that may stand in the same map; the caller frees. */
static char *nearest(const struct scope *sc, const char *prefix, const char *key)
{
	char *names[SETTINGS_KEYS_MAX] = {0};
	size_t n = 0, len = strlen(prefix);
	char *found;

	for (size_t i = 0; i < sc->n; i++)
		if (strncmp(sc->rows[i].path, prefix, len) == 0)
			names[n++] = mem_strndup(sc->rows[i].path + len,
						 strcspn(sc->rows[i].path + len, "."));
	found = mem_strdup(str_nearest(key, (const char *const *)names, n));
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	return found;
}

void loader_unknown_key(struct loader *l, const struct node *n, const char *path, bool fatal,
			const char *near)
{
	scoped_free char *text = mem_printf("unknown key%s%s%s", near ? "; did you mean " : "",
					    near ? near : "", near ? "?" : "");

	loader_say(l, fatal ? SEVERITY_FATAL : SEVERITY_WARNING, n, true, path, text);
}

void loader_expected(struct loader *l, const struct node *n, const char *path, const char *what)
{
	loader_sayf(l, SEVERITY_FATAL, n, path, "expected %s, found %s", what,
		    node_kind_name(n->kind));
}

static void read_other(struct loader *l, const struct key *k, const struct node *n);

static void read_key(struct loader *l, const struct scope *sc, const struct key *k,
		     const struct node *n)
{
	scoped_free char *path = mem_printf("%s%s", sc->shown, k->path);
	struct err e = {0};

	if (n->kind == NODE_NULL)
		return; /* the default, as if it were not there */
	if (k->type == KEY_REFUSED) {
		loader_say(l, SEVERITY_FATAL, n, true, path, k->note);
	} else if (k->type == KEY_OTHER) {
		read_other(l, k, n);
	} else if (n->kind != NODE_TEXT) {
		loader_expected(l, n, path, "a single value");
	} else if (k->type == KEY_SECRET && n->from_environment) {
		loader_say(l, SEVERITY_FATAL, n, false, path,
			   "a secret is not taken from the environment; name a file in the "
			   "variable with "
			   "_FILE at its end");
	} else if (key_set(k, sc->base, n->text, &e) < 0) {
		loader_say(l, SEVERITY_FATAL, n, false, path, e.text);
	} else if (sc->rows == settings_keys) {
		l->seen[k - settings_keys] = true;
		if (k->note)
			loader_say(l, SEVERITY_NOTE, n, true, path, k->note);
	}
}

static void walk(struct loader *l, const struct scope *sc, const struct node *map,
		 const char *prefix)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct node *n = map->kid[i];
		scoped_free char *path = mem_printf("%s%s", prefix, n->key);
		scoped_free char *full = mem_printf("%s%s", sc->shown, path);
		const struct key *k = key_find(sc->rows, sc->n, path);

		if (k) {
			read_key(l, sc, k, n);
		} else if (!is_section(sc, path)) {
			scoped_free char *near = nearest(sc, prefix, n->key);

			loader_unknown_key(l, n, full, our_section(full), near);
		} else if (n->kind == NODE_MAP) {
			scoped_free char *below = mem_printf("%s.", path);

			walk(l, sc, n, below);
		} else if (n->kind != NODE_NULL) {
			loader_expected(l, n, full, "a map");
		}
	}
}

static const struct node *find(const struct node *root, const char *path)
{
	const struct node *n = root;

	while (n && *path) {
		size_t len = strcspn(path, ".");
		scoped_free char *key = mem_strndup(path, len);

		n = node_get(n, key);
		path += len + (path[len] == '.');
	}
	return n;
}

/* ---- provider.source */

static int check_host(const char *host, char canonical[256], struct err *e)
{
	scoped_free char *text = mem_printf("%s/x", host);
	struct imageref r;

	if (strchr(host, '/') || imageref_parse(&r, text, NULL) < 0)
		return err_set(e, ERR_INVALID, "expected a host, with its port if it has one");
	if (strcmp(r.repository, "x") != 0 && strcmp(r.repository, "library/x") != 0)
		return err_set(e, ERR_INVALID,
			       "no image reference names this host: it needs a dot or a port");
	strcpy(canonical, r.host);
	return 0;
}

static void check_source(struct loader *l, const struct source_settings *s, const struct node *n,
			 const char *path)
{
	if (!s->username != !s->password)
		loader_sayf(l, SEVERITY_FATAL, n, path, "%s without %s",
			    s->username ? "username" : "password",
			    s->username ? "password_file" : "username");
	if (!s->cert_file != !s->key_file)
		loader_sayf(l, SEVERITY_FATAL, n, path, "cert_file and key_file belong together");
	if (s->plain_http && (s->ca_file || s->cert_file || s->insecure) &&
	    !imageref_host_is_loopback(s->host))
		loader_sayf(l, SEVERITY_WARNING, n, path,
			    "plain_http leaves ca_file, cert_file and insecure unused");
	if (s->insecure && s->ca_file)
		loader_sayf(l, SEVERITY_WARNING, n, path, "insecure leaves ca_file unused");
}

static void read_source(struct loader *l, const struct node *n)
{
	scoped_free char *path = mem_printf("provider.source.%s", n->key);
	scoped_free char *below = mem_printf("%s.", path);
	struct settings *s = l->s;
	struct source_settings *to;
	struct err e = {0};
	char host[256];

	if (check_host(n->key, host, &e) < 0) {
		loader_say(l, SEVERITY_FATAL, n, true, path, e.text);
		return;
	}
	if (settings_source(s, host)) {
		loader_say(l, SEVERITY_FATAL, n, true, path, "the same host twice");
		return;
	}
	if (n->kind != NODE_MAP && n->kind != NODE_NULL) {
		loader_expected(l, n, path, "a map");
		return;
	}
	s->source = mem_resize(s->source, s->n_sources + 1, sizeof(*s->source));
	to = &s->source[s->n_sources++];
	memset(to, 0, sizeof(*to));
	to->host = mem_strdup(host);
	to->plain_http = imageref_host_is_loopback(host);
	if (n->kind == NODE_MAP)
		walk(l, &(struct scope){settings_source_keys, settings_n_source_keys, to, below}, n,
		     "");
	check_source(l, to, n, path);
}

/* ---- auth.tokens */

static bool hex64(const char *s)
{
	return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static int read_scope(struct token_settings *t, const char *v)
{
	if (strcmp(v, "read") == 0)
		t->read = true;
	else if (strcmp(v, "write") == 0)
		t->read = t->write = true;
	else if (strcmp(v, "admin") == 0)
		t->read = t->write = t->admin = true;
	else
		return -1;
	return 0;
}

static void read_scopes(struct loader *l, struct token_settings *t, const struct node *n,
			const char *path)
{
	char value[SHOWN];

	if (n->kind == NODE_TEXT && read_scope(t, n->text) == 0)
		return;
	if (n->kind != NODE_LIST) {
		loader_expected(l, n, path, "a list of read, write, admin");
		return;
	}
	for (size_t i = 0; i < n->n; i++)
		if (n->kid[i]->kind != NODE_TEXT || read_scope(t, n->kid[i]->text) < 0)
			loader_sayf(l, SEVERITY_FATAL, n->kid[i], path,
				    "\"%s\": expected read, write or admin",
				    key_shown(n->kid[i]->text, value));
}

static void read_token(struct loader *l, struct token_settings *t, const struct node *n,
		       const char *path)
{
	static const char *const names[] = {"name", "sha256", "scopes"};

	if (n->kind != NODE_MAP) {
		loader_expected(l, n, path, "a map with name, sha256 and scopes");
		return;
	}
	for (size_t i = 0; i < n->n; i++) {
		const struct node *v = n->kid[i];
		scoped_free char *at = mem_printf("%s.%s", path, v->key);

		if (strcmp(v->key, "scopes") == 0)
			read_scopes(l, t, v, at);
		else if (strcmp(v->key, "name") != 0 && strcmp(v->key, "sha256") != 0)
			loader_unknown_key(l, v, at, true,
					   str_nearest(v->key, names, COUNT(names)));
		else if (v->kind != NODE_TEXT)
			loader_expected(l, v, at, "text");
		else if (strcmp(v->key, "name") == 0)
			t->name = mem_strdup(v->text);
		else if (hex64(v->text))
			t->sha256 = mem_strdup(v->text);
		else /* perhaps the token itself: not quoted */
			loader_say(l, SEVERITY_FATAL, v, false, at,
				   "expected the 64 lower-case hex digits of the token's SHA-256");
	}
	if (!t->sha256 && !node_get(n, "sha256"))
		loader_sayf(l, SEVERITY_FATAL, n, path, "without sha256");
	if (!t->read)
		loader_sayf(l, SEVERITY_FATAL, n, path,
			    "without scopes: expected some of read, write, admin");
	if (!t->name)
		t->name = mem_strdup(path);
}

static void read_tokens(struct loader *l, const struct node *n)
{
	struct settings *s = l->s;

	if (n->kind != NODE_LIST) {
		loader_expected(l, n, "auth.tokens", "a list");
		return;
	}
	s->auth.token = mem_array(n->n + 1, sizeof(*s->auth.token));
	s->auth.n_tokens = n->n;
	for (size_t i = 0; i < n->n; i++) {
		scoped_free char *path = mem_printf("auth.tokens[%zu]", i);

		read_token(l, &s->auth.token[i], n->kid[i], path);
	}
}

static void read_other(struct loader *l, const struct key *k, const struct node *n)
{
	if (strcmp(k->path, "provider.source") == 0) {
		if (n->kind != NODE_MAP)
			loader_expected(l, n, k->path, "a map of hosts");
		else
			for (size_t i = 0; i < n->n; i++)
				read_source(l, n->kid[i]);
	} else if (strcmp(k->path, "converter.platforms") == 0) {
		loader_platforms(l, n, k->path, &l->s->rules.platforms);
	} else if (strcmp(k->path, "converter.driver") == 0) {
		if (n->kind == NODE_MAP)
			l->driver = n;
		else
			loader_expected(l, n, k->path, "a map with type and config");
	} else if (strcmp(k->path, "converter.rules") == 0) {
		l->rules = n;
	} else if (strcmp(k->path, "rules") == 0) {
		l->our_rules = n;
	} else {
		read_tokens(l, n);
	}
}

/* ---- what belongs together */

static bool given(const struct loader *l, const char *path)
{
	const struct key *k = key_find(settings_keys, settings_n_keys, path);

	assert(k);
	return l->seen[k - settings_keys];
}

static void conflict(struct loader *l, const struct node *root, const char *path, const char *text)
{
	const struct node *n = find(root, path);

	loader_say(l, SEVERITY_FATAL, n ? n : root, n != NULL, path, text);
}

/* Only hosts in provider.source are ever contacted. */
static void check_dictionary(struct loader *l, const struct node *root, const struct target *t)
{
	char text[IMAGEREF_TEXT + 64];
	struct imageref ref;

	if (t->driver != DRIVER_NYDUS || !t->nydus.chunk_dict_ref ||
	    imageref_parse(&ref, t->nydus.chunk_dict_ref, NULL) < 0 ||
	    settings_source(l->s, ref.host))
		return;
	snprintf(text, sizeof(text), "chunk_dict_ref: %s is not in provider.source", ref.host);
	conflict(l, root, find(root, "rules") ? "rules" : "converter.driver", text);
}

static void check_together(struct loader *l, const struct node *root)
{
	const struct settings *s = l->s;

	if (!s->server.tls_cert_file != !s->server.tls_key_file)
		conflict(l, root,
			 s->server.tls_cert_file ? "server.tls_cert_file" : "server.tls_key_file",
			 "server.tls_cert_file and server.tls_key_file belong together");
	if (s->server.tls_client_ca_file && !s->server.tls_cert_file)
		conflict(l, root, "server.tls_client_ca_file", "needs server.tls_cert_file");
	if (!s->redis.cert_file != !s->redis.key_file)
		conflict(l, root, s->redis.cert_file ? "redis.cert_file" : "redis.key_file",
			 "redis.cert_file and redis.key_file belong together");
	if ((s->redis.ca_file || s->redis.cert_file) && !s->redis.tls)
		conflict(l, root, s->redis.ca_file ? "redis.ca_file" : "redis.cert_file",
			 "needs redis.tls: true");
	if (s->redis.tls && s->redis.addr && str_starts(s->redis.addr, "unix:"))
		conflict(l, root, "redis.tls", "contradicts redis.addr, which is a unix socket");
	if (s->redis.username && !s->redis.password)
		conflict(l, root, "redis.username", "needs redis.password_file");
	if (s->queue.heartbeat_ms * 2 > s->queue.lease_ms)
		conflict(l, root, "queue.heartbeat", "expected at most half of queue.lease");
	if (s->queue.max_gap_ms >= s->queue.lease_ms)
		conflict(l, root, "queue.max_gap", "expected less than queue.lease");
	if (s->queue.tick_ms >= s->queue.max_gap_ms)
		conflict(l, root, "queue.tick", "expected less than queue.max_gap");
	if (s->queue.backoff_ms > s->queue.backoff_max_ms)
		conflict(l, root, "queue.backoff", "expected at most queue.backoff_max");
	for (size_t i = 0; i < s->rules.n; i++)
		for (size_t k = 0; k < s->rules.rule[i].n_targets; k++) {
			check_dictionary(l, root, &s->rules.rule[i].targets[k]);
			target_seal(&s->rules.rule[i].targets[k]);
		}
}

/* systemd's LoadCredential=redis-password:... needs no key at all. */
static void read_credentials(struct loader *l, const struct node *root)
{
	const char *folder = env_get("CREDENTIALS_DIRECTORY");
	struct err e = {0};

	if (!folder || l->s->redis.password)
		return;
	{
		scoped_free char *path = mem_printf("%s/redis-password", folder);

		if (access(path, F_OK) < 0)
			return;
		l->s->redis.password = secret_from_file(path, &e);
		if (!l->s->redis.password)
			loader_say(l, SEVERITY_FATAL, root, false, "redis.password", e.text);
	}
}

struct settings *settings_from_tree(const struct node *root, struct config_report *r)
{
	scoped(settings_freep) struct settings *s = settings_default();
	struct loader l = {.s = s, .report = r};
	struct scope top = top_scope(&l);

	walk(&l, &top, root, "");
	loader_rules(&l, root);
	read_credentials(&l, root);
	check_together(&l, root);
	if (s->converter.harbor_annotation)
		loader_say(&l, SEVERITY_NOTE, find(root, "converter.harbor_annotation"), true,
			   "converter.harbor_annotation",
			   "no effect: every result carries io.acceld annotations");
	s->server.uds_only = s->server.uds != NULL;
	s->worker.drain_timeout_set = given(&l, "worker.drain_timeout");
	return r->n_fatal ? NULL : take_ptr(s);
}
