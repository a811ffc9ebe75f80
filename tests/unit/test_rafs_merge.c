/* worker/rafs: layers on top of each other; merged bootstraps as nydus-image writes them, and what
 * it does wrong. */
#include "tests/unit/rafs_unit.h"

static struct rafs_layer stored_layer(const char *path)
{
	struct buf b = file_bytes(path, false);
	struct rafs_layer l = {0};
	struct memory_at at = memory_at(&b);
	struct digest id;
	struct err e = {0};

	if (rafs_layer_read(&l, &at.at, &e) < 0)
		fail_msg("%s: %s", path, e.text);
	digest_of(&id, DIGEST_SHA256, b.data, b.len);
	rafs_layer_name(&l, &id);
	buf_fini(&b);
	return l;
}

static void put_on(struct rafs **fs, struct rafs_layer *l)
{
	struct err e = {0};

	if (!*fs)
		*fs = rafs_new(l->fs->chunk_size, V6_ZSTD, V6_DIGEST_BLAKE3);
	if (rafs_merge(*fs, &l->fs, &e) < 0)
		fail_msg("%s", e.text);
	rafs_layer_fini(l);
}

static void assert_boot(struct rafs *fs, const char *prefetch, const char *want_gz)
{
	struct rafs_layout_opts o = {.prefetch = prefetch};
	struct buf got = BUF_INIT(MEMORY), want = file_bytes(want_gz, true);
	struct err e = {0};

	if (rafs_write(fs, &o, &got, &e) < 0)
		fail_msg("%s", e.text);
	assert_bytes(want_gz, &got, want.data, want.len);
	buf_fini(&got);
	buf_fini(&want);
}

static void stored_layers_merge_byte_for_byte(void **state)
{
	struct rafs *fs = NULL;

	for (int i = 1; i <= 3; i++) {
		char path[64];
		struct rafs_layer l;

		snprintf(path, sizeof(path), GOLDEN "layer%d.blob", i);
		l = stored_layer(path);
		put_on(&fs, &l);
	}
	assert_boot(fs, "/", GOLDEN "merged.boot.gz");
	rafs_freep(&fs);
}

static void packed_layers_merge_to_the_same(void **state)
{
	struct rafs_pack_opts o = pack_defaults();
	struct rafs *fs = NULL;

	for (int i = 1; i <= 3; i++) {
		char path[64];
		struct rafs_layer l;
		struct buf b;

		snprintf(path, sizeof(path), GOLDEN "layer%d.tar.gz", i);
		b = pack_fixture(&o, path, &l);
		put_on(&fs, &l);
		buf_fini(&b);
	}
	assert_boot(fs, "/", GOLDEN "merged.boot.gz");
	rafs_freep(&fs);
}

static void clones_merge_to_the_same(void **state)
{
	struct rafs *fs = NULL;

	for (int i = 1; i <= 3; i++) {
		char path[64];
		struct rafs_layer l, c = {0};

		snprintf(path, sizeof(path), GOLDEN "layer%d.blob", i);
		l = stored_layer(path);
		c.fs = rafs_clone(l.fs);
		rafs_layer_fini(&l);
		put_on(&fs, &c);
	}
	assert_boot(fs, "/", GOLDEN "merged.boot.gz");
	rafs_freep(&fs);
}

static void single_layers_merge_byte_for_byte(void **state)
{
	static const struct {
		const char *blob, *boot, *prefetch;
	} one[] = {
		{GOLDEN "tiny.blob", GOLDEN "tiny.boot", "/"},
		{GOLDEN "layer1-lz4.blob", GOLDEN "layer1-lz4.merged.boot.gz", NULL},
		{GOLDEN "layer1-sha256.blob", GOLDEN "layer1-sha256.merged.boot.gz", NULL},
		{GOLDEN "layer1-batch.blob", GOLDEN "layer1-batch.merged.boot.gz", NULL},
	};

	for (size_t i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
		struct rafs_layer l = stored_layer(one[i].blob);
		struct rafs *fs = NULL;

		put_on(&fs, &l);
		assert_boot(fs, one[i].prefetch, one[i].boot);
		rafs_freep(&fs);
	}
}

static void what_was_written_reads_back_to_the_same_bytes(void **state)
{
	static const char *const boots[] = {GOLDEN "merged.boot.gz", GOLDEN "tiny.boot",
					    GOLDEN "layer1-batch.merged.boot.gz",
					    GOLDEN "merged-zran.boot.gz"};

	for (size_t i = 0; i < sizeof(boots) / sizeof(boots[0]); i++) {
		struct buf b = file_bytes(boots[i], true);
		struct rafs *fs = NULL;
		struct err e = {0};

		if (rafs_read(&fs, b.data, b.len, &e) < 0)
			fail_msg("%s: %s", boots[i], e.text);
		assert_boot(fs,
			    strstr(boots[i], "merged.boot") && !strstr(boots[i], "layer1") ? "/"
			    : strstr(boots[i], "tiny")					   ? "/"
											   : NULL,
			    boots[i]);
		rafs_freep(&fs);
		buf_fini(&b);
	}
}

static void upstreams_older_bootstraps_are_read(void **state)
{
	static const char *const boots[] = {
		"tests/fixtures/nydus/upstream/v6-image-raw-size-438272.boot.gz",
		"tests/fixtures/nydus/upstream/rafs-v6-2.2.boot"};

	for (size_t i = 0; i < sizeof(boots) / sizeof(boots[0]); i++) {
		struct buf b = file_bytes(boots[i], true);
		struct rafs *fs = NULL;
		struct err e = {0};

		if (rafs_read(&fs, b.data, b.len, &e) < 0)
			fail_msg("%s: %s", boots[i], e.text);
		assert_true(fs->nodes > (i ? 1 : 3000));
		rafs_freep(&fs);
		buf_fini(&b);
	}
}

/* ---- small layers made here: entries of struct tar_entry, no data */

static struct tar_entry entry(char type, const char *name, const char *link, uint32_t mode)
{
	return (struct tar_entry){.type = type,
				  .name = name,
				  .link = link,
				  .user = "",
				  .group = "",
				  .mode = mode,
				  .mtime = 7};
}

static struct rafs *layer_of(const struct tar_entry *t, size_t n)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct rafs_inode *file;
	struct err e = {0};

	for (size_t i = 0; i < n; i++)
		if (rafs_add_entry(fs, &t[i], &file, &e) < 0)
			fail_msg("%s", e.text);
	return fs;
}
#define LAYER(...)                                                                                 \
	layer_of((const struct tar_entry[]){__VA_ARGS__},                                          \
		 sizeof((const struct tar_entry[]){__VA_ARGS__}) / sizeof(struct tar_entry))

static struct rafs *merged(struct rafs **layers, size_t n)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct err e = {0};

	for (size_t i = 0; i < n; i++)
		if (rafs_merge(fs, &layers[i], &e) < 0)
			fail_msg("layer %zu: %s", i, e.text);
	return fs;
}

static void whiteouts_remove_and_never_stay(void **state)
{
	struct rafs *l[] = {
		LAYER(entry('0', ".wh.nothing", "", 0644), entry('0', "d/a", "", 0644),
		      entry('0', "d/b", "", 0644), entry('0', "o/x", "", 0644)),
		LAYER(entry('0', "d/.wh.a", "", 0), entry('0', "o/.wh..wh..opq", "", 0),
		      entry('0', "o/y", "", 0644), entry('0', "new/.wh.zz", "", 0),
		      entry('0', "new/.wh..wh.plnk", "", 0)),
	};
	struct rafs *fs = merged(l, 2);

	assert_null(rafs_lookup(fs, ".wh.nothing"));
	assert_null(rafs_lookup(fs, "d/a"));
	assert_non_null(rafs_lookup(fs, "d/b"));
	assert_null(rafs_lookup(fs, "o/x"));
	assert_non_null(rafs_lookup(fs, "o/y"));
	assert_int_equal(rafs_lookup(fs, "new")->n_children, 0);
	assert_int_equal(fs->nodes, 6);
	rafs_freep(&fs);
}

static void a_whiteout_and_a_new_file_of_one_name_leave_the_new_one(void **state)
{
	struct rafs *l[] = {LAYER(entry('5', "d", "", 0700), entry('0', "d/old", "", 0644)),
			    LAYER(entry('0', ".wh.d", "", 0), entry('5', "d", "", 0711))};
	struct rafs *fs = merged(l, 2);

	assert_int_equal(rafs_lookup(fs, "d")->inode->mode & 07777, 0711);
	assert_null(rafs_lookup(fs, "d/old"));
	rafs_freep(&fs);
}

static void implied_parents_leave_the_lower_directory_as_it_is(void **state)
{
	struct rafs *l[] = {LAYER(entry('5', "d", "", 0700)), LAYER(entry('0', "d/f", "", 0644))};
	struct rafs *fs = merged(l, 2);

	assert_int_equal(rafs_lookup(fs, "d")->inode->mode & 07777, 0700);
	assert_int_equal(rafs_lookup(fs, "d")->inode->mtime, 7);
	rafs_freep(&fs);
}

/* The data-loss bug of nydus-image: the file after an implied directory hangs somewhere else. */
static void files_after_implied_directories_stay_where_they_belong(void **state)
{
	struct rafs *l[] = {LAYER(entry('5', "z", "", 0755), entry('0', "b/f", "", 0644),
				  entry('0', "c", "", 0644), entry('0', "a/g", "", 0644))};
	struct rafs *fs = merged(l, 1);

	assert_non_null(rafs_lookup(fs, "b/f"));
	assert_non_null(rafs_lookup(fs, "c"));
	assert_non_null(rafs_lookup(fs, "a/g"));
	assert_int_equal(rafs_lookup(fs, "z")->n_children, 0);
	rafs_freep(&fs);
}

static void an_implied_directory_follows_a_link_below(void **state)
{
	struct rafs *l[] = {
		LAYER(entry('5', "usr/lib", "", 0755), entry('2', "lib", "usr/lib", 0777),
		      entry('0', "usr/lib/a", "", 0600)),
		LAYER(entry('0', "lib/b", "", 0644), entry('0', "usr/.wh.nothing", "", 0)),
	};
	struct rafs *fs = merged(l, 2);

	assert_true(S_ISLNK(rafs_lookup(fs, "lib")->inode->mode));
	assert_non_null(rafs_lookup(fs, "usr/lib/b"));
	assert_non_null(rafs_lookup(fs, "usr/lib/a"));
	rafs_freep(&fs);
}

static void a_followed_link_whose_target_goes_is_an_error_and_no_crash(void **state)
{
	struct rafs *low =
		LAYER(entry('5', "usr/lib", "", 0755), entry('2', "lib", "usr/lib", 0777));
	struct rafs *up = LAYER(entry('0', "lib/b", "", 0644), entry('0', "usr/.wh.lib", "", 0));
	struct rafs *fs = merged(&low, 1);
	struct err e = {0};

	assert_int_equal(rafs_merge(fs, &up, &e), -1);
	assert_text_has(e.text, "leads nowhere");
	rafs_freep(&fs);
}

static void hard_links_share_an_inode_and_count_what_survives(void **state)
{
	struct rafs *l[] = {
		LAYER(entry('0', "a", "", 0644), entry('1', "b", "a", 0), entry('1', "c", "a", 0)),
		LAYER(entry('0', ".wh.b", "", 0))};
	struct rafs *fs = merged(l, 2);
	struct rafs_layout_opts o = {0};
	struct rafs_layout lay;
	struct err e = {0};

	assert_ptr_equal(rafs_lookup(fs, "a")->inode, rafs_lookup(fs, "c")->inode);
	assert_int_equal(rafs_layout(&lay, fs, &o, &e), 0);
	assert_int_equal(rafs_lookup(fs, "a")->inode->nlink, 2);
	rafs_layout_fini(&lay);
	rafs_freep(&fs);
}

static void a_hard_link_to_a_lower_layer_is_resolved_also_through_a_stored_bootstrap(void **state)
{
	struct rafs_layout_opts o = {.layer = true};
	struct buf b = BUF_INIT(MEMORY);
	struct rafs *l[2] = {LAYER(entry('0', "dir/target", "", 0751)), NULL}, *up, *fs;
	struct err e = {0};

	up = LAYER(entry('1', "link", "dir/target", 0));
	assert_int_equal(rafs_write(up, &o, &b, &e), 0);
	rafs_freep(&up);
	assert_int_equal(rafs_read(&l[1], b.data, b.len, &e), 0);
	fs = merged(l, 2);
	assert_ptr_equal(rafs_lookup(fs, "link")->inode, rafs_lookup(fs, "dir/target")->inode);
	assert_int_equal(rafs_lookup(fs, "link")->inode->mode & 07777, 0751);
	rafs_freep(&fs);
	buf_fini(&b);
}

static void a_hard_link_to_nothing_is_named(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct rafs *up = LAYER(entry('1', "link", "not/there", 0));
	struct err e = {0};

	assert_int_equal(rafs_merge(fs, &up, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
	assert_text_has(e.text, "\"link\" is a hard link to \"not/there\"");
	rafs_freep(&fs);
}

static void an_explicit_directory_that_looks_implied_stays_explicit_when_stored(void **state)
{
	struct rafs_layout_opts o = {.layer = true};
	struct tar_entry d = entry('5', "d", "", 0755);
	struct buf b = BUF_INIT(MEMORY);
	struct rafs *fs, *back = NULL;
	struct err e = {0};

	d.mtime = 0;
	fs = LAYER(d, entry('0', "i/f", "", 0644));
	assert_int_equal(rafs_write(fs, &o, &b, &e), 0);
	assert_int_equal(rafs_read(&back, b.data, b.len, &e), 0);
	assert_false(rafs_lookup(back, "d")->implied);
	assert_true(rafs_lookup(back, "i")->implied);
	rafs_freep(&fs);
	rafs_freep(&back);
	buf_fini(&b);
}

static void chunk_sizes_must_agree(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_ZSTD, V6_DIGEST_BLAKE3),
		    *up = rafs_new(0x1000, V6_ZSTD, V6_DIGEST_BLAKE3);
	struct err e = {0};

	assert_int_equal(rafs_merge(fs, &up, &e), -1);
	assert_text_has(e.text, "chunks of 4096 bytes on chunks of 1048576");
	rafs_freep(&fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(stored_layers_merge_byte_for_byte),
		T(packed_layers_merge_to_the_same),
		T(clones_merge_to_the_same),
		T(single_layers_merge_byte_for_byte),
		T(what_was_written_reads_back_to_the_same_bytes),
		T(upstreams_older_bootstraps_are_read),
		T(whiteouts_remove_and_never_stay),
		T(a_whiteout_and_a_new_file_of_one_name_leave_the_new_one),
		T(implied_parents_leave_the_lower_directory_as_it_is),
		T(files_after_implied_directories_stay_where_they_belong),
		T(an_implied_directory_follows_a_link_below),
		T(a_followed_link_whose_target_goes_is_an_error_and_no_crash),
		T(hard_links_share_an_inode_and_count_what_survives),
		T(a_hard_link_to_a_lower_layer_is_resolved_also_through_a_stored_bootstrap),
		T(a_hard_link_to_nothing_is_named),
		T(an_explicit_directory_that_looks_implied_stays_explicit_when_stored),
		T(chunk_sizes_must_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
