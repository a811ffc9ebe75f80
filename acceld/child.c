/* acceld/child.c - see child.h. */
#include "acceld/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"

#define SETTLED_MS 3000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 10000
#define LINE_MAX_BYTES 8192

struct child {
	struct loop *loop;
	struct child_opts o;
	pid_t pid; /* 0: not running */
	bool stopping, settled;
	uint64_t started_ms, backoff_ms;
	struct loop_child *watch;
	struct loop_timer *again;
	int out; /* read end of its output, or -1 */
	struct loop_fd *out_event;
	struct buf line;
};

static int start(struct child *c, struct err *e);

/* In the child, between fork and exec: only what is safe there.  Descriptors 0 to 3 are set;
 * everything else of ours is close-on-exec. */
static void become(const struct child *c, int in, int out, int secret, pid_t parent)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(in, 0) < 0 || (out >= 0 && (dup2(out, 1) < 0 || dup2(out, 2) < 0)))
		_exit(127);
	if (secret == 3)
		fcntl(3, F_SETFD, 0);
	else if (secret >= 0 && dup2(secret, 3) < 0)
		_exit(127);
	execvp(c->o.path, c->o.argv);
	dprintf(2, "cannot start %s: %s\n", c->o.path, strerror(errno));
	_exit(127);
}

static void take_lines(struct child *c, bool end)
{
	for (;;) {
		char *nl = memchr(c->line.data, '\n', c->line.len);
		size_t n = nl ? (size_t)(nl - c->line.data) : c->line.len;
		scoped_free char *text = NULL;

		if (!nl && !(end && n > 0) && n < c->line.max)
			return;
		text = mem_strndup(c->line.data, n);
		buf_consume(&c->line, n + (nl != NULL));
		c->o.on_line(text);
	}
}

static void read_output(int what, void *arg)
{
	struct child *c = arg;
	char piece[4096];
	size_t room = c->line.max - c->line.len;
	ssize_t n = read(c->out, piece, room < sizeof(piece) ? room : sizeof(piece));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		buf_add(&c->line, piece, (size_t)n, NULL);
		take_lines(c, false);
		return;
	}
	take_lines(c, true);
	loop_fd_freep(&c->out_event);
	scope_closep(&c->out);
}

static void start_again(void *arg)
{
	struct child *c = arg;
	struct err e;

	loop_timer_freep(&c->again);
	if (!c->stopping && start(c, &e) < 0) {
		log_error("cannot start a program again", F_STR("program", c->o.name), F_ERR(&e),
			  NULL);
		c->again = loop_timer(c->loop, BACKOFF_MAX_MS, 0, start_again, c);
	}
}

static void ended(pid_t pid, int status, void *arg)
{
	struct child *c = arg;
	uint64_t lived = clock_mono_ms() - c->started_ms;

	loop_child_freep(&c->watch);
	c->pid = 0;
	if (lived >= SETTLED_MS)
		c->settled = true;
	if (c->o.on_exit(&c->o, status, c->settled, c->o.arg) || c->stopping)
		return;
	if (lived > 60000)
		c->backoff_ms = 0;
	c->backoff_ms = c->backoff_ms ? c->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (c->backoff_ms > BACKOFF_MAX_MS)
		c->backoff_ms = BACKOFF_MAX_MS;
	log_warning("a program ended; starting it again", F_STR("program", c->o.name),
		    F_U64("after_ms", c->backoff_ms),
		    WIFSIGNALED(status) ? F_I64("signal", WTERMSIG(status))
					: F_I64("status", WEXITSTATUS(status)),
		    NULL);
	c->again = loop_timer(c->loop, c->backoff_ms, 0, start_again, c);
}

/* A pipe whose read end gives these bytes, which fit its buffer (64 KiB), so that writing cannot
 * block. */
static int pipe_with(const char *p, size_t n, struct err *e)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_errno(e, errno, "pipe");
	if (write(fd[1], p, n) != (ssize_t)n) {
		close(fd[0]);
		close(fd[1]);
		return err_set(e, ERR_SYSTEM, "pipe takes no %zu bytes", n);
	}
	close(fd[1]);
	return fd[0];
}

static int start(struct child *c, struct err *e)
{
	scoped_fd int in = -1, secret = -1, out_r = -1, out_w = -1;
	pid_t parent = getpid(), pid;
	int fd[2];

	in = c->o.input ? pipe_with(c->o.input, c->o.input_n, e)
			: open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (in < 0)
		return c->o.input ? -1 : err_errno(e, errno, "open /dev/null");
	if (c->o.secret && (secret = pipe_with(c->o.secret, strlen(c->o.secret), e)) < 0)
		return -1;
	if (c->o.on_line) {
		if (pipe2(fd, O_CLOEXEC) < 0)
			return err_errno(e, errno, "pipe");
		out_r = fd[0];
		out_w = fd[1];
		fcntl(out_r, F_SETFL, O_NONBLOCK);
	}
	pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "fork");
	if (pid == 0)
		become(c, in, out_w, secret, parent);
	c->pid = pid;
	c->started_ms = clock_mono_ms();
	c->watch = loop_child(c->loop, pid, ended, c);
	if (c->o.on_line) {
		loop_fd_freep(&c->out_event);
		scope_closep(&c->out);
		buf_reset(&c->line);
		c->out = take_fd(&out_r);
		c->out_event = loop_fd(c->loop, c->out, LOOP_READ, read_output, c);
	}
	return 0;
}

int child_start(struct child **to, struct loop *l, const struct child_opts *o, struct err *e)
{
	struct child *c = mem_zalloc(sizeof(*c));

	c->loop = l;
	c->o = *o;
	c->out = -1;
	buf_init(&c->line, LINE_MAX_BYTES);
	if (start(c, e) < 0) {
		child_freep(&c);
		return err_wrap(e, "start %s", o->name);
	}
	*to = c;
	return 0;
}

void child_signal(struct child *c, int signo)
{
	if (c && c->pid)
		kill(c->pid, signo);
}

void child_stop(struct child *c, int signo)
{
	if (!c)
		return;
	c->stopping = true;
	loop_timer_freep(&c->again);
	child_signal(c, signo);
}

bool child_running(const struct child *c)
{
	return c && c->pid != 0;
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

void child_freep(struct child **c)
{
	if (*c) {
		child_stop(*c, SIGKILL);
		loop_child_freep(&(*c)->watch);
		loop_fd_freep(&(*c)->out_event);
		scope_closep(&(*c)->out);
		buf_fini(&(*c)->line);
		free(*c);
	}
	*c = NULL;
}
