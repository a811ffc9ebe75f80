/* worker/drivers/lazycheck.h - a stored eStargz or zstd:chunked blob read back: every chunk of the
 * table of contents starts a member where the table says, every digest holds, and the table tells
 * what the tar tells. */
#ifndef WORKER_DRIVERS_LAZYCHECK_H
#define WORKER_DRIVERS_LAZYCHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/codec/codec.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/toc.h"

struct source;

struct lazy_blob {
	enum codec codec;
	enum toc_form form;
	uint64_t data_end; /* members of files and headers: [0, data_end) */
	uint64_t tar_end;  /* more of the tar: eStargz' TOC member; else data_end */
	bool landmark;	   /* there must be one */
};

typedef int lazy_piece(void *arg, const struct tar_piece *p, struct err *e);

/* The unpacked bytes of a part of the blob. */
int lazy_source(struct source **to, struct blob_at *b, uint64_t from, uint64_t end,
		enum codec codec, struct err *e);
/* toc: its JSON. */
int lazy_check(struct blob_at *b, const struct lazy_blob *what, struct source *toc,
	       struct digest *toc_digest, struct digest *tarsplit, uint64_t *unpacked,
	       lazy_piece *on, void *arg, struct err *e);
/* A blob without a table: an ordinary packed tar. */
int lazy_check_plain(struct blob_at *b, enum codec codec, lazy_piece *on, void *arg, struct err *e);

#endif
