/* worker/drivers/driver.h - a driver turns the layers of one image into blobs of its format.
 *
 * Push: layer.c reads a source layer and shows each piece to every target's driver in turn, so one
 * read feeds any number of targets, and a target that fails is dropped alone. Threads: image_open,
 * finish, image_close run alone; between them layers run side by side, one thread each, and write
 * nothing shared (what a layer leaves for `finish` it hands over under the image's own lock in
 * layer_end or layer_cached). No clock, no random, no hash order: same input and options, same
 * bytes. */
#ifndef WORKER_DRIVERS_DRIVER_H
#define WORKER_DRIVERS_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/target.h"
#include "worker/blob_at.h"
#include "worker/codec/blocks.h"
#include "worker/codec/codec.h"
#include "worker/oci/descriptor.h"
#include "worker/oci/imageconfig.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"
#include "worker/out.h"
#include "worker/tar/tar_reader.h"

struct err;
struct buf;
struct json;
struct drv_image; /* each driver's own; opaque to callers */
struct drv_layer;

/* Small blobs a driver pushes or reads itself (bootstrap, chunk dictionary); blob_at reads ranges
 * of a stored blob. */
struct blob_store {
	int (*push)(struct blob_store *s, const void *p, size_t n, struct digest *d, struct err *e);
	/* [offset, offset+n) of a blob of the target's repository. */
	int (*range)(struct blob_store *s, const struct digest *d, uint64_t offset, size_t n,
		     void *to, struct err *e);
	/* Another image, by reference (chunk dictionary): its manifest, then its blobs whole. */
	int (*manifest)(struct blob_store *s, const char *ref, struct manifest *m, struct err *e);
	int (*fetch)(struct blob_store *s, const char *ref, const struct descriptor *d, size_t max,
		     struct buf *to, struct err *e);
	/* One of them into the target's repository: there already, mounted, or copied. */
	int (*bring)(struct blob_store *s, const char *ref, const struct descriptor *d,
		     struct err *e);
	struct kept *kept;
};
/* What a driver keeps for all images of one conversion.  For image_open alone: no lock. */
void *blob_store_kept(const struct blob_store *s, const char *key); /* NULL: nothing */
void blob_store_keep(struct blob_store *s, const char *key, void *thing, void (*free_fn)(void *));
void blob_store_fini(struct blob_store *s); /* frees what is kept */

struct layer_in {
	uint32_t index; /* position in the source manifest, lowest first */
	const struct descriptor *from;
	enum codec codec;	      /* as sniffed, not as declared */
	const struct digest *diff_id; /* checked by layer.c */
};

struct layer_result { /* digest and size of the blob come from struct out; the cache keeps it all */
	char media_type[160];
	struct annotations
		annotations; /* to set on the layer's descriptor, beside the source's own */
	struct digest diff_id;
	uint64_t unpacked;
	bool absent;   /* no blob of its own */
	bool verbatim; /* the source blob itself stays the layer (oci_ref): nothing is uploaded for
			  it */
	char plain_reason[160]; /* set: pullable, not lazy, and why */
};
void layer_result_fini(struct layer_result *r);
/* Both ways, for the layer cache and the task's result. */
struct json *layer_result_to_json(const struct layer_result *r);
int layer_result_from_json(struct layer_result *r, const struct json *j, const char *at,
			   struct err *e);

struct manifest_list { /* manifests that must be pushed by digest beside the new index */
	struct manifest_item {
		char media_type[160];
		char *data;
		size_t n;
	} * m;
	size_t n, cap;
};

/* Where a converted manifest came from. */
struct driver_source {
	const char *reference; /* normalized: "docker.io/library/x:tag" */
	const struct digest
		*digest; /* of the source: the index, when platforms left one child of an index */
	const struct descriptor *manifest; /* of this platform's source manifest */
};
struct index_child { /* one converted platform, in source order */
	const struct descriptor
		*from; /* of the source manifest; platform.set if an index gave one */
	const struct manifest *src;
	const struct imageconfig *cfg; /* the source's */
	const struct descriptor *done; /* of the converted manifest */
};

struct drv_cost { /* bytes: peaks with a million entries, rounded up */
	uint32_t entry, chunk;
	uint64_t chunk_size;
};

struct driver {
	const char *name;
	/* Cache key: what of the options shapes a layer's bytes.  Equal: one conversion is shared.
	 */
	int (*identity)(const struct target *t, char *text, size_t n);
	/* How out writes this target's pieces. */
	struct encode_as (*encoding)(const struct target *t);
	/* The largest segment this target needs. */
	size_t (*largest)(const struct target *t);
	/* What it keeps of each entry (beside its names) and each chunk until the image is done. */
	struct drv_cost (*cost)(const struct target *t);
	/* src: the source manifest of this platform; both stay valid until image_close. */
	int (*image_open)(struct drv_image **im, const struct target *t, const struct manifest *src,
			  const struct imageconfig *cfg, struct blob_store *blobs, struct err *e);
	/* wants_blocks: unpack with zlib and report deflate block boundaries (zran). */
	int (*layer_open)(struct drv_layer **l, struct drv_image *im, const struct layer_in *in,
			  bool *wants_blocks, struct err *e);
	/* After a pass: 1 while it wants the layer once more (its own GET), 0 when done. */
	int (*again)(struct drv_layer *l);
	/* out_opts to open this layer's out with (on_land, arg = l); called before begin of the
	 * first writing pass. */
	void (*out_opts)(struct drv_layer *l, struct out_opts *o);
	/* A pass starts.  out is NULL in a pass that only wants to see headers: headers_only tells
	 * whether pass 0 is one. */
	bool (*headers_only)(struct drv_layer *l, int pass);
	int (*begin)(struct drv_layer *l, int pass, struct out *out, struct err *e);
	int (*tar)(struct drv_layer *l, const struct tar_piece *p, struct err *e);
	int (*block)(struct drv_layer *l, const struct block *b, struct err *e); /* may be NULL */
	/* All bytes seen, their digests hold: index and footer.  The caller verifies, commits. */
	int (*layer_end)(struct drv_layer *l, struct layer_result *r, struct err *e);
	void (*layer_close)(struct drv_layer *l); /* after a failure nothing of it stays in im */
	/* The same source layer again, at another position. */
	int (*layer_same)(struct drv_image *im, const struct layer_in *in, uint32_t first,
			  struct err *e);
	/* A layer from the cache, with what was kept of it: may read its index (Nydus: bootstrap)
	 * from the stored blob. ERR_CORRUPT: the caller forgets the entry and converts. */
	int (*layer_cached)(struct drv_image *im, const struct layer_in *in,
			    const struct descriptor *stored, struct layer_result *r,
			    struct blob_at *blob, struct err *e);
	/* NULL, or: of a layer's annotations those that this target's readers want, where targets
	 * of equal identity differ in it.  `finish` has done it. */
	void (*face)(const struct target *t, struct annotations *a);
	/* After all layers, done[i] and r[i] in source order: further blobs (by blobs->push), then
	 * layers, diff_ids, history, annotations of the new manifest and config, which start as
	 * copies of the source's. */
	int (*finish)(struct drv_image *im, const struct descriptor *done,
		      const struct layer_result *r, size_t n, struct manifest *to,
		      struct imageconfig *cfg, struct err *e);
	void (*image_close)(struct drv_image *im);
	/* NULL, or: marks on the new manifest that name where it came from (Nydus: annotations,
	 * subject).  After finish, before the manifest is written. */
	void (*mark)(const struct target *t, const struct driver_source *from, struct manifest *to);
	/* NULL: the converted children in source order.  Else (merge_manifest) src is NULL when the
	 * source was no index; returns 1 when it made an index in `to` (to be published even for
	 * one child), 0: the same as NULL. */
	int (*index)(const struct target *t, const struct index *src,
		     const struct index_child *child, size_t n, struct blob_store *blobs,
		     struct manifest_list *push, struct index *to, struct err *e);
	/* One image left of an index: a plain manifest (Nydus), or an index of one (eStargz), as
	 * upstream. */
	bool index_of_one;
	/* A stored blob read back as entries and data (raw NULL for bytes a format does not keep):
	 * the format's own rules are checked on the way, ERR_CORRUPT names the first broken one.
	 * `check`, and verification.  unpacked: the blob as an ordinary layer (gzip or zstd tar)
	 * when the format is one. */
	int (*check)(struct blob_at *blob, const struct descriptor *d,
		     int (*on)(void *arg, const struct tar_piece *p, struct err *e), void *arg,
		     struct err *e);
};

extern const struct driver
	*const drivers[DRIVERS]; /* a new format: one new file, one line in this list */
const struct driver *driver_of(const struct target *t);
extern const struct driver estargz_driver, zstdchunked_driver, nydus_driver;

/* `finish` of formats whose layers are tars: layers, diff_ids, OCI types; what an earlier
 * conversion left of annotations goes. */
int driver_finish_tars(const struct descriptor *done, const struct layer_result *r, size_t n,
		       struct manifest *to, struct imageconfig *cfg, struct err *e);

#endif
