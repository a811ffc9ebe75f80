/* worker/sandbox.h - what a task process gives up before it reads a byte of an image.
 *
 * An image is hostile input.  The process that unpacks it has no Redis connection, only the
 * credentials that its request needs, and after this call: no new privileges, no core, no ptrace,
 * no exec, bounded memory and processor time, no file but those that resolving names and checking
 * certificates need, and none for writing.
 *
 * The one exception to "a conversion writes no file": a target of the request with backend_type
 * localfs, whose folder this worker's own configuration names.  Then, and only then, RLIMIT_FSIZE
 * is file_bytes instead of 0, and Landlock allows files below those folders to be made, written,
 * renamed and removed; everywhere else stays closed.  (A kernel without Landlock keeps only the
 * bound on size, as `missing` says.) */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct settings;

#define SANDBOX_FOLDERS 8

struct sandbox {
	uint64_t memory; /* bytes of worker.memory: the address space gets twice that + 256 MiB */
	uint64_t cpu_seconds;	       /* 0: no bound */
	char *folder[SANDBOX_FOLDERS]; /* stay writable; owned */
	size_t n_folders;
	uint64_t file_bytes; /* with folders: no file grows over it */
};
void sandbox_fini(struct sandbox *s);
/* Called by the only thread.  What the kernel lacks (Landlock before 5.13) is left out; *missing
 * names it, or is NULL. */
int sandbox_enter(const struct sandbox *s, const struct settings *files_of, const char **missing,
		  struct err *e);

#endif
