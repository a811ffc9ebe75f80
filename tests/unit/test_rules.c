/* Rules: patterns, the first that fits, and what is our own output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/rules.h"

static void a_star_stays_within_a_segment(void **state)
{
	assert_true(pattern_match("prod/*", "prod/app"));
	assert_false(pattern_match("prod/*", "prod/app/web"));
	assert_true(pattern_match("prod/*/web", "prod/app/web"));
	assert_false(pattern_match("prod/*", "prod"));
	assert_true(pattern_match("*", "app"));
	assert_false(pattern_match("*", "prod/app"));
	assert_true(pattern_match("v*", "v1.2"));
	assert_true(pattern_match("*-dev", "x-dev"));
	assert_true(pattern_match("a*b*c", "aXbYbZc"));
	assert_false(pattern_match("a*b*c", "aXbYbZd"));
}

static void two_stars_cross_segments(void **state)
{
	assert_true(pattern_match("prod/**", "prod/app"));
	assert_true(pattern_match("prod/**", "prod/app/web"));
	assert_false(pattern_match("prod/**", "production/app"));
	assert_true(pattern_match("**", "a/b/c"));
	assert_true(pattern_match("**/web", "web"));
	assert_true(pattern_match("**/web", "a/b/web"));
	assert_false(pattern_match("**/web", "a/bweb"));
	assert_true(pattern_match("a/**/b", "a/b"));
	assert_true(pattern_match("a/**/b", "a/x/y/b"));
	assert_false(pattern_match("a/**/b", "a/xb"));
}

static void an_exclamation_mark_negates(void **state)
{
	assert_false(pattern_match("!*-dev", "x-dev"));
	assert_true(pattern_match("!*-dev", "x"));
	assert_true(pattern_match("!*-dev", ""));
}

static void many_stars_take_no_exponential_time(void **state)
{
	char pattern[256], text[256];
	clock_t start = clock();

	for (size_t i = 0; i < 254; i += 2)
		memcpy(pattern + i, "*a", 2);
	pattern[254] = 0;
	memset(text, 'a', 255);
	text[254] = 'b';
	text[255] = 0;
	for (int i = 0; i < 100; i++)
		assert_false(pattern_match(pattern, text));
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC <
		    5.0); /* a millisecond each, in truth */
}

static void wrong_patterns_are_refused_with_words(void **state)
{
	const char *bad[] = {"", "!", "a b", "a?b", "{a,b}", "a***b", "a\nb"};
	struct err e = {0};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(pattern_check(bad[i], &e), -1);
		assert_int_equal(e.code, ERR_INVALID);
		assert_non_null(strstr(e.text, "pattern"));
	}
	assert_int_equal(pattern_check("!prod/**", &e), 0);
	assert_int_equal(pattern_check("*.example.com:8443", &e), 0);
}

static void add_rule(struct rules *r, const char *repository, const char *tag, const char *template)
{
	struct rule *rule;

	r->rule = mem_resize(r->rule, r->n + 1, sizeof(*r->rule));
	rule = &r->rule[r->n++];
	memset(rule, 0, sizeof(*rule));
	rule->name = mem_strdup(template);
	rule->repository = mem_strdup(repository);
	rule->tag = mem_strdup(tag);
	rule->targets = mem_array(1, sizeof(struct target));
	rule->n_targets = 1;
	target_init(&rule->targets[0], DRIVER_NYDUS);
	rule->targets[0].tag_template = mem_strdup(template);
}

static struct imageref ref(const char *text)
{
	struct imageref r;

	assert_int_equal(imageref_parse(&r, text, NULL), 0);
	return r;
}

static void the_first_rule_that_fits_wins(void **state)
{
	struct rules r = {0};
	struct imageref a = ref("h.x/prod/app:v1"), b = ref("h.x/prod/app:v1-dev"),
			c = ref("h.x/test/app:v1");

	add_rule(&r, "prod/**", "!*-dev", "{tag}-one");
	add_rule(&r, "prod/**", NULL, "{tag}-two");
	assert_string_equal(rules_find(&r, &a)->name, "{tag}-one");
	assert_string_equal(rules_find(&r, &b)->name, "{tag}-two");
	assert_null(rules_find(&r, &c));
	assert_string_equal(rule_refuses(&r.rule[0], &b), "tag");
	assert_string_equal(rule_refuses(&r.rule[0], &c), "repository");
	assert_null(rule_refuses(&r.rule[0], &a));
	rules_fini(&r);
}

static void hosts_are_matched_too(void **state)
{
	struct rules r = {0};
	struct imageref a = ref("eu.example.com:8443/a:b"), b = ref("other.com/a:b");

	add_rule(&r, NULL, NULL, "{tag}-x");
	r.rule[0].host = mem_strdup("*.example.com:8443");
	assert_non_null(rules_find(&r, &a));
	assert_null(rules_find(&r, &b));
	assert_string_equal(rule_refuses(&r.rule[0], &b), "host");
	rules_fini(&r);
}

static void our_own_output_is_recognised(void **state)
{
	struct rules r = {0};
	struct imageref a = ref("h.x/a:v1-nydus"), b = ref("h.x/a:v1"), c = ref("h.x/a:cache"),
			e = ref("h.x/a:pre-v1.z");

	add_rule(&r, NULL, NULL, "{tag}-nydus");
	add_rule(&r, "only/this", NULL, "pre-{tag}.z");
	r.rule[0].targets[0].cache_tag = mem_strdup("cache");
	assert_true(rules_is_output(&r, &a));
	assert_false(rules_is_output(&r, &b));
	assert_true(rules_is_output(&r, &c));
	assert_true(rules_is_output(&r, &e)); /* whatever rule made it */
	strcpy(a.tag, "");
	assert_false(rules_is_output(&r, &a));
	rules_fini(&r);
}

static void two_targets_with_one_reference_are_refused(void **state)
{
	struct rules r = {0};
	struct err e = {0};

	add_rule(&r, NULL, NULL, "{tag}-x");
	r.rule[0].targets = mem_resize(r.rule[0].targets, 2, sizeof(struct target));
	target_init(&r.rule[0].targets[1], DRIVER_ESTARGZ);
	r.rule[0].targets[1].tag_template = mem_strdup("{tag}-x");
	r.rule[0].n_targets = 2;
	assert_int_equal(rules_check(&r, &e), -1);
	assert_non_null(strstr(e.text, "same reference"));
	strcpy(r.rule[0].targets[1].tag_template, "{tag}-y");
	assert_int_equal(rules_check(&r, &e), 0);
	rules_fini(&r);
}

static void a_rule_without_targets_is_refused(void **state)
{
	struct rules r = {0};
	struct err e = {0};

	add_rule(&r, NULL, NULL, "{tag}-x");
	target_fini(&r.rule[0].targets[0]);
	r.rule[0].n_targets = 0;
	assert_int_equal(rules_check(&r, &e), -1);
	assert_non_null(strstr(e.text, "no targets"));
	rules_fini(&r);
}

static void platforms_of_a_rule_come_before_the_common_ones(void **state)
{
	struct rules r = {0};

	add_rule(&r, NULL, NULL, "{tag}-x");
	assert_string_equal(rules_platforms(&r, &r.rule[0]), "");
	r.platforms = mem_strdup("linux/amd64");
	assert_string_equal(rules_platforms(&r, &r.rule[0]), "linux/amd64");
	r.rule[0].platforms = mem_strdup("linux/arm64");
	assert_string_equal(rules_platforms(&r, &r.rule[0]), "linux/arm64");
	rules_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_star_stays_within_a_segment),
		cmocka_unit_test(two_stars_cross_segments),
		cmocka_unit_test(an_exclamation_mark_negates),
		cmocka_unit_test(many_stars_take_no_exponential_time),
		cmocka_unit_test(wrong_patterns_are_refused_with_words),
		cmocka_unit_test(the_first_rule_that_fits_wins),
		cmocka_unit_test(hosts_are_matched_too),
		cmocka_unit_test(our_own_output_is_recognised),
		cmocka_unit_test(two_targets_with_one_reference_are_refused),
		cmocka_unit_test(a_rule_without_targets_is_refused),
		cmocka_unit_test(platforms_of_a_rule_come_before_the_common_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
