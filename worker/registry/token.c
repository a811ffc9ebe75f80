/* worker/registry/token.c - see token.h.
 *
 * Harbor answers a bad or expired token with a *Basic* challenge, whatever it asked for before: so
 * what was learnt from the first challenge (to a request without Authorization) is kept, and a 401
 * to a token means one new token from the same place. */
#include "worker/registry/token.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/http.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"
#include "common/url.h"
#include "worker/registry/challenge.h"
#include "worker/registry/regerr.h"

enum {
	DEFAULT_LIFE_S = 60,
	MAX_LIFE_S = 86400,
	TOKEN_MAX = 256 << 10, /* Harbor's list every project of a system robot */
	TOKEN_TIMEOUT_MS = 30000,
	MAX_TOKENS = 256,
};

struct token {
	char *scope; /* ours, the key */
	char *asked; /* what the challenge named instead, or NULL */
	struct secret *value;
	uint64_t got_ms, life_ms;
};

enum scheme { SCHEME_NONE, SCHEME_BASIC, SCHEME_BEARER };

struct login {
	struct http *h;
	const struct source_settings *s;
	const struct http_peer *peer;
	char *base, *host;
	pthread_mutex_t lock; /* held while a token is fetched */
	enum scheme scheme;
	bool basic_failed;
	char *realm, *service; /* of the last Bearer challenge; realm already checked */
	bool realm_own;
	struct token *t;
	size_t n, cap;
};

struct login *login_new(struct http *h, const struct source_settings *s,
			const struct http_peer *peer, const char *base)
{
	struct login *l = mem_zalloc(sizeof(*l));

	l->h = h;
	l->s = s;
	l->peer = peer;
	l->base = mem_strdup(base);
	l->host = mem_strdup(s->host);
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

static void token_fini(struct token *t)
{
	free(t->scope);
	free(t->asked);
	secret_freep(&t->value);
}

void login_freep(struct login **lp)
{
	struct login *l = *lp;

	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++)
		token_fini(&l->t[i]);
	free(l->t);
	free(l->base);
	free(l->host);
	free(l->realm);
	free(l->service);
	pthread_mutex_destroy(&l->lock);
	free(l);
	*lp = NULL;
}

const char *login_user(const struct login *l)
{
	return l->s->username ? secret_value(l->s->username) : NULL;
}

void login_scope(char to[LOGIN_SCOPE], const char *repository, bool push, const char *also)
{
	int n = snprintf(to, LOGIN_SCOPE, "repository:%.250s:%s", repository,
			 push ? "pull,push" : "pull");

	if (also)
		snprintf(to + n, LOGIN_SCOPE - (size_t)n, " repository:%.250s:pull", also);
}

void login_value_freep(char **value)
{
	if (*value)
		secret_wipe(*value, strlen(*value));
	free(*value);
	*value = NULL;
}

/* ---- realms */
static char *name_of(const char *host_port) /* without port */
{
	const char *end = *host_port == '[' ? strchr(host_port, ']') : NULL;
	const char *colon = strchr(end ? end : host_port, ':');

	return mem_strndup(host_port, colon ? (size_t)(colon - host_port) : strlen(host_port));
}

/* scheme://host of `authority`, path and query of `url`. */
static char *moved(const char *url, const char *authority)
{
	const char *path = strstr(url, "://");

	path = path ? strchr(path + 3, '/') : NULL;
	return mem_printf("%.*s%s", (int)(strlen(authority) - str_ends(authority, "/")), authority,
			  path ? path : "/");
}

static bool has_path(const char *url)
{
	const char *p = strstr(url, "://");

	p = p ? strchr(p + 3, '/') : NULL;
	return p && p[1];
}

static int realm_denied(const struct source_settings *s, const char *what, const char *host,
			struct err *e)
{
	return err_set(
		e, ERR_DENIED,
		"%s names a token service at %s, %s: set provider.source.%s.realm if that is "
		"meant",
		s->host, host, what, s->host);
}

int login_realm(const struct source_settings *s, const char *base, bool plain_http,
		const char *realm, char **url, bool *own, struct err *e)
{
	scoped_free char *scheme = NULL, *host = NULL, *full = NULL, *base_host = NULL,
			 *name = NULL, *base_name = NULL, *public_name = NULL;
	bool same, builtin;

	if (s->realm) {
		*url = has_path(s->realm) ? mem_strdup(s->realm) : moved(realm, s->realm);
		*own = true;
		return 0;
	}
	if (url_resolve(base, realm, &full, NULL) < 0 || !strstr(realm, "://") ||
	    url_split(full, &scheme, &host, NULL, NULL) < 0)
		return err_set(e, ERR_DENIED, "%s names no usable token service", s->host);
	url_split(base, NULL, &base_host, NULL, NULL);
	name = name_of(host);
	base_name = name_of(base_host ? base_host : "");
	public_name = name_of(s->host);
	same = str_ieq(name, base_name) || str_ieq(name, public_name);
	builtin = str_eq(s->host, "docker.io") && str_ieq(host, "auth.docker.io");
	if (!same && !builtin)
		return realm_denied(s, "which is another host", host, e);
	*own = same;
	/* The registry is reached under another name: so is its token service. */
	if (same && s->endpoint) {
		*url = moved(full, base);
		return 0;
	}
	if (str_eq(scheme, "http") && !(plain_http && same))
		return realm_denied(s, "over plain HTTP", host, e);
	*url = take_ptr(full);
	return 0;
}

/* ---- asking for a token */
static int add_scopes(char **url, const char *scopes, struct err *e)
{
	scoped_free char *copy = mem_strdup(scopes);
	char *save = NULL;

	for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
		if (url_add_query(url, "scope", p, e) < 0)
			return -1;
	return 0;
}

static char *basic_value(const struct source_settings *s)
{
	struct buf plain, coded;
	char *value;

	buf_init(&plain, 256 << 10);
	buf_init(&coded, 512 << 10);
	buf_addf(&plain, NULL, "%s:%s", secret_value(s->username), secret_value(s->password));
	buf_add_str(&coded, "Basic ", NULL);
	str_base64(&coded, plain.data, plain.len, NULL);
	buf_wipe(&plain);
	value = mem_strndup(coded.data, coded.len);
	buf_wipe(&coded);
	return value;
}

static bool has_identity_token(const struct login *l)
{
	return l->s->username && l->s->password && str_eq(secret_value(l->s->username), "<token>");
}

static bool has_password(const struct login *l)
{
	return l->s->username && l->s->password && !has_identity_token(l);
}

static int token_get(struct login *l, const char *scopes, const struct http_peer *peer,
		     struct http_response **r, struct err *e)
{
	scoped_free char *url = mem_strdup(l->realm);
	scoped(login_value_freep) char *basic = has_password(l) ? basic_value(l->s) : NULL;
	struct http_request q = {.method = "GET",
				 .peer = peer,
				 .authorization = basic,
				 .timeout_ms = TOKEN_TIMEOUT_MS,
				 .max_response = TOKEN_MAX};

	if ((l->service && url_add_query(&url, "service", l->service, e) < 0) ||
	    add_scopes(&url, scopes, e) < 0)
		return -1;
	q.url = url;
	return http_do(l->h, &q, r, e);
}

/* A refresh token is exchanged by POST. */
static int token_post(struct login *l, const char *scopes, const struct http_peer *peer,
		      struct http_response **r, struct err *e)
{
	static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded",
					      NULL};
	scoped_free char *service = url_escape(l->service ? l->service : ""),
			 *scope = url_escape(scopes);
	scoped(login_value_freep) char *coded = url_escape(secret_value(l->s->password));
	scoped(login_value_freep) char *body =
		mem_printf("grant_type=refresh_token&client_id=acceld&service=%s&scope=%s&"
			   "refresh_token=%s",
			   service, scope, coded);
	struct http_request q = {.method = "POST",
				 .url = l->realm,
				 .headers = headers,
				 .peer = peer,
				 .body = body,
				 .body_n = strlen(body),
				 .no_redirect = true,
				 .timeout_ms = TOKEN_TIMEOUT_MS,
				 .max_response = TOKEN_MAX};

	return http_do(l->h, &q, r, e);
}

/* An empty string is an absent one (Harbor: "access_token":""). */
static const char *token_in(const struct json *root)
{
	const char *p = json_value_str(json_get(root, "token"));

	if (!p || !*p)
		p = json_value_str(json_get(root, "access_token"));
	return p && *p && !strpbrk(p, "\r\n") ? p : NULL;
}

static int token_read(struct login *l, struct token *t, const struct http_response *r,
		      struct err *e)
{
	struct json *root = NULL;
	int64_t life = DEFAULT_LIFE_S;
	size_t n;
	const char *body = http_body(r, &n), *value;

	if (regerr_is_page(http_header(r, "content-type"), body, n))
		return regerr_page(l->host, "a token", e);
	if (json_parse(&root, body, n, NULL, NULL) < 0)
		return err_set(e, ERR_NET, "the token service of %s answered with no JSON",
			       l->host);
	value = token_in(root);
	if (!value) {
		json_freep(&root);
		return err_set(e, ERR_NET, "the token service of %s gave no token", l->host);
	}
	json_opt_int(root, "expires_in", "", &life, NULL);
	if (life <= 0)
		life = DEFAULT_LIFE_S;
	if (life > MAX_LIFE_S)
		life = MAX_LIFE_S;
	secret_freep(&t->value);
	t->value = secret_new(value, strlen(value));
	t->life_ms = (uint64_t)life * 1000;
	json_freep(&root);
	return 0;
}

static int token_fetch(struct login *l, struct token *t, struct err *e)
{
	scoped(http_response_freep) struct http_response *r = NULL;
	struct http_peer peer = *l->peer;
	const char *scopes = t->asked ? t->asked : t->scope;
	uint64_t now = clock_mono_ms();
	int sent;

	peer.allow_private = l->realm_own && peer.allow_private;
	if (str_starts(l->realm, "http:"))
		peer.plain_http = true; /* login_realm decided that it may be */
	sent = has_identity_token(l) ? token_post(l, scopes, &peer, &r, e)
				     : token_get(l, scopes, &peer, &r, e);
	if (sent < 0) {
		scoped_free char *host = NULL;

		url_split(l->realm, NULL, &host, NULL, NULL);
		return err_wrap(e, "token service of %s (%s)", l->host, host ? host : "?");
	}
	if (http_status(r) != 200) {
		scoped_free char *path = NULL;
		struct regerr_ask ask = {
			.what = ASK_TOKEN, .host = l->host, .method = "GET", .user = login_user(l)};

		url_split(l->realm, NULL, NULL, &path, NULL);
		ask.path = path;
		return regerr_response(&ask, r, e);
	}
	if (token_read(l, t, r, e) < 0)
		return -1;
	t->got_ms = now; /* from before the request: never later than the server's own clock */
	return 0;
}

/* ---- values */
static struct token *token_of(struct login *l, const char *scope)
{
	struct token *t;

	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->t[i].scope, scope))
			return &l->t[i];
	if (l->n == MAX_TOKENS) { /* a task touches few repositories; mounts may add some */
		token_fini(&l->t[0]);
		memmove(l->t, l->t + 1, (--l->n) * sizeof(*l->t));
	}
	mem_grow(l->t, l->n, l->cap);
	t = &l->t[l->n++];
	*t = (struct token){.scope = mem_strdup(scope)};
	return t;
}

static bool token_good(const struct token *t, bool fresh)
{
	uint64_t age = clock_mono_ms() - t->got_ms;

	return t->value && age * 100 < t->life_ms * (fresh ? 50 : 80);
}

static int value_locked(struct login *l, const char *scope, bool fresh, char **value, struct err *e)
{
	struct token *t;

	*value = NULL;
	if (l->scheme == SCHEME_BASIC && has_password(l))
		*value = basic_value(l->s);
	if (l->scheme != SCHEME_BEARER)
		return 0;
	t = token_of(l, scope);
	if (!token_good(t, fresh) && token_fetch(l, t, e) < 0)
		return -1;
	*value = mem_printf("Bearer %s", secret_value(t->value));
	return 0;
}

int login_value(struct login *l, const char *scope, bool fresh, char **value, struct err *e)
{
	int r;

	pthread_mutex_lock(&l->lock);
	r = value_locked(l, scope, fresh, value, e);
	pthread_mutex_unlock(&l->lock);
	return r;
}

/* The challenge's own scope is used where it is not about a repository as ours is. */
static void note_scope(struct token *t, const char *scope)
{
	free(t->asked);
	t->asked = scope && *scope && !str_starts(scope, "repository:") ? mem_strdup(scope) : NULL;
}

static int take_bearer(struct login *l, const char *scope, const struct challenge *c, struct err *e)
{
	char *url = NULL;
	bool own = false;
	struct token *t;

	if (login_realm(l->s, l->base, l->peer->plain_http, c->realm, &url, &own, e) < 0)
		return -1;
	free(l->realm);
	free(l->service);
	l->realm = url;
	l->realm_own = own;
	l->service = mem_strdup(c->service);
	l->scheme = SCHEME_BEARER;
	t = token_of(l, scope);
	note_scope(t, c->scope);
	secret_freep(&t->value);
	return 1;
}

static int refused_locked(struct login *l, const char *scope, const char *sent,
			  const struct challenges *all, struct err *e)
{
	const struct challenge *bearer = challenges_find(all, CHALLENGE_BEARER);
	const struct challenge *basic = challenges_find(all, CHALLENGE_BASIC);

	if (bearer && (!bearer->realm || !*bearer->realm))
		bearer = NULL;
	if (sent && str_starts(sent, "Bearer ")) {
		struct token *t = token_of(l, scope);

		/* Another thread may have renewed it already. */
		if (t->value && !str_eq(secret_value(t->value), sent + 7))
			return 1;
		secret_freep(&t->value);
		if (bearer)
			return take_bearer(l, scope, bearer, e);
		return l->realm ? 1 : 0;
	}
	if (sent)
		l->basic_failed = true; /* ACR offers Basic and refuses it: Bearer then */
	if (!sent && l->scheme == SCHEME_BEARER)
		return 1; /* another thread learnt it meanwhile */
	if (bearer)
		return take_bearer(l, scope, bearer, e);
	if (basic && has_password(l) && !l->basic_failed) {
		l->scheme = SCHEME_BASIC;
		return 1;
	}
	return 0;
}

int login_refused(struct login *l, const char *scope, const char *sent,
		  const struct http_response *r, struct err *e)
{
	struct challenges all = {.n = 0};
	const char *value;
	size_t i = 0;
	int ret;

	while ((value = http_header_next(r, "www-authenticate", &i)))
		challenges_parse(&all, value);
	pthread_mutex_lock(&l->lock);
	ret = refused_locked(l, scope, sent, &all, e);
	pthread_mutex_unlock(&l->lock);
	challenges_fini(&all);
	return ret;
}
