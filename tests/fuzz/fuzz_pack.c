/* Any bytes as a layer's tar through eStargz and every dialect of zstd:chunked: it is refused with
 * words, or becomes a blob that its own check takes.  The first byte chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/stream.h"
#include "common/target.h"
#include "worker/blobat.h"
#include "worker/drivers/driver.h"
#include "worker/out.h"
#include "worker/pool.h"
#include "worker/tar/tar_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void must(int holds)
{
	if (!holds)
		abort();
}

struct packed {
	struct buf blob;
	struct digest d;
	uint64_t size;
};

static int keep(void *dest, const void *p, size_t n, struct err *e)
{
	return buf_add(&((struct packed *)dest)->blob, p, n, e);
}

static int commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	((struct packed *)dest)->d = *d;
	((struct packed *)dest)->size = size;
	return 0;
}

static void forget(void *dest)
{
}

static struct pool *pool(void)
{
	static struct pool *p;
	struct pool_opts o = {.threads = 1, .buffer_bytes = 4 << 20, .verify = true};
	struct err e;

	if (!p)
		must(pool_open(&p, &o, &e) == 0);
	return p;
}

static int show(const struct driver *drv, struct drv_layer *l, const uint8_t *p, size_t n,
		struct err *e)
{
	static const struct tar_limits limits = {
		.entries = 5000, .names_bytes = 1 << 20, .unpacked = 8 << 20};
	scoped(source_freep) struct source *s = source_from_memory(p, n);
	scoped(tar_closep) struct tar_reader *t = NULL;
	struct tar_piece piece;
	int r;

	must(tar_open(&t, &s, &limits, e) == 0);
	while ((r = tar_next(t, &piece, e)) > 0)
		if (drv->tar(l, &piece, e) < 0)
			return -1;
	return r;
}

static int pack(const struct target *t, struct drv_layer *l, const uint8_t *p, size_t n,
		struct packed *to, struct layer_result *r, struct err *e)
{
	static const struct out_ops ops = {keep, commit, forget};
	const struct driver *drv = driver_of(t);
	struct out_opts opts = {.as = drv->encoding(t)};
	scoped(out_freep) struct out *out = NULL;
	struct digest d;
	uint64_t size;
	int pass = 0;

	do {
		if (!out && !drv->headers_only(l, pass)) {
			drv->out_opts(l, &opts);
			must(out_open(&out, pool(), &opts, &ops, to, e) == 0);
		}
		if (drv->begin(l, pass++, out, e) < 0 || show(drv, l, p, n, e) < 0)
			return -1;
	} while (drv->again(l));
	return drv->layer_end(l, r, e) < 0 ? -1 : out_commit(out, &d, &size, e);
}

static void check(const struct target *t, const struct packed *x, const struct layer_result *r)
{
	struct blobat_memory at;
	struct descriptor d;
	struct err e = {0};

	descriptor_init(&d);
	d.digest = x->d;
	d.size = x->size;
	annotations_copy(&d.annotations, &r->annotations);
	blobat_memory_init(&at, x->blob.data, x->blob.len);
	must(x->size == x->blob.len);
	must(driver_of(t)->check(&at.at, &d, NULL, NULL, &e) == 0);
	descriptor_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const dialects[] = {NULL, NULL, "containerd", "podman",
					       "both/containerd"};
	struct packed x = {.blob = BUF_INIT((size_t)1 << 28)};
	struct layer_result r = {0};
	struct drv_layer *l = NULL;
	struct drv_image *im = NULL;
	struct layer_in in = {0};
	const char *warning;
	struct target t;
	bool blocks;
	struct err e = {0};
	unsigned kind;

	if (!n)
		return 0;
	kind = p[0] % 5;
	target_init(&t, kind < 2 ? DRIVER_ESTARGZ : DRIVER_ZSTDCHUNKED);
	if (kind == 1)
		must(target_option(&t, "prioritized_files", "f\nd", &warning, &e) == 0);
	if (dialects[kind])
		must(target_option(&t, "dialect", dialects[kind], &warning, &e) == 0);
	must(driver_of(&t)->image_open(&im, &t, NULL, NULL, NULL, &e) == 0 &&
	     driver_of(&t)->layer_open(&l, im, &in, &blocks, &e) == 0);
	if (pack(&t, l, p + 1, n - 1, &x, &r, &e) == 0)
		check(&t, &x, &r);
	else
		must(e.text[0] != 0);
	driver_of(&t)->layer_close(l);
	driver_of(&t)->image_close(im);
	layer_result_fini(&r);
	target_fini(&t);
	buf_fini(&x.blob);
	return 0;
}
