/* worker/main.c - accel-worker: the supervisor, or (--task) one of its task processes. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/notify.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/startup.h"
#include "worker/packet.h"
#include "worker/probes.h"
#include "worker/registry/credentials.h"
#include "worker/supervisor.h"
#include "worker/taskproc.h"

static const char usage[] =
	"Usage: accel-worker --config FILE\n"
	"\n"
	"Claims tasks from Redis, converts images, publishes the results.  Run as many as you "
	"like.\n"
	"\n"
	"  --config FILE           the configuration; also conf.d/*.yaml beside it\n"
	"  --redis ADDR            in place of redis.addr: HOST:PORT or unix:///PATH\n"
	"  --redis-password-fd N   its password, read from an inherited descriptor\n"
	"  --under-acceld          a child of acceld: dies with it, listens nowhere, drains in 20 "
	"s\n"
	"  --list-faults           print the fault points of a test build\n"
	"  --version, --help\n"
	"\n"
	"SIGTERM drains (a second one gives running tasks back at once), SIGHUP reads the "
	"configuration again.\n";

struct worker {
	const char *config, *redis;
	int password_fd;
	struct secret *password;
	bool under_acceld;
	struct loop *loop;
	struct supervisor *supervisor;
	struct httpd *probes;
};

static struct settings *load(const struct worker *w)
{
	struct settings *s = startup_config(w->config);

	if (!s)
		return NULL;
	if (w->redis) {
		free(s->redis.addr);
		s->redis.addr = mem_strdup(w->redis);
		secret_freep(&s->redis.password);
		s->redis.password = secret_dup(w->password);
	}
	if (w->under_acceld && !s->worker.drain_timeout_set)
		s->worker.drain_timeout_ms = 20000;
	return s;
}

static void on_stop(int signo, void *arg)
{
	struct worker *w = arg;

	if (!w->under_acceld)
		notify_stopping();
	supervisor_drain(w->supervisor);
}

static void on_hup(int signo, void *arg)
{
	struct worker *w = arg;
	struct settings *s = load(w);

	if (!s) {
		log_error("the configuration is not taken over: it has errors", NULL);
		return;
	}
	supervisor_reload(w->supervisor, &s);
	log_info("configuration read again", NULL);
}

static int run(struct worker *w, struct settings **s, struct err *e)
{
	const struct supervisor_opts o = {.publish_metrics = w->under_acceld};
	scoped_free char *listen = mem_strdup(w->under_acceld ? "off" : (*s)->worker.listen);
	struct loop_signal *term, *intr, *hup;
	struct loop_timer *watchdog = NULL;
	int rc;

	if (loop_open(&w->loop, e) < 0)
		return -1;
	term = loop_signal(w->loop, SIGTERM, on_stop, w);
	intr = loop_signal(w->loop, SIGINT, on_stop, w);
	hup = loop_signal(w->loop, SIGHUP, on_hup, w);
	rc = supervisor_open(&w->supervisor, w->loop, s, &o, e);
	if (rc == 0)
		rc = probes_open(&w->probes, w->loop, listen, w->supervisor, e);
	if (rc == 0 && !w->under_acceld) { /* systemd listens to acceld itself then */
		watchdog = notify_watchdog(w->loop);
		notify_ready();
	}
	if (rc == 0)
		rc = loop_run(w->loop, e);
	loop_timer_freep(&watchdog);
	loop_signal_freep(&term);
	loop_signal_freep(&intr);
	loop_signal_freep(&hup);
	return rc;
}

/* accel-worker --credentials HOST: docker's files and helpers, asked apart from the supervisor's
 * loop. */
static int credentials_main(const char *host)
{
	scoped(json_freep) struct json *j = json_new_object();
	struct credentials c = {0};
	struct err e;

	startup_die_with_parent();
	startup_not_dumpable();
	json_set_str(j, "t", "credentials");
	if (credentials_find(&c, host, &e) < 0)
		json_set_str(j, "error", e.text);
	else if (c.identity_token) {
		json_set_str(j, "username", "<token>");
		json_set_str(j, "password", secret_value(c.identity_token));
	} else if (c.username && c.password) {
		json_set_str(j, "username", secret_value(c.username));
		json_set_str(j, "password", secret_value(c.password));
	}
	credentials_fini(&c);
	return packet_send(PACKET_FD, j, &e) < 0;
}

static void options(int argc, char **argv, struct worker *w)
{
	static const struct option opts[] = {{"config", required_argument, NULL, 'c'},
					     {"redis", required_argument, NULL, 'r'},
					     {"redis-password-fd", required_argument, NULL, 'p'},
					     {"under-acceld", no_argument, NULL, 'u'},
					     {"list-faults", no_argument, NULL, 'f'},
					     {"version", no_argument, NULL, 'v'},
					     {"help", no_argument, NULL, 'h'},
					     {0}};
	int o;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 'c':
			w->config = optarg;
			break;
		case 'r':
			w->redis = optarg;
			break;
		case 'p':
			w->password_fd = atoi(optarg);
			break;
		case 'u':
			w->under_acceld = true;
			break;
		case 'f':
			fault_list(stdout);
			exit(0);
		case 'v':
			printf("accel-worker version %s\n", startup_version());
			exit(0);
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (!w->config || optind < argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct worker w = {.password_fd = -1};
	struct settings *s;
	struct err e;
	int status = 0;

	if (argc == 2 && strcmp(argv[1], "--task") == 0)
		return taskproc_main();
	if (argc == 3 && strcmp(argv[1], "--credentials") == 0)
		return credentials_main(argv[2]);
	options(argc, argv, &w);
	if (w.under_acceld)
		startup_die_with_parent();
	startup_not_dumpable();
	signal(SIGPIPE, SIG_IGN);
	log_bind_module("worker");
	startup_log_version();
	if (w.password_fd >= 0 && !(w.password = startup_secret_fd(w.password_fd, &e)))
		startup_fatal(&e);
	s = load(&w);
	if (!s)
		return 1;
	if (!s->redis.addr) {
		err_set(&e, ERR_INVALID,
			"redis.addr is not set: a worker alone needs a Redis (acceld brings its "
			"own)");
		startup_fatal(&e);
	}
	if (run(&w, &s, &e) < 0) {
		log_line(LOG_FATAL, e.text, NULL);
		status = 1;
	}
	httpd_freep(&w.probes);
	supervisor_freep(&w.supervisor);
	loop_freep(&w.loop);
	settings_freep(&s);
	secret_freep(&w.password);
	return status;
}
