/* worker/codec/crc64.h - the CRC-64 of ISO 3309 (x^64 + x^4 + x^3 + x + 1, reflected): what Go
 * calls crc64.ISO and tar-split keeps of each file. */
#ifndef WORKER_CODEC_CRC64_H
#define WORKER_CODEC_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* Of what crc is the sum of (0: nothing yet) and the n bytes after it. */
uint64_t crc64(uint64_t crc, const void *p, size_t n);

#endif
