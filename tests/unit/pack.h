/* tests/unit/pack.h - a layer in memory through a driver, and tars made by hand. */
#ifndef TESTS_UNIT_PACK_H
#define TESTS_UNIT_PACK_H

#include "tests/unit/unit.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/blobat.h"
#include "worker/codec/codec.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/sparse.h"
#include "worker/out.h"
#include "worker/pool.h"
#include "worker/tar/tar_reader.h"

struct packed {
	struct buf blob;
	struct layer_result r;
	struct descriptor d; /* digest, size, annotations of the blob */
	uint32_t passes;
};

static inline int packed_write(void *dest, const void *p, size_t n, struct err *e)
{
	return buf_add(&((struct packed *)dest)->blob, p, n, e);
}

static inline int packed_commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	struct packed *x = dest;

	x->d.digest = *d;
	x->d.size = size;
	return 0;
}

static inline void packed_abort(void *dest)
{
}

static inline void packed_init(struct packed *x)
{
	memset(x, 0, sizeof(*x));
	buf_init(&x->blob, (size_t)1 << 30);
	descriptor_init(&x->d);
}

static inline void packed_fini(struct packed *x)
{
	buf_fini(&x->blob);
	layer_result_fini(&x->r);
	descriptor_fini(&x->d);
}

static inline int pack_pass(const struct driver *drv, struct drv_layer *l, int pass,
			    struct out *out, const void *tar, size_t n, struct err *e)
{
	scoped(source_freep) struct source *s = source_from_memory(tar, n);
	scoped(tar_closep) struct tar_reader *t = NULL;
	struct tar_limits limits = {0};
	struct tar_piece p;
	int rc;

	if (drv->begin(l, pass, out, e) < 0 || tar_open(&t, &s, &limits, e) < 0)
		return -1;
	while ((rc = tar_next(t, &p, e)) > 0)
		if (drv->tar(l, &p, e) < 0)
			return -1;
	return rc;
}

static inline int pack_passes(const struct driver *drv, struct drv_image *im, struct pool *pool,
			      const struct target *t, const void *tar, size_t n, struct packed *to,
			      struct err *e)
{
	static const struct out_ops ops = {packed_write, packed_commit, packed_abort};
	struct out_opts opts = {.as = drv->encoding(t)};
	scoped(out_freep) struct out *out = NULL;
	struct drv_layer *l = NULL;
	struct descriptor from;
	struct digest diff_id, d;
	struct layer_in in = {.from = &from, .diff_id = &diff_id};
	bool blocks = false;
	uint64_t size;
	int pass = 0, rc;

	descriptor_init(&from);
	digest_of(&diff_id, DIGEST_SHA256, tar, n);
	rc = drv->layer_open(&l, im, &in, &blocks, e);
	do {
		if (rc == 0 && !out && !drv->headers_only(l, pass)) {
			drv->out_opts(l, &opts);
			rc = out_open(&out, pool, &opts, &ops, to, e);
		}
		if (rc == 0)
			rc = pack_pass(drv, l, pass++, out, tar, n, e);
	} while (rc == 0 && drv->again(l));
	if (rc == 0)
		rc = drv->layer_end(l, &to->r, e);
	if (rc == 0)
		rc = out_commit(out, &d, &size, e);
	if (rc == 0)
		annotations_copy(&to->d.annotations, &to->r.annotations);
	to->passes = (uint32_t)pass;
	drv->layer_close(l);
	return rc;
}

static inline int pack(const struct target *t, uint32_t threads, const void *tar, size_t n,
		       struct packed *to, struct err *e)
{
	const struct driver *drv = driver_of(t);
	struct pool_opts po = {.threads = threads, .buffer_bytes = 4 << 20, .verify = true};
	scoped(pool_freep) struct pool *pool = NULL;
	struct drv_image *im = NULL;
	struct imageconfig cfg;
	struct manifest m;
	int rc;

	manifest_init(&m);
	imageconfig_init(&cfg);
	packed_init(to);
	if (drv->largest(t) > po.buffer_bytes)
		po.buffer_bytes = drv->largest(t);
	if (pool_open(&pool, &po, e) < 0 || drv->image_open(&im, t, &m, &cfg, NULL, e) < 0)
		return -1;
	rc = pack_passes(drv, im, pool, t, tar, n, to, e);
	drv->image_close(im);
	return rc;
}

static inline int check_packed(const struct target *t, const struct packed *x,
			       int (*on)(void *arg, const struct tar_piece *p, struct err *e),
			       void *arg, struct err *e)
{
	struct blobat_memory at;

	blobat_memory_init(&at, x->blob.data, x->blob.len);
	return driver_of(t)->check(&at.at, &x->d, on, arg, e);
}

/* The whole blob as an ordinary reader unpacks it. */
static inline void unpack_blob(const struct packed *x, struct buf *to)
{
	scoped(source_freep) struct source *s = source_from_memory(x->blob.data, x->blob.len);
	struct codec_opts o = {0};
	enum codec c;
	char part[65536];
	struct err e = {0};
	ssize_t n;

	buf_init(to, (size_t)1 << 30);
	assert_int_equal(codec_sniff(&s, &c, &e), 0);
	if (codec_unpack(&s, c, &o, &e) < 0)
		fail_msg("%s", e.text);
	while ((n = source_read(s, part, sizeof(part), &e)) > 0)
		buf_add(to, part, (size_t)n, NULL);
	if (n < 0)
		fail_msg("%s", e.text);
}

/* ---- tars by hand: ustar, mode 0644, ids 0, mtime 0 */
static inline void tar_entry(struct buf *b, char type, const char *name, const char *link,
			     const void *data, size_t n)
{
	static const uint8_t zeros[512];
	uint8_t block[512];

	tar_write_header(block,
			 &(struct tar_out){.name = name, .type = type, .mode = 0644, .size = n});
	if (link)
		memcpy(block + 157, link, strlen(link));
	tar_retype(block, type);
	buf_add(b, block, sizeof(block), NULL);
	if (n)
		buf_add(b, data, n, NULL);
	buf_add(b, zeros, tar_padding(n), NULL);
}

static inline void tar_file(struct buf *b, const char *name, const char *text)
{
	tar_entry(b, '0', name, NULL, text, strlen(text));
}

static inline void tar_end(struct buf *b)
{
	static const uint8_t zeros[1024];

	buf_add(b, zeros, sizeof(zeros), NULL);
}

#endif
