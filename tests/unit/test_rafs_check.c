/* worker/rafs: what the checker takes and refuses.  Each mutation changes one field of a good
 * bootstrap; which are refused and which no reader minds is formats' list (nydus-image check, merge
 * and nydusd's loader). */
#include "tests/unit/rafs_unit.h"

#include "worker/oci/descriptor.h"
#include "worker/rafs/rafs_check.h"

static struct buf golden_boot(void)
{
	return file_bytes(GOLDEN "tiny.boot", true);
}

static void set(struct buf *b, size_t at, size_t width, uint64_t v)
{
	assert_true(at + width <= b->len);
	for (size_t i = 0; i < width; i++)
		b->data[at + i] = (char)(v >> 8 * i);
}

struct mutation {
	const char *name;
	size_t at, width;
	uint64_t value;
	const char *says; /* NULL: accepted */
};

/* tiny.boot: superblock 0x400, extension 0x480, device 0x580, blob table 0x1000, prefetch 0x1100,
 * root inode 0x3000 (its dirents 0x3040), /a 0x3080, /d 0x30e0, chunk table 0x4000. */
static const struct mutation refused[] = {
	{"magic", 0x400, 4, 0xE0F5E1E3, "no EROFS image"},
	{"checksum", 0x404, 4, 1, "checksum is not 0"},
	{"not RAFS v6", 0x408, 4, 0, "not marked as RAFS v6"},
	{"block bits 9", 0x40c, 1, 9, "blocks are not of 4096"},
	{"block bits 13", 0x40c, 1, 13, "blocks are not of 4096"},
	{"extension slots", 0x40d, 1, 1, "extension slots"},
	{"no inodes", 0x410, 8, 0, "no inodes"},
	{"meta_blkaddr behind the end", 0x428, 4, 0x1000, "behind the end"},
	{"shared attributes", 0x42c, 4, 1, "shared attributes"},
	{"incompatible feature missing", 0x450, 4, 0x4, "incompatible features"},
	{"incompatible feature more", 0x450, 4, 0x1c, "incompatible features"},
	{"compression settings", 0x454, 2, 1, "compression settings"},
	{"device table slot", 0x458, 2, 12, "slot 11"},
	{"devices without blobs", 0x456, 2, 2, "differ in number"},
	{"two compressors", 0x480, 8, 0x010001b6, "exactly one compressor"},
	{"no compressor", 0x480, 8, 0x01000134, "exactly one compressor"},
	{"two digesters", 0x480, 8, 0x010001bc, "exactly one digester"},
	{"no digester", 0x480, 8, 0x010001b0, "exactly one digester"},
	{"unknown flag", 0x480, 8, 0x010401b4, "unknown flags"},
	{"unknown high flag", 0x484, 4, 1, "unknown flags"},
	{"blob table unaligned", 0x488, 8, 0x1010, "blob table does not start a block"},
	{"blob table behind the end", 0x488, 8, 0x100000, "blob table is out of bounds"},
	{"blob table size", 0x490, 4, 255, "multiple of 256"},
	{"chunk size no power of two", 0x494, 4, 0x180000, "no power of two"},
	{"chunk size too small", 0x494, 4, 0x800, "no power of two"},
	{"chunk size too large", 0x494, 4, 0x2000000, "no power of two"},
	{"chunk size not the blob's", 0x494, 4, 0x200000, "chunk size is not the image's"},
	{"chunk table unaligned", 0x498, 8, 0x4008, "chunk table does not start a block"},
	{"chunk table behind the end", 0x498, 8, 0x500000, "chunk table is out of bounds"},
	{"chunk table size", 0x4a0, 8, 159, "multiple of 80"},
	{"prefetch table unaligned", 0x4a8, 8, 0x1104, "prefetch table is not aligned"},
	{"prefetch table behind the end", 0x4a8, 8, 0x100000, "prefetch table is out of bounds"},
	{"prefetch table size", 0x4b0, 4, 3, "multiple of 4"},
	{"tables overlap", 0x498, 8, 0x1000, "tables overlap"},
	{"device name not UTF-8", 0x580, 1, 0xff, "not UTF-8"},
	{"device without blocks", 0x5c0, 4, 0, "has no blocks"},
	{"blob index", 0x1040, 4, 1, "index is not its position"},
	{"blob chunk size", 0x1044, 4, 0x200000, "chunk size is not the image's"},
	{"too many chunks", 0x1048, 4, (1 << 24) + 1, "number of chunks"},
	{"no chunks", 0x1048, 4, 0, "number of chunks"},
	{"blob compressor", 0x104c, 4, 9, "unknown compressor"},
	{"blob digester", 0x1050, 4, 9, "unknown digester"},
	{"unknown low feature", 0x1054, 4, 0x70001021, "unknown features"},
	{"internal feature", 0x1054, 4, 0xf0000021, "unknown features"},
	{"not aligned", 0x1054, 4, 0x70000020, "not aligned"},
	{"batch without the second form", 0x1054, 4, 0x700000a1, "second form"},
	{"second form of the wrong size", 0x1054, 4, 0x70000025, "24 bytes a chunk"},
	{"stored size", 0x1058, 8, 1ull << 41, "stored size"},
	{"unpacked size", 0x1060, 8, 1ull << 45, "unpacked size"},
	{"chunk infos compressed larger", 0x1078, 8, 33, "larger when compressed"},
	{"chunk infos of 31 bytes", 0x1080, 8, 48, "16 bytes a chunk"},
	{"chunk infos overflow", 0x1070, 8, UINT64_MAX - 8, "behind everything"},
	{"root is a file", 0x3004, 2, 0100644, ""},
	{"root inode 0", 0x40e, 2, 0, "number 0"},
	{"inode number behind the end", 0x3058, 8, 0x100000, "behind the end"},
	{"name offset behind the block", 0x3048, 2, 0xfff, "names begin"},
	{"first name offset no multiple", 0x3048, 2, 0x31, "names begin"},
	{"entry type", 0x304a, 1, 9, NULL}, /* of ".": no one looks */
	{"entry type of /a", 0x3062, 1, 2, "type 2"},
	{"name with a slash", 0x3073, 1, '/', "slash"},
	{"names not sorted", 0x3074, 1, '0', "not sorted"},
	{"directory in itself", 0x3064, 8, 0x80, "two names"},
	{"unknown layout", 0x3080, 2, 0x0f, "layout"},
	{"kind of file", 0x3084, 2, 0170644, "unknown kind"},
	{"chunk on device 0", 0x30c2, 1, 0, "device 0"},
	{"chunk on device 2", 0x30c2, 1, 2, "device 2"},
	{"chunk without a row", 0x30c0, 2, 7, "not in the chunk table"},
	{"chunk at another block", 0x30c4, 4, 1, "not in the chunk table"},
	{"chunk format", 0x3090, 4, 0x08, "chunk format"},
	{"file size larger", 0x3088, 8, 15, "bytes"},
	{"file size huge", 0x3088, 8, 1ull << 60, "behind the end"},
	{"link of 5000 bytes", 0x3188, 8, 5000, "symbolic link"},
	{"link of nothing", 0x3188, 8, 0, "symbolic link"},
	{"attribute prefix", 0x326d, 1, 5, "attribute prefix"},
	{"attribute too long", 0x326e, 2, 500, "attribute ends"},
	{"row of blob 1", 0x4020, 4, 1, "names blob 1"},
	{"row of chunk 9", 0x4048, 4, 9, "out of bounds"},
	{"row unpacked size", 0x402c, 4, 0x200000, "out of bounds"},
};

static const struct mutation accepted[] = {
	{"uuid", 0x430, 8, 0x1234567812345678, NULL},
	{"volume", 0x440, 8, 0x61626364, NULL},
	{"build time", 0x418, 8, 1700000000, NULL},
	{"number of inodes", 0x410, 8, 7, NULL},
	{"number of blocks", 0x424, 4, 77, NULL},
	{"mapped_blkaddr 0", 0x5c4, 4, 0, NULL},
	{"larger device", 0x5c0, 4, 200, NULL},
	{"device tag not the blob's", 0x581, 1, 'q', NULL},
	{"reserved bytes of the superblock", 0x45a, 4, 1, NULL},
	{"reserved bytes of the extension", 0x4b8, 4, 1, NULL},
	{"reserved bytes of the device", 0x5d0, 4, 1, NULL},
	{"unknown high feature", 0x1054, 4, 0x78000021, NULL},
	{"stored ino", 0x3014, 4, 99, NULL},
	{"explicit uid and gid missing", 0x480, 8, 0x010001a4, NULL},
	{"reserved flag", 0x480, 8, 0x050001b4, NULL},
	{"prefetch nonsense", 0x1100, 4, 0x12345, NULL},
	{"stored size 0", 0x1058, 8, 0, NULL},
	{"crc", 0x404c, 4, 0, NULL},
};

static int try(const struct mutation *m, struct err *e)
{
	struct buf b = golden_boot();
	struct rafs *fs = NULL;
	int r;

	err_clear(e);
	if (m)
		set(&b, m->at, m->width, m->value);
	r = rafs_read(&fs, b.data, b.len, e);
	rafs_freep(&fs);
	buf_fini(&b);
	return r;
}

static void each_mutation_that_readers_refuse_is_refused_with_words(void **state)
{
	struct err e = {0};

	assert_int_equal(try(NULL, &e), 0);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		int r = try(&refused[i], &e);

		if (!refused[i].says) {
			if (r < 0)
				fail_msg("%s: %s", refused[i].name, e.text);
			continue;
		}
		if (r == 0)
			fail_msg("%s was accepted", refused[i].name);
		if (!strstr(e.text, refused[i].says))
			fail_msg("%s: \"%s\" does not say \"%s\"", refused[i].name, e.text,
				 refused[i].says);
		assert_true(e.code == ERR_CORRUPT || e.code == ERR_UNSUPPORTED);
	}
}

static void each_mutation_that_no_reader_minds_is_accepted(void **state)
{
	struct err e = {0};

	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++)
		if (!accepted[i].says && try(&accepted[i], &e) < 0)
			fail_msg("%s: %s", accepted[i].name, e.text);
	assert_int_equal(try(&(struct mutation){"compressor", 0x480, 8, 0x01000136, NULL}, &e),
			 0); /* lz4 */
}

static void sizes_of_no_whole_blocks_are_refused(void **state)
{
	struct buf b = golden_boot();
	struct rafs *fs = NULL;
	struct err e = {0};

	assert_int_equal(rafs_read(&fs, b.data, 4000, &e), -1);
	assert_int_equal(rafs_read(&fs, b.data, b.len - 1, &e), -1);
	for (size_t n = 4096; n < b.len; n += 4096) /* each truncation */
		assert_int_equal(rafs_read(&fs, b.data, n, &e), -1);
	assert_int_equal(buf_add(&b, (char[4096]){0}, 4096, &e),
			 0); /* trailing blocks are not minded */
	assert_int_equal(rafs_read(&fs, b.data, b.len, &e), 0);
	rafs_freep(&fs);
	buf_fini(&b);
}

/* ---- whole blobs */

struct counted {
	size_t entries, bytes;
};

static int count(void *arg, const struct tar_piece *p, struct err *e)
{
	struct counted *c = arg;

	c->entries += p->kind == TAR_HEADER;
	c->bytes += p->kind == TAR_DATA ? p->len : 0;
	return 0;
}

static int check_blob(const struct buf *b, struct counted *c, struct err *e)
{
	struct memory_at at = memory_at(b);
	struct descriptor d;

	descriptor_init(&d);
	err_clear(e);
	return rafs_check_blob(&at.at, &d, count, c, e);
}

static void golden_blobs_are_good(void **state)
{
	static const char *const blobs[] = {GOLDEN "layer1.blob",	GOLDEN "layer2.blob",
					    GOLDEN "layer3.blob",	GOLDEN "layer1-sha256.blob",
					    GOLDEN "layer1-batch.blob", GOLDEN "tiny.blob"};

	for (size_t i = 0; i < sizeof(blobs) / sizeof(blobs[0]); i++) {
		struct buf b = file_bytes(blobs[i], false);
		struct counted c = {0};
		struct err e = {0};

		if (check_blob(&b, &c, &e) < 0)
			fail_msg("%s: %s", blobs[i], e.text);
		assert_true(c.entries > 1);
		buf_fini(&b);
	}
}

static void every_changed_byte_of_data_infos_digests_and_bootstrap_is_found(void **state)
{
	static const char *const blobs[] = {GOLDEN "tiny.blob", GOLDEN "layer2.blob",
					    GOLDEN "layer1-batch.blob"};

	for (size_t i = 0; i < 3; i++) {
		struct buf b = file_bytes(blobs[i], false);
		struct memory_at at = memory_at(&b);
		struct rafs_toc toc;
		struct err e = {0};

		assert_int_equal(rafs_toc_read(&toc, &at.at, &e), 0);
		for (size_t s = 0; s < toc.n; s++) {
			bool packed = toc.s[s].flags == V6_TOC_ZSTD ||
				      !strcmp(toc.s[s].name, "image.blob");
			size_t missed = 0;

			for (size_t k = 0; k < 60; k++) {
				size_t pos = toc.s[s].offset + k * toc.s[s].stored / 60;
				struct counted c = {0};

				b.data[pos] ^= 0x41;
				missed += check_blob(&b, &c, &e) == 0;
				b.data[pos] ^= 0x41;
			}
			if (missed > (packed ? 3 : 0)) /* zstd has bits that mean nothing */
				fail_msg("%s: %s: %zu of 60 missed", blobs[i], toc.s[s].name,
					 missed);
		}
		buf_fini(&b);
	}
}

static void truncated_and_foreign_blobs_are_no_crash(void **state)
{
	struct buf b = file_bytes(GOLDEN "tiny.blob", false);
	size_t n = b.len;
	struct err e = {0};

	for (size_t cut = 0; cut < n; cut += 37) {
		struct counted c = {0};

		b.len = cut;
		assert_int_equal(check_blob(&b, &c, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
	}
	b.len = n;
	buf_fini(&b);
}

static void trees_are_compared_node_by_node(void **state)
{
	struct buf b = golden_boot();
	struct rafs *x = NULL, *y = NULL;
	struct err e = {0};

	assert_int_equal(rafs_read(&x, b.data, b.len, &e), 0);
	assert_int_equal(rafs_read(&y, b.data, b.len, &e), 0);
	assert_int_equal(rafs_compare(x, y, &e), 0);
	rafs_lookup(y, "d/x")->inode->uid++;
	assert_int_equal(rafs_compare(x, y, &e), -1);
	assert_text_has(e.text, "\"/d/x\": another owner");
	rafs_remove(y, rafs_lookup(y, "d/l"));
	assert_int_equal(rafs_compare(x, y, &e), -1);
	rafs_freep(&x);
	rafs_freep(&y);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_mutation_that_readers_refuse_is_refused_with_words),
		T(each_mutation_that_no_reader_minds_is_accepted),
		T(sizes_of_no_whole_blocks_are_refused),
		T(golden_blobs_are_good),
		T(every_changed_byte_of_data_infos_digests_and_bootstrap_is_found),
		T(truncated_and_foreign_blobs_are_no_crash),
		T(trees_are_compared_node_by_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
