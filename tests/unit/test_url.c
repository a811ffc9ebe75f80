/* common/url.c: URLs taken apart and put together. */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/url.h"
static void locations_resolve_as_rfc_3986_says(void **state)
{
	static const struct {
		const char *location, *want; /* NULL: refused */
	} cases[] = {
		{"/v2/x?a=b", "https://h.example:8443/v2/x?a=b"},
		{"y", "https://h.example:8443/a/y"},
		{"?q=1", "https://h.example:8443/a/b?q=1"},
		{"//other.example/z", "https://other.example/z"},
		{"http://other.example/z#frag", "http://other.example/z"},
		{"ftp://other.example/z", NULL},
		{"file:///etc/passwd", NULL},
		{"https://user:pw@other.example/", NULL},
		{"https://h.example@evil.example/", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		scoped_free char *url = NULL;
		struct err e = {0};
		int r = url_resolve("https://h.example:8443/a/b?x=y", cases[i].location, &url, &e);

		assert_int_equal(r, cases[i].want ? 0 : -1);
		if (cases[i].want)
			assert_string_equal(url, cases[i].want);
		else
			assert_int_equal(e.code, ERR_INVALID);
	}
}

static void queries_are_added_and_escaped(void **state)
{
	char *url = mem_strdup("http://h/p");

	url_add_query(&url, "digest", "sha256:00", NULL);
	assert_string_equal(url, "http://h/p?digest=sha256%3A00");
	url_add_query(&url, "b", "x y&z", NULL);
	assert_string_equal(url, "http://h/p?digest=sha256%3A00&b=x%20y%26z");
	free(url);
}

static void urls_split_without_their_query(void **state)
{
	char *s, *h, *p;

	assert_int_equal(url_split("https://h.example:8443/a/b?secret=1", &s, &h, &p, NULL), 0);
	assert_string_equal(s, "https");
	assert_string_equal(h, "h.example:8443");
	assert_string_equal(p, "/a/b");
	free(s);
	free(h);
	free(p);
	assert_int_equal(url_split("no url at all", &s, &h, &p, NULL), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(locations_resolve_as_rfc_3986_says),
		T(queries_are_added_and_escaped),
		T(urls_split_without_their_query),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
