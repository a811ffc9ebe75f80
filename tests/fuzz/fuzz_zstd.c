/* Any bytes as a zstd layer: refused in words or unpacked within the bounds, in the same way
 * whatever the reads' size. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/codec/zstd.h"

enum { MOST = 4 << 20 };

static void must(int holds)
{
	if (!holds)
		abort();
}

static int unpack(const uint8_t *p, size_t n, size_t step, struct buf *to)
{
	const struct codec_opts o = {.max_out = MOST};
	struct source *s = source_from_memory(p, n);
	char *part = malloc(step);
	struct err e = {0};
	enum codec c;
	uint64_t window;
	ssize_t r;

	must(codec_sniff(&s, &c, &e) == 0);
	must(codec_window(&s, CODEC_ZSTD, &window, &e) == 0);
	must(codec_unpack(&s, CODEC_ZSTD, &o, &e) == 0);
	while ((r = source_read(s, part, step, &e)) > 0)
		must(buf_add(to, part, (size_t)r, NULL) == 0);
	must(r == 0 || e.text[0] != 0);
	must(r < 0 || c == CODEC_ZSTD); /* what unpacks is also recognised */
	must(r < 0 || window <= ZSTD_WINDOW_NORMAL);
	source_freep(&s);
	free(part);
	return r < 0 ? -(int)e.code : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct buf a = BUF_INIT(2 * MOST), b = BUF_INIT(2 * MOST);
	int r;

	if (n < 1)
		return 0;
	r = unpack(p + 1, n - 1, 65536, &a);
	must(r == unpack(p + 1, n - 1, (size_t)1 << p[0] % 20, &b));
	must(r != 0 || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
	buf_fini(&a);
	buf_fini(&b);
	return 0;
}
