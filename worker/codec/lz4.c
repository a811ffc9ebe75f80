#include "worker/codec/lz4.h"

#include <limits.h>
#include <lz4.h>

#include "common/err.h"

size_t lz4_bound(size_t n)
{
	return n > LZ4_MAX_INPUT_SIZE ? 0 : (size_t)LZ4_compressBound((int)n);
}

size_t lz4_state_bytes(void)
{
	return (size_t)LZ4_sizeofState();
}

/* As LZ4_compress_default, but with its 16 KiB of state on the heap: our stacks are small. */
int lz4_pack(void *state, const void *in, size_t n, void *out, size_t cap, size_t *out_n,
	     struct err *e)
{
	int r;

	if (n > LZ4_MAX_INPUT_SIZE)
		return err_set(e, ERR_LIMIT, "%zu bytes are too many for one lz4 block", n);
	r = LZ4_compress_fast_extState(state, in, out, (int)n, cap > INT_MAX ? INT_MAX : (int)cap,
				       1);
	if (r <= 0)
		return err_set(e, ERR_BUG, "%zu bytes do not pack with lz4 into %zu", n, cap);
	*out_n = (size_t)r;
	return 0;
}

int lz4_unpack(const void *in, size_t n, void *out, size_t cap, size_t *out_n, struct err *e)
{
	int r;

	if (n > INT_MAX || cap > INT_MAX)
		return err_set(e, ERR_LIMIT,
			       "lz4 block of %zu bytes, at most %zu unpacked, is too long", n, cap);
	r = LZ4_decompress_safe(in, out, (int)n, (int)cap);
	if (r < 0)
		return err_set(e, ERR_CORRUPT, "lz4 block of %zu bytes does not unpack into %zu", n,
			       cap);
	*out_n = (size_t)r;
	return 0;
}

const char *lz4_version(void)
{
	return LZ4_versionString();
}
