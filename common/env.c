/* common/env.c - see env.h. */
#include "common/env.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/scope.h"

extern char **environ;

const char *env_get(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

char *env_path(const char *name, const char *below_home)
{
	const char *v = name ? env_get(name) : NULL, *home = env_get("HOME");
	struct passwd pw, *found = NULL;
	char text[4096];

	if (v)
		return mem_strdup(v);
	if (!home && getpwuid_r(getuid(), &pw, text, sizeof(text), &found) == 0 && found)
		home = found->pw_dir;
	return home ? mem_printf("%s/%s", home, below_home) : NULL;
}

void env_each(const char *prefix, void (*on)(const char *name, const char *value, void *arg),
	      void *arg)
{
	for (char **v = environ; *v; v++) {
		const char *eq = strchr(*v, '=');
		scoped_free char *name = NULL;

		if (!eq || strncmp(*v, prefix, strlen(prefix)) != 0)
			continue;
		name = mem_strndup(*v, (size_t)(eq - *v));
		on(name, eq + 1, arg);
	}
}
