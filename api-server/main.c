/* api-server/main.c - accel-api-server: options, configuration, start, reload, drain. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api-server/api.h"
#include "api-server/counters.h"
#include "api-server/rate.h"
#include "api-server/routes.h"
#include "api-server/waiters.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/env.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/notify.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/startup.h"
#include "common/str.h"

enum { DRAIN_MS = 10000, DRAIN_LOOK_MS = 20, SPARE_FDS = 64 };

struct program {
	struct api api;
	const char *config, *redis, *socket;
	int password_fd;
	struct loop_timer *tick, *stop, *watchdog;
	struct loop_later *log;
	uint64_t stop_ms; /* draining: when it ends at the latest */
};

static const char usage[] =
	"usage: accel-api-server --config FILE [option...]\n"
	"\n"
	"Takes webhooks and requests over HTTP, and puts tasks into Redis.\n"
	"\n"
	"  --config FILE           YAML configuration; conf.d/*.yaml beside it is read too\n"
	"  --redis ADDR            host:port or unix:///path, instead of redis.addr\n"
	"  --redis-password-fd N   read Redis' password from this inherited descriptor\n"
	"  --socket PATH           listen on this unix socket too\n"
	"  --under-acceld          as acceld's child: end with it, listen on its socket too\n"
	"  --list-faults           print the fault points that are built in\n"
	"  --version, --help\n";

/* ---- Redis */

static void on_tick(const struct ticked *t, const struct err *e, void *arg)
{
	struct api *a = arg;

	(void)t;
	a->writable = !e;
	a->was_writable |= !e;
	str_copy(a->why, sizeof(a->why), e ? e->text : "");
}

/* Every API server and every worker ticks: retries get due with no worker alive, too.  Jitter keeps
 * them apart. */
static void tick(void *arg)
{
	struct program *p = arg;
	uint64_t ms = p->api.settings->queue.tick_ms;
	uint16_t random;

	digest_random(&random, sizeof(random));
	if (p->api.redis_ready)
		queue_tick(p->api.queue, on_tick, &p->api);
	loop_timer_again(p->tick, ms * 3 / 4 + random % (ms / 2 + 1));
}

static void on_redis(bool ready, const struct err *why, void *arg)
{
	struct program *p = arg;
	struct api *a = &p->api;

	a->redis_ready = ready;
	if (!ready) {
		a->writable = false;
		str_copy(a->why, sizeof(a->why), why ? why->text : "not connected");
	} else if (p->tick) {
		loop_timer_again(p->tick, 0);
	}
}

static void on_blocking(bool ready, const struct err *why, void *arg)
{
	struct api *a = arg;

	(void)why;
	if (a->waiters)
		waiters_redis(a->waiters, ready);
}

/* ---- start */

/* Descriptors are needed for Redis, files and sockets beside the clients' connections. */
static uint32_t connections_possible(uint32_t wanted)
{
	struct rlimit lim = {0};

	getrlimit(RLIMIT_NOFILE, &lim);
	if (lim.rlim_cur < lim.rlim_max && lim.rlim_cur < (rlim_t)wanted + SPARE_FDS) {
		lim.rlim_cur = lim.rlim_max < (rlim_t)wanted + SPARE_FDS
				       ? lim.rlim_max
				       : (rlim_t)wanted + SPARE_FDS;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	if (lim.rlim_cur >= (rlim_t)wanted + SPARE_FDS)
		return wanted;
	log_warning("fewer connections than server.max_connections: too few file descriptors",
		    F_U64("limit", lim.rlim_cur), NULL);
	return lim.rlim_cur > 2 * SPARE_FDS ? (uint32_t)lim.rlim_cur - SPARE_FDS : SPARE_FDS;
}

static int open_httpd(struct program *p, struct err *e)
{
	const struct settings *s = p->api.settings;
	const struct httpd_opts o = {
		.max_header = s->server.max_header,
		.max_body = s->server.max_body,
		.max_connections = connections_possible(s->server.max_connections),
		.max_per_peer = s->server.max_connections_per_peer,
	};

	if (httpd_open(&p->api.http, p->api.loop, &o, routes_on_request, &p->api, e) < 0)
		return -1;
	httpd_on_done(p->api.http, routes_on_done, &p->api);
	httpd_on_refused(p->api.http, routes_on_refused, &p->api);
	return 0;
}

static void started(const struct settings *s, const char *where)
{
	scoped_free char *msg = mem_printf("[%s] HTTP server started on %s", s->server.name, where);

	log_info(msg, NULL);
}

/* The socket that accelctl looks for: a convenience, so that it cannot be made is no reason not to
 * start. */
static void listen_beside(struct program *p)
{
	const char *run = env_get("XDG_RUNTIME_DIR");
	scoped_free char *folder = NULL, *path = NULL;
	struct err e = {0};

	if (geteuid() == 0)
		folder = mem_strdup("/run/accel");
	else if (run)
		folder = mem_printf("%s/accel", run);
	if (!folder)
		return;
	path = mem_printf("%s/api.sock", folder);
	if (mkdir(folder, 0755) < 0 && errno != EEXIST)
		log_warning("no local socket for accelctl", F_STR("path", path),
			    F_STR("error", strerror(errno)), NULL);
	else if (httpd_listen_unix(p->api.http, path, p->api.settings->server.uds_mode, &e) < 0)
		log_warning("no local socket for accelctl", F_ERR(&e), NULL);
	else
		started(p->api.settings, path);
}

static int listen_all(struct program *p, struct err *e)
{
	const struct settings *s = p->api.settings;
	scoped_free char *bound = NULL;

	if (s->server.uds &&
	    httpd_listen_unix(p->api.http, s->server.uds, s->server.uds_mode, e) < 0)
		return -1;
	if (s->server.uds)
		started(s, s->server.uds);
	if (p->socket && httpd_listen_unix(p->api.http, p->socket, s->server.uds_mode, e) < 0)
		return -1;
	if (p->socket)
		started(s, p->socket);
	if (!s->server.uds_only) {
		if (httpd_listen_tcp(p->api.http, s->server.host, s->server.port,
				     s->server.tls_cert_file, s->server.tls_key_file,
				     s->server.tls_client_ca_file, &bound, e) < 0)
			return -1;
		started(s, bound);
	}
	if (p->api.under_acceld)
		listen_beside(p);
	return 0;
}

static int set_redis(struct program *p, struct err *e)
{
	struct settings *s = p->api.settings;

	if (p->redis) {
		free(s->redis.addr);
		s->redis.addr = mem_strdup(p->redis);
	}
	if (p->password_fd >= 0) {
		secret_freep(&s->redis.password);
		s->redis.password = startup_secret_fd(p->password_fd, e);
		if (!s->redis.password)
			return err_wrap(e, "--redis-password-fd");
	}
	if (!s->redis.addr)
		return err_set(e, ERR_INVALID,
			       "redis.addr is not set; only acceld starts a Redis of its own");
	return 0;
}

/* A busy turn's lines are one write; httpd lets none of them come after the answer it is about. */
static void want_log(void *arg)
{
	loop_later_want(((struct program *)arg)->log);
}

static void write_log(void *arg)
{
	log_flush();
}

static int start(struct program *p, struct err *e)
{
	struct api *a = &p->api;

	if (set_redis(p, e) < 0 || loop_open(&a->loop, e) < 0 || open_httpd(p, e) < 0 ||
	    listen_all(p, e) < 0)
		return -1;
	p->log = loop_later(a->loop, write_log, NULL);
	log_hold(want_log, p);
	a->metrics = counters_new(a->settings->server.name);
	counters_set(a, COUNT_BUILD, startup_version(), 1);
	counters_set(a, COUNT_RELOAD, NULL, 1);
	counters_set(a, COUNT_RELOAD_TIME, NULL, (double)clock_wall_ms() / 1000);
	a->rate = rate_new();
	if (redis_open(&a->redis, a->loop, a->settings, "accel-api", on_redis, p, e) < 0 ||
	    redis_open(&a->blocking, a->loop, a->settings, "accel-api-events", on_blocking, a, e) <
		    0)
		return -1;
	a->queue = queue_new(a->redis, a->settings);
	a->waiters = waiters_new(a);
	waiters_redis(a->waiters, redis_ready(a->blocking));
	p->tick = loop_timer(a->loop, 0, 0, tick, p);
	if (!a->under_acceld) { /* systemd listens to acceld itself then */
		p->watchdog = notify_watchdog(a->loop);
		notify_ready();
	}
	return 0;
}

/* ---- reload */

static void warn_fixed(const struct settings *old, const struct settings *new)
{
	const struct {
		const char *key;
		bool same;
	} t[] = {
		{"server.host", str_eq(old->server.host, new->server.host)},
		{"server.port", old->server.port == new->server.port},
		{"server.uds", str_eq(old->server.uds, new->server.uds)},
		{"server.name", str_eq(old->server.name, new->server.name)},
		{"redis.addr", str_eq(old->redis.addr, new->redis.addr)},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (!t[i].same)
			log_warning("this change takes a restart", F_STR("key", t[i].key), NULL);
}

static void on_hup(int signo, void *arg)
{
	struct program *p = arg;
	struct api *a = &p->api;
	struct settings *s = startup_config(p->config), *old = a->settings;
	struct err e = {0};

	(void)signo;
	counters_set(a, COUNT_RELOAD, NULL, 0);
	if (!s) {
		log_error("reload: the configuration is wrong, the old one stays", NULL);
		return;
	}
	if (p->redis) { /* given by option: never compared */
		free(s->redis.addr);
		s->redis.addr = mem_strdup(p->redis);
	}
	if (httpd_reload_tls(a->http, &e) < 0) {
		log_error("reload: the old configuration stays", F_ERR(&e), NULL);
		settings_freep(&s);
		return;
	}
	warn_fixed(old, s);
	a->settings = s;
	queue_settings(a->queue, s);
	settings_freep(&old);
	counters_set(a, COUNT_RELOAD, NULL, 1);
	counters_set(a, COUNT_RELOAD_TIME, NULL, (double)clock_wall_ms() / 1000);
	log_info("configuration reloaded", NULL);
}

/* ---- stop */

static void look_if_done(void *arg)
{
	struct program *p = arg;

	if (!httpd_unfinished(p->api.http) || clock_mono_ms() >= p->stop_ms)
		loop_stop(p->api.loop);
	else
		loop_timer_again(p->stop, DRAIN_LOOK_MS);
}

static void stop_listening(void *arg)
{
	struct program *p = arg;

	httpd_stop_listening(p->api.http);
	waiters_drain(p->api.waiters);
	p->stop_ms = clock_mono_ms() + DRAIN_MS;
	loop_timer_freep(&p->stop);
	p->stop = loop_timer(p->api.loop, 0, 0, look_if_done, p);
}

/* Once: answers what is open; twice: ends. */
static void on_term(int signo, void *arg)
{
	struct program *p = arg;
	scoped_free char *msg = mem_printf("[%s] gracefully shutting down http server...",
					   p->api.settings->server.name);

	(void)signo;
	if (p->api.draining) {
		loop_stop(p->api.loop);
		return;
	}
	p->api.draining = true;
	if (!p->api.under_acceld)
		notify_stopping();
	log_info(msg, NULL);
	p->stop = loop_timer(p->api.loop, p->api.settings->server.drain_delay_ms, 0, stop_listening,
			     p);
}

static void fini(struct program *p)
{
	struct api *a = &p->api;

	loop_timer_freep(&p->tick);
	loop_timer_freep(&p->stop);
	loop_timer_freep(&p->watchdog);
	redis_freep(&a->redis); /* pending calls are answered, and with them their requests */
	redis_freep(&a->blocking);
	waiters_freep(&a->waiters);
	queue_freep(&a->queue);
	httpd_freep(&a->http);
	metrics_freep(&a->metrics);
	rate_freep(&a->rate);
	for (size_t i = 0; i < a->n_host_labels; i++)
		free(a->host_label[i]);
	log_hold(NULL, NULL);
	loop_later_freep(&p->log);
	loop_freep(&a->loop);
	settings_freep(&a->settings);
}

static int parse_options(struct program *p, int argc, char **argv)
{
	static const struct option opts[] = {{"config", required_argument, NULL, 'c'},
					     {"redis", required_argument, NULL, 'r'},
					     {"redis-password-fd", required_argument, NULL, 'p'},
					     {"socket", required_argument, NULL, 's'},
					     {"under-acceld", no_argument, NULL, 'u'},
					     {"list-faults", no_argument, NULL, 'f'},
					     {"version", no_argument, NULL, 'v'},
					     {"help", no_argument, NULL, 'h'},
					     {0}};
	uint64_t fd;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case 'c':
			p->config = optarg;
			break;
		case 'r':
			p->redis = optarg;
			break;
		case 'p':
			if (str_u64(optarg, &fd, NULL) < 0 || fd > 1000000)
				return 2;
			p->password_fd = (int)fd;
			break;
		case 's':
			p->socket = optarg;
			break;
		case 'u':
			p->api.under_acceld = true;
			break;
		case 'f':
			fault_list(stdout);
			exit(0);
		case 'v':
			printf("accel-api-server version %s\n", startup_version());
			exit(0);
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			return 2;
		}
	}
	return optind < argc || !p->config ? 2 : 0;
}

int main(int argc, char **argv)
{
	struct program p = {.password_fd = -1};
	struct loop_signal *term = NULL, *intr = NULL, *hup = NULL;
	struct err e = {0};

	if (parse_options(&p, argc, argv) != 0) {
		fputs(usage, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (p.api.under_acceld)
		startup_die_with_parent();
	startup_not_dumpable();
	startup_log_version();
	p.api.settings = startup_config(p.config);
	if (!p.api.settings)
		return 1;
	if (start(&p, &e) < 0)
		startup_fatal(&e);
	term = loop_signal(p.api.loop, SIGTERM, on_term, &p);
	intr = loop_signal(p.api.loop, SIGINT, on_term, &p);
	hup = loop_signal(p.api.loop, SIGHUP, on_hup, &p);
	if (loop_run(p.api.loop, &e) < 0)
		startup_fatal(&e);
	loop_signal_freep(&term);
	loop_signal_freep(&intr);
	loop_signal_freep(&hup);
	fini(&p);
	return 0;
}
