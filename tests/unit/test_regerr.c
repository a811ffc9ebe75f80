/* Answers of registries -> code, class, words; Harbor's replayed from its captures. */
#include <stdio.h>
#include <stdlib.h>

#include "common/config.h"
#include "common/err.h"
#include "common/scope.h"
#include "tests/unit/unit.h"
#include "worker/registry/regerr.h"
#include "worker/registry/token.h"

static struct regerr_ask ask = {.host = "h.example",
				.method = "PUT",
				.path = "/v2/payments/app/x",
				.ref = "h.example/payments/app:v1",
				.repository = "payments/app",
				.tag = "v1",
				.digest = "sha256:0123",
				.user = "robot$x",
				.bytes = 77};

static struct err set(enum regerr_what what, int status, const char *body, const char *retry_after)
{
	struct err e = {0};
	struct regerr_answer r = {.status = status,
				  .body = body,
				  .n = body ? strlen(body) : 0,
				  .retry_after = retry_after};

	ask.what = what;
	ask.push = what == ASK_MANIFEST_PUT || what == ASK_UPLOAD;
	assert_int_equal(regerr_set(&ask, &r, &e), -1);
	assert_int_equal(e.status, status);
	return e;
}

/* Status and body of a capture. */
static struct err capture(const char *file, enum regerr_what what)
{
	char path[200], line[8192], body[8192] = "";
	int status = 0;
	bool after = false;
	FILE *f;

	snprintf(path, sizeof(path), "tests/fixtures/captures/harbor/api/%s", file);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (!strncmp(line, "< HTTP/1.1 ", 11))
			status = atoi(line + 11);
		else if (!strcmp(line, "<"))
			after = true;
		else if (after && line[0] == '{' && !body[0])
			snprintf(body, sizeof(body), "%s", line);
	}
	fclose(f);
	return set(what, status, body, NULL);
}

static void is(struct err e, enum err_code code, enum err_class class, const char *text)
{
	assert_text_has(e.text, text);
	assert_int_equal(e.code, code);
	assert_int_equal(e.class, class);
}

static void harbors_refusals_have_their_own_words(void **state)
{
	static const struct {
		const char *file;
		enum regerr_what what;
		enum err_code code;
		enum err_class class;
		const char *text;
	} cases[] = {
		{"023-manifest-unknown-tag.txt", ASK_MANIFEST_GET, ERR_NOTFOUND, CLASS_FINAL,
		 "h.example/payments/app:v1 not found at h.example: deleted since it was pushed, "
		 "or "
		 "the account may not see it"},
		{"027-blob-unknown.txt", ASK_BLOB_GET, ERR_NOTFOUND, CLASS_FINAL,
		 "sha256:0123 is named by the manifest but missing at h.example"},
		{"031-manifest-wrong-basic.txt", ASK_MANIFEST_GET, ERR_DENIED, CLASS_FINAL,
		 "h.example refused user robot$x for h.example/payments/app:v1 (pull): secret "
		 "wrong, account disabled or expired, or no permission: unauthorized to access "
		 "repository: payments/api/gateway"},
		{"043-push-no-such-project.txt", ASK_UPLOAD, ERR_DENIED, CLASS_FINAL,
		 "project nosuchproject not found"},
		{"085-manifest-over-4MiB-tag.txt", ASK_MANIFEST_PUT, ERR_LIMIT, CLASS_FINAL,
		 "manifest of 77 bytes is larger than h.example takes"},
		{"088-manifest-missing-blob.txt", ASK_MANIFEST_PUT, ERR_NET, CLASS_RETRY,
		 "h.example does not have a blob that we uploaded"},
		{"096-immutable-other-digest.txt", ASK_MANIFEST_PUT, ERR_DENIED, CLASS_FINAL,
		 "tag v1 exists at h.example and is immutable"},
		{"100-quota-blob-put-exceeds.txt", ASK_UPLOAD, ERR_LIMIT, CLASS_FINAL,
		 "project payments of h.example is out of quota: adding 4.9 KiB"},
		{"133-unsigned-get-digest.txt", ASK_MANIFEST_GET, ERR_DENIED, CLASS_WAIT,
		 "waiting: project payments requires a signature before pulls"},
		{"144-proxy-upload-start.txt", ASK_UPLOAD, ERR_DENIED, CLASS_FINAL,
		 "project payments of h.example is a proxy cache: it takes no pushes; set a target "
		 "in another project"},
		{"145-proxy-manifest-put.txt", ASK_MANIFEST_PUT, ERR_DENIED, CLASS_FINAL,
		 "proxy cache"},
		{"071-upload-put-repeated.txt", ASK_UPLOAD, ERR_NET, CLASS_RETRY,
		 "forgot the upload"},
		{"067-upload-put-wrong-digest.txt", ASK_UPLOAD, ERR_CORRUPT, CLASS_RETRY,
		 "got other bytes than we sent"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		is(capture(cases[i].file, cases[i].what), cases[i].code, cases[i].class,
		   cases[i].text);
}

#define POLICY(m) "{\"errors\":[{\"code\":\"PROJECTPOLICYVIOLATION\",\"message\":\"" m "\"}]}"

static void an_unscanned_image_waits_and_a_vulnerable_one_does_not(void **state)
{
	is(set(ASK_MANIFEST_GET, 412,
	       POLICY("current image without vulnerability scanning cannot be pulled"), NULL),
	   ERR_DENIED, CLASS_WAIT, "requires a scan");
	is(set(ASK_MANIFEST_GET, 412,
	       POLICY("current image with \\\"Pending\\\" status of vulnerability scanning cannot"),
	       NULL),
	   ERR_DENIED, CLASS_WAIT, "requires a scan");
	is(set(ASK_MANIFEST_GET, 412,
	       POLICY("current image with 3 vulnerabilities cannot be pulled"), NULL),
	   ERR_DENIED, CLASS_FINAL,
	   "project payments blocks this image: current image with 3 vulnerabilities");
}

static void statuses_have_their_classes(void **state)
{
	is(set(ASK_BLOB_GET, 402, "", NULL), ERR_DENIED, CLASS_FINAL, "asks for payment (402)");
	is(set(ASK_MANIFEST_PUT, 405, "", NULL), ERR_UNSUPPORTED, CLASS_FINAL,
	   "rejected the manifest (405)");
	is(set(ASK_MANIFEST_PUT, 415, "", NULL), ERR_UNSUPPORTED, CLASS_FINAL, "(415)");
	is(set(ASK_BLOB_GET, 408, "", NULL), ERR_NET, CLASS_RETRY, "(408)");
	is(set(ASK_BLOB_GET, 410, "", NULL), ERR_NOTFOUND, CLASS_FINAL,
	   "is gone from h.example (410)");
	is(set(ASK_UPLOAD, 413, "", NULL), ERR_LIMIT, CLASS_FINAL,
	   "a proxy before h.example refuses bodies of 77 bytes");
	is(set(ASK_UPLOAD, 500, "", NULL), ERR_NET, CLASS_RETRY,
	   "h.example answered 500 to PUT /v2/payments/app/x");
	is(set(ASK_UPLOAD, 503, "", "7"), ERR_BUSY, CLASS_RETRY, "answered 503");
	is(set(ASK_UPLOAD, 507, "", NULL), ERR_NET, CLASS_RETRY, "has no space left");
	is(set(ASK_UPLOAD, 500, "write /x: no space left on device", NULL), ERR_NET, CLASS_RETRY,
	   "has no space left");
	is(set(ASK_UPLOAD, 403, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}", NULL),
	   ERR_DENIED, CLASS_FINAL, "user robot$x may not push to payments/app: no");
	is(set(ASK_OTHER, 418, "", NULL), ERR_INVALID, CLASS_FINAL, "answered 418");
}

static void retry_after_is_bounded(void **state)
{
	assert_int_equal(set(ASK_UPLOAD, 429, "", "0").retry_after_ms, 1000);
	assert_int_equal(set(ASK_UPLOAD, 429, "", "17").retry_after_ms, 17000);
	assert_int_equal(set(ASK_UPLOAD, 429, "", "999999").retry_after_ms, 3600000);
	assert_int_equal(set(ASK_UPLOAD, 429, "", "soon").retry_after_ms, 30000);
	assert_int_equal(set(ASK_UPLOAD, 429, "", NULL).retry_after_ms, 30000);
	assert_int_equal(set(ASK_UPLOAD, 503, "", "20").retry_after_ms, 20000);
	is(set(ASK_UPLOAD, 429, "", "17"), ERR_BUSY, CLASS_WAIT,
	   "limits our requests; next try at");
}

static void bodies_of_every_kind_give_code_and_message(void **state)
{
	static const struct {
		const char *body, *code, *message;
	} cases[] = {
		{"{\"errors\":[{\"code\":\"A\",\"message\":\"b\"}]}", "A", "b"},
		{"{\"errors\":{\"code\":\"A\",\"message\":\"b\"}}", "A", "b"},
		{"{\"errors\":[]}", "", ""},
		{"{\"message\":\"top\"}", "", "top"},
		{"{\"details\":\"incorrect username or password\"}", "",
		 "incorrect username or password"},
		{"<?xml version='1.0'?><Error><Code>InvalidRequest</Code><Message>Only "
		 "one</Message>"
		 "</Error>",
		 "InvalidRequest", "Only one"},
		{"<html><head><title>502 Bad Gateway</title></head></html>", "", "502 Bad Gateway"},
		{"first line\nsecond", "", "first line"},
		{"esc \x1b[31mred\ttab", "", "esc ?[31mred tab"},
		{"{broken", "", ""},
		{"", "", ""},
	};
	char code[64], message[201];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		regerr_read(cases[i].body, strlen(cases[i].body), code, message);
		assert_string_equal(code, cases[i].code);
		if (!strstr(cases[i].body, "\x1b"))
			assert_string_equal(message, cases[i].message);
		assert_null(strchr(message, '\x1b'));
	}
}

static void a_long_message_is_cut_at_200(void **state)
{
	char code[64], message[201], body[5000];

	memset(body, 'x', sizeof(body));
	regerr_read(body, sizeof(body), code, message);
	assert_int_equal(strlen(message), 200);
}

static void a_foreign_body_is_never_quoted(void **state)
{
	struct err e = {0};
	struct regerr_answer r = {.status = 500, .body = "metadata-secret", .n = 15, .away = true};

	ask.what = ASK_BLOB_GET;
	regerr_set(&ask, &r, &e);
	assert_null(strstr(e.text, "metadata-secret"));
}

static void no_login_is_said_only_where_none_is_configured(void **state)
{
	const char *user = ask.user;

	ask.user = NULL;
	is(set(ASK_MANIFEST_GET, 401, "", NULL), ERR_DENIED, CLASS_FINAL,
	   "h.example wants a login for h.example/payments/app:v1; none is configured");
	ask.user = user;
}

/* ---- realms */
static int realm(const char *host, const char *base, const char *endpoint, const char *own_realm,
		 bool plain, const char *asked, const char *want)
{
	struct source_settings s = {
		.host = (char *)host, .endpoint = (char *)endpoint, .realm = (char *)own_realm};
	scoped_free char *url = NULL;
	struct err e = {0};
	bool own;

	if (login_realm(&s, base, plain, asked, &url, &own, &e) < 0) {
		assert_int_equal(e.code, ERR_DENIED);
		return -1;
	}
	assert_string_equal(url, want);
	return 0;
}

static void token_services_are_asked_only_where_they_belong(void **state)
{
	const char *h = "h.example", *b = "https://h.example";

	assert_int_equal(realm(h, b, NULL, NULL, false, "https://h.example/service/token",
			       "https://h.example/service/token"),
			 0);
	assert_int_equal(realm(h, b, NULL, NULL, false, "https://h.example:8443/t",
			       "https://h.example:8443/t"),
			 0);
	assert_int_equal(realm(h, b, NULL, NULL, false, "https://evil.example/t", ""), -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "https://h.example.evil/t", ""), -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "https://h.example@evil.example/t", ""),
			 -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "http://h.example/t", ""), -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "http://169.254.169.254/t", ""), -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "file:///etc/passwd", ""), -1);
	assert_int_equal(realm(h, b, NULL, NULL, false, "/relative", ""), -1);
	assert_int_equal(realm(h, "http://h.example", NULL, NULL, true, "http://h.example/t",
			       "http://h.example/t"),
			 0);
	assert_int_equal(realm("docker.io", "https://registry-1.docker.io", NULL, NULL, false,
			       "https://auth.docker.io/token", "https://auth.docker.io/token"),
			 0);
	assert_int_equal(realm(h, b, NULL, NULL, false, "https://auth.docker.io/token", ""), -1);
	/* reached under another name: so is its token service */
	assert_int_equal(realm(h, "http://core:80", "http://core:80", NULL, true,
			       "https://h.example/service/token", "http://core:80/service/token"),
			 0);
	/* configured */
	assert_int_equal(realm(h, b, NULL, "https://auth.example", false,
			       "https://x.example/jwt/auth", "https://auth.example/jwt/auth"),
			 0);
	assert_int_equal(realm(h, b, NULL, "https://auth.example/token", false,
			       "https://x.example/j", "https://auth.example/token"),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(harbors_refusals_have_their_own_words),
		T(an_unscanned_image_waits_and_a_vulnerable_one_does_not),
		T(statuses_have_their_classes),
		T(retry_after_is_bounded),
		T(bodies_of_every_kind_give_code_and_message),
		T(a_long_message_is_cut_at_200),
		T(a_foreign_body_is_never_quoted),
		T(no_login_is_said_only_where_none_is_configured),
		T(token_services_are_asked_only_where_they_belong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
