/* common/mem.h - small allocations that cannot fail: they abort, the lease runs out, and the task
 * is taken again elsewhere.  A size that comes from outside never gets here: that is what buf is
 * for. */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stddef.h>

void *mem_alloc(size_t n);		/* contents undefined */
void *mem_zalloc(size_t n);		/* all zero */
void *mem_array(size_t n, size_t size); /* zeroed; aborts on overflow */
void *mem_resize(void *p, size_t n, size_t size);
char *mem_strdup(const char *s); /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n);
void *mem_dup(const void *p, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Makes room for one more element of *array (cap doubles, from 8).  `array` is a T*, n and cap
 * size_t. */
#define mem_grow(array, n, cap)                                                                    \
	do {                                                                                       \
		if ((n) >= (cap)) {                                                                \
			(cap) = (cap) ? (cap)*2 : 8;                                               \
			(array) = mem_resize((array), (cap), sizeof(*(array)));                    \
		}                                                                                  \
	} while (0)

/* For programs that convert, before they allocate: what is freed goes back to the system, buffers
 * at once.  By bench a fifth less memory at a conversion's peak, in the same time. */
void mem_setup(void);
/* After much that was small has been freed: gives its pages back to the system. */
void mem_trim(void);

#endif
