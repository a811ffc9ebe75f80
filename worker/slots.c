/* worker/slots.c - see slots.h. */
#include "worker/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/env.h"
#include "common/err.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/packet.h"

#define END_MS 5000 /* between its result and its end */

struct slot_process {
	struct slot *slot;
	struct loop *loop;
	struct slot_events on;
	pid_t pid;
	int fd;
	bool eof;
	struct loop_fd *readable;
	struct loop_child *watch;
	struct loop_timer *kill;
	struct packet_reader reader;
};

/* What a task process sees of our environment: nothing that could hold a secret of ours. */
static void keep_variable(const char *name, const char *value, void *arg)
{
	static const char *const keep[] = {
		"PATH",
		"HOME",
		"TZ",
		"LANG",
		"LC_ALL",
		"http_proxy",
		"https_proxy",
		"HTTP_PROXY",
		"HTTPS_PROXY",
		"all_proxy",
		"ALL_PROXY",
		"no_proxy",
		"NO_PROXY",
		"SSL_CERT_FILE",
		"SSL_CERT_DIR",
		"ACCEL_FAULT",
		"ASAN_OPTIONS",
		"UBSAN_OPTIONS",
		"TSAN_OPTIONS",
		"LSAN_OPTIONS",
		"DOCKER_CONFIG",
		"REGISTRY_AUTH_FILE",
		"XDG_RUNTIME_DIR",
		"LD_LIBRARY_PATH",
		"GCOV_PREFIX",
	};
	char ***next = arg;

	for (size_t i = 0; i < sizeof(keep) / sizeof(*keep); i++)
		if (strcmp(keep[i], name) == 0)
			*(*next)++ = mem_printf("%s=%s", name, value);
}

static pid_t spawn(const char *mode, const char *arg, int child_fd, struct err *e)
{
	char *const argv[] = {(char *)"accel-worker", (char *)mode, (char *)arg, NULL};
	char *environment[64] = {NULL}, **next = environment;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	pid_t pid = -1;
	int rc;

	env_each("", keep_variable, &next);
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, child_fd, PACKET_FD);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	rc = posix_spawn(&pid, "/proc/self/exe", &files, &attr, argv, environment);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	for (char **v = environment; v < next; v++)
		free(*v);
	if (rc != 0)
		return err_errno(e, rc, "cannot start a task process");
	return pid;
}

static void read_packets(struct slot_process *p)
{
	struct json *j = NULL;
	struct err e;
	int r;

	while (!p->eof && (r = packet_read(&p->reader, p->fd, &j, &e)) != -2) {
		if (r == 1) {
			p->on.packet(p->slot, j);
			json_freep(&j);
			continue;
		}
		if (r < 0) { /* what cannot be read cannot be believed: it ends without a result */
			log_error("a task process sent nonsense", F_STR("task", p->slot->id),
				  F_ERR(&e), NULL);
			kill(-p->pid, SIGKILL);
		}
		p->eof = true;
		loop_fd_freep(&p->readable);
	}
}

static void on_readable(int what, void *arg)
{
	read_packets(arg);
}

static void process_free(struct slot_process *p)
{
	loop_fd_freep(&p->readable);
	loop_child_freep(&p->watch);
	loop_timer_freep(&p->kill);
	scope_closep(&p->fd);
	packet_reader_fini(&p->reader);
	free(p);
}

static void on_child(pid_t pid, int status, void *arg)
{
	struct slot_process *p = arg;
	struct slot *s = p->slot;
	struct slot_events on = p->on;

	read_packets(p);
	s->process = NULL;
	process_free(p);
	on.ended(s, status);
}

int slot_start(struct slot *s, struct loop *l, const char *mode, const char *arg,
	       const struct json *first, const struct slot_events *on, struct err *e)
{
	struct slot_process *p;
	scoped_fd int ours = -1, theirs = -1;
	int fd[2], size = 512 << 10;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0)
		return err_errno(e, errno, "socketpair");
	ours = fd[0];
	theirs = fd[1];
	setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	fcntl(ours, F_SETFL, O_NONBLOCK);
	if (first && packet_send(ours, first, e) < 0)
		return -1;
	if (theirs == PACKET_FD) { /* dup2 onto itself would leave it close-on-exec */
		int moved = fcntl(theirs, F_DUPFD_CLOEXEC, PACKET_FD + 1);

		if (moved < 0)
			return err_errno(e, errno, "dup");
		close(theirs);
		theirs = moved;
	}
	pid = spawn(mode, arg, theirs, e);
	if (pid < 0)
		return -1;
	p = mem_zalloc(sizeof(*p));
	p->slot = s;
	p->loop = l;
	p->on = *on;
	p->pid = pid;
	p->fd = take_fd(&ours);
	packet_reader_init(&p->reader);
	p->readable = loop_fd(l, p->fd, LOOP_READ, on_readable, p);
	p->watch = loop_child(l, pid, on_child, p);
	s->process = p;
	return 0;
}

int slot_send(struct slot *s, const struct json *j, struct err *e)
{
	if (!s->process)
		return err_set(e, ERR_NOTFOUND, "the task process is gone");
	return packet_send(s->process->fd, j, e);
}

static void on_kill(void *arg)
{
	struct slot_process *p = arg;

	log_warning("a task process does not end: killed", F_STR("task", p->slot->id),
		    F_I64("pid", p->pid), NULL);
	kill(-p->pid, SIGKILL);
	kill(p->pid, SIGKILL);
}

static void kill_after(struct slot_process *p, uint64_t ms)
{
	if (p->kill)
		loop_timer_again(p->kill, ms);
	else
		p->kill = loop_timer(p->loop, ms, 0, on_kill, p);
}

void slot_stop(struct slot *s, enum stop_why why, uint64_t kill_ms)
{
	static const char *const words[] = {"", "cancel", "lost", "release", "timeout"};
	scoped(json_freep) struct json *j = NULL;

	if (s->stop == STOP_LOST || s->has_result)
		return;
	s->stop = why;
	if (!s->process)
		return;
	j = json_new_object();
	json_set_str(j, "t", why == STOP_LOST ? "lost" : "cancel");
	json_set_str(j, "why", words[why]);
	packet_send(s->process->fd, j, NULL); /* if it does not read, the timer below speaks */
	kill_after(s->process, kill_ms);
}

void slot_close(struct slot *s)
{
	if (!s->process)
		return;
	shutdown(s->process->fd, SHUT_WR);
	kill_after(s->process, END_MS);
}

pid_t slot_pid(const struct slot *s)
{
	return s->process ? s->process->pid : 0;
}

void slot_freep(struct slot **s)
{
	struct slot_process *p = *s ? (*s)->process : NULL;

	if (p) {
		kill(-p->pid, SIGKILL);
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
		process_free(p);
	}
	if (*s) {
		task_request_fini(&(*s)->request);
		free(*s);
	}
	*s = NULL;
}
