/* worker/taskproc.h - the task process: start packet -> convert -> result, over the socket pair on
 * descriptor 3.
 *
 * Its main thread reads what the supervisor says; the conversion runs in a second one.  Losing the
 * supervisor ends it. */
#ifndef WORKER_TASKPROC_H
#define WORKER_TASKPROC_H

/* The whole life of `accel-worker --task`; the exit status. */
int taskproc_main(void);

#endif
