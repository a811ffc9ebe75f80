/* worker/drivers/nydusdict.c - see nydusdict.h. */
#include "worker/drivers/nydusdict.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/nydus.h"
#include "worker/rafs/rafs_dict.h"

#define STORED_BOOTSTRAP ((size_t)64 << 20)

struct nydus_dict {
	struct manifest manifest;
	struct rafs_dict *chunks;
};

static void dict_free(void *p)
{
	struct nydus_dict *d = p;

	manifest_fini(&d->manifest);
	rafs_dict_freep(&d->chunks);
	free(d);
}

/* image/image.boot of the bootstrap's layer; what lies beside it is not looked at. */
static int unpack_bootstrap(const struct buf *stored, struct buf *boot, struct err *e)
{
	/* Besides the bootstrap there may be a blob.meta for each layer. */
	const struct codec_opts o = {.max_out = 4 * (uint64_t)RAFS_DICT_BOOTSTRAP};
	scoped(source_freep) struct source *s = source_from_memory(stored->data, stored->len);
	scoped(tar_closep) struct tar_reader *tar = NULL;
	struct tar_piece p;
	enum codec codec;
	int r;

	if (codec_sniff(&s, &codec, e) < 0 || codec_unpack(&s, codec, &o, e) < 0 ||
	    tar_open(&tar, &s, NULL, e) < 0)
		return -1;
	while ((r = tar_next(tar, &p, e)) > 0)
		if (p.kind == TAR_DATA &&
		    (str_eq(p.entry->name, "image/image.boot") ||
		     str_eq(p.entry->name, "image.boot")) &&
		    buf_add(boot, p.raw, p.len, e) < 0)
			return -1;
	if (r == 0 && !boot->len)
		return err_set(e, ERR_INVALID, "no image/image.boot in its last layer");
	return r;
}

static int read_chunks(struct nydus_dict *d, const char *ref, struct blob_store *s, struct err *e)
{
	const struct descriptor *last = &d->manifest.layers[d->manifest.n_layers - 1];
	scoped(buf_fini) struct buf stored = BUF_INIT(STORED_BOOTSTRAP),
				    boot = BUF_INIT(RAFS_DICT_BOOTSTRAP);

	if (str_eq(annotations_get(&last->annotations, NYDUS_FS_VERSION), "5"))
		return err_set(e, ERR_UNSUPPORTED, "it is of RAFS v5; a dictionary must be of v6");
	if (s->fetch(s, ref, last, STORED_BOOTSTRAP, &stored, e) < 0 ||
	    unpack_bootstrap(&stored, &boot, e) < 0)
		return err_wrap(e, "bootstrap");
	return rafs_dict_read(&d->chunks, boot.data, boot.len, e);
}

static int check_layers(const struct nydus_dict *d, struct err *e)
{
	for (size_t i = 0; i < rafs_dict_blobs(d->chunks); i++) {
		const char *id = rafs_dict_blob(d->chunks, i)->id;

		if (!nydus_dict_layer(d, id))
			return err_set(e, ERR_INVALID,
				       "its blob %.12s is no layer of it: it was made with a "
				       "storage backend",
				       id);
	}
	return 0;
}

static int load(struct nydus_dict *d, const char *ref, struct blob_store *s, struct err *e)
{
	const struct manifest *m = &d->manifest;

	if (s->manifest(s, ref, &d->manifest, e) < 0)
		return -1;
	if (!m->n_layers ||
	    !annotations_get(&m->layers[m->n_layers - 1].annotations, NYDUS_BOOTSTRAP))
		return err_set(e, ERR_INVALID,
			       "it is no Nydus image: its last layer is no bootstrap");
	if (read_chunks(d, ref, s, e) < 0)
		return -1;
	return check_layers(d, e);
}

int nydus_dict_open(struct nydus_dict **to, const char *ref, struct blob_store *s, struct err *e)
{
	struct nydus_dict *d = s ? blob_store_kept(s, ref) : NULL;

	if (d) {
		*to = d;
		return 0;
	}
	if (!s || !s->manifest)
		return err_set(e, ERR_UNSUPPORTED,
			       "chunk_dict_ref needs a registry to read the dictionary from");
	d = mem_zalloc(sizeof(*d));
	manifest_init(&d->manifest);
	if (load(d, ref, s, e) < 0) {
		dict_free(d);
		return err_wrap(e, "chunk dictionary %s", ref);
	}
	blob_store_keep(s, ref, d, dict_free);
	*to = d;
	return 0;
}

const struct rafs_dict *nydus_dict_chunks(const struct nydus_dict *d)
{
	return d->chunks;
}

const struct descriptor *nydus_dict_layer(const struct nydus_dict *d, const char *id)
{
	char hex[DIGEST_TEXT];

	for (size_t i = 0; i + 1 < d->manifest.n_layers; i++)
		if (str_eq(digest_hex(&d->manifest.layers[i].digest, hex), id))
			return &d->manifest.layers[i];
	return NULL;
}
