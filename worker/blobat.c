/* worker/blobat.c - see blobat.h. */
#include "worker/blobat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"
#include "worker/registry/registry.h"

#define WINDOW (1u << 20)
#define RANGE_MAX (64u << 20) /* blob_range's own bound */

static int past_end(const struct blob_at *b, uint64_t offset, size_t n, struct err *e)
{
	if (offset <= b->size && n <= b->size - offset)
		return 0;
	return err_set(e, ERR_CORRUPT, "bytes %llu to %llu are wanted, the blob has %llu",
		       (unsigned long long)offset, (unsigned long long)(offset + n),
		       (unsigned long long)b->size);
}

/* ---- a registry's */
static int range(struct blobat_registry *b, uint64_t offset, void *to, size_t n, struct err *e)
{
	for (size_t done = 0; done < n;) {
		size_t piece = n - done < RANGE_MAX ? n - done : RANGE_MAX;

		if (blob_range(b->registry, b->repository, &b->digest, offset + done, piece,
			       (char *)to + done, e) < 0)
			return -1;
		done += piece;
	}
	return 0;
}

static int registry_read(struct blob_at *at, uint64_t offset, void *to, size_t n, struct err *e)
{
	struct blobat_registry *b = (struct blobat_registry *)at;

	if (past_end(at, offset, n, e) < 0)
		return -1;
	if (offset >= b->from && offset + n <= b->from + b->n) {
		memcpy(to, b->window + (offset - b->from), n);
		return 0;
	}
	if (n >= WINDOW)
		return range(b, offset, to, n, e);
	if (!b->window)
		b->window = mem_alloc(WINDOW);
	b->n = 0;
	b->from = offset;
	if (b->from + WINDOW > at->size &&
	    !b->ahead) /* readers look at the end first: footer, index */
		b->from = at->size > WINDOW ? at->size - WINDOW : 0;
	b->n = at->size - b->from < WINDOW ? (size_t)(at->size - b->from) : WINDOW;
	if (range(b, b->from, b->window, b->n, e) < 0) {
		b->n = 0;
		return -1;
	}
	memcpy(to, b->window + (offset - b->from), n);
	return 0;
}

void blobat_registry_init(struct blobat_registry *b, struct registry *r, const char *repository,
			  const struct descriptor *d)
{
	memset(b, 0, sizeof(*b));
	b->at.size = d->size;
	b->at.read = registry_read;
	b->registry = r;
	b->repository = repository;
	b->digest = d->digest;
}

void blobat_registry_fini(struct blobat_registry *b)
{
	free(b->window);
	b->window = NULL;
	b->n = 0;
}

/* ---- memory */
static int memory_read(struct blob_at *at, uint64_t offset, void *to, size_t n, struct err *e)
{
	if (past_end(at, offset, n, e) < 0)
		return -1;
	memcpy(to, ((struct blobat_memory *)at)->p + offset, n);
	return 0;
}

void blobat_memory_init(struct blobat_memory *b, const void *p, size_t n)
{
	memset(b, 0, sizeof(*b));
	b->at.size = n;
	b->at.read = memory_read;
	b->p = p;
}

/* ---- a file */
static int file_read(struct blob_at *at, uint64_t offset, void *to, size_t n, struct err *e)
{
	const struct blobat_file *b = (struct blobat_file *)at;

	if (past_end(at, offset, n, e) < 0)
		return -1;
	for (size_t done = 0; done < n;) {
		ssize_t r = pread(b->fd, (char *)to + done, n - done, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, errno, "read");
		if (r == 0)
			return err_set(e, ERR_CORRUPT, "the file ends at byte %llu",
				       (unsigned long long)(offset + done));
		done += (size_t)r;
	}
	return 0;
}

int blobat_file_init(struct blobat_file *b, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat");
	memset(b, 0, sizeof(*b));
	b->at.size = (uint64_t)st.st_size;
	b->at.read = file_read;
	b->fd = fd;
	return 0;
}
