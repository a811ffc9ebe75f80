/* tests/unit/test_err.c */
#include "tests/unit/unit.h"

#include "common/err.h"

static void a_code_brings_its_class(void **s)
{
	struct err e;

	assert_int_equal(err_set(&e, ERR_NET, "reset after %d bytes", 12), -1);
	assert_int_equal(e.class, CLASS_RETRY);
	assert_string_equal(e.text, "reset after 12 bytes");
	err_class(&e, ERR_NOTFOUND, CLASS_SKIP, "gone");
	assert_int_equal(e.class, CLASS_SKIP);
}

static void wrapping_puts_the_thing_in_front(void **s)
{
	struct err e;

	err_set(&e, ERR_NET, "connection reset");
	err_wrap(&e, "download");
	err_wrap(&e, "layer %d of %d", 3, 7);
	assert_string_equal(e.text, "layer 3 of 7: download: connection reset");
}

static void wrapping_never_cuts_the_cause(void **s)
{
	struct err e;
	char cause[900];

	memset(cause, 'c', sizeof(cause) - 1);
	cause[sizeof(cause) - 1] = '\0';
	err_set(&e, ERR_NET, "%s", cause);
	for (int i = 0; i < 20; i++)
		err_wrap(&e, "layer \xc3\xa4\xc3\xb6 %0100d", i);
	assert_true(strlen(e.text) < sizeof(e.text));
	assert_string_equal(e.text + strlen(e.text) - strlen(cause), cause);
}

static void a_text_may_be_made_of_itself(void **s)
{
	struct err e;

	err_set(&e, ERR_NET, "x");
	err_set(&e, ERR_CORRUPT, "again %s", e.text);
	assert_string_equal(e.text, "again x");
}

static void errno_is_spelled_out(void **s)
{
	struct err e;

	err_errno(&e, 2, "open %s", "/x");
	assert_string_equal(e.text, "open /x: No such file or directory");
	assert_int_equal(e.code, ERR_SYSTEM);
}

static void nobody_has_to_listen(void **s)
{
	assert_int_equal(err_set(NULL, ERR_BUG, "x"), -1);
	assert_int_equal(err_wrap(NULL, "x"), -1);
}

static void slugs_go_both_ways(void **s)
{
	for (int i = 0; i < ERR_CODES; i++)
		assert_int_equal(err_code_of(err_slug((enum err_code)i)), i);
	assert_int_equal(err_code_of("nonsense"), ERR_BUG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_code_brings_its_class),
		T(wrapping_puts_the_thing_in_front),
		T(wrapping_never_cuts_the_cause),
		T(a_text_may_be_made_of_itself),
		T(errno_is_spelled_out),
		T(nobody_has_to_listen),
		T(slugs_go_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
