/* worker/registry/blob.c - blobs pulled: see registry.h.
 *
 * A transfer that breaks goes on by Range from the last good byte, as long as it makes progress; a
 * registry that answers 200 to a Range is taken at its word, and what we have is skipped. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream_impl.h"
#include "worker/oci/descriptor.h"
#include "worker/registry/registry_impl.h"

enum {
	RESUMES_WITHOUT_PROGRESS = 3,
	RESUMES = 32,
	RANGE_MAX = 64 << 20,
	SKIP_PIECE = 64 << 10,
};

static char *blob_url(const struct registry *r, const char *repository, const struct digest *d)
{
	char text[DIGEST_TEXT];
	scoped_free char *rest = mem_printf("blobs/%s", digest_text(d, text));

	return registry_url(r, repository, rest);
}

int blob_exists(struct registry *r, const char *repository, const struct digest *d, uint64_t *size,
		struct err *e)
{
	return registry_blob_head(r, repository, d, false, size, e);
}

int registry_blob_head(struct registry *r, const char *repository, const struct digest *d,
		       bool push, uint64_t *size, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = blob_url(r, repository, d);
	char text[DIGEST_TEXT];
	struct ask a = {.method = "HEAD",
			.url = url,
			.repository = repository,
			.push = push,
			.what = ASK_BLOB_GET,
			.digest = digest_short(d, text)};
	const char *len;
	uint64_t n;

	if (registry_ask(r, &a, &resp, NULL, e) < 0)
		return -1;
	if (http_status(resp) == 404)
		return 0;
	if (http_status(resp) != 200)
		return registry_bad(r, &a, resp, e);
	len = http_header(resp, "content-length");
	if (size)
		*size = len && str_u64(len, &n, NULL) == 0 ? n : UINT64_MAX;
	return 1;
}

/* ---- one GET, from an offset */
/* "bytes 5-9/10" -> 5; UINT64_MAX when it is not that. */
static uint64_t content_range_start(const char *value)
{
	char digits[24];
	uint64_t v;
	size_t n;

	if (!value || strncasecmp(value, "bytes ", 6))
		return UINT64_MAX;
	value += 6;
	n = strspn(value, "0123456789");
	if (n == 0 || n >= sizeof(digits) || value[n] != '-')
		return UINT64_MAX;
	memcpy(digits, value, n);
	digits[n] = '\0';
	return str_u64(digits, &v, NULL) == 0 ? v : UINT64_MAX;
}

static int skip(struct source *s, uint64_t n, struct err *e)
{
	scoped_free char *p = mem_alloc(SKIP_PIECE);

	while (n) {
		size_t want = n < SKIP_PIECE ? (size_t)n : SKIP_PIECE;
		ssize_t k = source_read(s, p, want, e);

		if (k < 0)
			return -1;
		if ((size_t)k < want)
			return err_set(e, ERR_NET, "the body ended before where we had been");
		n -= want;
	}
	return 0;
}

struct pull { /* a blob, or a part of one */
	struct registry *r;
	char *repository;
	struct digest digest;
	uint64_t size; /* of the whole blob; UINT64_MAX: unknown */
};

/* from..to (inclusive; to UINT64_MAX: to the end). */
static int pull_open(const struct pull *p, uint64_t from, uint64_t to, struct source **body,
		     struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped(source_freep) struct source *got = NULL;
	scoped_free char *url = blob_url(p->r, p->repository, &p->digest);
	char text[DIGEST_TEXT], range[64];
	struct ask a = {.method = "GET",
			.url = url,
			.repository = p->repository,
			.what = ASK_BLOB_GET,
			.digest = digest_short(&p->digest, text)};
	const char *len;
	uint64_t n;

	if (to != UINT64_MAX)
		snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, from, to);
	else
		snprintf(range, sizeof(range), "bytes=%" PRIu64 "-", from);
	if (from || to != UINT64_MAX)
		a.range = range;
	if (registry_ask(p->r, &a, &resp, &got, e) < 0)
		return -1;
	if (!got)
		return registry_bad(p->r, &a, resp, e);
	if (regerr_is_page(http_header(resp, "content-type"), NULL, 0))
		return regerr_page(p->r->s->host, "the blob", e);
	if (http_status(resp) == 206) {
		if (content_range_start(http_header(resp, "content-range")) != from)
			return err_set(e, ERR_NET, "%s answered with another range than %s",
				       p->r->s->host, range);
	} else {
		len = http_header(resp, "content-length");
		if (len && str_u64(len, &n, NULL) == 0 && p->size != UINT64_MAX && n != p->size)
			return err_class(e, ERR_CORRUPT, CLASS_RETRY,
					 "%s delivered %" PRIu64
					 " bytes, the descriptor says %" PRIu64,
					 p->r->s->host, n, p->size);
		if (skip(got, from, e) < 0)
			return -1;
	}
	*body = take_ptr(got);
	return 0;
}

/* ---- a blob as a source */
struct blob_src {
	struct source s;
	struct pull p;
	struct source *body;
	uint64_t at, at_last_break;
	unsigned breaks, fruitless;
};

static void wait_a_little(unsigned n)
{
	struct timespec t = {.tv_nsec = 200000000L * (n < 4 ? n : 4)};

	nanosleep(&t, NULL);
}

static bool may_resume(const struct err *e)
{
	return e->code == ERR_NET && (e->status == 0 || e->status >= 500 || e->status == 408);
}

/* The body broke (why): opens it again from where we are.  -1 leaves the last reason in why. */
static int resume(struct blob_src *b, struct err *why)
{
	for (;;) {
		b->fruitless = b->at > b->at_last_break ? 0 : b->fruitless + 1;
		b->at_last_break = b->at;
		if (!may_resume(why) || ++b->breaks > RESUMES ||
		    b->fruitless >= RESUMES_WITHOUT_PROGRESS)
			return -1;
		source_freep(&b->body);
		wait_a_little(b->fruitless + 1);
		*why = (struct err){0};
		if (pull_open(&b->p, b->at, UINT64_MAX, &b->body, why) == 0)
			return 0;
	}
}

static ssize_t blob_read(struct source *s, void *p, size_t n, struct err *e)
{
	struct blob_src *b = (struct blob_src *)s;

	for (;;) {
		struct err why = {0};
		ssize_t k;
		uint64_t before = source_pos(b->body);

		if (b->p.size != UINT64_MAX && b->at == b->p.size)
			return 0; /* what comes after is none of it */
		k = source_read(b->body, p, n, &why);
		if (k > 0) {
			if (b->p.size != UINT64_MAX && (uint64_t)k > b->p.size - b->at)
				return err_class(e, ERR_CORRUPT, CLASS_RETRY,
						 "%s delivered more than %" PRIu64
						 " bytes, which the descriptor says",
						 b->p.r->s->host, b->p.size);
			b->at += (uint64_t)k;
			return k;
		}
		if (k < 0)
			b->at += source_pos(b->body) - before;
		if (k < 0 && source_pos(b->body) > before) {
			/* The source handed out a part before it broke: keep it, break next time.
			 */
			ssize_t got = (ssize_t)(source_pos(b->body) - before);

			if (resume(b, &why) < 0)
				return e ? (*e = why, -1) : -1;
			return got;
		}
		if (k == 0) {
			if (b->p.size == UINT64_MAX || b->at == b->p.size)
				return 0;
			err_set(&why, ERR_NET,
				"connection closed after %" PRIu64 " of %" PRIu64 " bytes", b->at,
				b->p.size);
		}
		if (resume(b, &why) < 0)
			return e ? (*e = why, -1) : -1;
	}
}

static void blob_free(struct source *s)
{
	struct blob_src *b = (struct blob_src *)s;

	source_freep(&b->body);
	free(b->p.repository);
	free(b);
}

static int raw_source(struct source **s, struct registry *r, const char *repository,
		      const struct digest *d, uint64_t size, struct err *e)
{
	static const struct source_ops ops = {blob_read, blob_free};
	struct blob_src *b = mem_zalloc(sizeof(*b));

	b->s.ops = &ops;
	b->p = (struct pull){r, mem_strdup(repository), *d, size};
	if (pull_open(&b->p, 0, UINT64_MAX, &b->body, e) < 0) {
		blob_free(&b->s);
		return -1;
	}
	*s = &b->s;
	return 0;
}

int blob_source(struct source **s, struct registry *r, const char *repository,
		const struct descriptor *d, struct err *e)
{
	struct source *raw;

	if (raw_source(&raw, r, repository, &d->digest, d->size, e) < 0)
		return -1;
	*s = source_verify(&raw, &d->digest, d->size);
	return 0;
}

int blob_range(struct registry *r, const char *repository, const struct digest *d, uint64_t offset,
	       size_t n, void *to, struct err *e)
{
	struct pull p = {r, (char *)repository, *d, UINT64_MAX};
	size_t done = 0;
	unsigned fruitless = 0;

	if (n > RANGE_MAX)
		return err_set(e, ERR_LIMIT, "a range of %zu bytes", n);
	while (done < n) {
		scoped(source_freep) struct source *body = NULL;
		struct err why = {0};
		uint64_t got;

		if (pull_open(&p, offset + done, offset + n - 1, &body, &why) == 0) {
			ssize_t k = source_read(body, (char *)to + done, n - done, &why);

			got = source_pos(body);
			if (k >= 0 && got == 0)
				err_set(&why, ERR_NET, "%s: the blob ends before byte %" PRIu64,
					r->s->host, offset + n);
			done += (size_t)got;
			fruitless = got ? 0 : fruitless + 1;
		} else {
			fruitless++;
		}
		if (done < n &&
		    (fruitless >= RESUMES_WITHOUT_PROGRESS || (why.code && !may_resume(&why))))
			return e ? (*e = why, -1) : -1;
	}
	return 0;
}

int blob_fetch(struct registry *r, const char *repository, const struct descriptor *d, size_t max,
	       struct buf *to, struct err *e)
{
	size_t start = to->len;

	if (d->size > max)
		return err_set(e, ERR_LIMIT, "a blob of %" PRIu64 " bytes, at most %zu are read",
			       d->size, max);
	for (int i = 0;; i++) {
		scoped(source_freep) struct source *s = NULL;
		struct err why = {0};
		ssize_t n = -1;

		if (buf_reserve(to, (size_t)d->size + 1, e) < 0)
			return -1;
		if (blob_source(&s, r, repository, d, &why) == 0)
			n = source_read(s, to->data + start, (size_t)d->size + 1, &why);
		if (n >= 0) {
			to->len = start + (size_t)n;
			to->data[to->len] = '\0';
			return 0;
		}
		if (why.code == ERR_CORRUPT && i == 0)
			continue; /* once more, on a new connection */
		if (why.code == ERR_CORRUPT)
			why.class = CLASS_FINAL;
		return e ? (*e = why, -1) : -1;
	}
}
