/* acceld/child.h - one program kept running: started, its output taken, started again with backoff
 * when it dies. */
#ifndef ACCELD_CHILD_H
#define ACCELD_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;
struct loop;
struct child;

struct child_opts {
	const char *name;  /* for the log */
	const char *path;  /* looked up in PATH if it has no '/' */
	char *const *argv; /* borrowed for the child's life */
	const char *input; /* given on standard input, which is then closed; or NULL: /dev/null */
	size_t input_n;
	const char *secret;		   /* given on descriptor 3 through a pipe; or NULL */
	void (*on_line)(const char *line); /* each line of its output; NULL: its stdout and stderr
					      are ours */
	/* It ended.  settled: it lived for 3 s at least once.  Returning true gives up on it. */
	bool (*on_exit)(const struct child_opts *o, int status, bool settled, void *arg);
	void *arg;
};

/* The child dies with us (PR_SET_PDEATHSIG). */
int child_start(struct child **c, struct loop *l, const struct child_opts *o, struct err *e);
void child_signal(struct child *c, int signo); /* if it runs; c may be NULL */
void child_stop(struct child *c, int signo);   /* and never start it again */
bool child_running(const struct child *c);
pid_t child_pid(const struct child *c);
void child_freep(struct child **c); /* kills what still runs */

#endif
