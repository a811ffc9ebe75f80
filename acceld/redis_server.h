/* acceld/redis_server.h - the private redis-server of a one-machine installation.
 *
 * Its configuration goes to its standard input, so that the password is in no process list, no file
 * and no environment.  It listens on a unix socket (0600, in a directory of mode 0700) and nowhere
 * else. */
#ifndef ACCELD_REDIS_SERVER_H
#define ACCELD_REDIS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct settings;
struct redis_server;

/* Takes the lock of work_dir (ERR_BUSY names the process that holds it), makes its folders, checks
 * that there is a redis-server of version 7 or newer (ERR_UNSUPPORTED).  *r is to be freed on
 * failure too. */
int redis_server_prepare(struct redis_server **r, const struct settings *s, struct err *e);
const char *redis_server_socket(const struct redis_server *r);
const char *
redis_server_password(const struct redis_server *r); /* 64 hex digits; for a pipe alone */
/* argv for child_start, and the text for its standard input. */
char *const *redis_server_argv(const struct redis_server *r);
const char *redis_server_config(const struct redis_server *r, size_t *n);
void redis_server_freep(struct redis_server **r); /* gives the lock back */

/* "12:M 24 Nov 2026 15:16:00.730 * Ready to accept connections" -> a line of our log, module=redis.
 */
void redis_server_log_line(const char *line);

#endif
