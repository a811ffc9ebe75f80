/* tests/unit/test_listing.c - two layers compared by what they put into a file system. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "common/str.h"
#include "worker/listing.h"

static void entry(struct listing *l, const char *name, char type, const char *link,
		  const char *data)
{
	struct tar_entry t = {.type = type,
			      .name = name,
			      .link = link ? link : "",
			      .mode = type == '5' ? 0755 : 0644,
			      .user = "",
			      .group = "",
			      .size = data ? strlen(data) : 0,
			      .mtime = 1000};
	struct tar_piece p = {.kind = TAR_HEADER, .entry = &t};
	struct err e = {0};

	assert_int_equal(listing_piece(l, &p, &e), 0);
	if (data) {
		p.kind = TAR_DATA;
		p.raw = data;
		p.len = strlen(data);
		assert_int_equal(listing_piece(l, &p, &e), 0);
	}
}

struct said {
	char text[2000];
};

static void on_difference(void *arg, const char *path, const char *what)
{
	struct said *s = arg;
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%s: %s\n", path, what);
}

static size_t compare(struct listing **a, struct listing **b, struct said *s)
{
	const struct listing_ops o = {.differs = on_difference, .arg = s};
	struct err e = {0};
	size_t n;

	memset(s, 0, sizeof(*s));
	listing_end(*a, &e);
	listing_end(*b, &e);
	n = listing_compare(*a, *b, &o);
	listing_freep(a);
	listing_freep(b);
	return n;
}

static void the_same_in_another_order_and_spelling_is_equal(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "d/", '5', NULL, NULL);
	entry(a, "d/f", '0', NULL, "x");
	entry(a, "l", '2', "d/f", NULL);
	entry(b, ".no.prefetch.landmark", '0', NULL, "\x0f");
	entry(b, "./l", '2', "d/f", NULL);
	entry(b, "/d/f", '0', NULL, "x");
	entry(b, "d", '5', NULL, NULL);
	entry(b, "stargz.index.json", '0', NULL, "{}");
	assert_int_equal(compare(&a, &b, &s), 0);
}

static void a_link_to_a_file_that_was_replaced_keeps_the_old_bytes(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "f", '0', NULL, "old");
	entry(a, "link", '1', "f", NULL);
	entry(a, "f", '0', NULL, "new!");
	entry(b, "link", '0', NULL, "old");
	entry(b, "f", '0', NULL, "new!");
	assert_int_equal(compare(&a, &b, &s), 0);

	a = listing_new(), b = listing_new();
	entry(a, "f", '0', NULL, "old");
	entry(a, "link", '1', "f", NULL);
	entry(b, "f", '0', NULL, "old");
	entry(b, "link", '0', NULL, "old");
	assert_int_equal(compare(&a, &b, &s), 1);
	assert_text_has(s.text, "link: it is a hard link to link");
}

static void a_link_may_stand_before_its_target(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "z", '0', NULL, "1");
	entry(a, "a", '1', "z", NULL);
	entry(b, "a", '1', "z", NULL);
	entry(b, "z", '0', NULL, "1");
	assert_int_equal(compare(&a, &b, &s), 0);
}

static void a_path_through_a_link_is_the_path_it_leads_to(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "lib", '2', "usr/lib", NULL);
	entry(a, "usr/lib/up", '2', "..", NULL);
	entry(a, "lib/f", '0', NULL, "x");
	entry(a, "lib/up/g", '0', NULL, "y");
	entry(a, "h", '1', "lib/f", NULL);
	entry(a, "round", '2', "round", NULL);
	entry(a, "round/x", '0', NULL, "z"); /* nowhere: as it stands there */
	entry(b, "usr/g", '0', NULL, "y");
	entry(b, "usr/lib/f", '0', NULL, "x");
	entry(b, "h", '1', "usr/lib/f", NULL);
	entry(b, "usr/lib/up", '2', "..", NULL);
	entry(b, "lib", '2', "usr/lib", NULL);
	entry(b, "round", '2', "round", NULL);
	assert_int_equal(compare(&a, &b, &s), 1);
	assert_string_equal(s.text, "round/x: it is missing\n");
}

static void each_difference_is_told(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "bytes", '0', NULL, "abc");
	entry(b, "bytes", '0', NULL, "abd");
	entry(a, "longer", '0', NULL, "abc");
	entry(b, "longer", '0', NULL, "abcd");
	entry(a, "missing", '0', NULL, "1");
	entry(b, "extra", '0', NULL, "1");
	entry(a, "type", '0', NULL, NULL);
	entry(b, "type", '6', NULL, NULL);
	entry(a, "target", '2', "x", NULL);
	entry(b, "target", '2', "y", NULL);
	assert_int_equal(compare(&a, &b, &s), 6);
	assert_string_equal(s.text, "bytes: its bytes differ\n"
				    "extra: the source does not have it\n"
				    "longer: 4 bytes, the source has 3\n"
				    "missing: it is missing\n"
				    "target: it points elsewhere\n"
				    "type: type 6, the source has 0\n");
}

static void a_directory_that_only_stands_for_a_path_may_be_missing(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct said s;

	entry(a, "d/f", '0', NULL, "1");
	entry(b, "", '5', NULL, NULL);
	entry(b, "d", '5', NULL, NULL);
	entry(b, "d/f", '0', NULL, "1");
	assert_int_equal(compare(&a, &b, &s), 0);
}

static void a_hole_is_zeros(void **state)
{
	struct listing *a = listing_new(), *b = listing_new();
	struct tar_entry t = {.type = '0', .name = "s", .link = "", .mode = 0644, .size = 70000};
	struct tar_piece p = {.kind = TAR_HEADER, .entry = &t};
	static const char zeros[70000];
	struct said s;
	struct err e = {0};

	listing_piece(a, &p, &e);
	listing_piece(b, &p, &e);
	p.kind = TAR_HOLE;
	p.len = sizeof(zeros);
	listing_piece(a, &p, &e);
	p.kind = TAR_DATA;
	p.raw = zeros;
	listing_piece(b, &p, &e);
	assert_int_equal(compare(&a, &b, &s), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_same_in_another_order_and_spelling_is_equal),
		T(a_link_to_a_file_that_was_replaced_keeps_the_old_bytes),
		T(a_link_may_stand_before_its_target),
		T(a_path_through_a_link_is_the_path_it_leads_to),
		T(each_difference_is_told),
		T(a_directory_that_only_stands_for_a_path_may_be_missing),
		T(a_hole_is_zeros),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
