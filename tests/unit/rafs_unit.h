/* tests/unit/rafs_unit.h - fixtures and layers in memory, for the tests of rafs and of the nydus
 * driver. */
#ifndef TESTS_UNIT_RAFS_UNIT_H
#define TESTS_UNIT_RAFS_UNIT_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/drivers/driver.h"
#include "worker/out.h"
#include "worker/pool.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_merge.h"
#include "worker/rafs/rafs_pack.h"
#include "worker/rafs/rafs_read.h"
#include "worker/tar/tar_reader.h"

#define GOLDEN "tests/fixtures/nydus/golden/"
#define MEMORY ((size_t)1 << 30)

static inline void drain_source(struct source **s, struct buf *to)
{
	char piece[65536];
	struct err e = {0};
	ssize_t n;

	while ((n = source_read(*s, piece, sizeof(piece), &e)) > 0)
		assert_int_equal(buf_add(to, piece, (size_t)n, &e), 0);
	if (n < 0)
		fail_msg("%s", e.text);
	source_freep(s);
}

struct memory_at {
	struct blob_at at;
	const char *p;
};

static inline int memory_read(struct blob_at *b, uint64_t offset, void *to, size_t n, struct err *e)
{
	if (offset > b->size || n > b->size - offset)
		return err_set(e, ERR_CORRUPT, "range behind the end");
	memcpy(to, ((struct memory_at *)b)->p + offset, n);
	return 0;
}

static inline struct memory_at memory_at(const struct buf *b)
{
	return (struct memory_at){.at = {.size = b->len, .read = memory_read}, .p = b->data};
}

/* A file, unpacked when it is gzip. */
static inline struct buf file_bytes(const char *path, bool unpack)
{
	struct buf b = BUF_INIT(MEMORY);
	struct codec_opts o = {0};
	struct err e = {0};
	struct source *s;
	enum codec c;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail_msg("no %s", path);
	s = source_from_fd(fd);
	if (unpack && (codec_sniff(&s, &c, &e) < 0 || codec_unpack(&s, c, &o, &e) < 0))
		fail_msg("%s: %s", path, e.text);
	drain_source(&s, &b);
	return b;
}

static inline int memory_write(void *dest, const void *p, size_t n, struct err *e)
{
	return buf_add(dest, p, n, e);
}

static inline int memory_commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	return 0;
}

static inline void memory_abort(void *dest)
{
}

static const struct out_ops memory_ops = {memory_write, memory_commit, memory_abort};

static inline struct rafs_pack_opts pack_defaults(void)
{
	return (struct rafs_pack_opts){
		.chunk_size = 0x100000, .compressor = V6_ZSTD, .prefetch = "/"};
}

/* A tar in memory to a blob and its tree.  -1 with *e. */
static inline int pack_tar(const struct rafs_pack_opts *o, const void *tar, size_t n,
			   uint32_t threads, struct buf *blob, struct digest *id,
			   struct rafs_layer *l, struct err *e)
{
	static const enum encoding as[] = {
		[V6_NONE] = ENCODE_RAW, [V6_LZ4] = ENCODE_LZ4, [V6_ZSTD] = ENCODE_ZSTD};
	struct out_opts oo = {.as = {.encoding = as[o->compressor]}};
	struct pool_opts po = {.threads = threads, .buffer_bytes = 4u << 20, .verify = true};
	scoped(pool_freep) struct pool *pool = NULL;
	scoped(rafs_pack_freep) struct rafs_pack *p = rafs_pack_new(o);
	scoped(out_freep) struct out *out = NULL;
	scoped(tar_closep) struct tar_reader *t = NULL;
	struct source *s = source_from_memory(tar, n);
	struct tar_limits limits = {0};
	struct tar_piece piece;
	uint64_t size;
	int r;

	if (o->chunk_size > po.buffer_bytes)
		po.buffer_bytes = o->chunk_size;
	rafs_pack_out_opts(p, &oo);
	if (pool_open(&pool, &po, e) < 0 || out_open(&out, pool, &oo, &memory_ops, blob, e) < 0 ||
	    tar_open(&t, &s, &limits, e) < 0)
		return -1;
	rafs_pack_begin(p, out);
	while ((r = tar_next(t, &piece, e)) > 0)
		if (rafs_pack_tar(p, &piece, e) < 0)
			return -1;
	if (r < 0 || rafs_pack_end(p, l, e) < 0)
		return -1;
	return out_commit(out, id, &size, e);
}

/* A fixture's layer packed; fails the test on any error. */
static inline struct buf pack_fixture(const struct rafs_pack_opts *o, const char *tar_gz,
				      struct rafs_layer *l)
{
	struct buf tar = file_bytes(tar_gz, true), blob = BUF_INIT(MEMORY);
	struct rafs_layer made = {0};
	struct digest id;
	struct err e = {0};

	if (pack_tar(o, tar.data, tar.len, 2, &blob, &id, &made, &e) < 0)
		fail_msg("%s: %s", tar_gz, e.text);
	rafs_layer_name(&made, &id);
	if (l)
		*l = made;
	else
		rafs_layer_fini(&made);
	buf_fini(&tar);
	return blob;
}

/* Where two byte strings differ, in words. */
static inline void assert_bytes(const char *what, const struct buf *got, const void *want, size_t n)
{
	size_t i = 0;

	while (i < got->len && i < n && got->data[i] == ((const char *)want)[i])
		i++;
	if (i == got->len && i == n)
		return;
	if (getenv("RAFS_DUMP")) {
		FILE *f = fopen("/tmp/rafs-got", "w");

		fwrite(got->data, 1, got->len, f);
		fclose(f);
		f = fopen("/tmp/rafs-want", "w");
		fwrite(want, 1, n, f);
		fclose(f);
	}
	fail_msg("%s: %zu bytes, want %zu; first difference at %#zx", what, got->len, n, i);
}

#endif
