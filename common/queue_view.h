/* common/queue_view.h - a task as the queue's scripts show it (`view` in queue/lib.lua) becomes a
 * struct task.  What is in it came from outside once: texts are cleaned, JSON that cannot be read
 * is left out. */
#ifndef COMMON_QUEUE_VIEW_H
#define COMMON_QUEUE_VIEW_H

struct err;
struct reply;
struct task;

/* t is overwritten; task_fini it even so.  ERR_BUG: v is no view. */
int queue_view_read(struct task *t, const struct reply *v, struct err *e);
/* t->detail, of a reply [view, attempts, result]. */
void queue_view_detail(struct task *t, const struct reply *r);

#endif
