/* Where Nydus blobs go: what names the place apart from the key to it. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/secret.h"
#include "common/storage.h"

static void splits_to(const char *json, const char *where, const char *id, const char *secret)
{
	struct secret *i = NULL, *s = NULL;
	struct err e = {0};
	char *got = NULL;

	if (storage_split(json, &got, &i, &s, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(got, where);
	assert_true(id ? secret_eq(i, id, strlen(id)) : !i);
	assert_true(secret ? secret_eq(s, secret, strlen(secret)) : !s);
	free(got);
	secret_freep(&i);
	secret_freep(&s);
}

static void split_refuses(const char *json, const char *words)
{
	struct secret *i = NULL, *s = NULL;
	struct err e = {0};
	char *got = NULL;

	assert_int_equal(storage_split(json, &got, &i, &s, &e), -1);
	assert_null(got);
	if (!strstr(e.text, words) || strstr(e.text, "hunter2"))
		fail_msg("%s", e.text);
}

static void the_key_is_kept_apart_from_the_place(void **state)
{
	splits_to("{\"region\":\"r\",\"bucket_name\":\"b\",\"access_key_id\":\"AK\","
		  "\"access_key_secret\":\"hunter2\"}",
		  "{\"bucket_name\":\"b\",\"region\":\"r\"}", "AK", "hunter2");
	splits_to("{\"dir\":\"/srv/blobs\"}", "{\"dir\":\"/srv/blobs\"}", NULL, NULL);
}

static void writing_a_default_changes_nothing(void **state)
{
	splits_to("{\"scheme\":\"https\",\"endpoint\":\"s3.amazonaws.com\",\"object_prefix\":\"\","
		  "\"bucket_name\":\"b\",\"access_key_id\":\"\"}",
		  "{\"bucket_name\":\"b\"}", NULL, NULL);
}

static void a_refusal_never_quotes_the_key(void **state)
{
	split_refuses("hunter2", "expected a JSON object of texts");
	split_refuses("{\"access_key_secret\":\"hunter2\"", "expected a JSON object of texts");
	split_refuses("[\"hunter2\"]", "expected a JSON object of texts");
	split_refuses("{\"access_key_secret\":\"hunter2\"}",
		      "access_key_secret without access_key_id");
	split_refuses("{\"access_key_id\":\"AK\"}", "access_key_id without access_key_secret");
	split_refuses("{\"acces_key_secret\":\"hunter2\"}", "did you mean access_key_secret?");
	split_refuses("{\"access_key_secret\":{\"a\":\"hunter2\"}}", "expected text");
	split_refuses("{\"access_key_id\":\"AK\",\"access_key_secret\":\"hunter2\","
		      "\"access_key_secret_file\":\"/x\"}",
		      "keep one");
	split_refuses("{\"access_key_id\":\"AK\",\"access_key_secret_file\":\"/nonexistent/x\"}",
		      "/nonexistent/x");
	split_refuses("{\"dir\":\"/a\\u0000b\"}", "expected text");
}

static void opens(enum nydus_backend kind, const char *where, const char *name)
{
	struct storage s;
	struct err e = {0};
	char text[320];

	if (storage_open(&s, kind, where, NULL, NULL, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(storage_name(&s, text), name);
	storage_fini(&s);
}

static void open_refuses(enum nydus_backend kind, const char *where, const char *words)
{
	struct storage s;
	struct err e = {0};

	assert_int_equal(storage_open(&s, kind, where, NULL, NULL, &e), -1);
	if (e.code != ERR_INVALID || !strstr(e.text, words))
		fail_msg("%s", e.text);
}

static void each_kind_has_its_keys(void **state)
{
	opens(NYDUS_LOCALFS, "{\"dir\":\"/srv/b\"}", "directory /srv/b");
	opens(NYDUS_S3, "{\"bucket_name\":\"b\",\"region\":\"r\"}",
	      "s3 bucket b at s3.amazonaws.com");
	opens(NYDUS_S3, "{\"bucket_name\":\"b\",\"region\":\"r\",\"endpoint\":\"MinIO:9000\"}",
	      "s3 bucket b at minio:9000");
	opens(NYDUS_OSS, "{\"bucket_name\":\"b\",\"endpoint\":\"oss-cn.example.com\"}",
	      "oss bucket b at oss-cn.example.com");
	open_refuses(NYDUS_LOCALFS, "{}", "dir: missing, backend_type localfs needs it");
	open_refuses(NYDUS_LOCALFS, "{\"dir\":\"/a\",\"region\":\"r\"}", "region: backend_type");
	open_refuses(NYDUS_S3, "{\"bucket_name\":\"b\"}", "region: missing");
	open_refuses(NYDUS_S3, "{\"region\":\"b\"}", "bucket_name: missing");
	open_refuses(NYDUS_OSS, "{\"bucket_name\":\"b\"}", "endpoint: missing");
	open_refuses(NYDUS_OSS, "{\"bucket_name\":\"b\",\"endpoint\":\"e\",\"region\":\"r\"}",
		     "region: backend_type oss has no such key");
}

static void an_endpoint_of_oss_may_name_its_scheme(void **state)
{
	struct storage s;
	struct err e = {0};

	assert_int_equal(storage_open(&s, NYDUS_OSS,
				      "{\"bucket_name\":\"b\",\"endpoint\":\"http://e.example/\"}",
				      NULL, NULL, &e),
			 0);
	assert_string_equal(s.scheme, "http");
	assert_string_equal(s.endpoint, "e.example");
	storage_fini(&s);
	assert_int_equal(storage_open(&s, NYDUS_OSS,
				      "{\"bucket_name\":\"b\",\"endpoint\":\"e.example\"}", NULL,
				      NULL, &e),
			 0);
	assert_string_equal(s.scheme, "https");
	storage_fini(&s);
}

static void what_would_lead_elsewhere_is_refused(void **state)
{
	static const char *const where[] = {
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"endpoint\":\"a/b\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"endpoint\":\"user@host\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"endpoint\":\"http://host\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"scheme\":\"ftp\"}",
		"{\"bucket_name\":\"../b\",\"region\":\"r\"}",
		"{\"bucket_name\":\"..\",\"region\":\"r\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r/s3\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"object_prefix\":\"a/../b\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"object_prefix\":\"/a\"}",
		"{\"bucket_name\":\"b\",\"region\":\"r\",\"object_prefix\":\"a\\nb\"}",
	};
	static const char *const dirs[] = {"{\"dir\":\"blobs\"}", "{\"dir\":\"/\"}",
					   "{\"dir\":\"/a/../b\"}", "{\"dir\":\"/a/./b\"}",
					   "{\"dir\":\"/a\\nb\"}"};

	for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++)
		open_refuses(NYDUS_S3, where[i], " is not ");
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		open_refuses(NYDUS_LOCALFS, dirs[i], "an absolute path of a folder");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_key_is_kept_apart_from_the_place),
		cmocka_unit_test(writing_a_default_changes_nothing),
		cmocka_unit_test(a_refusal_never_quotes_the_key),
		cmocka_unit_test(each_kind_has_its_keys),
		cmocka_unit_test(an_endpoint_of_oss_may_name_its_scheme),
		cmocka_unit_test(what_would_lead_elsewhere_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
