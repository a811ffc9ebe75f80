/* common/stream.c - the promises of stream.h are kept here, once. */
#include "common/stream.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream_impl.h"

ssize_t source_read(struct source *s, void *buf, size_t n, struct err *e)
{
	size_t got = 0;

	assert(s->state != STREAM_FAILED); /* or a retry would look like a clean end */
	while (got < n && s->state == STREAM_OPEN) {
		ssize_t r = s->ops->read(s, (char *)buf + got, n - got, e);

		assert(r <= (ssize_t)(n - got));
		if (r > 0)
			got += (size_t)r;
		else
			s->state = r == 0 ? STREAM_ENDED : STREAM_FAILED;
	}
	s->pos += got;
	return s->state == STREAM_FAILED ? -1 : (ssize_t)got;
}

uint64_t source_pos(const struct source *s)
{
	return s->pos;
}

void source_freep(struct source **s)
{
	if (*s)
		(*s)->ops->free(*s);
	*s = NULL;
}

int sink_write(struct sink *s, const void *buf, size_t n, struct err *e)
{
	assert(s->state == STREAM_OPEN);
	if (n == 0)
		return 0;
	if (s->ops->write(s, buf, n, e) < 0) {
		s->state = STREAM_FAILED;
		return -1;
	}
	s->pos += n;
	return 0;
}

int sink_finish(struct sink *s, struct err *e)
{
	int r;

	assert(s->state == STREAM_OPEN);
	r = s->ops->finish ? s->ops->finish(s, e) : 0;
	s->state = r < 0 ? STREAM_FAILED : STREAM_ENDED;
	return r;
}

bool sink_is_open(const struct sink *s)
{
	return s->state == STREAM_OPEN;
}

uint64_t sink_pos(const struct sink *s)
{
	return s->pos;
}

void sink_freep(struct sink **s)
{
	if (*s)
		(*s)->ops->free(*s);
	*s = NULL;
}

int stream_copy(struct sink *to, struct source *from, uint64_t *bytes, struct err *e)
{
	enum { PIECE = 256 << 10 };
	scoped_free char *p = mem_alloc(PIECE);
	uint64_t sum = 0;
	ssize_t n;

	while ((n = source_read(from, p, PIECE, e)) > 0) {
		if (sink_write(to, p, (size_t)n, e) < 0)
			return -1;
		sum += (uint64_t)n;
		if (n < PIECE)
			break;
	}
	if (n < 0)
		return -1;
	if (bytes)
		*bytes = sum;
	return 0;
}

/* ---- memory */
struct memory_source {
	struct source s;
	const char *p;
	size_t n;
};

static ssize_t memory_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct memory_source *m = (struct memory_source *)s;

	if (n > m->n)
		n = m->n;
	if (n)
		memcpy(buf, m->p, n);
	m->p += n;
	m->n -= n;
	return (ssize_t)n;
}

static void plain_free(struct source *s)
{
	free(s);
}

struct source *source_from_memory(const void *p, size_t n)
{
	static const struct source_ops ops = {memory_read, plain_free};
	struct memory_source *m = mem_zalloc(sizeof(*m));

	m->s.ops = &ops;
	m->p = p;
	m->n = n;
	return &m->s;
}

/* ---- descriptors */
struct fd_source {
	struct source s;
	int fd;
};

static ssize_t fd_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct fd_source *f = (struct fd_source *)s;
	ssize_t r;

	do
		r = read(f->fd, buf, n);
	while (r < 0 && errno == EINTR);
	return r < 0 ? err_errno(e, errno, "read") : r;
}

static void fd_source_free(struct source *s)
{
	struct fd_source *f = (struct fd_source *)s;

	close(f->fd);
	free(f);
}

struct source *source_from_fd(int fd)
{
	static const struct source_ops ops = {fd_read, fd_source_free};
	struct fd_source *f = mem_zalloc(sizeof(*f));

	f->s.ops = &ops;
	f->fd = fd;
	return &f->s;
}

struct fd_sink {
	struct sink s;
	int fd;
};

static int fd_write(struct sink *s, const void *buf, size_t n, struct err *e)
{
	struct fd_sink *f = (struct fd_sink *)s;
	const char *p = buf;

	while (n > 0) {
		ssize_t r = write(f->fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, errno, "write");
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

static int fd_finish(struct sink *s, struct err *e)
{
	struct fd_sink *f = (struct fd_sink *)s;

	if (close(take_fd(&f->fd)) < 0)
		return err_errno(e, errno, "close");
	return 0;
}

static void fd_sink_free(struct sink *s)
{
	struct fd_sink *f = (struct fd_sink *)s;

	scope_closep(&f->fd);
	free(f);
}

struct sink *sink_to_fd(int fd)
{
	static const struct sink_ops ops = {fd_write, fd_finish, fd_sink_free};
	struct fd_sink *f = mem_zalloc(sizeof(*f));

	f->s.ops = &ops;
	f->fd = fd;
	return &f->s;
}

struct buf_sink {
	struct sink s;
	struct buf *b;
};

static int buf_write(struct sink *s, const void *buf, size_t n, struct err *e)
{
	return buf_add(((struct buf_sink *)s)->b, buf, n, e);
}

static void buf_sink_free(struct sink *s)
{
	free(s);
}

struct sink *sink_to_buf(struct buf *b)
{
	static const struct sink_ops ops = {buf_write, NULL, buf_sink_free};
	struct buf_sink *k = mem_zalloc(sizeof(*k));

	k->s.ops = &ops;
	k->b = b;
	return &k->s;
}

/* ---- verification */
struct verify_source {
	struct source s;
	struct source *from;
	struct hasher *h;
	struct digest want;
	uint64_t size, seen;
};

static int verify_end(struct verify_source *v, struct err *e)
{
	char a[DIGEST_TEXT], b[DIGEST_TEXT];
	struct digest got;

	if (v->size != UINT64_MAX && v->seen != v->size)
		return err_set(e, ERR_CORRUPT,
			       "delivered %" PRIu64 " bytes, the descriptor says %" PRIu64, v->seen,
			       v->size);
	hasher_final(v->h, &got);
	if (!digest_eq(&got, &v->want))
		return err_set(e, ERR_CORRUPT, "delivered %s for %s (%" PRIu64 " bytes)",
			       digest_text(&got, a), digest_text(&v->want, b), v->seen);
	return 0;
}

static ssize_t verify_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct verify_source *v = (struct verify_source *)s;
	ssize_t r = source_read(v->from, buf, n, e);

	if (r < 0)
		return -1;
	if (r == 0)
		return verify_end(v, e);
	v->seen += (uint64_t)r;
	if (v->seen > v->size)
		return err_set(e, ERR_CORRUPT,
			       "delivered more than the %" PRIu64 " bytes that the descriptor says",
			       v->size);
	hasher_update(v->h, buf, (size_t)r);
	return r;
}

static void verify_free(struct source *s)
{
	struct verify_source *v = (struct verify_source *)s;

	source_freep(&v->from);
	hasher_freep(&v->h);
	free(v);
}

struct source *source_verify(struct source **from, const struct digest *want, uint64_t size)
{
	static const struct source_ops ops = {verify_read, verify_free};
	struct verify_source *v = mem_zalloc(sizeof(*v));

	v->s.ops = &ops;
	v->from = take_ptr(*from);
	v->want = *want;
	v->size = size;
	v->h = hasher_new(want->alg);
	return &v->s;
}
