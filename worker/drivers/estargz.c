/* worker/drivers/estargz.c - eStargz: lazytar's members, the TOC as one more tar entry in a member
 * of its own, the footer that says where that is.  formats/estargz.md. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/codec/member.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/footer.h"
#include "worker/drivers/lazytar.h"
#include "worker/drivers/toc.h"

#define END_OF_TAR 1024u

struct drv_image {
	const struct estargz_options *opts; /* of the target, which outlives us */
};

struct drv_layer {
	const struct estargz_options *opts;
	struct lazytar *tar;
	struct out *out;
};

static struct encode_as encoding(const struct target *t)
{
	return (struct encode_as){.encoding = ENCODE_GZIP, .level = t->estargz.compression_level};
}

static size_t largest(const struct target *t)
{
	return SEGMENT_MAX;
}

static int identity(const struct target *t, char *text, size_t n)
{
	const char *listed = t->estargz.prioritized_files ? t->estargz.prioritized_files : "";
	char hex[DIGEST_TEXT];
	struct digest d;

	digest_of(&d, DIGEST_SHA256, listed, strlen(listed));
	return snprintf(text, n,
			"estargz/%" PRIu32 " chunk_size=%" PRIu64 " level=%d prioritized=%s",
			target_format_version(DRIVER_ESTARGZ), t->estargz.chunk_size,
			t->estargz.compression_level, *listed ? digest_hex(&d, hex) : "");
}

static int image_open(struct drv_image **to, const struct target *t, const struct manifest *src,
		      const struct imageconfig *cfg, struct blob_store *blobs, struct err *e)
{
	struct drv_image *im = mem_zalloc(sizeof(*im));

	im->opts = &t->estargz;
	*to = im;
	return 0;
}

static void image_close(struct drv_image *im)
{
	free(im);
}

static int layer_open(struct drv_layer **to, struct drv_image *im, const struct layer_in *in,
		      bool *wants_blocks, struct err *e)
{
	struct drv_layer *l = mem_zalloc(sizeof(*l));

	l->opts = im->opts;
	l->tar = lazytar_new(im->opts->chunk_size, im->opts->prioritized_files);
	*wants_blocks = false;
	*to = l;
	return 0;
}

static void layer_close(struct drv_layer *l)
{
	lazytar_freep(&l->tar);
	free(l);
}

static int again(struct drv_layer *l)
{
	return lazytar_again(l->tar);
}

static bool headers_only(struct drv_layer *l, int pass)
{
	return lazytar_headers_only(l->tar, pass);
}

static void out_opts(struct drv_layer *l, struct out_opts *o)
{
	o->on_land = lazytar_on_land;
	o->arg = l->tar;
}

static int begin(struct drv_layer *l, int pass, struct out *out, struct err *e)
{
	l->out = out;
	return lazytar_begin(l->tar, pass, out, e);
}

static int tar(struct drv_layer *l, const struct tar_piece *p, struct err *e)
{
	return lazytar_tar(l->tar, p, e);
}

/* ---- the TOC */

struct toc_sum {
	struct hasher *h;
	uint64_t n;
};

static int sum_toc(void *arg, const void *p, size_t n, struct err *e)
{
	struct toc_sum *s = arg;

	hasher_update(s->h, p, n);
	s->n += n;
	return 0;
}

static int put_member(void *arg, const void *p, size_t n, struct err *e)
{
	return out_literal(arg, p, n, e);
}

/* Into the open member, which a compressor makes; or, too large for that, packed here as it comes.
 */
struct toc_to {
	struct lazytar *tar;
	struct member *member;
};

static int put_toc(void *arg, const void *p, size_t n, struct err *e)
{
	struct toc_to *to = arg;

	if (!to->member)
		return lazytar_append(to->tar, p, n, e);
	lazytar_count(to->tar, p, n);
	return member_write(to->member, p, n, e);
}

static int put_toc_zeros(struct toc_to *to, size_t n, struct err *e)
{
	static const uint8_t zeros[END_OF_TAR];

	assert(n <= sizeof(zeros));
	return put_toc(to, zeros, n, e);
}

/* One tar entry and the end of the tar, in a single member: readers stop after the first. */
static int write_toc(struct drv_layer *l, uint64_t json_n, struct err *e)
{
	scoped(member_freep) struct member *m = NULL;
	struct toc_to to = {.tar = l->tar};
	uint8_t block[TAR_BLOCK];

	if (TAR_BLOCK + json_n + tar_padding(json_n) + END_OF_TAR > SEGMENT_MAX) {
		if (member_open(&m, &(struct encode_as){.encoding = ENCODE_GZIP}, put_member,
				l->out, e) < 0)
			return -1;
		to.member = m;
	}
	tar_write_header(block, &(struct tar_out){.name = TOC_NAME, .type = '0', .size = json_n});
	if (put_toc(&to, block, sizeof(block), e) < 0 ||
	    toc_write(lazytar_toc(l->tar), NULL, put_toc, &to, e) < 0 ||
	    put_toc_zeros(&to, tar_padding(json_n), e) < 0 || put_toc_zeros(&to, END_OF_TAR, e) < 0)
		return -1;
	if (m ? member_finish(m, e) < 0 : lazytar_cut(l->tar, e) < 0)
		return -1;
	return out_drain(l->out, e);
}

static void describe(struct layer_result *r, struct lazytar *tar)
{
	str_copy(r->media_type, sizeof(r->media_type), MT_OCI_LAYER_GZIP);
	r->unpacked = lazytar_sum(tar, &r->diff_id);
}

/* A layer that the format cannot tell of: the tar ends here, as any other. */
static int end_plain(struct drv_layer *l, struct layer_result *r, struct err *e)
{
	if (lazytar_append_zeros(l->tar, END_OF_TAR, e) < 0 || lazytar_cut(l->tar, e) < 0 ||
	    out_drain(l->out, e) < 0)
		return -1;
	describe(r, l->tar);
	str_copy(r->plain_reason, sizeof(r->plain_reason), toc_unfit(lazytar_toc(l->tar)));
	return 0;
}

static int end_lazy(struct drv_layer *l, struct layer_result *r, struct err *e)
{
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	struct toc_sum sum = {.h = h};
	uint8_t footer[ESTARGZ_FOOTER];
	uint64_t toc_at = out_offset(l->out);
	char text[DIGEST_TEXT];
	struct digest d;

	if (toc_write(lazytar_toc(l->tar), NULL, sum_toc, &sum, e) < 0 ||
	    write_toc(l, sum.n, e) < 0)
		return -1;
	footer_estargz(footer, toc_at);
	if (out_literal(l->out, footer, sizeof(footer), e) < 0 || out_drain(l->out, e) < 0)
		return -1;
	describe(r, l->tar);
	hasher_final(h, &d);
	annotations_set(&r->annotations, "containerd.io/snapshot/stargz/toc.digest",
			digest_text(&d, text));
	snprintf(text, sizeof(text), "%" PRIu64, r->unpacked);
	annotations_set(&r->annotations, "io.containers.estargz.uncompressed-size", text);
	return 0;
}

static int layer_end(struct drv_layer *l, struct layer_result *r, struct err *e)
{
	if (lazytar_end(l->tar, e) < 0)
		return -1;
	return toc_unfit(lazytar_toc(l->tar)) ? end_plain(l, r, e) : end_lazy(l, r, e);
}

/* Nothing of a layer is needed for the next one. */
static int layer_same(struct drv_image *im, const struct layer_in *in, uint32_t first,
		      struct err *e)
{
	return 0;
}

static int layer_cached(struct drv_image *im, const struct layer_in *in,
			const struct descriptor *stored, struct layer_result *r,
			struct blob_at *blob, struct err *e)
{
	return 0;
}

static int finish(struct drv_image *im, const struct descriptor *done, const struct layer_result *r,
		  size_t n, struct manifest *to, struct imageconfig *cfg, struct err *e)
{
	return driver_finish_tars(done, r, n, to, cfg, e);
}

const struct driver estargz_driver = {
	.name = "estargz",
	.identity = identity,
	.encoding = encoding,
	.largest = largest,
	.image_open = image_open,
	.layer_open = layer_open,
	.again = again,
	.out_opts = out_opts,
	.headers_only = headers_only,
	.begin = begin,
	.tar = tar,
	.layer_end = layer_end,
	.layer_close = layer_close,
	.layer_same = layer_same,
	.layer_cached = layer_cached,
	.finish = finish,
	.image_close = image_close,
	.index_of_one = true,
};
