/* common/platform.h - os/architecture[/variant], as containerd's platforms package reads and
 * normalises it. */
#ifndef COMMON_PLATFORM_H
#define COMMON_PLATFORM_H

#include <stdbool.h>

struct err;

/* Platforms: "linux/amd64,linux/arm64/v8", as containerd parses them; sorted, each once, or "". */
int platforms_normalize(const char *text, char **sorted, struct err *e);
/* platforms "" matches every one.  variant and os_version may be "". */
bool platforms_match(const char *platforms, const char *os, const char *arch, const char *variant);

#endif
