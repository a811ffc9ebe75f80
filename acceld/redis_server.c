/* acceld/redis_server.c - see redis_server.h. */
#include "acceld/redis_server.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

extern char **environ;

struct redis_server {
	int lock;
	char *dir, *socket;
	char password[65];
	struct buf config;
};

/* Makes each missing component of path with mode 0755, the last with 0700. */
static int make_dirs(const char *path, struct err *e)
{
	scoped_free char *p = mem_strdup(path);

	for (char *c = p + 1;; c++) {
		char was = *c;

		if (was != '/' && was != '\0')
			continue;
		*c = '\0';
		if (mkdir(p, was ? 0755 : 0700) < 0 && errno != EEXIST)
			return err_errno(e, errno, "cannot make %s (provider.work_dir)", p);
		*c = was;
		if (!was)
			return 0;
	}
}

static int take_lock(struct redis_server *r, const char *work_dir, struct err *e)
{
	scoped_free char *path = mem_printf("%s/acceld.lock", work_dir);
	char who[32] = "";
	ssize_t n;

	r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->lock < 0)
		return err_errno(e, errno, "cannot open %s", path);
	if (flock(r->lock, LOCK_EX | LOCK_NB) < 0) {
		n = pread(r->lock, who, sizeof(who) - 1, 0);
		who[n > 0 ? strcspn(who, "\n") : 0] = '\0';
		return err_set(e, ERR_BUSY,
			       "provider.work_dir %s is in use by another acceld (process %s)",
			       work_dir, who[0] ? who : "unknown");
	}
	if (ftruncate(r->lock, 0) < 0 || dprintf(r->lock, "%d\n", (int)getpid()) < 0)
		return err_errno(e, errno, "cannot write %s", path);
	return 0;
}

/* "Redis server v=7.0.15 sha=..." */
static int check_version(struct err *e)
{
	char *const argv[] = {(char *)"redis-server", (char *)"--version", NULL};
	posix_spawn_file_actions_t a;
	char text[256] = "";
	const char *v;
	size_t n = 0;
	int p[2], status, rc;
	ssize_t r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, p[1], STDOUT_FILENO);
	rc = posix_spawnp(&pid, argv[0], &a, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&a);
	close(p[1]);
	if (rc != 0) {
		close(p[0]);
		return err_set(e, ERR_UNSUPPORTED,
			       "no redis-server on this machine (%s): install it (apt-get install "
			       "redis-server), or name one with redis.addr",
			       strerror(rc));
	}
	while (n < sizeof(text) - 1 && (r = read(p[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)r;
	close(p[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	v = strstr(text, "v=");
	if (!v || atoi(v + 2) < 7)
		return err_set(e, ERR_UNSUPPORTED,
			       "redis-server is too old (%.60s): version 7.0 or newer is needed",
			       v ? v : "it does not say its version");
	return 0;
}

static int write_config(struct redis_server *r, const struct settings *s, struct err *e)
{
	buf_init(&r->config, 8192);
	return buf_addf(&r->config, e,
			"port 0\n"
			"unixsocket \"%s\"\n"
			"unixsocketperm 600\n"
			"requirepass %s\n"
			"dir \"%s\"\n"
			"daemonize no\n"
			"supervised no\n"
			"logfile \"\"\n"
			"save \"\"\n"
			"appendonly yes\n"
			"appendfsync %s\n"
			"maxmemory 512mb\n"
			"maxmemory-policy noeviction\n"
			"tcp-keepalive 15\n",
			r->socket, r->password, r->dir,
			s->redis.durability == DURABILITY_FSYNC ? "always" : "everysec");
}

int redis_server_prepare(struct redis_server **out, const struct settings *s, struct err *e)
{
	struct redis_server *r = mem_zalloc(sizeof(*r));
	uint8_t random[32];

	*out = r;
	r->lock = -1;
	buf_init(&r->config, 0);
	if (strpbrk(s->work_dir, "\"\\\n"))
		return err_set(e, ERR_INVALID,
			       "provider.work_dir %s: quotes and backslashes are not taken",
			       s->work_dir);
	r->dir = mem_printf("%s/redis", s->work_dir);
	r->socket = mem_printf("%s/redis.sock", r->dir);
	if (strlen(r->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return err_set(
			e, ERR_INVALID,
			"provider.work_dir %s is too long: the unix socket below it (%s) may have "
			"107 bytes",
			s->work_dir, r->socket);
	if (make_dirs(s->work_dir, e) < 0 || make_dirs(r->dir, e) < 0 ||
	    take_lock(r, s->work_dir, e) < 0)
		return -1;
	if (chmod(r->dir, 0700) < 0)
		return err_errno(e, errno, "chmod %s", r->dir);
	if (check_version(e) < 0)
		return -1;
	unlink(r->socket); /* ours: we hold the lock */
	digest_random(random, sizeof(random));
	str_hex(r->password, random, sizeof(random));
	return write_config(r, s, e);
}

const char *redis_server_socket(const struct redis_server *r)
{
	return r->socket;
}

const char *redis_server_password(const struct redis_server *r)
{
	return r->password;
}

char *const *redis_server_argv(const struct redis_server *r)
{
	static char *const argv[] = {(char *)"redis-server", (char *)"-", NULL};

	return argv;
}

const char *redis_server_config(const struct redis_server *r, size_t *n)
{
	*n = r->config.len;
	return r->config.data;
}

void redis_server_freep(struct redis_server **r)
{
	if (*r) {
		scope_closep(&(*r)->lock);
		secret_wipe((*r)->password, sizeof((*r)->password));
		buf_wipe(&(*r)->config);
		free((*r)->dir);
		free((*r)->socket);
		free(*r);
	}
	*r = NULL;
}

/* PID:ROLE DD Mon YYYY HH:MM:SS.mmm MARK words */
void redis_server_log_line(const char *line)
{
	const char *p = line;
	int spaces = 0;

	for (; *p && spaces < 5; p++)
		spaces += *p == ' ';
	if (!*p || p[1] != ' ' || !strchr(".-*#", *p)) {
		if (*line)
			log_debug(line, F_MODULE("redis"), NULL);
		return;
	}
	if (*p == '#')
		log_warning(p + 2, F_MODULE("redis"), NULL);
	else if (*p == '*')
		log_info(p + 2, F_MODULE("redis"), NULL);
	else
		log_debug(p + 2, F_MODULE("redis"), NULL);
}
