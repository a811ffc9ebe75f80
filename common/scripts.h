/* common/scripts.h - the Lua scripts of common/queue/, part of the program.  Each is lib.lua and
 * then its own file; the line in front tells Redis what the script may do when memory is full. */
#ifndef COMMON_SCRIPTS_H
#define COMMON_SCRIPTS_H

#include <stddef.h>

enum { SCRIPTS = 20 };

struct script {
	const char *name; /* "claim" */
	const char *text; /* NUL-terminated */
};
extern const struct script scripts[SCRIPTS];

int script_find(const char *name);		  /* its index, or -1 */
void script_sha1(const char *text, char hex[41]); /* what EVALSHA calls it */

#endif
