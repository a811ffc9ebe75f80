/* common/digest.c - see digest.h.  Algorithms are fetched once for the process: fetching costs more
 * than hashing a small chunk. */
#include "common/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"

struct hasher {
	enum digest_alg alg;
	EVP_MD_CTX *ctx;
};

static EVP_MD *fetched[3];
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

static void fetch(void)
{
	fetched[DIGEST_SHA256] = EVP_MD_fetch(NULL, "SHA256", NULL);
	fetched[DIGEST_SHA512] = EVP_MD_fetch(NULL, "SHA512", NULL);
}

static const EVP_MD *md(enum digest_alg alg)
{
	pthread_once(&fetch_once, fetch);
	if (!fetched[alg])
		abort();
	return fetched[alg];
}

static const char *alg_name(enum digest_alg alg)
{
	return alg == DIGEST_SHA512 ? "sha512" : "sha256";
}

size_t digest_len(enum digest_alg alg)
{
	return alg == DIGEST_SHA256 ? 32 : alg == DIGEST_SHA512 ? 64 : 0;
}

int digest_parse_n(struct digest *d, const char *text, size_t n, struct err *e)
{
	struct digest r = {0};
	char hex[130];
	size_t len;

	if (n > 7 && memcmp(text, "sha256:", 7) == 0)
		r.alg = DIGEST_SHA256;
	else if (n > 7 && memcmp(text, "sha512:", 7) == 0)
		r.alg = DIGEST_SHA512;
	else
		return err_set(e, ERR_INVALID, "'%.*s' is no sha256 or sha512 digest",
			       (int)(n > 80 ? 80 : n), text);
	len = digest_len(r.alg);
	if (n != 7 + 2 * len)
		return err_set(e, ERR_INVALID, "digest '%.*s' has %zu digits, %s has %zu",
			       (int)(n > 140 ? 140 : n), text, n - 7, alg_name(r.alg), 2 * len);
	memcpy(hex, text + 7, 2 * len);
	hex[2 * len] = '\0';
	if (str_unhex(r.bytes, len, hex) < 0)
		return err_set(e, ERR_INVALID, "digest '%.*s' has other than lower-case hex digits",
			       (int)n, text);
	*d = r;
	return 0;
}

int digest_parse(struct digest *d, const char *text, struct err *e)
{
	return digest_parse_n(d, text, strlen(text), e);
}

const char *digest_text(const struct digest *d, char text[DIGEST_TEXT])
{
	if (d->alg == DIGEST_NONE)
		text[0] = '\0';
	else {
		memcpy(text, alg_name(d->alg), 6);
		text[6] = ':';
		str_hex(text + 7, d->bytes, digest_len(d->alg));
	}
	return text;
}

const char *digest_hex(const struct digest *d, char text[DIGEST_TEXT])
{
	str_hex(text, d->bytes, digest_len(d->alg));
	return text;
}

const char *digest_short(const struct digest *d, char text[DIGEST_TEXT])
{
	digest_text(d, text);
	if (text[0])
		text[7 + 12] = '\0';
	return text;
}

bool digest_eq(const struct digest *a, const struct digest *b)
{
	return a->alg == b->alg && memcmp(a->bytes, b->bytes, digest_len(a->alg)) == 0;
}

bool digest_is_set(const struct digest *d)
{
	return d->alg != DIGEST_NONE;
}

void digest_of(struct digest *d, enum digest_alg alg, const void *p, size_t n)
{
	unsigned len = sizeof(d->bytes);

	memset(d, 0, sizeof(*d));
	d->alg = alg;
	if (EVP_Digest(p, n, d->bytes, &len, md(alg), NULL) != 1)
		abort();
}

struct hasher *hasher_new(enum digest_alg alg)
{
	struct hasher *h = mem_zalloc(sizeof(*h));

	h->alg = alg;
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || EVP_DigestInit_ex2(h->ctx, md(alg), NULL) != 1)
		abort();
	return h;
}

void hasher_freep(struct hasher **h)
{
	if (*h) {
		EVP_MD_CTX_free((*h)->ctx);
		free(*h);
	}
	*h = NULL;
}

void hasher_update(struct hasher *h, const void *p, size_t n)
{
	if (EVP_DigestUpdate(h->ctx, p, n) != 1)
		abort();
}

void hasher_final(struct hasher *h, struct digest *d)
{
	unsigned len = sizeof(d->bytes);

	memset(d, 0, sizeof(*d));
	d->alg = h->alg;
	if (EVP_DigestFinal_ex(h->ctx, d->bytes, &len) != 1 ||
	    EVP_DigestInit_ex2(h->ctx, NULL, NULL) != 1)
		abort();
}

void hasher_peek(const struct hasher *h, struct digest *d)
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	unsigned len = sizeof(d->bytes);

	memset(d, 0, sizeof(*d));
	d->alg = h->alg;
	if (!copy || EVP_MD_CTX_copy_ex(copy, h->ctx) != 1 ||
	    EVP_DigestFinal_ex(copy, d->bytes, &len) != 1)
		abort();
	EVP_MD_CTX_free(copy);
}

void digest_hmac_sha256(uint8_t out[32], const void *key, size_t key_n, const void *p, size_t n)
{
	unsigned len = 32;

	if (!HMAC(EVP_sha256(), key, (int)key_n, p, n, out, &len))
		abort();
}

void digest_hmac_sha1(uint8_t out[20], const void *key, size_t key_n, const void *p, size_t n)
{
	unsigned len = 20;

	if (!HMAC(EVP_sha1(), key, (int)key_n, p, n, out, &len))
		abort();
}

void digest_md5(uint8_t out[16], const void *p, size_t n)
{
	unsigned len = 16;

	if (EVP_Digest(p, n, out, &len, EVP_md5(), NULL) != 1)
		abort();
}

/* The kernel's generator: for the 16 bytes of an id OpenSSL's spends 6,000 instructions on its
 * locks and its own state. */
void digest_random(void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = getrandom((char *)p + at, n - at, 0);

		if (r > 0)
			at += (size_t)r;
		else if (errno != EINTR)
			abort();
	}
}
