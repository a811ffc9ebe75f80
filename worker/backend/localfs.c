/* worker/backend/localfs.c - blobs as files of one folder, for nydusd's localfs backend.
 *
 * The one place where a conversion writes a file, and only where the configuration asks for it: a
 * temporary name in the same folder, fsync, rename, fsync of the folder.  A process that was killed
 * leaves its temporary file; one that comes a day later takes it away. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/backend/backend_impl.h"

#define STALE_NS (24 * 3600 * 1000000000LL) /* no task runs that long */

struct localfs {
	struct backend b;
	int dir;
};

struct file { /* one blob being written */
	struct localfs *l;
	int fd;
	char name[BACKEND_TEMPORARY];
	uint64_t written;
};

static struct localfs *of(struct backend *b)
{
	return (struct localfs *)b;
}

/* ---- the folder */
static int make_folders(const char *dir, struct err *e)
{
	scoped_free char *path = mem_strdup(dir);

	for (char *p = path + 1;; p++) {
		char end = *p;

		if (end && end != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return err_errno(e, errno, "directory %s: cannot be made", path);
		if (!end)
			return 0;
		*p = end;
	}
}

static void remove_stale(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *x;
	struct stat st;

	while (d && (x = readdir(d)))
		if (str_starts(x->d_name, "acceld-upload-") &&
		    fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) &&
		    clock_wall_ns() - (int64_t)st.st_mtim.tv_sec * 1000000000 > STALE_NS)
			unlinkat(dirfd(d), x->d_name, 0);
	if (d)
		closedir(d);
}

int localfs_prepare(const char *dir, struct err *e)
{
	struct stat st;

	if (stat(dir, &st) < 0 && make_folders(dir, e) < 0)
		return -1;
	remove_stale(dir);
	return 0;
}

/* ---- stored blobs */
static int find(struct backend *b, const char *name, uint64_t *size, struct err *e)
{
	struct stat st;

	if (fstatat(of(b)->dir, name, &st, 0) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "look at %s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "%s is no file", name);
	*size = (uint64_t)st.st_size;
	return 1;
}

static int range(struct backend *b, const char *name, uint64_t offset, size_t n, void *to,
		 struct err *e)
{
	scoped_fd int fd = openat(of(b)->dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ERR_NOTFOUND, "no blob %s", name);
	if (fd < 0)
		return err_errno(e, errno, "open %s", name);
	for (size_t done = 0; done < n;) {
		ssize_t r = pread(fd, (char *)to + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, errno, "read %s", name);
		if (r == 0)
			return err_set(e, ERR_CORRUPT, "%s ends at byte %llu", name,
				       (unsigned long long)(offset + done));
		done += (size_t)r;
	}
	return 0;
}

/* ---- a new one */
static int create(struct backend *b, void **dest, struct err *e)
{
	struct file *f = mem_zalloc(sizeof(*f));

	f->l = of(b);
	backend_temporary(f->name);
	f->fd = openat(f->l->dir, f->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (f->fd < 0) {
		err_errno(e, errno, "create a file");
		free(f);
		return -1;
	}
	*dest = f;
	return 0;
}

static int file_write(void *dest, const void *p, size_t n, struct err *e)
{
	struct file *f = dest;

	for (size_t done = 0; done < n;) {
		ssize_t r = write(f->fd, (const char *)p + done, n - done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			err_errno(e, errno, "write");
			return err_wrap(e, "%s", f->l->b.name);
		}
		done += (size_t)r;
	}
	f->written += n;
	return 0;
}

static int put_in_place(struct file *f, const char *name, struct err *e)
{
	if (fsync(f->fd) < 0)
		return err_errno(e, errno, "write %s to the disk", name);
	if (FAULT("backend.before_commit", e) < 0)
		return -1;
	if (renameat(f->l->dir, f->name, f->l->dir, name) < 0)
		return err_errno(e, errno, "rename to %s", name);
	f->name[0] = '\0';
	return fsync(f->l->dir) < 0 ? err_errno(e, errno, "write the folder to the disk") : 0;
}

static int file_commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	struct file *f = dest;
	char name[BACKEND_NAME];
	uint64_t there = 0;
	int r;

	digest_hex(d, name);
	if (size != f->written)
		return err_set(e, ERR_BUG, "%llu bytes written, %llu committed",
			       (unsigned long long)f->written, (unsigned long long)size);
	r = find(&f->l->b, name, &there, e);
	if (r == 1 && there == size && !f->l->b.force)
		return 0; /* abort takes ours away */
	if (r < 0 || put_in_place(f, name, e) < 0)
		return err_wrap(e, "%s", f->l->b.name);
	return 0;
}

static void file_abort(void *dest)
{
	struct file *f = dest;

	if (f->name[0])
		unlinkat(f->l->dir, f->name, 0);
	close(f->fd);
	free(f);
}

static void localfs_free(struct backend *b)
{
	close(of(b)->dir);
	free(b);
}

int localfs_open(struct backend **to, const struct storage *s, struct err *e)
{
	static const struct backend_ops ops = {
		.find = find,
		.range = range,
		.create = create,
		.out = {.write = file_write, .commit = file_commit, .abort = file_abort},
		.free = localfs_free};
	struct localfs *l;
	int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return err_errno(e, errno, "directory %s: cannot be opened", s->dir);
	l = mem_zalloc(sizeof(*l));
	l->b.ops = &ops;
	l->dir = dir;
	*to = &l->b;
	return 0;
}
