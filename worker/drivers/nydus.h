/* worker/drivers/nydus.h - names that Nydus gives to types and annotations in manifests. */
#ifndef WORKER_DRIVERS_NYDUS_H
#define WORKER_DRIVERS_NYDUS_H

#define NYDUS_BLOB_TYPE "application/vnd.oci.image.layer.nydus.blob.v1"
#define NYDUS_CONFIG_TYPE "application/vnd.nydus.image.config.v1+json"
#define NYDUS_ARTIFACT_TYPE "application/vnd.nydus.image.manifest.v1+json"
#define NYDUS_BLOB "containerd.io/snapshot/nydus-blob"
#define NYDUS_BOOTSTRAP "containerd.io/snapshot/nydus-bootstrap"
#define NYDUS_FS_VERSION "containerd.io/snapshot/nydus-fs-version"
#define NYDUS_SOURCE_DIGEST "containerd.io/snapshot/nydus-source-digest"
#define NYDUS_SOURCE_REFERENCE "containerd.io/snapshot/nydus-source-reference"
#define NYDUS_EMPTY_LAYER "containerd.io/snapshot/nydus-empty-layer"
#define NYDUS_REF "containerd.io/snapshot/nydus-ref"
#define NYDUS_DICTIONARY "io.acceld.chunk-dictionary" /* ours: the layer is one of that image */
#define NYDUS_UNCOMPRESSED                                                                         \
	"containerd.io/uncompressed" /* of a bootstrap whose blobs are elsewhere */
/* Ours, on a manifest: its blobs in a storage backend, lowest layer first, commas between them. */
#define NYDUS_BACKEND_BLOBS "io.acceld.nydus.blobs"

#endif
