/* common/digest.h - "sha256:<hex>": computed as bytes pass, parsed, compared.
 * OCI image-spec v1.1, descriptor.md, "Digests": sha256 and sha512 are registered; we take both. */
#ifndef COMMON_DIGEST_H
#define COMMON_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum digest_alg { DIGEST_NONE, DIGEST_SHA256, DIGEST_SHA512 };

struct digest { /* copied by value; all zero: none */
	enum digest_alg alg;
	uint8_t bytes[64]; /* 32 or 64 used, the rest 0 */
};

#define DIGEST_TEXT 136 /* "sha512:" + 128 + NUL */

int digest_parse(struct digest *d, const char *text, struct err *e);
int digest_parse_n(struct digest *d, const char *text, size_t n, struct err *e);
const char *digest_text(const struct digest *d, char text[DIGEST_TEXT]); /* returns text */
const char *digest_hex(const struct digest *d, char text[DIGEST_TEXT]);	 /* without "sha256:" */
/* "sha256:9f86d081884c", for messages. */
const char *digest_short(const struct digest *d, char text[DIGEST_TEXT]);
bool digest_eq(const struct digest *a, const struct digest *b);
bool digest_is_set(const struct digest *d);
size_t digest_len(enum digest_alg alg);

void digest_of(struct digest *d, enum digest_alg alg, const void *p, size_t n); /* one shot */

struct hasher; /* a running digest */
struct hasher *hasher_new(enum digest_alg alg);
void hasher_freep(struct hasher **h);
void hasher_update(struct hasher *h, const void *p, size_t n);
void hasher_final(struct hasher *h, struct digest *d);	    /* h starts anew */
void hasher_peek(const struct hasher *h, struct digest *d); /* of what came so far; h goes on */

/* For request signatures: HMAC-SHA256 (S3); HMAC-SHA1, and MD5 for Content-MD5 (OSS). */
void digest_hmac_sha256(uint8_t out[32], const void *key, size_t key_n, const void *p, size_t n);
void digest_hmac_sha1(uint8_t out[20], const void *key, size_t key_n, const void *p, size_t n);
void digest_md5(uint8_t out[16], const void *p, size_t n);
void digest_random(void *p,
		   size_t n); /* unpredictable bytes (RAND_bytes); aborts if there are none */

#endif
