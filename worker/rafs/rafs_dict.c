/* worker/rafs/rafs_dict.c - see rafs_dict.h. */
#include "worker/rafs/rafs_dict.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/rafs/rafs_pack.h"
#include "worker/rafs/rafs_read.h"

#define V5_MAGIC 0x52414653u /* "RAFS", the first bytes of a bootstrap of version 5 */

struct rafs_dict {
	struct rafs *fs; /* no tree */
	const struct rafs_chunk *
		*chunk; /* of all blobs, by digest; of equal ones the first blob's */
	size_t n;
};

void rafs_dict_freep(struct rafs_dict **dp)
{
	struct rafs_dict *d = take_ptr(*dp);

	if (!d)
		return;
	rafs_freep(&d->fs);
	free(d->chunk);
	free(d);
}

static int by_digest(const void *pa, const void *pb)
{
	const struct rafs_chunk *a = *(const struct rafs_chunk *const *)pa,
				*b = *(const struct rafs_chunk *const *)pb;
	int r = memcmp(a->digest, b->digest, sizeof(a->digest));

	if (r)
		return r;
	if (a->blob != b->blob)
		return a->blob->index < b->blob->index ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static void sort_chunks(struct rafs_dict *d)
{
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < d->fs->n_blobs; i++) {
		d->fs->blobs[i]->index = (uint32_t)i;
		n += d->fs->blobs[i]->n_chunks;
	}
	d->chunk = mem_array(n ? n : 1, sizeof(*d->chunk));
	for (size_t i = 0; i < d->fs->n_blobs; i++)
		for (size_t k = 0; k < d->fs->blobs[i]->n_chunks; k++)
			d->chunk[d->n++] = &d->fs->blobs[i]->chunks[k];
	qsort(d->chunk, d->n, sizeof(*d->chunk), by_digest);
	for (size_t i = 0; i < d->n; i++)
		if (!kept || memcmp(d->chunk[kept - 1]->digest, d->chunk[i]->digest, 32) != 0)
			d->chunk[kept++] = d->chunk[i];
	d->n = kept;
}

static int check_blobs(const struct rafs_dict *d, struct err *e)
{
	for (size_t i = 0; i < d->fs->n_blobs; i++) {
		const struct rafs_blob *b = d->fs->blobs[i];

		if (b->features & (V6_ZRAN | V6_SEPARATE))
			return err_set(e, ERR_UNSUPPORTED,
				       "it was made with oci_ref: its data lie in gzip layers");
		if (b->digester != d->fs->digester)
			return err_set(e, ERR_UNSUPPORTED,
				       "its blobs were made with different digesters");
	}
	return 0;
}

int rafs_dict_read(struct rafs_dict **to, const void *boot, size_t n, struct err *e)
{
	scoped(rafs_dict_freep) struct rafs_dict *d = mem_zalloc(sizeof(*d));
	le32 magic;

	if (n >= sizeof(magic)) {
		memcpy(&magic, boot, sizeof(magic));
		if (le32_get(magic) == V5_MAGIC)
			return err_set(e, ERR_UNSUPPORTED,
				       "it is of RAFS v5; a dictionary must be of v6");
	}
	if (rafs_read_chunks(&d->fs, boot, n, e) < 0)
		return err_wrap(e, "bootstrap");
	if (check_blobs(d, e) < 0)
		return -1;
	sort_chunks(d);
	*to = take_ptr(d);
	return 0;
}

static const char *compressor_name(uint32_t c)
{
	static const char *const names[V6_COMPRESSORS] = {
		[V6_NONE] = "none", [V6_LZ4] = "lz4_block", [V6_GZIP] = "gzip", [V6_ZSTD] = "zstd"};

	return c < V6_COMPRESSORS ? names[c] : "?";
}

int rafs_dict_fits(const struct rafs_dict *d, const struct rafs_pack_opts *o, struct err *e)
{
	bool sha256 = d->fs->digester == V6_DIGEST_SHA256;

	if (d->fs->chunk_size != o->chunk_size)
		return err_set(e, ERR_INVALID,
			       "it has chunks of %u bytes, this target has %u; set fs_chunk_size",
			       d->fs->chunk_size, o->chunk_size);
	if (sha256 != o->sha256)
		return err_set(e, ERR_INVALID,
			       "its digester is %s, this target's is %s; set digester",
			       sha256 ? "sha256" : "blake3", o->sha256 ? "sha256" : "blake3");
	for (size_t i = 0; i < d->fs->n_blobs; i++)
		if (d->fs->blobs[i]->compressor != o->compressor)
			return err_set(e, ERR_INVALID,
				       "its compressor is %s, this target's is %s; set compressor",
				       compressor_name(d->fs->blobs[i]->compressor),
				       compressor_name(o->compressor));
	return 0;
}

const struct rafs_chunk *rafs_dict_find(const struct rafs_dict *d, const uint8_t digest[32],
					uint32_t unpacked)
{
	size_t from = 0, to = d->n;

	while (from < to) {
		size_t at = from + (to - from) / 2;
		const struct rafs_chunk *c = d->chunk[at];
		int r = memcmp(digest, c->digest, sizeof(c->digest));

		if (r == 0)
			return c->unpacked == unpacked ? c : NULL;
		if (r < 0)
			to = at;
		else
			from = at + 1;
	}
	return NULL;
}

size_t rafs_dict_blobs(const struct rafs_dict *d)
{
	return d->fs->n_blobs;
}

const struct rafs_blob *rafs_dict_blob(const struct rafs_dict *d, size_t i)
{
	return d->fs->blobs[i];
}

bool rafs_dict_has(const struct rafs_dict *d, const struct rafs_blob *b)
{
	for (size_t i = 0; i < d->fs->n_blobs; i++) {
		const struct rafs_blob *a = d->fs->blobs[i];

		if (strcmp(a->id, b->id) == 0)
			return rafs_blob_same(a, b);
	}
	return false;
}
