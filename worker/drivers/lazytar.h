/* worker/drivers/lazytar.h - a layer's tar cut into members so that every chunk of every file
 * starts one; what eStargz and containerd's zstd:chunked share.  formats/estargz.md §1, §4, §6, §7;
 * design, "eStargz in one pass".
 *
 * Written: the landmark, then each entry's exact header bytes, its data, padding.  A member ends
 * where a chunk starts, and after 4 MiB.  Left out: the source's landmarks and TOC, its end marker.
 * With prioritized files there are three passes: headers only; the listed files, their parents and
 * link targets; the landmark and the rest. */
#ifndef WORKER_DRIVERS_LAZYTAR_H
#define WORKER_DRIVERS_LAZYTAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "worker/out.h"

struct err;
struct tar_piece;
struct toc;
struct lazytar;

#define SEGMENT_MAX ((size_t)4 << 20) /* unpacked bytes of a member; a longer chunk is several */

/* prioritized: paths, one a line, or NULL; borrowed. */
struct lazytar *lazytar_new(uint64_t chunk_size, const char *prioritized);
void lazytar_freep(struct lazytar **l);
int lazytar_again(struct lazytar *l);
bool lazytar_headers_only(const struct lazytar *l, int pass);
int lazytar_on_land(void *lazytar, const struct landed *landed, struct err *e);
int lazytar_begin(struct lazytar *l, int pass, struct out *out, struct err *e);
int lazytar_tar(struct lazytar *l, const struct tar_piece *p, struct err *e);
/* All was seen and has landed; the table is sealed.  toc_unfit(lazytar_toc(l)) tells whether it can
 * be written. */
int lazytar_end(struct lazytar *l, struct err *e);
struct toc *lazytar_toc(struct lazytar *l);

/* More bytes of the unpacked stream: to the open member, or counted alone (who calls writes them
 * himself). */
int lazytar_append(struct lazytar *l, const void *p, size_t n, struct err *e);
int lazytar_append_zeros(struct lazytar *l, size_t n, struct err *e);
void lazytar_count(struct lazytar *l, const void *p, size_t n);
int lazytar_cut(struct lazytar *l, struct err *e);
/* Digest and length of the unpacked stream so far. */
uint64_t lazytar_sum(const struct lazytar *l, struct digest *d);

#endif
