/* acceld/main.c - one machine, one command: an API server, a worker and, when the configuration
 * names no Redis, a private redis-server; whatever dies is started again; SIGTERM and SIGINT drain.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "acceld/child.h"
#include "acceld/redis_server.h"
#include "common/config.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/notify.h"
#include "common/scope.h"
#include "common/startup.h"
#include "common/str.h"

enum { API, WORKER, REDIS, CHILDREN };

struct acceld {
	const char *config;
	struct settings *settings;
	struct loop *loop;
	struct redis_server *redis;
	struct child *child[CHILDREN];
	char *path[CHILDREN], *argv[CHILDREN][16];
	char *redis_addr;
	struct loop_timer *deadline, *reap;
	int signals; /* SIGTERM or SIGINT so far */
	int status;  /* of the whole program */
};

static const char usage[] =
	"NAME:\n"
	"   acceld - Provides a general service to support image acceleration based on kinds of "
	"accelerator like "
	"Nydus and eStargz etc.\n"
	"\n"
	"USAGE:\n"
	"   acceld --config FILE\n"
	"   acceld FILE\n"
	"\n"
	"VERSION:\n"
	"   %s\n"
	"\n"
	"GLOBAL OPTIONS:\n"
	"   --config value  Specify the path of config in yaml format\n"
	"   --list-faults   print the fault points of a test build\n"
	"   --help, -h      show help\n"
	"   --version, -v   print the version\n"
	"\n"
	"Starts accel-api-server, accel-worker and, when the configuration has no redis.addr, a "
	"private redis-server.\n"
	"SIGTERM and SIGINT drain (a second one at once), SIGHUP reads the configuration again.\n";

/* Our own programs lie beside this one; elsewhere PATH is searched. */
static char *beside(const char *name)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash, *path;

	if (n <= 0)
		return mem_strdup(name);
	self[n] = '\0';
	slash = strrchr(self, '/');
	path = mem_printf("%.*s/%s", (int)(slash - self), self, name);
	if (access(path, X_OK) == 0)
		return path;
	free(path);
	return mem_strdup(name);
}

static bool all_ended(const struct acceld *a, int but)
{
	for (int i = 0; i < CHILDREN; i++)
		if (i != but && child_running(a->child[i]))
			return false;
	return true;
}

/* Redis goes last: the others still tell it what they gave back. */
static void stop_step(struct acceld *a)
{
	if (a->signals && all_ended(a, REDIS)) {
		if (child_running(a->child[REDIS]))
			child_stop(a->child[REDIS], SIGTERM);
		else
			loop_stop(a->loop);
	}
}

static void stop_all(struct acceld *a)
{
	a->signals++;
	child_stop(a->child[API], SIGTERM);
	child_stop(a->child[WORKER], SIGTERM);
	stop_step(a);
}

static bool on_exit_of_child(const struct child_opts *o, int status, bool settled, void *arg)
{
	struct acceld *a = arg;

	if (a->signals) {
		stop_step(a);
		return true;
	}
	/* What fails at once at the first start (port taken, no rights) will not get better by
	 * trying: say so and end. */
	if (!settled && WIFEXITED(status) && WEXITSTATUS(status) != 0) {
		log_error("a program cannot start", F_STR("program", o->name),
			  F_I64("status", WEXITSTATUS(status)), NULL);
		a->status = 1;
		stop_all(a);
		return true;
	}
	return false;
}

static void too_late(void *arg)
{
	struct acceld *a = arg;

	log_warning("not everything ended in time", NULL);
	for (int i = 0; i < CHILDREN; i++)
		child_stop(a->child[i], SIGKILL);
	loop_stop(a->loop);
}

static void on_stop(int signo, void *arg)
{
	struct acceld *a = arg;

	if (a->signals == 0) {
		notify_stopping();
		log_info("draining: running tasks may end, nothing new is started",
			 F_U64("timeout_ms", a->settings->worker.drain_timeout_ms), NULL);
		a->deadline = loop_timer(a->loop,
					 a->settings->worker.drain_timeout_ms +
						 a->settings->server.drain_delay_ms + 10000,
					 0, too_late, a);
	}
	stop_all(a);
}

static void on_hup(int signo, void *arg)
{
	struct acceld *a = arg;
	struct settings *s = startup_config(a->config);

	if (!s) {
		log_error("the configuration is not taken over: it has errors", NULL);
		return;
	}
	settings_freep(&a->settings);
	a->settings = s;
	child_signal(a->child[API], SIGHUP);
	child_signal(a->child[WORKER], SIGHUP);
}

/* PID 1 inherits orphans; nobody else waits for them.  Registered children are left to the loop. */
static void reap_orphans(void *arg)
{
	struct acceld *a = arg;
	siginfo_t i = {0};

	while (waitid(P_ALL, 0, &i, WEXITED | WNOHANG | WNOWAIT) == 0 && i.si_pid) {
		for (int k = 0; k < CHILDREN; k++)
			if (a->child[k] && child_pid(a->child[k]) == i.si_pid)
				return;
		waitpid(i.si_pid, NULL, WNOHANG);
		i.si_pid = 0;
	}
}

static int start_one(struct acceld *a, int which, const struct child_opts *o, struct err *e)
{
	return child_start(&a->child[which], a->loop, o, e);
}

static int start_redis(struct acceld *a, struct err *e)
{
	struct child_opts o = {.name = "redis-server",
			       .path = "redis-server",
			       .on_exit = on_exit_of_child,
			       .arg = a,
			       .on_line = redis_server_log_line};

	if (redis_server_prepare(&a->redis, a->settings, e) < 0)
		return -1;
	a->redis_addr = mem_printf("unix://%s", redis_server_socket(a->redis));
	o.argv = redis_server_argv(a->redis);
	o.input = redis_server_config(a->redis, &o.input_n);
	return start_one(a, REDIS, &o, e);
}

/* accel-X --config FILE --under-acceld [--redis unix:///... --redis-password-fd 3] */
static int start_own(struct acceld *a, int which, const char *name, struct err *e)
{
	struct child_opts o = {.name = name, .on_exit = on_exit_of_child, .arg = a};
	char **v = a->argv[which];
	int n = 0;

	a->path[which] = beside(name);
	v[n++] = (char *)name;
	v[n++] = (char *)"--config";
	v[n++] = (char *)a->config;
	v[n++] = (char *)"--under-acceld";
	if (a->redis) {
		v[n++] = (char *)"--redis";
		v[n++] = a->redis_addr;
		v[n++] = (char *)"--redis-password-fd";
		v[n++] = (char *)"3";
		o.secret = redis_server_password(a->redis);
	}
	v[n] = NULL;
	o.path = a->path[which];
	o.argv = v;
	return start_one(a, which, &o, e);
}

static int run(struct acceld *a, struct err *e)
{
	struct loop_signal *term, *intr, *hup;
	struct loop_timer *watchdog;

	if (loop_open(&a->loop, e) < 0)
		return -1;
	term = loop_signal(a->loop, SIGTERM, on_stop, a);
	intr = loop_signal(a->loop, SIGINT, on_stop, a);
	hup = loop_signal(a->loop, SIGHUP, on_hup, a);
	if (getpid() == 1)
		a->reap = loop_timer(a->loop, 1000, 1000, reap_orphans, a);
	if ((!a->settings->redis.addr && start_redis(a, e) < 0) ||
	    start_own(a, API, "accel-api-server", e) < 0 ||
	    start_own(a, WORKER, "accel-worker", e) < 0)
		return -1;
	watchdog = notify_watchdog(a->loop);
	notify_ready();
	if (loop_run(a->loop, e) < 0)
		return -1;
	loop_timer_freep(&watchdog);
	loop_signal_freep(&term);
	loop_signal_freep(&intr);
	loop_signal_freep(&hup);
	return 0;
}

static void acceld_fini(struct acceld *a)
{
	for (int i = 0; i < CHILDREN; i++) {
		child_freep(&a->child[i]);
		free(a->path[i]);
	}
	loop_timer_freep(&a->deadline);
	loop_timer_freep(&a->reap);
	loop_freep(&a->loop);
	redis_server_freep(&a->redis);
	settings_freep(&a->settings);
	free(a->redis_addr);
}

static const char *options(int argc, char **argv)
{
	static const struct option opts[] = {{"config", required_argument, NULL, 'c'},
					     {"help", no_argument, NULL, 'h'},
					     {"version", no_argument, NULL, 'v'},
					     {"list-faults", no_argument, NULL, 'f'},
					     {0}};
	const char *config = NULL;
	int o;

	while ((o = getopt_long(argc, argv, "+hvc:", opts, NULL)) != -1) {
		switch (o) {
		case 'c':
			config = optarg;
			break;
		case 'h':
			printf(usage, startup_version());
			exit(0);
		case 'v':
			printf("acceld version %s\n", startup_version());
			exit(0);
		case 'f':
			fault_list(stdout);
			exit(0);
		default:
			exit(1);
		}
	}
	/* upstream's image takes the configuration's path as its one argument */
	if (!config && argc - optind == 1)
		config = argv[optind++];
	if (optind < argc) {
		log_line(LOG_FATAL, "too many arguments", F_STR("argument", argv[optind]), NULL);
		exit(1);
	}
	if (!config) {
		printf(usage, startup_version());
		log_line(LOG_FATAL, "Required flag \"config\" not set", NULL);
		exit(1);
	}
	return config;
}

int main(int argc, char **argv)
{
	struct acceld a = {0};
	struct err e;
	int status;

	startup_log_version();
	a.config = options(argc, argv);
	startup_not_dumpable();
	a.settings = startup_config(a.config);
	if (!a.settings)
		return 1;
	if (!a.settings->worker.drain_timeout_set)
		a.settings->worker.drain_timeout_ms = 20000;
	if (run(&a, &e) < 0) {
		log_line(LOG_FATAL, e.text, NULL);
		a.status = 1;
	}
	status = a.status;
	acceld_fini(&a);
	return status;
}
