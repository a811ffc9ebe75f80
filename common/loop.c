/* common/loop.c - see loop.h.
 *
 * Name lookups are the one thing done off the loop: glibc's getaddrinfo may sit for many seconds on
 * a dead resolver, and libevent's own does it on the loop's thread.  A hub with at most HELPERS
 * threads takes them; an answer is handed over by an eventfd.  The hub is counted, because a thread
 * that hangs in the resolver must be able to outlive the loop. */
#include "common/loop.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"

enum { HELPERS = 4, ADDRESSES = 16 };

struct loop_timer {
	struct event *ev;
	uint64_t repeat_ms;
	void (*on)(void *arg);
	void *arg;
};

struct loop_later {
	struct event *ev;
	void (*on)(void *arg);
	void *arg;
};

struct loop_fd {
	struct loop *loop;
	struct event *ev;
	int fd, what;
	void (*on)(int what, void *arg);
	void *arg;
};

struct loop_signal {
	struct event *ev;
	void (*on)(int signo, void *arg);
	void *arg;
};

struct loop_child {
	TAILQ_ENTRY(loop_child) next;
	struct loop *loop;
	pid_t pid;
	int status;
	bool ended; /* which list it is on */
	void (*on)(pid_t pid, int status, void *arg);
	void *arg;
};
TAILQ_HEAD(children, loop_child);

/* A lookup has two owners: the loop_lookup handle, and the hub until the answer was handed over.
 * Whoever lets go last frees it; `handle` is read and written on the loop's thread alone. */
struct job {
	TAILQ_ENTRY(job) next;
	struct loop_lookup *handle; /* NULL: cancelled */
	char host[256], port[32];
	struct sockaddr_storage address[ADDRESSES];
	socklen_t len[ADDRESSES];
	size_t n;
	char why[128];
};
TAILQ_HEAD(jobs, job);

struct hub {
	pthread_mutex_t lock;
	struct jobs todo, done;
	unsigned threads, users; /* users: the threads and the loop */
	int wake;		 /* eventfd; -1 once the loop is gone */
};

struct loop_lookup {
	struct job *job;
	void (*on)(const struct sockaddr_storage *a, const socklen_t *len, size_t n,
		   const char *why, void *arg);
	void *arg;
};

struct loop {
	struct event_base *base;
	bool stop;
	uint64_t turn_ms;
	struct event *child_ev, *hub_ev;
	struct children alive, ended;
	struct hub *hub;
};

static struct timeval after(uint64_t ms)
{
	return (struct timeval){.tv_sec = (time_t)(ms / 1000),
				.tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

/* An event that cannot be made means no memory: the same end as mem's. */
static struct event *event_make(struct loop *l, int fd, short what, event_callback_fn on, void *arg)
{
	struct event *ev = event_new(l->base, fd, what, on, arg);

	if (!ev)
		abort();
	return ev;
}

/* ---- timers */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct loop_timer *t = arg;
	struct timeval tv = after(t->repeat_ms);

	if (t->repeat_ms)
		event_add(t->ev, &tv);
	t->on(t->arg); /* may free t */
}

struct loop_timer *loop_timer(struct loop *l, uint64_t after_ms, uint64_t repeat_ms,
			      void (*on)(void *arg), void *arg)
{
	struct loop_timer *t = mem_zalloc(sizeof(*t));

	t->repeat_ms = repeat_ms;
	t->on = on;
	t->arg = arg;
	t->ev = event_make(l, -1, 0, on_timer, t);
	loop_timer_again(t, after_ms);
	return t;
}

void loop_timer_again(struct loop_timer *t, uint64_t after_ms)
{
	struct timeval tv = after(after_ms);

	event_add(t->ev, &tv);
}

void loop_timer_freep(struct loop_timer **t)
{
	if (!*t)
		return;
	event_free((*t)->ev);
	free(*t);
	*t = NULL;
}

/* ---- the turn's end */

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct loop_later *t = arg;

	t->on(t->arg); /* may free t */
}

struct loop_later *loop_later(struct loop *l, void (*on)(void *arg), void *arg)
{
	struct loop_later *t = mem_zalloc(sizeof(*t));

	t->on = on;
	t->arg = arg;
	t->ev = event_make(l, -1, 0, on_later, t);
	return t;
}

/* libevent puts all that is ready into one list before the first callback, so this comes last. */
void loop_later_want(struct loop_later *t)
{
	event_active(t->ev, EV_TIMEOUT, 1);
}

void loop_later_freep(struct loop_later **t)
{
	if (!*t)
		return;
	event_free((*t)->ev);
	free(*t);
	*t = NULL;
}

/* ---- descriptors */

static short event_bits(int what)
{
	return (short)((what & LOOP_READ ? EV_READ : 0) | (what & LOOP_WRITE ? EV_WRITE : 0) |
		       EV_PERSIST);
}

static void on_fd(evutil_socket_t fd, short what, void *arg)
{
	struct loop_fd *f = arg;

	f->on((what & EV_READ ? LOOP_READ : 0) | (what & EV_WRITE ? LOOP_WRITE : 0), f->arg);
}

struct loop_fd *loop_fd(struct loop *l, int fd, int what, void (*on)(int what, void *arg),
			void *arg)
{
	struct loop_fd *f = mem_zalloc(sizeof(*f));

	f->loop = l;
	f->fd = fd;
	f->on = on;
	f->arg = arg;
	f->ev = event_make(l, fd, event_bits(what), on_fd, f);
	loop_fd_want(f, what);
	return f;
}

void loop_fd_want(struct loop_fd *f, int what)
{
	if (f->what == what)
		return;
	f->what = what;
	event_del(f->ev);
	if (!what)
		return;
	event_assign(f->ev, f->loop->base, f->fd, event_bits(what), on_fd, f);
	event_add(f->ev, NULL);
}

void loop_fd_freep(struct loop_fd **f)
{
	if (!*f)
		return;
	event_free((*f)->ev);
	free(*f);
	*f = NULL;
}

/* ---- signals */

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
	struct loop_signal *s = arg;

	s->on((int)signo, s->arg);
}

struct loop_signal *loop_signal(struct loop *l, int signo, void (*on)(int signo, void *arg),
				void *arg)
{
	struct loop_signal *s = mem_zalloc(sizeof(*s));

	s->on = on;
	s->arg = arg;
	s->ev = event_make(l, signo, EV_SIGNAL | EV_PERSIST, on_signal, s);
	event_add(s->ev, NULL);
	return s;
}

void loop_signal_freep(struct loop_signal **s)
{
	if (!*s)
		return;
	event_free((*s)->ev);
	free(*s);
	*s = NULL;
}

/* ---- children */

/* Two steps, because a callback may free any handle: those that ended move to a list of their own,
 * which is then emptied from its head. */
static void on_child(evutil_socket_t signo, short what, void *arg)
{
	struct loop *l = arg;
	struct loop_child *c, *then;

	for (c = TAILQ_FIRST(&l->alive); c; c = then) {
		int status = 0;
		pid_t got;

		then = TAILQ_NEXT(c, next);
		do
			got = waitpid(c->pid, &status, WNOHANG);
		while (got < 0 && errno == EINTR);
		if (got == 0)
			continue;
		c->status = got < 0 ? 0 : status; /* someone else reaped it: nothing is known */
		c->ended = true;
		TAILQ_REMOVE(&l->alive, c, next);
		TAILQ_INSERT_TAIL(&l->ended, c, next);
	}
	while ((c = TAILQ_FIRST(&l->ended))) {
		TAILQ_REMOVE(&l->ended, c, next);
		c->loop = NULL;
		c->on(c->pid, c->status, c->arg); /* may free c */
	}
}

struct loop_child *loop_child(struct loop *l, pid_t pid,
			      void (*on)(pid_t pid, int status, void *arg), void *arg)
{
	struct loop_child *c = mem_zalloc(sizeof(*c));

	if (!l->child_ev) {
		l->child_ev = event_make(l, SIGCHLD, EV_SIGNAL | EV_PERSIST, on_child, l);
		event_add(l->child_ev, NULL);
	}
	c->loop = l;
	c->pid = pid;
	c->on = on;
	c->arg = arg;
	TAILQ_INSERT_TAIL(&l->alive, c, next);
	event_active(l->child_ev, EV_SIGNAL, 1); /* it may have ended before we listened */
	return c;
}

void loop_child_freep(struct loop_child **c)
{
	struct loop_child *k = *c;

	if (!k)
		return;
	if (k->loop) {
		if (k->ended)
			TAILQ_REMOVE(&k->loop->ended, k, next);
		else
			TAILQ_REMOVE(&k->loop->alive, k, next);
	}
	free(k);
	*c = NULL;
}

/* ---- lookups */

static void hub_leave(struct hub *h) /* with the lock held; gives it up */
{
	bool last = --h->users == 0;

	pthread_mutex_unlock(&h->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static void resolve(struct job *j)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG},
			*list = NULL, *a;
	int rc = getaddrinfo(j->host, j->port, &hints, &list);

	if (rc == EAI_NONAME ||
	    rc == EAI_ADDRFAMILY) { /* no interface but loopback has addresses */
		hints.ai_flags = 0;
		rc = getaddrinfo(j->host, j->port, &hints, &list);
	}
	if (rc != 0) {
		str_copy(j->why, sizeof(j->why),
			 rc == EAI_SYSTEM ? "the resolver failed" : gai_strerror(rc));
		return;
	}
	for (a = list; a && j->n < ADDRESSES; a = a->ai_next) {
		if (a->ai_addrlen > sizeof(j->address[0]))
			continue;
		memcpy(&j->address[j->n], a->ai_addr, a->ai_addrlen);
		j->len[j->n++] = a->ai_addrlen;
	}
	freeaddrinfo(list);
	if (!j->n)
		str_copy(j->why, sizeof(j->why), "no address of a kind we use");
}

static void *helper(void *arg)
{
	struct hub *h = arg;
	struct job *j;

	pthread_mutex_lock(&h->lock);
	while (h->wake >= 0 && (j = TAILQ_FIRST(&h->todo))) {
		TAILQ_REMOVE(&h->todo, j, next);
		pthread_mutex_unlock(&h->lock);
		resolve(j);
		pthread_mutex_lock(&h->lock);
		if (h->wake < 0) { /* the loop went away meanwhile */
			free(j);
			break;
		}
		TAILQ_INSERT_TAIL(&h->done, j, next);
		eventfd_write(h->wake, 1);
	}
	h->threads--;
	hub_leave(h);
	return NULL;
}

static void on_hub(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;
	struct hub *h = l->hub;
	eventfd_t count;
	struct job *j;

	eventfd_read((int)fd, &count);
	for (;;) {
		struct loop_lookup *k;

		pthread_mutex_lock(&h->lock);
		j = TAILQ_FIRST(&h->done);
		if (j)
			TAILQ_REMOVE(&h->done, j, next);
		pthread_mutex_unlock(&h->lock);
		if (!j)
			return;
		k = j->handle;
		if (k) {
			k->job = NULL;
			k->on(j->address, j->len, j->n, j->n ? NULL : j->why,
			      k->arg); /* may free k */
		}
		free(j);
	}
}

/* With the lock held.  All signals stay with the loop's thread. */
static int start_helper(struct hub *h)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 512 << 10); /* getaddrinfo with NSS modules wants some */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, &attr, helper, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc == 0) {
		h->threads++;
		h->users++;
	}
	return rc;
}

struct loop_lookup *loop_lookup(struct loop *l, const char *host, const char *port,
				void (*on)(const struct sockaddr_storage *a, const socklen_t *len,
					   size_t n, const char *why, void *arg),
				void *arg)
{
	struct loop_lookup *k = mem_zalloc(sizeof(*k));
	struct job *j = mem_zalloc(sizeof(*j));
	struct hub *h = l->hub;
	bool nobody;

	k->on = on;
	k->arg = arg;
	k->job = j;
	j->handle = k;
	str_copy(j->host, sizeof(j->host), host);
	str_copy(j->port, sizeof(j->port), port);
	pthread_mutex_lock(&h->lock);
	nobody = h->threads < HELPERS && start_helper(h) != 0 && h->threads == 0;
	if (nobody) { /* no thread could be had: answer so, from the loop as ever */
		str_copy(j->why, sizeof(j->why), "no thread for the resolver");
		TAILQ_INSERT_TAIL(&h->done, j, next);
		eventfd_write(h->wake, 1);
	} else {
		TAILQ_INSERT_TAIL(&h->todo, j, next);
	}
	pthread_mutex_unlock(&h->lock);
	return k;
}

void loop_lookup_freep(struct loop_lookup **k)
{
	if (!*k)
		return;
	if ((*k)->job)
		(*k)->job->handle = NULL;
	free(*k);
	*k = NULL;
}

static void free_jobs(struct jobs *list)
{
	struct job *j;

	while ((j = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, j, next);
		free(j);
	}
}

static void hub_close(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	free_jobs(&h->todo);
	free_jobs(&h->done);
	close(h->wake);
	h->wake = -1;
	hub_leave(h);
}

/* ---- the loop itself */

int loop_open(struct loop **to, struct err *e)
{
	struct loop *l = mem_zalloc(sizeof(*l));

	signal(SIGPIPE, SIG_IGN); /* a peer that left is an error of that write, not our end */
	TAILQ_INIT(&l->alive);
	TAILQ_INIT(&l->ended);
	l->base = event_base_new();
	if (!l->base) {
		free(l);
		return err_set(e, ERR_SYSTEM, "no event loop could be made");
	}
	l->hub = mem_zalloc(sizeof(*l->hub));
	pthread_mutex_init(&l->hub->lock, NULL);
	TAILQ_INIT(&l->hub->todo);
	TAILQ_INIT(&l->hub->done);
	l->hub->users = 1;
	l->hub->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->hub->wake < 0) {
		int errnum = errno;

		event_base_free(l->base);
		free(l->hub);
		free(l);
		return err_errno(e, errnum, "eventfd");
	}
	l->hub_ev = event_make(l, l->hub->wake, EV_READ | EV_PERSIST, on_hub, l);
	event_add(l->hub_ev, NULL);
	l->turn_ms = clock_mono_ms();
	*to = l;
	return 0;
}

void loop_freep(struct loop **to)
{
	struct loop *l = *to;

	if (!l)
		return;
	event_free(l->hub_ev);
	if (l->child_ev)
		event_free(l->child_ev);
	hub_close(l->hub);
	event_base_free(l->base);
	free(l);
	*to = NULL;
}

int loop_run(struct loop *l, struct err *e)
{
	while (!l->stop) {
		if (event_base_loop(l->base, EVLOOP_ONCE) < 0)
			return err_set(e, ERR_SYSTEM, "the event loop failed");
		l->turn_ms = clock_mono_ms();
	}
	l->stop = false; /* it may be run again, to drain */
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
	event_base_loopbreak(l->base);
}

struct event_base *loop_base(struct loop *l)
{
	return l->base;
}

uint64_t loop_last_turn_ms(const struct loop *l)
{
	return l->turn_ms;
}
