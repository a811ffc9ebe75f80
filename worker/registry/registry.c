/* worker/registry/registry.c - see registry.h: requests with login and repetition, manifests. */
#include "worker/registry/registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "common/str.h"
#include "common/url.h"
#include "worker/oci/descriptor.h"
#include "worker/registry/registry_impl.h"

enum {
	MANIFEST_MAX = 4 << 20,
	TRIES = 3,
	PUT_TIMEOUT_MS = 60000,
	ASK_TIMEOUT_MS = 120000, /* of a request whose answer is small */
	MAX_PAUSE_MS = 3600000,
};

#define ACCEPT_MANIFESTS                                                                           \
	MT_OCI_MANIFEST ", " MT_OCI_INDEX ", " MT_DOCKER_MANIFEST ", " MT_DOCKER_LIST              \
			", " MT_DOCKER_SCHEMA1_SIGNED ", " MT_DOCKER_SCHEMA1

int registry_open(struct registry **out, struct http *h, const struct source_settings *s,
		  const struct registry_opts *o, struct err *e)
{
	struct registry *r;
	scoped_free char *base = NULL, *scheme = NULL, *host = NULL;

	if (s->endpoint)
		base = mem_strndup(s->endpoint, strlen(s->endpoint) - str_ends(s->endpoint, "/"));
	else if (str_eq(s->host, "docker.io"))
		base = mem_strdup("https://registry-1.docker.io");
	else
		base = mem_printf("%s://%s", s->plain_http ? "http" : "https", s->host);
	if (url_split(base, &scheme, &host, NULL, e) < 0)
		return err_wrap(e, "registry %s", s->host);
	r = mem_zalloc(sizeof(*r));
	r->h = h;
	r->s = s;
	if (o)
		r->o = *o;
	r->base = take_ptr(base);
	r->peer = (struct http_peer){.ca_file = s->ca_file,
				     .cert_file = s->cert_file,
				     .key_file = s->key_file,
				     .insecure = s->insecure,
				     .plain_http = s->plain_http || str_eq(scheme, "http"),
				     .allow_private = true};
	r->max_commits = r->o.max_uploads ? r->o.max_uploads : 4;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->login = login_new(h, s, &r->peer, r->base);
	*out = r;
	return 0;
}

void registry_freep(struct registry **rp)
{
	struct registry *r = *rp;

	if (!r)
		return;
	login_freep(&r->login);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r->base);
	free(r);
	*rp = NULL;
}

const char *registry_host(const struct registry *r)
{
	return r->s->host;
}

/* ---- URLs */
char *registry_url(const struct registry *r, const char *repository, const char *rest)
{
	return mem_printf("%s/v2/%s/%s", r->base, repository, rest);
}

bool registry_url_is_ours(const struct registry *r, const char *url)
{
	size_t n = strlen(r->base);

	return !strncasecmp(url, r->base, n) && (url[n] == '/' || url[n] == '?' || !url[n]);
}

static char *host_name(const char *url)
{
	char *host = NULL, *end;

	if (url_split(url, NULL, &host, NULL, NULL) < 0)
		return NULL;
	end = strchr(*host == '[' ? host + strcspn(host, "]") : host, ':');
	if (end)
		*end = '\0';
	return host;
}

int registry_location(struct registry *r, const char *request_url, const struct http_response *resp,
		      char **url, struct err *e)
{
	const char *location = http_header(resp, "location"), *path;
	scoped_free char *full = NULL, *theirs = NULL, *ours = NULL, *public_url = NULL,
			 *public_name = NULL;

	if (!location)
		return err_set(e, ERR_NET, "%s gave no Location for the upload", r->s->host);
	if (url_resolve(request_url, location, &full, e) < 0)
		return err_wrap(e, "%s", r->s->host);
	theirs = host_name(full);
	ours = host_name(r->base);
	public_url = mem_printf("https://%s", r->s->host);
	public_name = host_name(public_url);
	/* Behind a proxy scheme and port are often wrong: on our host ours hold. */
	if (str_ieq(theirs, ours) || str_ieq(theirs, public_name)) {
		path = strchr(strstr(full, "://") + 3, '/');
		*url = mem_printf("%s%s", r->base, path ? path : "/");
		return 0;
	}
	if (str_starts(r->base, "https:") && !str_starts(full, "https:"))
		return err_set(e, ERR_DENIED, "%s sends uploads to %s over plain HTTP: refused",
			       r->s->host, theirs ? theirs : "?");
	*url = take_ptr(full);
	return 0;
}

/* ---- what went wrong */
static void note_busy(struct registry *r, const struct err *e)
{
	if (e->status == 429 && r->o.on_pause)
		r->o.on_pause(r->s->host,
			      e->retry_after_ms < MAX_PAUSE_MS ? e->retry_after_ms : MAX_PAUSE_MS,
			      r->o.arg);
}

static void fill_regerr(const struct registry *r, const struct ask *a, char *path,
			struct regerr_ask *to)
{
	*to = (struct regerr_ask){.what = a->what,
				  .host = r->s->host,
				  .method = a->method,
				  .path = path,
				  .ref = a->ref,
				  .repository = a->repository,
				  .tag = a->tag,
				  .digest = a->digest,
				  .user = login_user(r->login),
				  .push = a->push,
				  .bytes = a->body_n};
}

int registry_bad(struct registry *r, const struct ask *a, const struct http_response *resp,
		 struct err *e)
{
	scoped_free char *path = NULL;
	struct regerr_ask ask;
	struct err mine = {0};

	url_split(a->url, NULL, NULL, &path, NULL);
	fill_regerr(r, a, path, &ask);
	regerr_response(&ask, resp, &mine);
	note_busy(r, &mine);
	if (mine.status == 502) {
		pthread_mutex_lock(&r->lock);
		if (r->max_commits > 1)
			r->max_commits /= 2; /* parallel uploads exhaust its memory */
		pthread_mutex_unlock(&r->lock);
	}
	if (e)
		*e = mine;
	return -1;
}

void registry_commit_begin(struct registry *r)
{
	pthread_mutex_lock(&r->lock);
	while (r->commits >= r->max_commits)
		pthread_cond_wait(&r->changed, &r->lock);
	r->commits++;
	pthread_mutex_unlock(&r->lock);
}

void registry_commit_end(struct registry *r)
{
	pthread_mutex_lock(&r->lock);
	r->commits--;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* ---- one request */
struct lines { /* header lines of one request */
	char *line[8];
	size_t n;
};

static void lines_fini(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->line[i]);
}

static void lines_add(struct lines *l, const char *name, const char *value)
{
	if (value)
		l->line[l->n++] = mem_printf("%s: %s", name, value);
}

static void lines_fill(struct lines *l, const struct ask *a)
{
	lines_add(l, "Accept", a->accept);
	lines_add(l, "Content-Type", a->content_type);
	lines_add(l, "Range", a->range);
	lines_add(l, "Content-Range", a->content_range);
	lines_add(l, "X-Request-Id", a->request_id);
}

static void request_of(struct registry *r, const struct ask *a, const struct lines *l,
		       const char *authorization, struct http_request *q)
{
	*q = (struct http_request){.method = a->method,
				   .url = a->url,
				   .headers = (const char *const *)l->line,
				   .authorization = authorization,
				   .peer = &r->peer,
				   .body = a->body,
				   .body_n = a->body_n,
				   .timeout_ms = a->timeout_ms,
				   .max_response = a->max_response,
				   .idle_ms = a->idle_ms ? a->idle_ms : r->idle_ms,
				   .foreign = !registry_url_is_ours(r, a->url)};
}

static void note_answer(struct registry *r, const struct http_response *resp)
{
	if (!http_redirected_away(resp) && http_from_private(resp))
		__atomic_store_n(&r->is_private, true, __ATOMIC_RELAXED);
}

/* One request with login: 401 -> one renewal -> final.  The first challenge, to a request that
 * carried nothing, is no refusal. */
static int ask_once(struct registry *r, const struct ask *a, struct http_request *q,
		    struct http_response **resp, struct source **body, struct err *e)
{
	char scope[LOGIN_SCOPE];
	struct http_peer peer = r->peer;

	if (q->foreign) { /* an upload that lives elsewhere */
		peer.allow_private = __atomic_load_n(&r->is_private, __ATOMIC_RELAXED);
		q->peer = &peer;
	}
	login_scope(scope, a->repository ? a->repository : "", a->push, a->mount_from);
	for (int i = 0, refused = 0;; i++) {
		scoped(login_value_freep) char *value = NULL;
		scoped(http_response_freep) struct http_response *got = NULL;
		int more;

		if (!q->foreign && login_value(r->login, scope, a->fresh_login, &value, e) < 0)
			return -1;
		q->authorization = value;
		if ((body ? http_get(r->h, q, &got, body, e) : http_do(r->h, q, &got, e)) < 0)
			return -1;
		note_answer(r, got);
		if (http_status(got) != 401 || q->foreign || http_redirected_away(got)) {
			*resp = take_ptr(got);
			return 0;
		}
		refused += value != NULL;
		more = refused < 2 && i < 3 ? login_refused(r->login, scope, value, got, e) : 0;
		if (more < 0)
			return -1;
		if (more == 0)
			return registry_bad(r, a, got, e);
	}
}

static void short_sleep(unsigned attempt)
{
	uint8_t jitter;
	struct timespec t;

	digest_random(&jitter, 1);
	t = (struct timespec){.tv_nsec = (100 + jitter + (attempt ? 300 : 0)) * 1000000L};
	nanosleep(&t, NULL);
}

static bool worth_repeating(int status, const struct http_response *resp)
{
	return status == 500 || status == 502 || status == 504 ||
	       (status == 503 && !http_header(resp, "retry-after"));
}

int registry_ask(struct registry *r, const struct ask *a, struct http_response **resp,
		 struct source **body, struct err *e)
{
	uint64_t timeout = a->timeout_ms || body ? a->timeout_ms : ASK_TIMEOUT_MS;
	uint64_t end = timeout ? clock_mono_ms() + timeout : UINT64_MAX;
	scoped(http_response_freep) struct http_response *kept = NULL;
	struct lines lines = {.n = 0};
	struct http_request q;
	struct err why = {0};

	lines_fill(&lines, a);
	request_of(r, a, &lines, NULL, &q);
	for (unsigned i = 0; i < TRIES; i++) {
		struct http_response *got = NULL;
		bool last = a->once || i == TRIES - 1, again;
		uint64_t now = clock_mono_ms();

		if (i > 0 && now >= end)
			break;
		q.timeout_ms = timeout ? end - now : 0;
		q.fresh_connection = i > 0;
		if (ask_once(r, a, &q, &got, body, &why) == 0) {
			again = !last && worth_repeating(http_status(got), got);
			http_response_freep(&kept);
			kept = got; /* the answer, unless a later one comes */
		} else {
			again = !last && why.code == ERR_NET && !why.status;
		}
		if (!again)
			break;
		short_sleep(i);
	}
	lines_fini(&lines);
	if (!kept) {
		if (e)
			*e = why;
		return -1;
	}
	*resp = take_ptr(kept);
	return 0;
}

int registry_send(struct registry *r, const struct ask *a, uint64_t content_length,
		  struct sink **sink, struct err *e)
{
	struct lines lines = {.n = 0};
	scoped(login_value_freep) char *value = NULL;
	char scope[LOGIN_SCOPE];
	struct http_request q;
	int ret;

	login_scope(scope, a->repository, a->push, NULL);
	lines_fill(&lines, a);
	request_of(r, a, &lines, NULL, &q);
	q.expect_continue = true;
	q.may_end_early = content_length == UINT64_MAX;
	if (!q.foreign && login_value(r->login, scope, true, &value, e) < 0) {
		lines_fini(&lines);
		return -1;
	}
	q.authorization = value;
	ret = http_send(r->h, &q, content_length, sink, e);
	lines_fini(&lines);
	return ret;
}

/* ---- manifests */
void manifest_body_fini(struct manifest_body *m)
{
	free(m->data);
	m->data = NULL;
	m->n = 0;
}

static char *manifest_url(const struct registry *r, const struct imageref *ref)
{
	char digest[DIGEST_TEXT];
	scoped_free char *rest = mem_printf(
		"manifests/%s",
		digest_is_set(&ref->digest) ? digest_text(&ref->digest, digest) : ref->tag);

	return registry_url(r, ref->repository, rest);
}

static void media_type_of(char to[160], const char *content_type)
{
	size_t n = content_type ? strcspn(content_type, "; ") : 0;

	snprintf(to, 160, "%.*s", (int)n, content_type ? content_type : "");
}

static void media_type_in(char to[160], const char *data, size_t n)
{
	struct json *root = NULL;
	const char *p;

	if (json_parse(&root, data, n, &(struct json_limits){.bytes = MANIFEST_MAX, .depth = 32},
		       NULL) < 0)
		return;
	p = json_value_str(json_get(root, "mediaType"));
	if (p && *p && strlen(p) < 160)
		snprintf(to, 160, "%s", p);
	json_freep(&root);
}

/* The bytes are believed, nothing else: digest of the reference, then Docker-Content-Digest. */
static int check_manifest(struct registry *r, const struct imageref *ref,
			  const struct http_response *resp, const char *data, size_t n,
			  struct digest *d, struct err *e)
{
	const char *said = http_header(resp, "docker-content-digest");
	struct digest want = ref->digest;
	char a[DIGEST_TEXT], b[DIGEST_TEXT];

	if (!digest_is_set(&want) && said && digest_parse(&want, said, NULL) < 0)
		want = (struct digest){0};
	digest_of(d, digest_is_set(&want) ? want.alg : DIGEST_SHA256, data, n);
	if (!digest_is_set(&want) || digest_eq(d, &want))
		return 0;
	if (regerr_is_page(http_header(resp, "content-type"), data, n))
		return regerr_page(r->s->host, "the manifest", e);
	return err_class(e, ERR_CORRUPT, CLASS_RETRY, "%s delivered %s for %s (%zu bytes)",
			 r->s->host, digest_text(d, a), digest_text(&want, b), n);
}

static int get_manifest_once(struct registry *r, const struct imageref *ref,
			     struct manifest_body *m, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = manifest_url(r, ref);
	char text[IMAGEREF_TEXT];
	struct ask a = {.method = "GET",
			.url = url,
			.repository = ref->repository,
			.what = ASK_MANIFEST_GET,
			.ref = imageref_text(ref, text),
			.tag = ref->tag,
			.accept = ACCEPT_MANIFESTS,
			.max_response = MANIFEST_MAX};
	const char *data;
	size_t n;
	struct manifest_body got = {0};

	if (registry_ask(r, &a, &resp, NULL, e) < 0)
		return -1;
	if (http_status(resp) != 200)
		return registry_bad(r, &a, resp, e);
	data = http_body(resp, &n);
	if (check_manifest(r, ref, resp, data, n, &got.digest, e) < 0)
		return -1;
	if (regerr_is_page(http_header(resp, "content-type"), data, n))
		return regerr_page(r->s->host, "the manifest", e);
	media_type_of(got.media_type, http_header(resp, "content-type"));
	media_type_in(got.media_type, data, n);
	got.data = mem_strndup("", 0);
	got.data = mem_resize(got.data, n + 1, 1);
	memcpy(got.data, data, n);
	got.data[n] = '\0';
	got.n = n;
	*m = got;
	return 0;
}

int registry_get_manifest(struct registry *r, const struct imageref *ref, struct manifest_body *m,
			  struct err *e)
{
	struct err why = {0};

	if (get_manifest_once(r, ref, m, &why) == 0)
		return 0;
	if (why.code == ERR_CORRUPT) { /* once more; the second time it is final */
		why = (struct err){0};
		if (get_manifest_once(r, ref, m, &why) == 0)
			return 0;
		if (why.code == ERR_CORRUPT)
			why.class = CLASS_FINAL;
	}
	if (e)
		*e = why;
	return -1;
}

static int head_by_get(struct registry *r, const struct imageref *ref, struct digest *d,
		       uint64_t *size, char media_type[160], struct err *e)
{
	struct manifest_body m = {0};

	if (registry_get_manifest(r, ref, &m, e) < 0)
		return -1;
	*d = m.digest;
	if (size)
		*size = m.n;
	if (media_type)
		snprintf(media_type, 160, "%s", m.media_type);
	manifest_body_fini(&m);
	return 1;
}

int registry_head_manifest(struct registry *r, const struct imageref *ref, struct digest *d,
			   uint64_t *size, char media_type[160], struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = manifest_url(r, ref);
	char text[IMAGEREF_TEXT];
	struct ask a = {.method = "HEAD",
			.url = url,
			.repository = ref->repository,
			.what = ASK_MANIFEST_GET,
			.ref = imageref_text(ref, text),
			.tag = ref->tag,
			.accept = ACCEPT_MANIFESTS};
	const char *said, *len;
	uint64_t n = 0;

	if (registry_ask(r, &a, &resp, NULL, e) < 0)
		return -1;
	if (http_status(resp) == 404)
		return 0;
	/* A HEAD has no body that says why; some registries do not know HEAD at all. */
	if (http_status(resp) == 412 || http_status(resp) == 405 || http_status(resp) == 403)
		return head_by_get(r, ref, d, size, media_type, e);
	if (http_status(resp) != 200)
		return registry_bad(r, &a, resp, e);
	said = http_header(resp, "docker-content-digest");
	len = http_header(resp, "content-length");
	if (!said || digest_parse(d, said, NULL) < 0 || !len || str_u64(len, &n, NULL) < 0 ||
	    regerr_is_page(http_header(resp, "content-type"), NULL, 0))
		return head_by_get(r, ref, d, size, media_type, e);
	if (size)
		*size = n;
	if (media_type)
		media_type_of(media_type, http_header(resp, "content-type"));
	return 1;
}

/* An error of an answer that did come: its status says so (publish gives the lock back then). */
static int answered(struct err *e, int status)
{
	if (e)
		e->status = status;
	return -1;
}

/* 412 on an immutable tag: these very bytes may be there already. */
static int immutable(struct registry *r, const struct imageref *ref, const struct digest *mine,
		     struct err *e)
{
	struct digest there;
	char text[DIGEST_TEXT];
	int found = registry_head_manifest(r, ref, &there, NULL, NULL, NULL);

	if (found == 1 && digest_eq(&there, mine))
		return 0;
	if (found != 1)
		err_set(e, ERR_DENIED, "tag %s exists at %s and is immutable", ref->tag,
			r->s->host);
	else
		err_set(e, ERR_DENIED, "tag %s exists at %s and is immutable; it holds %s",
			ref->tag, r->s->host, digest_text(&there, text));
	return answered(e, 412);
}

static bool says_immutable(const struct http_response *resp)
{
	char code[64], message[201];
	size_t n;
	const char *body = http_body(resp, &n);

	if (http_status(resp) != 412 || http_redirected_away(resp))
		return false;
	regerr_read(body, n, code, message);
	return strstr(message, "immutable") != NULL || str_eq(code, "PRECONDITION");
}

int registry_put_manifest(struct registry *r, const struct imageref *ref, const char *media_type,
			  const void *p, size_t n, const struct put_opts *o, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = NULL;
	char text[IMAGEREF_TEXT], a1[DIGEST_TEXT], a2[DIGEST_TEXT];
	struct imageref to = *ref;
	struct digest mine, said;
	const char *header;
	struct ask a;

	digest_of(&mine, DIGEST_SHA256, p, n);
	if (to.tag[0])
		to.digest = (struct digest){0};
	else if (!digest_is_set(&to.digest))
		to.digest = mine;
	url = manifest_url(r, &to);
	a = (struct ask){.method = "PUT",
			 .url = url,
			 .repository = to.repository,
			 .push = true,
			 .what = ASK_MANIFEST_PUT,
			 .ref = imageref_text(&to, text),
			 .tag = to.tag,
			 .content_type = media_type,
			 .request_id = r->o.request_id,
			 .body = p,
			 .body_n = n,
			 .timeout_ms = o && o->timeout_ms ? o->timeout_ms : PUT_TIMEOUT_MS,
			 .fresh_login = true};
	if (registry_ask(r, &a, &resp, NULL, e) < 0)
		return -1;
	if (to.tag[0] && says_immutable(resp))
		return immutable(r, &to, &mine, e);
	if (http_status(resp) / 100 != 2)
		return registry_bad(r, &a, resp, e);
	if (o && o->subject_taken)
		*o->subject_taken = http_header(resp, "oci-subject") != NULL;
	header = http_header(resp, "docker-content-digest");
	if (header && digest_parse(&said, header, NULL) == 0 && said.alg == mine.alg &&
	    !digest_eq(&said, &mine)) {
		err_class(e, ERR_CORRUPT, CLASS_RETRY, "%s stored %s for %s (%zu bytes)",
			  r->s->host, digest_text(&said, a1), digest_text(&mine, a2), n);
		return answered(e, http_status(resp));
	}
	return 0;
}

int registry_referrers(struct registry *r, const char *repository, const struct digest *subject,
		       char **index, size_t *n, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	char digest[DIGEST_TEXT];
	scoped_free char *rest = mem_printf("referrers/%s", digest_text(subject, digest));
	scoped_free char *url = registry_url(r, repository, rest);
	struct ask a = {.method = "GET",
			.url = url,
			.repository = repository,
			.what = ASK_OTHER,
			.accept = MT_OCI_INDEX,
			.max_response = MANIFEST_MAX};
	const char *data;
	char *copy;

	if (registry_ask(r, &a, &resp, NULL, e) < 0)
		return -1;
	data = http_body(resp, n);
	if (http_status(resp) == 404 || http_status(resp) == 405 || http_status(resp) == 501 ||
	    (http_status(resp) == 200 &&
	     regerr_is_page(http_header(resp, "content-type"), data, *n)))
		return 0;
	if (http_status(resp) != 200)
		return registry_bad(r, &a, resp, e);
	copy = mem_resize(NULL, *n + 1, 1);
	memcpy(copy, data, *n);
	copy[*n] = '\0';
	*index = copy;
	return 1;
}
