/* common/secret.c - see secret.h. */
#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

struct secret {
	size_t n;
	char value[];
};

void secret_wipe(void *p, size_t n)
{
	OPENSSL_cleanse(p, n);
}

struct secret *secret_new(const char *value, size_t n)
{
	struct secret *s = mem_alloc(sizeof(*s) + n + 1);

	s->n = n;
	memcpy(s->value, value, n);
	s->value[n] = '\0';
	return s;
}

struct secret *secret_from_file(const char *path, struct err *e)
{
	enum { MAX = 65536 };
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct secret *s;
	char *p;
	size_t n = 0;
	ssize_t r;

	if (fd < 0) {
		err_errno(e, errno, "cannot read %s", path);
		return NULL;
	}
	p = mem_alloc(MAX + 1);
	while ((r = read(fd, p + n, MAX + 1 - n)) > 0)
		n += (size_t)r;
	if (r < 0 || n > MAX) {
		if (r < 0)
			err_errno(e, errno, "cannot read %s", path);
		else
			err_set(e, ERR_LIMIT, "%s holds more than 64 KiB: it is no secret's file",
				path);
		s = NULL;
	} else {
		if (n > 0 && p[n - 1] == '\n')
			n--;
		if (n > 0 && p[n - 1] == '\r')
			n--;
		s = secret_new(p, n);
	}
	secret_wipe(p, MAX + 1);
	free(p);
	return s;
}

struct secret *secret_from_config(const char *path, struct err *e)
{
	const char *folder = env_get("CREDENTIALS_DIRECTORY");

	if (folder && !strchr(path, '/')) {
		scoped_free char *below = mem_printf("%s/%s", folder, path);

		if (access(below, R_OK) == 0)
			return secret_from_file(below, e);
	}
	return secret_from_file(path, e);
}

struct secret *secret_dup(const struct secret *s)
{
	return s ? secret_new(s->value, s->n) : NULL;
}

void secret_freep(struct secret **s)
{
	if (*s) {
		secret_wipe((*s)->value, (*s)->n);
		free(*s);
	}
	*s = NULL;
}

const char *secret_value(const struct secret *s)
{
	return s->value;
}

size_t secret_len(const struct secret *s)
{
	return s->n;
}

/* Both sides are hashed first, so that not even the length shows. */
bool secret_eq(const struct secret *s, const char *value, size_t n)
{
	uint8_t a[SHA256_DIGEST_LENGTH], b[SHA256_DIGEST_LENGTH];

	if (!s)
		return false;
	SHA256((const uint8_t *)s->value, s->n, a);
	SHA256((const uint8_t *)value, n, b);
	return CRYPTO_memcmp(a, b, sizeof(a)) == 0 && s->n == n;
}

bool secret_matches_sha256(const char *value, size_t n, const char *hex)
{
	uint8_t a[SHA256_DIGEST_LENGTH], b[SHA256_DIGEST_LENGTH];

	if (str_unhex(b, sizeof(b), hex) < 0)
		return false;
	SHA256((const uint8_t *)value, n, a);
	return CRYPTO_memcmp(a, b, sizeof(a)) == 0;
}
