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
#include "common/stream_impl.h"
#include "worker/codec/member.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/footer.h"
#include "worker/drivers/lazycheck.h"
#include "worker/drivers/lazytar.h"
#include "worker/drivers/toc.h"
#include "worker/drivers/tocread.h"
#include "worker/drivers/tocwrite.h"

#define END_OF_TAR 1024u
#define TOC_DIGEST "containerd.io/snapshot/stargz/toc.digest"
#define UNCOMPRESSED_SIZE "io.containers.estargz.uncompressed-size"

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

static struct drv_cost cost(const struct target *t)
{
	return (struct drv_cost){.entry = 88, .chunk = 56, .chunk_size = t->estargz.chunk_size};
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

/* What is written is read again on the way: parsed, counted, hashed. */
struct reread {
	struct toc_reader *reader;
	struct hasher *h;
	uint64_t last_offset;
};

static int reread_item(void *arg, const struct toc_item *it, struct err *e)
{
	struct reread *x = arg;

	if (!it->chunk && (it->entry.type != '0' || !it->entry.size))
		return 0;
	if (it->offset <= x->last_offset)
		return err_set(e, ERR_CORRUPT,
			       "%s: offset %" PRIu64 " does not lie behind %" PRIu64,
			       it->entry.name, it->offset, x->last_offset);
	x->last_offset = it->offset;
	return 0;
}

static void reread_fini(struct reread *x)
{
	toc_reader_freep(&x->reader);
	hasher_freep(&x->h);
}

/* Into the open member, which a compressor makes; or, too large for that, packed here. */
struct toc_to {
	struct lazytar *tar;
	struct member *member;
	struct reread *reread;
};

static int put_toc(struct toc_to *to, const void *p, size_t n, struct err *e)
{
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

static int put_json(void *arg, const void *p, size_t n, struct err *e)
{
	struct toc_to *to = arg;

	hasher_update(to->reread->h, p, n);
	return toc_reader_feed(to->reread->reader, p, n, e) < 0 ? -1 : put_toc(to, p, n, e);
}

/* One tar entry and the end of the tar, in a single member: readers stop after the first. */
static int write_toc(struct drv_layer *l, uint64_t json_n, struct reread *reread, struct err *e)
{
	scoped(member_freep) struct member *m = NULL;
	struct toc_to to = {.tar = l->tar, .reread = reread};
	uint8_t block[TAR_BLOCK];

	if (TAR_BLOCK + json_n + tar_padding(json_n) + END_OF_TAR > SEGMENT_MAX) {
		if (member_open(&m, &(struct encode_as){.encoding = ENCODE_GZIP}, put_member,
				l->out, e) < 0)
			return -1;
		to.member = m;
	}
	tar_write_header(block, &(struct tar_out){.name = TOC_NAME, .type = '0', .size = json_n});
	if (put_toc(&to, block, sizeof(block), e) < 0 ||
	    toc_write(lazytar_toc(l->tar), NULL, put_json, &to, NULL, e) < 0 ||
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

/* What was just written, read as a reader would. */
static int reread(const struct reread *x, const uint8_t footer[ESTARGZ_FOOTER], uint64_t size,
		  uint64_t toc_at, uint64_t entries, const struct digest *toc, struct err *e)
{
	struct digest d, none;
	uint64_t at, footer_at;

	if (footer_estargz_parse(footer, ESTARGZ_FOOTER, size, &at, &footer_at, e) < 0 ||
	    toc_reader_finish(x->reader, &none, e) < 0)
		return -1;
	hasher_final(x->h, &d);
	if (at != toc_at || toc_reader_items(x->reader) != entries || !digest_eq(&d, toc))
		return err_set(e, ERR_CORRUPT,
			       "the table of contents at %" PRIu64 " with %" PRIu64
			       " entries was read back as %" PRIu64 " entries at %" PRIu64,
			       toc_at, entries, toc_reader_items(x->reader), at);
	return 0;
}

static int end_lazy(struct drv_layer *l, struct layer_result *r, struct err *e)
{
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped(reread_fini) struct reread again_read = {.h = hasher_new(DIGEST_SHA256)};
	struct toc_sum sum = {.h = h};
	uint8_t footer[ESTARGZ_FOOTER];
	uint64_t toc_at = out_offset(l->out), items;
	char text[DIGEST_TEXT];
	struct digest d;

	again_read.reader = toc_reader_new(reread_item, &again_read);
	if (toc_write(lazytar_toc(l->tar), NULL, sum_toc, &sum, &items, e) < 0 ||
	    write_toc(l, sum.n, &again_read, e) < 0)
		return -1;
	hasher_final(h, &d);
	footer_estargz(footer, toc_at);
	if (out_literal(l->out, footer, sizeof(footer), e) < 0 || out_drain(l->out, e) < 0 ||
	    reread(&again_read, footer, out_offset(l->out), toc_at, items, &d, e) < 0)
		return -1;
	describe(r, l->tar);
	annotations_set(&r->annotations, TOC_DIGEST, digest_text(&d, text));
	snprintf(text, sizeof(text), "%" PRIu64, r->unpacked);
	annotations_set(&r->annotations, UNCOMPRESSED_SIZE, text);
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

/* ---- a stored blob */

/* The TOC member's entry; the source hands out its bytes, the tar reader has checked its name. */
struct toc_bytes {
	struct source base;
	struct tar_reader *tar;
	struct tar_piece piece;
	size_t used;
	bool end;
};

static ssize_t toc_bytes_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct toc_bytes *b = (struct toc_bytes *)s;
	size_t part;
	int rc;

	while (!b->end && (b->piece.kind != TAR_DATA || b->used == b->piece.len)) {
		rc = tar_next(b->tar, &b->piece, e);
		if (rc < 0)
			return -1;
		b->used = 0;
		b->end = rc == 0;
		if (!b->end && b->piece.kind == TAR_HEADER)
			return err_set(e, ERR_CORRUPT, "%s follows the table of contents",
				       b->piece.entry->name);
	}
	if (b->end)
		return 0;
	part = n < b->piece.len - b->used ? n : b->piece.len - b->used;
	memcpy(buf, (const char *)b->piece.raw + b->used, part);
	b->used += part;
	return (ssize_t)part;
}

static void toc_bytes_free(struct source *s)
{
}

static int open_toc(struct toc_bytes *b, struct blob_at *blob, uint64_t from, uint64_t to,
		    struct err *e)
{
	static const struct source_ops ops = {toc_bytes_read, toc_bytes_free};
	scoped(source_freep) struct source *s = NULL;
	struct tar_limits limits = {0};

	b->base.ops = &ops;
	if (lazy_source(&s, blob, from, to, CODEC_GZIP, e) < 0 ||
	    tar_open(&b->tar, &s, &limits, e) < 0)
		return -1;
	if (tar_next(b->tar, &b->piece, e) <= 0)
		return err_set(e, ERR_CORRUPT, "the footer points at no table of contents");
	if (b->piece.kind != TAR_HEADER || strcmp(b->piece.entry->name, TOC_NAME) != 0 ||
	    b->piece.entry->type != '0')
		return err_set(e, ERR_CORRUPT,
			       "the footer points at something that is not " TOC_NAME);
	return 0;
}

static int want_annotation(const struct descriptor *d, const char *key, const char *found,
			   struct err *e)
{
	const char *told = annotations_get(&d->annotations, key);

	return told && strcmp(told, found) != 0
		       ? err_set(e, ERR_CORRUPT, "the annotation %s is %s, the blob's is %s", key,
				 told, found)
		       : 0;
}

static int check_lazy(struct blob_at *blob, const struct descriptor *d, struct toc_bytes *toc,
		      lazy_piece *on, void *arg, struct err *e)
{
	struct lazy_blob what = {.codec = CODEC_GZIP, .form = TOC_ESTARGZ, .landmark = true};
	uint8_t tail[ESTARGZ_FOOTER];
	size_t n = blob->size < sizeof(tail) ? (size_t)blob->size : sizeof(tail);
	struct digest sum, none;
	char text[DIGEST_TEXT];
	uint64_t unpacked;

	if (blob->read(blob, blob->size - n, tail, n, e) < 0 ||
	    footer_estargz_parse(tail, n, blob->size, &what.data_end, &what.tar_end, e) < 0 ||
	    open_toc(toc, blob, what.data_end, what.tar_end, e) < 0 ||
	    lazy_check(blob, &what, &toc->base, &sum, &none, &unpacked, on, arg, e) < 0 ||
	    want_annotation(d, TOC_DIGEST, digest_text(&sum, text), e) < 0)
		return -1;
	snprintf(text, sizeof(text), "%" PRIu64, unpacked);
	return want_annotation(d, UNCOMPRESSED_SIZE, text, e);
}

static int check(struct blob_at *blob, const struct descriptor *d, lazy_piece *on, void *arg,
		 struct err *e)
{
	struct toc_bytes toc = {0};
	int rc;

	if (!annotations_get(&d->annotations, TOC_DIGEST))
		return lazy_check_plain(blob, CODEC_GZIP, on, arg, e);
	rc = check_lazy(blob, d, &toc, on, arg, e);
	tar_closep(&toc.tar);
	return rc;
}

const struct driver estargz_driver = {
	.name = "estargz",
	.identity = identity,
	.encoding = encoding,
	.largest = largest,
	.cost = cost,
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
	.check = check,
};
