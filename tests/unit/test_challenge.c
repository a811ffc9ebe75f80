/* WWW-Authenticate as registries really write it; Harbor's from tests/fixtures/captures/harbor. */
#include <stdio.h>

#include "tests/unit/unit.h"
#include "worker/registry/challenge.h"

static struct challenges all;

static const struct challenge *parsed(const char *value, enum challenge_scheme scheme)
{
	challenges_fini(&all);
	challenges_parse(&all, value);
	return challenges_find(&all, scheme);
}

/* The header of a capture; cut to the value. */
static void header_of(const char *file, char to[1024])
{
	char path[200], line[2048];
	FILE *f;

	snprintf(path, sizeof(path), "tests/fixtures/captures/harbor/api/%s", file);
	f = fopen(path, "r");
	assert_non_null(f);
	to[0] = '\0';
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "< Www-Authenticate:", 19)) {
			line[strcspn(line, "\r\n")] = '\0';
			snprintf(to, 1024, "%s", line + 19 + strspn(line + 19, " "));
		}
	fclose(f);
}

static void harbors_bearer_challenge_is_read(void **state)
{
	char value[1024];
	const struct challenge *c;

	header_of("004-private-manifest-anonymous.txt", value);
	c = parsed(value, CHALLENGE_BEARER);
	assert_non_null(c);
	assert_string_equal(c->realm, "http://harbor.example.com/service/token");
	assert_string_equal(c->service, "harbor-registry");
	assert_string_equal(c->scope, "repository:payments/api/gateway:pull");
	assert_null(challenges_find(&all, CHALLENGE_BASIC));
}

static void harbors_mount_challenge_holds_two_scopes(void **state)
{
	char value[1024];

	header_of("007-mount-anonymous-challenge.txt", value);
	assert_string_equal(parsed(value, CHALLENGE_BEARER)->scope,
			    "repository:payments/x:pull,push repository:pub/y:pull");
}

static void harbors_answer_to_a_bad_token_is_basic(void **state)
{
	char value[1024];

	header_of("032-manifest-garbage-bearer.txt", value);
	assert_string_equal(parsed(value, CHALLENGE_BASIC)->realm, "harbor");
	assert_null(challenges_find(&all, CHALLENGE_BEARER));
}

static void an_empty_challenge_is_none(void **state)
{
	char value[1024];

	header_of("043-push-no-such-project.txt", value);
	parsed(value, CHALLENGE_BEARER);
	assert_int_equal(all.n, 0);
}

static void parameters_come_in_any_order_and_case(void **state)
{
	const struct challenge *c = parsed("bEaReR Scope=\"repository:a/b:pull,push\" ,SERVICE = "
					   "reg.io, error=\"x\",realm=\"https://r/t\"",
					   CHALLENGE_BEARER);

	assert_string_equal(c->realm, "https://r/t");
	assert_string_equal(c->service, "reg.io");
	assert_string_equal(c->scope, "repository:a/b:pull,push");
	assert_string_equal(c->error, "x");
}

static void several_challenges_in_one_value_are_told_apart(void **state)
{
	assert_string_equal(
		parsed("Basic realm=\"a, Bearer realm=no\", Negotiate, Bearer realm=\"https://t\"",
		       CHALLENGE_BEARER)
			->realm,
		"https://t");
	assert_int_equal(all.n, 3);
	assert_string_equal(challenges_find(&all, CHALLENGE_BASIC)->realm, "a, Bearer realm=no");
}

static void quoted_pairs_are_unquoted(void **state)
{
	assert_string_equal(parsed("Basic realm=\"say \\\"hi\\\"\"", CHALLENGE_BASIC)->realm,
			    "say \"hi\"");
}

static void the_first_of_two_equal_parameters_counts(void **state)
{
	assert_string_equal(
		parsed("Bearer realm=\"https://a\",realm=\"https://b\"", CHALLENGE_BEARER)->realm,
		"https://a");
}

static void garbage_ends(void **state)
{
	parsed("\"\"\"=,=,(((\\", CHALLENGE_BEARER);
	parsed("Bearer realm=\"unterminated", CHALLENGE_BEARER);
	assert_string_equal(challenges_find(&all, CHALLENGE_BEARER)->realm, "unterminated");
	parsed("a b c d e f g h i j k l m n o p", CHALLENGE_BEARER);
	assert_int_equal(all.n, CHALLENGES_MAX);
	challenges_fini(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(harbors_bearer_challenge_is_read),
		T(harbors_mount_challenge_holds_two_scopes),
		T(harbors_answer_to_a_bad_token_is_basic),
		T(an_empty_challenge_is_none),
		T(parameters_come_in_any_order_and_case),
		T(several_challenges_in_one_value_are_told_apart),
		T(quoted_pairs_are_unquoted),
		T(the_first_of_two_equal_parameters_counts),
		T(garbage_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
