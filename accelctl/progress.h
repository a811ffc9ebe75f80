/* accelctl/progress.h - how far a conversion is: a line per layer, redrawn on a terminal; otherwise
 * one log line for each change of state, and at most one per layer in 5 s. */
#ifndef ACCELCTL_PROGRESS_H
#define ACCELCTL_PROGRESS_H

#include <stddef.h>

#include "worker/convert/convert.h"

enum progress_mode { PROGRESS_AUTO, PROGRESS_TTY, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };
int progress_mode_parse(const char *text, enum progress_mode *m, struct err *e);

struct progress;
struct progress *progress_new(enum progress_mode m);
void progress_layer(struct progress *p, const struct layer_progress *l,
		    const struct convert_progress *all);
/* Takes the lines off the screen, so that a log line can be written. */
void progress_clear(struct progress *p);
void progress_freep(struct progress **p);

/* "12.3 MB": powers of 1000, three digits. */
const char *progress_size(uint64_t bytes, char text[24]);

#endif
