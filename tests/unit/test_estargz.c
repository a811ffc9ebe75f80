/* worker/drivers/estargz.c: what a layer becomes, as our own check, an ordinary reader and the
 * format's rules see it. */
#include "tests/unit/pack.h"

#include <dirent.h>
#include <stdio.h>

#include "common/json.h"

#define FIXTURES "tests/fixtures/tar"
#define M4 ((size_t)4 << 20)

static void read_whole(const char *path, struct buf *b)
{
	char part[65536];
	FILE *f = fopen(path, "rb");
	size_t n;

	assert_non_null(f);
	buf_init(b, (size_t)1 << 28);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		buf_add(b, part, n, NULL);
	fclose(f);
}

static void pack_ok(const struct target *t, uint32_t threads, const struct buf *tar,
		    struct packed *x)
{
	struct err e = {0};

	if (pack(t, threads, tar->data, tar->len, x, &e) < 0)
		fail_msg("pack: %s", e.text);
}

/* Packs, checks diff_id and size against an ordinary unpacking, and lets the check read it. */
static void pack_and_check(const struct target *t, const struct buf *tar, struct packed *x)
{
	scoped(buf_fini) struct buf back;
	struct digest d;
	struct err e = {0};

	pack_ok(t, 2, tar, x);
	unpack_blob(x, &back);
	digest_of(&d, DIGEST_SHA256, back.data, back.len);
	assert_true(digest_eq(&d, &x->r.diff_id));
	assert_int_equal(back.len, x->r.unpacked);
	if (check_packed(t, x, NULL, NULL, &e) < 0)
		fail_msg("check: %s", e.text);
}

/* The JSON of the TOC: the entry after the footer's offset. */
static struct json *toc_of(const struct packed *x)
{
	scoped(buf_fini) struct buf back;
	struct json *j = NULL;
	struct err e = {0};
	const char *start = NULL;

	unpack_blob(x, &back);
	for (size_t i = 0; i + 512 < back.len; i += 512)
		if (!strcmp(back.data + i, "stargz.index.json"))
			start = back.data + i;
	assert_non_null(start);
	if (json_parse(&j, start + 512, strtoul(start + 124, NULL, 8), NULL, &e) < 0)
		fail_msg("%s", e.text);
	return j;
}

static const char *text_of(const struct json *o, const char *key)
{
	const char *s = json_value_str(json_get(o, key));

	return s ? s : "";
}

static int64_t number_of(const struct json *o, const char *key)
{
	return json_has(o, key) ? json_value_int(json_get(o, key)) : 0;
}

/* "type name link" of every entry, a line each; chunks too. */
static void list_toc(const struct packed *x, struct buf *to)
{
	scoped(json_freep) struct json *j = toc_of(x);
	const struct json *a = json_get(j, "entries");

	buf_init(to, 1 << 24);
	for (size_t i = 0; i < json_len(a); i++) {
		const struct json *n = json_at(a, i);
		const char *link = text_of(n, "linkName");

		buf_addf(to, NULL, "%s %s%s%s\n", text_of(n, "type"), text_of(n, "name"),
			 *link ? " -> " : "", link);
	}
}

static void expect_toc(const struct packed *x, const char *want)
{
	scoped(buf_fini) struct buf got;

	list_toc(x, &got);
	assert_string_equal(got.data, want);
}

static struct target a_target(void)
{
	struct target t;

	target_init(&t, DRIVER_ESTARGZ);
	return t;
}

static void every_fixture_converts_and_checks(void **state)
{
	struct target t = a_target();
	DIR *dir = opendir(FIXTURES);
	struct dirent *d;
	unsigned tried = 0;

	assert_non_null(dir);
	while ((d = readdir(dir))) {
		scoped(buf_fini) struct buf tar = {0};
		struct packed x;
		char path[512];
		struct err e = {0};
		int rc;

		if (!strstr(d->d_name, ".tar") || strstr(d->d_name, ".tar."))
			continue;
		snprintf(path, sizeof(path), FIXTURES "/%s", d->d_name);
		read_whole(path, &tar);
		rc = pack(&t, 2, tar.data, tar.len, &x, &e);
		if (!strncmp(d->d_name, "fail-", 5)) {
			assert_int_equal(rc, -1);
		} else {
			if (rc < 0)
				fail_msg("%s: %s", d->d_name, e.text);
			if (check_packed(&t, &x, NULL, NULL, &e) < 0)
				fail_msg("%s: check: %s", d->d_name, e.text);
			tried++;
		}
		packed_fini(&x);
	}
	closedir(dir);
	assert_true(tried > 10);
	target_fini(&t);
}

static void the_worked_example_of_the_sheet(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_file(&tar, "f", "x");
	pack_and_check(&t, &tar, &x);
	assert_int_equal(x.r.unpacked, 4096);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg f\n");
	assert_string_equal(x.r.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
	assert_string_equal(
		annotations_get(&x.r.annotations, "io.containers.estargz.uncompressed-size"),
		"4096");
	assert_memory_equal(x.blob.data + x.blob.len - 19, "STARGZ\1\0\0\xff\xff", 11);
	packed_fini(&x);
	target_fini(&t);
}

static void an_empty_layer_is_landmark_toc_and_footer(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_end(&tar);
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\n");
	packed_fini(&x);
	target_fini(&t);
}

static void chunk_sizes_are_told_as_go_tells_them(void **state)
{
	static const struct {
		size_t n;
		int64_t first, second; /* chunkSize; -1: no such chunk */
	} want[] = {{M4 - 1, 0, -1}, {M4, M4, -1}, {M4 + 1, M4, 0}, {2 * M4, M4, M4}};
	char *data = calloc(1, 2 * M4);

	for (size_t i = 0; i < 4; i++) {
		struct target t = a_target();
		scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
		scoped(json_freep) struct json *j = NULL;
		const struct json *a;
		struct packed x;

		tar_entry(&tar, '0', "f", NULL, data, want[i].n);
		pack_and_check(&t, &tar, &x);
		j = toc_of(&x);
		a = json_get(j, "entries");
		assert_int_equal(json_len(a), want[i].second < 0 ? 2 : 3);
		assert_int_equal(number_of(json_at(a, 1), "chunkSize"), want[i].first);
		if (want[i].second >= 0) {
			assert_string_equal(text_of(json_at(a, 2), "type"), "chunk");
			assert_int_equal(number_of(json_at(a, 2), "chunkSize"), want[i].second);
			assert_int_equal(number_of(json_at(a, 2), "chunkOffset"), M4);
		}
		packed_fini(&x);
		target_fini(&t);
	}
	free(data);
}

static void a_later_entry_of_a_name_replaces_the_earlier(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_file(&tar, "a/f", "old");
	tar_file(&tar, "other", "between");
	tar_file(&tar, "./a//f", "new");
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg other\nreg ./a//f\n");
	packed_fini(&x);
	target_fini(&t);
}

static void links_to_a_replaced_file_keep_its_bytes(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	scoped(json_freep) struct json *j = NULL;
	struct packed x;

	tar_file(&tar, "a", "old");
	tar_entry(&tar, '1', "b", "a", NULL, 0);
	tar_entry(&tar, '1', "c", "b", NULL, 0);
	tar_file(&tar, "a", "newer");
	tar_entry(&tar, '1', "d", "a", NULL, 0);
	pack_and_check(&t, &tar, &x);
	expect_toc(&x,
		   "reg .no.prefetch.landmark\nreg b\nhardlink c -> b\nreg a\nhardlink d -> a\n");
	j = toc_of(&x);
	assert_int_equal(number_of(json_at(json_get(j, "entries"), 1), "size"), 3);
	assert_int_equal(number_of(json_at(json_get(j, "entries"), 3), "size"), 5);
	packed_fini(&x);
	target_fini(&t);
}

static void a_file_over_a_directory_takes_what_was_in_it(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_file(&tar, "d/x", "gone");
	tar_file(&tar, "d/s/y", "gone");
	tar_entry(&tar, '1', "kept", "d/x", NULL, 0);
	tar_file(&tar, "d", "file");
	tar_entry(&tar, '5', "d/", NULL, NULL, 0);
	tar_file(&tar, "d/z", "stays");
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg kept\ndir d/\nreg d/z\n");
	packed_fini(&x);
	target_fini(&t);
}

static void a_link_may_come_before_its_target(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_entry(&tar, '1', "b", "a", NULL, 0);
	tar_file(&tar, "a", "later");
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nhardlink b -> a\nreg a\n");
	packed_fini(&x);
	target_fini(&t);
}

static void stays_plain(const struct buf *tar, const char *why)
{
	struct target t = a_target();
	struct packed x;

	pack_and_check(&t, tar, &x);
	assert_text_has(x.r.plain_reason, why);
	assert_null(annotations_get(&x.r.annotations, "containerd.io/snapshot/stargz/toc.digest"));
	assert_int_equal(x.r.annotations.n, 0);
	packed_fini(&x);
	target_fini(&t);
}

static void what_cannot_be_told_stays_plain(void **state)
{
	scoped(buf_fini) struct buf dangling = BUF_INIT(1 << 20), latin = BUF_INIT(1 << 20),
				    below = BUF_INIT(1 << 20);

	tar_file(&dangling, "a", "1");
	tar_entry(&dangling, '1', "b", "nowhere", NULL, 0);
	tar_file(&dangling, "c", "2");
	stays_plain(&dangling, "b is a hard link to nowhere, which is not in this layer");
	tar_file(&latin, "a\xe4z", "1");
	stays_plain(&latin, "is not UTF-8");
	tar_entry(&below, '2', "ln", "real", NULL, 0);
	tar_file(&below, "ln/f", "1");
	stays_plain(&below, "ln/f lies below ln, which is not a directory");
}

static void reserved_names_of_the_source_are_dropped_in_the_root_alone(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	tar_file(&tar, ".prefetch.landmark", "\x0f");
	tar_file(&tar, "./.no.prefetch.landmark", "\x0f");
	tar_file(&tar, "/stargz.index.json", "{}");
	tar_file(&tar, "d/stargz.index.json", "{}");
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg d/stargz.index.json\n");
	packed_fini(&x);
	target_fini(&t);
}

static void some_layer(struct buf *tar)
{
	char name[64], data[5000];
	uint32_t s = 5;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)("some bytes"[(s = s * 1103515245 + 12345) >> 16 & 7]);
	for (int i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "d%d/f%d", i % 17, i);
		tar_entry(tar, '0', name, NULL, data, (size_t)(i * 7 % 5000));
	}
	tar_entry(tar, '5', "big/", NULL, NULL, 0);
	for (int i = 0; i < 3; i++) {
		char *big = calloc(1, M4 + 777);

		snprintf(name, sizeof(name), "big/%d", i);
		memset(big, 'a' + i, M4 / 2);
		tar_entry(tar, '0', name, NULL, big, M4 + 777);
		free(big);
	}
	tar_end(tar);
}

static void same_bytes_with_1_2_and_7_compressors(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
	struct packed x[3];
	const uint32_t threads[3] = {1, 2, 7};

	some_layer(&tar);
	for (int i = 0; i < 3; i++) {
		pack_ok(&t, threads[i], &tar, &x[i]);
		assert_true(digest_eq(&x[i].d.digest, &x[0].d.digest));
		assert_int_equal(x[i].blob.len, x[0].blob.len);
	}
	for (int i = 0; i < 3; i++)
		packed_fini(&x[i]);
	target_fini(&t);
}

static void converting_the_result_again_changes_nothing(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28), back = BUF_INIT(1);
	struct packed x, y;

	some_layer(&tar);
	pack_and_check(&t, &tar, &x);
	unpack_blob(&x, &back);
	pack_and_check(&t, &back, &y);
	assert_true(digest_eq(&x.d.digest, &y.d.digest));
	packed_fini(&x);
	packed_fini(&y);
	target_fini(&t);
}

static void chunks_longer_than_a_buffer_are_several_members(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
	char *data = calloc(1, 5 * M4);
	struct packed x;

	t.estargz.chunk_size = 2 * M4;
	memset(data, 'x', 5 * M4);
	tar_entry(&tar, '0', "f", NULL, data, 5 * M4);
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg f\nchunk f\nchunk f\n");
	packed_fini(&x);
	target_fini(&t);
	free(data);
}

static void listed_files_come_before_the_landmark(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	t.estargz.prioritized_files = strdup("/bin/sh\nusr/lib/libx\nmissing\n");
	tar_entry(&tar, '5', "./", NULL, NULL, 0);
	tar_entry(&tar, '5', "bin/", NULL, NULL, 0);
	tar_file(&tar, "etc/passwd", "root");
	tar_file(&tar, "bin/.wh.sh", "");
	tar_file(&tar, "bin/busybox", "elf");
	tar_entry(&tar, '1', "bin/sh", "bin/busybox", NULL, 0);
	tar_entry(&tar, '5', "usr/", NULL, NULL, 0);
	tar_file(&tar, "usr/lib/libx", "so");
	pack_and_check(&t, &tar, &x);
	assert_int_equal(x.passes, 3);
	expect_toc(&x, "dir ./\ndir bin/\nreg bin/.wh.sh\nreg bin/busybox\nhardlink bin/sh -> "
		       "bin/busybox\ndir usr/\n"
		       "reg usr/lib/libx\nreg .prefetch.landmark\nreg etc/passwd\n");
	packed_fini(&x);
	target_fini(&t);
}

static void a_layer_without_listed_files_has_no_prefetch(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct packed x;

	t.estargz.prioritized_files = strdup("bin/sh");
	tar_file(&tar, "etc/passwd", "root");
	pack_and_check(&t, &tar, &x);
	expect_toc(&x, "reg .no.prefetch.landmark\nreg etc/passwd\n");
	packed_fini(&x);
	target_fini(&t);
}

static void long_runs_of_headers_start_new_members(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
	struct packed x;
	char name[32];

	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "e%05d", i);
		tar_entry(&tar, '0', name, NULL, NULL, 0);
	}
	tar_file(&tar, "last", "1");
	pack_and_check(&t, &tar, &x);
	packed_fini(&x);
	target_fini(&t);
}

/* One bit of the blob, or an annotation, changed: the check must say no, but where the bit means
 * nothing (times in gzip headers, distances within zeros). */
static void the_check_refuses_what_is_not_the_same(void **state)
{
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), was = {0};
	struct packed x;
	unsigned refused = 0;

	tar_file(&tar, "a", "hello hello hello");
	tar_entry(&tar, '2', "s", "a", NULL, 0);
	tar_file(&tar, "b", "world");
	pack_and_check(&t, &tar, &x);
	unpack_blob(&x, &was);
	for (size_t i = 0; i < x.blob.len; i++) {
		struct err e = {0};

		x.blob.data[i] ^= 0x20;
		if (check_packed(&t, &x, NULL, NULL, &e) == 0) {
			scoped(buf_fini) struct buf is = {0};

			unpack_blob(&x, &is);
			assert_int_equal(is.len, was.len);
			assert_memory_equal(is.data, was.data, was.len);
		} else {
			assert_true(e.code == ERR_CORRUPT || e.code == ERR_UNSUPPORTED ||
				    e.code == ERR_LIMIT);
			refused++;
		}
		x.blob.data[i] ^= 0x20;
	}
	assert_true(refused > x.blob.len * 9 / 10);
	annotations_set(&x.d.annotations, "io.containers.estargz.uncompressed-size", "1");
	assert_int_equal(check_packed(&t, &x, NULL, NULL, NULL), -1);
	packed_fini(&x);
	target_fini(&t);
}

static void finish_writes_oci_types_and_keeps_annotations(void **state)
{
	static const char source[] =
		"{\"schemaVersion\":2,\"mediaType\":\"application/"
		"vnd.docker.distribution.manifest.v2+json\",\"config\":{"
		"\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"digest\":"
		"\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\","
		"\"size\":2},\"layers\":[{"
		"\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"digest\":"
		"\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\","
		"\"size\":2,\"annotations\":{"
		"\"own\":\"stays\",\"io.containers.zstd-chunked.manifest-position\":\"stale\"}}]}";
	static const char config[] =
		"{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Image\":\"sha256:1\"},"
		"\"rootfs\":{\"type\":"
		"\"layers\",\"diff_ids\":[\"sha256:"
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}}";
	struct target t = a_target();
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	struct drv_image *im = NULL;
	struct manifest m;
	struct imageconfig cfg;
	struct packed x;
	struct err e = {0};

	tar_file(&tar, "a", "1");
	pack_and_check(&t, &tar, &x);
	manifest_init(&m);
	imageconfig_init(&cfg);
	assert_int_equal(manifest_parse(&m, source, strlen(source), &e), 0);
	assert_int_equal(imageconfig_parse(&cfg, config, strlen(config), &e), 0);
	assert_int_equal(estargz_driver.image_open(&im, &t, &m, &cfg, NULL, &e), 0);
	assert_int_equal(estargz_driver.finish(im, &x.d, &x.r, 1, &m, &cfg, &e), 0);
	assert_string_equal(m.media_type, MT_OCI_MANIFEST);
	assert_string_equal(m.config.media_type, MT_OCI_CONFIG);
	assert_string_equal(m.layers[0].media_type, MT_OCI_LAYER_GZIP);
	assert_string_equal(annotations_get(&m.layers[0].annotations, "own"), "stays");
	assert_null(annotations_get(&m.layers[0].annotations,
				    "io.containers.zstd-chunked.manifest-position"));
	assert_non_null(annotations_get(&m.layers[0].annotations,
					"containerd.io/snapshot/stargz/toc.digest"));
	assert_true(digest_eq(&cfg.diff_ids[0], &x.r.diff_id));
	assert_false(json_has(json_get(cfg.json, "config"), "Image"));
	estargz_driver.image_close(im);
	manifest_fini(&m);
	imageconfig_fini(&cfg);
	packed_fini(&x);
	target_fini(&t);
}

static void a_result_survives_json(void **state)
{
	struct layer_result r = {.unpacked = 77, .absent = true}, back = {0};
	scoped(json_freep) struct json *j = NULL;
	struct err e = {0};

	strcpy(r.media_type, "application/x");
	strcpy(r.plain_reason, "because");
	digest_of(&r.diff_id, DIGEST_SHA256, "x", 1);
	annotations_set(&r.annotations, "k", "v");
	j = layer_result_to_json(&r);
	assert_int_equal(layer_result_from_json(&back, j, "result", &e), 0);
	assert_string_equal(back.media_type, r.media_type);
	assert_string_equal(back.plain_reason, r.plain_reason);
	assert_true(digest_eq(&back.diff_id, &r.diff_id));
	assert_int_equal(back.unpacked, 77);
	assert_true(back.absent);
	assert_false(back.verbatim);
	assert_string_equal(annotations_get(&back.annotations, "k"), "v");
	layer_result_fini(&r);
	layer_result_fini(&back);
	json_set_int(j, "unpacked", -1);
	assert_int_equal(layer_result_from_json(&back, j, "result", &e), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_fixture_converts_and_checks),
		T(the_worked_example_of_the_sheet),
		T(an_empty_layer_is_landmark_toc_and_footer),
		T(chunk_sizes_are_told_as_go_tells_them),
		T(a_later_entry_of_a_name_replaces_the_earlier),
		T(links_to_a_replaced_file_keep_its_bytes),
		T(a_file_over_a_directory_takes_what_was_in_it),
		T(a_link_may_come_before_its_target),
		T(what_cannot_be_told_stays_plain),
		T(reserved_names_of_the_source_are_dropped_in_the_root_alone),
		T(same_bytes_with_1_2_and_7_compressors),
		T(converting_the_result_again_changes_nothing),
		T(chunks_longer_than_a_buffer_are_several_members),
		T(listed_files_come_before_the_landmark),
		T(a_layer_without_listed_files_has_no_prefetch),
		T(long_runs_of_headers_start_new_members),
		T(the_check_refuses_what_is_not_the_same),
		T(finish_writes_oci_types_and_keeps_annotations),
		T(a_result_survives_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
