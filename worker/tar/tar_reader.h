/* worker/tar/tar_reader.h - a layer's tar as pieces: header, data, padding, trailer, with the exact
 * bytes of each.
 *
 * ustar, GNU (L, K, base-256 numbers, old sparse S), PAX (x, g; SCHILY.xattr.*, GNU.sparse 0.0,
 * 0.1, 1.0), type '7' as '0', NUL type as '0' (or '5' when the name ends in '/').  Every raw byte
 * of the input appears in exactly one piece, in order, so raw bytes concatenated are the tar again;
 * holes of sparse files have raw == NULL. A `g` record is shown as a TAR_HEADER piece whose entry
 * has type 'g' and is not applied, as Go does. Bytes after the end marker are TAR_TRAILER too.  A
 * tar that ends without its marker is accepted (Go does), in the middle of an entry is ERR_CORRUPT.
 * Bounds: entries, bytes of names and xattrs (struct tar_limits). */
#ifndef WORKER_TAR_TAR_READER_H
#define WORKER_TAR_TAR_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct source;
struct tar_reader;

struct tar_xattr {
	const char *name; /* without SCHILY.xattr. */
	const void *value;
	size_t n;
};

struct tar_entry {
	char type;	  /* '0' '1' '2' '3' '4' '5' '6', or 'g' */
	const char *name; /* as spelled; may hold bytes that are not UTF-8, never a NUL */
	const char *link; /* '1', '2': the target as spelled; else "" */
	uint32_t mode;	  /* header mode as it is, file type bits of old tars included */
	uint64_t uid, gid;
	const char *user, *group;
	uint64_t size; /* of the file as it will be read (expanded, if sparse); 0 for all but '0' */
	int64_t mtime;
	uint32_t mtime_ns;
	bool has_atime, has_ctime;
	int64_t atime, ctime;
	uint32_t atime_ns, ctime_ns;
	uint32_t dev_major, dev_minor;
	const struct tar_xattr
		*xattr; /* in the order of the records, each name once (the last wins) */
	size_t n_xattr;
	bool sparse;
	bool name_utf8;	 /* name and link are valid UTF-8 */
	const char *odd; /* what the header says beyond the fields above: a size where no data
			    follows, ...; NULL: nothing */
	uint64_t index;	 /* 0, 1, ... in the tar */
};

struct tar_piece {
	enum { TAR_HEADER, TAR_DATA, TAR_HOLE, TAR_PADDING, TAR_MAP, TAR_TRAILER } kind;
	const struct tar_entry *entry; /* NULL for TAR_TRAILER; valid until the next tar_next */
	const void *raw; /* exact bytes (a TAR_HEADER's include its PAX and GNU records); NULL: a
			    hole */
	size_t len;	 /* a TAR_DATA piece is at most 1 MiB; a TAR_HOLE of any length */
	uint64_t tar_pos, file_pos, src_pos; /* in the unpacked layer, in the file, reserved (0) */
};

struct tar_limits {
	uint64_t entries;     /* 0: 4 M */
	uint64_t names_bytes; /* names, links and xattrs in all; 0: 128 MiB */
	uint64_t unpacked;    /* 0: no bound */
};

/* Takes *s. */
int tar_open(struct tar_reader **t, struct source **s, const struct tar_limits *l, struct err *e);
int tar_next(struct tar_reader *t, struct tar_piece *p, struct err *e); /* 1, 0 at the end, -1 */
void tar_closep(struct tar_reader **t);

/* The name as path rules see it: no leading "/" or "./", no "//", ".", trailing "/"; ".." never
 * above the root.
 * "" is the root itself.  Writes at most n bytes with the NUL; returns the length it has
 * (snprintf's way). */
size_t tar_clean_name(const char *name, char *to, size_t n);

/* ---- writing headers (landmark, TOC entry, bootstrap tar): ids, times and device numbers 0, no
 * names; as Go writes ustar */
struct tar_out {
	const char *name; /* at most 100 bytes */
	char type;
	uint32_t mode;
	uint64_t size;
};
void tar_write_header(uint8_t block[512], const struct tar_out *h);
#define TAR_BLOCK 512u
static inline size_t tar_padding(uint64_t size)
{
	return (size_t)(-size & 511);
}

#endif
