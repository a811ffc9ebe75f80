/* common/loop.h - one libevent loop: timers, signals, descriptors, child exits, names resolved off
 * the loop. Everything is called on the loop's thread.  A callback may free its own handle. */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct err;
struct loop;
struct loop_timer;
struct loop_later;
struct loop_fd;
struct loop_signal;
struct loop_child;
struct loop_lookup;
struct event_base; /* libevent's, for httpd and resp alone */

int loop_open(struct loop **l, struct err *e);
void loop_freep(struct loop **l);
int loop_run(struct loop *l, struct err *e); /* until loop_stop */
void loop_stop(struct loop *l);
struct event_base *loop_base(struct loop *l);
uint64_t
loop_last_turn_ms(const struct loop *l); /* CLOCK_MONOTONIC of the last turn, for /healthz */

/* after_ms from now; repeat_ms 0: once. */
struct loop_timer *loop_timer(struct loop *l, uint64_t after_ms, uint64_t repeat_ms,
			      void (*on)(void *arg), void *arg);
void loop_timer_again(struct loop_timer *t, uint64_t after_ms);
void loop_timer_freep(struct loop_timer **t);

/* Work put off to the end of the turn: called after all that is ready now was handled, however
 * often it was asked for; so what many callbacks add up goes out at once. */
struct loop_later *loop_later(struct loop *l, void (*on)(void *arg), void *arg);
void loop_later_want(struct loop_later *t);
void loop_later_freep(struct loop_later **t);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };
struct loop_fd *loop_fd(struct loop *l, int fd, int what, void (*on)(int what, void *arg),
			void *arg);
void loop_fd_want(struct loop_fd *f, int what);
void loop_fd_freep(struct loop_fd **f); /* does not close fd */

struct loop_signal *loop_signal(struct loop *l, int signo, void (*on)(int signo, void *arg),
				void *arg);
void loop_signal_freep(struct loop_signal **s);

/* Tells once when that child has ended (waitpid status).  Reaps only children that were registered.
 */
struct loop_child *loop_child(struct loop *l, pid_t pid,
			      void (*on)(pid_t pid, int status, void *arg), void *arg);
void loop_child_freep(struct loop_child **c);

/* getaddrinfo in a helper thread; n addresses, or n == 0 with `why`.  Cancelled by freeing. */
struct loop_lookup *loop_lookup(struct loop *l, const char *host, const char *port,
				void (*on)(const struct sockaddr_storage *a, const socklen_t *len,
					   size_t n, const char *why, void *arg),
				void *arg);
void loop_lookup_freep(struct loop_lookup **k);

#endif
