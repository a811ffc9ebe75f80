/* worker/rafs: what the checker takes and refuses.  Each mutation changes one field of a good
 * bootstrap. */
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

#include "tests/unit/rafs_mutations.h"

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

/* What tiny.boot is too small for. */
static void devices_of_one_name_are_refused(void **state)
{
	struct buf b = file_bytes(GOLDEN "merged.boot.gz", true);
	struct rafs *fs = NULL;
	struct err e = {0};

	assert_int_equal(rafs_read(&fs, b.data, b.len, &e), 0);
	assert_true(fs->n_blobs == 2);
	rafs_freep(&fs);
	memcpy(b.data + 0x580 + 128, b.data + 0x580, 64);
	assert_int_equal(rafs_read(&fs, b.data, b.len, &e), -1);
	assert_text_has(e.text, "devices 0 and 1 have one name");
	buf_fini(&b);
}

static void without_devices_there_are_no_blocks_or_those_of_old_builders(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3), *back = NULL;
	static const uint32_t blocks[] = {0, 4096, 4095, 1};
	struct rafs_layout_opts o = {0};
	struct buf b = BUF_INIT(1u << 20);
	struct err e = {0};

	assert_int_equal(rafs_write(fs, &o, &b, &e), 0);
	rafs_freep(&fs);
	assert_int_equal(b.len, 8192);
	for (size_t i = 0; i < 4; i++) {
		set(&b, 0x424, 4, blocks[i]);
		assert_int_equal(rafs_read(&back, b.data, b.len, &e), i < 2 ? 0 : -1);
		if (i >= 2)
			assert_text_has(e.text, "blocks without a device");
		rafs_freep(&back);
	}
	buf_fini(&b);
}

/* Each file claims the five hundred inodes behind it as the value of its attribute: 220 MiB from
 * half a MiB, were it believed. */
static void parts_that_overlap_do_not_multiply(void **state)
{
	enum { FILES = 4000, GREEDY = 3400, EACH = 128, VALUE = 511 * EACH - 5 };
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct tar_xattr x = {"user.k", "0123456789012345678901234567890123456789abcdefg", 47};
	struct rafs_layout_opts o = {0};
	struct buf b = BUF_INIT(MEMORY);
	struct rafs_inode *file;
	struct err e = {0};
	size_t first = 0;

	for (int i = 0; i < FILES; i++) {
		char name[16];
		struct tar_entry t = {
			.type = '0', .name = name, .link = "", .xattr = &x, .n_xattr = 1};

		snprintf(name, sizeof(name), "f%04d", i);
		assert_int_equal(rafs_add_entry(fs, &t, &file, &e), 0);
	}
	assert_int_equal(rafs_write(fs, &o, &b, &e), 0);
	rafs_freep(&fs);
	for (size_t at = 4096, n = 0; n < FILES - 64; at += n ? EACH : RAFS_SLOT) {
		assert_true(at + EACH <= b.len);
		n = memcmp(b.data + at + 76, "\1\1/", 3) ? 0 : n + 1; /* side by side */
		if (n == 1)
			first = at;
	}
	assert_true(first);
	assert_int_equal(rafs_read(&fs, b.data, b.len, &e), 0);
	rafs_freep(&fs);
	for (size_t i = 0; i < GREEDY; i++) {
		size_t at = first + i * EACH;

		assert_memory_equal(b.data + at + 76, "\1\1/", 3);
		set(&b, at + 78, 2, VALUE);
		set(&b, at + 2, 2, 511 * EACH / 4 + 1);
	}
	assert_int_equal(rafs_read(&fs, b.data, b.len, &e), -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	assert_text_has(e.text, "overlap");
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
		T(devices_of_one_name_are_refused),
		T(without_devices_there_are_no_blocks_or_those_of_old_builders),
		T(parts_that_overlap_do_not_multiply),
		T(golden_blobs_are_good),
		T(every_changed_byte_of_data_infos_digests_and_bootstrap_is_found),
		T(truncated_and_foreign_blobs_are_no_crash),
		T(trees_are_compared_node_by_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
