/* worker/rafs/rafs_dict.c, and layers packed against one: what the dictionary has is not stored
 * again, and the layer reads back as if it were. */
#include "tests/unit/rafs_unit.h"

#include "common/mem.h"
#include "worker/oci/descriptor.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_dict.h"

#define CHUNK 4096u

struct file {
	const char *name;
	uint32_t seed, bytes;
};

/* A tar of files whose bytes are told by their seed alone: equal seeds share their first chunks. */
static struct buf tar_of(const struct file *f, size_t n)
{
	struct buf b = BUF_INIT(MEMORY);
	static const uint8_t end[2 * TAR_BLOCK];
	struct err e = {0};

	for (size_t i = 0; i < n; i++) {
		const struct tar_out h = {
			.name = f[i].name, .type = '0', .mode = 0644, .size = f[i].bytes};
		scoped_free uint8_t *data = mem_alloc(f[i].bytes + TAR_BLOCK);
		uint32_t x = f[i].seed * 2654435761u + 1;
		uint8_t block[TAR_BLOCK];

		memset(data, 0, f[i].bytes + TAR_BLOCK);
		for (uint32_t k = 0; k < f[i].bytes; k++) {
			x = x * 1664525u + 1013904223u;
			data[k] = (uint8_t)(x >> 28); /* compresses to half */
		}
		tar_write_header(block, &h);
		assert_int_equal(buf_add(&b, block, sizeof(block), &e), 0);
		assert_int_equal(buf_add(&b, data, f[i].bytes + tar_padding(f[i].bytes), &e), 0);
	}
	assert_int_equal(buf_add(&b, end, sizeof(end), &e), 0);
	return b;
}

struct made { /* a layer, its blob and its name */
	struct buf blob;
	struct rafs_layer l;
	struct digest id;
};

static struct made make(const struct rafs_pack_opts *o, const struct file *f, size_t n,
			uint32_t threads)
{
	struct buf tar = tar_of(f, n);
	struct made m = {.blob = BUF_INIT(MEMORY)};
	struct err e = {0};

	if (pack_tar(o, tar.data, tar.len, threads, &m.blob, &m.id, &m.l, &e) < 0)
		fail_msg("%s", e.text);
	rafs_layer_name(&m.l, &m.id);
	buf_fini(&tar);
	return m;
}

static void made_fini(struct made *m)
{
	buf_fini(&m->blob);
	rafs_layer_fini(&m->l);
}

static struct buf boot_of(struct rafs *fs)
{
	struct buf boot = BUF_INIT(MEMORY);
	const struct rafs_layout_opts lo = {.prefetch = "/"};
	struct err e = {0};

	if (rafs_write(fs, &lo, &boot, &e) < 0)
		fail_msg("%s", e.text);
	return boot;
}

static struct rafs_pack_opts small(uint32_t batch)
{
	struct rafs_pack_opts o = pack_defaults();

	o.chunk_size = CHUNK;
	o.batch_size = batch;
	return o;
}

static const struct file base[] = {{"a", 1, 3 * CHUNK + 700}, {"b", 2, 300}, {"c", 3, 9000}};

/* The dictionary of an image whose one layer is `base`. */
static struct rafs_dict *base_dict(const struct rafs_pack_opts *o, struct made *layer)
{
	struct rafs_dict *d = NULL;
	struct buf boot;
	struct err e = {0};

	*layer = make(o, base, 3, 2);
	boot = boot_of(layer->l.fs);
	if (rafs_dict_read(&d, boot.data, boot.len, &e) < 0)
		fail_msg("%s", e.text);
	buf_fini(&boot);
	if (rafs_dict_fits(d, o, &e) < 0)
		fail_msg("%s", e.text);
	return d;
}

/* Two blobs that know each other, for the checker. */
struct pair_at {
	struct memory_at m;
	struct memory_at *dict;
	const char *id;
};

static int other(struct blob_at *b, const char *id, struct blob_at **to, struct err *e)
{
	struct pair_at *p = (struct pair_at *)b;

	if (strcmp(id, p->id) != 0)
		return err_set(e, ERR_NOTFOUND, "no such blob");
	*to = &p->dict->at;
	return 0;
}

static int sum_data(void *arg, const struct tar_piece *p, struct err *e)
{
	if (p->kind == TAR_DATA)
		hasher_update(arg, p->raw, p->len);
	return 0;
}

/* Digest of all data as the checker shows them. */
static int read_back(struct blob_at *at, struct digest *d, struct err *e)
{
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	struct descriptor desc;
	int r;

	descriptor_init(&desc);
	r = rafs_check_blob(at, &desc, sum_data, h, e);
	hasher_final(h, d);
	return r;
}

static const struct file upper[] = {{"b", 2, 300},
				    {"new", 7, 2 * CHUNK},
				    {"x", 1, 3 * CHUNK + 700},
				    {"y", 3, 9000},
				    {"z", 7, 2 * CHUNK + 5}};

static void known_chunks_are_not_stored_again(void **state)
{
	for (uint32_t batch = 0; batch <= CHUNK; batch += CHUNK) {
		struct rafs_pack_opts o = small(batch), plain = small(batch);
		struct made dict_layer, with, without;
		struct rafs_dict *d = base_dict(&o, &dict_layer);
		const struct rafs_blob *own = NULL, *theirs = NULL;
		struct memory_at alone, dict_at = memory_at(&dict_layer.blob);
		char hex[DIGEST_TEXT];
		struct pair_at both;
		struct digest a, b;
		struct err e = {0};

		o.dict = d;
		with = make(&o, upper, 5, 2);
		without = make(&plain, upper, 5, 2);
		for (size_t i = 0; i < with.l.fs->n_blobs; i++)
			if (with.l.fs->blobs[i]->own)
				own = with.l.fs->blobs[i];
			else
				theirs = with.l.fs->blobs[i];
		assert_int_equal(with.l.fs->n_blobs, 2);
		/* new and the end of z: the rest is in the dictionary */
		assert_int_equal(own->chunk_count, 3);
		assert_int_equal(theirs->n_chunks, 4 + 1 + 3);
		assert_string_equal(theirs->id, digest_hex(&dict_layer.id, hex));
		assert_true(rafs_dict_has(d, theirs));
		assert_true(with.blob.len < without.blob.len);

		both = (struct pair_at){memory_at(&with.blob), &dict_at, theirs->id};
		both.m.at.other = other;
		alone = memory_at(&without.blob);
		if (read_back(&both.m.at, &a, &e) < 0 || read_back(&alone.at, &b, &e) < 0)
			fail_msg("%s", e.text);
		assert_true(digest_eq(&a, &b));
		both.m.at.other = NULL;
		assert_int_equal(read_back(&both.m.at, &a, &e), -1);
		assert_text_has(e.text, "chunks lie in another blob");
		made_fini(&dict_layer);
		made_fini(&with);
		made_fini(&without);
		rafs_dict_freep(&d);
	}
}

static void a_layer_wholly_in_the_dictionary_has_no_data(void **state)
{
	struct rafs_pack_opts o = small(0);
	struct made dict_layer, l;
	struct rafs_dict *d = base_dict(&o, &dict_layer);
	struct memory_at dict_at = memory_at(&dict_layer.blob);
	struct rafs_layer back = {0};
	struct pair_at both;
	struct digest sum;
	struct err e = {0};

	o.dict = d;
	l = make(&o, base, 3, 1);
	assert_int_equal(l.l.fs->n_blobs, 1);
	assert_false(l.l.fs->blobs[0]->own);
	assert_int_equal(l.l.meta_n, 0);
	both = (struct pair_at){memory_at(&l.blob), &dict_at, l.l.fs->blobs[0]->id};
	both.m.at.other = other;
	if (rafs_layer_read(&back, &both.m.at, &e) < 0 || rafs_compare(back.fs, l.l.fs, &e) < 0 ||
	    read_back(&both.m.at, &sum, &e) < 0)
		fail_msg("%s", e.text);
	rafs_layer_fini(&back);
	made_fini(&dict_layer);
	made_fini(&l);
	rafs_dict_freep(&d);
}

static void threads_never_change_the_bytes(void **state)
{
	for (uint32_t batch = 0; batch <= CHUNK; batch += CHUNK) {
		struct rafs_pack_opts o = small(batch);
		struct made dict_layer, first, again;
		struct rafs_dict *d = base_dict(&o, &dict_layer);

		o.dict = d;
		first = make(&o, upper, 5, 1);
		for (uint32_t threads = 2; threads <= 4; threads++) {
			again = make(&o, upper, 5, threads);
			assert_bytes("again", &again.blob, first.blob.data, first.blob.len);
			made_fini(&again);
		}
		made_fini(&first);
		made_fini(&dict_layer);
		rafs_dict_freep(&d);
	}
}

/* Two layers borrow of one blob: the merged image lists it once, and one row for each chunk. */
static void merged_layers_list_the_dictionarys_blob_once(void **state)
{
	static const struct file one[] = {{"one/a", 1, 3 * CHUNK + 700}, {"one/n", 20, 5000}},
				 two[] = {{"two/a", 1, 3 * CHUNK + 700}, {"two/b", 2, 300}};
	struct rafs_pack_opts o = small(0);
	struct made dict_layer, l[2];
	struct rafs_dict *d = base_dict(&o, &dict_layer);
	struct rafs *fs = rafs_new(CHUNK, V6_ZSTD, V6_DIGEST_BLAKE3), *back = NULL;
	struct buf boot;
	size_t rows = 0, found = 0;
	struct rafs_layer read[2] = {{0}};
	struct err e = {0};

	o.dict = d;
	l[0] = make(&o, one, 2, 2);
	l[1] = make(&o, two, 2, 2);
	for (size_t i = 0; i < 2; i++) {
		struct memory_at at = memory_at(&l[i].blob);

		assert_int_equal(rafs_layer_read(&read[i], &at.at, &e), 0);
		rafs_layer_name(&read[i], &l[i].id);
		if (rafs_merge(fs, &l[i].l.fs, &e) < 0)
			fail_msg("%s", e.text);
	}
	boot = boot_of(fs);
	if (rafs_read(&back, boot.data, boot.len, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(back->n_blobs, 2); /* the second layer stores nothing */
	for (size_t i = 0; i < back->n_blobs; i++) {
		rows += back->blobs[i]->n_chunks;
		found += rafs_dict_has(d, back->blobs[i]);
	}
	assert_int_equal(found, 1);
	assert_int_equal(rows, 2 + 4 + 1);
	/* what `check` does: the stored layers make that very image */
	if (rafs_check_image(read, 2, boot.data, boot.len, &e) < 0)
		fail_msg("%s", e.text);
	for (size_t i = 0; i < 2; i++)
		rafs_layer_fini(&read[i]);
	rafs_freep(&back);
	rafs_freep(&fs);
	buf_fini(&boot);
	made_fini(&l[0]);
	made_fini(&l[1]);
	made_fini(&dict_layer);
	rafs_dict_freep(&d);
}

static void what_does_not_fit_is_named(void **state)
{
	struct rafs_pack_opts o = small(0), wrong;
	struct made layer;
	struct rafs_dict *d = base_dict(&o, &layer);
	struct err e = {0};

	wrong = o;
	wrong.chunk_size = 2 * CHUNK;
	assert_int_equal(rafs_dict_fits(d, &wrong, &e), -1);
	assert_text_has(e.text, "chunks of 4096 bytes, this target has 8192; set fs_chunk_size");
	wrong = o;
	wrong.sha256 = true;
	assert_int_equal(rafs_dict_fits(d, &wrong, &e), -1);
	assert_text_has(e.text, "digester is blake3, this target's is sha256");
	wrong = o;
	wrong.compressor = V6_LZ4;
	assert_int_equal(rafs_dict_fits(d, &wrong, &e), -1);
	assert_text_has(e.text, "compressor is zstd, this target's is lz4_block");
	made_fini(&layer);
	rafs_dict_freep(&d);
}

static void other_bootstraps_are_no_dictionary(void **state)
{
	struct buf zran = file_bytes(GOLDEN "merged-zran.boot.gz", true);
	struct rafs_dict *d = NULL;
	uint8_t v5[8192] = {0x53, 0x46, 0x41, 0x52}; /* 0x52414653 */
	struct err e = {0};

	assert_int_equal(rafs_dict_read(&d, zran.data, zran.len, &e), -1);
	assert_text_has(e.text, "oci_ref");
	assert_int_equal(rafs_dict_read(&d, v5, sizeof(v5), &e), -1);
	assert_text_has(e.text, "RAFS v5");
	v5[0] = 0;
	assert_int_equal(rafs_dict_read(&d, v5, sizeof(v5), &e), -1);
	assert_text_has(e.text, "no EROFS image");
	assert_int_equal(e.code, ERR_CORRUPT);
	buf_fini(&zran);
}

/* Every chunk of upstream's image is found, of its length alone. */
static void the_golden_image_serves_as_a_dictionary(void **state)
{
	struct buf boot = file_bytes(GOLDEN "merged.boot.gz", true);
	struct rafs_dict *d = NULL;
	struct rafs *fs = NULL;
	struct err e = {0};

	if (rafs_dict_read(&d, boot.data, boot.len, &e) < 0 ||
	    rafs_read(&fs, boot.data, boot.len, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(rafs_dict_blobs(d), fs->n_blobs);
	for (size_t i = 0; i < fs->n_blobs; i++)
		for (size_t k = 0; k < fs->blobs[i]->n_chunks; k++) {
			const struct rafs_chunk *c = &fs->blobs[i]->chunks[k];
			const struct rafs_chunk *f = rafs_dict_find(d, c->digest, c->unpacked);

			assert_non_null(f);
			assert_int_equal(f->unpacked, c->unpacked);
			assert_null(rafs_dict_find(d, c->digest, c->unpacked + 1));
		}
	rafs_freep(&fs);
	rafs_dict_freep(&d);
	buf_fini(&boot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_chunks_are_not_stored_again),
		cmocka_unit_test(a_layer_wholly_in_the_dictionary_has_no_data),
		cmocka_unit_test(threads_never_change_the_bytes),
		cmocka_unit_test(merged_layers_list_the_dictionarys_blob_once),
		cmocka_unit_test(what_does_not_fit_is_named),
		cmocka_unit_test(other_bootstraps_are_no_dictionary),
		cmocka_unit_test(the_golden_image_serves_as_a_dictionary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
