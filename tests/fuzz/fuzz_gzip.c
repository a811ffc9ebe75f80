/* Any bytes as a gzip layer.  The first byte chooses: as they are, or as the deflate stream of a
 * member whose header and trailer are made to fit, so that more than the first checksum is reached.
 * zlib and zlib with block boundaries must agree; what they take the fast engine must take too,
 * with the same bytes. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/stream.h"
#include "worker/codec/blocks.h"
#include "worker/codec/codec.h"
#include "worker/codec/deflate.h"
#include "worker/codec/inflate.h"

enum { MOST = 4 << 20 };

static void must(int holds)
{
	if (!holds)
		abort();
}

static int on_block(void *arg, const struct block *b, struct err *e)
{
	uint64_t *last = arg;

	must(b->out_pos >= *last && b->in_bits < 8 && b->window_n <= 32768);
	must(b->window_n <= b->out_pos - b->member_out);
	for (size_t i = 0; i < b->window_n; i += 4096) {
		volatile uint8_t touched = b->window[i]; /* ASan looks whether it may be read */

		(void)touched;
	}
	*last = b->out_pos;
	return 0;
}

static int unpack(const uint8_t *p, size_t n, struct codec_opts o, size_t step, struct buf *to)
{
	struct source *s = source_from_memory(p, n);
	char *part = malloc(step);
	struct err e = {0};
	ssize_t r;

	o.max_out = MOST;
	must(codec_unpack(&s, CODEC_GZIP, &o, &e) == 0);
	while ((r = source_read(s, part, step, &e)) > 0)
		must(buf_add(to, part, (size_t)r, NULL) == 0);
	must(r == 0 || e.text[0] != 0);
	source_freep(&s);
	free(part);
	return r < 0 ? -(int)e.code : 0;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* A member around a deflate stream, as far as zlib understands it; NULL if it does not. */
static uint8_t *wrap(const uint8_t *p, size_t n, size_t *gz_n)
{
	struct engine *x = engine_zlib(NULL);
	uint8_t *in_buf = malloc(INPUT_BACK + n), *out = malloc(65536), *gz = NULL;
	struct input in = {in_buf + INPUT_BACK, n, 0};
	uint32_t crc = 0, size = 0;
	int r = 0;

	memcpy(in_buf + INPUT_BACK, p, n);
	x->ops->start(x, &in, 0, NULL);
	while (r == 0) {
		size_t got = 0;

		r = x->ops->run(x, &in, out, 65536, &got, NULL);
		crc = deflate_crc32(crc, out, got);
		size += (uint32_t)got;
		if ((r == 0 && got == 0 && in.n == 0) || size > MOST)
			break;
	}
	if (r == 1) {
		size_t stream = in.pos;

		*gz_n = 10 + stream + 8;
		gz = malloc(*gz_n);
		memcpy(gz, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
		memcpy(gz + 10, p, stream);
		put32(gz + 10 + stream, crc);
		put32(gz + 14 + stream, size);
	}
	x->ops->free(x);
	free(in_buf);
	free(out);
	return gz;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct buf a = BUF_INIT(2 * MOST), b = BUF_INIT(2 * MOST), c = BUF_INIT(2 * MOST);
	uint8_t *gz = NULL;
	uint64_t last = 0;
	size_t step;
	int plain, blocks, fast;

	if (n < 2)
		return 0;
	step = (size_t)1 << p[1] % 20;
	if (p[0] & 1) {
		gz = wrap(p + 2, n - 2, &n);
		if (!gz)
			return 0;
		p = gz;
	} else {
		p += 2;
		n -= 2;
	}
	plain = unpack(p, n, (struct codec_opts){.portable = true}, 65536, &a);
	blocks = unpack(p, n, (struct codec_opts){.on_block = on_block, .arg = &last}, step, &b);
	fast = unpack(p, n, (struct codec_opts){0}, step, &c);
	must(plain == blocks &&
	     (plain != 0 || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0)));
	must(plain != 0 || (fast == 0 && a.len == c.len && memcmp(a.data, c.data, a.len) == 0));
	must(gz == NULL || plain == 0 || plain == -(int)ERR_LIMIT);
	buf_fini(&a);
	buf_fini(&b);
	buf_fini(&c);
	free(gz);
	return 0;
}
