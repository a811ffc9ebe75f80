/* common/mem.c - see mem.h. */
#include "common/mem.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p) {
		fputs("out of memory\n", stderr);
		abort();
	}
	return p;
}

static size_t product(size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		must(NULL);
	return bytes;
}

void *mem_alloc(size_t n)
{
	return must(malloc(n ? n : 1));
}

void *mem_zalloc(size_t n)
{
	return must(calloc(1, n ? n : 1));
}

void *mem_array(size_t n, size_t size)
{
	size_t bytes = product(n, size);

	return mem_zalloc(bytes);
}

void *mem_resize(void *p, size_t n, size_t size)
{
	size_t bytes = product(n, size);

	return must(realloc(p, bytes ? bytes : 1));
}

char *mem_strdup(const char *s)
{
	return s ? must(strdup(s)) : NULL;
}

char *mem_strndup(const char *s, size_t n)
{
	return must(strndup(s, n));
}

void *mem_dup(const void *p, size_t n)
{
	void *to = mem_alloc(n);

	if (n)
		memcpy(to, p, n);
	return to;
}

char *mem_printf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? must(NULL) : s;
}

/* glibc raises its threshold to the largest mapping that was freed: the transfers' and uploads'
 * buffers would then come from the threads' arenas, and stay there when they are freed. */
void mem_setup(void)
{
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	mallopt(M_ARENA_MAX, 1);
}

void mem_trim(void)
{
	malloc_trim(0);
}
