/* common/scope.h - ownership bound to scope.
 *
 * A local that owns is `scoped` and starts as NULL (or -1 for a descriptor); then every `return` is
 * right.  `take_ptr(p)` gives the value away and leaves NULL. */
#ifndef COMMON_SCOPE_H
#define COMMON_SCOPE_H

#include <stdlib.h>
#include <unistd.h>

#define scoped(free_fn) __attribute__((cleanup(free_fn)))
#define scoped_free scoped(scope_freep)
#define scoped_fd scoped(scope_closep)
#define take_ptr(p)                                                                                \
	({                                                                                         \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})

static inline void scope_freep(void *p)
{
	void **pp = p;

	free(*pp);
	*pp = NULL;
}

static inline void scope_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
