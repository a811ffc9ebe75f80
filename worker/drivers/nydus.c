/* worker/drivers/nydus.c - Nydus: each layer a RAFS blob, all of them merged to a bootstrap that
 * becomes the last layer.
 *
 * The format is worker/rafs; here is what the registry sees: media types, annotations, the
 * bootstrap's tar, configuration and history, and the index of merge_manifest.  A layer's tree
 * waits in the image until all are there.
 *
 * With a chunk dictionary the image's layers are its own blobs in the source's order, then those of
 * the dictionary that they refer to, then the bootstrap. */
#include "worker/drivers/nydus.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/nydusdict.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_dict.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_merge.h"
#include "worker/rafs/rafs_pack.h"
#include "worker/rafs/rafs_read.h"

#define MAX_BOOTSTRAP_TAR RAFS_MAX_BOOTSTRAP

struct drv_image {
	const struct target *target;
	const struct manifest *src;
	struct blob_store *blobs;
	pthread_mutex_t lock;
	struct rafs_layer *layer;      /* by position; fs NULL: not there yet */
	size_t n, room;		       /* layers of the source; of `layer` */
	const struct nydus_dict *dict; /* or NULL */
};

struct drv_layer {
	struct drv_image *im;
	uint32_t index;
	const struct descriptor *from; /* NULL: unknown */
	struct rafs_pack *pack;
	struct out *out;
};

static const struct nydus_options *options(const struct drv_image *im)
{
	return &im->target->nydus;
}

/* ---- what shapes a layer's bytes */

static int identity(const struct target *t, char *text, size_t n)
{
	const struct nydus_options *o = &t->nydus;
	const char *prefetch = o->prefetch_patterns ? o->prefetch_patterns : "";
	const char *dict = o->chunk_dict_ref ? strrchr(o->chunk_dict_ref, '@') : NULL;
	char hex[DIGEST_TEXT], where[DIGEST_TEXT + 16] = "";
	struct digest d;

	if (o->chunk_dict_ref && !dict)
		return -1; /* convert.c names it by digest before it asks */
	/* The bytes are the same wherever they go, but a blob that one backend has another lacks.
	 */
	if (o->backend != NYDUS_REGISTRY) {
		digest_of(&d, DIGEST_SHA256, o->backend_config, strlen(o->backend_config));
		snprintf(where, sizeof(where), " %s=%.16s", storage_kind_name(o->backend),
			 digest_hex(&d, hex));
	}
	digest_of(&d, DIGEST_SHA256, prefetch, strlen(prefetch));
	return snprintf(
		text, n,
		"nydus/%" PRIu32 " chunk_size=%" PRIu64
		" compressor=%d level=%d batch_size=%" PRIu64 " sha256=%d prefetch=%s%s%s%s%s",
		target_format_version(DRIVER_NYDUS), o->chunk_size, o->compressor,
		o->compressor == NYDUS_ZSTD ? o->compression_level : 0, o->batch_size, o->sha256,
		*prefetch ? digest_hex(&d, hex) : "", o->oci_ref ? " oci_ref" : "",
		dict ? " dict=" : "", dict ? dict + 1 : "", where);
}

static struct encode_as encoding(const struct target *t)
{
	static const enum encoding as[] = {
		[NYDUS_NONE] = ENCODE_RAW, [NYDUS_LZ4] = ENCODE_LZ4, [NYDUS_ZSTD] = ENCODE_ZSTD};

	return (struct encode_as){.encoding = as[t->nydus.compressor],
				  .level = t->nydus.compression_level};
}

static size_t largest(const struct target *t)
{
	return (size_t)(t->nydus.chunk_size > t->nydus.batch_size ? t->nydus.chunk_size
								  : t->nydus.batch_size);
}

/* The tree, the bootstrap made of it, and the same read back. */
static struct drv_cost cost(const struct target *t)
{
	return (struct drv_cost){.entry = 340, .chunk = 330, .chunk_size = t->nydus.chunk_size};
}

/* ---- layers */

static struct rafs_pack_opts pack_opts(const struct nydus_options *o)
{
	static const enum v6_compressor as[] = {
		[NYDUS_NONE] = V6_NONE, [NYDUS_LZ4] = V6_LZ4, [NYDUS_ZSTD] = V6_ZSTD};

	return (struct rafs_pack_opts){.chunk_size = (uint32_t)o->chunk_size,
				       .batch_size = (uint32_t)o->batch_size,
				       .compressor = as[o->compressor],
				       .sha256 = o->sha256,
				       .prefetch = o->prefetch_patterns};
}

static int open_dictionary(const struct nydus_options *o, struct blob_store *blobs,
			   const struct nydus_dict **to, struct err *e)
{
	const struct rafs_pack_opts po = pack_opts(o);
	struct nydus_dict *d;

	if (!o->chunk_dict_ref)
		return 0;
	if (nydus_dict_open(&d, o->chunk_dict_ref, blobs, e) < 0)
		return -1;
	if (rafs_dict_fits(nydus_dict_chunks(d), &po, e) < 0)
		return err_wrap(e, "chunk dictionary %s", o->chunk_dict_ref);
	*to = d;
	return 0;
}

static int image_open(struct drv_image **to, const struct target *t, const struct manifest *src,
		      const struct imageconfig *cfg, struct blob_store *blobs, struct err *e)
{
	const struct nydus_dict *dict = NULL;
	struct drv_image *im;

	if (open_dictionary(&t->nydus, blobs, &dict, e) < 0)
		return -1;
	im = mem_zalloc(sizeof(*im));
	im->target = t;
	im->src = src;
	im->blobs = blobs;
	im->dict = dict;
	pthread_mutex_init(&im->lock, NULL);
	im->n = src->n_layers;
	im->room = im->n ? im->n : 1; /* `layer pack` has no manifest */
	im->layer = mem_array(im->room, sizeof(im->layer[0]));
	*to = im;
	return 0;
}

static void image_close(struct drv_image *im)
{
	for (size_t i = 0; i < im->room; i++)
		rafs_layer_fini(&im->layer[i]);
	free(im->layer);
	pthread_mutex_destroy(&im->lock);
	free(im);
}

static int layer_open(struct drv_layer **to, struct drv_image *im, const struct layer_in *in,
		      bool *wants_blocks, struct err *e)
{
	const struct nydus_options *o = options(im);
	struct rafs_pack_opts po = pack_opts(o);
	struct drv_layer *l = mem_zalloc(sizeof(*l));

	/* nydusd can restart in gzip alone: others are converted */
	po.zran = o->oci_ref && in->codec == CODEC_GZIP;
	po.source = in->from ? &in->from->digest : NULL;
	po.source_bytes = in->from ? in->from->size : 0;
	po.dict = im->dict ? nydus_dict_chunks(im->dict) : NULL;
	l->im = im;
	l->index = in->index;
	l->from = in->from;
	l->pack = rafs_pack_new(&po);
	*wants_blocks = po.zran;
	*to = l;
	return 0;
}

static void layer_close(struct drv_layer *l)
{
	rafs_pack_freep(&l->pack);
	free(l);
}

/* A layer that cannot be used in place is read once more and converted. */
static int again(struct drv_layer *l)
{
	return rafs_pack_again(l->pack);
}

static bool headers_only(struct drv_layer *l, int pass)
{
	return false;
}

static void out_opts(struct drv_layer *l, struct out_opts *o)
{
	rafs_pack_out_opts(l->pack, o);
}

static int begin(struct drv_layer *l, int pass, struct out *out, struct err *e)
{
	l->out = out;
	rafs_pack_begin(l->pack, out);
	return 0;
}

static int tar(struct drv_layer *l, const struct tar_piece *p, struct err *e)
{
	return rafs_pack_tar(l->pack, p, e);
}

static int block(struct drv_layer *l, const struct block *b, struct err *e)
{
	return rafs_pack_block(l->pack, b, e);
}

static void set_result(struct layer_result *r, const struct rafs_layer *l,
		       const struct descriptor *from)
{
	char text[DIGEST_TEXT];

	str_copy(r->media_type, sizeof(r->media_type), NYDUS_BLOB_TYPE);
	annotations_set(&r->annotations, NYDUS_BLOB, "true");
	if (rafs_layer_is_ref(l) && from)
		annotations_set(&r->annotations, NYDUS_REF, digest_text(&from->digest, text));
}

static void keep(struct drv_image *im, uint32_t index, struct rafs_layer *l)
{
	pthread_mutex_lock(&im->lock);
	rafs_layer_fini(&im->layer[index]);
	im->layer[index] = *l;
	pthread_mutex_unlock(&im->lock);
	*l = (struct rafs_layer){0};
}

static int layer_end(struct drv_layer *l, struct layer_result *r, struct err *e)
{
	struct rafs_layer done = {0};

	if (rafs_pack_end(l->pack, &done, e) < 0 ||
	    out_sum(l->out, &r->diff_id, &r->unpacked, e) < 0) {
		rafs_layer_fini(&done);
		return -1;
	}
	set_result(r, &done, l->from); /* the blob counts as unpacked: diff_id is its digest */
	keep(l->im, l->index, &done);
	return 0;
}

static int layer_same(struct drv_image *im, const struct layer_in *in, uint32_t first,
		      struct err *e)
{
	struct rafs_layer copy = {0};

	pthread_mutex_lock(&im->lock);
	copy.fs = rafs_clone(im->layer[first].fs);
	copy.meta_n = im->layer[first].meta_n;
	copy.meta = copy.meta_n ? mem_dup(im->layer[first].meta, copy.meta_n) : NULL;
	pthread_mutex_unlock(&im->lock);
	keep(im, in->index, &copy);
	return 0;
}

/* A layer that another program stored, or that an older key names wrongly, is made by these options
 * as far as anyone can tell: what cannot be mixed, and what the operator asked for. */
static int check_own(const struct nydus_options *o, const struct rafs_blob *b, struct err *e)
{
	const struct rafs_pack_opts po = pack_opts(o);

	if (b->features & V6_ZRAN)
		return o->oci_ref ? 0 : err_set(e, ERR_CORRUPT, "its data lie in the source layer");
	if (b->compressor != po.compressor)
		return err_set(e, ERR_CORRUPT, "its chunks are compressed in another way");
	if ((b->digester == V6_DIGEST_SHA256) != po.sha256)
		return err_set(e, ERR_CORRUPT, "its chunks have digests of another kind");
	if (!(b->features & V6_BATCH) != !po.batch_size)
		return err_set(e, ERR_CORRUPT, "its small files are %sbatched",
			       po.batch_size ? "not " : "");
	return 0;
}

/* A stored layer may refer to its own blob and to those of this very dictionary. */
static int check_stored(const struct drv_image *im, const struct rafs_layer *l, struct err *e)
{
	const struct nydus_options *o = options(im);

	if (l->fs->chunk_size != o->chunk_size)
		return err_set(e, ERR_CORRUPT, "chunks of %u bytes for %" PRIu64, l->fs->chunk_size,
			       o->chunk_size);
	for (size_t i = 0; i < l->fs->n_blobs; i++) {
		const struct rafs_blob *b = l->fs->blobs[i];

		if (b->own && check_own(o, b, e) < 0)
			return -1;
		if (!b->own && !(im->dict && rafs_dict_has(nydus_dict_chunks(im->dict), b)))
			return err_set(e, ERR_CORRUPT, "it refers to %.12s, another image's blob",
				       b->id);
	}
	return 0;
}

static int layer_cached(struct drv_image *im, const struct layer_in *in,
			const struct descriptor *stored, struct layer_result *r,
			struct blob_at *blob, struct err *e)
{
	struct rafs_layer l = {0};

	if (rafs_layer_read(&l, blob, e) < 0 || check_stored(im, &l, e) < 0) {
		rafs_layer_fini(&l);
		return err_wrap(e, "stored blob");
	}
	annotations_fini(&r->annotations);
	set_result(r, &l, in->from);
	r->diff_id = stored->digest;
	r->unpacked = stored->size;
	keep(im, in->index, &l);
	return 0;
}

/* ---- the merged bootstrap and its layer */

/* An image of no layers: an empty root. */
static struct rafs *tree_of_none(const struct nydus_options *o)
{
	const struct rafs_pack_opts po = pack_opts(o);

	if (o->oci_ref)
		return rafs_new(po.chunk_size, V6_GZIP, V6_DIGEST_SHA256);
	return rafs_new(po.chunk_size, po.compressor,
			po.sha256 ? V6_DIGEST_SHA256 : V6_DIGEST_BLAKE3);
}

static int merge_layers(struct drv_image *im, const struct descriptor *done, size_t n,
			struct rafs **to, struct err *e)
{
	scoped(rafs_freep) struct rafs *fs = NULL;

	for (size_t i = 0; i < n; i++) {
		struct rafs_layer *l = &im->layer[i];

		if (!l->fs)
			return err_set(e, ERR_BUG, "layer %zu was not converted", i + 1);
		if (rafs_layer_is_ref(l))
			rafs_layer_name_ref(l, &im->src->layers[i].digest, &done[i].digest,
					    done[i].size);
		else
			rafs_layer_name(l, &done[i].digest);
		if (!fs)
			fs = rafs_new(l->fs->chunk_size, l->fs->compressor, l->fs->digester);
		if (rafs_merge(fs, &l->fs, e) < 0)
			return err_wrap(e, "layer %zu", i + 1);
	}
	*to = fs ? take_ptr(fs) : tree_of_none(options(im));
	return 0;
}

static int add_file(struct buf *tar, const char *name, char type, uint32_t mode, const void *p,
		    size_t n, struct err *e)
{
	const struct tar_out h = {.name = name, .type = type, .mode = mode, .size = n};
	static const uint8_t zeros[TAR_BLOCK];
	uint8_t block[TAR_BLOCK];

	tar_write_header(block, &h);
	if (buf_add(tar, block, sizeof(block), e) < 0 || buf_add(tar, p, n, e) < 0)
		return -1;
	return buf_add(tar, zeros, tar_padding(n), e);
}

/* image/image.boot, then what nydusd would keep of each blob; exactly two zero blocks: nydusify
 * computes the diff_id with Go's reader, which stops there. */
static int bootstrap_tar(const struct drv_image *im, const struct buf *boot,
			 const struct descriptor *done, size_t n, struct buf *tar, struct err *e)
{
	static const uint8_t end[2 * TAR_BLOCK];

	if (add_file(tar, "image", '5', 0755, NULL, 0, e) < 0 ||
	    add_file(tar, "image/image.boot", '0', 0444, boot->data, boot->len, e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct rafs_layer *l = &im->layer[i];
		char hex[DIGEST_TEXT], name[128];
		bool again_here = false;

		for (size_t k = 0; k < i; k++)
			again_here |= digest_eq(&done[k].digest, &done[i].digest);
		if (!l->meta_n || again_here)
			continue;
		snprintf(name, sizeof(name), "image/%.64s.blob.meta",
			 digest_hex(&done[i].digest, hex));
		if (add_file(tar, name, '0', 0444, l->meta, l->meta_n, e) < 0)
			return -1;
	}
	return buf_add(tar, end, sizeof(end), e);
}

static bool is_oci(const char *manifest_type)
{
	return !manifest_type[0] || str_eq(manifest_type, MT_OCI_MANIFEST);
}

static int push_bootstrap(struct drv_image *im, const struct buf *tar, struct descriptor *to,
			  struct digest *diff_id, struct err *e)
{
	const struct encode_as as = {.encoding = ENCODE_GZIP};
	scoped(encoder_freep) struct encoder *x = encoder_new();
	scoped(buf_fini) struct buf gz = BUF_INIT(encode_bound(&as, tar->len) + 1);
	size_t n;

	digest_of(diff_id, DIGEST_SHA256, tar->data, tar->len);
	if (buf_reserve(&gz, encode_bound(&as, tar->len), e) < 0 ||
	    encode(x, &as, tar->data, tar->len, gz.data, encode_bound(&as, tar->len), &n, e) < 0 ||
	    encode_verify(x, &as, tar->data, tar->len, gz.data, n, e) < 0)
		return -1;
	if (im->blobs->push(im->blobs, gz.data, n, &to->digest, e) < 0)
		return err_wrap(e, "push");
	to->size = n;
	return 0;
}

struct extra { /* the dictionary's layers that ours refer to, in the order in which they do */
	const struct descriptor *layer[RAFS_MAX_BLOBS];
	size_t n;
};

static void add_extra(struct extra *x, const struct descriptor *d, const struct descriptor *done,
		      size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (digest_eq(&done[k].digest, &d->digest))
			return;
	for (size_t k = 0; k < x->n; k++)
		if (x->layer[k] == d)
			return;
	if (x->n < RAFS_MAX_BLOBS) /* a dictionary has no more */
		x->layer[x->n++] = d;
}

/* Of any layer's files, those too that a later layer hides: so each stored layer can be read with
 * what the image lists. */
static void list_extra(const struct drv_image *im, const struct rafs *merged,
		       const struct descriptor *done, size_t n, struct extra *x)
{
	for (size_t i = 0; im->dict && i < merged->n_blobs; i++) {
		const struct descriptor *d = NULL;

		if (!merged->blobs[i]->own)
			d = nydus_dict_layer(im->dict, merged->blobs[i]->id);
		if (d)
			add_extra(x, d, done, n);
	}
}

static int make_bootstrap(struct drv_image *im, const struct descriptor *done, size_t n,
			  struct descriptor *to, struct digest *diff_id, struct extra *x,
			  struct err *e)
{
	const char *patterns = options(im)->prefetch_patterns;
	const struct rafs_layout_opts lo = {.prefetch = patterns ? patterns : "/"};
	scoped(buf_fini) struct buf boot = BUF_INIT(RAFS_MAX_BOOTSTRAP),
				    tar_bytes = BUF_INIT(MAX_BOOTSTRAP_TAR);
	scoped(rafs_freep) struct rafs *fs = NULL, *back = NULL;

	if (merge_layers(im, done, n, &fs, e) < 0)
		return err_wrap(e, "merge");
	if (rafs_write(fs, &lo, &boot, e) < 0)
		return -1;
	list_extra(im, fs, done, n, x);
	rafs_freep(&fs);
	if (rafs_read(&back, boot.data, boot.len, e) < 0) /* as any reader will */
		return err_wrap(e, "read back");
	rafs_freep(&back); /* a tree takes more than all that follows */
	if (bootstrap_tar(im, &boot, done, n, &tar_bytes, e) < 0)
		return -1;
	buf_fini(&boot);
	return push_bootstrap(im, &tar_bytes, to, diff_id, e);
}

/* ---- manifest and configuration */

/* The new layers instead of the source's: blobs in the source's order, the dictionary's, the
 * bootstrap last. */
static void set_layers(const struct drv_image *im, struct manifest *to,
		       const struct descriptor *done, const struct layer_result *r, size_t n,
		       const struct extra *x, const struct descriptor *bootstrap)
{
	for (size_t i = 0; i < to->n_layers; i++)
		descriptor_fini(&to->layers[i]);
	to->n_layers = 0;
	for (size_t i = 0; i < n; i++) {
		struct descriptor *d = manifest_add_layer(to);

		str_copy(d->media_type, sizeof(d->media_type), r[i].media_type);
		d->digest = done[i].digest;
		d->size = done[i].size;
		annotations_copy(&d->annotations, &r[i].annotations);
	}
	for (size_t i = 0; i < x->n; i++) {
		struct descriptor *d = manifest_add_layer(to);

		str_copy(d->media_type, sizeof(d->media_type), NYDUS_BLOB_TYPE);
		d->digest = x->layer[i]->digest;
		d->size = x->layer[i]->size;
		annotations_set(&d->annotations, NYDUS_BLOB, "true");
		annotations_set(&d->annotations, NYDUS_DICTIONARY, options(im)->chunk_dict_ref);
	}
	descriptor_copy(manifest_add_layer(to), bootstrap);
}

static int bring_extra(struct drv_image *im, const struct extra *x, struct err *e)
{
	for (size_t i = 0; i < x->n; i++)
		if (im->blobs->bring(im->blobs, options(im)->chunk_dict_ref, x->layer[i], e) < 0)
			return err_wrap(e, "chunk dictionary %s", options(im)->chunk_dict_ref);
	return 0;
}

/* The blobs are elsewhere: the bootstrap is the only layer, and the history begins anew, as
 * upstream has it.  Which blobs, in the order of the source's layers, is for `accelctl check`. */
static void set_bootstrap_alone(const struct drv_image *im, struct manifest *to,
				struct imageconfig *cfg, const struct descriptor *done, size_t n,
				struct descriptor *bootstrap, const struct digest *diff_id)
{
	scoped(buf_fini) struct buf list = BUF_INIT(n * (DIGEST_TEXT + 1) + 1);
	const struct extra none = {.n = 0};
	char text[DIGEST_TEXT];

	annotations_set(&bootstrap->annotations, NYDUS_UNCOMPRESSED, digest_text(diff_id, text));
	set_layers(im, to, NULL, NULL, 0, &none, bootstrap);
	for (size_t i = 0; i < n; i++)
		buf_addf(&list, NULL, "%s%s", i ? "," : "", digest_text(&done[i].digest, text));
	annotations_set(&to->annotations, NYDUS_BACKEND_BLOBS, list.data);
	imageconfig_set_diff_ids(cfg, diff_id, 1);
	imageconfig_drop_history(cfg);
}

static int finish(struct drv_image *im, const struct descriptor *done, const struct layer_result *r,
		  size_t n, struct manifest *to, struct imageconfig *cfg, struct err *e)
{
	scoped_free struct digest *diff_ids = mem_array(n + RAFS_MAX_BLOBS + 1, sizeof(*diff_ids));
	const struct nydus_options *o = options(im);
	struct descriptor bootstrap;
	struct digest bootstrap_id;
	struct extra x = {.n = 0};

	descriptor_init(&bootstrap);
	if (n != im->n)
		return err_set(e, ERR_BUG, "%zu layers for %zu", n, im->n);
	if (make_bootstrap(im, done, n, &bootstrap, &bootstrap_id, &x, e) < 0)
		return err_wrap(e, "bootstrap");
	if (bring_extra(im, &x, e) < 0)
		return -1;
	if (o->docker2oci) {
		str_copy(to->media_type, sizeof(to->media_type), MT_OCI_MANIFEST);
		str_copy(to->config.media_type, sizeof(to->config.media_type), MT_OCI_CONFIG);
	}
	if (o->merge_manifest)
		str_copy(to->config.media_type, sizeof(to->config.media_type), NYDUS_CONFIG_TYPE);
	str_copy(bootstrap.media_type, sizeof(bootstrap.media_type),
		 is_oci(to->media_type) ? MT_OCI_LAYER_GZIP : MT_DOCKER_LAYER_GZIP);
	annotations_set(&bootstrap.annotations, NYDUS_BOOTSTRAP, "true");
	annotations_set(&bootstrap.annotations, NYDUS_FS_VERSION, "6");
	if (o->backend != NYDUS_REGISTRY) {
		set_bootstrap_alone(im, to, cfg, done, n, &bootstrap, &bootstrap_id);
	} else {
		set_layers(im, to, done, r, n, &x, &bootstrap);
		for (size_t i = 0; i < n; i++)
			diff_ids[i] = r[i].diff_id;
		for (size_t i = 0; i < x.n; i++)
			diff_ids[n + i] = x.layer[i]->digest;
		diff_ids[n + x.n] = bootstrap_id;
		imageconfig_set_diff_ids(cfg, diff_ids, n + x.n + 1);
	}
	descriptor_fini(&bootstrap);
	imageconfig_drop_legacy_image(cfg);
	for (size_t i = 0; i < x.n; i++)
		imageconfig_add_history(cfg, false, "Nydus Converter", "Nydus Chunk Dictionary",
					false);
	imageconfig_add_history(cfg, false, "Nydus Converter", "Nydus Bootstrap Layer", false);
	return 0;
}

static void mark(const struct target *t, const struct driver_source *from, struct manifest *to)
{
	char text[DIGEST_TEXT];

	annotations_set(&to->annotations, NYDUS_FS_VERSION, "6");
	annotations_set(&to->annotations, NYDUS_SOURCE_DIGEST, digest_text(from->digest, text));
	annotations_set(&to->annotations, NYDUS_SOURCE_REFERENCE, from->reference);
	if (!t->nydus.with_referrer)
		return;
	if (to->has_subject)
		descriptor_fini(&to->subject);
	descriptor_init(&to->subject);
	str_copy(to->subject.media_type, sizeof(to->subject.media_type),
		 from->manifest->media_type);
	to->subject.digest = from->manifest->digest;
	to->subject.size = from->manifest->size;
	to->has_subject = true;
}

/* ---- merge_manifest: the source's manifests, each on top of an empty layer so that no snapshot is
 * shared with the Nydus ones, and those beside them */

/* gzip of 1024 zero bytes, as Go packs them */
static const uint8_t empty_gz[32] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
				     0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14,
				     0x8c, 0x58, 0x00, 0x08, 0x00, 0x00, 0xff, 0xff,
				     0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00};
#define EMPTY_DIFF_ID "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

static int copy_manifest(struct manifest *to, const struct manifest *from, struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(16u << 20);

	if (manifest_write(from, &b, e) < 0)
		return -1;
	return manifest_parse(to, b.data, b.len, e);
}

static int source_config(const struct index_child *c, struct blob_store *blobs,
			 struct descriptor *to, struct err *e)
{
	scoped_free struct digest *ids = mem_array(c->cfg->n_diff_ids + 1, sizeof(*ids));
	scoped(buf_fini) struct buf b = BUF_INIT(16u << 20);
	struct imageconfig cfg;
	int r;

	memcpy(ids + 1, c->cfg->diff_ids, c->cfg->n_diff_ids * sizeof(*ids));
	if (digest_parse(&ids[0], EMPTY_DIFF_ID, e) < 0)
		return -1;
	imageconfig_copy(&cfg, c->cfg);
	imageconfig_set_diff_ids(&cfg, ids, c->cfg->n_diff_ids + 1);
	imageconfig_add_history(&cfg, true, "Nydus Converter", "Nydus Empty Layer", false);
	r = imageconfig_write(&cfg, &b, e);
	imageconfig_fini(&cfg);
	if (r < 0)
		return -1;
	to->size = b.len;
	return blobs->push(blobs, b.data, b.len, &to->digest, e);
}

/* The source's layers behind the empty one. */
static int prepend_empty(struct manifest *m, struct blob_store *blobs, struct err *e)
{
	struct descriptor empty, last;

	descriptor_init(&empty);
	if (blobs->push(blobs, empty_gz, sizeof(empty_gz), &empty.digest, e) < 0)
		return -1;
	empty.size = sizeof(empty_gz);
	str_copy(empty.media_type, sizeof(empty.media_type),
		 is_oci(m->media_type) ? MT_OCI_LAYER_GZIP : MT_DOCKER_LAYER_GZIP);
	annotations_set(&empty.annotations, NYDUS_EMPTY_LAYER, "true");
	manifest_add_layer(m);
	last = m->layers[m->n_layers - 1];
	memmove(m->layers + 1, m->layers, (m->n_layers - 1) * sizeof(m->layers[0]));
	m->layers[0] = empty;
	descriptor_fini(&last);
	return 0;
}

static void set_platform(struct descriptor *d, const struct index_child *c)
{
	d->platform = c->from->platform.set ? c->from->platform : c->cfg->platform;
	d->platform.set = true;
}

static int source_child(const struct index_child *c, struct blob_store *blobs,
			struct manifest_list *push, struct index *to, struct err *e)
{
	scoped(manifest_fini) struct manifest m;
	scoped(buf_fini) struct buf b = BUF_INIT(16u << 20);
	struct manifest_item *item;
	struct descriptor *d;
	char text[DIGEST_TEXT];

	manifest_init(&m);
	if (copy_manifest(&m, c->src, e) < 0 || source_config(c, blobs, &m.config, e) < 0 ||
	    prepend_empty(&m, blobs, e) < 0)
		return -1;
	annotations_set(&m.annotations, NYDUS_SOURCE_DIGEST, digest_text(&c->from->digest, text));
	if (manifest_write(&m, &b, e) < 0)
		return -1;
	mem_grow(push->m, push->n, push->cap);
	item = &push->m[push->n++];
	*item = (struct manifest_item){.n = b.len};
	str_copy(item->media_type, sizeof(item->media_type),
		 m.media_type[0] ? m.media_type : c->from->media_type);
	d = index_add(to);
	str_copy(d->media_type, sizeof(d->media_type), item->media_type);
	digest_of(&d->digest, DIGEST_SHA256, b.data, b.len);
	d->size = b.len;
	annotations_set(&d->annotations, NYDUS_SOURCE_DIGEST, text);
	set_platform(d, c);
	item->data = buf_take(&b);
	return 0;
}

static int make_index(const struct target *t, const struct index *src,
		      const struct index_child *child, size_t n, struct blob_store *blobs,
		      struct manifest_list *push, struct index *to, struct err *e)
{
	if (!t->nydus.merge_manifest)
		return 0;
	str_copy(to->media_type, sizeof(to->media_type), MT_OCI_INDEX);
	if (src)
		annotations_copy(&to->annotations, &src->annotations);
	for (size_t i = 0; i < n; i++)
		if (source_child(&child[i], blobs, push, to, e) < 0)
			return err_wrap(e, "merge_manifest");
	for (size_t i = 0; i < n; i++) {
		struct descriptor *d = index_add(to);

		descriptor_copy(d, child[i].done);
		str_copy(d->artifact_type, sizeof(d->artifact_type), NYDUS_ARTIFACT_TYPE);
		set_platform(d, &child[i]);
	}
	return 1;
}

const struct driver nydus_driver = {
	.name = "nydus",
	.identity = identity,
	.encoding = encoding,
	.largest = largest,
	.cost = cost,
	.image_open = image_open,
	.image_close = image_close,
	.layer_open = layer_open,
	.layer_close = layer_close,
	.again = again,
	.headers_only = headers_only,
	.out_opts = out_opts,
	.begin = begin,
	.tar = tar,
	.block = block,
	.layer_end = layer_end,
	.layer_same = layer_same,
	.layer_cached = layer_cached,
	.finish = finish,
	.mark = mark,
	.index = make_index,
	.check = rafs_check_blob,
};
