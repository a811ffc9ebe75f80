/* Image references: the grammar of distribution/reference, Docker's normalisation, and what is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/imageref.h"

#define HEX64 "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define A16 "aaaaaaaaaaaaaaaa"
#define A64 A16 A16 A16 A16

static void same(const char *text, const char *want)
{
	struct imageref r, again;
	struct err e = {0};
	char to[IMAGEREF_TEXT];

	if (imageref_parse(&r, text, &e) < 0)
		fail_msg("%s: %s", text, e.text);
	assert_string_equal(imageref_text(&r, to), want);
	assert_int_equal(imageref_parse(&again, to, &e), 0);
	assert_true(imageref_eq(&r, &again));
}

static void refused(const char *text, const char *why)
{
	struct imageref r;
	struct err e = {0};

	memset(&r, 0x5a, sizeof(r));
	if (imageref_parse(&r, text, &e) == 0)
		fail_msg("taken: %s", text);
	assert_int_equal(e.code, ERR_INVALID);
	if (!strstr(e.text, why))
		fail_msg("%s: %s lacks %s", text, e.text, why);
	assert_int_equal((unsigned char)r.host[0], 0x5a); /* untouched on failure */
}

static void short_names_belong_to_docker_io(void **state)
{
	same("nginx", "docker.io/library/nginx");
	same("nginx:1.25", "docker.io/library/nginx:1.25");
	same("grafana/grafana:11", "docker.io/grafana/grafana:11");
	same("docker.io/nginx", "docker.io/library/nginx");
	same("index.docker.io/nginx:a", "docker.io/library/nginx:a");
	same("localhost:5000", "docker.io/library/localhost:5000"); /* no slash: a tag */
}

static void a_first_component_that_cannot_be_a_path_is_a_host(void **state)
{
	same("localhost/a", "localhost/a");
	same("localhost:5000/a", "localhost:5000/a");
	same("harbor.example.com/prod/app:v1", "harbor.example.com/prod/app:v1");
	same("Harbor.Example.COM:8443/prod/app", "harbor.example.com:8443/prod/app");
	same("LOCALHOST/app", "localhost/app");
	refused("HARBOR/app", "needs a dot or a port"); /* harbor/app would be docker.io's */
	same("10.0.0.1:15000/a/b/c/d:x", "10.0.0.1:15000/a/b/c/d:x");
	same("[::1]/a:b", "[::1]/a:b");
	same("[2001:DB8::1]:5000/a/b:c", "[2001:db8::1]:5000/a/b:c");
}

static void tag_and_digest_stand_together(void **state)
{
	same("h.x/a@sha256:" HEX64, "h.x/a@sha256:" HEX64);
	same("h.x/a:b@sha256:" HEX64, "h.x/a:b@sha256:" HEX64);
	same("h.x/a@sha512:" HEX64 HEX64, "h.x/a@sha512:" HEX64 HEX64);
}

static void separators_in_a_path_are_single_but_for_hyphens_and_two_underscores(void **state)
{
	same("h.x/a-b/a---b/a_b/a__b/a.b", "h.x/a-b/a---b/a_b/a__b/a.b");
	refused("h.x/a___b", "single separators");
	refused("h.x/a..b", "single separators");
	refused("h.x/a._b", "single separators");
	refused("h.x/-a", "single separators");
	refused("h.x/a-", "single separators");
	refused("h.x/a//b", "single separators");
	refused("h.x/a/", "single separators");
	refused("h.x/", "no repository");
	refused("/a", "single separators");
}

static void upper_case_in_a_path_is_refused_with_words(void **state)
{
	refused("h.x/App", "must be lower case");
	refused("Nginx", "must be lower case");
}

static void tags_are_checked(void **state)
{
	same("h.x/a:_", "h.x/a:_");
	same("h.x/a:" A64 A64, "h.x/a:" A64 A64);
	refused("h.x/a:" A64 A64 "a", "the tag has 129 characters");
	refused("h.x/a:", "the tag is not");
	refused("h.x/a:.b", "the tag is not");
	refused("h.x/a:-b", "the tag is not");
	refused("h.x/a:b:c", "the tag is not");
	refused("h.x/a:b c", "the tag is not");
}

static void hosts_are_checked(void **state)
{
	refused("-a.x/b", "the host is not");
	refused("a-.x/b", "the host is not");
	refused("a..x/b", "the host is not");
	refused("a.x./b", "the host is not");
	refused("a.x:/b", "the host is not");
	refused("a.x:0/b", "the host is not");
	refused("a.x:65536/b", "the host is not");
	refused("a.x:5000x/b", "the host is not");
	refused("[]:5000/b", "the host is not");
	refused("[::1/b", "the host is not");
	refused("[::1]5000/b", "the host is not");
	refused("[g::1]/b", "the host is not");
}

static void what_is_no_reference_is_refused(void **state)
{
	refused("", "empty");
	refused(HEX64, "image id");
	refused("a@", "");
	refused("a@sha256:abc", "");
	refused("a@md5:" HEX64, "");
	refused("a\x1b[31m:b", "");
	refused("https://h.x/a", "the host is not");
	refused("h.x/\xc3\xa4", "single separators");
}

static void lengths_are_bounded(void **state)
{
	char text[IMAGEREF_TEXT + 64];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = 0;
	refused(text, "characters, at most");
	snprintf(text, sizeof(text), "h.x/" A64 A64 A64 "%s", A64 "b"); /* 257 */
	refused(text, "at most 255");
	snprintf(text, sizeof(text), A64 A64 A64 A64 ".x/b");
	refused(text, "the host is not");
}

static void messages_carry_no_control_characters(void **state)
{
	struct imageref r;
	struct err e = {0};

	assert_int_equal(imageref_parse(&r, "h.x/a:b\x1b[31m\nx", &e), -1);
	for (const char *p = e.text; *p; p++)
		assert_true((unsigned char)*p >= 0x20);
}

static void loopback_hosts_are_known(void **state)
{
	assert_true(imageref_host_is_loopback("localhost"));
	assert_true(imageref_host_is_loopback("LOCALHOST:5000"));
	assert_true(imageref_host_is_loopback("reg.localhost"));
	assert_true(imageref_host_is_loopback("127.0.0.1:5000"));
	assert_true(imageref_host_is_loopback("127.9.8.7"));
	assert_true(imageref_host_is_loopback("[::1]:5000"));
	assert_true(imageref_host_is_loopback("[0:0::1]"));
	assert_false(imageref_host_is_loopback("localhost.example.com"));
	assert_false(imageref_host_is_loopback("127.0.0.1.example.com"));
	assert_false(imageref_host_is_loopback("mylocalhost"));
	assert_false(imageref_host_is_loopback("128.0.0.1"));
	assert_false(imageref_host_is_loopback("[::2]:5000"));
	assert_false(imageref_host_is_loopback(""));
}

static void the_tenant_is_the_first_component(void **state)
{
	struct imageref r;
	char to[256];

	assert_int_equal(imageref_parse(&r, "h.x/prod/app/web:1", NULL), 0);
	imageref_tenant(&r, to);
	assert_string_equal(to, "prod");
	assert_int_equal(imageref_parse(&r, "h.x/app", NULL), 0);
	imageref_tenant(&r, to);
	assert_string_equal(to, "app");
}

static void the_name_leaves_out_tag_and_digest(void **state)
{
	struct imageref r;
	char to[IMAGEREF_TEXT];

	assert_int_equal(imageref_parse(&r, "h.x:1/a/b:c@sha256:" HEX64, NULL), 0);
	assert_string_equal(imageref_name(&r, to), "h.x:1/a/b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_names_belong_to_docker_io),
		cmocka_unit_test(a_first_component_that_cannot_be_a_path_is_a_host),
		cmocka_unit_test(tag_and_digest_stand_together),
		cmocka_unit_test(
			separators_in_a_path_are_single_but_for_hyphens_and_two_underscores),
		cmocka_unit_test(upper_case_in_a_path_is_refused_with_words),
		cmocka_unit_test(tags_are_checked),
		cmocka_unit_test(hosts_are_checked),
		cmocka_unit_test(what_is_no_reference_is_refused),
		cmocka_unit_test(lengths_are_bounded),
		cmocka_unit_test(messages_carry_no_control_characters),
		cmocka_unit_test(loopback_hosts_are_known),
		cmocka_unit_test(the_tenant_is_the_first_component),
		cmocka_unit_test(the_name_leaves_out_tag_and_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
