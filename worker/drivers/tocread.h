/* worker/drivers/tocread.h - reads the JSON of a table of contents as it comes, whoever wrote it:
 * bounded memory, one item at a time, and into a struct toc.  All that is in it is hostile until
 * here. */
#ifndef WORKER_DRIVERS_TOCREAD_H
#define WORKER_DRIVERS_TOCREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/drivers/toc.h"
#include "worker/tar/tar_reader.h"

struct err;
struct toc_reader;

/* One object of `entries`: an entry, or (chunk) one more chunk of the file before it.  Absent
 * numbers are 0. */
struct toc_item {
	bool chunk;
	struct tar_entry entry; /* type '0'..'6'; names end in NUL, in UTF-8 */
	uint64_t offset, end_offset, inner_offset, chunk_offset, chunk_size;
	bool has_digest, has_chunk_digest, zeros;
	uint8_t digest[32], chunk_digest[32];
};

typedef int toc_on_item(void *arg, const struct toc_item *item, struct err *e);

struct toc_reader *toc_reader_new(toc_on_item *on, void *arg);
void toc_reader_freep(struct toc_reader **r);
int toc_reader_feed(struct toc_reader *r, const void *p, size_t n, struct err *e);
/* The text is complete.  tarsplit: tarSplitDigest, not set if there is none.  ERR_CORRUPT. */
int toc_reader_finish(struct toc_reader *r, struct digest *tarsplit, struct err *e);
uint64_t toc_reader_items(const struct toc_reader *r);

/* A toc_on_item that adds to a table: chunks with their offsets, each larger than the one before;
 * no name twice. */
struct toc_builder {
	struct toc *toc;
	uint64_t last_offset, file_left, file_pos;
	uint32_t id;
	bool open; /* a file whose chunks are not all told */
	uint64_t end_offset;
	uint8_t digest[32], chunk_digest[32];
	uint32_t chunks;
};
int toc_build(void *builder, const struct toc_item *item, struct err *e);
int toc_build_end(struct toc_builder *b, struct err *e);

#endif
