/* worker/drivers/priority.h - which entries of a layer go first: the listed paths, their parents,
 * the targets of listed hard links, and what must not change places with them. */
#ifndef WORKER_DRIVERS_PRIORITY_H
#define WORKER_DRIVERS_PRIORITY_H

#include <stdbool.h>

struct err;
struct tar_entry;
struct priority;

struct priority *priority_new(const char *paths); /* one a line */
void priority_freep(struct priority **p);
int priority_see(struct priority *p, const struct tar_entry *entry,
		 struct err *e); /* each entry, in order */
/* After all of them: true when a listed path is there. */
bool priority_settle(struct priority *p);
bool priority_first(struct priority *p, const char *name);

#endif
