/* common/secret.h - a password from a file or a value: compared in constant time, wiped, never
 * printed. There is no function that formats one, on purpose. */
#ifndef COMMON_SECRET_H
#define COMMON_SECRET_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct secret;

struct secret *secret_new(const char *value, size_t n);
/* At most 64 KiB; one trailing newline (LF or CRLF) is cut. */
struct secret *secret_from_file(const char *path, struct err *e);
/* The same for a file that a configuration names: a name without a slash is looked for among
 * systemd's credentials first. */
struct secret *secret_from_config(const char *path, struct err *e);
struct secret *secret_dup(const struct secret *s); /* NULL gives NULL */
void secret_freep(struct secret **s);		   /* wipes */
const char *secret_value(const struct secret *s);  /* NUL-terminated; borrowed; for the wire only */
size_t secret_len(const struct secret *s);
/* Constant time in the contents; a NULL secret equals nothing. */
bool secret_eq(const struct secret *s, const char *value, size_t n);
/* SHA-256 of `value` equals the 64 hex digits of `hex`, in constant time. */
bool secret_matches_sha256(const char *value, size_t n, const char *hex);
void secret_wipe(void *p, size_t n); /* not optimised away */

#endif
