/* Any bytes as a RAFS v6 bootstrap: what is read can be merged, laid out and written, and reads
 * back as the same tree.  As a chunk dictionary nothing is asked of the tree. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_dict.h"
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

/* A chunk is found, or another one of its digest stands before it. */
static void look_up_all(const struct rafs_dict *d)
{
	struct err e = {.text = "a chunk is not found"};

	for (size_t i = 0; i < rafs_dict_blobs(d); i++) {
		const struct rafs_blob *b = rafs_dict_blob(d, i);

		must(rafs_dict_has(d, b), &e);
		for (size_t k = 0; k < b->n_chunks; k++) {
			const struct rafs_chunk *c =
				rafs_dict_find(d, b->chunks[k].digest, b->chunks[k].unpacked);

			must(!c || c->unpacked == b->chunks[k].unpacked, &e);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct rafs *fs = NULL, *copy, *merged;
	struct rafs_dict *dict = NULL;
	struct err e = {0};

	if (rafs_dict_read(&dict, p, n, &e) == 0)
		look_up_all(dict);
	rafs_dict_freep(&dict);
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
