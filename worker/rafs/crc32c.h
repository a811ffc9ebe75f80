/* worker/rafs/crc32c.h - CRC-32C (Castagnoli; RFC 3720, 12.1), which RAFS keeps of every chunk. */
#ifndef WORKER_RAFS_CRC32C_H
#define WORKER_RAFS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from an earlier result; starts with 0. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
