/* worker/pool.c: how many threads, and what verification catches.  The rest is test_out.c. */
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
#include "worker/out.h"
#include "worker/pool.h"

static void cpus_are_at_least_one(void **state)
{
	assert_true(pool_cpus() >= 1);
}

static void shared_buffers_run_out_and_come_back(void **state)
{
	struct pool_opts o = {.threads = 1, .buffer_bytes = 4096, .shared = 1};
	scoped(pool_freep) struct pool *p = NULL;
	struct batch *own, *shared;
	struct err e;

	assert_int_equal(pool_open(&p, &o, &e), 0);
	own = pool_own(p, &e);
	shared = pool_try(p);
	assert_non_null(own);
	assert_non_null(shared);
	assert_null(pool_try(p));
	pool_give(p, shared);
	assert_ptr_equal(pool_try(p), shared);
	pool_give(p, shared);
	pool_give(p, own);
	assert_ptr_equal(pool_own(p, &e), own); /* kept for the next writer */
	pool_give(p, own);
}

#ifdef ACCEL_FAULTS
static int keep(void *arg, const void *p, size_t n, struct err *e)
{
	return buf_add(arg, p, n, e);
}

static int never_commit(void *arg, const struct digest *d, uint64_t size, struct err *e)
{
	return err_set(e, ERR_BUG, "committed");
}

static void nothing(void *arg)
{
}

static void a_flipped_byte_is_caught_by_verification(void **state)
{
	static const struct out_ops ops = {keep, never_commit, nothing};
	const enum encoding how[] = {ENCODE_GZIP, ENCODE_ZSTD, ENCODE_LZ4};
	struct pool_opts o = {.threads = 1, .buffer_bytes = 65536, .verify = true};
	scoped(pool_freep) struct pool *p = NULL;
	struct err e = {0};

	assert_int_equal(pool_open(&p, &o, &e), 0);
	for (size_t i = 0; i < 3; i++) {
		struct out_opts opts = {.as = {.encoding = how[i], .checksum = 1}};
		scoped(buf_fini) struct buf got = BUF_INIT(1 << 20);
		scoped(out_freep) struct out *w = NULL;

		assert_int_equal(out_open(&w, p, &opts, &ops, &got, &e), 0);
		assert_int_equal(out_append(w, "the quick brown fox the quick brown fox", 39, &e),
				 0);
		assert_int_equal(out_cut(w, 0, HASH_NONE, 0, 0, &e), 0);
		assert_int_equal(out_drain(w, &e), -1);
		assert_int_equal(e.code, ERR_CORRUPT);
		assert_int_equal(got.len, 0);
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpus_are_at_least_one),
		cmocka_unit_test(shared_buffers_run_out_and_come_back),
#ifdef ACCEL_FAULTS
		cmocka_unit_test(a_flipped_byte_is_caught_by_verification),
#endif
	};

	setenv("ACCEL_FAULT", "pool.flip:err=CORRUPT", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
