/* worker/drivers/tarsplit.c: the lines, and that the tar can be built again from them and the
 * files. */
#include "tests/unit/pack.h"

#include <stdio.h>

#include "common/json.h"
#include "common/str.h"
#include "worker/drivers/tarsplit.h"

static int keep(void *arg, const void *p, size_t n, struct err *e)
{
	return buf_add(arg, p, n, e);
}

/* The contents of all files, one after the other, and the lines. */
static void split(const struct buf *tar, struct buf *lines, struct buf *files)
{
	scoped(source_freep) struct source *s = source_from_memory(tar->data, tar->len);
	scoped(tarsplit_freep) struct tarsplit *t = NULL;
	scoped(tar_closep) struct tar_reader *r = NULL;
	struct tar_limits limits = {0};
	struct tar_piece p;
	struct err e = {0};

	buf_init(lines, 1 << 26);
	buf_init(files, 1 << 26);
	t = tarsplit_new(keep, lines);
	assert_int_equal(tar_open(&r, &s, &limits, &e), 0);
	while (tar_next(r, &p, &e) > 0) {
		if (p.kind == TAR_DATA)
			buf_add(files, p.raw, p.len, NULL);
		assert_int_equal(tarsplit_piece(t, &p, &e), 0);
	}
	assert_int_equal(tarsplit_end(t, &e), 0);
	assert_int_equal(tarsplit_bytes(t), lines->len);
}

static void rebuild(const struct buf *lines, const struct buf *files, struct buf *tar)
{
	size_t used = 0, position = 0;

	buf_init(tar, 1 << 26);
	for (const char *s = lines->data; *s;) {
		scoped(json_freep) struct json *j = NULL;
		const char *end = strchr(s, '\n');
		struct err e = {0};

		assert_non_null(end);
		if (json_parse(&j, s, (size_t)(end - s), NULL, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(json_value_int(json_get(j, "position")), position++);
		if (json_value_int(json_get(j, "type")) == 2) {
			scoped(buf_fini) struct buf raw = BUF_INIT(1 << 26);
			const char *text = json_value_str(json_get(j, "payload"));

			assert_int_equal(str_unbase64(&raw, text, strlen(text), &e), 0);
			buf_add(tar, raw.data, raw.len, NULL);
		} else if (json_has(j, "size")) {
			size_t n = (size_t)json_value_int(json_get(j, "size"));

			buf_add(tar, files->data + used, n, NULL);
			used += n;
		}
		s = end + 1;
	}
	assert_int_equal(used, files->len);
}

static void splits_and_joins(const struct buf *tar)
{
	scoped(buf_fini) struct buf lines = {0}, files = {0}, back = {0};

	split(tar, &lines, &files);
	rebuild(&lines, &files, &back);
	assert_int_equal(back.len, tar->len);
	assert_memory_equal(back.data, tar->data, tar->len);
}

/* formats/zstd-chunked.md §6: one file "f" of one byte, no end marker: 1511 bytes of lines. */
static void the_worked_example_of_the_sheet(void **state)
{
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), lines = {0}, files = {0};

	tar_file(&tar, "f", "x");
	split(&tar, &lines, &files);
	assert_int_equal(lines.len, 1511);
	/* Go: crc64.Checksum([]byte("x"), crc64.MakeTable(crc64.ISO)), big endian */
	assert_text_has(lines.data, "{\"type\":1,\"name\":\"f\",\"size\":1,\"payload\":"
				    "\"IxAAAAAAAAA=\",\"position\":1}\n");
	splits_and_joins(&tar);
}

static void checksums_agree_with_the_standard_vector(void **state)
{
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), lines = {0}, files = {0};

	tar_file(&tar, "v", "123456789"); /* 0xb90956c775a41001 */
	split(&tar, &lines, &files);
	assert_text_has(lines.data, "\"payload\":\"uQlWx3WkEAE=\"");
}

static void what_follows_the_end_marker_comes_in_parts_of_a_mebibyte(void **state)
{
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 26), lines = {0}, files = {0};
	char *zeros = calloc(1, 3 << 20);
	size_t n = 0;

	tar_file(&tar, "a", "1");
	tar_entry(&tar, '5', "d/", NULL, NULL, 0);
	tar_end(&tar);
	buf_add(&tar, zeros, (2 << 20) + 512, NULL);
	split(&tar, &lines, &files);
	for (const char *s = lines.data; (s = strchr(s, '\n')); s++)
		n++;
	/* header, a, padding + header, d, marker, and 1 + 1 MiB and a rest */
	assert_int_equal(n, 8);
	splits_and_joins(&tar);
	free(zeros);
}

static void names_that_are_not_utf8_are_told_raw(void **state)
{
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), lines = {0}, files = {0};

	tar_file(&tar, "a\xe4", "1");
	tar_file(&tar, "<&>\"", "");
	split(&tar, &lines, &files);
	assert_text_has(lines.data, "{\"type\":1,\"name_raw\":\"YeQ=\",\"size\":1,");
	assert_text_has(lines.data,
			"{\"type\":1,\"name\":\"\\u003c\\u0026\\u003e\\\"\",\"payload\":null,");
	splits_and_joins(&tar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_worked_example_of_the_sheet),
		T(checksums_agree_with_the_standard_vector),
		T(what_follows_the_end_marker_comes_in_parts_of_a_mebibyte),
		T(names_that_are_not_utf8_are_told_raw),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
