/* Any bytes as a RAFS v6 bootstrap: what is read can be merged, laid out and written, and reads
 * back as the same tree. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_merge.h"
#include "worker/rafs/rafs_read.h"

static void must(int holds, const struct err *e)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", e->text);
	abort();
}

static void write_and_read(struct rafs *fs, int layer)
{
	const struct rafs_layout_opts o = {.layer = layer, .prefetch = "/\n/a"};
	struct buf b = BUF_INIT(256u << 20);
	struct rafs *back = NULL;
	struct err e = {0};

	if (rafs_write(fs, &o, &b, &e) == 0) {
		must(rafs_read(&back, b.data, b.len, &e) == 0, &e);
		must(rafs_compare(fs, back, &e) == 0, &e);
	}
	rafs_freep(&back);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct rafs *fs = NULL, *copy, *merged;
	struct err e = {0};

	if (rafs_read(&fs, p, n, &e) < 0)
		return 0;
	copy = rafs_clone(fs);
	must(rafs_compare(fs, copy, &e) == 0, &e);
	merged = rafs_new(fs->chunk_size, fs->compressor, fs->digester);
	if (rafs_merge(merged, &copy, &e) == 0) {
		copy = rafs_clone(fs); /* and once more on itself */
		if (rafs_merge(merged, &copy, &e) == 0)
			write_and_read(merged, 0);
	}
	rafs_freep(&merged);
	rafs_freep(&fs);
	return 0;
}
