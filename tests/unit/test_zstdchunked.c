/* worker/drivers/zstdchunked.c: both dialects, and both in one blob, as our own check and an
 * ordinary reader see them. */
#include "tests/unit/pack.h"

#include <dirent.h>
#include <stdio.h>

#include "common/json.h"
#include "worker/codec/encode.h"
#include "worker/drivers/footer.h"
#include "worker/drivers/zstdcheck.h"

#define FIXTURES "tests/fixtures/tar"
#define M4 ((size_t)4 << 20)

static struct target a_target(enum zstd_dialect dialect)
{
	struct target t;

	target_init(&t, DRIVER_ZSTDCHUNKED);
	t.zstdchunked.dialect = dialect;
	t.zstdchunked.face = dialect == DIALECT_BOTH ? DIALECT_CONTAINERD : dialect;
	return t;
}

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

static void pack_and_check(const struct target *t, const struct buf *tar, struct packed *x)
{
	scoped(buf_fini) struct buf back;
	struct digest d;
	struct err e = {0};

	if (pack(t, 2, tar->data, tar->len, x, &e) < 0)
		fail_msg("pack: %s", e.text);
	unpack_blob(x, &back);
	digest_of(&d, DIGEST_SHA256, back.data, back.len);
	assert_true(digest_eq(&d, &x->r.diff_id));
	assert_int_equal(back.len, x->r.unpacked);
	if (t->zstdchunked.dialect != DIALECT_CONTAINERD) {
		assert_int_equal(back.len, tar->len);
		assert_memory_equal(back.data, tar->data, tar->len);
	}
	if (check_packed(t, x, NULL, NULL, &e) < 0)
		fail_msg("check: %s", e.text);
	assert_string_equal(x->r.media_type, MT_OCI_LAYER_ZSTD);
}

/* A frame of the blob, unpacked: by "AT:N:UNPACKED[:1]". */
static void frame(const struct packed *x, const char *position, struct buf *to)
{
	struct encoder *enc = encoder_new();
	unsigned long at, n, unpacked;
	size_t got;
	struct err e = {0};

	assert_int_equal(sscanf(position, "%lu:%lu:%lu", &at, &n, &unpacked), 3);
	buf_init(to, (size_t)1 << 28);
	assert_int_equal(buf_reserve(to, unpacked + 1, &e), 0);
	if (decode(enc, ENCODE_ZSTD, x->blob.data + at, n, to->data, unpacked, &got, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(got, unpacked);
	to->len = got;
	to->data[got] = 0;
	encoder_freep(&enc);
}

static struct json *toc_of(const struct packed *x)
{
	scoped(buf_fini) struct buf b;
	const char *at = annotations_get(&x->r.annotations, PODMAN_POSITION);
	struct json *j = NULL;
	struct err e = {0};

	frame(x, at ? at : annotations_get(&x->r.annotations, CONTAINERD_POSITION), &b);
	if (json_parse(&j, b.data, b.len, NULL, &e) < 0)
		fail_msg("%s", e.text);
	return j;
}

static int64_t number_of(const struct json *o, const char *key)
{
	return json_has(o, key) ? json_value_int(json_get(o, key)) : 0;
}

static const char *text_of(const struct json *o, const char *key)
{
	const char *s = json_value_str(json_get(o, key));

	return s ? s : "";
}

static void every_fixture_in_every_dialect(void **state)
{
	for (int dialect = DIALECT_CONTAINERD; dialect <= DIALECT_BOTH; dialect++) {
		struct target t = a_target((enum zstd_dialect)dialect);
		DIR *dir = opendir(FIXTURES);
		struct dirent *d;
		unsigned tried = 0, lazy = 0;

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
					fail_msg("%s, dialect %d: check: %s", d->d_name, dialect,
						 e.text);
				tried++;
				lazy += !x.r.plain_reason[0];
			}
			packed_fini(&x);
		}
		closedir(dir);
		assert_true(tried > 10);
		if (lazy * 3 < tried)
			fail_msg("%u of %u are lazy in dialect %d", lazy, tried, dialect);
		target_fini(&t);
	}
}

static void podman_keeps_the_tar_and_tells_it_twice(void **state)
{
	struct target t = a_target(DIALECT_PODMAN);
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), split = {0};
	scoped(json_freep) struct json *j = NULL;
	const struct json *f;
	struct packed x;

	tar_file(&tar, "f", "x"); /* formats/zstd-chunked.md §6 */
	pack_and_check(&t, &tar, &x);
	assert_string_equal(x.r.plain_reason, "");
	j = toc_of(&x);
	f = json_at(json_get(j, "entries"), 0);
	assert_string_equal(text_of(f, "name"), "f");
	assert_string_equal(text_of(f, "modtime"), "1970-01-01T00:00:00Z");
	assert_true(number_of(f, "endOffset") > number_of(f, "offset"));
	assert_string_equal(
		text_of(f, "digest"),
		"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
	assert_false(json_has(f, "chunkDigest"));
	assert_memory_equal(x.blob.data + x.blob.len - 8, "GNUlInUx", 8);
	assert_null(annotations_get(&x.r.annotations, CONTAINERD_TOC_DIGEST));
	frame(&x, annotations_get(&x.r.annotations, PODMAN_TARSPLIT), &split);
	assert_text_has(split.data,
			",\"position\":0}\n{\"type\":1,\"name\":\"f\",\"size\":1,\"payload\":\"");
	assert_text_has(split.data, "\"position\":2}\n");
	packed_fini(&x);
	target_fini(&t);
}

static void containerd_writes_no_end_of_archive(void **state)
{
	struct target t = a_target(DIALECT_CONTAINERD);
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
	scoped(json_freep) struct json *j = NULL;
	struct packed x;

	tar_file(&tar, "f", "x");
	tar_end(&tar);
	pack_and_check(&t, &tar, &x);
	assert_int_equal(x.r.unpacked, 2048);
	j = toc_of(&x);
	assert_int_equal(json_len(json_get(j, "entries")), 2);
	assert_string_equal(annotations_get(&x.r.annotations, CONTAINERD_UNPACKED), "2048");
	assert_memory_equal(x.blob.data + x.blob.len - 8, "GnUlInUx", 8);
	assert_null(annotations_get(&x.r.annotations, PODMAN_CHECKSUM));
	packed_fini(&x);
	target_fini(&t);
}

static char *some_data(size_t n)
{
	char *p = malloc(n);
	uint32_t s = 99;

	for (size_t i = 0; i < n; i++)
		p[i] = (char)((s = s * 1103515245 + 12345) >> 20);
	return p;
}

/* A thousand zeros are data, 1024 are a hole; a hole is one chunk however long it is. */
static void holes_are_chunks_of_their_own(void **state)
{
	struct target t = a_target(DIALECT_PODMAN);
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
	scoped(json_freep) struct json *j = NULL;
	size_t n = 4 + 1000 + 4 + 1024 + 4 + 3 * M4 + 5;
	char *data = calloc(1, n);
	const struct json *a;
	struct packed x;
	static const struct {
		size_t size;
		const char *type;
	} want[] = {{1008, ""}, {1024, "zeros"}, {4, ""}, {3 * M4, "zeros"}, {5, ""}};

	memcpy(data, "abcd", 4);
	memcpy(data + 1004, "efgh", 4);
	memcpy(data + 2032, "ijkl", 4);
	memcpy(data + n - 5, "mnopq", 5);
	tar_entry(&tar, '0', "f", NULL, data, n);
	tar_entry(&tar, '0', "zeros", NULL, data + 3000, 2 * M4);
	pack_and_check(&t, &tar, &x);
	j = toc_of(&x);
	a = json_get(j, "entries");
	assert_int_equal(json_len(a), 6);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(number_of(json_at(a, i), "chunkSize"), want[i].size);
		assert_string_equal(text_of(json_at(a, i), "chunkType"), want[i].type);
	}
	assert_false(
		json_has(json_at(a, 5), "chunkSize")); /* one chunk alone has no chunk fields */
	packed_fini(&x);
	target_fini(&t);
	free(data);
}

/* formats/zstd-chunked.md §3.2, a byte at a time. */
struct cut {
	size_t n;
	bool zeros;
};

struct sum {
	uint32_t s1, s2;
	size_t at;
	uint8_t window[64];
};

static bool sum_byte(struct sum *r, uint8_t c)
{
	uint8_t *gone = &r->window[r->at++ % 64];

	r->s1 += (uint32_t)c - *gone;
	r->s2 += r->s1 - 64 * (*gone + 31u);
	*gone = c;
	return (r->s2 & 0xffff) == 0xffff;
}

static size_t cuts_of(const char *p, size_t n, struct cut *to)
{
	struct sum r = {.s1 = 64 * 31, .s2 = 64 * 63 * 31};
	size_t k = 0, from = 0, run;

	for (size_t i = 0; i < n;) {
		for (run = 0; i + run < n && p[i + run] == 0;)
			run++;
		if (run >= 1024) {
			if (i > from)
				to[k++] = (struct cut){i - from, false};
			for (size_t z = 0; z < run; z++)
				sum_byte(&r, 0);
			to[k++] = (struct cut){run, true};
			from = i += run;
			continue;
		}
		for (size_t last = i + (run ? run : 1); i < last;) {
			bool split = sum_byte(&r, (uint8_t)p[i++]);

			if (split || i - from == M4) { /* and what no one cuts for 4 MiB */
				to[k++] = (struct cut){i - from, false};
				from = i;
			}
		}
	}
	if (n > from)
		to[k++] = (struct cut){n - from, false};
	return k;
}

static void sha256_of(const char *p, size_t n, char text[DIGEST_TEXT])
{
	struct digest d;

	digest_of(&d, DIGEST_SHA256, p, n);
	digest_text(&d, text);
}

/* The entries from *at on are those of this file. */
static void chunks_are_those_of(const struct json *entries, size_t *at, const char *p, size_t n)
{
	static struct cut cut[4096];
	size_t k = cuts_of(p, n, cut), from = 0;
	const struct json *file = json_at(entries, *at), *c;
	char want[DIGEST_TEXT];

	assert_int_equal(number_of(file, "size"), n);
	sha256_of(p, n, want);
	assert_string_equal(text_of(file, "digest"), want);
	for (size_t i = 0; i < k; i++) {
		c = json_at(entries, (*at)++);
		assert_string_equal(text_of(c, "type"), i ? "chunk" : "reg");
		if (k > 1) {
			sha256_of(p + from, cut[i].n, want);
			assert_int_equal(number_of(c, "chunkOffset"), from);
			assert_int_equal(number_of(c, "chunkSize"), cut[i].n);
			assert_string_equal(text_of(c, "chunkDigest"), want);
			assert_string_equal(text_of(c, "chunkType"), cut[i].zeros ? "zeros" : "");
		}
		from += cut[i].n;
	}
}

static uint32_t next_random(uint32_t *s)
{
	return (*s = *s * 1664525 + 1013904223) >> 8;
}

/* Bytes without a pattern, of one value, and zeros, in runs about the lengths that matter. */
static size_t some_runs(char *p, size_t most, uint32_t *s)
{
	static const uint32_t lengths[] = {1,	 63,   64,    65,	 1023,	  1024,
					   1025, 4096, 65536, (1 << 20), 4 << 20, 0};
	size_t n = 0;

	for (uint32_t runs = 1 + next_random(s) % 6; runs; runs--) {
		size_t len = lengths[next_random(s) % 12];
		uint32_t kind = next_random(s) % 3;

		if (!len)
			len = next_random(s) % 300000;
		if (len > most - n)
			len = most - n;
		for (size_t i = 0; kind == 0 && i < len; i++)
			p[n + i] = (char)next_random(s);
		if (kind)
			memset(p + n, kind == 1 ? 'a' : 0, len);
		n += len;
	}
	return n;
}

static void chunks_of_any_file_are_those_of_the_sheet(void **state)
{
	static const struct {
		size_t zeros, as, more;
	} special[] = {
		{0, M4, 0},	 {0, M4, 1},	 {0, M4, 2048}, {0, 2 * M4, 0}, {M4, 0, 0},
		{M4, 1, 0},	 {M4 + 1, 0, 0}, {0, 5, M4},	{0, 5, M4 + 1}, {1023, 1, 1023},
		{1024, 1, 1024}, {0, M4, 1023},	 {1024, M4, 0},
	};
	struct target t = a_target(DIALECT_PODMAN);
	size_t most = 3 * M4, at;
	char *p = malloc(most);
	uint32_t seed = 7;

	for (size_t i = 0; i < 28; i++) {
		scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
		scoped(json_freep) struct json *j = NULL;
		struct packed x;
		size_t n = 0;

		if (i < sizeof(special) / sizeof(*special)) {
			n = special[i].zeros + special[i].as + special[i].more;
			memset(p, 0, n);
			memset(p + special[i].zeros, 'a', special[i].as);
		}
		while (!n)
			n = some_runs(p, most, &seed);
		tar_entry(&tar, '0', "f", NULL, p, n);
		tar_file(&tar, "g", "of the file that follows");
		tar_end(&tar);
		pack_and_check(&t, &tar, &x);
		j = toc_of(&x);
		at = 0;
		chunks_are_those_of(json_get(j, "entries"), &at, p, n);
		assert_string_equal(text_of(json_at(json_get(j, "entries"), at), "name"), "g");
		packed_fini(&x);
	}
	free(p);
	target_fini(&t);
}

static void stays_plain(enum zstd_dialect dialect, const struct buf *tar, const char *why)
{
	struct target t = a_target(dialect);
	struct packed x;

	pack_and_check(&t, tar, &x);
	assert_text_has(x.r.plain_reason, why);
	assert_int_equal(x.r.annotations.n, 0);
	packed_fini(&x);
	target_fini(&t);
}

static void what_podman_would_refuse_stays_plain(void **state)
{
	scoped(buf_fini) struct buf twice = BUF_INIT(1 << 20), dots = BUF_INIT(1 << 20),
				    after = BUF_INIT(1 << 20), whiteout = BUF_INIT(1 << 20),
				    whiteout2 = BUF_INIT(1 << 20), link = BUF_INIT(1 << 20),
				    empty = BUF_INIT(1 << 20), seven = BUF_INIT(1 << 20),
				    implied = BUF_INIT(1 << 20), late = BUF_INIT(1 << 20),
				    fifo = BUF_INIT(1 << 20), full = BUF_INIT(1 << 20),
				    slash = BUF_INIT(1 << 20), root = BUF_INIT(1 << 20);

	tar_file(&twice, "a", "1");
	tar_file(&twice, "./a", "2");
	stays_plain(DIALECT_PODMAN, &twice, "./a occurs twice");
	tar_file(&dots, "a/../b", "1");
	stays_plain(DIALECT_PODMAN, &dots, "holds \"..\"");
	tar_file(&after, "a", "1");
	tar_end(&after);
	buf_add(&after, "garbage", 7, NULL);
	stays_plain(DIALECT_PODMAN, &after, "bytes after the tar's end marker");
	tar_entry(&whiteout, '5', "d/", NULL, NULL, 0);
	tar_file(&whiteout, "d/.wh.a", "");
	tar_file(&whiteout, "d/a", "1");
	stays_plain(DIALECT_PODMAN, &whiteout, "removed and made in the same layer");
	tar_file(&whiteout2, "a", "1");
	tar_file(&whiteout2, ".wh.a", "");
	stays_plain(DIALECT_BOTH, &whiteout2, "removed and made in the same layer");
	tar_entry(&link, '1', "b", "nowhere", NULL, 0);
	stays_plain(DIALECT_PODMAN, &link, "not in this layer");
	tar_entry(&seven, '7', "b", NULL, "x", 1);
	stays_plain(DIALECT_PODMAN, &seven, "type 7");
	tar_end(&empty);
	stays_plain(DIALECT_BOTH, &empty, "the layer is empty");
	tar_entry(&implied, '5', "a/", NULL, NULL, 0);
	tar_file(&implied, "a/b/c/d", "1");
	stays_plain(DIALECT_PODMAN, &implied, "a/b/c has no entry before what it holds");
	tar_entry(&late, '2', "a/b", "x", NULL, 0);
	tar_entry(&late, '5', "./a/", NULL, NULL, 0);
	stays_plain(DIALECT_BOTH, &late, "a has no entry before what it holds");
	tar_entry(&fifo, '1', "h", "p", NULL, 0);
	tar_entry(&fifo, '6', "p", NULL, NULL, 0);
	stays_plain(DIALECT_PODMAN, &fifo, "h is a hard link to p, which is not made");
	tar_file(&full, ".wh.a", "contents");
	stays_plain(DIALECT_PODMAN, &full, ".wh.a is a whiteout and has contents");
	tar_file(&slash, "d/", "contents");
	stays_plain(DIALECT_PODMAN, &slash, "d/ is a file and is spelled as a directory");
	tar_file(&root, "", "contents");
	stays_plain(DIALECT_PODMAN, &root, "\"\" is the root and no directory");
	stays_plain(DIALECT_CONTAINERD, &root, "\"\" is the root and no directory");
}

/* podman compares the table with each field of the header, whatever it is good for: an error, and
 * no full pull.  (Each of these was pulled by podman 5.4 from an ordinary layer.) */
static void headers_that_say_more_than_an_entry_stay_plain(void **state)
{
	static const struct {
		char type;
		size_t at, n; /* in the block */
		const char *bytes, *why;
	} odd[] = {
		{'0', 157, 1, "a", "a link's target"},
		{'5', 157, 1, "a", "a link's target"},
		{'0', 329, 8, "0000005", "a device's number, and is none"},
		{'5', 337, 8, "0000005", "a device's number, and is none"},
		{'3', 337, 8, "\x80\0\0\1\0\0\0\0", "of more than 32 bits"},
		{'1', 124, 12, "00000000015", "a size, and no data"},
		{'2', 124, 12, "00000000015", "a size, and no data"},
		{'5', 124, 12, "00000000015", "a size, and no data"},
		{'6', 124, 12, "00000000015", "a size, and no data"},
		{'0', 108, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", "a negative owner"},
		{'0', 116, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", "a negative owner"},
		{'0', 100, 8, "\x80\0\0\1\0\0\1\xa4", "a mode of more than 32 bits"},
		{'0', 100, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", "a mode of more than 32 bits"},
	};

	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20);
		size_t at;

		tar_file(&tar, "a", "1");
		at = tar.len;
		tar_entry(&tar, odd[i].type, "b",
			  odd[i].type == '1' || odd[i].type == '2' ? "a" : NULL, NULL, 0);
		memcpy(tar.data + at + odd[i].at, odd[i].bytes, odd[i].n);
		tar_retype((uint8_t *)tar.data + at, odd[i].type);
		tar_end(&tar);
		stays_plain(DIALECT_PODMAN, &tar, odd[i].why);
		stays_plain(DIALECT_BOTH, &tar, odd[i].why);
	}
}

static void a_tar_of_no_bytes_is_zstd_from_its_first_byte(void **state)
{
	for (int dialect = DIALECT_CONTAINERD; dialect <= DIALECT_BOTH; dialect++) {
		struct target t = a_target((enum zstd_dialect)dialect);
		scoped(buf_fini) struct buf tar = BUF_INIT(1);
		struct packed x;

		pack_and_check(&t, &tar, &x);
		assert_memory_equal(x.blob.data, "\x28\xb5\x2f\xfd", 4);
		packed_fini(&x);
		target_fini(&t);
	}
}

static void some_layer(struct buf *tar)
{
	char name[64], *data = some_data(2 * M4);

	for (int i = 0; i < 17; i++) {
		snprintf(name, sizeof(name), "d%d/", i);
		tar_entry(tar, '5', name, NULL, NULL, 0);
	}
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "d%d/f%d", i % 17, i);
		tar_entry(tar, '0', name, NULL, data + i, (size_t)(i * 7919 % 9000));
	}
	memset(data + 5000, 0, 100000);
	tar_entry(tar, '0', "big", NULL, data, M4 + 777);
	tar_entry(tar, '2', "link", "big", NULL, 0);
	tar_entry(tar, '1', "hard", "big", NULL, 0);
	tar_entry(tar, '5', "last/", NULL, NULL, 0);
	tar_end(tar);
	free(data);
}

static void same_bytes_with_1_2_and_7_compressors(void **state)
{
	const uint32_t threads[3] = {1, 2, 7};

	for (int dialect = DIALECT_CONTAINERD; dialect <= DIALECT_BOTH; dialect++) {
		struct target t = a_target((enum zstd_dialect)dialect);
		scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
		struct packed x[3];
		struct err e = {0};

		some_layer(&tar);
		for (int i = 0; i < 3; i++) {
			if (pack(&t, threads[i], tar.data, tar.len, &x[i], &e) < 0)
				fail_msg("%s", e.text);
			assert_true(digest_eq(&x[i].d.digest, &x[0].d.digest));
		}
		if (check_packed(&t, &x[0], NULL, NULL, &e) < 0)
			fail_msg("%s", e.text);
		for (int i = 0; i < 3; i++)
			packed_fini(&x[i]);
		target_fini(&t);
	}
}

static void one_blob_for_both_with_two_faces(void **state)
{
	static const char config[] =
		"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\","
		"\"diff_ids\":["
		"\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}}";
	struct target c = a_target(DIALECT_BOTH), p = a_target(DIALECT_BOTH);
	scoped(buf_fini) struct buf tar = BUF_INIT(1 << 28);
	char one[256], two[256];
	struct packed x;
	struct err e = {0};

	p.zstdchunked.face = DIALECT_PODMAN;
	zstdchunked_driver.identity(&c, one, sizeof(one));
	zstdchunked_driver.identity(&p, two, sizeof(two));
	assert_string_equal(one, two);
	some_layer(&tar);
	pack_and_check(&c, &tar, &x);
	for (int i = 0; i < 2; i++) {
		struct drv_image *im = NULL;
		struct imageconfig cfg;
		struct manifest m;
		struct descriptor *l;

		manifest_init(&m);
		imageconfig_init(&cfg);
		l = manifest_add_layer(&m);
		assert_int_equal(imageconfig_parse(&cfg, config, strlen(config), &e), 0);
		assert_int_equal(
			zstdchunked_driver.image_open(&im, i ? &p : &c, &m, &cfg, NULL, &e), 0);
		if (zstdchunked_driver.finish(im, &x.d, &x.r, 1, &m, &cfg, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(!annotations_get(&l->annotations, PODMAN_CHECKSUM), !i);
		assert_int_equal(!annotations_get(&l->annotations, CONTAINERD_TOC_DIGEST), i);
		/* Each face is checked by what it carries. */
		annotations_copy(&x.d.annotations, &l->annotations);
		if (check_packed(i ? &p : &c, &x, NULL, NULL, &e) < 0)
			fail_msg("%s", e.text);
		zstdchunked_driver.image_close(im);
		manifest_fini(&m);
		imageconfig_fini(&cfg);
	}
	packed_fini(&x);
	target_fini(&c);
	target_fini(&p);
}

static void the_check_refuses_what_is_not_the_same(void **state)
{
	for (int dialect = DIALECT_CONTAINERD; dialect <= DIALECT_BOTH; dialect++) {
		struct target t = a_target((enum zstd_dialect)dialect);
		scoped(buf_fini) struct buf tar = BUF_INIT(1 << 20), was = {0};
		struct packed x;
		unsigned refused = 0;

		tar_file(&tar, "a", "hello hello hello");
		tar_entry(&tar, '2', "s", "a", NULL, 0);
		tar_file(&tar, "b", "world");
		tar_end(&tar);
		pack_and_check(&t, &tar, &x);
		unpack_blob(&x, &was);
		for (size_t i = 0; i < x.blob.len; i++) {
			struct err e = {0};

			x.blob.data[i] ^= 0x10;
			if (check_packed(&t, &x, NULL, NULL, &e) == 0) {
				scoped(buf_fini) struct buf is = {0};

				unpack_blob(&x, &is);
				assert_int_equal(is.len, was.len);
				assert_memory_equal(is.data, was.data, was.len);
			} else {
				refused++;
			}
			x.blob.data[i] ^= 0x10;
		}
		assert_true(refused > x.blob.len * 9 / 10);
		packed_fini(&x);
		target_fini(&t);
	}
}

static void footers_go_both_ways(void **state)
{
	uint8_t tail[ZSTD_SKIPPABLE + ZSTD_FOOTER_PODMAN];
	struct err e = {0};

	for (uint64_t at = 100; at < (uint64_t)1 << 40; at = at * 3 + 1)
		for (int podman = 0; podman < 2; podman++) {
			struct zstd_footer f = {.toc = {at, at / 2 + 1, 99},
						.tarsplit = {at + 7, 5, 6}},
					   back;
			size_t n = footer_zstd(tail + ZSTD_SKIPPABLE, &f, podman);
			uint64_t footer_at, size = 3 * at + 1000;

			footer_skippable(tail, (uint32_t)n);
			n += ZSTD_SKIPPABLE;
			assert_int_equal(footer_zstd_parse(tail, n, size, &back, &footer_at, &e),
					 0);
			assert_int_equal(back.toc.at, at);
			assert_int_equal(back.tarsplit.n, podman ? 5 : 0);
			assert_int_equal(footer_at, size - n);
			assert_int_equal(footer_zstd_parse(tail, n, at, &back, &footer_at, &e), -1);
			for (size_t i = 0; i < n; i++) {
				tail[i] ^= 0x80;
				footer_zstd_parse(tail, n, size, &back, &footer_at,
						  &e); /* must not crash */
				tail[i] ^= 0x80;
			}
		}
}

/* A blob of a TiB: zeros, and a footer. */
static int read_large(struct blob_at *b, uint64_t offset, void *to, size_t n, struct err *e)
{
	uint8_t tail[ZSTD_SKIPPABLE + ZSTD_FOOTER_PODMAN];
	struct zstd_footer f = {.toc = {100, (uint64_t)1 << 33, 99}};
	size_t len = ZSTD_SKIPPABLE + footer_zstd(tail + ZSTD_SKIPPABLE, &f, false);

	footer_skippable(tail, (uint32_t)(len - ZSTD_SKIPPABLE));
	memset(to, 0, n);
	if (offset + n == b->size && n >= len)
		memcpy((char *)to + n - len, tail, len);
	return 0;
}

static void a_table_of_more_than_a_frame_is_refused_with_words(void **state)
{
	struct blob_at at = {.read = read_large, .size = (uint64_t)1 << 40};
	struct descriptor d;
	struct err e = {0};

	descriptor_init(&d);
	annotations_set(&d.annotations, CONTAINERD_CHECKSUM, "sha256:0");
	assert_int_equal(zstdcheck(&at, &d, NULL, NULL, &e), -1);
	assert_text_has(e.text, "8589934592 bytes, more than a frame can");
	descriptor_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_fixture_in_every_dialect),
		T(podman_keeps_the_tar_and_tells_it_twice),
		T(containerd_writes_no_end_of_archive),
		T(holes_are_chunks_of_their_own),
		T(chunks_of_any_file_are_those_of_the_sheet),
		T(headers_that_say_more_than_an_entry_stay_plain),
		T(a_tar_of_no_bytes_is_zstd_from_its_first_byte),
		T(what_podman_would_refuse_stays_plain),
		T(same_bytes_with_1_2_and_7_compressors),
		T(one_blob_for_both_with_two_faces),
		T(the_check_refuses_what_is_not_the_same),
		T(footers_go_both_ways),
		T(a_table_of_more_than_a_frame_is_refused_with_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
