/* worker/rafs/rafs_blob.c - see rafs_blob.h. */
#include "worker/rafs/rafs_blob.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/codec/encode.h"
#include "worker/blob_at.h"
#include "worker/out.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_read.h"

#define RATIO_MAX 32768u /* zstd's best: a block of 128 KiB in 4 bytes (RFC 8878, 3.1.1.2) */

/* ---- frames: GNU tar headers of which only name, size, time, checksum, type and magic are filled
 * in */

static unsigned frame_sum(const uint8_t h[RAFS_FRAME])
{
	unsigned sum = 8 * ' ';

	for (size_t i = 0; i < RAFS_FRAME; i++)
		if (i < 148 || i >= 156)
			sum += h[i];
	return sum;
}

void rafs_frame_header(uint8_t h[RAFS_FRAME], const char *name, uint64_t size)
{
	char text[24];

	memset(h, 0, RAFS_FRAME);
	memcpy(h, name, strlen(name));
	if (size >> 33) { /* GNU's form for what 11 octal digits cannot hold */
		h[124] = 0x80;
		for (int i = 0; i < 8; i++)
			h[128 + i] = (uint8_t)(size >> (56 - 8 * i));
	} else {
		snprintf(text, sizeof(text), "%011llo", (unsigned long long)size);
		memcpy(h + 124, text, 11);
	}
	memcpy(h + 136, "00000000000", 11);
	h[156] = '0';
	memcpy(h + 257, "ustar  ", 8);
	snprintf(text, sizeof(text), "%07o", frame_sum(h));
	memcpy(h + 148, text, 7);
}

static int octal(const uint8_t *p, size_t n, uint64_t *v)
{
	*v = 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '7')
			return -1;
		*v = *v << 3 | (uint64_t)(p[i] - '0');
	}
	return 0;
}

int rafs_frame_size(const uint8_t h[RAFS_FRAME], const char *name, uint64_t *size, struct err *e)
{
	uint64_t sum;

	if (memcmp(h + 257, "ustar  ", 8) != 0 || h[156] != '0')
		return err_set(e, ERR_CORRUPT, "no frame of \"%s\" at the end: not a nydus blob",
			       name);
	if (strncmp((const char *)h, name, 100) != 0)
		return err_set(e, ERR_CORRUPT, "the last frame is not \"%s\"", name);
	if (octal(h + 124, 11, size) < 0 || octal(h + 148, 6 + (h[154] >= '0'), &sum) < 0)
		return err_set(e, ERR_CORRUPT,
			       "frame of \"%s\": size or checksum is no octal number", name);
	if (sum != frame_sum(h))
		return err_set(e, ERR_CORRUPT, "frame of \"%s\": checksum %llo, want %o", name,
			       (unsigned long long)sum, frame_sum(h));
	return 0;
}

/* ---- reading */

static int read_entry(struct rafs_section *s, const struct v6_toc *t, uint64_t toc_at,
		      struct err *e)
{
	memcpy(s->name, t->name, sizeof(t->name));
	s->name[sizeof(t->name)] = '\0';
	s->flags = le32_get(t->flags);
	s->offset = le64_get(t->offset);
	s->stored = le64_get(t->stored);
	s->unpacked = le64_get(t->unpacked);
	s->digest = (struct digest){.alg = DIGEST_SHA256};
	memcpy(s->digest.bytes, t->digest, sizeof(t->digest));
	if (s->flags != V6_TOC_RAW && s->flags != V6_TOC_ZSTD && s->flags != V6_TOC_LZ4)
		return err_set(e, ERR_CORRUPT, "table of contents: flags %#x", s->flags);
	if (s->offset > toc_at || s->stored > toc_at - s->offset)
		return err_set(e, ERR_CORRUPT, "table of contents: \"%.16s\" ends behind it",
			       s->name);
	return 0;
}

int rafs_toc_read(struct rafs_toc *t, struct blob_at *blob, struct err *e)
{
	uint8_t tail[RAFS_TOC_MAX * sizeof(struct v6_toc) + RAFS_FRAME];
	uint64_t size = blob->size < sizeof(tail) ? blob->size : sizeof(tail), n;

	if (size < RAFS_FRAME)
		return err_set(e, ERR_CORRUPT, "%llu bytes are no nydus blob",
			       (unsigned long long)blob->size);
	if (blob->read(blob, blob->size - size, tail, size, e) < 0 ||
	    rafs_frame_size(tail + size - RAFS_FRAME, "rafs.blob.toc", &n, e) < 0)
		return -1;
	if (!n || n > size - RAFS_FRAME || n % sizeof(struct v6_toc))
		return err_set(e, ERR_CORRUPT, "table of contents of %llu bytes",
			       (unsigned long long)n);
	*t = (struct rafs_toc){.at = blob->size - RAFS_FRAME - n};
	for (size_t at = size - RAFS_FRAME - n; at < size - RAFS_FRAME; at += sizeof(struct v6_toc))
		if (read_entry(&t->s[t->n++], (const void *)(tail + at), t->at, e) < 0)
			return -1;
	for (size_t i = 0; i < t->n; i++)
		if (rafs_toc_find(t, t->s[i].name) != &t->s[i])
			return err_set(e, ERR_CORRUPT, "table of contents: \"%.16s\" twice",
				       t->s[i].name);
	return 0;
}

const struct rafs_section *rafs_toc_find(const struct rafs_toc *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->s[i].name, name))
			return &t->s[i];
	return NULL;
}

/* Unpacks stored bytes that are already here. */
static int unpack(const struct rafs_section *s, const void *p, struct buf *to, struct err *e)
{
	scoped(encoder_freep) struct encoder *x = NULL;
	size_t at = to->len, got = s->stored;
	struct digest d;

	if (s->flags == V6_TOC_RAW && s->stored != s->unpacked)
		return err_set(e, ERR_CORRUPT, "stored as it is, but %llu bytes for %llu",
			       (unsigned long long)s->stored, (unsigned long long)s->unpacked);
	if (s->unpacked / RATIO_MAX > s->stored)
		return err_set(e, ERR_CORRUPT, "%llu bytes cannot unpack to %llu",
			       (unsigned long long)s->stored, (unsigned long long)s->unpacked);
	if (buf_reserve(to, s->unpacked, e) < 0)
		return -1;
	if (s->flags == V6_TOC_RAW) {
		memcpy(to->data + at, p, s->stored);
	} else {
		x = encoder_new();
		if (decode(x, s->flags == V6_TOC_ZSTD ? ENCODE_ZSTD : ENCODE_LZ4, p, s->stored,
			   to->data + at, s->unpacked, &got, e) < 0)
			return -1;
	}
	digest_of(&d, DIGEST_SHA256, to->data + at, got);
	if (got != s->unpacked || !digest_eq(&d, &s->digest))
		return err_set(
			e, ERR_CORRUPT,
			"unpacks to %zu bytes that its digest in the table of contents denies",
			got);
	to->len = at + got;
	to->data[to->len] = '\0';
	return 0;
}

int rafs_section_read(const struct rafs_section *s, struct blob_at *blob, struct buf *to,
		      struct err *e)
{
	scoped(buf_fini) struct buf stored = BUF_INIT(to->max);

	if (buf_reserve(&stored, s->stored, e) < 0 ||
	    blob->read(blob, s->offset, stored.data, s->stored, e) < 0 ||
	    unpack(s, stored.data, to, e) < 0)
		return err_wrap(e, "%s", s->name);
	return 0;
}

/* blob.meta as nydusd keeps it: chunk infos to whole blocks, then the header. */
static int read_meta(struct rafs_layer *l, const struct rafs_toc *toc, struct blob_at *blob,
		     struct err *e)
{
	const struct rafs_section *infos = rafs_toc_find(toc, "blob.meta");
	const struct rafs_section *header = rafs_toc_find(toc, "blob.meta.header");
	scoped(buf_fini) struct buf b = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	static const char zeros[RAFS_BLOCK];

	if (!infos && !header)
		return 0;
	if (!infos || !header || header->unpacked != sizeof(struct v6_meta))
		return err_set(e, ERR_CORRUPT,
			       "blob.meta without its header, or the other way round");
	if (rafs_section_read(infos, blob, &b, e) < 0 ||
	    buf_add(&b, zeros, (size_t)(-b.len % RAFS_BLOCK), e) < 0 ||
	    rafs_section_read(header, blob, &b, e) < 0)
		return -1;
	l->meta_n = b.len;
	l->meta = (uint8_t *)buf_take(&b);
	return 0;
}

int rafs_layer_read(struct rafs_layer *l, struct blob_at *blob, struct err *e)
{
	scoped(buf_fini) struct buf boot = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	scoped(rafs_layer_fini) struct rafs_layer made = {0};
	const struct rafs_section *s;
	struct rafs_toc toc;

	if (rafs_toc_read(&toc, blob, e) < 0)
		return -1;
	s = rafs_toc_find(&toc, "image.boot");
	if (!s)
		return err_set(e, ERR_CORRUPT, "the blob has no image.boot");
	if (read_meta(&made, &toc, blob, e) < 0 || rafs_section_read(s, blob, &boot, e) < 0)
		return -1;
	if (rafs_read(&made.fs, boot.data, boot.len, e) < 0)
		return err_wrap(e, "image.boot");
	*l = made;
	made = (struct rafs_layer){0};
	return 0;
}

void rafs_layer_fini(struct rafs_layer *l)
{
	rafs_freep(&l->fs);
	free(l->meta);
	*l = (struct rafs_layer){0};
}

void rafs_layer_name(struct rafs_layer *l, const struct digest *id)
{
	char text[DIGEST_TEXT];

	for (size_t i = 0; i < l->fs->n_blobs; i++)
		if (l->fs->blobs[i]->own)
			memcpy(l->fs->blobs[i]->id, digest_hex(id, text), RAFS_ID_LEN);
}

void rafs_layer_name_ref(struct rafs_layer *l, const struct digest *source, const struct digest *id,
			 uint64_t bytes)
{
	if (source)
		rafs_layer_name(l, source);
	for (size_t i = 0; i < l->fs->n_blobs; i++) {
		struct rafs_blob *b = l->fs->blobs[i];

		if (!b->own)
			continue;
		memcpy(b->meta_digest, id->bytes, sizeof(b->meta_digest));
		b->meta_size = bytes;
	}
}

bool rafs_layer_is_ref(const struct rafs_layer *l)
{
	return l->fs->compressor == V6_GZIP;
}

/* ---- writing what follows the data */

struct tail {
	struct out *out;
	struct v6_toc toc[RAFS_TOC_MAX];
	size_t n;
	uint64_t at; /* bytes of the blob so far */
};

static int literal(struct tail *t, const void *p, size_t n, struct err *e)
{
	t->at += n;
	return out_literal(t->out, p, n, e);
}

static void note(struct tail *t, const char *name, uint32_t flags, const struct digest *d,
		 uint64_t offset, uint64_t stored, uint64_t unpacked)
{
	struct v6_toc *x = &t->toc[t->n++];

	*x = (struct v6_toc){.flags = le32_of(flags),
			     .offset = le64_of(offset),
			     .stored = le64_of(stored),
			     .unpacked = le64_of(unpacked)};
	memcpy(x->name, name, strnlen(name, sizeof(x->name)));
	memcpy(x->digest, d->bytes, sizeof(x->digest));
}

static int frame(struct tail *t, const char *name, uint64_t size, struct err *e)
{
	uint8_t h[RAFS_FRAME];

	rafs_frame_header(h, name, size);
	return literal(t, h, sizeof(h), e);
}

/* zstd if that is smaller.  *stored_n and flags for the tables. */
static int section(struct tail *t, const char *name, bool compress, const void *p, size_t n,
		   uint64_t *stored, uint32_t *flags, struct err *e)
{
	struct encode_as as = {.encoding = ENCODE_ZSTD};
	scoped(encoder_freep) struct encoder *x = compress ? encoder_new() : NULL;
	scoped(buf_fini) struct buf b = BUF_INIT(encode_bound(&as, n) + 1);
	uint64_t at = t->at;
	struct digest d;
	size_t packed = n;

	if (compress && (buf_reserve(&b, encode_bound(&as, n), e) < 0 ||
			 encode(x, &as, p, n, b.data, encode_bound(&as, n), &packed, e) < 0))
		return -1;
	*flags = packed < n ? V6_TOC_ZSTD : V6_TOC_RAW;
	*stored = packed < n ? packed : n;
	digest_of(&d, DIGEST_SHA256, p, n);
	note(t, name, *flags, &d, at, *stored, n);
	return literal(t, packed < n ? (const void *)b.data : p, (size_t)*stored, e);
}

static int write_data_sections(struct tail *t, const struct rafs_end *end, struct rafs_blob *b,
			       struct rafs_layer *l, struct err *e)
{
	scoped(buf_fini) struct buf digests = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	uint64_t infos_n = end->infos->len, digests_n;
	struct v6_meta h;
	struct digest d;
	uint32_t flags;

	if (end->data) { /* that digest covers data and frame: so do upstream's, and no one reads it
			  */
		if (frame(t, "image.blob", end->data, e) < 0 || out_mark(t->out, &d, e) < 0)
			return -1;
		note(t, "image.blob", V6_TOC_RAW, &d, 0, end->data, b->unpacked);
	}
	b->ci_offset = t->at;
	b->ci_unpacked = infos_n;
	if (section(t, "blob.meta", end->compress_infos, end->infos->data, infos_n, &b->ci_stored,
		    &flags, e) < 0)
		return -1;
	b->ci_compressor = flags == V6_TOC_ZSTD ? V6_ZSTD : V6_NONE;
	h = (struct v6_meta){
		.magic = le32_of(V6_META_MAGIC),
		.features = le32_of(b->features | V6_INLINED_META),
		.ci_compressor = le32_of(b->ci_compressor),
		.chunks = le32_of(b->chunk_count),
		.ci_offset = le64_of(b->ci_offset),
		.ci_stored = le64_of(b->ci_stored),
		.ci_unpacked = le64_of(infos_n),
		.contexts_at = le64_of(end->contexts ? infos_n - end->contexts_size : 0),
		.contexts_size = le64_of(end->contexts_size),
		.contexts = le32_of(end->contexts),
		.magic2 = le32_of(V6_META_MAGIC),
	};
	digest_of(&d, DIGEST_SHA256, &h, sizeof(h));
	note(t, "blob.meta.header", V6_TOC_RAW, &d, t->at, sizeof(h), sizeof(h));
	if (literal(t, &h, sizeof(h), e) < 0 ||
	    frame(t, "blob.meta", b->ci_stored + sizeof(h), e) < 0)
		return -1;
	for (size_t i = 0; i < b->n_chunks; i++)
		if (buf_add(&digests, b->chunks[i].digest, 32, e) < 0)
			return -1;
	if (section(t, "blob.digest", false, digests.data, digests.len, &digests_n, &flags, e) <
		    0 ||
	    frame(t, "blob.digest", digests_n, e) < 0)
		return -1;
	l->meta_n = rafs_up(infos_n, RAFS_BLOCK) + sizeof(h);
	l->meta = mem_zalloc(l->meta_n);
	memcpy(l->meta, end->infos->data, infos_n);
	memcpy(l->meta + l->meta_n - sizeof(h), &h, sizeof(h));
	return 0;
}

int rafs_end_write(const struct rafs_end *end, struct rafs *fs, struct rafs_layer *l, struct err *e)
{
	struct rafs_layout_opts lo = {.layer = true, .prefetch = end->prefetch};
	scoped(buf_fini) struct buf boot = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	struct tail t = {.out = end->out, .at = end->data};
	uint64_t stored;
	uint32_t flags;

	if (end->infos->len) {
		if (write_data_sections(&t, end, fs->blobs[0], l, e) < 0)
			return -1;
		if (!fs->blobs[0]->stored)
			fs->blobs[0]->stored = t.at;
	}
	if (rafs_write(fs, &lo, &boot, e) < 0 ||
	    section(&t, "image.boot", true, boot.data, boot.len, &stored, &flags, e) < 0 ||
	    frame(&t, "image.boot", stored, e) < 0 ||
	    literal(&t, t.toc, t.n * sizeof(t.toc[0]), e) < 0 ||
	    frame(&t, "rafs.blob.toc", t.n * sizeof(t.toc[0]), e) < 0)
		return -1;
	return out_drain(end->out, e);
}
