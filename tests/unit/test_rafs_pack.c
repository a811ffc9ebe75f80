/* worker/rafs: layers to blobs, byte for byte what nydus-image v2.4.4 made of the same tars. */
#include "tests/unit/rafs_unit.h"

static void golden(const char *tar, const char *blob, const struct rafs_pack_opts *o)
{
	struct buf got = pack_fixture(o, tar, NULL), want = file_bytes(blob, false);

	assert_bytes(blob, &got, want.data, want.len);
	buf_fini(&got);
	buf_fini(&want);
}

static void the_worked_example_is_made_byte_for_byte(void **state)
{
	struct rafs_pack_opts o = pack_defaults();

	golden(GOLDEN "tiny.tar.gz", GOLDEN "tiny.blob", &o);
}

static void golden_layers_are_made_byte_for_byte(void **state)
{
	struct rafs_pack_opts o = pack_defaults();

	golden(GOLDEN "layer1.tar.gz", GOLDEN "layer1.blob", &o);
	golden(GOLDEN "layer2.tar.gz", GOLDEN "layer2.blob", &o);
	golden(GOLDEN "layer3.tar.gz", GOLDEN "layer3.blob", &o);
}

static void without_patterns_layers_are_what_acceld_packs(void **state)
{
	struct rafs_pack_opts o = pack_defaults();

	o.prefetch = NULL;
	golden(GOLDEN "layer1.tar.gz", GOLDEN "acceld-layer1.blob", &o);
	golden(GOLDEN "layer2.tar.gz", GOLDEN "acceld-layer2.blob", &o);
	golden(GOLDEN "layer3.tar.gz", GOLDEN "layer3.blob", &o);
}

static void sha256_digests_are_made_byte_for_byte(void **state)
{
	struct rafs_pack_opts o = pack_defaults();

	o.sha256 = true;
	golden(GOLDEN "layer1.tar.gz", GOLDEN "layer1-sha256.blob", &o);
}

static void batches_are_made_byte_for_byte(void **state)
{
	struct rafs_pack_opts o = pack_defaults();

	o.batch_size = 262144;
	golden(GOLDEN "layer1.tar.gz", GOLDEN "layer1-batch.blob", &o);
}

/* nydus-image packs chunk infos with lz4 too, which no reader of the table of contents can unpack:
 * ours are zstd, so what follows the chunk data lies elsewhere.  Data, chunk infos and digests are
 * the same. */
static void lz4_differs_only_in_how_chunk_infos_are_packed(void **state)
{
	struct rafs_pack_opts o = pack_defaults();
	struct buf got, want = file_bytes(GOLDEN "layer1-lz4.blob", false);
	static const char *const same[] = {"blob.meta", "blob.digest"};
	struct memory_at a, b = memory_at(&want);
	struct rafs_toc ours, theirs;
	struct err e = {0};

	o.compressor = V6_LZ4;
	got = pack_fixture(&o, GOLDEN "layer1.tar.gz", NULL);
	a = memory_at(&got);
	assert_int_equal(rafs_toc_read(&ours, &a.at, &e), 0);
	assert_int_equal(rafs_toc_read(&theirs, &b.at, &e), 0);
	assert_int_equal(ours.s[0].stored, theirs.s[0].stored);
	assert_memory_equal(got.data, want.data, ours.s[0].stored + RAFS_FRAME);
	for (size_t i = 0; i < 2; i++)
		assert_true(digest_eq(&rafs_toc_find(&ours, same[i])->digest,
				      &rafs_toc_find(&theirs, same[i])->digest));
	assert_int_equal(rafs_toc_find(&theirs, "blob.meta")->flags, V6_TOC_LZ4);
	assert_int_equal(rafs_toc_find(&ours, "blob.meta")->flags, V6_TOC_ZSTD);
	buf_fini(&got);
	buf_fini(&want);
}

static void what_does_not_shrink_is_stored_as_it_is(void **state)
{
	struct rafs_pack_opts o = pack_defaults();
	struct rafs_layer l;
	struct buf b;

	o.compressor = V6_NONE;
	b = pack_fixture(&o, GOLDEN "layer1.tar.gz", &l);
	for (size_t i = 0; i < l.fs->blobs[0]->n_chunks; i++) {
		const struct rafs_chunk *c = &l.fs->blobs[0]->chunks[i];

		assert_int_equal(c->stored, c->unpacked);
		assert_int_equal(c->flags & V6_CHUNK_COMPRESSED, 0);
	}
	rafs_layer_fini(&l);
	buf_fini(&b);
}

static void threads_chunk_sizes_and_batches_never_change_the_bytes(void **state)
{
	struct buf tar = file_bytes(GOLDEN "layer1.tar.gz", true);

	for (uint32_t bits = 12; bits <= 20; bits += 4)
		for (uint32_t batch = 0; batch < 2; batch++) {
			struct rafs_pack_opts o = pack_defaults();
			struct buf first = BUF_INIT(MEMORY);

			o.chunk_size = 1u << bits;
			o.batch_size = batch ? 1u << bits : 0;
			for (uint32_t threads = 1; threads <= 4; threads++) {
				struct rafs_layer l = {0};
				struct buf b = BUF_INIT(MEMORY);
				struct digest id;
				struct err e = {0};

				if (pack_tar(&o, tar.data, tar.len, threads, &b, &id, &l, &e) < 0)
					fail_msg("%s", e.text);
				if (first.len)
					assert_bytes("again", &b, first.data, first.len);
				else
					assert_int_equal(buf_add(&first, b.data, b.len, &e), 0);
				rafs_layer_fini(&l);
				buf_fini(&b);
			}
			buf_fini(&first);
		}
	buf_fini(&tar);
}

static void a_frame_around_more_than_8_gib_has_its_size_in_binary(void **state)
{
	uint8_t h[RAFS_FRAME];
	uint64_t size;
	struct err e = {0};

	rafs_frame_header(h, "image.blob", ((uint64_t)1 << 33) - 1);
	assert_memory_equal(h + 124, "77777777777", 12);
	assert_int_equal(rafs_frame_size(h, "image.blob", &size, &e), 0);
	assert_int_equal(size, ((uint64_t)1 << 33) - 1);
	rafs_frame_header(h, "image.blob", (uint64_t)1 << 33 | 0x0102);
	assert_memory_equal(h + 124, "\x80\0\0\0\0\0\0\2\0\0\1\2", 12);
}

/* ---- what a tar may ask for and EROFS does not have */

static int add(struct rafs *fs, struct tar_entry t, struct err *e)
{
	struct rafs_inode *file;

	t.user = t.group = "";
	if (!t.link)
		t.link = "";
	err_clear(e);
	return rafs_add_entry(fs, &t, &file, e);
}

static void what_erofs_cannot_hold_is_refused_with_its_name(void **state)
{
	const struct tar_xattr odd = {"com.apple.quarantine", "x", 1},
			       ours = {"trusted.acceld.hardlink", "x", 1};
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	char name[5000];
	struct err e = {0};

	assert_int_equal(
		add(fs, (struct tar_entry){.type = '0', .name = "f", .xattr = &odd, .n_xattr = 1},
		    &e),
		-1);
	assert_text_has(e.text, "\"f\": attribute \"com.apple.quarantine\"");
	assert_int_equal(
		add(fs, (struct tar_entry){.type = '0', .name = "f", .xattr = &ours, .n_xattr = 1},
		    &e),
		-1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_int_equal(add(fs, (struct tar_entry){.type = '2', .name = "l", .link = ""}, &e), -1);
	assert_text_has(e.text, "symbolic link to a path of 0 bytes");
	assert_int_equal(
		add(fs, (struct tar_entry){.type = '3', .name = "c", .dev_major = 4096}, &e), -1);
	assert_text_has(e.text, "device number 4096:0");
	assert_int_equal(
		add(fs, (struct tar_entry){.type = '0', .name = "f", .uid = 1ull << 32}, &e), -1);
	assert_text_has(e.text, "owner 4294967296:0");
	assert_int_equal(add(fs, (struct tar_entry){.type = '0', .name = "./"}, &e), -1);
	assert_text_has(e.text, "the root is not a directory");
	assert_int_equal(add(fs, (struct tar_entry){.type = '1', .name = "h", .link = "/"}, &e),
			 -1);
	assert_text_has(e.text, "hard link to a directory");
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(add(fs, (struct tar_entry){.type = '5', .name = name}, &e), -1);
	assert_text_has(e.text, "a name of 256 bytes");
	for (size_t i = 0; i < sizeof(name); i += 2)
		memcpy(name + i, "d/", 2);
	name[4999] = '\0';
	assert_int_equal(add(fs, (struct tar_entry){.type = '5', .name = name}, &e), -1);
	assert_text_has(e.text, "a path of 4999 bytes");
	assert_int_equal(fs->nodes, 1);
	rafs_freep(&fs);
}

static void a_deep_tree_needs_no_deep_stack(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3), *c;
	struct rafs_layout_opts o = {.layer = true};
	struct buf b = BUF_INIT(MEMORY);
	char name[4095];
	struct err e = {0};

	for (size_t i = 0; i < sizeof(name) - 1; i += 2)
		memcpy(name + i, "d/", 2);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(add(fs, (struct tar_entry){.type = '5', .name = name, .mode = 0700}, &e),
			 0);
	assert_int_equal(fs->nodes, 2048);
	c = rafs_clone(fs);
	assert_int_equal(rafs_write(c, &o, &b, &e), 0);
	rafs_freep(&c);
	assert_int_equal(rafs_read(&c, b.data, b.len, &e), 0);
	assert_int_equal(c->nodes, 2048);
	rafs_freep(&c);
	rafs_freep(&fs);
	buf_fini(&b);
}

static void a_later_entry_takes_the_place_of_an_earlier_one(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct err e = {0};

	add(fs, (struct tar_entry){.type = '5', .name = "d", .mode = 0700}, &e);
	add(fs, (struct tar_entry){.type = '0', .name = "d/f"}, &e);
	add(fs, (struct tar_entry){.type = '5', .name = "d/", .mode = 0711}, &e);
	assert_non_null(rafs_lookup(fs, "d/f"));
	assert_int_equal(rafs_lookup(fs, "d")->inode->mode & 07777, 0711);
	add(fs, (struct tar_entry){.type = '2', .name = "/./d", .link = "x"}, &e);
	assert_null(rafs_lookup(fs, "d/f"));
	add(fs, (struct tar_entry){.type = '1', .name = "d", .link = "d"}, &e); /* itself */
	assert_true(S_ISLNK(rafs_lookup(fs, "d")->inode->mode));
	add(fs, (struct tar_entry){.type = '0', .name = "d"}, &e);
	add(fs, (struct tar_entry){.type = '0', .name = "d/g"},
	    &e); /* below what is no directory */
	assert_non_null(rafs_lookup(fs, "d/g"));
	add(fs, (struct tar_entry){.type = '0', .name = "stargz.index.json"}, &e);
	add(fs, (struct tar_entry){.type = '0', .name = ".prefetch.landmark"}, &e);
	assert_int_equal(fs->nodes, 3);
	rafs_freep(&fs);
}

/* As for who unpacks it: the link is followed, and stays. */
static void a_path_through_a_link_of_its_own_layer_leads_where_the_link_leads(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct err e = {0};

	add(fs, (struct tar_entry){.type = '5', .name = "usr/lib", .mode = 0711}, &e);
	add(fs, (struct tar_entry){.type = '2', .name = "lib", .link = "usr/lib"}, &e);
	add(fs, (struct tar_entry){.type = '2', .name = "usr/up", .link = "../lib/"}, &e);
	add(fs, (struct tar_entry){.type = '2', .name = "abs", .link = "/usr/new"}, &e);
	assert_int_equal(add(fs, (struct tar_entry){.type = '0', .name = "lib/a"}, &e), 0);
	assert_int_equal(add(fs, (struct tar_entry){.type = '0', .name = "usr/up/sub/b"}, &e), 0);
	assert_int_equal(add(fs, (struct tar_entry){.type = '0', .name = "abs/c"}, &e), 0);
	assert_true(S_ISLNK(rafs_lookup(fs, "lib")->inode->mode));
	assert_non_null(rafs_lookup(fs, "usr/lib/a"));
	assert_non_null(rafs_lookup(fs, "usr/lib/sub/b"));
	assert_non_null(rafs_lookup(fs, "usr/new/c")); /* which may be there in a layer below */
	assert_true(rafs_lookup(fs, "usr/new")->implied);
	assert_int_equal(rafs_lookup(fs, "usr/lib")->inode->mode & 07777, 0711);
	assert_ptr_equal(rafs_lookup_through(fs, "usr/up/a"), rafs_lookup(fs, "usr/lib/a"));
	assert_int_equal(
		add(fs, (struct tar_entry){.type = '1', .name = "h", .link = "usr/up/a"}, &e), 0);
	assert_ptr_equal(rafs_lookup(fs, "h")->inode, rafs_lookup(fs, "usr/lib/a")->inode);
	add(fs, (struct tar_entry){.type = '2', .name = "round", .link = "round"}, &e);
	assert_int_equal(add(fs, (struct tar_entry){.type = '0', .name = "round/x"}, &e), -1);
	assert_text_has(e.text, "\"round/x\": it lies behind symbolic links in a circle");
	assert_null(rafs_lookup_through(fs, "round/x"));
	rafs_freep(&fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_worked_example_is_made_byte_for_byte),
		T(golden_layers_are_made_byte_for_byte),
		T(without_patterns_layers_are_what_acceld_packs),
		T(sha256_digests_are_made_byte_for_byte),
		T(batches_are_made_byte_for_byte),
		T(lz4_differs_only_in_how_chunk_infos_are_packed),
		T(what_does_not_shrink_is_stored_as_it_is),
		T(threads_chunk_sizes_and_batches_never_change_the_bytes),
		T(a_frame_around_more_than_8_gib_has_its_size_in_binary),
		T(what_erofs_cannot_hold_is_refused_with_its_name),
		T(a_deep_tree_needs_no_deep_stack),
		T(a_path_through_a_link_of_its_own_layer_leads_where_the_link_leads),
		T(a_later_entry_takes_the_place_of_an_earlier_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
