/* Any bytes as a tar: what is read must be the input again, piece by piece, and each file as long
 * as its header says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/stream.h"
#include "worker/tar/tar_reader.h"

static void must(int holds)
{
	if (!holds)
		abort();
}

static void check_entry(const struct tar_entry *n)
{
	size_t len = strlen(n->name);
	char *clean = malloc(len + 1);

	must(strchr("0123456g", n->type) != NULL);
	must(n->type == '0' || n->size == 0);
	must(tar_clean_name(n->name, clean, len + 1) <= len);
	must(clean[0] != '/' && strncmp(clean, "../", 3) != 0);
	for (size_t i = 0; i < n->n_xattr; i++)
		must(n->xattr[i].name[0] != 0 && n->xattr[i].value != NULL);
	must(n->mtime_ns < 1000000000 && n->atime_ns < 1000000000 && n->ctime_ns < 1000000000);
	free(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const struct tar_limits limits = {.entries = 5000, .names_bytes = 1 << 20};
	struct source *s = source_from_memory(p, n);
	struct tar_reader *t = NULL;
	struct tar_piece piece;
	uint64_t raw = 0, file = 0, size = 0;
	struct err e = {0};
	int r;

	must(tar_open(&t, &s, &limits, &e) == 0);
	while ((r = tar_next(t, &piece, &e)) > 0) {
		must(piece.len > 0);
		if (piece.raw) {
			must(piece.tar_pos == raw && raw + piece.len <= n);
			must(memcmp(piece.raw, p + raw, piece.len) == 0);
			raw += piece.len;
		}
		switch (piece.kind) {
		case TAR_HEADER:
			must(file == size);
			check_entry(piece.entry);
			size = piece.entry->size;
			file = 0;
			break;
		case TAR_DATA:
		case TAR_HOLE:
			must(piece.file_pos == file && piece.len <= size - file);
			file += piece.len;
			break;
		case TAR_TRAILER:
			must(piece.entry == NULL);
			break;
		case TAR_MAP:
		case TAR_PADDING:
			must(piece.entry != NULL);
			break;
		}
	}
	must(r < 0 ? e.text[0] != 0 : raw == n && file == size);
	tar_closep(&t);
	return 0;
}
