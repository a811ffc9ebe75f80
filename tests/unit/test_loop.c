#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/tls.h"

struct seen {
	struct loop *l;
	struct loop_timer *t, *other;
	struct loop_later *later;
	struct loop_fd *fd;
	struct loop_signal *s;
	struct loop_child *c[3];
	pid_t pid[3];
	struct loop_lookup *k;
	int n, status, end[2];
	size_t addresses;
	char why[128];
	int family;
};

static void stop(void *arg)
{
	struct seen *s = arg;

	s->n++;
	loop_stop(s->l);
}

static void count_to_three(void *arg)
{
	struct seen *s = arg;

	if (++s->n == 3) {
		loop_timer_freep(&s->t); /* itself, from its own callback */
		loop_stop(s->l);
	}
}

static int open_loop(void **state)
{
	static struct seen s;

	s = (struct seen){.end = {-1, -1}};
	*state = &s;
	return loop_open(&s.l, NULL);
}

static int close_loop(void **state)
{
	struct seen *s = *state;

	loop_freep(&s->l);
	return 0;
}

static void a_timer_fires_once(void **state)
{
	struct seen *s = *state;
	uint64_t before = clock_mono_ms();

	s->t = loop_timer(s->l, 20, 0, stop, s);
	assert_int_equal(loop_run(s->l, NULL), 0);
	assert_true(clock_mono_ms() - before >= 19);
	assert_true(loop_last_turn_ms(s->l) >= before);
	loop_timer_freep(&s->t);
	s->other = loop_timer(s->l, 60, 0, stop, s);
	loop_run(s->l, NULL);
	loop_timer_freep(&s->other);
	assert_int_equal(s->n, 2);
}

static void a_repeating_timer_may_free_itself(void **state)
{
	struct seen *s = *state;

	s->t = loop_timer(s->l, 1, 1, count_to_three, s);
	loop_run(s->l, NULL);
	assert_null(s->t);
	assert_int_equal(s->n, 3);
}

static void on_pipe(int what, void *arg)
{
	struct seen *s = arg;
	char c;

	assert_int_equal(what, LOOP_READ);
	assert_int_equal(read(s->end[0], &c, 1), 1);
	s->n++;
	loop_fd_want(s->fd, 0);
	s->other = loop_timer(s->l, 10, 0, stop, s);
}

static void a_descriptor_is_told_only_what_is_wanted(void **state)
{
	struct seen *s = *state;

	assert_int_equal(pipe(s->end), 0);
	assert_int_equal(write(s->end[1], "ab", 2), 2);
	s->fd = loop_fd(s->l, s->end[0], LOOP_READ, on_pipe, s);
	loop_run(s->l, NULL);
	assert_int_equal(s->n, 2); /* one byte, one timer; the second byte stays */
	loop_fd_freep(&s->fd);
	loop_timer_freep(&s->other);
	close(s->end[0]);
	close(s->end[1]);
}

static void on_usr1(int signo, void *arg)
{
	assert_int_equal(signo, SIGUSR1);
	stop(arg);
}

static void a_signal_arrives_on_the_loop(void **state)
{
	struct seen *s = *state;

	s->s = loop_signal(s->l, SIGUSR1, on_usr1, s);
	raise(SIGUSR1);
	loop_run(s->l, NULL);
	assert_int_equal(s->n, 1);
	loop_signal_freep(&s->s);
}

static void on_end(pid_t pid, int status, void *arg)
{
	struct seen *s = arg;

	s->status += WIFSIGNALED(status) ? 100 : WEXITSTATUS(status);
	for (int i = 0; i < 3; i++)
		if (s->pid[i] == pid)
			loop_child_freep(&s->c[i]);
	if (++s->n == 3)
		loop_stop(s->l);
}

static pid_t child(int how)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (how == 9)
			kill(getpid(), SIGKILL);
		_exit(how);
	}
	return pid;
}

static void children_are_reaped_once_also_those_that_ended_before(void **state)
{
	struct seen *s = *state;
	pid_t early = child(3), stranger = child(0);
	siginfo_t info;

	waitid(P_PID, (id_t)early, &info, WEXITED | WNOWAIT); /* a zombie by now */
	s->pid[0] = early;
	s->c[0] = loop_child(s->l, s->pid[0], on_end, s);
	s->pid[1] = child(4);
	s->c[1] = loop_child(s->l, s->pid[1], on_end, s);
	s->pid[2] = child(9);
	s->c[2] = loop_child(s->l, s->pid[2], on_end, s);
	loop_run(s->l, NULL);
	assert_int_equal(s->n, 3);
	assert_int_equal(s->status, 107);
	assert_int_equal(waitpid(stranger, NULL, 0), stranger); /* not ours to reap: left alone */
}

static void on_addresses(const struct sockaddr_storage *a, const socklen_t *len, size_t n,
			 const char *why, void *arg)
{
	struct seen *s = arg;

	s->addresses = n;
	if (n)
		s->family = a[0].ss_family;
	if (why)
		strncpy(s->why, why, sizeof(s->why) - 1);
	loop_lookup_freep(&s->k);
	loop_stop(s->l);
}

static void a_name_is_resolved(void **state)
{
	struct seen *s = *state;

	s->k = loop_lookup(s->l, "127.0.0.1", "6379", on_addresses, s);
	loop_run(s->l, NULL);
	assert_int_equal(s->addresses, 1);
	assert_int_equal(s->family, AF_INET);
}

static void a_bad_name_says_why(void **state)
{
	struct seen *s = *state;

	s->k = loop_lookup(s->l, "256.256.256.256", "x", on_addresses, s);
	loop_run(s->l, NULL);
	assert_int_equal(s->addresses, 0);
	assert_true(s->why[0] != 0);
}

static void a_cancelled_lookup_is_never_told(void **state)
{
	struct seen *s = *state;

	for (int i = 0; i < 20; i++) {
		s->k = loop_lookup(s->l, "127.0.0.1", "1", on_addresses, s);
		loop_lookup_freep(&s->k);
	}
	s->t = loop_timer(s->l, 30, 0, stop, s);
	loop_run(s->l, NULL);
	loop_timer_freep(&s->t);
	assert_int_equal(s->n, 1);
	assert_int_equal(s->addresses, 0);
	s->k = loop_lookup(s->l, "127.0.0.1", "1", on_addresses, s); /* and the loop may go first */
	loop_lookup_freep(&s->k);
}

static void tls_names_the_file_that_is_wrong(void **state)
{
	struct ssl_ctx_st *ctx = NULL;
	struct err e;

	assert_int_equal(tls_client_context(&ctx, "/nonexistent/ca.pem", NULL, NULL, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
	assert_non_null(strstr(e.text, "CA file /nonexistent/ca.pem: "));
	assert_int_equal(
		tls_server_context(&ctx, "/nonexistent/c.pem", "/nonexistent/k.pem", NULL, &e), -1);
	assert_non_null(strstr(e.text, "certificate /nonexistent/c.pem: "));
	assert_int_equal(tls_client_context(&ctx, NULL, "c", NULL, &e), -1);
	assert_null(ctx);
}

/* Both pipes are readable in the same turn: what they ask for comes after both, and once. */
static void on_both(int what, void *arg)
{
	struct seen *s = arg;

	s->n++;
	loop_later_want(s->later);
}

static void at_the_end(void *arg)
{
	struct seen *s = arg;

	assert_int_equal(s->n, 2);
	s->status++;
	loop_later_freep(&s->later); /* itself, from its own callback */
	loop_stop(s->l);
}

static void work_put_off_comes_once_after_all_that_was_ready(void **state)
{
	struct seen *s = *state;
	int p[2][2];
	struct loop_fd *f[2];

	s->later = loop_later(s->l, at_the_end, s);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(p[i]), 0);
		assert_int_equal(write(p[i][1], "x", 1), 1);
		f[i] = loop_fd(s->l, p[i][0], LOOP_READ, on_both, s);
	}
	assert_int_equal(loop_run(s->l, NULL), 0);
	assert_int_equal(s->status, 1);
	for (int i = 0; i < 2; i++) {
		loop_fd_freep(&f[i]);
		close(p[i][0]);
		close(p[i][1]);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_loop, close_loop)
	const struct CMUnitTest tests[] = {
		T(a_timer_fires_once),
		T(a_repeating_timer_may_free_itself),
		T(a_descriptor_is_told_only_what_is_wanted),
		T(work_put_off_comes_once_after_all_that_was_ready),
		T(a_signal_arrives_on_the_loop),
		T(children_are_reaped_once_also_those_that_ended_before),
		T(a_name_is_resolved),
		T(a_bad_name_says_why),
		T(a_cancelled_lookup_is_never_told),
		T(tls_names_the_file_that_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
