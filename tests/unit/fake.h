/* tests/unit/fake.h - the fake registry (tests/fake/registry.py) for one test program: started
 * once, reset before each test, ended with its stdin. */
#ifndef TESTS_UNIT_FAKE_H
#define TESTS_UNIT_FAKE_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/http.h"
#include "common/mem.h"
#include "common/secret.h"
#include "tests/unit/unit.h"
#include "worker/oci/descriptor.h"
#include "worker/registry/registry_impl.h"

extern char **environ;

#define FAKE_USER "robot$payments+acceld"
#define FAKE_PASSWORD "secret:with:colons"

static struct fake {
	pid_t pid;
	int in;
	unsigned port, port2;
	char host[64];
	struct http *control; /* its own: cancelling a test's does not stop it */
	/* of the test that runs */
	struct http *h;
	struct source_settings s;
	struct registry *r;
	uint64_t paused_ms;
} fake;

static inline int fake_start(void **state)
{
	char *argv[] = {(char *)"python3", (char *)"tests/fake/registry.py", NULL};
	int in[2], out[2];
	posix_spawn_file_actions_t a;
	FILE *f;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, in[0], 0);
	posix_spawn_file_actions_adddup2(&a, out[1], 1);
	assert_int_equal(posix_spawnp(&fake.pid, argv[0], &a, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&a);
	close(in[0]);
	close(out[1]);
	fake.in = in[1];
	f = fdopen(out[0], "r");
	assert_int_equal(fscanf(f, "%u %u", &fake.port, &fake.port2), 2);
	fclose(f);
	snprintf(fake.host, sizeof(fake.host), "127.0.0.1:%u", fake.port);
	assert_int_equal(http_open(&fake.control, 2, NULL), 0);
	return 0;
}

static inline int fake_stop(void **state)
{
	http_freep(&fake.control);
	close(fake.in);
	waitpid(fake.pid, NULL, 0);
	return 0;
}

/* The answer's body, which the caller frees. */
static inline char *fake_control(const char *method, const char *what, const char *body)
{
	struct http_peer peer = {.plain_http = true, .allow_private = true};
	struct http_response *resp = NULL;
	struct err e = {0};
	char url[128], *text;
	const char *p;
	size_t n;
	struct http_request q = {.method = method,
				 .url = url,
				 .peer = &peer,
				 .body = body,
				 .body_n = body ? strlen(body) : 0,
				 .max_response = 4 << 20};

	snprintf(url, sizeof(url), "http://%s/_fake/%s", fake.host, what);
	if (http_do(fake.control, &q, &resp, &e) < 0)
		fail_msg("control: %s", e.text);
	assert_int_equal(http_status(resp), 200);
	p = http_body(resp, &n);
	text = mem_strndup(p, n);
	http_response_freep(&resp);
	return text;
}

static inline void fake_rules(const char *json)
{
	free(fake_control("PUT", "rules", json));
}

static inline void fake_auth(const char *json)
{
	free(fake_control("POST", "auth", json));
}

/* How many lines of the log hold all the words (each may be NULL). */
static inline unsigned fake_count(const char *a, const char *b, const char *c)
{
	char *log = fake_control("GET", "log", NULL), *save = NULL;
	unsigned n = 0;

	for (char *l = strtok_r(log, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		n += (!a || strstr(l, a)) && (!b || strstr(l, b)) && (!c || strstr(l, c));
	free(log);
	return n;
}

static inline void fake_show_log(void)
{
	char *log = fake_control("GET", "log", NULL);

	fprintf(stderr, "%s", log);
	free(log);
}

static inline void fake_assert_no_uploads(void)
{
	char *open = fake_control("GET", "uploads", NULL);

	assert_string_equal(open, "{}");
	free(open);
}

static inline bool fake_has_blob(const struct digest *d, size_t size)
{
	char *all = fake_control("GET", "blobs", NULL), text[DIGEST_TEXT], want[200];
	bool has;

	snprintf(want, sizeof(want), "\"%s\": %zu", digest_text(d, text), size);
	has = strstr(all, want) != NULL;
	free(all);
	return has;
}

static inline void fake_on_pause(const char *host, uint64_t ms, void *arg)
{
	fake.paused_ms = ms;
}

static inline void fake_open(const char *user, const char *password)
{
	struct registry_opts o = {.request_id = "accel-0193", .on_pause = fake_on_pause};
	struct err e = {0};

	fake.s = (struct source_settings){.host = fake.host, .plain_http = true};
	if (user)
		fake.s.username = secret_new(user, strlen(user));
	if (password)
		fake.s.password = secret_new(password, strlen(password));
	fake.paused_ms = 0;
	assert_int_equal(http_open(&fake.h, 4, &e), 0);
	assert_int_equal(registry_open(&fake.r, fake.h, &fake.s, &o, &e), 0);
}

static inline void fake_close(void)
{
	registry_freep(&fake.r);
	http_freep(&fake.h);
	secret_freep(&fake.s.username);
	secret_freep(&fake.s.password);
}

/* Setup and teardown of one test: nothing of the last one is left, no upload stays open. */
static inline int fake_fresh(void **state)
{
	free(fake_control("POST", "reset", NULL));
	fake_auth("{\"auth\": \"none\", \"token_life\": 300}");
	fake_open(NULL, NULL);
	return 0;
}

static inline int fake_done(void **state)
{
	fake_close();
	return 0;
}

/* n bytes that do not repeat, the same each time. */
static inline char *fake_bytes(size_t n, uint32_t seed)
{
	char *p = mem_alloc(n + 1);

	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (char)(seed >> 24);
	}
	return p;
}

#endif
