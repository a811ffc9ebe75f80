/* tests/unit/test_json.c */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"

static int parse(const char *text, struct err *e)
{
	struct json *j = NULL;
	int r = json_parse(&j, text, strlen(text), NULL, e);

	json_freep(&j);
	return r;
}

static void what_rfc_8259_refuses_is_refused(void **s)
{
	static const char *const bad[] = {
		"",
		"{",
		"{\"a\":1,}",
		"[1,]",
		"{a:1}",
		"'a'",
		"{\"a\":1}x",
		"[1] [2]",
		"nul",
		"NaN",
		"01",
		"1.",
		"\"\t\"x",
		"\"a\x01\"",
		"{\"a\":1,\"a\":2}",
		"[{\"b\":{\"a\":1,\"\\u0061\":2}}]",
		"\"\xff\"",
		"/* */1",
		"\"\\x\"",
	};
	struct err e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (parse(bad[i], &e) == 0)
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(parse("{\"a\":{\"x\":1},\"b\":{\"x\":1}}", &e), 0);
	assert_int_equal(parse(" null\n", &e), 0);
	assert_int_equal(parse("12", &e), 0);
	parse("{\"k\":1,\"k\":2}", &e);
	assert_string_equal(e.text, "key 'k' stands twice in one object");
}

/* Few keys are compared each with each, many are sorted. */
static void a_key_that_stands_twice_is_found_among_few_and_many(void **s)
{
	char text[1000];
	struct err e;

	for (int n = 2; n < 40; n++) {
		size_t at = (size_t)snprintf(text, sizeof(text), "{");

		for (int i = 0; i < n; i++) /* each but the first is longer by a byte, or differs */
			at += (size_t)snprintf(text + at, sizeof(text) - at, "\"%.*s%c\":%d,",
					       i / 5, "aaaaaaaa", 'p' + i % 5, i);
		snprintf(text + at, sizeof(text) - at, "\"z\":0}");
		assert_int_equal(parse(text, &e), 0);
		snprintf(text + at, sizeof(text) - at, "\"\\u0070\":0}"); /* p */
		assert_int_equal(parse(text, &e), -1);
		assert_string_equal(e.text, "key 'p' stands twice in one object");
	}
}

static void depth_is_bounded(void **s)
{
	char deep[200];
	struct err e;

	memset(deep, '[', 100);
	memset(deep + 100, ']', 100);
	{
		struct json *j = NULL;

		assert_int_equal(json_parse(&j, deep, 200, NULL, &e), -1);
		assert_int_equal(json_parse(&j, deep, 200, &(struct json_limits){.depth = 100}, &e),
				 0);
		json_freep(&j);
	}
}

static void a_wrong_type_names_its_path(void **s)
{
	const char *text =
		"{\"event_data\":{\"resources\":[{\"tag\":5}]},\"n\":99999999999999999999}";
	struct json *j = NULL, *a, *d;
	const char *v = "default";
	int64_t n;
	struct err e;

	assert_int_equal(json_parse(&j, text, strlen(text), NULL, &e), 0);
	assert_int_equal(json_obj(j, "event_data", "", &d, &e), 0);
	assert_int_equal(json_array(d, "resources", "event_data", &a, &e), 0);
	assert_int_equal(json_str(json_at(a, 0), "tag", "event_data.resources[0]", &v, &e), -1);
	assert_string_equal(e.text, "event_data.resources[0].tag is an integer, expected a string");
	assert_int_equal(json_str(json_at(a, 0), "nix", "event_data.resources[0]", &v, &e), -1);
	assert_string_equal(e.text, "event_data.resources[0].nix is missing, expected a string");
	assert_int_equal(json_opt_str(json_at(a, 0), "nix", "", &v, &e), 0);
	assert_string_equal(v, "default");
	assert_int_equal(json_int(j, "n", "", &n, &e), -1);
	json_freep(&j);
}

static void canonical_writing_sorts_and_keeps_values(void **s)
{
	const char *text = "{\"b\":[1,2.5,true,null],\"a\":\"x\\u0001\\n\\\"/\\u00e4\",\"c\":{}}";
	struct buf b = BUF_INIT(1000);
	struct json *j = NULL;

	assert_int_equal(json_parse(&j, text, strlen(text), NULL, NULL), 0);
	assert_int_equal(json_write(j, JSON_SORTED, &b, NULL), 0);
	assert_string_equal(
		b.data, "{\"a\":\"x\\u0001\\n\\\"/\xc3\xa4\",\"b\":[1,2.5,true,null],\"c\":{}}");
	buf_reset(&b);
	assert_int_equal(json_write(j, JSON_COMPACT, &b, NULL), 0);
	assert_memory_equal(b.data, "{\"b\":", 5);
	buf_reset(&b);
	assert_int_equal(json_write(j, JSON_PRETTY, &b, NULL), 0);
	assert_memory_equal(b.data, "{\n  \"b\": [\n    1,\n", 18);
	assert_text_has(b.data, "\"c\": {}\n}");
	buf_fini(&b);
	json_freep(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_rfc_8259_refuses_is_refused),
		T(a_key_that_stands_twice_is_found_among_few_and_many),
		T(depth_is_bounded),
		T(a_wrong_type_names_its_path),
		T(canonical_writing_sorts_and_keeps_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
