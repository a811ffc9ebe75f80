/* worker/rafs: gzip layers used as they are.  Contexts need not be nydus-image's to the byte; that
 * inflate restarts at each, and that each chunk is found behind one, is shown here. */
#include "tests/unit/rafs_unit.h"

#include <zlib.h>

#include "common/digest.h"
#include "common/mem.h"
#include "worker/codec/blocks.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_restart.h"

static int on_block(void *arg, const struct block *b, struct err *e)
{
	return rafs_pack_block(arg, b, e);
}

/* A gzip layer to its index blob.  Returns whether it was converted instead. */
static bool pack_ref(const void *gz, size_t n, struct buf *blob, struct rafs_layer *l)
{
	struct rafs_pack_opts o = pack_defaults();
	struct out_opts oo = {.as = {.encoding = ENCODE_ZSTD}};
	struct pool_opts po = {.threads = 1, .buffer_bytes = 4u << 20};
	scoped(pool_freep) struct pool *pool = NULL;
	scoped(rafs_pack_freep) struct rafs_pack *p = NULL;
	scoped(out_freep) struct out *out = NULL;
	struct digest source, id;
	uint64_t size;
	struct err e = {0};
	int passes = 0;

	digest_of(&source, DIGEST_SHA256, gz, n);
	o.zran = true;
	o.source = &source;
	o.source_bytes = n;
	p = rafs_pack_new(&o);
	rafs_pack_out_opts(p, &oo);
	assert_int_equal(pool_open(&pool, &po, &e), 0);
	assert_int_equal(out_open(&out, pool, &oo, &memory_ops, blob, &e), 0);
	do {
		scoped(tar_closep) struct tar_reader *t = NULL;
		struct codec_opts co = {.on_block = on_block, .arg = p};
		struct source *s = source_from_memory(gz, n);
		struct tar_limits limits = {0};
		struct tar_piece piece;
		int r;

		if (codec_unpack(&s, CODEC_GZIP, &co, &e) < 0 || tar_open(&t, &s, &limits, &e) < 0)
			fail_msg("%s", e.text);
		rafs_pack_begin(p, out);
		while ((r = tar_next(t, &piece, &e)) > 0)
			if (rafs_pack_tar(p, &piece, &e) < 0)
				fail_msg("%s", e.text);
		if (r < 0)
			fail_msg("%s", e.text);
		passes++;
	} while (rafs_pack_again(p));
	if (rafs_pack_end(p, l, &e) < 0 || out_commit(out, &id, &size, &e) < 0)
		fail_msg("%s", e.text);
	return passes == 2;
}

/* Restarts inflate at a context, crossing members as readers do; exactly out_len bytes. */
static void inflate_at(const struct v6_zran *c, const uint8_t *dict, const uint8_t *gz, size_t gz_n,
		       uint8_t *out)
{
	uint32_t out_len = le32_get(c->out_len);
	z_stream z = {0};
	int r;

	assert_true(le64_get(c->in) + le32_get(c->in_len) <= gz_n);
	assert_int_equal(inflateInit2(&z, -15), Z_OK);
	if (c->bits)
		assert_int_equal(inflatePrime(&z, c->bits, c->byte >> (8 - c->bits)), Z_OK);
	if (le32_get(c->dict_len))
		assert_int_equal(
			inflateSetDictionary(&z, dict + le64_get(c->dict), le32_get(c->dict_len)),
			Z_OK);
	z.next_in = (Bytef *)gz + le64_get(c->in);
	z.avail_in = le32_get(c->in_len);
	z.next_out = out;
	z.avail_out = out_len;
	while (z.avail_out) {
		r = inflate(&z, Z_NO_FLUSH);
		if (r == Z_STREAM_END &&
		    z.avail_out) { /* trailer, next header (no names in it here) */
			assert_true(z.avail_in > 18);
			z.next_in += 18;
			z.avail_in -= 18;
			assert_int_equal(inflateReset(&z), Z_OK);
			continue;
		}
		if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
			fail_msg("inflate: %d after %lu bytes", r, z.total_out);
		if (r == Z_BUF_ERROR)
			fail_msg("context gives %lu of %u bytes", z.total_out, out_len);
	}
	inflateEnd(&z);
}

/* nydusd 2.2 calls inflate once for all of a context and wants Z_OK: the end of the stream, seen
 * behind the last byte, is an error to it. */
static void assert_one_call_is_enough(const struct rafs_layer *l, const uint8_t *gz)
{
	const struct v6_meta *h = (const void *)(l->meta + l->meta_n - sizeof(*h));
	const struct v6_zran *c = (const void *)(l->meta + le64_get(h->contexts_at));
	uint32_t n = le32_get(h->contexts);
	const uint8_t *dict = (const uint8_t *)(c + n);
	uint8_t *out = mem_alloc(17u << 20);

	for (uint32_t i = 0; i < n; i++) {
		z_stream z = {0};

		assert_int_equal(inflateInit2(&z, -15), Z_OK);
		if (c[i].bits)
			inflatePrime(&z, c[i].bits, c[i].byte >> (8 - c[i].bits));
		if (le32_get(c[i].dict_len))
			inflateSetDictionary(&z, dict + le64_get(c[i].dict),
					     le32_get(c[i].dict_len));
		z.next_in = (Bytef *)gz + le64_get(c[i].in);
		z.avail_in = le32_get(c[i].in_len);
		z.next_out = out;
		z.avail_out = le32_get(c[i].out_len);
		assert_int_equal(inflate(&z, Z_NO_FLUSH), Z_OK);
		assert_int_equal(z.avail_out, 0);
		inflateEnd(&z);
	}
	free(out);
}

/* Every chunk of the blob's meta is what its digest says, read as nydusd reads it.  Returns the
 * number of contexts. */
static uint32_t assert_restarts(const struct rafs_layer *l, const uint8_t *gz, size_t gz_n,
				const struct buf *tar)
{
	const struct v6_meta *h = (const void *)(l->meta + l->meta_n - sizeof(*h));
	const struct rafs_blob *b = l->fs->blobs[0];
	const struct v6_zran *c = (const void *)(l->meta + le64_get(h->contexts_at));
	uint32_t n = le32_get(h->contexts);
	const uint8_t *dict = (const uint8_t *)(c + n);
	uint8_t *out = mem_alloc(17u << 20);
	uint32_t at = UINT32_MAX;

	assert_int_equal(le64_get(h->contexts_at), 24 * (uint64_t)b->chunk_count);
	for (uint32_t i = 0; i < n; i++) {
		assert_true(le32_get(c[i].out_len) <= 16u << 20);
		inflate_at(&c[i], dict, gz, gz_n, out);
		assert_memory_equal(out, tar->data + le64_get(c[i].out), le32_get(c[i].out_len));
	}
	for (uint32_t i = 0; i < b->chunk_count; i++) {
		const struct v6_info2 *x = (const void *)(l->meta + 24 * (size_t)i);
		uint64_t u = le64_get(x->word[0]), s = le64_get(x->word[1]),
			 last = le64_get(x->word[2]);
		uint32_t len = (uint32_t)(u >> 32 & 0xffffff) + 1, from = (uint32_t)last;
		struct digest d;

		assert_int_equal(u >> 56, 3);
		assert_true(last >> 32 < n);
		if (last >> 32 != at) {
			at = (uint32_t)(last >> 32);
			inflate_at(&c[at], dict, gz, gz_n, out);
		}
		assert_true((uint64_t)from + len <= le32_get(c[at].out_len));
		assert_true((s & 0xffffffffff) >= le64_get(c[at].in));
		assert_true((s & 0xffffffffff) + (s >> 40) <=
			    le64_get(c[at].in) + le32_get(c[at].in_len));
		digest_of(&d, DIGEST_SHA256, out + from, len);
		assert_memory_equal(d.bytes, b->chunks[i].digest, 32);
	}
	free(out);
	return n;
}

static void golden_layers_give_the_same_tree_digests_and_sections(void **state)
{
	for (int i = 1; i <= 3; i++) {
		struct buf gz, tar, want, blob = BUF_INIT(MEMORY);
		struct rafs_layer l = {0}, theirs = {0};
		struct memory_at a, b;
		struct rafs_toc ours, toc;
		struct err e = {0};
		char path[64];

		snprintf(path, sizeof(path), GOLDEN "layer%d.tar.gz", i);
		gz = file_bytes(path, false);
		tar = file_bytes(path, true);
		snprintf(path, sizeof(path), GOLDEN "layer%d-zran.blob", i);
		want = file_bytes(path, false);
		assert_false(pack_ref(gz.data, gz.len, &blob, &l));
		a = memory_at(&blob);
		b = memory_at(&want);
		assert_int_equal(rafs_toc_read(&ours, &a.at, &e), 0);
		assert_int_equal(rafs_toc_read(&toc, &b.at, &e), 0);
		assert_int_equal(ours.n, toc.n);
		for (size_t s = 0; s < toc.n; s++)
			assert_string_equal(ours.s[s].name, toc.s[s].name);
		if (i < 3) {
			assert_true(digest_eq(&rafs_toc_find(&ours, "blob.digest")->digest,
					      &rafs_toc_find(&toc, "blob.digest")->digest));
			assert_restarts(&l, (const uint8_t *)gz.data, gz.len, &tar);
			assert_one_call_is_enough(&l, (const uint8_t *)gz.data);
		} else {
			assert_bytes(path, &blob, want.data, want.len); /* no data: no context */
		}
		if (rafs_layer_read(&theirs, &b.at, &e) < 0 ||
		    rafs_compare(theirs.fs, l.fs, &e) < 0)
			fail_msg("%s: %s", path, e.text);
		rafs_layer_fini(&l);
		rafs_layer_fini(&theirs);
		assert_int_equal(rafs_layer_read(&l, &a.at, &e), 0);
		assert_true(rafs_layer_is_ref(&l));
		if (i < 3) {
			assert_int_equal(l.fs->blobs[0]->stored, gz.len);
			assert_int_equal(l.fs->blobs[0]->features, 0x7000003D);
		}
		rafs_layer_fini(&l);
		buf_fini(&gz);
		buf_fini(&tar);
		buf_fini(&want);
		buf_fini(&blob);
	}
}

/* ---- layers made here: many blocks, many members, all levels */

static void add_file(struct buf *tar, const char *name, const uint8_t *p, size_t n)
{
	const struct tar_out h = {.name = name, .type = '0', .mode = 0644, .size = n};
	uint8_t block[512];

	tar_write_header(block, &h);
	assert_int_equal(buf_add(tar, block, 512, NULL), 0);
	assert_int_equal(buf_add(tar, p, n, NULL), 0);
	memset(block, 0, sizeof(block));
	assert_int_equal(buf_add(tar, block, tar_padding(n), NULL), 0);
}

static void gzip_member(struct buf *gz, const void *p, size_t n, int level)
{
	uLong room = compressBound(n) + 64;
	z_stream z = {0};

	assert_int_equal(buf_reserve(gz, room, NULL), 0);
	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)p;
	z.avail_in = (uInt)n;
	z.next_out = (Bytef *)gz->data + gz->len;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	gz->len += room - z.avail_out;
	deflateEnd(&z);
}

static struct buf big_tar(void)
{
	struct buf tar = BUF_INIT(MEMORY);
	uint8_t *p = mem_alloc(3u << 20);
	uint64_t seed = 1;

	for (int f = 0; f < 30; f++) {
		size_t n = f % 7 ? 1000u + (size_t)f * 3001u : (3u << 20) - (size_t)f;
		char name[16];

		for (size_t i = 0; i < n; i++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			p[i] = f % 3 == 2 ? (uint8_t)(seed >> 56)
					  : (uint8_t) "lorem ipsum "[(seed >> 60) % 12];
		}
		snprintf(name, sizeof(name), "f%02d", f % 25); /* some paths twice */
		add_file(&tar, name, p, n);
		if (f % 4 == 0) {
			snprintf(name, sizeof(name), "same%02d", f);
			add_file(&tar, name, p, n); /* the same bytes again */
		}
	}
	memset(p, 0, 1024);
	assert_int_equal(buf_add(&tar, p, 1024, NULL), 0);
	free(p);
	return tar;
}

static void inflate_restarts_at_every_context_whatever_the_members(void **state)
{
	struct buf tar = big_tar();
	static const struct {
		int level;
		size_t member; /* bytes of tar in each */
	} how[] = {{6, SIZE_MAX}, {1, SIZE_MAX}, {9, 1u << 20}, {0, 700000}, {6, 70001}};

	for (size_t i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		struct buf gz = BUF_INIT(MEMORY), blob = BUF_INIT(MEMORY);
		struct rafs_layer l = {0};
		uint32_t contexts;

		for (size_t at = 0; at < tar.len;) {
			size_t n = how[i].member < tar.len - at ? how[i].member : tar.len - at;

			gzip_member(&gz, tar.data + at, n, how[i].level);
			at += n;
		}
		assert_false(pack_ref(gz.data, gz.len, &blob, &l));
		contexts = assert_restarts(&l, (const uint8_t *)gz.data, gz.len, &tar);
		assert_true(contexts >= tar.len / (3u << 20));
		if (how[i].member == SIZE_MAX)
			assert_one_call_is_enough(&l, (const uint8_t *)gz.data);
		/* issue: no upload above 6 % of the layer + 300 B a file and chunk + 8 KiB */
		if (how[i].member == SIZE_MAX && gz.len * 10 > tar.len)
			assert_true(blob.len <
				    gz.len * 6 / 100 +
					    300 * (l.fs->nodes + l.fs->blobs[0]->chunk_count) +
					    8192);
		rafs_layer_fini(&l);
		buf_fini(&gz);
		buf_fini(&blob);
	}
	buf_fini(&tar);
}

/* A sparse file's chunks lie in no one piece of the tar: such a layer is converted. */
static void a_layer_with_a_sparse_file_is_converted_instead(void **state)
{
	struct buf tar = BUF_INIT(MEMORY), gz = BUF_INIT(MEMORY), blob = BUF_INIT(MEMORY);
	struct rafs_layer l = {0};
	uint8_t block[512];
	unsigned sum = 0;
	static const uint8_t zeros[1024];

	/* old GNU sparse: 8192 bytes, data 512 at 4096 */
	tar_write_header(block,
			 &(struct tar_out){.name = "s", .type = '0', .mode = 0644, .size = 512});
	block[156] = 'S';
	memcpy(block + 257, "ustar  ", 8);
	memset(block + 329, 0, 183);
	memcpy(block + 386, "00000010000", 12);
	memcpy(block + 398, "00000001000", 12);
	memcpy(block + 483, "00000020000", 12);
	memset(block + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += block[i];
	snprintf((char *)block + 148, 8, "%06o", sum);
	block[155] = ' ';
	assert_int_equal(buf_add(&tar, block, 512, NULL), 0);
	memset(block, 'd', 512);
	assert_int_equal(buf_add(&tar, block, 512, NULL), 0);
	assert_int_equal(buf_add(&tar, zeros, 1024, NULL), 0);
	gzip_member(&gz, tar.data, tar.len, 6);
	assert_true(pack_ref(gz.data, gz.len, &blob, &l));
	assert_false(rafs_layer_is_ref(&l));
	assert_int_equal(rafs_lookup(l.fs, "s")->inode->size, 8192);
	assert_int_equal(l.fs->blobs[0]->chunk_count, 1);
	rafs_layer_fini(&l);
	buf_fini(&tar);
	buf_fini(&gz);
	buf_fini(&blob);
}

static void merged_references_name_the_layer_and_the_index(void **state)
{
	struct rafs *fs = rafs_new(0x100000, V6_GZIP, V6_DIGEST_SHA256), *want = NULL;
	struct buf boot = file_bytes(GOLDEN "merged-zran.boot.gz", true), got = BUF_INIT(MEMORY);
	struct rafs_layout_opts o = {0};
	struct err e = {0};

	for (int i = 1; i <= 3; i++) { /* nydus-image's own layers */
		struct rafs_layer l = {0};
		struct digest source, id;
		struct buf b, gz;
		struct memory_at at;
		char path[64];

		snprintf(path, sizeof(path), GOLDEN "layer%d-zran.blob", i);
		b = file_bytes(path, false);
		snprintf(path, sizeof(path), GOLDEN "layer%d.tar.gz", i);
		gz = file_bytes(path, false);
		at = memory_at(&b);
		digest_of(&source, DIGEST_SHA256, gz.data, gz.len);
		digest_of(&id, DIGEST_SHA256, b.data, b.len);
		assert_int_equal(rafs_layer_read(&l, &at.at, &e), 0);
		rafs_layer_name_ref(&l, &source, &id, b.len);
		if (rafs_merge(fs, &l.fs, &e) < 0)
			fail_msg("%s", e.text);
		rafs_layer_fini(&l);
		buf_fini(&b);
		buf_fini(&gz);
	}
	assert_int_equal(rafs_read(&want, boot.data, boot.len, &e), 0);
	if (rafs_compare(fs, want, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(rafs_write(fs, &o, &got, &e), 0);
	assert_bytes("merged-zran", &got, boot.data, boot.len);
	rafs_freep(&want);
	rafs_freep(&fs);
	buf_fini(&boot);
	buf_fini(&got);
}

/* ---- what `accelctl check` finds */

static int check_ref(const struct buf *blob, const struct buf *gz, struct err *e)
{
	struct memory_at at = memory_at(blob), layer = memory_at(gz);
	struct source *s = source_from_memory(gz->data, gz->len);
	const struct codec_opts o = {0};
	struct digest source;

	digest_of(&source, DIGEST_SHA256, gz->data, gz->len);
	assert_int_equal(codec_unpack(&s, CODEC_GZIP, &o, e), 0);
	return rafs_check_ref(&at.at, &s, &source, &layer.at, e);
}

static void upstreams_indexes_and_ours_are_right(void **state)
{
	struct buf tar = big_tar(), gz = BUF_INIT(MEMORY), blob = BUF_INIT(MEMORY);
	struct rafs_layer l = {0};
	struct err e = {0};

	for (int i = 1; i <= 3; i++) { /* nydus-image's */
		struct buf theirs, layer;
		char path[64];

		snprintf(path, sizeof(path), GOLDEN "layer%d-zran.blob", i);
		theirs = file_bytes(path, false);
		snprintf(path, sizeof(path), GOLDEN "layer%d.tar.gz", i);
		layer = file_bytes(path, false);
		if (check_ref(&theirs, &layer, &e) < 0)
			fail_msg("%s: %s", path, e.text);
		buf_fini(&theirs);
		buf_fini(&layer);
	}
	for (size_t at = 0; at < tar.len; at += 1u << 20) /* many members */
		gzip_member(&gz, tar.data + at, tar.len - at < 1u << 20 ? tar.len - at : 1u << 20,
			    6);
	assert_false(pack_ref(gz.data, gz.len, &blob, &l));
	if (check_ref(&blob, &gz, &e) < 0)
		fail_msg("%s", e.text);
	rafs_layer_fini(&l);
	buf_fini(&tar);
	buf_fini(&gz);
	buf_fini(&blob);
}

struct wrong { /* one thing changed in a good index */
	const char *name;
	size_t context; /* which; SIZE_MAX: of the chunk infos */
	size_t at, width;
	uint64_t add;
	const char *says;
};

/* Each field of a context and of a chunk's place moved a little: nothing but random access can see
 * most of it. */
static void what_random_access_would_stumble_over_is_found(void **state)
{
	static const struct wrong wrong[] = {
		{"where it starts", 1, 0, 8, 1, "context 1"},
		{"packed bytes", 1, 24, 4, (uint64_t)-200000, "context 1"},
		{"unpacked bytes", 1, 28, 4, (uint64_t)-1500000, "context 1"},
		{"more than 16 MiB", 1, 28, 4, 16u << 20, "context 1: out of bounds"},
		{"window elsewhere", 2, 16, 8, (uint64_t)-1, "context 2"},
		{"no window", 1, 32, 4, (uint64_t)-32768, "context 1"},
		{"window behind the end", 1, 16, 8, 1u << 30, "context 1: out of bounds"},
		{"another bit", 1, 37, 1, 1, "context 1"},
		{"nine bits", 1, 37, 1, 9, "context 1"},
		{"chunk a byte further", SIZE_MAX, 16, 4, 1, "chunk 0"},
		{"chunk in another context", SIZE_MAX, 20, 4, 1, "chunk 0"},
		{"chunk in no context", SIZE_MAX, 20, 4, 60000, "chunk 0: it lies in no context"},
	};
	struct buf tar = big_tar(), gz = BUF_INIT(MEMORY), blob = BUF_INIT(MEMORY), digests;
	struct rafs_layer l = {0};
	struct memory_at at;
	struct rafs_toc toc;
	struct memory_at layer;
	const struct v6_meta *h;
	struct err e = {0};

	gzip_member(&gz, tar.data, tar.len, 6);
	assert_false(pack_ref(gz.data, gz.len, &blob, &l));
	at = memory_at(&blob);
	layer = memory_at(&gz);
	assert_int_equal(rafs_toc_read(&toc, &at.at, &e), 0);
	buf_init(&digests, MEMORY);
	assert_int_equal(
		rafs_section_read(rafs_toc_find(&toc, "blob.digest"), &at.at, &digests, &e), 0);
	h = (const void *)(l.meta + l.meta_n - sizeof(*h));
	assert_true(le32_get(h->contexts) > 3);
	if (rafs_check_restarts(&l, digests.data, digests.len, &layer.at, &e) < 0)
		fail_msg("%s", e.text);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		const struct wrong *w = &wrong[i];
		uint8_t *p = l.meta + w->at;
		uint64_t v = 0;

		if (w->context != SIZE_MAX)
			p += le64_get(h->contexts_at) + 40 * w->context;
		memcpy(&v, p, w->width);
		v += w->add;
		memcpy(p, &v, w->width);
		e = (struct err){0};
		if (rafs_check_restarts(&l, digests.data, digests.len, &layer.at, &e) == 0)
			fail_msg("%s is not found", w->name);
		if (e.code != ERR_CORRUPT || !strstr(e.text, w->says))
			fail_msg("%s: %s", w->name, e.text);
		v -= w->add;
		memcpy(p, &v, w->width);
	}
	digests.data[40] ^= 1;
	assert_int_equal(rafs_check_restarts(&l, digests.data, digests.len, &layer.at, &e), -1);
	assert_int_equal(rafs_check_restarts(&l, digests.data, 32, &layer.at, &e), -1);
	rafs_layer_fini(&l);
	buf_fini(&digests);
	buf_fini(&tar);
	buf_fini(&gz);
	buf_fini(&blob);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(golden_layers_give_the_same_tree_digests_and_sections),
		T(inflate_restarts_at_every_context_whatever_the_members),
		T(a_layer_with_a_sparse_file_is_converted_instead),
		T(merged_references_name_the_layer_and_the_index),
		T(upstreams_indexes_and_ours_are_right),
		T(what_random_access_would_stumble_over_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
