/* What a task process may still write: nothing, or below the folders of its localfs backends. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "worker/sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* then sandbox_enter leaves the file system open */
#else
#define SANITIZED 0
#endif

enum { OPEN = 1, ELSEWHERE = 2, LARGE = 4, RENAMED = 8, FAILED = 64, MISSING = 65 };

static int try_all(const char *folder, const char *elsewhere)
{
	char path[128], to[128];
	int fd, got = 0;

	snprintf(path, sizeof(path), "%s/a", folder);
	snprintf(to, sizeof(to), "%s/b", folder);
	signal(SIGXFSZ, SIG_IGN);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd >= 0 && write(fd, "12345678", 8) == 8)
		got |= OPEN;
	if (fd >= 0 && pwrite(fd, "x", 1, 4096) == 1)
		got |= LARGE;
	if (fd >= 0 && rename(path, to) == 0)
		got |= RENAMED;
	snprintf(path, sizeof(path), "%s/a", elsewhere);
	if (open(path, O_WRONLY | O_CREAT | O_EXCL, 0644) >= 0)
		got |= ELSEWHERE;
	return got;
}

/* In a process of its own, since it cannot be undone. */
static int what_works(bool with_folder)
{
	char folder[] = "/tmp/accel-sandbox-XXXXXX", elsewhere[] = "/tmp/accel-sandbox-XXXXXX";
	char path[128];
	int status = 0;
	pid_t pid;

	if (SANITIZED)
		skip();
	assert_non_null(mkdtemp(folder));
	assert_non_null(mkdtemp(elsewhere));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct settings *s = settings_default();
		struct sandbox box = {.memory = 256u << 20};
		const char *missing = NULL;
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDOUT_FILENO); /* a log in a regular file lifts the bound on size */
		dup2(null, STDERR_FILENO);
		if (with_folder) {
			box.folder[box.n_folders++] = mem_strdup(folder);
			box.file_bytes = 4096;
		}
		if (sandbox_enter(&box, s, &missing, NULL) < 0)
			_exit(FAILED);
		_exit(missing ? MISSING : try_all(folder, elsewhere));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%c", i & 1 ? folder : elsewhere,
			 i & 2 ? 'a' : 'b');
		unlink(path);
	}
	rmdir(folder);
	rmdir(elsewhere);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == MISSING)
		skip(); /* a kernel without Landlock */
	return WEXITSTATUS(status);
}

static void a_task_process_writes_no_file(void **state)
{
	assert_int_equal(what_works(false), 0);
}

static void a_localfs_backend_opens_its_folder_alone(void **state)
{
	assert_int_equal(what_works(true), OPEN | RENAMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_task_process_writes_no_file),
		cmocka_unit_test(a_localfs_backend_opens_its_folder_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
