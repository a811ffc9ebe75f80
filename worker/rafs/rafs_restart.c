/* worker/rafs/rafs_restart.c - see rafs_restart.h. */
#include "worker/rafs/rafs_restart.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/blob_at.h"
#include "worker/codec/blocks.h"

#define OUT_MAX (16u << 20) /* nydusd refuses larger contexts */
#define IN_MAX (64u << 20)

struct restarts {
	const struct rafs_blob *own;
	const struct v6_info2 *info;
	const struct v6_zran *context;
	uint32_t n;	      /* contexts */
	const uint8_t *dicts; /* all their windows */
	uint64_t dicts_n;
	const uint8_t *digests;
	struct blob_at *gz;
	uint8_t *in, *out;
	uint32_t there; /* the context whose bytes are in `out`; UINT32_MAX: none */
};

/* Infos, contexts and windows lie where the header says, inside what there is. */
static int find_parts(struct restarts *x, const struct rafs_layer *l, size_t digests_n,
		      struct err *e)
{
	const struct v6_meta *h;
	uint64_t infos, at, size, n;

	if (l->meta_n < sizeof(*h))
		return err_set(e, ERR_CORRUPT, "no blob.meta");
	h = (const void *)(l->meta + l->meta_n - sizeof(*h));
	infos = le64_get(h->ci_unpacked);
	at = le64_get(h->contexts_at);
	size = le64_get(h->contexts_size);
	n = le32_get(h->contexts);
	if (le32_get(h->magic) != V6_META_MAGIC || le32_get(h->magic2) != V6_META_MAGIC ||
	    le32_get(h->chunks) != x->own->chunk_count || infos != x->own->ci_unpacked ||
	    infos > l->meta_n - sizeof(*h))
		return err_set(e, ERR_CORRUPT, "blob.meta header: not what the blob table says");
	if (at > infos || size > infos - at || at / sizeof(*x->info) < x->own->chunk_count ||
	    size / sizeof(*x->context) < n)
		return err_set(e, ERR_CORRUPT, "blob.meta: %llu contexts in %llu bytes",
			       (unsigned long long)n, (unsigned long long)size);
	if (digests_n != 32 * (size_t)x->own->chunk_count)
		return err_set(e, ERR_CORRUPT, "blob.digest is not 32 bytes a chunk");
	x->info = (const void *)l->meta;
	x->context = (const void *)(l->meta + at);
	x->n = (uint32_t)n;
	x->dicts = l->meta + at + n * sizeof(*x->context);
	x->dicts_n = size - n * sizeof(*x->context);
	return 0;
}

static int start_again(struct restarts *x, uint32_t i, struct err *e)
{
	const struct v6_zran *c = &x->context[i];
	uint32_t in_n = le32_get(c->in_len), out_n = le32_get(c->out_len),
		 dict_n = le32_get(c->dict_len);
	uint64_t dict = le64_get(c->dict);
	struct restart r = {.window_n = dict_n, .in_bits = c->bits, .in_byte = c->byte};

	if (x->there == i)
		return 0;
	x->there = UINT32_MAX;
	if (dict > x->dicts_n || dict_n > x->dicts_n - dict || out_n > OUT_MAX || in_n > IN_MAX)
		return err_set(e, ERR_CORRUPT, "out of bounds");
	r.window = x->dicts + dict;
	x->in = mem_resize(x->in, in_n ? in_n : 1, 1);
	if (x->gz->read(x->gz, le64_get(c->in), x->in, in_n, e) < 0 ||
	    blocks_restart(&r, x->in, in_n, x->out, out_n, e) < 0)
		return -1;
	x->there = i;
	return 0;
}

static int check_chunk(struct restarts *x, uint32_t i, struct err *e)
{
	uint64_t u = le64_get(x->info[i].word[0]), s = le64_get(x->info[i].word[1]),
		 last = le64_get(x->info[i].word[2]);
	uint64_t at = s & 0xffffffffff, n = s >> 40, from = last & 0xffffffff;
	uint32_t len = (uint32_t)(u >> 32 & 0xffffff) + 1, context = (uint32_t)(last >> 32);
	const struct v6_zran *c;
	struct digest d;

	if (!(u >> 56 & V6_INFO_ZRAN) || context >= x->n)
		return err_set(e, ERR_CORRUPT, "it lies in no context");
	c = &x->context[context];
	if (from + len > le32_get(c->out_len) || at < le64_get(c->in) ||
	    at + n > le64_get(c->in) + le32_get(c->in_len))
		return err_set(e, ERR_CORRUPT, "it ends outside of context %u", context);
	if (start_again(x, context, e) < 0)
		return err_wrap(e, "context %u", context);
	digest_of(&d, DIGEST_SHA256, x->out + from, len);
	if (memcmp(d.bytes, x->digests + 32 * (size_t)i, 32) != 0)
		return err_set(e, ERR_CORRUPT,
			       "what is read behind context %u is not what its digest says",
			       context);
	return 0;
}

static int check_rows(const struct restarts *x, struct err *e)
{
	for (size_t i = 0; i < x->own->n_chunks; i++) {
		const struct rafs_chunk *r = &x->own->chunks[i];

		if (memcmp(r->digest, x->digests + 32 * (size_t)r->index, 32) != 0)
			return err_set(e, ERR_CORRUPT,
				       "chunk table: chunk %u is not what blob.digest says",
				       r->index);
	}
	return 0;
}

static int check_all(struct restarts *x, struct err *e)
{
	if (check_rows(x, e) < 0)
		return -1;
	for (uint32_t i = 0; i < x->own->chunk_count; i++)
		if (check_chunk(x, i, e) < 0)
			return err_wrap(e, "chunk %u", i);
	for (uint32_t i = 0; i < x->n; i++) /* those that no chunk needs must be right, too */
		if (start_again(x, i, e) < 0)
			return err_wrap(e, "context %u", i);
	return 0;
}

int rafs_check_restarts(const struct rafs_layer *l, const void *digests, size_t digests_n,
			struct blob_at *gz, struct err *e)
{
	struct restarts x = {.digests = digests, .gz = gz, .there = UINT32_MAX};
	int r;

	for (size_t i = 0; i < l->fs->n_blobs; i++)
		if (l->fs->blobs[i]->own)
			x.own = l->fs->blobs[i];
	if (!x.own) /* no data, so no context */
		return 0;
	if (!(x.own->features & V6_ZRAN))
		return err_set(e, ERR_CORRUPT, "its blob is no index of a gzip layer");
	if (find_parts(&x, l, digests_n, e) < 0)
		return -1;
	x.out = mem_alloc(OUT_MAX);
	r = check_all(&x, e);
	free(x.in);
	free(x.out);
	return r;
}
