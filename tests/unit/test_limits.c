/* The bounds of an image: what its entries and chunks make a driver keep. */
#include "worker/limits.h"

#include <string.h>

#include "common/err.h"
#include "worker/tar/tar_reader.h"
#include "unit.h"

static const struct limits_cost costs[] = {{100, 0, 1 << 20}, {300, 200, 4096}};

static struct tar_entry file(const char *name, uint64_t size)
{
	struct tar_entry t;

	memset(&t, 0, sizeof(t));
	t.name = (char *)name;
	t.link = "";
	t.size = size;
	return t;
}

static void entries_count_for_each_target(void **state)
{
	struct limits l;
	struct err e = {0};
	struct tar_entry t = file("a", 0);

	/* an entry: 100 + 300, and its name and two NULs for each */
	limits_init(&l, 0, 1000 + 2 * (400 + 2 * 3), 1000, costs, 2);
	assert_int_equal(limits_entry(&l, &t, &e), 0);
	assert_int_equal(limits_entry(&l, &t, &e), 0);
	assert_int_equal(limits_entry(&l, &t, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
}

static void chunks_count_by_the_size_of_a_file(void **state)
{
	struct limits l;
	struct err e = {0};
	struct tar_entry small = file("a", 3 * 4096 + 1), large = file("a", 1ull << 40);

	limits_init(&l, 0, 400 + 2 * 3 + 4 * 200, 0, costs, 2);
	assert_int_equal(limits_entry(&l, &small, &e), 0);
	assert_int_equal(limits_entry(&l, &small, &e), -1);
	limits_init(&l, 0, 512ull << 20, 0, costs, 2);
	assert_int_equal(limits_entry(&l, &large, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	/* no size of a header makes the sum run over */
	large.size = UINT64_MAX;
	limits_init(&l, 0, 512ull << 20, 0, costs, 2);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(limits_entry(&l, &large, &e), -1);
}

static void unpacked_bytes_are_bounded(void **state)
{
	struct limits l;
	struct err e = {0};

	limits_init(&l, 100, 0, 0, costs, 2);
	assert_int_equal(limits_bytes(&l, 100, &e), 0);
	assert_int_equal(limits_bytes(&l, 1, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(entries_count_for_each_target),
		T(chunks_count_by_the_size_of_a_file),
		T(unpacked_bytes_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
