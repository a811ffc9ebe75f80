/* common/driver_options.h - which options each driver has: one table, as data alone.
 *
 * Parsing, defaults, canonical text, JSON, messages and the manual page all read it, so an option
 * is added by adding a row.  Rows are sorted by key; `at` is the option's place in struct target,
 * whose type is the row's. */
#ifndef COMMON_DRIVER_OPTIONS_H
#define COMMON_DRIVER_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "common/target.h"

enum option_type {
	OPT_BOOL,	 /* bool */
	OPT_SIZE,	 /* uint64_t */
	OPT_INT,	 /* int */
	OPT_WORD,	 /* an enum, or an int */
	OPT_DIALECT,	 /* both enums of zstdchunked, from one word */
	OPT_LINES,	 /* char *: trimmed lines, empty ones dropped; NULL when none */
	OPT_REFERENCE,	 /* char *: an image, in full; NULL when none */
	OPT_COMPRESSION, /* chooses the driver */
	OPT_BACKEND,	 /* JSON that may hold an access key: apart from it; never quoted */
	OPT_UNUSED,	 /* accepted, and the note says why it does nothing */
	OPT_REFUSED,	 /* known, and the note says that it is not built */
};

enum option_flags {
	IN_OUTPUT = 1, /* changes the result: part of the canonical text */
	POWER_OF_TWO = 2,
	ALWAYS_OCI = 4, /* docker2oci of the stargz family: false has no effect */
};

struct word {
	const char *text;
	int value;
	const char *refused; /* known, and why it is not taken */
};

struct option {
	const char *key, *old; /* old: the name that upstream used before */
	enum option_type type;
	size_t at; /* in struct target */
	const char *def;
	unsigned flags;
	uint64_t min, max;
	const struct word *words;
	const char *doc, *note;
};

/* Both enums of zstdchunked in one word's value. */
#define DIALECT(dialect, face) ((dialect)*8 + (face))

struct driver_row {
	const char *name;
	const struct option *options; /* ends in a row without a key */
	uint32_t version;	      /* target_format_version */
};
extern const struct driver_row driver_rows[DRIVERS];

/* By its name or its old one; NULL: the driver has none of this name. */
const struct option *driver_option_find(enum driver_id d, const char *key);
/* What a value must be: "a size from 4KiB to 64MiB". */
void driver_option_expected(const struct option *o, char *to, size_t n);

#endif
