/* worker/registry/credentials.c - see credentials.h. */
#include "worker/registry/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/env.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

enum { FILE_MAX = 1 << 20, HELPER_MAX = 64 << 10, HELPER_MS = 10000 };

#define DOCKER_HUB_KEY "https://index.docker.io/v1/"

extern char **environ; /* what a helper gets: its own settings are in there */

void credentials_fini(struct credentials *c)
{
	secret_freep(&c->username);
	secret_freep(&c->password);
	secret_freep(&c->identity_token);
}

static struct secret *secret_of(const char *s)
{
	return s && *s ? secret_new(s, strlen(s)) : NULL;
}

/* ---- files */
/* 1 read, 0 there is none. */
static int read_json(const char *path, struct json **root, struct err *e)
{
	struct buf b;
	char piece[4096];
	ssize_t n = 0;
	int r = 0;
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0
							   : err_errno(e, errno, "read %s", path);
	buf_init(&b, FILE_MAX);
	while (r == 0 && (n = read(fd, piece, sizeof(piece))) > 0)
		r = buf_add(&b, piece, (size_t)n, e);
	if (r == 0 && n < 0)
		r = err_errno(e, errno, "read %s", path);
	else if (r < 0 || json_parse(root, b.data, b.len, NULL, e) < 0)
		r = err_wrap(e, "%s", path);
	secret_wipe(piece, sizeof(piece));
	buf_wipe(&b);
	return r < 0 ? -1 : 1;
}

/* "https://host/v1/" and "host" name the same entry. */
static bool key_is(const char *key, const char *host)
{
	size_t n;

	if (str_eq(host, "docker.io") &&
	    (str_eq(key, DOCKER_HUB_KEY) || str_eq(key, "index.docker.io")))
		return true;
	if (str_starts(key, "https://"))
		key += 8;
	else if (str_starts(key, "http://"))
		key += 7;
	n = strlen(host);
	return !strncasecmp(key, host, n) &&
	       (!key[n] || str_eq(key + n, "/") || str_eq(key + n, "/v1/") ||
		str_eq(key + n, "/v2/") || str_eq(key + n, "/v1") || str_eq(key + n, "/v2"));
}

static const struct json *entry_of(const struct json *object, const char *host)
{
	if (!object || json_kind(object) != JSON_OBJECT)
		return NULL;
	for (struct json_iter i = json_first(object); i.key; json_next(&i))
		if (key_is(i.key, host))
			return i.value;
	return NULL;
}

/* base64("user:password"), split at the first colon: passwords may hold more of them. */
static int from_auth(struct credentials *c, const char *auth, struct err *e)
{
	struct buf plain;
	char *colon;
	int r = -1;

	buf_init(&plain, HELPER_MAX);
	if (str_unbase64(&plain, auth, strlen(auth), NULL) < 0 ||
	    !(colon = memchr(plain.data, ':', plain.len)) || memchr(plain.data, '\0', plain.len)) {
		err_set(e, ERR_INVALID, "auth is not base64 of user:password");
	} else {
		c->username = secret_new(plain.data, (size_t)(colon - plain.data));
		c->password = secret_of(colon + 1);
		r = 0;
	}
	buf_wipe(&plain);
	return r;
}

static int from_entry(struct credentials *c, const struct json *entry, struct err *e)
{
	const char *auth = json_value_str(json_get(entry, "auth"));
	const char *user = json_value_str(json_get(entry, "username"));

	if (auth && *auth) {
		if (from_auth(c, auth, e) < 0)
			return -1;
	} else if (user && *user) {
		c->username = secret_of(user);
		c->password = secret_of(json_value_str(json_get(entry, "password")));
	}
	c->identity_token = secret_of(json_value_str(json_get(entry, "identitytoken")));
	return c->username || c->identity_token;
}

/* ---- helpers */
static bool helper_name_valid(const char *name)
{
	return *name && strlen(name) < 64 &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		       strlen(name);
}

static int helper_start(const char *program, int *to, int *from, pid_t *pid, struct err *e)
{
	char *argv[] = {(char *)program, (char *)"get", NULL};
	int in[2], out[2], r;
	posix_spawn_file_actions_t a;

	if (pipe2(in, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	if (pipe2(out, O_CLOEXEC) < 0) {
		r = errno;
		close(in[0]);
		close(in[1]);
		return err_errno(e, r, "pipe");
	}
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, in[0], 0);
	posix_spawn_file_actions_adddup2(&a, out[1], 1);
	r = posix_spawnp(pid, program, &a, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&a);
	close(in[0]);
	close(out[1]);
	if (r) {
		close(in[1]);
		close(out[0]);
		return err_errno(e, r, "run %s", program);
	}
	*to = in[1];
	*from = out[0];
	return 0;
}

/* All it writes, until it closes its output; it has 10 s. */
static int helper_read(int fd, struct buf *b, struct err *e)
{
	uint64_t end = clock_mono_ms() + HELPER_MS;
	char piece[4096];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_mono_ms();
		ssize_t n;
		int r = now < end ? poll(&p, 1, (int)(end - now)) : 0;

		if (r == 0)
			return err_set(e, ERR_SYSTEM, "no answer within %d s", HELPER_MS / 1000);
		if (r < 0 && errno == EINTR)
			continue;
		n = read(fd, piece, sizeof(piece));
		if (n <= 0)
			return 0;
		if (buf_add(b, piece, (size_t)n, e) < 0)
			return -1;
		secret_wipe(piece, sizeof(piece));
	}
}

/* It closed its output; it may still linger. */
static int helper_reap(pid_t pid, bool kill_it)
{
	uint64_t end = clock_mono_ms() + 1000;
	int status = -1;

	if (kill_it)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, kill_it ? 0 : WNOHANG) == 0) {
		if (clock_mono_ms() >= end) {
			kill(pid, SIGKILL);
			kill_it = true;
		}
		poll(NULL, 0, 5);
	}
	return status;
}

/* {ServerURL, Username, Secret}. */
static int helper_answer(struct credentials *c, const struct buf *b, struct err *e)
{
	struct json *root = NULL;
	const char *user, *value;
	int r = 1;

	if (json_parse(&root, b->data, b->len, NULL, NULL) < 0)
		return err_set(e, ERR_INVALID, "the answer is no JSON");
	user = json_value_str(json_get(root, "Username"));
	value = json_value_str(json_get(root, "Secret"));
	if (!user || !value || !*value) {
		r = 0;
	} else if (str_eq(user, "<token>")) {
		c->identity_token = secret_of(value);
	} else {
		c->username = secret_of(user);
		c->password = secret_of(value);
	}
	json_freep(&root);
	return r;
}

static int from_helper(struct credentials *c, const char *name, const char *host, struct err *e)
{
	const char *server = str_eq(host, "docker.io") ? DOCKER_HUB_KEY : host;
	scoped_free char *program = mem_printf("docker-credential-%s", name);
	scoped_fd int to = -1, from = -1;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
	struct buf b;
	pid_t pid;
	int r, status;

	if (!helper_name_valid(name))
		return err_set(e, ERR_INVALID, "credential helper with a strange name");
	if (helper_start(program, &to, &from, &pid, e) < 0)
		return -1;
	sigaction(SIGPIPE, &ignore, &old); /* it may end before it reads */
	if (write(to, server, strlen(server)) < 0)
		errno = 0;
	close(take_fd(&to));
	sigaction(SIGPIPE, &old, NULL);
	buf_init(&b, HELPER_MAX);
	r = helper_read(from, &b, e);
	status = helper_reap(pid, r < 0);
	if (r == 0 && status == 0)
		r = helper_answer(c, &b, e);
	else if (r == 0 && strstr(b.data, "credentials not found"))
		r = 0;
	else if (r == 0)
		r = err_set(e, ERR_SYSTEM, "failed with status %d",
			    WIFEXITED(status) ? WEXITSTATUS(status) : 128);
	buf_wipe(&b);
	return r < 0 ? err_wrap(e, "%s", program) : r;
}

/* ---- the order */
static int from_file(struct credentials *c, const char *path, const char *host, struct err *e)
{
	struct json *root = NULL;
	const char *helper;
	const struct json *entry;
	int r = read_json(path, &root, e);

	if (r <= 0)
		return r;
	r = 0;
	helper = json_value_str(entry_of(json_get(root, "credHelpers"), host));
	if (helper && *helper) {
		r = from_helper(c, helper, host, e);
		json_freep(&root);
		return r;
	}
	helper = json_value_str(json_get(root, "credsStore"));
	if (helper && *helper)
		r = from_helper(c, helper, host, e);
	entry = entry_of(json_get(root, "auths"), host);
	if (r == 0 && entry && json_kind(entry) == JSON_OBJECT) {
		r = from_entry(c, entry, e);
		if (r < 0)
			err_wrap(e, "%s: %s", path, host);
	}
	json_freep(&root);
	return r;
}

int credentials_find(struct credentials *c, const char *host, struct err *e)
{
	const char *docker = env_get("DOCKER_CONFIG"), *file = env_get("REGISTRY_AUTH_FILE"),
		   *runtime = env_get("XDG_RUNTIME_DIR");
	char *path[3] = {NULL};
	int r = 0;

	*c = (struct credentials){0};
	path[0] = docker ? mem_printf("%s/config.json", docker)
			 : env_path(NULL, ".docker/config.json");
	path[1] = mem_strdup(file);
	path[2] = runtime ? mem_printf("%s/containers/auth.json", runtime) : NULL;
	for (int i = 0; i < 3 && r == 0; i++)
		if (path[i])
			r = from_file(c, path[i], host, e);
	for (int i = 0; i < 3; i++)
		free(path[i]);
	if (r < 0)
		credentials_fini(c);
	return r;
}
