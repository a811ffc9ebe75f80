/* worker/sandbox.h - what a task process gives up before it reads a byte of an image.
 *
 * An image is hostile input.  The process that unpacks it has no Redis connection, only the
 * credentials that its request needs, and after this call: no new privileges, no core, no ptrace,
 * no exec, bounded memory and processor time, no file but those that resolving names and checking
 * certificates need, and none for writing. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdint.h>

struct err;
struct settings;

struct sandbox {
	uint64_t memory; /* bytes of worker.memory: the address space gets twice that + 256 MiB */
	uint64_t cpu_seconds; /* 0: no bound */
};
/* Called by the only thread.  What the kernel lacks (Landlock before 5.13) is left out; *missing
 * names it, or is NULL. */
int sandbox_enter(const struct sandbox *s, const struct settings *files_of, const char **missing,
		  struct err *e);

#endif
