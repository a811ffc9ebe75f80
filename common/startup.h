/* common/startup.h - what each of our programs does first: version line, options, configuration
 * with every problem told. */
#ifndef COMMON_STARTUP_H
#define COMMON_STARTUP_H

#include <stdbool.h>

struct err;
struct settings;
struct secret;

/* "v0.1.0 COMMIT.DATE" */
const char *startup_version(void);
/* `Version: ...` at info, as upstream's programs begin. */
void startup_log_version(void);
/* Every problem as one line, warnings as warnings.  NULL when there is a fatal one. Sets up the log
 * as configured. */
struct settings *startup_config(const char *path);
/* level=fatal and exit status 1. */
void startup_fatal(const struct err *e) __attribute__((noreturn));
/* The first line of a secret from an inherited descriptor, which is closed: for
 * --redis-password-fd. */
struct secret *startup_secret_fd(int fd, struct err *e);
/* Die when the parent does (children of acceld): PR_SET_PDEATHSIG. */
void startup_die_with_parent(void);
/* No core files of us, no ptrace: secrets are in memory. */
void startup_not_dumpable(void);

#endif
