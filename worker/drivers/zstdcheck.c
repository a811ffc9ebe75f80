/* worker/drivers/zstdcheck.c - see zstdcheck.h. */
#include "worker/drivers/zstdcheck.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/drivers/footer.h"
#include "worker/drivers/tarsplit.h"

#define PART ((size_t)64 << 10)

struct zstdcheck {
	struct blob_at *blob;
	const struct descriptor *d;
	struct zstd_footer f;
	struct lazy_blob what;
	/* the tar-split of the tar that is there */
	struct tarsplit *split;
	struct hasher *split_hash;
	lazy_piece *on;
	void *arg;
};

static void zstdcheck_fini(struct zstdcheck *c)
{
	tarsplit_freep(&c->split);
	hasher_freep(&c->split_hash);
}

static int want(const struct zstdcheck *c, const char *key, const char *found, struct err *e)
{
	const char *told = annotations_get(&c->d->annotations, key);

	return told && strcmp(told, found) != 0
		       ? err_set(e, ERR_CORRUPT, "the annotation %s is %s, the blob's is %s", key,
				 told, found)
		       : 0;
}

static int want_span(const struct zstdcheck *c, const char *key, const struct span *s,
		     const char *end, struct err *e)
{
	char text[96];

	snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64 ":%" PRIu64 "%s", s->at, s->n,
		 s->unpacked, end);
	return want(c, key, text, e);
}

/* SHA-256 of a part of the blob as it is stored. */
static int hash_span(struct blob_at *b, const struct span *s, struct digest *d, struct err *e)
{
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped_free uint8_t *buf = mem_alloc(PART);

	for (uint64_t at = 0, n; at < s->n; at += n) {
		n = s->n - at < PART ? s->n - at : PART;
		if (b->read(b, s->at + at, buf, (size_t)n, e) < 0)
			return -1;
		hasher_update(h, buf, (size_t)n);
	}
	hasher_final(h, d);
	return 0;
}

/* SHA-256 and length of what a span unpacks to. */
static int hash_unpacked(struct blob_at *b, const struct span *s, struct digest *d, uint64_t *total,
			 struct err *e)
{
	scoped(source_freep) struct source *src = NULL;
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped_free uint8_t *buf = mem_alloc(PART);
	ssize_t n;

	*total = 0;
	if (lazy_source(&src, b, s->at, s->at + s->n, CODEC_ZSTD, e) < 0)
		return -1;
	while ((n = source_read(src, buf, PART, e)) > 0) {
		hasher_update(h, buf, (size_t)n);
		*total += (uint64_t)n;
	}
	hasher_final(h, d);
	return n < 0 ? -1 : 0;
}

/* A skippable frame of exactly these bytes. */
static int want_skippable(struct zstdcheck *c, const struct span *s, const char *what,
			  struct err *e)
{
	uint8_t is[ZSTD_SKIPPABLE], should[ZSTD_SKIPPABLE];

	if (s->n > UINT32_MAX)
		return err_set(e, ERR_CORRUPT,
			       "the %s has %" PRIu64 " bytes, more than a frame can", what, s->n);
	if (c->blob->read(c->blob, s->at - ZSTD_SKIPPABLE, is, sizeof(is), e) < 0)
		return -1;
	footer_skippable(should, (uint32_t)s->n);
	return memcmp(is, should, sizeof(is))
		       ? err_set(e, ERR_CORRUPT, "the %s is not in a skippable frame", what)
		       : 0;
}

/* What the footer says, and which dialect it is: with containerd's footer a frame between table and
 * footer can only be the tar-split of a blob for both. */
static int read_footer(struct zstdcheck *c, struct err *e)
{
	uint8_t tail[ZSTD_SKIPPABLE + ZSTD_FOOTER_PODMAN];
	size_t n = c->blob->size < sizeof(tail) ? (size_t)c->blob->size : sizeof(tail);
	uint64_t footer_at, toc_end;

	if (c->blob->read(c->blob, c->blob->size - n, tail, n, e) < 0 ||
	    footer_zstd_parse(tail, n, c->blob->size, &c->f, &footer_at, e) < 0 ||
	    want_skippable(c, &c->f.toc, "table of contents", e) < 0)
		return -1;
	toc_end = c->f.toc.at + c->f.toc.n;
	c->what = (struct lazy_blob){.codec = CODEC_ZSTD,
				     .form = TOC_ESTARGZ,
				     .landmark = true,
				     .data_end = c->f.toc.at - ZSTD_SKIPPABLE,
				     .tar_end = c->f.toc.at - ZSTD_SKIPPABLE};
	if (!c->f.tarsplit.n && footer_at == toc_end)
		return 0;
	c->what.form = c->f.tarsplit.n ? TOC_PODMAN : TOC_BOTH;
	c->what.landmark = false;
	if (footer_at < toc_end + ZSTD_SKIPPABLE + 1)
		return err_set(e, ERR_CORRUPT,
			       "there is no room for a tar-split before the footer");
	if (!c->f.tarsplit.n)
		c->f.tarsplit = (struct span){toc_end + ZSTD_SKIPPABLE,
					      footer_at - toc_end - ZSTD_SKIPPABLE, 0};
	if (c->f.tarsplit.at != toc_end + ZSTD_SKIPPABLE ||
	    c->f.tarsplit.at + c->f.tarsplit.n != footer_at)
		return err_set(e, ERR_CORRUPT,
			       "the tar-split does not lie between table of contents and footer");
	return want_skippable(c, &c->f.tarsplit, "tar-split", e);
}

static int hash_line(void *arg, const void *p, size_t n, struct err *e)
{
	hasher_update(arg, p, n);
	return 0;
}

static int on_piece(void *arg, const struct tar_piece *p, struct err *e)
{
	struct zstdcheck *c = arg;

	if (c->split && tarsplit_piece(c->split, p, e) < 0)
		return err_wrap(e, "tar-split");
	return c->on ? c->on(c->arg, p, e) : 0;
}

static int check_split(struct zstdcheck *c, const struct digest *told, struct err *e)
{
	struct digest packed, stored, made;
	uint64_t n;

	if (hash_span(c->blob, &c->f.tarsplit, &packed, e) < 0 ||
	    hash_unpacked(c->blob, &c->f.tarsplit, &stored, &n, e) < 0 ||
	    tarsplit_end(c->split, e) < 0)
		return -1;
	hasher_final(c->split_hash, &made);
	if (!digest_eq(told, &packed))
		return err_set(e, ERR_CORRUPT, "the table's tarSplitDigest is not the tar-split's");
	if (!digest_eq(&stored, &made))
		return err_set(e, ERR_CORRUPT, "the tar-split does not describe this tar");
	if (c->what.form == TOC_PODMAN && n != c->f.tarsplit.unpacked)
		return err_set(e, ERR_CORRUPT,
			       "the footer gives the tar-split %" PRIu64 " bytes, it has %" PRIu64,
			       c->f.tarsplit.unpacked, n);
	c->f.tarsplit.unpacked = n;
	return want_span(c, PODMAN_TARSPLIT, &c->f.tarsplit, "", e);
}

static int check_lazy(struct zstdcheck *c, struct err *e)
{
	scoped(source_freep) struct source *toc = NULL;
	struct digest packed, plain, tarsplit = {0};
	uint64_t unpacked = 0, toc_n;
	char text[DIGEST_TEXT];

	if (read_footer(c, e) < 0 || hash_span(c->blob, &c->f.toc, &packed, e) < 0 ||
	    want(c, CONTAINERD_CHECKSUM, digest_text(&packed, text), e) < 0 ||
	    want(c, PODMAN_CHECKSUM, digest_text(&packed, text), e) < 0 ||
	    want_span(c, CONTAINERD_POSITION, &c->f.toc, ":1", e) < 0 ||
	    want_span(c, PODMAN_POSITION, &c->f.toc, ":1", e) < 0 ||
	    hash_unpacked(c->blob, &c->f.toc, &plain, &toc_n, e) < 0 ||
	    want(c, CONTAINERD_TOC_DIGEST, digest_text(&plain, text), e) < 0)
		return -1;
	if (toc_n != c->f.toc.unpacked)
		return err_set(e, ERR_CORRUPT,
			       "the footer gives the table %" PRIu64 " bytes, it has %" PRIu64,
			       c->f.toc.unpacked, toc_n);
	if (c->what.form != TOC_ESTARGZ) {
		c->split_hash = hasher_new(DIGEST_SHA256);
		c->split = tarsplit_new(hash_line, c->split_hash);
	}
	if (lazy_source(&toc, c->blob, c->f.toc.at, c->f.toc.at + c->f.toc.n, CODEC_ZSTD, e) < 0 ||
	    lazy_check(c->blob, &c->what, toc, &plain, &tarsplit, &unpacked, on_piece, c, e) < 0)
		return -1;
	snprintf(text, sizeof(text), "%" PRIu64, unpacked);
	if (want(c, CONTAINERD_UNPACKED, text, e) < 0)
		return -1;
	return c->what.form == TOC_ESTARGZ ? 0 : check_split(c, &tarsplit, e);
}

int zstdcheck(struct blob_at *blob, const struct descriptor *d, lazy_piece *on, void *arg,
	      struct err *e)
{
	scoped(zstdcheck_fini) struct zstdcheck c = {.blob = blob, .d = d, .on = on, .arg = arg};

	if (!annotations_get(&d->annotations, CONTAINERD_CHECKSUM) &&
	    !annotations_get(&d->annotations, PODMAN_CHECKSUM))
		return lazy_check_plain(blob, CODEC_ZSTD, on, arg, e);
	return check_lazy(&c, e);
}
