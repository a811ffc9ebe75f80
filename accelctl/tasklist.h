/* accelctl/tasklist.h - the list of tasks as people see it: upstream's table, byte for byte, and
 * its words for an answer that is no list. */
#ifndef ACCELCTL_TASKLIST_H
#define ACCELCTL_TASKLIST_H

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct err;
struct json;

/* Checks what upstream's client checks: an array of tasks, sizes plain numbers, times RFC 3339. */
int tasklist_decode(struct json **list, const char *body, size_t n, struct err *e);
/* ID CREATED STATUS SOURCE REASON; wide adds our fields after them.  Foreign text is cleaned. */
void tasklist_table(const struct json *list, bool wide, bool header, struct buf *to);

#endif
