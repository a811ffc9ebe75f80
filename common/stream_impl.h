/* common/stream_impl.h - what a new kind of source or sink fills in.  stream.c keeps the promises
 * of stream.h once, so that ops can stay small. */
#ifndef COMMON_STREAM_IMPL_H
#define COMMON_STREAM_IMPL_H

#include "common/stream.h"

enum stream_state { STREAM_OPEN, STREAM_ENDED, STREAM_FAILED };

struct source_ops {
	ssize_t (*read)(struct source *s, void *buf, size_t n, struct err *e); /* 1..n, 0: end */
	void (*free)(struct source *s); /* the whole object */
};

struct source { /* first member of the implementation's own struct */
	const struct source_ops *ops;
	uint64_t pos; /* handed out so far */
	enum stream_state state;
};

struct sink_ops {
	int (*write)(struct sink *s, const void *buf, size_t n, struct err *e);
	int (*finish)(struct sink *s, struct err *e);
	void (*free)(struct sink *s); /* the whole object; unfinished: takes back what was begun */
};

struct sink {
	const struct sink_ops *ops;
	uint64_t pos;
	enum stream_state state;
};

#endif
