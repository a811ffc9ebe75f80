/* Signatures against what their inventors publish: the examples of AWS's "Signature Calculations
 * for the Authorization Header" and of its test suite, and OSS's example of version 1. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/secret.h"
#include "worker/backend/osssign.h"
#include "worker/backend/sigv4.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void signature_is(struct sigv4 *q, const char *secret, const char *want)
{
	struct secret *s = secret_new(secret, strlen(secret));
	struct buf b = BUF_INIT(4096);
	struct err e = {0};

	q->secret = s;
	assert_int_equal(sigv4_authorization(q, &b, &e), 0);
	assert_string_equal(b.data, want);
	buf_fini(&b);
	secret_freep(&s);
}

static void suite_is(const char *method, const char *query, const struct sigv4_header *h, size_t n,
		     const char *names, const char *signature)
{
	struct sigv4 q = {.key_id = "AKIDEXAMPLE",
			  .region = "us-east-1",
			  .service = "service",
			  .date = "20150830T123600Z",
			  .method = method,
			  .path = "/",
			  .query = query,
			  .header = h,
			  .n_headers = n,
			  .payload = EMPTY};
	char want[512];

	snprintf(want, sizeof(want),
		 "AWS4-HMAC-SHA256 "
		 "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
		 "SignedHeaders=%s, Signature=%s",
		 names, signature);
	signature_is(&q, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", want);
}

static void the_test_suite_of_aws(void **state)
{
	static const struct sigv4_header plain[] = {{"host", "example.amazonaws.com"},
						    {"x-amz-date", "20150830T123600Z"}};
	static const struct sigv4_header blanks[] = {{"host", "example.amazonaws.com"},
						     {"my-header1", " value1"},
						     {"my-header2", " \"a   b   c\""},
						     {"x-amz-date", "20150830T123600Z"}};

	suite_is("GET", "", plain, 2, "host;x-amz-date", /* get-vanilla */
		 "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	suite_is("GET", "Param1=value1&Param2=value2", plain, 2,
		 "host;x-amz-date", /* get-vanilla-query-order-key-case */
		 "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
	suite_is("POST", "", plain, 2, "host;x-amz-date", /* post-vanilla */
		 "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
	suite_is("GET", "", blanks, 4, "host;my-header1;my-header2;x-amz-date",
		 /* get-header-value-trim */
		 "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
}

static void s3_is(const char *method, const char *path, const char *query,
		  const struct sigv4_header *h, size_t n, const char *payload, const char *rest)
{
	struct sigv4 q = {.key_id = "AKIAIOSFODNN7EXAMPLE",
			  .region = "us-east-1",
			  .service = "s3",
			  .date = "20130524T000000Z",
			  .method = method,
			  .path = path,
			  .query = query,
			  .header = h,
			  .n_headers = n,
			  .payload = payload};
	char want[512];

	snprintf(want, sizeof(want),
		 "AWS4-HMAC-SHA256 "
		 "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
		 "SignedHeaders=%s",
		 rest);
	signature_is(&q, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", want);
}

#define HOST                                                                                       \
	{                                                                                          \
		"host", "examplebucket.s3.amazonaws.com"                                           \
	}
#define DATE                                                                                       \
	{                                                                                          \
		"x-amz-date", "20130524T000000Z"                                                   \
	}

static void the_examples_of_s3(void **state)
{
	static const char body[] =
		"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	static const struct sigv4_header get[] = {
		HOST, {"range", "bytes=0-9"}, {"x-amz-content-sha256", EMPTY}, DATE};
	static const struct sigv4_header put[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
						  HOST,
						  {"x-amz-content-sha256", body},
						  DATE,
						  {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
	static const struct sigv4_header bare[] = {HOST, {"x-amz-content-sha256", EMPTY}, DATE};

	s3_is("GET", "/test.txt", "", get, 4, EMPTY,
	      "host;range;x-amz-content-sha256;x-amz-date, Signature="
	      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	s3_is("PUT", "/test%24file.text", "", put, 5, body,
	      "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, Signature="
	      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	s3_is("GET", "/", "lifecycle=", bare, 3, EMPTY,
	      "host;x-amz-content-sha256;x-amz-date, Signature="
	      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	s3_is("GET", "/", "max-keys=2&prefix=J", bare, 3, EMPTY,
	      "host;x-amz-content-sha256;x-amz-date, Signature="
	      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void the_example_of_oss(void **state)
{
	static const char secret[] = "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV";
	struct secret *s = secret_new(secret, strlen(secret));
	const struct osssign q = {
		.key_id = "44CF9590006BF252F707",
		.secret = s,
		.method = "PUT",
		.content_md5 = "ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=",
		.content_type = "text/html",
		.date = "Thu, 17 Nov 2005 18:49:58 GMT",
		.headers = "x-oss-magic:abracadabra\nx-oss-meta-author:foo@bar.com\n",
		.resource = "/oss-example/nelson"};
	struct buf b = BUF_INIT(4096);
	struct err e = {0};

	assert_int_equal(osssign_authorization(&q, &b, &e), 0);
	assert_string_equal(b.data, "OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=");
	buf_fini(&b);
	secret_freep(&s);
}

static void dates_are_written_as_each_wants_them(void **state)
{
	char v4[SIGV4_DATE], oss[OSSSIGN_DATE];

	sigv4_date(v4, 1440938160999999999);
	assert_string_equal(v4, "20150830T123600Z");
	osssign_date(oss, 1132253398000000000);
	assert_string_equal(oss, "Thu, 17 Nov 2005 18:49:58 GMT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_test_suite_of_aws),
		cmocka_unit_test(the_examples_of_s3),
		cmocka_unit_test(the_example_of_oss),
		cmocka_unit_test(dates_are_written_as_each_wants_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
