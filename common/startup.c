/* common/startup.c - see startup.h. */
#include "common/startup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/config.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"

#ifndef ACCEL_COMMIT
#define ACCEL_COMMIT "unknown"
#endif

const char *startup_version(void)
{
	return "v" ACCEL_VERSION " " ACCEL_COMMIT;
}

void startup_log_version(void)
{
	scoped_free char *text = mem_printf("Version: %s\n", startup_version());

	log_info(text, NULL);
}

struct settings *startup_config(const char *path)
{
	struct config_report r = {0};
	struct settings *s = NULL;

	config_load(&s, path, &r);
	if (s)
		log_setup(s->log.level,
			  s->log.format == LOG_TEXT && isatty(STDERR_FILENO) ? LOG_TERMINAL
									     : s->log.format,
			  STDERR_FILENO);
	for (size_t i = 0; i < r.n; i++) {
		scoped_free char *text = mem_printf("%s: %s", r.p[i].where, r.p[i].text);

		log_line(r.p[i].fatal ? LOG_FATAL : LOG_WARNING, text, NULL);
	}
	config_report_fini(&r);
	return s;
}

void startup_fatal(const struct err *e)
{
	log_line(LOG_FATAL, e->text, NULL);
	exit(1);
}

struct secret *startup_secret_fd(int fd, struct err *e)
{
	char text[4097] = "";
	size_t n = 0;
	ssize_t r;
	struct secret *s;

	while (n < sizeof(text) &&
	       ((r = read(fd, text + n, sizeof(text) - n)) > 0 || (r < 0 && errno == EINTR)))
		n += r > 0 ? (size_t)r : 0;
	close(fd);
	if (n == sizeof(text) || n == 0) {
		err_set(e, ERR_INVALID, "descriptor %d gives no password", fd);
		return NULL;
	}
	s = secret_new(text, strcspn(text, "\r\n") < n ? strcspn(text, "\r\n") : n);
	secret_wipe(text, sizeof(text));
	return s;
}

void startup_die_with_parent(void)
{
	pid_t parent = getppid();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

void startup_not_dumpable(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
