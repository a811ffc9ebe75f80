/* worker/drivers/tarsplit.h - tar-split: what it takes to build a layer's tar again from its files,
 * as lines of JSON. formats/zstd-chunked.md §3.4 (vbatts/tar-split, tar/storage/entry.go,
 * tar/asm/disassemble.go). */
#ifndef WORKER_DRIVERS_TARSPLIT_H
#define WORKER_DRIVERS_TARSPLIT_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct tar_piece;
struct tarsplit;

typedef int tarsplit_put(void *arg, const void *p, size_t n, struct err *e);

struct tarsplit *tarsplit_new(tarsplit_put *put, void *arg);
void tarsplit_freep(struct tarsplit **t);
/* Every piece of the tar, in order; sparse files cannot be told and must not be shown. */
int tarsplit_piece(struct tarsplit *t, const struct tar_piece *p, struct err *e);
int tarsplit_end(struct tarsplit *t, struct err *e);
uint64_t tarsplit_bytes(const struct tarsplit *t); /* of the lines so far */

#endif
