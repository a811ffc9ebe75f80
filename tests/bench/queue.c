/* tests/bench/queue.c - the load of `make bench-queue`: one process, one loop, against a running
 * API server and Redis.
 *
 *   queue CONFIG PORT SECONDS REDIS-PID API-PID
 * The same configuration as the server's; PORT of its HTTP listener; SECONDS of each webhook row.
 * Prints a table: webhooks by connections, claim + finish by calls in flight, pickup by idle
 * workers, killed worker; with the CPU that Redis, the API server and this process spent on each,
 * which says more than rates where cores are shared.  CONNECTIONS=1,32: these webhook rows alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/str.h"

enum { CYCLES = 12000, PICKUPS = 400, KILLED = 40, MAX_SAMPLES = 4000000 };

static struct {
	struct loop *loop;
	struct settings *settings;
	struct redis *redis;
	struct queue *queue;
	struct sockaddr_in api;
	uint64_t seconds, serial;
	char run[9];   /* makes names of this run new */
	float *sample; /* ms */
	size_t n;
	uint64_t bad, until_ns;
	int pid[3];	 /* Redis, API server, this process */
	double cpu_s[3]; /* at the row's begin */
	uint64_t row_ns;
} b;

static void die(const char *what)
{
	fprintf(stderr, "bench-queue: %s\n", what);
	exit(1);
}

static int by_value(const void *x, const void *y)
{
	float a = *(const float *)x, c = *(const float *)y;

	return a < c ? -1 : a > c;
}

static void add_sample(uint64_t from_ns)
{
	if (b.n < MAX_SAMPLES)
		b.sample[b.n++] = (float)(clock_mono_ns() - from_ns) / 1e6f;
}

static double at(double share)
{
	return b.n ? (double)b.sample[(size_t)((double)(b.n - 1) * share)] : 0;
}

static double cpu_of(int pid)
{
	unsigned long long user = 0, kernel = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
			 &kernel) != 2)
		user = kernel = 0;
	if (f)
		fclose(f);
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static void begin(void)
{
	for (int i = 0; i < 3; i++)
		b.cpu_s[i] = cpu_of(b.pid[i]);
	b.row_ns = clock_mono_ns();
	b.n = 0;
	b.bad = 0;
}

/* What each process spent on one sample, and what share of a core it had: less than the machine has
 * in all while it was busy means that others were given the rest. */
static void row(const char *name, double per_s)
{
	double s = (double)(clock_mono_ns() - b.row_ns) / 1e9, us[3], cores[3];

	for (int i = 0; i < 3; i++) {
		double spent = cpu_of(b.pid[i]) - b.cpu_s[i];

		us[i] = b.n ? spent * 1e6 / (double)b.n : 0;
		cores[i] = spent / s;
	}
	qsort(b.sample, b.n, sizeof(*b.sample), by_value);
	if (per_s > 0)
		printf("%-39s %8.0f/s", name, per_s);
	else
		printf("%-39s %10s", name, "");
	printf("  p50 %7.2f  p99 %7.2f  max %7.2f ms  n %6zu", at(0.5), at(0.99), at(1), b.n);
	printf("  cpu us: redis %4.0f  api %4.0f  load %4.0f  cores: %.2f + %.2f + %.2f", us[0],
	       us[1], us[2], cores[0], cores[1], cores[2]);
	if (b.bad)
		printf("  FAILED %llu", (unsigned long long)b.bad);
	printf("\n");
	fflush(stdout);
}

static void make_nonce(char nonce[QUEUE_NONCE])
{
	uint8_t bytes[16];

	digest_random(bytes, sizeof(bytes));
	str_hex(nonce, bytes, sizeof(bytes));
}

/* ---- one HTTP connection: one webhook at a time, as Harbor sends it */

struct client {
	int fd;
	struct loop_fd *ev;
	uint64_t sent_ns;
	char in[4096];
	size_t n;
	void (*answered)(struct client *c, int status);
};

/* Harbor's default payload (reference/captures/harbor), a new image each time; 16 tenants. */
static void post(struct client *c)
{
	char body[1024], text[1536];
	uint64_t k = b.serial++;
	int n = snprintf(body, sizeof(body),
			 "{\"type\":\"PUSH_ARTIFACT\",\"occur_at\":1700000000,\"operator\":"
			 "\"bench\",\"event_data\":{"
			 "\"resources\":[{\"digest\":\"sha256:%08llx%056d\",\"tag\":\"%llu\","
			 "\"resource_url\":"
			 "\"h.example/t%llu/"
			 "img%s:%llu\"}],\"repository\":{\"date_created\":1700000000,\"name\":"
			 "\"img%s\",\"namespace\":\"t%llu\",\"repo_full_name\":\"t%llu/"
			 "img%s\",\"repo_type\":"
			 "\"private\"}}}",
			 (unsigned long long)k, 0, (unsigned long long)k,
			 (unsigned long long)(k % 16), b.run, (unsigned long long)k, b.run,
			 (unsigned long long)(k % 16), (unsigned long long)(k % 16), b.run);
	int len = snprintf(text, sizeof(text),
			   "POST /api/v1/conversions HTTP/1.1\r\nHost: bench\r\nContent-Type: "
			   "application/json\r\n"
			   "Content-Length: %d\r\n\r\n%s",
			   n, body);

	c->sent_ns = clock_mono_ns();
	c->n = 0;
	if (write(c->fd, text, (size_t)len) != len)
		die("the API server does not take a request");
}

static void on_answer(int what, void *arg)
{
	struct client *c = arg;
	ssize_t r = read(c->fd, c->in + c->n, sizeof(c->in) - 1 - c->n);
	char *end, *len;
	int status;

	if (r <= 0)
		die("the API server hung up");
	c->n += (size_t)r;
	c->in[c->n] = 0;
	end = strstr(c->in, "\r\n\r\n");
	len = strcasestr(c->in, "content-length:");
	if (!end || !len || c->n < (size_t)(end + 4 - c->in) + strtoul(len + 15, NULL, 10))
		return;
	status = atoi(c->in + 9);
	if (status != 200 && !b.bad++)
		fprintf(stderr, "bench-queue: %s\n", c->in);
	c->answered(c, status);
}

static void client_open(struct client *c, void (*answered)(struct client *c, int status))
{
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&b.api, sizeof(b.api)) < 0)
		die("no connection to the API server");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->answered = answered;
	c->ev = loop_fd(b.loop, c->fd, LOOP_READ, on_answer, c);
}

static void client_close(struct client *c)
{
	loop_fd_freep(&c->ev);
	close(c->fd);
}

static size_t under_way;

static void next_webhook(struct client *c, int status)
{
	add_sample(c->sent_ns);
	if (clock_mono_ns() < b.until_ns)
		post(c);
	else if (--under_way == 0)
		loop_stop(b.loop);
}

static void webhooks(size_t connections)
{
	struct client *c = mem_array(connections, sizeof(*c));
	uint64_t from = clock_mono_ns();
	char name[64];
	double s;

	begin();
	b.until_ns = from + b.seconds * 1000000000;
	under_way = connections;
	for (size_t i = 0; i < connections; i++)
		client_open(&c[i], next_webhook);
	for (size_t i = 0; i < connections; i++)
		post(&c[i]);
	loop_run(b.loop, NULL);
	s = (double)(clock_mono_ns() - from) / 1e9;
	for (size_t i = 0; i < connections; i++)
		client_close(&c[i]);
	free(c);
	snprintf(name, sizeof(name), "webhooks, %zu connection%s", connections,
		 connections > 1 ? "s" : "");
	row(name, (double)b.n / s);
}

/* ---- enqueue, without HTTP */

static size_t to_fill;
struct filler {
	uint64_t from_ns;
};

static void on_filled(const struct enqueue_result *r, const struct err *e, void *arg);

static void fill_one(struct filler *f)
{
	char ref[200], id[TASK_ID];
	struct imageref source;
	const struct rule *rule;
	struct task_request rq;
	uint64_t k = b.serial++;

	snprintf(ref, sizeof(ref), "h.example/t%llu/img%s:%llu@sha256:%08llx%056d",
		 (unsigned long long)(k % 16), b.run, (unsigned long long)k, (unsigned long long)k,
		 0);
	if (imageref_parse(&source, ref, NULL) < 0 ||
	    !(rule = rules_find(&b.settings->rules, &source)) ||
	    task_request_from_rule(&rq, &source, ref, rule, "", TRIGGER_EVENT, "bench", NULL) < 0)
		die("no rule for the image");
	task_new_id(id);
	f->from_ns = clock_mono_ns();
	queue_enqueue(
		b.queue,
		&(struct enqueue){.id = id, .request = &rq, .band = BAND_EVENT, .fresh_ms = 600000},
		on_filled, f);
	task_request_fini(&rq);
}

static void on_filled(const struct enqueue_result *r, const struct err *e, void *arg)
{
	struct filler *f = arg;

	b.bad += e || r->outcome != ENQUEUED;
	add_sample(f->from_ns);
	if (to_fill) {
		to_fill--;
		fill_one(f);
	} else if (--under_way == 0) {
		loop_stop(b.loop);
	}
}

static void fill(size_t n)
{
	enum { IN_FLIGHT = 64 };
	struct filler f[IN_FLIGHT];

	begin();
	to_fill = n - IN_FLIGHT;
	under_way = IN_FLIGHT;
	for (size_t i = 0; i < IN_FLIGHT; i++)
		fill_one(&f[i]);
	loop_run(b.loop, NULL);
}

static void enqueues(void)
{
	uint64_t from = clock_mono_ns();

	fill(CYCLES);
	row("enqueue, 64 in flight", (double)b.n / ((double)(clock_mono_ns() - from) / 1e9));
}

/* ---- claim + finish */

struct slot {
	struct finish f;
	char id[TASK_ID], nonce[QUEUE_NONCE];
	uint64_t from_ns;
};
static size_t left;

static void next_cycle(struct slot *s);

static void on_finished(enum finish_outcome o, enum task_state now, const struct err *e, void *arg)
{
	struct slot *s = arg;

	b.bad += e || o != FINISH_OK;
	add_sample(s->from_ns);
	next_cycle(s);
}

static void on_claimed(const struct claimed *c, const struct err *e, void *arg)
{
	struct slot *s = arg;

	if (e || c->kind != CLAIM_TASK) {
		b.bad++;
		fprintf(stderr, "bench-queue: %s\n", e ? e->text : "nothing to claim");
		if (--under_way == 0)
			loop_stop(b.loop);
		return;
	}
	memcpy(s->id, c->id, TASK_ID);
	s->f = (struct finish){.id = s->id,
			       .nonce = s->nonce,
			       .outcome = OUT_DONE,
			       .source_size = 1,
			       .target_size = 1,
			       .result_json = "{\"targets\":[]}"};
	queue_finish(b.queue, &s->f, on_finished, s);
}

static void next_cycle(struct slot *s)
{
	if (!left) {
		if (--under_way == 0)
			loop_stop(b.loop);
		return;
	}
	left--;
	make_nonce(s->nonce);
	s->from_ns = clock_mono_ns();
	queue_claim(b.queue, "bench", s->nonce, on_claimed, s);
}

static void cycles(size_t in_flight)
{
	struct slot *s = mem_array(in_flight, sizeof(*s));
	uint64_t from;
	char name[64];

	fill(CYCLES);
	begin();
	from = clock_mono_ns();
	left = CYCLES;
	under_way = in_flight;
	for (size_t i = 0; i < in_flight; i++)
		next_cycle(&s[i]);
	loop_run(b.loop, NULL);
	free(s);
	snprintf(name, sizeof(name), "claim + finish, %zu in flight", in_flight);
	row(name, (double)b.n / ((double)(clock_mono_ns() - from) / 1e9));
}

static void on_ticked(const struct ticked *t, const struct err *e, void *arg)
{
	if (e)
		die(e->text);
	if (arg)
		loop_stop(b.loop);
}

/* Empties the queue, so that workers are idle. */
static bool empty;

static void on_drained(enum finish_outcome o, enum task_state now, const struct err *e, void *arg)
{
	loop_stop(b.loop);
}

static void on_drain(const struct claimed *c, const struct err *e, void *arg)
{
	struct slot *s = arg;

	if (e)
		die(e->text);
	if (c->kind != CLAIM_TASK) {
		empty = true;
		loop_stop(b.loop);
		return;
	}
	memcpy(s->id, c->id, TASK_ID);
	s->f = (struct finish){.id = s->id, .nonce = s->nonce, .outcome = OUT_DONE};
	queue_finish(b.queue, &s->f, on_drained, s);
}

static void flushed(const struct reply *r, const struct err *e, void *arg)
{
	if (e)
		die(e->text);
	loop_stop(b.loop);
}

static void drain(void)
{
	struct slot s;

	redis_call(b.redis, 30000, 1, (const char *const[]){"FLUSHALL"}, NULL, flushed, NULL);
	loop_run(b.loop, NULL);
	queue_tick(b.queue, on_ticked, &s); /* the limits again */
	loop_run(b.loop, NULL);
	for (empty = false; !empty;) {
		make_nonce(s.nonce);
		queue_claim(b.queue, "bench", s.nonce, on_drain, &s);
		loop_run(b.loop, NULL);
	}
}

/* ---- pickup: idle workers, each with its two connections; POST sent -> task in a worker's hands
 */

struct idle {
	struct redis *redis, *blocking;
	struct queue *queue;
	struct slot slot;
};
static size_t ready_connections;
static uint64_t posted_ns;
static size_t picked;
static struct client poster;
static struct loop_timer *pause_timer;
static bool stopping;

static void idle_wait(struct idle *w);

static void on_idle_finished(enum finish_outcome o, enum task_state now, const struct err *e,
			     void *arg)
{
	if (!stopping)
		idle_wait(arg);
}

static void post_later(void)
{
	uint16_t dice;

	digest_random(&dice, sizeof(dice));
	loop_timer_again(pause_timer, 5 + dice % 10);
}

static void on_idle_claim(const struct claimed *c, const struct err *e, void *arg)
{
	struct idle *w = arg;

	if (stopping || e)
		return;
	if (c->kind != CLAIM_TASK) {
		idle_wait(w);
		return;
	}
	add_sample(posted_ns);
	memcpy(w->slot.id, c->id, TASK_ID);
	w->slot.f = (struct finish){.id = w->slot.id, .nonce = w->slot.nonce, .outcome = OUT_DONE};
	queue_finish(w->queue, &w->slot.f, on_idle_finished, w);
	if (++picked == PICKUPS)
		loop_stop(b.loop);
	else
		post_later();
}

static void on_hint(bool hint, const struct err *e, void *arg)
{
	struct idle *w = arg;

	if (stopping || e)
		return;
	make_nonce(w->slot.nonce);
	queue_claim(w->queue, "bench", w->slot.nonce, on_idle_claim, w);
}

static void idle_wait(struct idle *w)
{
	uint16_t dice;

	digest_random(&dice, sizeof(dice));
	queue_wait_hint(w->blocking, 14000 + dice % 12000, on_hint, w); /* 20 s +- 30 % */
}

static void on_ready(bool ready, const struct err *why, void *arg)
{
	if (!ready)
		die(why->text);
	ready_connections++;
	loop_stop(b.loop);
}

static void post_now(void *arg)
{
	post(&poster);
	posted_ns = poster.sent_ns;
}

static void on_posted(struct client *c, int status)
{
}

static void pickup(size_t workers)
{
	struct idle *w = mem_array(workers, sizeof(*w));
	char name[64];

	ready_connections = picked = 0;
	stopping = false;
	for (size_t i = 0; i < workers; i++) {
		if (redis_open(&w[i].redis, b.loop, b.settings, "bench", on_ready, NULL, NULL) <
			    0 ||
		    redis_open(&w[i].blocking, b.loop, b.settings, "bench", on_ready, NULL, NULL) <
			    0)
			die("no connection to Redis");
		w[i].queue = queue_new(w[i].redis, b.settings);
	}
	while (ready_connections < 2 * workers)
		loop_run(b.loop, NULL);
	begin();
	client_open(&poster, on_posted);
	pause_timer = loop_timer(b.loop, 200, 0, post_now, NULL);
	for (size_t i = 0; i < workers; i++)
		idle_wait(&w[i]);
	loop_run(b.loop, NULL);
	stopping = true;
	loop_timer_freep(&pause_timer);
	client_close(&poster);
	for (size_t i = 0; i < workers; i++) {
		redis_freep(&w[i].blocking);
		redis_freep(&w[i].redis);
		queue_freep(&w[i].queue);
	}
	free(w);
	snprintf(name, sizeof(name), "pickup (POST sent -> in hand), %zu idle", workers);
	row(name, 0);
}

/* ---- a killed worker: its last sign of life -> its tasks in another's hands */

static uint64_t last_sign_ns;

static void on_taken(const struct claimed *c, const struct err *e, void *arg)
{
	if (e || c->kind != CLAIM_TASK)
		die("no task to be killed");
	if (--under_way == 0)
		loop_stop(b.loop);
}

static void on_second_life(const struct claimed *c, const struct err *e, void *arg);

static void ask_again(void *arg)
{
	struct slot *s = arg;

	queue_tick(b.queue, on_ticked, NULL);
	make_nonce(s->nonce);
	queue_claim(b.queue, "other", s->nonce, on_second_life, s);
}

static void on_second_life(const struct claimed *c, const struct err *e, void *arg)
{
	if (e)
		die(e->text);
	if (c->kind != CLAIM_TASK)
		return;
	add_sample(last_sign_ns);
	if (b.n == KILLED)
		loop_stop(b.loop);
	else
		ask_again(arg);
}

static void killed(void)
{
	struct slot s;
	struct client c = {0};
	struct loop_timer *ticking;
	char name[80], nonce[QUEUE_NONCE];

	client_open(&c, next_webhook);
	for (size_t i = 0; i < KILLED; i++) {
		b.until_ns = 0;
		under_way = 1;
		post(&c);
		loop_run(b.loop, NULL);
	}
	client_close(&c);
	begin();
	under_way = KILLED;
	for (size_t i = 0; i < KILLED; i++) {
		make_nonce(nonce);
		queue_claim(b.queue, "victim", nonce, on_taken, NULL);
	}
	last_sign_ns = clock_mono_ns();
	loop_run(b.loop, NULL);
	ticking = loop_timer(b.loop, b.settings->queue.tick_ms, b.settings->queue.tick_ms,
			     ask_again, &s);
	loop_run(b.loop, NULL);
	loop_timer_freep(&ticking);
	snprintf(name, sizeof(name), "killed worker -> runs again, lease %.1f s",
		 (double)b.settings->queue.lease_ms / 1000);
	row(name, 0);
}

int main(int argc, char **argv)
{
	const char *only = getenv("CONNECTIONS");
	struct config_report report = {0};
	uint8_t dice[4];

	log_setup(LOG_ERROR, LOG_TEXT, 2);
	if (argc != 6 || config_load(&b.settings, argv[1], &report) < 0)
		die("usage: queue CONFIG PORT SECONDS REDIS-PID API-PID");
	config_report_fini(&report);
	digest_random(dice, sizeof(dice));
	str_hex(b.run, dice, sizeof(dice));
	b.api.sin_family = AF_INET;
	b.api.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	b.api.sin_port = htons((uint16_t)atoi(argv[2]));
	b.pid[0] = atoi(argv[4]);
	b.pid[1] = atoi(argv[5]);
	b.pid[2] = (int)getpid();
	b.seconds = strtoull(argv[3], NULL, 10);
	b.sample = mem_array(MAX_SAMPLES, sizeof(*b.sample));
	if (loop_open(&b.loop, NULL) < 0 ||
	    redis_open(&b.redis, b.loop, b.settings, "bench", on_ready, NULL, NULL) < 0)
		die("no loop");
	b.queue = queue_new(b.redis, b.settings);
	loop_run(b.loop, NULL);
	queue_tick(b.queue, on_ticked, b.queue);
	loop_run(b.loop, NULL);
	for (const char *p = only ? only : "1,32,256"; *p; p += strcspn(p, ","), p += *p == ',')
		webhooks(strtoul(p, NULL, 10));
	if (only)
		return 0;
	drain();
	enqueues();
	drain();
	cycles(1);
	cycles(8);
	cycles(64);
	drain();
	pickup(8);
	pickup(256);
	drain();
	killed();
	redis_freep(&b.redis);
	queue_freep(&b.queue);
	loop_freep(&b.loop);
	settings_freep(&b.settings);
	free(b.sample);
	return 0;
}
