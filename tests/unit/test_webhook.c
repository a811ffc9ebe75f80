#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "api-server/webhook.h"
#include "common/err.h"
#include "unit.h"

static int parse(struct webhook *w, const char *type, const char *body, struct err *e)
{
	memset(w, 0, sizeof(*w));
	memset(e, 0, sizeof(*e));
	return webhook_parse(w, type, body, strlen(body), e);
}

#define JSON "application/json"
#define CLOUD "application/cloudevents+json"
#define D "sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8"

static void what_upstreams_client_sends_is_a_request(void **state)
{
	struct webhook w;
	struct err e;
	size_t bad;

	assert_int_equal(parse(&w, JSON,
			       "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{"
			       "\"resource_url\":\"127.0.0.1:15000/lab/edge:gzip-oci\"}]}}",
			       &e),
			 0);
	assert_true(w.push);
	assert_false(w.event);
	assert_int_equal(w.n, 1);
	assert_int_equal(webhook_references(&w, &bad, &e), 0);
	assert_string_equal(w.item[0].ref.host, "127.0.0.1:15000");
	assert_string_equal(w.item[0].ref.tag, "gzip-oci");
	assert_null(w.item[0].digest);
	webhook_fini(&w);
}

static void bodies_that_are_no_push_have_no_items(void **state)
{
	static const char *const bodies[] = {
		"",
		"{}",
		"null",
		"{\"type\":null}",
		"{\"type\":\"DELETE_ARTIFACT\",\"occur_at\":1,\"event_data\":{\"resources\":["
		"{\"resource_url\":\"a/b:c\"}]}}",
		"{\"event_data\":{\"resources\":[{\"resource_url\":\"a/b:c\"}]}}",
		"{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{}}",
		"{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":null}}",
		"{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[]}}"};
	struct webhook w;
	struct err e;

	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		if (parse(&w, "application/json; charset=utf-8", bodies[i], &e) < 0)
			fail_msg("%s: %s", bodies[i], e.text);
		assert_int_equal(w.n, 0);
		webhook_fini(&w);
	}
	assert_int_equal(parse(&w, "application/x-www-form-urlencoded", "type=PUSH_ARTIFACT", &e),
			 0);
	assert_false(w.push);
	webhook_fini(&w);
}

static void a_malformed_body_names_the_field(void **state)
{
	static const struct {
		const char *type, *body, *text;
	} t[] = {
		{JSON, "{\"type\":", "byte"},
		{JSON, "[]", "the body"},
		{JSON, "{\"type\":5}", "type"},
		{JSON, "{\"type\":\"X\"} trailing", "byte"},
		{JSON, "{\"type\":\"PUSH_ARTIFACT\"}", "event_data"},
		{JSON, "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":null}", "event_data"},
		{JSON, "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":{}}}",
		 "event_data.resources"},
		{JSON, "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[null]}}",
		 "event_data.resources[0]"},
		{JSON, "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{}]}}",
		 "event_data.resources[0].resource_url"},
		{JSON,
		 "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{\"resource_url\":"
		 "\"a/b:c\"},{\"resource_url\":\"a/b:c\",\"digest\":\"x\"}]}}",
		 "event_data.resources[1].digest"},
		{JSON,
		 "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{\"resource_url\":"
		 "\"a/b:c\\u0000d\"}]}}",
		 "NUL"},
		{JSON, "{\"type\":\"A\",\"type\":\"B\"}", "type"},
		{JSON, "{\"type\":\"\xff\"}", "UTF-8"},
		{"text/plain", "{}", "text/plain"},
		{NULL, "{}", "Content-Type"},
		{"application/jsonx", "{}", "application/jsonx"},
		{CLOUD, "{}", "specversion"},
		{CLOUD, "null", "the body"},
		{CLOUD, "{\"specversion\":\"0.3\",\"type\":\"x\"}", "0.3"},
		{CLOUD, "{\"specversion\":\"1.0\",\"type\":\"harbor.artifact.pushed\"}", "data"},
		{CLOUD,
		 "{\"specversion\":\"1.0\",\"type\":\"harbor.artifact.pushed\",\"data\":{"
		 "\"resources\":[3]}}",
		 "data.resources[0]"},
	};
	struct webhook w;
	struct err e;

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		if (parse(&w, t[i].type, t[i].body, &e) == 0)
			fail_msg("%s was taken", t[i].body);
		assert_int_equal(e.code, ERR_INVALID);
		assert_text_has(e.text, t[i].text);
	}
}

static void a_bad_reference_is_named(void **state)
{
	static const char *const bad[] = {"127.0.0.1:15000/lab/ed%zzge:gzip-oci", "a b/lab/edge:x",
					  "127.0.0.1:15000/lab/EDGE:x", "", "h.example/a/b:"};
	struct webhook w;
	struct err e;
	size_t at;
	char body[512];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(body, sizeof(body),
			 "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{\"resource_"
			 "url\":\"a/b:c\"},{\"resource_url\":\"%s\"}]}}",
			 bad[i]);
		assert_int_equal(parse(&w, JSON, body, &e), 0);
		if (webhook_references(&w, &at, &e) == 0)
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(at, 1);
		webhook_fini(&w);
	}
}

static void short_names_and_old_digests_are_references(void **state)
{
	static const struct {
		const char *given, *text;
	} t[] = {
		{"nginx:latest", "docker.io/library/nginx:latest"},
		{"nginx", "docker.io/library/nginx:latest"},
		{"h.example/a/b", "h.example/a/b:latest"},
		{"h.example/a/b@" D, "h.example/a/b@" D},
		{"h.example/a/b:" D, "h.example/a/b@" D},
		{"h.example/a/b:v1@" D, "h.example/a/b:v1@" D},
	};
	struct webhook w;
	struct err e;
	size_t at;
	char body[512], text[IMAGEREF_TEXT];

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		snprintf(body, sizeof(body),
			 "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":["
			 "{\"resource_url\":\"%s\"}]}}",
			 t[i].given);
		assert_int_equal(parse(&w, JSON, body, &e), 0);
		assert_int_equal(webhook_references(&w, &at, &e), 0);
		assert_string_equal(imageref_text(&w.item[0].ref, text), t[i].text);
		webhook_fini(&w);
	}
}

static void more_resources_than_the_bound_are_refused(void **state)
{
	char *body = malloc(1 << 16), *p = body;
	struct webhook w;
	struct err e;

	p = stpcpy(p, "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[");
	for (int i = 0; i < 257; i++)
		p += sprintf(p, "%s{\"resource_url\":\"a/b:c\"}", i ? "," : "");
	stpcpy(p, "]}}");
	assert_int_equal(parse(&w, JSON, body, &e), -1);
	assert_text_has(e.text, "257");
	free(body);
}

/* Each file is one request as Harbor sent it; the name says what it was. */
static void every_body_that_harbor_sent_is_understood(void **state)
{
	const char *folder = "tests/fixtures/captures/harbor/webhook";
	DIR *d = opendir(folder);
	int pushes = 0, files = 0;

	assert_non_null(d);
	for (struct dirent *f; (f = readdir(d));) {
		char path[600], text[16384] = "";
		struct webhook w;
		struct err e;
		size_t bad;

		if (!strstr(f->d_name, ".http"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, f->d_name);
		FILE *in = fopen(path, "r");

		text[fread(text, 1, sizeof(text) - 1, in)] = 0;
		fclose(in);
		char *body = strstr(text, "\r\n\r\n") + 4;
		bool cloud = strstr(text, CLOUD) != NULL;

		if (!*body)
			continue;
		if (parse(&w, cloud ? CLOUD : JSON, body, &e) < 0)
			fail_msg("%s: %s", f->d_name, e.text);
		if (webhook_references(&w, &bad, &e) < 0)
			fail_msg("%s: %s", f->d_name, e.text);
		assert_true(w.event);
		assert_int_equal(w.push, strstr(body, "\"PUSH_ARTIFACT\"") ||
						 strstr(body, "\"harbor.artifact.pushed\""));
		assert_int_equal(w.n, w.push ? 1 : 0);
		if (strstr(f->d_name, "74-push-odd-request-id"))
			assert_true(strlen(w.request_id) > 300);
		pushes += w.push;
		files++;
		webhook_fini(&w);
	}
	closedir(d);
	assert_true(files > 80);
	assert_true(pushes > 40);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(what_upstreams_client_sends_is_a_request),
		T(bodies_that_are_no_push_have_no_items),
		T(a_malformed_body_names_the_field),
		T(a_bad_reference_is_named),
		T(short_names_and_old_digests_are_references),
		T(more_resources_than_the_bound_are_refused),
		T(every_body_that_harbor_sent_is_understood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
