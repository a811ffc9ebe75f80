/* tests/fuzz/fuzz_manifest.c - manifests, indexes and configs from a registry: what is parsed can
 * be written and parsed again, and is then the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/oci/imageconfig.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BOTH_WAYS(kind)                                                                            \
	static void kind##_both_ways(const char *p, size_t n)                                      \
	{                                                                                          \
		struct buf one = BUF_INIT(64u << 20), two = BUF_INIT(64u << 20);                   \
		struct err e = {0};                                                                \
		struct kind x, y;                                                                  \
                                                                                                   \
		if (kind##_parse(&x, p, n, &e) < 0)                                                \
			return;                                                                    \
		if (kind##_write(&x, &one, &e) < 0)                                                \
			assert(e.code == ERR_LIMIT);                                               \
		else if (kind##_parse(&y, one.data, one.len, &e) < 0)                              \
			assert(!"what was written does not parse");                                \
		else {                                                                             \
			assert(kind##_write(&y, &two, &e) == 0);                                   \
			assert(one.len == two.len && memcmp(one.data, two.data, one.len) == 0);    \
			kind##_fini(&y);                                                           \
		}                                                                                  \
		kind##_fini(&x);                                                                   \
		buf_fini(&one);                                                                    \
		buf_fini(&two);                                                                    \
	}

BOTH_WAYS(manifest)
BOTH_WAYS(index)
BOTH_WAYS(imageconfig)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	manifest_both_ways((const char *)data, size);
	index_both_ways((const char *)data, size);
	imageconfig_both_ways((const char *)data, size);
	return 0;
}
