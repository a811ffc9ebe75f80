/* worker/tar/tar_header.h - one 512-byte header block, and the records of a PAX header, as plain
 * values. What is taken and what refused is what Go's archive/tar takes and refuses: images pass
 * through it everywhere. */
#ifndef WORKER_TAR_TAR_HEADER_H
#define WORKER_TAR_TAR_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

struct tar_text { /* borrowed from the block or the records; no NUL at its end */
	const char *p;
	size_t n;
};

struct tar_block { /* one header block, decoded */
	enum tar_format { TAR_V7, TAR_USTAR, TAR_STAR, TAR_GNU } format;
	char type; /* as it stands, NUL included */
	struct tar_text prefix, name, link, user, group;
	int64_t mode, uid, gid, size, mtime, dev_major, dev_minor;
	bool has_atime, has_ctime;
	int64_t atime, ctime;
};

bool tar_block_is_zero(const uint8_t block[512]);
/* ERR_CORRUPT: checksum (signed or unsigned sums are taken), or a number that is none. */
int tar_block_decode(struct tar_block *h, const uint8_t block[512], struct err *e);

/* Octal, or base-256 in two's complement; false: neither, or too large. */
bool tar_number(const uint8_t *field, size_t n, int64_t *v);
/* Decimal with an optional sign, nothing else. */
bool tar_decimal(struct tar_text t, int64_t *v);
/* "-1.5" is second -2, nanosecond 500000000. */
bool tar_time(struct tar_text t, int64_t *seconds, uint32_t *ns);

/* Old GNU sparse maps.  entries at most: 4 in a header (at byte 386), 21 in an extension block. */
struct tar_span {
	uint64_t offset, n;
};
#define TAR_GNU_SPARSE_AT 386u
#define TAR_GNU_SPARSE_HEAD 4u
#define TAR_GNU_SPARSE_MORE 21u
/* Reads up to most entries to spans; -1 with words.  *more: an extension block follows. */
int tar_gnu_spans(const uint8_t *at, size_t most, struct tar_span *spans, bool *more,
		  struct err *e);
bool tar_gnu_real_size(const uint8_t block[512], int64_t *size);

/* The next record of a PAX header's bytes: 1, 0 at the end, -1.  Moves *rest on. */
int tar_pax_next(struct tar_text *rest, struct tar_text *key, struct tar_text *value,
		 struct err *e);

bool tar_utf8(struct tar_text t); /* RFC 3629 */

#endif
