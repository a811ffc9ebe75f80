/* worker/drivers/zstdcheck.h - a stored zstd:chunked blob read back, in either dialect. */
#ifndef WORKER_DRIVERS_ZSTDCHECK_H
#define WORKER_DRIVERS_ZSTDCHECK_H

#include "worker/drivers/lazycheck.h"

#define CONTAINERD_TOC_DIGEST "containerd.io/snapshot/stargz/toc.digest"
#define CONTAINERD_UNPACKED "io.containers.estargz.uncompressed-size"
#define CONTAINERD_CHECKSUM "io.containers.zstd-chunked.manifest-checksum"
#define CONTAINERD_POSITION "io.containers.zstd-chunked.manifest-position"
#define PODMAN_CHECKSUM "io.github.containers.zstd-chunked.manifest-checksum"
#define PODMAN_POSITION "io.github.containers.zstd-chunked.manifest-position"
#define PODMAN_TARSPLIT "io.github.containers.zstd-chunked.tarsplit-position"

/* A driver's `check`: the annotations of d tell the dialect, the footer has the last word. */
int zstdcheck(struct blob_at *blob, const struct descriptor *d, lazy_piece *on, void *arg,
	      struct err *e);

#endif
