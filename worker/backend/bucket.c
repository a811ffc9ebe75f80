/* worker/backend/bucket.c - blobs as objects of a bucket: S3, and OSS, which speaks the same
 * language with other header names and another signature.
 *
 * An object's key holds the blob's digest, which is known when the last byte is; an upload names
 * its key first.  So up to PART bytes are held, and a small blob is one PUT.  A larger one goes in
 * parts to a temporary key, is copied inside the store to its own, and the temporary object is
 * deleted.  A part is held until the store has it, signed with its own hash (S3) or sent with its
 * MD5 (OSS): so a broken part is sent again, and a wrong one is refused.  All parts but the last
 * are of one size: some stores want that. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/http.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"
#include "worker/backend/backend_impl.h"
#include "worker/backend/osssign.h"
#include "worker/backend/sigv4.h"

enum {
	PART = 8 << 20,
	PARTS_MAX = 10000, /* of one upload, by both */
	TRIES = 3,
	ANSWER_MAX = 64 << 10,
	PART_TIMEOUT_MS = 600000,
	SLOW_MS = 600000, /* a store may copy for long before it answers */
	DELETE_TIMEOUT_MS = 10000,
	UPLOAD_ID = 1024,
	ETAG = 160,
};
#define COPY_MAX (5ULL << 30)	/* of one copy, by both */
#define COPY_PIECE (1ULL << 30) /* of a copy in parts */

struct bucket {
	struct backend b;
	struct http_peer peer;
	char *host;   /* as in the Host header */
	char *folder; /* "/BUCKET", or "" where the bucket is in the host's name */
};

static struct bucket *of(struct backend *b)
{
	return (struct bucket *)b;
}

static bool is_oss(const struct bucket *u)
{
	return u->b.s.kind == NYDUS_OSS;
}

/* ---- names */
static void add_encoded(struct buf *to, const char *s, bool slash)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    c == '-' || c == '.' || c == '_' || c == '~' || (slash && c == '/'))
			buf_add_char(to, (char)c, NULL);
		else
			buf_addf(to, NULL, "%%%02X", c);
	}
}

static char *key_of(const struct bucket *u, const char *name)
{
	return mem_printf("%s%s", u->b.s.prefix, name);
}

/* The path of a key in URLs. */
static char *path_of(const char *folder, const char *key)
{
	struct buf b = BUF_INIT(ANSWER_MAX);

	buf_add_str(&b, folder, NULL);
	buf_add_char(&b, '/', NULL);
	add_encoded(&b, key, true);
	return buf_take(&b);
}

/* ---- one request */
struct param {
	const char *name, *value; /* value NULL: the name alone */
};
struct object_ask {
	const char *method, *key;
	struct param param[2]; /* sorted by name */
	const char *copy_from; /* a key of this bucket */
	const char *copy_range, *range;
	const void *body;
	size_t body_n;
	uint64_t max_response, timeout_ms, idle_ms;
	bool once;
};

#define LINES 8
struct lines {
	char *line[LINES + 1];
	size_t n;
	char *authorization, *url;
};

static void lines_fini(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->line[i]);
	free(l->authorization);
	free(l->url);
}

static void lines_add(struct lines *l, const char *name, const char *value)
{
	l->line[l->n++] = mem_printf("%s: %s", name, value);
}

static char *query_of(const struct object_ask *a, bool oss, bool encode)
{
	struct buf b = BUF_INIT(ANSWER_MAX);

	for (size_t i = 0; i < 2 && a->param[i].name; i++) {
		buf_addf(&b, NULL, "%s%s", i ? "&" : "", a->param[i].name);
		if (a->param[i].value || !oss)
			buf_add_char(&b, '=', NULL);
		if (a->param[i].value && encode)
			add_encoded(&b, a->param[i].value, false);
		else if (a->param[i].value)
			buf_add_str(&b, a->param[i].value, NULL);
	}
	return buf_take(&b);
}

static int sign_s3(const struct bucket *u, const struct object_ask *a, const char *path,
		   const char *query, struct lines *l, struct err *e)
{
	scoped(buf_fini) struct buf value = BUF_INIT(ANSWER_MAX);
	scoped_free char *from = NULL;
	struct sigv4_header h[5];
	char date[SIGV4_DATE], hex[DIGEST_TEXT];
	struct digest payload;
	struct sigv4 q = {.key_id = secret_value(u->b.s.key_id),
			  .secret = u->b.s.key_secret,
			  .region = u->b.s.region,
			  .service = "s3",
			  .date = date,
			  .method = a->method,
			  .path = path,
			  .query = query,
			  .header = h,
			  .payload = hex};

	digest_of(&payload, DIGEST_SHA256, a->body ? a->body : "", a->body_n);
	digest_hex(&payload, hex);
	sigv4_date(date, clock_wall_ns());
	h[q.n_headers++] = (struct sigv4_header){"host", u->host};
	h[q.n_headers++] = (struct sigv4_header){"x-amz-content-sha256", hex};
	if (a->copy_from) {
		scoped_free char *folder = mem_printf("/%s", u->b.s.bucket);

		from = path_of(folder, a->copy_from);
		h[q.n_headers++] = (struct sigv4_header){"x-amz-copy-source", from};
	}
	if (a->copy_range)
		h[q.n_headers++] = (struct sigv4_header){"x-amz-copy-source-range", a->copy_range};
	h[q.n_headers++] = (struct sigv4_header){"x-amz-date", date};
	if (sigv4_authorization(&q, &value, e) < 0)
		return -1;
	for (size_t i = 1; i < q.n_headers; i++) /* curl itself sends Host */
		lines_add(l, h[i].name, h[i].value);
	l->authorization = buf_take(&value);
	return 0;
}

static int sign_oss(const struct bucket *u, const struct object_ask *a, const char *query,
		    struct lines *l, struct err *e)
{
	scoped(buf_fini) struct buf value = BUF_INIT(ANSWER_MAX), md5 = BUF_INIT(64),
				    headers = BUF_INIT(ANSWER_MAX);
	scoped_free char *from = NULL;
	scoped_free char *resource =
		mem_printf("/%s/%s%s%s", u->b.s.bucket, a->key, query[0] ? "?" : "", query);
	char date[OSSSIGN_DATE];
	uint8_t sum[16];
	struct osssign q = {.key_id = secret_value(u->b.s.key_id),
			    .secret = u->b.s.key_secret,
			    .method = a->method,
			    .content_type = a->body_n ? "application/octet-stream" : "",
			    .date = date,
			    .resource = resource};

	osssign_date(date, clock_wall_ns());
	lines_add(l, "Date", date);
	if (a->body_n) {
		digest_md5(sum, a->body, a->body_n);
		if (str_base64(&md5, sum, sizeof(sum), e) < 0)
			return -1;
		lines_add(l, "Content-MD5", md5.data);
		lines_add(l, "Content-Type", q.content_type);
	}
	if (a->copy_from) {
		scoped_free char *folder = mem_printf("/%s", u->b.s.bucket);

		from = path_of(folder, a->copy_from);
		buf_addf(&headers, NULL, "x-oss-copy-source:%s\n", from);
		lines_add(l, "x-oss-copy-source", from);
	}
	if (a->copy_range) {
		buf_addf(&headers, NULL, "x-oss-copy-source-range:%s\n", a->copy_range);
		lines_add(l, "x-oss-copy-source-range", a->copy_range);
	}
	q.content_md5 = md5.data;
	q.headers = headers.data;
	if (osssign_authorization(&q, &value, e) < 0)
		return -1;
	l->authorization = buf_take(&value);
	return 0;
}

static int lines_fill(const struct bucket *u, const struct object_ask *a, struct lines *l,
		      struct err *e)
{
	scoped_free char *path = path_of(u->folder, a->key);
	scoped_free char *query = query_of(a, is_oss(u), true);
	scoped_free char *plain = query_of(a, is_oss(u), false);

	l->url = mem_printf("%s://%s%s%s%s", u->b.s.scheme, u->host, path, query[0] ? "?" : "",
			    query);
	if (a->range)
		lines_add(l, "Range", a->range);
	if (is_oss(u))
		return sign_oss(u, a, plain, l, e);
	return sign_s3(u, a, path, query, l, e);
}

/* ---- answers */

/* The text of the first element of that name, unescaped; "" if it is not there. */
static void xml_text(const char *p, size_t n, const char *name, char *to, size_t cap)
{
	static const struct {
		const char *entity, *is;
	} entities[] = {{"&amp;", "&"}, {"&quot;", "\""}, {"&apos;", "'"}, {"&lt;", "<"},
			{"&gt;", ">"},	{"&#34;", "\""},  {"&#39;", "'"}};
	scoped_free char *open = mem_printf("<%s>", name);
	scoped_free char *text = mem_strndup(p ? p : "", p ? n : 0);
	const char *s = strstr(text, open);
	size_t len = 0;

	for (s = s ? s + strlen(open) : ""; *s && *s != '<' && len + 1 < cap;) {
		size_t skip = 1;

		to[len] = *s;
		for (size_t i = 0; i < sizeof(entities) / sizeof(*entities); i++)
			if (str_starts(s, entities[i].entity)) {
				to[len] = entities[i].is[0];
				skip = strlen(entities[i].entity);
			}
		len++;
		s += skip;
	}
	to[len] = '\0';
}

/* What the store calls its error: "SignatureDoesNotMatch".  Anything but one word is not quoted: an
 * answer may repeat what was sent. */
static const char *error_code(const struct http_response *r, char code[64])
{
	size_t n;
	const char *p = http_body(r, &n);

	xml_text(p, n, "Code", code, 64);
	for (char *c = code; *c; c++)
		if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') &&
		    !(*c >= '0' && *c <= '9')) {
			code[0] = '\0';
			break;
		}
	return code;
}

static const struct {
	int status;
	const char *code; /* NULL: any */
	enum err_code as;
	enum err_class class;
	const char *words;
} refusals[] = {
	{403, "RequestTimeTooSkewed", ERR_SYSTEM, CLASS_RETRY,
	 "this machine's clock and the store's differ"},
	{403, "InvalidAccessKeyId", ERR_DENIED, CLASS_FINAL, "it does not know access_key_id"},
	{403, "SignatureDoesNotMatch", ERR_DENIED, CLASS_FINAL,
	 "access_key_secret is not that of access_key_id"},
	{403, NULL, ERR_DENIED, CLASS_FINAL,
	 "the access key needs permission to get, put and delete objects there"},
	{401, NULL, ERR_DENIED, CLASS_FINAL, "it does not take the access key"},
	{404, "NoSuchBucket", ERR_NOTFOUND, CLASS_FINAL, "there is no such bucket"},
	{404, NULL, ERR_NOTFOUND, CLASS_RETRY, "it is not there"},
	{301, NULL, ERR_INVALID, CLASS_FINAL,
	 "the bucket is in another region or at another endpoint"},
	{307, NULL, ERR_INVALID, CLASS_FINAL,
	 "the bucket is in another region or at another endpoint"},
	{400, "AuthorizationHeaderMalformed", ERR_INVALID, CLASS_FINAL,
	 "region is not that of the bucket"},
	{429, NULL, ERR_NET, CLASS_RETRY, "too many requests"},
	{503, NULL, ERR_NET, CLASS_RETRY, "it is overloaded"},
	{507, NULL, ERR_LIMIT, CLASS_FINAL, "it is full"},
};

static int refused(const struct object_ask *a, const struct http_response *r, struct err *e)
{
	int status = http_status(r);
	enum err_code as = status >= 500 ? ERR_NET : ERR_INVALID;
	enum err_class class = status >= 500 ? CLASS_RETRY : CLASS_FINAL;
	const char *words = NULL, *after = http_header(r, "retry-after");
	char code[64];
	uint64_t ms = 0;

	error_code(r, code);
	for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals) && !words; i++)
		if (refusals[i].status == status &&
		    (!refusals[i].code || strcmp(refusals[i].code, code) == 0)) {
			as = refusals[i].as;
			class = refusals[i].class;
			words = refusals[i].words;
		}
	err_class(e, as, class, "%s %s: %d%s%s%s%s", a->method, a->key, status, code[0] ? " " : "",
		  code, words ? ": " : "", words ? words : "");
	if (e) {
		e->status = status;
		if (after && clock_retry_after(after, &ms) == 0)
			e->retry_after_ms = ms;
	}
	return -1;
}

static void pause_before(unsigned attempt)
{
	uint64_t ms = 100;
	uint8_t jitter;
	struct timespec t;

	digest_random(&jitter, 1);
	for (unsigned i = 0; i < attempt; i++)
		ms *= 3;
	ms += jitter;
	t = (struct timespec){.tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&t, NULL);
}

static bool worth_repeating(int status)
{
	return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

static int ask_once(struct bucket *u, const struct object_ask *a, bool fresh,
		    struct http_response **r, struct err *e)
{
	scoped(lines_fini) struct lines l = {.n = 0}; /* signed anew: the date is in it */
	struct http_request q;

	if (lines_fill(u, a, &l, e) < 0)
		return -1;
	q = (struct http_request){.method = a->method,
				  .url = l.url,
				  .headers = (const char *const *)l.line,
				  .authorization = l.authorization,
				  .peer = &u->peer,
				  .body = a->body,
				  .body_n = a->body_n,
				  .timeout_ms = a->timeout_ms ? a->timeout_ms : PART_TIMEOUT_MS,
				  .idle_ms = a->idle_ms,
				  .max_response = a->max_response ? a->max_response : ANSWER_MAX,
				  .no_redirect = true,
				  .fresh_connection = fresh};
	return http_do(u->b.http, &q, r, e);
}

/* An answer, whatever its status; what breaks or is the store's own fault is asked again. */
static int ask(struct bucket *u, const struct object_ask *a, struct http_response **r,
	       struct err *e)
{
	struct err why = {0};

	for (unsigned i = 0;; i++) {
		scoped(http_response_freep) struct http_response *got = NULL;
		bool last = a->once || i + 1 == TRIES;

		if (ask_once(u, a, i > 0, &got, &why) < 0) {
			if (last || why.code != ERR_NET) {
				if (e)
					*e = why;
				return err_wrap(e, "%s %s", a->method, a->key);
			}
		} else if (last || !worth_repeating(http_status(got))) {
			*r = take_ptr(got);
			return 0;
		}
		pause_before(i);
	}
}

/* Only 2xx; and what says 200 first and then, after long copying, that it failed. */
static int ask_ok(struct bucket *u, const struct object_ask *a, struct http_response **r,
		  struct err *e)
{
	scoped(http_response_freep) struct http_response *got = NULL;
	char code[64];
	size_t n;
	const char *p;

	if (ask(u, a, &got, e) < 0)
		return -1;
	if (http_status(got) / 100 != 2)
		return refused(a, got, e);
	p = http_body(got, &n);
	if (!a->range && p && memmem(p, n, "<Error>", 7))
		return err_set(e, ERR_NET, "%s %s: %s", a->method, a->key, error_code(got, code));
	*r = take_ptr(got);
	return 0;
}

/* ---- stored objects */

/* A HEAD's refusal has no words: the same by GET has.  2: the key may not look; without the
 * permission to list, S3 answers so for what is not there. */
static int why_not(struct bucket *u, const char *key, struct err *e)
{
	const struct object_ask a = {.method = "GET", .key = key, .range = "bytes=0-0"};
	scoped(http_response_freep) struct http_response *r = NULL;
	char code[64];

	if (ask(u, &a, &r, e) < 0)
		return -1;
	if (http_status(r) == 404 && str_eq(error_code(r, code), "NoSuchKey"))
		return 0;
	if (http_status(r) / 100 == 2)
		return err_set(e, ERR_NET, "HEAD %s is refused, and GET is not", key);
	refused(&a, r, e);
	return http_status(r) == 403 && str_eq(error_code(r, code), "AccessDenied") ? 2 : -1;
}

/* 1 and the size, 0; 2 as above, with *e filled. */
static int head(struct bucket *u, const char *key, uint64_t *size, struct err *e)
{
	const struct object_ask a = {.method = "HEAD", .key = key};
	scoped(http_response_freep) struct http_response *r = NULL;
	const char *length;

	if (ask(u, &a, &r, e) < 0)
		return -1;
	if (http_status(r) == 404)
		return 0;
	if (http_status(r) != 200)
		return why_not(u, key, e);
	length = http_header(r, "content-length");
	if (!length || str_u64(length, size, NULL) < 0)
		return err_set(e, ERR_NET, "HEAD %s: no Content-Length", key);
	return 1;
}

static int find(struct backend *b, const char *name, uint64_t *size, struct err *e)
{
	scoped_free char *key = key_of(of(b), name);
	int r = head(of(b), key, size, e);

	return r == 2 ? -1 : r;
}

static int range(struct backend *b, const char *name, uint64_t offset, size_t n, void *to,
		 struct err *e)
{
	scoped_free char *key = key_of(of(b), name);
	scoped_free char *bytes = mem_printf("bytes=%" PRIu64 "-%" PRIu64, offset, offset + n - 1);
	const struct object_ask a = {
		.method = "GET", .key = key, .range = bytes, .max_response = n + 1};
	scoped(http_response_freep) struct http_response *r = NULL;
	const char *p;
	size_t got;

	if (n == 0)
		return 0;
	if (ask_ok(of(b), &a, &r, e) < 0)
		return -1;
	p = http_body(r, &got);
	if (http_status(r) != 206 || got != n)
		return err_set(e, ERR_NET, "GET %s: %d with %zu bytes for a range of %zu", key,
			       http_status(r), got, n);
	memcpy(to, p, n);
	return 0;
}

/* Rubbish that nobody reads; but someone pays for it. */
static void remove_object(struct bucket *u, const char *key)
{
	const struct object_ask a = {
		.method = "DELETE", .key = key, .timeout_ms = DELETE_TIMEOUT_MS};
	scoped(http_response_freep) struct http_response *r = NULL;
	struct err e = {0};

	if (ask_ok(u, &a, &r, &e) < 0 && e.status != 404)
		log_warning("a temporary object stays in the bucket", F_STR("key", key), F_ERR(&e),
			    NULL);
}

/* ---- uploads in parts */
struct parts {
	char *key;
	char id[UPLOAD_ID]; /* "": none open */
	char (*etag)[ETAG];
	size_t n, cap;
};

static int parts_begin(struct bucket *u, struct parts *p, struct err *e)
{
	const struct object_ask a = {.method = "POST", .key = p->key, .param = {{"uploads", NULL}}};
	scoped(http_response_freep) struct http_response *r = NULL;
	const char *body;
	size_t n;

	if (ask_ok(u, &a, &r, e) < 0)
		return -1;
	body = http_body(r, &n);
	xml_text(body, n, "UploadId", p->id, sizeof(p->id));
	if (!p->id[0])
		return err_set(e, ERR_NET, "POST %s: no UploadId in the answer", p->key);
	return 0;
}

static int add_etag(struct parts *p, const char *etag, const char *method, struct err *e)
{
	if (!etag || !*etag || strlen(etag) >= ETAG)
		return err_set(e, ERR_NET, "%s %s: no ETag in the answer", method, p->key);
	mem_grow(p->etag, p->n, p->cap);
	str_copy(p->etag[p->n++], ETAG, etag);
	return 0;
}

static int parts_put(struct bucket *u, struct parts *p, const void *body, size_t n, struct err *e)
{
	char number[16];
	const struct object_ask a = {.method = "PUT",
				     .key = p->key,
				     .param = {{"partNumber", number}, {"uploadId", p->id}},
				     .body = body,
				     .body_n = n};
	scoped(http_response_freep) struct http_response *r = NULL;

	if (p->n == PARTS_MAX)
		return err_set(e, ERR_LIMIT, "a blob over %" PRIu64 " bytes",
			       (uint64_t)PARTS_MAX * PART);
	snprintf(number, sizeof(number), "%zu", p->n + 1);
	if (ask_ok(u, &a, &r, e) < 0)
		return err_wrap(e, "part %zu", p->n + 1);
	return add_etag(p, http_header(r, "etag"), "PUT", e);
}

static int parts_copy(struct bucket *u, struct parts *p, const char *from, uint64_t offset,
		      uint64_t n, struct err *e)
{
	char number[16], range_of[64], etag[ETAG];
	const struct object_ask a = {.method = "PUT",
				     .key = p->key,
				     .param = {{"partNumber", number}, {"uploadId", p->id}},
				     .copy_from = from,
				     .copy_range = range_of,
				     .timeout_ms = SLOW_MS,
				     .idle_ms = SLOW_MS};
	scoped(http_response_freep) struct http_response *r = NULL;
	const char *body;
	size_t len;

	snprintf(number, sizeof(number), "%zu", p->n + 1);
	snprintf(range_of, sizeof(range_of), "bytes=%" PRIu64 "-%" PRIu64, offset, offset + n - 1);
	if (ask_ok(u, &a, &r, e) < 0)
		return -1;
	body = http_body(r, &len);
	xml_text(body, len, "ETag", etag, sizeof(etag));
	return add_etag(p, etag, "PUT", e);
}

static int parts_end(struct bucket *u, struct parts *p, uint64_t size, struct err *e)
{
	scoped(buf_fini) struct buf body = BUF_INIT(PARTS_MAX * (ETAG * 6 + 80));
	scoped(http_response_freep) struct http_response *r = NULL;
	struct object_ask a = {.method = "POST",
			       .key = p->key,
			       .param = {{"uploadId", p->id}},
			       .timeout_ms = SLOW_MS,
			       .idle_ms = SLOW_MS};
	uint64_t there = 0;

	buf_add_str(&body, "<CompleteMultipartUpload>", NULL);
	for (size_t i = 0; i < p->n; i++) {
		buf_addf(&body, NULL, "<Part><PartNumber>%zu</PartNumber><ETag>", i + 1);
		for (const char *c = p->etag[i]; *c; c++)
			if (strchr("<>&\"", *c))
				buf_addf(&body, NULL, "&#%d;", *c);
			else
				buf_add_char(&body, *c, NULL);
		buf_add_str(&body, "</ETag></Part>", NULL);
	}
	if (buf_add_str(&body, "</CompleteMultipartUpload>", e) < 0)
		return -1;
	a.body = body.data;
	a.body_n = body.len;
	/* A lost answer: the upload is gone then, and the object there. */
	if (ask_ok(u, &a, &r, e) < 0 &&
	    (!e || e->status != 404 || head(u, p->key, &there, NULL) != 1 || there != size))
		return -1;
	p->id[0] = '\0';
	return 0;
}

static void parts_abort(struct bucket *u, struct parts *p)
{
	const struct object_ask a = {.method = "DELETE",
				     .key = p->key,
				     .param = {{"uploadId", p->id}},
				     .timeout_ms = DELETE_TIMEOUT_MS};
	scoped(http_response_freep) struct http_response *r = NULL;
	struct err e = {0};

	if (p->id[0] && ask_ok(u, &a, &r, &e) < 0 && e.status != 404)
		log_warning("an upload stays open in the bucket", F_STR("key", p->key), F_ERR(&e),
			    NULL);
	p->id[0] = '\0';
}

static void parts_fini(struct parts *p)
{
	free(p->key);
	free(p->etag);
	memset(p, 0, sizeof(*p));
}

/* ---- one blob */
struct object {
	struct bucket *u;
	char *held;
	size_t held_n;
	uint64_t written;
	struct parts parts; /* key NULL: all is held */
	bool stored;	    /* the temporary object is whole */
};

static int create(struct backend *b, void **dest, struct err *e)
{
	struct object *o = mem_zalloc(sizeof(*o));

	o->u = of(b);
	*dest = o;
	return 0;
}

static int send_part(struct object *o, struct err *e)
{
	char name[BACKEND_TEMPORARY];

	if (!o->parts.key) {
		backend_temporary(name);
		o->parts.key = key_of(o->u, name);
	}
	if (!o->parts.id[0] && parts_begin(o->u, &o->parts, e) < 0)
		return -1;
	if (parts_put(o->u, &o->parts, o->held, o->held_n, e) < 0)
		return -1;
	o->held_n = 0;
	return 0;
}

static int object_write(void *dest, const void *p, size_t n, struct err *e)
{
	struct object *o = dest;
	const char *from = p;

	if (!o->held)
		o->held = mem_alloc(PART);
	while (n) {
		size_t k = PART - o->held_n < n ? PART - o->held_n : n;

		/* The byte after a full part sends it: so a blob of just one is a single PUT. */
		if (k == 0) {
			if (send_part(o, e) < 0)
				return err_wrap(e, "%s", o->u->b.name);
			continue;
		}
		memcpy(o->held + o->held_n, from, k);
		o->held_n += k;
		o->written += k;
		from += k;
		n -= k;
	}
	return 0;
}

static int put_held(struct object *o, const char *key, struct err *e)
{
	const struct object_ask a = {
		.method = "PUT", .key = key, .body = o->held, .body_n = o->held_n};
	scoped(http_response_freep) struct http_response *r = NULL;

	return ask_ok(o->u, &a, &r, e);
}

static int copy_in_parts(struct object *o, const char *key, struct err *e)
{
	struct parts p = {.key = mem_strdup(key)};
	int r = parts_begin(o->u, &p, e);

	for (uint64_t at = 0; r == 0 && at < o->written;) {
		uint64_t n = o->written - at < COPY_PIECE ? o->written - at : COPY_PIECE;

		r = parts_copy(o->u, &p, o->parts.key, at, n, e);
		at += n;
	}
	if (r == 0)
		r = parts_end(o->u, &p, o->written, e);
	parts_abort(o->u, &p);
	parts_fini(&p);
	return r;
}

/* Inside the store, from the temporary key. */
static int copy(struct object *o, const char *key, struct err *e)
{
	const struct object_ask a = {.method = "PUT",
				     .key = key,
				     .copy_from = o->parts.key,
				     .timeout_ms = SLOW_MS,
				     .idle_ms = SLOW_MS};
	scoped(http_response_freep) struct http_response *r = NULL;

	if (o->written > COPY_MAX || FAULT_ARMED("backend.copy_in_parts"))
		return copy_in_parts(o, key, e);
	return ask_ok(o->u, &a, &r, e);
}

static int put_parts(struct object *o, const char *key, struct err *e)
{
	uint64_t there = 0;
	struct err why = {0};
	int r;

	if (o->held_n && send_part(o, e) < 0)
		return -1;
	if (parts_end(o->u, &o->parts, o->written, e) < 0)
		return -1;
	o->stored = true;
	if (FAULT("backend.before_commit", e) < 0)
		return -1;
	if (copy(o, key, e) < 0)
		return err_wrap(e, "copy to its own name");
	r = head(o->u, key, &there, &why);
	if (r == 0 || (r == 1 && there != o->written))
		return err_class(e, ERR_CORRUPT, CLASS_RETRY,
				 "%s: %" PRIu64 " bytes after a copy of %" PRIu64, key, there,
				 o->written);
	if (r < 0 && e)
		*e = why;
	return r < 0 ? -1 : 0;
}

static int object_commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	struct object *o = dest;
	char name[BACKEND_NAME];
	scoped_free char *key = key_of(o->u, digest_hex(d, name));
	uint64_t there = 0;
	struct err why = {0};
	int r;

	if (size != o->written)
		return err_set(e, ERR_BUG, "%" PRIu64 " bytes written, %" PRIu64 " committed",
			       o->written, size);
	r = head(o->u, key, &there, &why);
	if (r == 1 && there == size && !o->u->b.force)
		return 0; /* abort takes ours away */
	if (r < 0 && e)
		*e = why;
	if (r >= 0) /* 2: what may not look may still write, and a PUT's refusal has words */
		r = o->parts.key ? put_parts(o, key, e) : put_held(o, key, e);
	return r < 0 ? err_wrap(e, "%s", o->u->b.name) : 0;
}

static void object_abort(void *dest)
{
	struct object *o = dest;

	if (o->parts.key)
		parts_abort(o->u, &o->parts);
	if (o->stored)
		remove_object(o->u, o->parts.key);
	parts_fini(&o->parts);
	free(o->held);
	free(o);
}

/* ---- the bucket */
static void bucket_free(struct backend *b)
{
	free(of(b)->host);
	free(of(b)->folder);
	free(b);
}

/* An address is no domain that a bucket could stand before. */
static bool is_address(const char *endpoint)
{
	return endpoint[0] == '[' || strspn(endpoint, "0123456789.:") == strlen(endpoint) ||
	       str_eq(endpoint, "localhost") || str_starts(endpoint, "localhost:");
}

/* As curl writes it into Host: without the scheme's own port. */
static char *host_header(const struct storage *s, bool bucket_first)
{
	const char *port = str_eq(s->scheme, "https") ? ":443" : ":80";
	size_t n = strlen(s->endpoint) - (str_ends(s->endpoint, port) ? strlen(port) : 0);

	return mem_printf("%s%s%.*s", bucket_first ? s->bucket : "", bucket_first ? "." : "",
			  (int)n, s->endpoint);
}

int bucket_open(struct backend **to, const struct storage *s, struct err *e)
{
	static const struct backend_ops ops = {
		.find = find,
		.range = range,
		.create = create,
		.out = {.write = object_write, .commit = object_commit, .abort = object_abort},
		.held = PART,
		.free = bucket_free};
	bool bucket_first = s->kind == NYDUS_OSS && !is_address(s->endpoint);
	struct bucket *u;

	if (!s->key_id)
		return err_set(e, ERR_DENIED,
			       "%s bucket %s: backend_config here has no access_key_id and "
			       "access_key_secret",
			       storage_kind_name(s->kind), s->bucket);
	u = mem_zalloc(sizeof(*u));
	u->b.ops = &ops;
	u->peer =
		(struct http_peer){.plain_http = str_eq(s->scheme, "http"), .allow_private = true};
	u->host = host_header(s, bucket_first);
	u->folder = bucket_first ? mem_strdup("") : mem_printf("/%s", s->bucket);
	*to = &u->b;
	return 0;
}
