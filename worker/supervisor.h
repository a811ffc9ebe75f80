/* worker/supervisor.h - claims tasks, holds their leases, starts and reaps their processes, reports
 * their outcome, drains. One thread, one loop, all Redis traffic of the worker; two connections
 * (commands; blocking reads). */
#ifndef WORKER_SUPERVISOR_H
#define WORKER_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;
struct loop;
struct settings;
struct supervisor;

struct supervisor_opts {
	bool publish_metrics; /* under acceld: the metrics' text goes to Redis, for the API server's
				 page */
};

/* Borrows l; takes *s. */
int supervisor_open(struct supervisor **v, struct loop *l, struct settings **s,
		    const struct supervisor_opts *o, struct err *e);
void supervisor_freep(struct supervisor **v);
/* Takes *s: running tasks keep what they were started with. */
void supervisor_reload(struct supervisor *v, struct settings **s);
/* First call: claim nothing more, let run what ends within drain_timeout, then give back.  Second
 * call: give back now. The loop is stopped when nothing is left. */
void supervisor_drain(struct supervisor *v);
/* It can claim; else why not (static or valid until the next turn). */
bool supervisor_ready(const struct supervisor *v, const char **why);
void supervisor_status(const struct supervisor *v, struct buf *json); /* for /readyz */
int supervisor_metrics(struct supervisor *v, struct buf *to, struct err *e);

#endif
