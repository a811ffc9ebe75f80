/* worker/drivers/podtar.h - a layer's tar byte for byte, in frames that end where a file's payload
 * or one of its content-defined chunks ends; with its table and its tar-split.
 * formats/zstd-chunked.md §3. */
#ifndef WORKER_DRIVERS_PODTAR_H
#define WORKER_DRIVERS_PODTAR_H

#include <stdint.h>

#include "common/buf.h"
#include "worker/drivers/toc.h"
#include "worker/out.h"

struct err;
struct tar_piece;
struct podtar;

int podtar_new(struct podtar **p, enum toc_form form, struct err *e);
void podtar_freep(struct podtar **p);
int podtar_on_land(void *podtar, const struct landed *landed, struct err *e);
void podtar_begin(struct podtar *p, struct out *out);
int podtar_tar(struct podtar *p, const struct tar_piece *piece, struct err *e);
/* All has landed; the table is sealed, the tar-split complete. */
int podtar_end(struct podtar *p, struct err *e);
struct toc *podtar_toc(struct podtar *p);
uint64_t podtar_unpacked(const struct podtar *p);
/* One zstd frame, and the length of what is in it. */
const struct buf *podtar_split(const struct podtar *p, uint64_t *unpacked);

#endif
