/* worker/drivers/sparse.h - headers made anew: of a sparse file as an ordinary one of its full
 * size. */
#ifndef WORKER_DRIVERS_SPARSE_H
#define WORKER_DRIVERS_SPARSE_H

#include <stdint.h>

struct buf;
struct err;
struct tar_entry;

/* A PAX header that tells everything, and the ustar header it is for. */
int sparse_header(struct buf *to, const struct tar_entry *entry, struct err *e);
/* Another type flag, and the checksum that goes with it. */
void tar_retype(uint8_t block[512], char type);

#endif
