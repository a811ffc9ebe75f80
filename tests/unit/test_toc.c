/* worker/drivers/toc.c and tocread.c: what is written is read back, and what is wrong is refused
 * with its place. */
#include "tests/unit/pack.h"

#include <stdio.h>

#include "worker/drivers/toc.h"
#include "worker/drivers/tocread.h"
#include "worker/drivers/tocwrite.h"

#define D "sha256:dc0e9c3658a1a3ed1ec94274d8b19925c93e1abb7ddba294923ad9bde30f8cb8"

static int keep(void *arg, const void *p, size_t n, struct err *e)
{
	return buf_add(arg, p, n, e);
}

static void add(struct toc *t, struct tar_entry n)
{
	uint32_t id;
	struct err e = {0};

	n.name_utf8 = true;
	n.link = n.link ? n.link : "";
	if (toc_add(t, &n, &id, &e) < 0)
		fail_msg("%s", e.text);
}

static void write_to(struct toc *t, struct buf *b)
{
	struct err e = {0};

	buf_init(b, 1 << 20);
	assert_int_equal(toc_seal(t, &e), 0);
	assert_null(toc_unfit(t));
	assert_int_equal(toc_write(t, NULL, keep, b, NULL, &e), 0);
}

static int read_text(const char *text, size_t piece, struct err *e)
{
	struct toc_builder b = {.toc = toc_new(TOC_ESTARGZ, 0)};
	scoped(toc_reader_freep) struct toc_reader *r = toc_reader_new(toc_build, &b);
	struct digest none;
	int rc = 0;

	for (size_t at = 0, n = strlen(text); rc == 0 && at < n; at += piece)
		rc = toc_reader_feed(r, text + at, n - at < piece ? n - at : piece, e);
	if (rc == 0)
		rc = toc_reader_finish(r, &none, e);
	if (rc == 0)
		rc = toc_build_end(&b, e);
	toc_freep(&b.toc);
	return rc;
}

static void names_of_owners_are_told_once_for_an_id(void **state)
{
	struct toc *t = toc_new(TOC_ESTARGZ, 0);
	scoped(buf_fini) struct buf b = {0};

	add(t, (struct tar_entry){.type = '5', .name = "a", .user = "root", .group = "root"});
	add(t, (struct tar_entry){.type = '5', .name = "b", .user = "root", .group = "wheel"});
	add(t, (struct tar_entry){.type = '5', .name = "c", .user = "root", .group = "wheel"});
	add(t, (struct tar_entry){.type = '5', .name = "d", .uid = 5, .user = "root", .group = ""});
	add(t, (struct tar_entry){.type = '5', .name = "e", .user = "", .group = "root"});
	write_to(t, &b);
	assert_string_equal(
		b.data,
		"{\"version\":1,\"entries\":["
		"{\"name\":\"a\",\"type\":\"dir\",\"userName\":\"root\",\"groupName\":\"root\"},"
		"{\"name\":\"b\",\"type\":\"dir\",\"groupName\":\"wheel\"},"
		"{\"name\":\"c\",\"type\":\"dir\"},"
		"{\"name\":\"d\",\"type\":\"dir\",\"uid\":5,\"userName\":\"root\"},"
		"{\"name\":\"e\",\"type\":\"dir\",\"groupName\":\"root\"}]}");
	toc_freep(&t);
}

static void times_are_rounded_and_zero_is_left_out(void **state)
{
	struct toc *t = toc_new(TOC_ESTARGZ, 0);
	scoped(buf_fini) struct buf b = {0};

	add(t, (struct tar_entry){.type = '5', .name = "a", .mtime = 0, .mtime_ns = 900000000});
	add(t, (struct tar_entry){
		       .type = '5', .name = "b", .mtime = 1500000000, .mtime_ns = 500000000});
	add(t, (struct tar_entry){.type = '5', .name = "c", .mtime = -1, .mtime_ns = 400000000});
	add(t, (struct tar_entry){.type = '5', .name = "d", .mtime = 951826500});
	add(t, (struct tar_entry){.type = '5', .name = "e", .mtime = INT64_MAX});
	write_to(t, &b);
	assert_string_equal(
		b.data, "{\"version\":1,\"entries\":[{\"name\":\"a\",\"type\":\"dir\"},"
			"{\"name\":\"b\",\"type\":\"dir\",\"modtime\":\"2017-07-14T02:40:01Z\"},"
			"{\"name\":\"c\",\"type\":\"dir\",\"modtime\":\"1969-12-31T23:59:59Z\"},"
			"{\"name\":\"d\",\"type\":\"dir\",\"modtime\":\"2000-02-29T12:15:00Z\"},"
			"{\"name\":\"e\",\"type\":\"dir\"}]}");
	toc_freep(&t);
}

static void keys_come_in_gos_order_and_xattrs_sorted(void **state)
{
	static const struct tar_xattr x[] = {{"user.b", "\0\1", 2}, {"user.a", "", 0}};
	struct toc *t = toc_new(TOC_ESTARGZ, 4 << 20);
	scoped(buf_fini) struct buf b = {0};

	add(t, (struct tar_entry){.type = '3',
				  .name = "c\n\"<",
				  .mode = 0666,
				  .uid = 1,
				  .gid = 2,
				  .dev_major = 5,
				  .dev_minor = 1,
				  .xattr = x,
				  .n_xattr = 2});
	add(t, (struct tar_entry){.type = '0', .name = "f"});
	write_to(t, &b);
	assert_string_equal(
		b.data,
		"{\"version\":1,\"entries\":[{\"name\":\"c\\u000a\\\"\\u003c\",\"type\":\"char\","
		"\"mode\":438,"
		"\"uid\":1,\"gid\":2,\"devMajor\":5,\"devMinor\":1,\"xattrs\":{\"user.a\":\"\","
		"\"user.b\":\"AAE=\"}},"
		"{\"name\":\"f\",\"type\":\"reg\",\"digest\":"
		"\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}]}");
	assert_int_equal(read_text(b.data, 3, NULL), 0);
	toc_freep(&t);
}

static void forty_thousand_entries_of_twenty_thousand_names(void **state)
{
	struct toc *t = toc_new(TOC_ESTARGZ, 0);
	scoped(buf_fini) struct buf b = {0};
	char name[32];
	uint64_t items;

	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 20000; i++) {
			snprintf(name, sizeof(name), "%sd/%d", round ? "./" : "", i);
			add(t, (struct tar_entry){.type = '5', .name = name});
		}
	buf_init(&b, 1 << 24);
	assert_int_equal(toc_seal(t, NULL), 0);
	assert_int_equal(toc_write(t, NULL, keep, &b, &items, NULL), 0);
	assert_int_equal(items, 20000); /* the later ones */
	assert_text_has(b.data, "{\"name\":\"./d/0\"");
	assert_null(strstr(b.data, "{\"name\":\"d/0\""));
	toc_freep(&t);
}

static void malformed_tables_are_refused_with_the_place(void **state)
{
#define E(entry) "{\"version\":1,\"entries\":[" entry "]}"
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "it ends too early"},
		{"[]", "it is not an object"},
		{"{}", "version or entries is missing"},
		{"{\"version\":2,\"entries\":[]}", "version is not 1"},
		{"{\"version\":1,\"entries\":{}}", "entries is not an array"},
		{"{\"version\":1,\"entries\":[],\"entries\":[]}", "entries occurs twice"},
		{"{\"version\":1,\"entries\":[]} x", "bytes after the document"},
		{"{\"version\":1,\"entries\":[]", "it ends too early"},
		{"{\"version\":1 \"entries\":[]}", "a comma is expected"},
		{"{\"version\":1,\"entries\":[}", "a value is expected"},
		{E("1"), "an entry is not an object"},
		{E("{\"type\":\"dir\"}"), "an entry without a name"},
		{E("{\"name\":\"a\",\"type\":\"file\"}"), "unknown type"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"name\":\"b\"}"), "a key occurs twice"},
		{E("{\"name\":\"a\\u0000\",\"type\":\"dir\"}"), "holds a NUL"},
		{E("{\"name\":\"\xff\",\"type\":\"dir\"}"), "not UTF-8"},
		{E("{\"name\":\"\\ud800x\",\"type\":\"dir\"}"), "surrogate"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"mode\":-1}"), "natural"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"mode\":\"7\"}"),
		 "a string where a number is expected"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"size\":99999999999999999999}"), "63 bits"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"modtime\":\"yesterday\"}"), "RFC 3339"},
		{E("{\"name\":\"a\",\"type\":\"dir\",\"xattrs\":{\"u\":\"?\"}}"), "base64"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":1,\"offset\":9,\"digest\":\"sha256:"
		   "1\"}"),
		 "digest"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":1,\"offset\":9}"), "has no digest"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":1,\"digest\":\"" D "\"}"),
		 "does not lie behind 0"},
		{E("{\"name\":\"a\",\"type\":\"chunk\",\"offset\":9}"), "a chunk of no file"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":9,\"offset\":9,\"chunkSize\":4,"
		   "\"digest\":\"" D "\"}"),
		 "end 5 bytes too early"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":1,\"offset\":9,\"digest\":\"" D "\"},"
		   "{\"name\":\"b\",\"type\":\"reg\",\"size\":1,\"offset\":9,\"digest\":\"" D
		   "\"}"),
		 "does not lie behind 9"},
		{E("{\"name\":\"a\",\"type\":\"reg\",\"size\":1,\"offset\":9,\"innerOffset\":1,"
		   "\"digest\":\"" D "\"}"),
		 "innerOffset"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		for (size_t piece = 1; piece < 70; piece += 13) {
			struct err e = {0};

			if (read_text(bad[i].text, piece, &e) == 0)
				fail_msg("accepted: %s", bad[i].text);
			assert_text_has(e.text, bad[i].why);
		}
}

static void foreign_layouts_are_read(void **state)
{
	struct err e = {0};

	if (read_text("{\n\t\"entries\": [\n\t\t{ \"type\": \"reg\", \"name\": "
		      "\"\\u00e4\\ud83d\\ude00\", \"size\": 8,\n"
		      "\"offset\": 7, \"chunkSize\": 4, \"digest\": \"" D
		      "\", \"chunkDigest\": \"" D "\", \"NumLink\": 3,\n"
		      "\"later\": {\"a\": [1, 2.5e3, null, true, {\"b\": \"c\"}]} },\n"
		      "{ \"name\": \"x\", \"type\": \"chunk\", \"offset\": 8, \"chunkOffset\": 4, "
		      "\"chunkDigest\": \"" D "\" }\n"
		      "],\n\"version\": 1 }",
		      5, &e) < 0)
		fail_msg("%s", e.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(names_of_owners_are_told_once_for_an_id),
		T(times_are_rounded_and_zero_is_left_out),
		T(keys_come_in_gos_order_and_xattrs_sorted),
		T(forty_thousand_entries_of_twenty_thousand_names),
		T(malformed_tables_are_refused_with_the_place),
		T(foreign_layouts_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
