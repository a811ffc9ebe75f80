/* common/stream.h - bytes move one way: pulled from a source, pushed into a sink.
 * Sizes are bytes.  A failed call returns -1 with *e filled; after it, only free may follow. */
#ifndef COMMON_STREAM_H
#define COMMON_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct source; /* opaque to all who only read or write */
struct sink;
struct digest;
struct buf;

ssize_t source_read(struct source *s, void *buf, size_t n, struct err *e); /* short: the end */
uint64_t source_pos(const struct source *s);				   /* handed out so far */
void source_freep(struct source **s); /* frees what is there, leaves NULL */

int sink_write(struct sink *s, const void *buf, size_t n, struct err *e); /* all of it */
int sink_finish(struct sink *s, struct err *e); /* once, last: writes the trailer, commits */
uint64_t sink_pos(const struct sink *s);
bool sink_is_open(const struct sink *s); /* neither finished nor failed */
void sink_freep(struct sink **s);	 /* the same; unfinished: publishes nothing */

int stream_copy(struct sink *to, struct source *from, uint64_t *bytes,
		struct err *e); /* not finished */

/* The kinds that need nothing else. */
struct source *source_from_memory(const void *p, size_t n); /* borrowed: p outlives it */
struct source *source_from_fd(int fd);			    /* takes fd */
struct sink *sink_to_fd(int fd);			    /* takes fd */
struct sink *sink_to_buf(struct buf *b);		    /* borrowed: b outlives it */

/* Takes *from.  Passes bytes on; at the end (and on every read past it) size and digest must match
 * the expected ones, or ERR_CORRUPT: "delivered sha256:A for sha256:B (N bytes)".  size UINT64_MAX:
 * any. */
struct source *source_verify(struct source **from, const struct digest *want, uint64_t size);

#endif
