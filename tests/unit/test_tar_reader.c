/* Tars as pieces: what Go's archive/tar reads in tests/fixtures/tar is what we read; every byte of
 * the tar is in exactly one piece; hostile tars end in a bound. */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/stream_impl.h"
#include "worker/codec/deflate.h"
#include "worker/tar/tar_reader.h"

#define FIXTURES "tests/fixtures/tar"

/* A source that gives at most `most` bytes a time, so that a reader meets its own buffer's edges.
 */
struct dribble {
	struct source base;
	const uint8_t *p;
	size_t n, most;
};

static ssize_t dribble_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct dribble *d = (struct dribble *)s;

	n = n < d->most ? n : d->most;
	n = n < d->n ? n : d->n;
	memcpy(buf, d->p, n);
	d->p += n;
	d->n -= n;
	return (ssize_t)n;
}

static void dribble_free(struct source *s)
{
	free(s);
}

static struct source *dribble(const void *p, size_t n, size_t most)
{
	static const struct source_ops ops = {dribble_read, dribble_free};
	struct dribble *d = mem_zalloc(sizeof(*d));

	d->base.ops = &ops;
	d->p = p;
	d->n = n;
	d->most = most;
	return &d->base;
}

static void add_quoted(struct buf *b, const char *s, size_t n)
{
	for (; n > 0; n--, s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 33 || c > 126 || c == '%')
			buf_addf(b, NULL, "%%%02x", c);
		else
			buf_add_char(b, (char)c, NULL);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct tar_xattr *)a)->name, ((const struct tar_xattr *)b)->name);
}

static void add_entry(struct buf *b, const struct tar_entry *n)
{
	struct tar_xattr x[16];

	buf_addf(b, NULL, "%c ", n->type);
	add_quoted(b, n->name, strlen(n->name));
	buf_add_str(b, " link=", NULL);
	add_quoted(b, n->link, strlen(n->link));
	buf_addf(b, NULL, " mode=%o uid=%llu gid=%llu user=", n->mode, (unsigned long long)n->uid,
		 (unsigned long long)n->gid);
	add_quoted(b, n->user, strlen(n->user));
	buf_add_str(b, " group=", NULL);
	add_quoted(b, n->group, strlen(n->group));
	buf_addf(b, NULL, " size=%llu mtime=%lld.%09u", (unsigned long long)n->size,
		 (long long)n->mtime, n->mtime_ns);
	if (n->has_atime)
		buf_addf(b, NULL, " atime=%lld.%09u", (long long)n->atime, n->atime_ns);
	if (n->has_ctime)
		buf_addf(b, NULL, " ctime=%lld.%09u", (long long)n->ctime, n->ctime_ns);
	buf_addf(b, NULL, " dev=%u,%u", n->dev_major, n->dev_minor);
	assert_true(n->n_xattr <= 16);
	if (n->n_xattr)
		memcpy(x, n->xattr, n->n_xattr * sizeof(*x));
	qsort(x, n->n_xattr, sizeof(*x), by_name);
	for (size_t i = 0; i < n->n_xattr; i++) {
		buf_add_char(b, ' ', NULL);
		add_quoted(b, x[i].name, strlen(x[i].name));
		buf_add_char(b, '=', NULL);
		add_quoted(b, x[i].value, x[i].n);
	}
}

static uint32_t crc_zeros(uint32_t crc, size_t n)
{
	static const uint8_t zeros[4096];

	for (; n > sizeof(zeros); n -= sizeof(zeros))
		crc = deflate_crc32(crc, zeros, sizeof(zeros));
	return deflate_crc32(crc, zeros, n);
}

/* Reads a tar; checks that the pieces fit together; lists its entries. 0 or -1 as tar_next. */
static int list(const void *tar, size_t n, size_t most, const struct tar_limits *l, struct buf *to,
		struct err *e)
{
	struct source *s = dribble(tar, n, most);
	struct tar_reader *t = NULL;
	struct tar_piece p;
	uint64_t raw = 0, file = 0, size = 0, entries = 0;
	uint32_t crc = 0;
	bool open = false;
	int r;

	assert_int_equal(tar_open(&t, &s, l, e), 0);
	assert_null(s);
	while ((r = tar_next(t, &p, e)) > 0) {
		assert_true(p.len > 0);
		if (p.raw) {
			assert_int_equal(p.tar_pos, raw);
			assert_memory_equal(p.raw, (const uint8_t *)tar + raw, p.len);
			raw += p.len;
		}
		if (open && (p.kind == TAR_HEADER || p.kind == TAR_TRAILER)) {
			assert_int_equal(file, size);
			buf_addf(to, NULL, " crc=%08x\n", crc);
			open = false;
		}
		switch (p.kind) {
		case TAR_HEADER:
			assert_int_equal(p.entry->index, entries);
			entries++;
			add_entry(to, p.entry);
			open = true;
			size = p.entry->size;
			file = crc = 0;
			break;
		case TAR_DATA:
			assert_true(p.len <= 1 << 20);
			assert_int_equal(p.file_pos, file);
			crc = deflate_crc32(crc, p.raw, p.len);
			file += p.len;
			break;
		case TAR_HOLE:
			assert_null(p.raw);
			assert_int_equal(p.file_pos, file);
			crc = crc_zeros(crc, p.len);
			file += p.len;
			break;
		case TAR_TRAILER:
			assert_null(p.entry);
			break;
		case TAR_MAP:
			assert_true(p.entry->sparse);
			break;
		case TAR_PADDING:
			assert_true(p.len < 512);
			break;
		}
	}
	if (r == 0) {
		if (open) {
			assert_int_equal(file, size);
			buf_addf(to, NULL, " crc=%08x\n", crc);
		}
		assert_int_equal(raw, n);
		assert_int_equal(tar_next(t, &p, e), 0); /* the end stays the end */
	}
	tar_closep(&t);
	return r;
}

static void load(const char *path, struct buf *to)
{
	FILE *f = fopen(path, "rb");
	char part[65536];
	size_t n;

	if (!f)
		fail_msg("no %s", path);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		buf_add(to, part, n, NULL);
	fclose(f);
}

static void each_fixture(const char *verdict,
			 void (*check)(const char *name, const struct buf *tar))
{
	DIR *d = opendir(FIXTURES);
	struct dirent *f;
	size_t seen = 0;

	assert_non_null(d);
	while ((f = readdir(d))) {
		struct buf tar = BUF_INIT(64 << 20);
		char path[512];

		if (strncmp(f->d_name, verdict, strlen(verdict)) != 0 || !strstr(f->d_name, ".tar"))
			continue;
		snprintf(path, sizeof(path), FIXTURES "/%s", f->d_name);
		load(path, &tar);
		check(f->d_name, &tar);
		buf_fini(&tar);
		seen++;
	}
	closedir(d);
	assert_true(seen > 20);
}

static void reads_like_go(const char *name, const struct buf *tar)
{
	static const size_t steps[] = {1 << 20, 511, 7};
	struct buf want = BUF_INIT(1 << 20);
	char path[512];

	snprintf(path, sizeof(path), FIXTURES "/%.*s.txt", (int)strlen(name) - 4, name);
	load(path, &want);
	for (size_t i = 0; i < 3; i++) {
		struct buf got = BUF_INIT(1 << 20);
		struct err e = {0};

		if (list(tar->data, tar->len, steps[i], NULL, &got, &e) < 0)
			fail_msg("%s: %s", name, e.text);
		if (strcmp(got.data, want.data) != 0)
			fail_msg("%s:\n%s instead of\n%s", name, got.data, want.data);
		buf_fini(&got);
	}
	buf_fini(&want);
}

static void every_ok_fixture_reads_as_go_reads_it(void **state)
{
	each_fixture("ok-", reads_like_go);
}

static void is_refused(const char *name, const struct buf *tar)
{
	struct buf got = BUF_INIT(1 << 20);
	struct err e = {0};

	if (list(tar->data, tar->len, 1 << 20, NULL, &got, &e) == 0)
		fail_msg("%s was taken", name);
	assert_int_equal(e.code, strstr(name, "unknown-type") ? ERR_UNSUPPORTED : ERR_CORRUPT);
	assert_true(strlen(e.text) > 10);
	buf_fini(&got);
}

static void every_fail_fixture_is_refused(void **state)
{
	each_fixture("fail-", is_refused);
}

/* Wherever a tar is cut it is either refused or, as in Go, complete but for padding and end marker.
 */
static void survives_cuts(const char *name, const struct buf *tar)
{
	if (tar->len > 40000)
		return;
	for (size_t n = 0; n<tar->len; n += n % 512> 1 && n % 512 < 509 ? 101 : 1) {
		void *exact = mem_dup(n ? tar->data : "", n ? n : 1);
		struct buf got = BUF_INIT(1 << 20);
		struct err e = {0};

		if (list(exact, n, 1 << 20, NULL, &got, &e) < 0)
			assert_int_equal(e.code, ERR_CORRUPT);
		buf_fini(&got);
		free(exact);
	}
}

static void a_tar_cut_anywhere_is_read_or_refused(void **state)
{
	each_fixture("ok-", survives_cuts);
}

/* ---- tars written here */

static void add_entry_to(struct buf *tar, const char *name, char type, const void *data, size_t n)
{
	const struct tar_out h = {.name = name, .type = type, .mode = 0644, .size = n};
	static const uint8_t zeros[512];
	uint8_t b[512];

	tar_write_header(b, &h);
	buf_add(tar, b, sizeof(b), NULL);
	if (data)
		buf_add(tar, data, n, NULL);
	buf_add(tar, zeros, data ? tar_padding(n) : 0, NULL);
}

static int first_error(const struct buf *tar, const struct tar_limits *l, struct err *e)
{
	struct source *s = source_from_memory(tar->data, tar->len);
	struct tar_reader *t = NULL;
	struct tar_piece p;
	int r;

	assert_int_equal(tar_open(&t, &s, l, e), 0);
	while ((r = tar_next(t, &p, e)) > 0)
		;
	tar_closep(&t);
	return r;
}

static void records_over_a_mebibyte_are_a_limit(void **state)
{
	struct buf tar = BUF_INIT(64 << 20);
	size_t n = (1 << 20) + 1;
	char *x = mem_zalloc(n);
	struct err e = {0};

	add_entry_to(&tar, "x", 'x', x, n);
	assert_int_equal(first_error(&tar, NULL, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	buf_reset(&tar);
	add_entry_to(&tar, "L", 'L', x, n);
	assert_int_equal(first_error(&tar, NULL, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	buf_fini(&tar);
	free(x);
}

static void an_endless_row_of_records_is_a_limit(void **state)
{
	struct buf tar = BUF_INIT(64 << 20);
	struct err e = {0};

	for (int i = 0; i < 20000; i++)
		add_entry_to(&tar, "L", 'L', "name", 4);
	assert_int_equal(first_error(&tar, NULL, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	buf_fini(&tar);
}

static void a_sparse_map_without_end_is_a_limit(void **state)
{
	static const char pax[] =
		"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=9\n";
	struct buf tar = BUF_INIT(64 << 20);
	char *map = mem_zalloc(2 << 20);
	struct err e = {0};

	add_entry_to(&tar, "x", 'x', pax, sizeof(pax) - 1);
	add_entry_to(&tar, "sparse", '0', map, 2 << 20);
	assert_int_equal(first_error(&tar, NULL, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "sparse map");
	buf_fini(&tar);
	free(map);
}

static void limits_count_entries_names_and_expanded_files(void **state)
{
	static const char pax[] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
				  "37 GNU.sparse.realsize=4000000000000\n";
	struct buf tar = BUF_INIT(1 << 20);
	struct err e = {0};
	struct tar_limits l = {.entries = 2};

	for (int i = 0; i < 2; i++)
		add_entry_to(&tar, "0123456789", '5', "", 0);
	assert_int_equal(first_error(&tar, &l, &e), 0);
	l = (struct tar_limits){.names_bytes = 20};
	assert_int_equal(first_error(&tar, &l, &e), 0);
	add_entry_to(&tar, "0123456789", '5', "", 0);
	assert_int_equal(first_error(&tar, &l, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "names");
	l = (struct tar_limits){.entries = 2};
	assert_int_equal(first_error(&tar, &l, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "2 entries");

	buf_reset(&tar); /* a hole of 4 TB costs nothing to write down */
	add_entry_to(&tar, "x", 'x', pax, sizeof(pax) - 1);
	add_entry_to(&tar, "sparse", '0', "0\n", 2);
	l = (struct tar_limits){.unpacked = 1ull << 40};
	assert_int_equal(first_error(&tar, &l, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_text_has(e.text, "bytes of files");
	buf_fini(&tar);
}

/* 40,000 xattrs in one header, half of them twice: quadratic work would take minutes. */
static void thousands_of_xattrs_in_one_header_keep_the_last_of_each_name(void **state)
{
	struct buf tar = BUF_INIT(4 << 20), pax = BUF_INIT(1 << 20);
	struct source *s;
	struct tar_reader *t = NULL;
	struct tar_piece p;
	struct err e = {0};

	for (int i = 0; i < 30000; i++)
		assert_int_equal(buf_addf(&pax, &e, "30 SCHILY.xattr.u.%05d=%05d\n", i % 20000, i),
				 0);
	add_entry_to(&tar, "x", 'x', pax.data, pax.len);
	add_entry_to(&tar, "f", '0', "", 0);
	s = source_from_memory(tar.data, tar.len);
	assert_int_equal(tar_open(&t, &s, NULL, &e), 0);
	assert_int_equal(tar_next(t, &p, &e), 1);
	assert_int_equal(p.entry->n_xattr, 20000);
	for (int i = 0; i < 20000; i++) {
		char want[16];

		snprintf(want, sizeof(want), "u.%05d", i);
		assert_string_equal(p.entry->xattr[i].name, want);
		snprintf(want, sizeof(want), "%05d", i < 10000 ? i + 20000 : i);
		assert_int_equal(p.entry->xattr[i].n, 5);
		assert_memory_equal(p.entry->xattr[i].value, want, 5);
	}
	tar_closep(&t);
	buf_fini(&tar);
	buf_fini(&pax);
}

static void an_entry_stays_valid_through_all_its_pieces(void **state)
{
	static const char pax[] = "26 SCHILY.xattr.user.a=bc\n15 path=longer\n";
	size_t n = 3 << 20, pieces = 0;
	struct buf tar = BUF_INIT(8 << 20);
	char *data = mem_zalloc(n);
	struct source *s;
	struct tar_reader *t = NULL;
	struct tar_piece p;
	struct err e = {0};

	add_entry_to(&tar, "x", 'x', pax, sizeof(pax) - 1);
	add_entry_to(&tar, "short", '0', data, n);
	s = source_from_memory(tar.data, tar.len);
	assert_int_equal(tar_open(&t, &s, NULL, &e), 0);
	while (tar_next(t, &p, &e) > 0) {
		assert_string_equal(p.entry->name, "longer");
		assert_string_equal(p.entry->xattr[0].name, "user.a");
		assert_memory_equal(p.entry->xattr[0].value, "bc", 2);
		pieces++;
	}
	assert_true(pieces > 3);
	tar_closep(&t);
	buf_fini(&tar);
	free(data);
}

static void a_failing_source_fails_the_reader_in_its_own_words(void **state)
{
	struct digest nothing;
	struct buf tar = BUF_INIT(1 << 20);
	struct source *s, *v;
	struct tar_reader *t = NULL;
	struct tar_piece p;
	struct err e = {0};
	int r;

	add_entry_to(&tar, "f", '0', "x", 1);
	s = source_from_memory(tar.data, tar.len);
	digest_of(&nothing, DIGEST_SHA256, "", 0);
	v = source_verify(&s, &nothing, 3); /* it will be longer */
	assert_int_equal(tar_open(&t, &v, NULL, &e), 0);
	while ((r = tar_next(t, &p, &e)) > 0)
		;
	assert_int_equal(r, -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	tar_closep(&t);
	tar_closep(&t);
	buf_fini(&tar);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_ok_fixture_reads_as_go_reads_it),
		T(every_fail_fixture_is_refused),
		T(a_tar_cut_anywhere_is_read_or_refused),
		T(records_over_a_mebibyte_are_a_limit),
		T(an_endless_row_of_records_is_a_limit),
		T(a_sparse_map_without_end_is_a_limit),
		T(limits_count_entries_names_and_expanded_files),
		T(thousands_of_xattrs_in_one_header_keep_the_last_of_each_name),
		T(an_entry_stays_valid_through_all_its_pieces),
		T(a_failing_source_fails_the_reader_in_its_own_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
