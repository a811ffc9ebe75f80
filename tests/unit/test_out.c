/* worker/out.c and worker/pool.c together: order, hashes, sameness whatever the threads, and
 * failures. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/out.h"
#include "worker/pool.h"

/* ---- a destination in memory that can fail at byte N */
struct dest {
	struct buf got;
	size_t fail_at; /* 0: never */
	bool committed, aborted;
	struct digest digest;
	uint64_t size;
};

static int dest_write(void *arg, const void *p, size_t n, struct err *e)
{
	struct dest *d = arg;

	if (d->fail_at && d->got.len + n >= d->fail_at)
		return err_set(e, ERR_NET, "connection reset after %zu bytes", d->got.len);
	return buf_add(&d->got, p, n, e);
}

static int dest_commit(void *arg, const struct digest *digest, uint64_t size, struct err *e)
{
	struct dest *d = arg;

	d->committed = true;
	d->digest = *digest;
	d->size = size;
	return 0;
}

static void dest_abort(void *arg)
{
	((struct dest *)arg)->aborted = true;
}

static const struct out_ops dest_ops = {dest_write, dest_commit, dest_abort};

static void dest_init(struct dest *d)
{
	memset(d, 0, sizeof(*d));
	buf_init(&d->got, 1 << 28);
}

/* ---- input that any test can make again */
static uint32_t next_random(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*s >> 33);
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)("acceld layer "[next_random(&seed) % 13]);
}

struct landings {
	struct landed *l;
	size_t n;
	uint64_t drop; /* cookies divisible by this are dropped; 0: none */
};

static int note(void *arg, const struct landed *l, struct err *e)
{
	struct landings *x = arg;

	x->l = realloc(x->l, (x->n + 1) * sizeof(*x->l));
	x->l[x->n++] = *l;
	return !x->drop || l->cookie % x->drop != 0;
}

static struct pool *a_pool(uint32_t threads, size_t buffer, bool verify)
{
	struct pool *p = NULL;
	struct pool_opts o = {.threads = threads, .buffer_bytes = buffer, .verify = verify};
	struct err e;

	assert_int_equal(pool_open(&p, &o, &e), 0);
	return p;
}

#define TOTAL (6u << 20)

/* Segments of random sizes, some larger than half a buffer, some tiny. */
static void write_segments(struct out *o, const uint8_t *data, size_t buffer)
{
	uint64_t seed = 7;
	struct err e;

	for (size_t at = 0, i = 1; at < TOTAL; i++) {
		size_t n = next_random(&seed) % (i % 5 ? 3000 : buffer) + 1, room = 0;

		n = n < TOTAL - at ? n : TOTAL - at;
		for (size_t k = 0; k < n;) {
			size_t part = n - k < 1000 ? n - k : 1000;

			room = out_room(o);
			assert_true(room >= part);
			assert_int_equal(out_append(o, data + at + k, part, &e), 0);
			k += part;
		}
		assert_int_equal(out_open_bytes(o), n);
		assert_int_equal(out_cut(o, i, HASH_SHA256, n / 3, n - n / 3, &e), 0);
		at += n;
	}
}

static void run(struct dest *d, struct landings *x, uint32_t threads, const uint8_t *data)
{
	const size_t buffer = 300000;
	scoped(pool_freep) struct pool *p = a_pool(threads, buffer, true);
	struct out_opts opts = {
		.as = {.encoding = ENCODE_GZIP, .level = 1}, .on_land = note, .arg = x};
	scoped(out_freep) struct out *o = NULL;
	struct digest sum;
	uint64_t size;
	struct err e;

	dest_init(d);
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, d, &e), 0);
	write_segments(o, data, buffer);
	assert_int_equal(out_commit(o, &sum, &size, &e), 0);
	assert_true(d->committed);
	assert_int_equal(size, d->got.len);
}

static void unpack_equals(const struct buf *packed, const uint8_t *data, size_t n)
{
	scoped(source_freep) struct source *s = source_from_memory(packed->data, packed->len);
	uint8_t *back = malloc(n + 1);
	struct codec_opts o = {0};
	struct err e;

	assert_int_equal(codec_unpack(&s, CODEC_GZIP, &o, &e), 0);
	assert_int_equal(source_read(s, back, n + 1, &e), n);
	assert_memory_equal(back, data, n);
	free(back);
}

static void same_bytes_with_1_2_and_7_compressors(void **state)
{
	uint8_t *data = malloc(TOTAL);
	struct dest d[3];
	struct landings x[3] = {{0}};
	const uint32_t threads[3] = {1, 2, 7};

	fill(data, TOTAL, 1);
	for (int i = 0; i < 3; i++) {
		run(&d[i], &x[i], threads[i], data);
		assert_int_equal(d[i].got.len, d[0].got.len);
		assert_memory_equal(d[i].got.data, d[0].got.data, d[0].got.len);
		assert_int_equal(x[i].n, x[0].n);
		assert_true(d[i].aborted);
	}
	unpack_equals(&d[0].got, data, TOTAL);
	for (int i = 0; i < 3; i++) {
		buf_fini(&d[i].got);
		free(x[i].l);
	}
	free(data);
}

static void pieces_land_in_the_order_of_the_cuts_with_offset_and_hash(void **state)
{
	uint8_t *data = malloc(TOTAL);
	struct dest d;
	struct landings x = {0};
	uint64_t offset = 0, at = 0;
	struct digest whole;

	fill(data, TOTAL, 2);
	run(&d, &x, 3, data);
	for (size_t i = 0; i < x.n; i++) {
		const struct landed *l = &x.l[i];
		struct digest want;

		assert_int_equal(l->cookie, i + 1);
		assert_int_equal(l->offset, offset);
		digest_of(&want, DIGEST_SHA256, data + at + l->unpacked / 3,
			  l->unpacked - l->unpacked / 3);
		assert_memory_equal(l->hash, want.bytes, 32);
		offset += l->stored;
		at += l->unpacked;
	}
	assert_int_equal(at, TOTAL);
	assert_int_equal(offset, d.got.len);
	digest_of(&whole, DIGEST_SHA256, d.got.data, d.got.len);
	assert_true(digest_eq(&whole, &d.digest));
	buf_fini(&d.got);
	free(x.l);
	free(data);
}

static void dropped_pieces_leave_no_bytes(void **state)
{
	scoped(pool_freep) struct pool *p = a_pool(2, 4096, false);
	struct landings x = {.drop = 3};
	struct out_opts opts = {.as = {.encoding = ENCODE_RAW}, .on_land = note, .arg = &x};
	scoped(out_freep) struct out *o = NULL;
	struct dest d;
	struct digest sum;
	uint64_t size;
	struct err e;

	dest_init(&d);
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
	for (int i = 1; i <= 6; i++) {
		assert_int_equal(out_append(o, "abcdef" + i - 1, 1, &e), 0);
		assert_int_equal(out_cut(o, i, HASH_NONE, 0, 0, &e), 0);
	}
	assert_int_equal(out_commit(o, &sum, &size, &e), 0);
	assert_string_equal(d.got.data, "abde");
	assert_int_equal(x.l[3].offset, 2); /* "d" */
	buf_fini(&d.got);
	free(x.l);
}

static void literals_and_marks_keep_their_place(void **state)
{
	scoped(pool_freep) struct pool *p = a_pool(2, 4096, false);
	struct out_opts opts = {.as = {.encoding = ENCODE_RAW}};
	scoped(out_freep) struct out *o = NULL;
	struct digest got, want;
	struct dest d;
	uint64_t size;
	struct err e;

	dest_init(&d);
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
	assert_int_equal(out_append(o, "one", 3, &e), 0);
	assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0);
	assert_int_equal(out_literal(o, "-lit-", 5, &e), 0);
	assert_int_equal(out_mark(o, &got, &e), 0);
	digest_of(&want, DIGEST_SHA256, "one-lit-", 8);
	assert_true(digest_eq(&got, &want));
	assert_int_equal(out_append(o, "two", 3, &e), 0);
	assert_int_equal(out_append_zeros(o, 2, &e), 0);
	assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0);
	assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0); /* empty: nothing */
	assert_int_equal(out_mark(o, &got, &e), 0);
	digest_of(&want, DIGEST_SHA256, "two\0\0", 5);
	assert_true(digest_eq(&got, &want));
	assert_int_equal(out_sum(o, &got, &size, &e), 0);
	assert_int_equal(size, 13);
	assert_int_equal(out_offset(o), 13);
	digest_of(&want, DIGEST_SHA256, "one-lit-two\0\0", 13);
	assert_true(digest_eq(&got, &want));
	assert_false(d.committed);
	buf_fini(&d.got);
}

static void what_does_not_shrink_is_stored_raw(void **state)
{
	scoped(pool_freep) struct pool *p = a_pool(1, 1 << 16, true);
	struct landings x = {0};
	struct out_opts opts = {
		.as = {.encoding = ENCODE_ZSTD}, .raw_if_larger = true, .on_land = note, .arg = &x};
	scoped(out_freep) struct out *o = NULL;
	uint8_t noise[4096];
	struct dest d;
	uint64_t seed = 3;
	struct err e;

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)next_random(&seed);
	dest_init(&d);
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
	assert_int_equal(out_append(o, noise, sizeof(noise), &e), 0);
	assert_int_equal(out_cut(o, 1, HASH_BLAKE3, 0, sizeof(noise), &e), 0);
	assert_int_equal(out_append_zeros(o, 4096, &e), 0);
	assert_int_equal(out_cut(o, 2, HASH_NONE, 0, 0, &e), 0);
	assert_int_equal(out_drain(o, &e), 0);
	assert_true(x.l[0].raw);
	assert_int_equal(x.l[0].stored, sizeof(noise));
	assert_memory_equal(d.got.data, noise, sizeof(noise));
	assert_false(x.l[1].raw);
	assert_true(x.l[1].stored < 100);
	buf_fini(&d.got);
	free(x.l);
}

static void encoding_changes_between_pieces(void **state)
{
	scoped(pool_freep) struct pool *p = a_pool(2, 4096, true);
	struct out_opts opts = {.as = {.encoding = ENCODE_RAW}};
	scoped(out_freep) struct out *o = NULL;
	struct dest d;
	struct err e;

	dest_init(&d);
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
	assert_int_equal(out_append(o, "raw", 3, &e), 0);
	assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0);
	out_encode_as(o, &(struct encode_as){.encoding = ENCODE_GZIP});
	assert_int_equal(out_append(o, "packed", 6, &e), 0);
	assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0);
	assert_int_equal(out_drain(o, &e), 0);
	assert_memory_equal(d.got.data, "raw\x1f\x8b\x08", 6);
	buf_fini(&d.got);
}

static void a_destination_that_fails_fails_the_writer_for_good(void **state)
{
	uint8_t *data = malloc(TOTAL);
	scoped(pool_freep) struct pool *p = a_pool(2, 100000, false);
	struct out_opts opts = {.as = {.encoding = ENCODE_GZIP, .level = 1}};
	scoped(out_freep) struct out *o = NULL;
	struct dest d;
	struct digest sum;
	uint64_t size;
	int rc = 0;
	struct err e = {0};

	fill(data, TOTAL, 4);
	dest_init(&d);
	d.fail_at = 200000;
	assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
	for (size_t at = 0; at < TOTAL && rc == 0; at += 50000) {
		size_t n = TOTAL - at < 50000 ? TOTAL - at : 50000;

		rc = out_append(o, data + at, n, &e);
		if (rc == 0)
			rc = out_cut(o, 1, HASH_NONE, 0, 0, &e);
	}
	if (rc == 0)
		rc = out_drain(o, &e);
	assert_int_equal(rc, -1);
	assert_int_equal(e.code, ERR_NET);
	assert_non_null(strstr(e.text, "connection reset after"));
	memset(&e, 0, sizeof(e));
	assert_int_equal(out_commit(o, &sum, &size, &e), -1);
	assert_non_null(strstr(e.text, "connection reset after"));
	assert_false(d.committed);
	out_freep(&o);
	assert_true(d.aborted);
	buf_fini(&d.got);
	free(data);
}

static void an_unfinished_writer_gives_its_buffers_back(void **state)
{
	uint8_t *data = malloc(TOTAL);
	scoped(pool_freep) struct pool *p = a_pool(1, 1 << 20, false);
	struct err e;

	fill(data, TOTAL, 5);
	for (int i = 0; i < 8; i++) {
		struct out_opts opts = {.as = {.encoding = ENCODE_GZIP, .level = 1}};
		struct out *o = NULL;
		struct dest d;

		dest_init(&d);
		assert_int_equal(out_open(&o, p, &opts, &dest_ops, &d, &e), 0);
		for (size_t at = 0; at < TOTAL / 2; at += 1 << 18) {
			assert_int_equal(out_append(o, data + at, 1 << 18, &e), 0);
			assert_int_equal(out_cut(o, 0, HASH_NONE, 0, 0, &e), 0);
		}
		out_freep(&o);
		assert_true(d.aborted);
		assert_false(d.committed);
		buf_fini(&d.got);
	}
	free(data);
}

/* ---- more writers than buffers */
struct writer {
	struct pool *pool;
	const uint8_t *data;
	struct dest d;
	struct landings x;
};

static void *write_one(void *arg)
{
	struct writer *w = arg;
	struct out_opts opts = {
		.as = {.encoding = ENCODE_GZIP, .level = 1}, .on_land = note, .arg = &w->x};
	struct out *o = NULL;
	struct digest sum;
	uint64_t size;
	struct err e;

	dest_init(&w->d);
	if (out_open(&o, w->pool, &opts, &dest_ops, &w->d, &e) == 0) {
		write_segments(o, w->data, 300000);
		w->d.committed = out_commit(o, &sum, &size, &e) == 0;
	}
	out_freep(&o);
	return NULL;
}

static void many_writers_share_few_buffers(void **state)
{
	enum { WRITERS = 6 };
	uint8_t *data = malloc(TOTAL);
	struct pool_opts po = {.threads = 2, .buffer_bytes = 300000, .shared = 1};
	scoped(pool_freep) struct pool *p = NULL;
	static struct writer w[WRITERS];
	pthread_t t[WRITERS];
	struct err e;

	fill(data, TOTAL, 6);
	assert_int_equal(pool_open(&p, &po, &e), 0);
	for (int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.pool = p, .data = data};
		assert_int_equal(pthread_create(&t[i], NULL, write_one, &w[i]), 0);
	}
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(t[i], NULL);
		assert_true(w[i].d.committed);
		assert_int_equal(w[i].d.got.len, w[0].d.got.len);
		assert_memory_equal(w[i].d.got.data, w[0].d.got.data, w[0].d.got.len);
	}
	for (int i = 0; i < WRITERS; i++) {
		buf_fini(&w[i].d.got);
		free(w[i].x.l);
	}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bytes_with_1_2_and_7_compressors),
		cmocka_unit_test(pieces_land_in_the_order_of_the_cuts_with_offset_and_hash),
		cmocka_unit_test(dropped_pieces_leave_no_bytes),
		cmocka_unit_test(literals_and_marks_keep_their_place),
		cmocka_unit_test(what_does_not_shrink_is_stored_raw),
		cmocka_unit_test(encoding_changes_between_pieces),
		cmocka_unit_test(a_destination_that_fails_fails_the_writer_for_good),
		cmocka_unit_test(an_unfinished_writer_gives_its_buffers_back),
		cmocka_unit_test(many_writers_share_few_buffers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
