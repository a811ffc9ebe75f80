/* worker/registry/regerr.c - see regerr.h. */
#include "worker/registry/regerr.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/http.h"
#include "common/json.h"
#include "common/str.h"

enum {
	BODY_MAX = 64 << 10,
	MESSAGE_MAX = 200,
	DEFAULT_PAUSE_MS = 30000,
	MIN_PAUSE_MS = 1000,
	MAX_PAUSE_MS = 3600000,
	SCAN_WAIT_MS = 30000,
	FULL_DISK_WAIT_MS = 300000,
};

#define ANY 0xff
/* Texts: %H host, %R reference, %P repository, %J its project, %T tag, %D digest, %U user or
 * "anonymous", %A actions, %M the registry's own words, %N bytes sent, %S status, %Q "GET /v2/...".
 */
static const struct row {
	int status, status_to; /* a range; 0: that one */
	unsigned what;
	const char *code;  /* or NULL: any */
	const char *words; /* contained in the message; or NULL */
	enum err_code err;
	enum err_class class;
	uint64_t wait_ms;
	const char *text;
} rows[] = {
	/* the first that fits */
	{401, 0, ASK_TOKEN, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "the token service of %H refused user %U: secret wrong, account disabled or expired"},
	{401, 0, ANY, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "%H refused user %U for %R (%A): secret wrong, account disabled or expired, or no "
	 "permission%M"},
	{402, 0, ANY, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0, "%H asks for payment (402)%M"},
	{403, 0, ANY, NULL, "proxy project", ERR_DENIED, CLASS_FINAL, 0,
	 "project %J of %H is a proxy cache: it takes no pushes; set a target in another project"},
	{403, 0, ANY, NULL, "exceed the configured upper limit", ERR_LIMIT, CLASS_FINAL, 0,
	 "project %J of %H is out of quota%M"},
	{403, 0, ASK_MANIFEST_PUT | ASK_UPLOAD, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "%H: user %U may not push to %P%M"},
	{403, 0, ASK_TOKEN, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "the token service of %H refused user %U%M"},
	{403, 0, ANY, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0, "%H: user %U may not pull %R%M"},
	{400, 404, ASK_MANIFEST_PUT, "MANIFEST_BLOB_UNKNOWN", NULL, ERR_NET, CLASS_RETRY, 0,
	 "%H does not have a blob that we uploaded%M"},
	{400, 404, ASK_MANIFEST_PUT, "BLOB_UNKNOWN", NULL, ERR_NET, CLASS_RETRY, 0,
	 "%H does not have a blob that we uploaded%M"},
	{404, 0, ASK_MANIFEST_GET, NULL, NULL, ERR_NOTFOUND, CLASS_FINAL, 0,
	 "%R not found at %H: deleted since it was pushed, or the account may not see it"},
	{404, 0, ASK_BLOB_GET, NULL, NULL, ERR_NOTFOUND, CLASS_FINAL, 0,
	 "%D is named by the manifest but missing at %H"},
	{404, 0, ASK_UPLOAD, "BLOB_UPLOAD_UNKNOWN", NULL, ERR_NET, CLASS_RETRY, 0,
	 "%H forgot the upload%M"},
	{404, 0, ASK_UPLOAD | ASK_MANIFEST_PUT, NULL, NULL, ERR_NOTFOUND, CLASS_FINAL, 0,
	 "%H has no repository %P, or the account may not see it (404 to %Q)%M"},
	{400, 0, ASK_UPLOAD, "DIGEST_INVALID", NULL, ERR_CORRUPT, CLASS_RETRY, 0,
	 "%H got other bytes than we sent%M"},
	{405, 0, ASK_MANIFEST_PUT, NULL, NULL, ERR_UNSUPPORTED, CLASS_FINAL, 0,
	 "%H rejected the manifest (405)%M"},
	{415, 0, ASK_MANIFEST_PUT, NULL, NULL, ERR_UNSUPPORTED, CLASS_FINAL, 0,
	 "%H rejected the manifest (415)%M"},
	{400, 0, ASK_MANIFEST_PUT, NULL, NULL, ERR_UNSUPPORTED, CLASS_FINAL, 0,
	 "%H rejected the manifest (400)%M"},
	{408, 0, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, 0, "%H gave up reading %Q (408)%M"},
	{410, 0, ANY, NULL, NULL, ERR_NOTFOUND, CLASS_FINAL, 0, "%R is gone from %H (410)"},
	{412, 0, ANY, "PROJECTPOLICYVIOLATION", "not signed", ERR_DENIED, CLASS_WAIT, SCAN_WAIT_MS,
	 "waiting: project %J requires a signature before pulls"},
	{412, 0, ANY, "PROJECTPOLICYVIOLATION", "without vulnerability scanning", ERR_DENIED,
	 CLASS_WAIT, SCAN_WAIT_MS, "waiting: project %J requires a scan before pulls"},
	{412, 0, ANY, "PROJECTPOLICYVIOLATION", "status of vulnerability scanning", ERR_DENIED,
	 CLASS_WAIT, SCAN_WAIT_MS, "waiting: project %J requires a scan before pulls"},
	{412, 0, ANY, "PROJECTPOLICYVIOLATION", NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "project %J blocks this image%M"},
	{412, 0, ASK_MANIFEST_PUT, NULL, "immutable", ERR_DENIED, CLASS_FINAL, 0,
	 "tag %T exists at %H and is immutable"},
	{412, 0, ANY, NULL, NULL, ERR_DENIED, CLASS_FINAL, 0,
	 "%H refused %Q: a precondition does not hold (412)%M"},
	{413, 0, ASK_MANIFEST_PUT, NULL, NULL, ERR_LIMIT, CLASS_FINAL, 0,
	 "manifest of %N bytes is larger than %H takes"},
	{413, 0, ANY, NULL, NULL, ERR_LIMIT, CLASS_FINAL, 0,
	 "a proxy before %H refuses bodies of %N bytes"},
	{416, 0, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, 0, "%H refused the range of %Q (416)%M"},
	{429, 0, ANY, NULL, NULL, ERR_BUSY, CLASS_WAIT, DEFAULT_PAUSE_MS,
	 "%H limits our requests%M"},
	{507, 0, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, FULL_DISK_WAIT_MS,
	 "%H has no space left%M"},
	{500, 599, ANY, NULL, "no space left", ERR_NET, CLASS_RETRY, FULL_DISK_WAIT_MS,
	 "%H has no space left%M"},
	{503, 0, ANY, NULL, NULL, ERR_BUSY, CLASS_RETRY, 0, "%H answered %S to %Q%M"},
	{500, 599, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, 0, "%H answered %S to %Q%M"},
	{200, 399, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, 0,
	 "%H answered %S to %Q, which is not expected%M"},
	{400, 499, ANY, NULL, NULL, ERR_INVALID, CLASS_FINAL, 0, "%H answered %S to %Q%M"},
	{0, 999, ANY, NULL, NULL, ERR_NET, CLASS_RETRY, 0, "%H answered %S to %Q%M"},
};

/* ---- reading a body */
static void take(char *to, size_t n, const char *from, size_t len)
{
	char all[1024];

	snprintf(all, sizeof(all), "%.*s", (int)(len < sizeof(all) - 1 ? len : sizeof(all) - 1),
		 from);
	str_clean(all);
	str_copy(to, n, all);
}

static bool from_json(const char *body, size_t n, char code[64], char message[MESSAGE_MAX + 1])
{
	struct json *root = NULL;
	const struct json *list, *one;
	const char *p;

	if (json_parse(&root, body, n, &(struct json_limits){.bytes = BODY_MAX, .depth = 16},
		       NULL) < 0)
		return false;
	list = json_get(root, "errors");
	one = list && json_kind(list) == JSON_ARRAY ? (json_len(list) ? json_at(list, 0) : NULL)
						    : list;
	if (!one)
		one = root;
	if ((p = json_value_str(json_get(one, "code"))))
		take(code, 64, p, strlen(p));
	if ((p = json_value_str(json_get(one, "message"))))
		take(message, MESSAGE_MAX + 1, p, strlen(p));
	else if ((p = json_value_str(json_get(root, "details"))) ||
		 (p = json_value_str(json_get(root, "error_description"))) ||
		 (p = json_value_str(json_get(root, "error"))))
		take(message, MESSAGE_MAX + 1, p, strlen(p));
	json_freep(&root);
	return true;
}

static bool xml_element(const char *text, const char *name, char *to, size_t n)
{
	char open[24];
	const char *p, *end;

	snprintf(open, sizeof(open), "<%s>", name);
	p = strstr(text, open);
	if (!p)
		return false;
	p += strlen(open);
	end = strchr(p, '<');
	if (end)
		take(to, n, p, (size_t)(end - p));
	return end != NULL;
}

void regerr_read(const char *body, size_t n, char code[64], char message[MESSAGE_MAX + 1])
{
	char text[2048];
	const char *p;

	code[0] = message[0] = '\0';
	if (n > BODY_MAX)
		n = BODY_MAX;
	if (n == 0 || from_json(body, n, code, message))
		return;
	snprintf(text, sizeof(text), "%.*s", (int)(n < sizeof(text) - 1 ? n : sizeof(text) - 1),
		 body);
	p = text + strspn(text, " \t\r\n");
	if (*p == '<') {
		xml_element(p, "Code", code, 64);
		if (!xml_element(p, "Message", message, MESSAGE_MAX + 1) &&
		    !xml_element(p, "title", message, MESSAGE_MAX + 1))
			str_copy(message, MESSAGE_MAX + 1, "a web page");
		return;
	}
	if (*p != '{' && *p != '[') /* broken JSON says nothing to people */
		take(message, MESSAGE_MAX + 1, p, strcspn(p, "\r\n"));
}

bool regerr_is_page(const char *content_type, const char *body, size_t n)
{
	while (n && (*body == ' ' || *body == '\t' || *body == '\r' || *body == '\n')) {
		body++;
		n--;
	}
	return (content_type && !strncasecmp(content_type, "text/html", 9)) || (n && *body == '<');
}

int regerr_page(const char *host, const char *instead_of, struct err *e)
{
	return err_set(e, ERR_NET,
		       "%s answered with a web page instead of %s: a proxy is in the way (check "
		       "HTTPS_PROXY, NO_PROXY)",
		       host, instead_of);
}

uint64_t regerr_retry_after_ms(const char *value)
{
	uint64_t ms;

	if (!value || clock_retry_after(value, &ms) < 0)
		return 0;
	return ms < MIN_PAUSE_MS ? MIN_PAUSE_MS : ms > MAX_PAUSE_MS ? MAX_PAUSE_MS : ms;
}

/* ---- the text */
static void add_words(struct buf *b, const char *message, const struct regerr_answer *r)
{
	if (!r->away && message[0])
		buf_addf(b, NULL, ": %s", message);
	if (r->request_id && r->status >= 500)
		buf_addf(b, NULL, " (request id %.64s)", r->request_id);
}

static void expand(struct buf *b, const char *text, const struct regerr_ask *a,
		   const struct regerr_answer *r, const char *message)
{
	const char *repo = a->repository ? a->repository : "?";

	for (const char *p = text; *p; p++) {
		if (*p != '%') {
			buf_add_char(b, *p, NULL);
			continue;
		}
		switch (*++p) {
		case 'H':
			buf_add_str(b, a->host, NULL);
			break;
		case 'R':
			buf_add_str(b, a->ref ? a->ref : repo, NULL);
			break;
		case 'P':
			buf_add_str(b, repo, NULL);
			break;
		case 'J':
			buf_addf(b, NULL, "%.*s", (int)strcspn(repo, "/"), repo);
			break;
		case 'T':
			buf_add_str(b, a->tag ? a->tag : "?", NULL);
			break;
		case 'D':
			buf_add_str(b, a->digest ? a->digest : "the blob", NULL);
			break;
		case 'U':
			buf_add_str(b, a->user ? a->user : "anonymous", NULL);
			break;
		case 'A':
			buf_add_str(b, a->push ? "push,pull" : "pull", NULL);
			break;
		case 'M':
			add_words(b, message, r);
			break;
		case 'N':
			buf_addf(b, NULL, "%" PRIu64, a->bytes);
			break;
		case 'S':
			buf_addf(b, NULL, "%d", r->status);
			break;
		case 'Q':
			buf_addf(b, NULL, "%s %s", a->method ? a->method : "a request for",
				 a->path ? a->path : "it");
			break;
		}
	}
}

static bool fits(const struct row *w, const struct regerr_ask *a, int status, const char *code,
		 const char *message)
{
	if (w->status_to ? status < w->status || status > w->status_to : status != w->status)
		return false;
	return (w->what == ANY || (w->what & a->what)) && (!w->code || str_eq(w->code, code)) &&
	       (!w->words || strstr(message, w->words));
}

int regerr_set(const struct regerr_ask *a, const struct regerr_answer *r, struct err *e)
{
	const struct row *w = rows;
	char code[64], message[MESSAGE_MAX + 1];
	uint64_t asked = 0, wait;
	struct buf b;

	if (!e)
		return -1;
	regerr_read(r->body ? r->body : "", r->n, code, message);
	while (w < rows + sizeof(rows) / sizeof(*rows) - 1 && !fits(w, a, r->status, code, message))
		w++;
	buf_init(&b, 4096);
	if (r->status == 401 && !a->user && a->what != ASK_TOKEN)
		buf_addf(&b, NULL, "%s wants a login for %s; none is configured", a->host,
			 a->ref		 ? a->ref
			 : a->repository ? a->repository
					 : "it");
	else
		expand(&b, w->text, a, r, message);
	if (r->status == 429 || r->status == 503)
		asked = regerr_retry_after_ms(r->retry_after);
	wait = asked ? asked : w->wait_ms;
	if (r->status == 429) {
		char when[CLOCK_TEXT];

		clock_rfc3339(when, clock_wall_ns() + (int64_t)wait * 1000000, 0);
		buf_addf(&b, NULL, "; next try at %s", when);
	}
	err_class(e, w->err, w->class, "%s", b.data);
	buf_fini(&b);
	e->status = r->status;
	e->retry_after_ms = wait;
	return -1;
}

int regerr_response(const struct regerr_ask *a, const struct http_response *r, struct err *e)
{
	static const char *const ids[] = {"x-request-id", "x-github-request-id", "x-amzn-requestid",
					  "x-ms-correlation-request-id"};
	struct regerr_answer answer = {.status = http_status(r),
				       .content_type = http_header(r, "content-type"),
				       .retry_after = http_header(r, "retry-after"),
				       .away = http_redirected_away(r)};

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids) && !answer.request_id; i++)
		answer.request_id = http_header(r, ids[i]);
	answer.body = http_body(r, &answer.n);
	return regerr_set(a, &answer, e);
}
