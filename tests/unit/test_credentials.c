/* Docker's and podman's login files and helpers, in their order. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/secret.h"
#include "tests/unit/unit.h"
#include "worker/registry/credentials.h"

static char dir[64];

static void put_file(const char *name, const char *text, mode_t mode)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static int setup(void **state)
{
	char path[512];

	snprintf(dir, sizeof(dir), "/tmp/credentials.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s:%s", dir, getenv("PATH"));
	setenv("PATH", path, 1);
	setenv("DOCKER_CONFIG", dir, 1);
	snprintf(path, sizeof(path), "%s/podman.json", dir);
	setenv("REGISTRY_AUTH_FILE", path, 1);
	unsetenv("XDG_RUNTIME_DIR");
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"config.json", "podman.json", "docker-credential-fake"};
	char path[256];

	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

static void finds(const char *host, const char *user, const char *password)
{
	struct credentials c;
	struct err e = {0};
	int r = credentials_find(&c, host, &e);

	if (r < 0)
		fail_msg("%s", e.text);
	assert_int_equal(r, user != NULL);
	if (user) {
		assert_string_equal(secret_value(c.username), user);
		assert_string_equal(secret_value(c.password), password);
	}
	credentials_fini(&c);
}

static void without_files_there_is_none(void **state)
{
	finds("h.example", NULL, NULL);
}

static void auth_is_split_at_the_first_colon(void **state)
{
	put_file("config.json",
		 "{\"auths\":{\"h.example:8443\":{\"auth\":\"dTpwOndpdGg6Y29sb25z\"}}}", 0600);
	finds("h.example:8443", "u", "p:with:colons");
	finds("h.example", NULL, NULL);
}

static void docker_hub_has_its_own_key(void **state)
{
	put_file("config.json",
		 "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"},"
		 "\"https://old.example/v1/\":{\"auth\":\"bzpw\"}}}",
		 0600);
	finds("docker.io", "u", "p");
	finds("old.example", "o", "p");
}

static void podmans_file_is_read_after_dockers(void **state)
{
	put_file("podman.json", "{\"auths\":{\"h.example\":{\"auth\":\"cDpw\"}}}", 0600);
	finds("h.example", "p", "p");
	put_file("config.json", "{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"}}}", 0600);
	finds("h.example", "u", "p");
}

#define HELPER                                                                                     \
	"#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread -r server\ncase \"$server\" in\n"             \
	"h.example) echo "                                                                         \
	"'{\"ServerURL\":\"h.example\",\"Username\":\"helped\",\"Secret\":\"s\"}';;\n"             \
	"t.example) echo '{\"Username\":\"<token>\",\"Secret\":\"idt\"}';;\n"                      \
	"broken.example) echo oops; exit 3;;\n"                                                    \
	"*) echo 'credentials not found in native keychain'; exit 1;;\nesac\n"

static void a_helper_for_the_host_comes_first(void **state)
{
	put_file("docker-credential-fake", HELPER, 0755);
	put_file("config.json",
		 "{\"credHelpers\":{\"h.example\":\"fake\"},\"auths\":{\"h.example\":{\"auth\":"
		 "\"dTpw\"}}}",
		 0600);
	finds("h.example", "helped", "s");
}

static void the_store_comes_before_auths_and_may_know_nothing(void **state)
{
	put_file("docker-credential-fake", HELPER, 0755);
	put_file("config.json",
		 "{\"credsStore\":\"fake\",\"auths\":{\"h.example\":{\"auth\":\"dTpw\"},\"other."
		 "example\":{"
		 "\"auth\":\"dTpw\"}}}",
		 0600);
	finds("h.example", "helped", "s");
	finds("other.example", "u", "p");
	finds("nowhere.example", NULL, NULL);
}

static void a_token_of_a_helper_is_an_identity_token(void **state)
{
	struct credentials c;

	put_file("docker-credential-fake", HELPER, 0755);
	put_file("config.json", "{\"credHelpers\":{\"t.example\":\"fake\"}}", 0600);
	assert_int_equal(credentials_find(&c, "t.example", NULL), 1);
	assert_null(c.username);
	assert_string_equal(secret_value(c.identity_token), "idt");
	credentials_fini(&c);
}

static void what_is_broken_says_which(void **state)
{
	struct credentials c;
	struct err e = {0};

	put_file("docker-credential-fake", HELPER, 0755);
	put_file(
		"config.json",
		"{\"credHelpers\":{\"broken.example\":\"fake\",\"evil.example\":\"../../bin/sh\","
		"\"gone.example\":\"nosuchhelper\"},\"auths\":{\"bad.example\":{\"auth\":\"%%\"}}}",
		0600);
	assert_int_equal(credentials_find(&c, "broken.example", &e), -1);
	assert_text_has(e.text, "docker-credential-fake: failed with status 3");
	assert_null(strstr(e.text, "oops"));
	assert_int_equal(credentials_find(&c, "evil.example", &e), -1);
	assert_text_has(e.text, "strange name");
	assert_int_equal(credentials_find(&c, "gone.example", &e), -1);
	assert_text_has(e.text, "docker-credential-nosuchhelper");
	assert_int_equal(credentials_find(&c, "bad.example", &e), -1);
	assert_text_has(e.text, "config.json: bad.example: auth is not base64");
	put_file("config.json", "{broken", 0600);
	assert_int_equal(credentials_find(&c, "h.example", &e), -1);
	assert_text_has(e.text, "config.json");
}

#define C(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		C(without_files_there_is_none),
		C(auth_is_split_at_the_first_colon),
		C(docker_hub_has_its_own_key),
		C(podmans_file_is_read_after_dockers),
		C(a_helper_for_the_host_comes_first),
		C(the_store_comes_before_auths_and_may_know_nothing),
		C(a_token_of_a_helper_is_an_identity_token),
		C(what_is_broken_says_which),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
