/* worker/drivers/footer.h - the last bytes of eStargz and zstd:chunked blobs, both ways.
 * formats/estargz.md §2, formats/zstd-chunked.md §1. */
#ifndef WORKER_DRIVERS_FOOTER_H
#define WORKER_DRIVERS_FOOTER_H

#include <stddef.h>
#include <stdint.h>

struct err;

#define ESTARGZ_FOOTER 51u
#define ESTARGZ_LEGACY_FOOTER 47u

void footer_estargz(uint8_t to[ESTARGZ_FOOTER], uint64_t toc_at);
/* The last n bytes of a blob of `size` bytes: new or legacy form.  *footer_at: where it starts in
 * the blob.  ERR_CORRUPT. */
int footer_estargz_parse(const uint8_t *tail, size_t n, uint64_t size, uint64_t *toc_at,
			 uint64_t *footer_at, struct err *e);

/* A span of the blob: packed bytes, what they unpack to. */
struct span {
	uint64_t at, n, unpacked;
};
struct zstd_footer {
	struct span toc, tarsplit; /* tarsplit.n 0: containerd's dialect */
};
#define ZSTD_FOOTER_CONTAINERD 40u
#define ZSTD_FOOTER_PODMAN 64u
#define ZSTD_SKIPPABLE 8u /* magic and length before a skippable frame's bytes */

void footer_skippable(uint8_t to[ZSTD_SKIPPABLE], uint32_t n);
/* Returns its length; `podman` with the tar-split's words. */
size_t footer_zstd(uint8_t to[ZSTD_FOOTER_PODMAN], const struct zstd_footer *f, int podman);
int footer_zstd_parse(const uint8_t *tail, size_t n, uint64_t size, struct zstd_footer *f,
		      uint64_t *footer_at, struct err *e);

#endif
