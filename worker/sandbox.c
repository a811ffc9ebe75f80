/* worker/sandbox.c - see sandbox.h. */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/config.h"
#include "common/err.h"
#include "common/scope.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

static int limit(int what, rlim_t value, const char *name, struct err *e)
{
	struct rlimit l = {value, value}, now;

	if (getrlimit(what, &now) == 0 && now.rlim_max < value)
		l.rlim_cur = l.rlim_max = now.rlim_max;
	return setrlimit((__rlimit_resource_t)what, &l) < 0 ? err_errno(e, errno, "limit %s", name)
							    : 0;
}

static bool regular(int fd)
{
	struct stat s;

	return fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
}

static int limits(const struct sandbox *s, struct err *e)
{
	if (limit(RLIMIT_CORE, 0, "core", e) < 0)
		return -1;
	/* The log may go to a file that was opened for us; then writing must stay possible. */
	if (!regular(STDOUT_FILENO) && !regular(STDERR_FILENO) &&
	    limit(RLIMIT_FSIZE, s->n_folders ? s->file_bytes : 0, "fsize", e) < 0)
		return -1;
	/* A sanitizer's shadow memory takes terabytes of address space. */
	if (!SANITIZED && limit(RLIMIT_AS, 2 * s->memory + (256u << 20), "as", e) < 0)
		return -1;
	return s->cpu_seconds ? limit(RLIMIT_CPU, s->cpu_seconds, "cpu", e) : 0;
}

#define READ_FILE LANDLOCK_ACCESS_FS_READ_FILE
#define READ_DIR LANDLOCK_ACCESS_FS_READ_DIR
#define ALL_FS                                                                                     \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | READ_FILE | READ_DIR |       \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |                              \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                              \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                            \
	 LANDLOCK_ACCESS_FS_MAKE_SYM)

#define WRITE_BELOW                                                                                \
	(READ_FILE | READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |      \
	 LANDLOCK_ACCESS_FS_REMOVE_FILE)

/* Access below `path`; a path that is not there is nothing to allow. */
static void allow_as(int rules, const char *path, uint64_t folder_access)
{
	scoped_fd int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;
	struct landlock_path_beneath_attr a = {.parent_fd = fd};
	struct stat s;

	if (fd < 0 || fstat(fd, &s) < 0)
		return;
	a.allowed_access = S_ISDIR(s.st_mode) ? folder_access : READ_FILE;
	syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0);
}

static void allow(int rules, const char *path)
{
	allow_as(rules, path, READ_FILE | READ_DIR);
}

/* What resolving a name, checking a certificate and counting CPUs read, and nothing that holds a
 * secret of ours but the client key of a source of this very request. */
static void allow_needed(int rules, const struct settings *s)
{
	static const char *const paths[] = {
		"/etc/resolv.conf",
		"/etc/hosts",
		"/etc/host.conf",
		"/etc/nsswitch.conf",
		"/etc/gai.conf",
		"/etc/services",
		"/etc/ssl/certs",
		"/etc/ssl/openssl.cnf",
		"/etc/ca-certificates",
		"/usr/share/ca-certificates",
		"/usr/lib/ssl",
		"/usr/lib",
		"/lib",
		"/lib64",
		"/usr/local/share/ca-certificates",
		"/etc/ld.so.cache",
		"/run/systemd/resolve",
		"/run/resolvconf",
		"/sys/fs/cgroup",
		"/proc/self",
		"/sys/devices/system/cpu",
		"/dev/urandom",
		"/dev/null",
		"/etc/localtime",
		"/usr/share/zoneinfo",
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		allow(rules, paths[i]);
	for (size_t i = 0; i < s->n_sources; i++) {
		allow(rules, s->source[i].ca_file);
		allow(rules, s->source[i].cert_file);
		allow(rules, s->source[i].key_file);
	}
}

/* false: this kernel has no Landlock. */
static bool landlock(const struct sandbox *box, const struct settings *s, struct err *e, int *rc)
{
	struct landlock_ruleset_attr a = {.handled_access_fs = ALL_FS};
	scoped_fd int rules = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);

	*rc = 0;
	if (rules < 0)
		return false;
	allow_needed(rules, s);
	for (size_t i = 0; i < box->n_folders; i++)
		allow_as(rules, box->folder[i], WRITE_BELOW);
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		*rc = err_errno(e, errno, "landlock");
	return true;
}

#ifdef OUR_ARCH
#define DENY(nr)                                                                                   \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1),                                           \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

static int seccomp(struct err *e)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __x86_64__ /* x32 calls of the same numbers */
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
#endif
		DENY(SYS_execve),
		DENY(SYS_execveat),
		DENY(SYS_ptrace),
		DENY(SYS_process_vm_readv),
		DENY(SYS_process_vm_writev),
		DENY(SYS_memfd_create),
		DENY(SYS_mount),
		DENY(SYS_bpf),
		DENY(SYS_perf_event_open),
		DENY(SYS_userfaultfd),
		DENY(SYS_keyctl),
		DENY(SYS_add_key),
		DENY(SYS_unshare),
		DENY(SYS_setns),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(*code), .filter = code};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return err_errno(e, errno, "seccomp");
	return 0;
}
#endif

void sandbox_fini(struct sandbox *s)
{
	for (size_t i = 0; i < s->n_folders; i++)
		free(s->folder[i]);
	s->n_folders = 0;
}

int sandbox_enter(const struct sandbox *s, const struct settings *files_of, const char **missing,
		  struct err *e)
{
	int rc = 0;

	*missing = NULL;
	/* LeakSanitizer stops the process with ptrace to look at it: under a sanitizer it stays
	 * dumpable. */
	if (!SANITIZED)
		prctl(PR_SET_DUMPABLE, 0);
	if (limits(s, e) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "no_new_privs");
	if (SANITIZED)
		return 0; /* it reads /proc and its symbolizer, and clones with ptrace at the end */
	if (!landlock(s, files_of, e, &rc))
		*missing = "landlock";
	if (rc < 0)
		return -1;
#ifdef OUR_ARCH
	return seccomp(e);
#else
	*missing = "seccomp";
	return 0;
#endif
}
