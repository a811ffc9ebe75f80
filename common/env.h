/* common/env.h - the only reader of the environment. */
#ifndef COMMON_ENV_H
#define COMMON_ENV_H

/* NULL when unset or empty.  Borrowed: valid until the environment changes (we never change it). */
const char *env_get(const char *name);
/* $name, or "$HOME/<below>" with HOME from the environment or the password database; NULL if
 * neither. The caller frees. */
char *env_path(const char *name, const char *below_home);
/* Calls on(name, value, arg) for each variable that starts with prefix. */
void env_each(const char *prefix, void (*on)(const char *name, const char *value, void *arg),
	      void *arg);

#endif
