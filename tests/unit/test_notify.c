/* What systemd is told, over a path and over the abstract namespace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/loop.h"
#include "common/notify.h"

static int listening(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 30};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	memcpy(a.sun_path, path, strlen(path));
	if (path[0] == '@')
		a.sun_path[0] = 0;
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))),
			 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setenv("NOTIFY_SOCKET", path, 1);
	return fd;
}

static void hears(int fd, const char *want)
{
	char text[64] = "";

	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, want);
}

static void ready_and_stopping_reach_a_path(void **state)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/accel-notify-%d", (int)getpid());
	fd = listening(path);
	notify_ready();
	hears(fd, "READY=1");
	notify_stopping();
	hears(fd, "STOPPING=1");
	close(fd);
	unlink(path);
}

static void stop(void *arg)
{
	loop_stop(arg);
}

static void the_watchdog_is_fed_from_the_loop(void **state)
{
	char path[64], pid[16];
	struct loop *l = NULL;
	struct loop_timer *t, *end;
	int fd;

	snprintf(path, sizeof(path), "@accel-notify-%d", (int)getpid());
	fd = listening(path);
	setenv("WATCHDOG_USEC", "20000", 1);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(loop_open(&l, NULL), 0);
	t = notify_watchdog(l);
	assert_non_null(t);
	end = loop_timer(l, 200, 0, stop, l);
	assert_int_equal(loop_run(l, NULL), 0);
	hears(fd, "WATCHDOG=1");
	hears(fd, "WATCHDOG=1");
	loop_timer_freep(&t);
	loop_timer_freep(&end);
	loop_freep(&l);
	close(fd);
}

static void without_the_variables_nothing_happens(void **state)
{
	struct loop *l = NULL;

	unsetenv("NOTIFY_SOCKET");
	notify_ready();
	setenv("NOTIFY_SOCKET", "relative", 1);
	notify_ready();
	assert_int_equal(loop_open(&l, NULL), 0);
	unsetenv("WATCHDOG_USEC");
	assert_null(notify_watchdog(l));
	setenv("WATCHDOG_USEC", "x", 1);
	assert_null(notify_watchdog(l));
	setenv("WATCHDOG_USEC", "20000", 1);
	setenv("WATCHDOG_PID", "1", 1); /* another process's */
	assert_null(notify_watchdog(l));
	loop_freep(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ready_and_stopping_reach_a_path),
		cmocka_unit_test(the_watchdog_is_fed_from_the_loop),
		cmocka_unit_test(without_the_variables_nothing_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
