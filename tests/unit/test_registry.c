/* Manifests, blobs and login against the fake registry, each fault once. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/scope.h"
#include "common/stream.h"
#include "tests/unit/fake.h"

enum { BLOB = 3 << 20 };

static char *bytes;
static struct descriptor blob;

/* A blob of 3 MiB in repository p/app, put there without faults. */
static void stock(void)
{
	struct err e = {0};

	bytes = fake_bytes(BLOB, 7);
	blob = (struct descriptor){.size = BLOB};
	digest_of(&blob.digest, DIGEST_SHA256, bytes, BLOB);
	if (blob_push(fake.r, "p/app", bytes, BLOB, &blob.digest, &e) < 0)
		fail_msg("%s", e.text);
}

static int fresh_with_blob(void **state)
{
	fake_fresh(state);
	stock();
	return 0;
}

static int done_with_blob(void **state)
{
	free(bytes);
	return fake_done(state);
}

static int read_all(struct err *e)
{
	scoped(source_freep) struct source *s = NULL;
	scoped_free char *got = mem_alloc(BLOB + 1);
	ssize_t n;

	if (blob_source(&s, fake.r, "p/app", &blob, e) < 0)
		return -1;
	n = source_read(s, got, BLOB + 1, e);
	if (n < 0)
		return -1;
	assert_int_equal(n, BLOB);
	assert_memory_equal(got, bytes, BLOB);
	return 0;
}

static void arrives(void)
{
	struct err e = {0};

	if (read_all(&e) < 0) {
		fake_show_log();
		fail_msg("%s", e.text);
	}
}

static void fails(enum err_code code, enum err_class class, const char *text)
{
	struct err e = {0};

	assert_int_equal(read_all(&e), -1);
	assert_text_has(e.text, text);
	assert_int_equal(e.code, code);
	assert_int_equal(e.class, class);
}

/* ---- downloads */
static void a_blob_arrives_whole(void **state)
{
	arrives();
}

static void small_reads_see_the_same_bytes(void **state)
{
	scoped(source_freep) struct source *s = NULL;
	struct err e = {0};
	char p[1000];
	size_t at = 0;
	ssize_t n;

	assert_int_equal(blob_source(&s, fake.r, "p/app", &blob, &e), 0);
	while ((n = source_read(s, p, sizeof(p), &e)) > 0) {
		assert_memory_equal(p, bytes + at, (size_t)n);
		at += (size_t)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(at, BLOB);
}

static void a_flipped_byte_is_corrupt(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"flip\": true}]");
	fails(ERR_CORRUPT, err_default_class(ERR_CORRUPT), "delivered sha256:");
}

static void a_truncated_body_is_resumed_by_range(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"truncate\": 1000000, "
		   "\"times\": 1}]");
	arrives();
	assert_int_equal(fake_count("\"GET\"", "\"bytes=1000000-\"", "\"status\": 206"), 1);
}

static void a_reset_connection_is_resumed(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"reset\": 500000, \"times\": "
		   "4}]");
	arrives();
	assert_true(fake_count("\"GET\"", "\"bytes=", "\"status\": 206") >= 1);
}

static void a_range_answered_with_200_is_skipped_to(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"truncate\": 1000000, "
		   "\"times\": 1}, {\"method\": \"GET\", \"path\": \"blobs/sha\", "
		   "\"ignore_range\": true}]");
	arrives();
	assert_int_equal(fake_count("\"GET\"", "\"bytes=", "\"status\": 200"), 1);
}

static void a_body_that_never_gets_on_fails_after_three_tries(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"truncate\": 0}]");
	fails(ERR_NET, CLASS_RETRY, "connection closed after 0 of 3145728 bytes");
	assert_int_equal(fake_count("\"GET\"", "blobs/sha", NULL), 3);
}

static void a_longer_body_than_described_is_corrupt(void **state)
{
	blob.size -= 1;
	fails(ERR_CORRUPT, CLASS_RETRY, "delivered 3145728 bytes, the descriptor says 3145727");
}

static void a_web_page_is_not_a_blob(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"html\": true}]");
	fails(ERR_NET, CLASS_RETRY, "answered with a web page instead of the blob");
}

static void a_missing_blob_says_so(void **state)
{
	blob.digest.bytes[0] ^= 1;
	fails(ERR_NOTFOUND, CLASS_FINAL, "is named by the manifest but missing at 127.0.0.1");
}

static void a_stalled_body_is_idle_and_resumed(void **state)
{
	fake.r->idle_ms = 300;
	fake_rules(
		"[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"delay\": 1.5, \"times\": 1}]");
	arrives();
	assert_true(fake_count("\"GET\"", "blobs/sha", NULL) >= 2);
}

static void silence_is_named(void **state)
{
	fake.r->idle_ms = 200;
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"delay\": 1}]");
	fails(ERR_NET, CLASS_RETRY, "sent nothing for 0 s after 0 bytes");
}

static void a_slow_reader_is_not_idle(void **state)
{
	scoped(source_freep) struct source *s = NULL;
	scoped_free char *got = mem_alloc(BLOB);
	struct timespec t = {.tv_nsec = 700000000};
	struct err e = {0};

	fake.r->idle_ms = 200;
	assert_int_equal(blob_source(&s, fake.r, "p/app", &blob, &e), 0);
	nanosleep(&t, NULL); /* the ring is full: the other side waits for us */
	if (source_read(s, got, BLOB, &e) != BLOB)
		fail_msg("%s", e.text);
	assert_memory_equal(got, bytes, BLOB);
	assert_int_equal(fake_count("\"GET\"", "blobs/sha", NULL), 1);
}

static void a_redirect_elsewhere_carries_no_login_but_the_range(void **state)
{
	char part[100];
	struct err e = {0};

	fake_auth("{\"auth\": \"bearer\"}");
	fake_close();
	fake_open(FAKE_USER, FAKE_PASSWORD);
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"redirect\": \"other\"}]");
	arrives();
	if (blob_range(fake.r, "p/app", &blob.digest, 1000, 100, part, &e) < 0)
		fail_msg("%s", e.text);
	assert_memory_equal(part, bytes + 1000, 100);
	char port2[40];

	snprintf(port2, sizeof(port2), "\"port\": %u", fake.port2);
	assert_int_equal(fake_count(port2, "\"authorization\": null", NULL), 2);
	assert_int_equal(fake_count(port2, "\"bytes=1000-1099\"", "\"status\": 206"), 1);
	assert_int_equal(fake_count(port2, "Bearer", NULL), 0);
}

static void relative_redirects_are_followed(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"redirect\": \"relative\"}]");
	arrives();
}

static void a_chain_of_redirects_ends(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"redirect\": \"chain\"}]");
	fails(ERR_NET, CLASS_RETRY, "redirects more than 5 times");
}

static void a_redirect_to_metadata_is_refused(void **state)
{
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"redirect\": "
		   "\"http://169.254.169.254/latest/meta-data/\"}]");
	fails(ERR_DENIED, CLASS_FINAL, "169.254.169.254, a link-local address: refused");
}

static void what_a_foreign_host_says_is_not_quoted(void **state)
{
	struct err e = {0};

	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"port\": 1, \"redirect\": "
		   "\"other\"},"
		   "{\"port\": 2, \"status\": 403, \"body\": \"internal-secret\"}]");
	assert_int_equal(read_all(&e), -1);
	assert_null(strstr(e.text, "internal-secret"));
	assert_null(strstr(e.text, "SIGNED"));
}

static void ranges_are_exact_or_fail(void **state)
{
	char part[5000];
	struct err e = {0};

	assert_int_equal(blob_range(fake.r, "p/app", &blob.digest, BLOB - 5000, 5000, part, &e), 0);
	assert_memory_equal(part, bytes + BLOB - 5000, 5000);
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"ignore_range\": true}]");
	assert_int_equal(blob_range(fake.r, "p/app", &blob.digest, 70000, 5000, part, &e), 0);
	assert_memory_equal(part, bytes + 70000, 5000);
	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"truncate\": 2000}]");
	assert_int_equal(blob_range(fake.r, "p/app", &blob.digest, 1, 5000, part, &e), 0);
	assert_memory_equal(part, bytes + 1, 5000);
	fake_rules("[]");
	assert_int_equal(blob_range(fake.r, "p/app", &blob.digest, BLOB - 10, 20, part, &e), -1);
}

static void fetch_reads_a_small_blob_and_bounds_it(void **state)
{
	struct buf to;
	struct err e = {0};

	buf_init(&to, 8 << 20);
	assert_int_equal(blob_fetch(fake.r, "p/app", &blob, 1 << 20, &to, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	fake_rules(
		"[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"flip\": true, \"times\": 1}]");
	assert_int_equal(blob_fetch(fake.r, "p/app", &blob, BLOB, &to, &e), 0);
	assert_int_equal(to.len, BLOB);
	assert_memory_equal(to.data, bytes, BLOB);
	buf_fini(&to);
}

static void exists_tells_size_and_absence(void **state)
{
	uint64_t size = 0;
	struct digest other = blob.digest;
	struct err e = {0};

	assert_int_equal(blob_exists(fake.r, "p/app", &blob.digest, &size, &e), 1);
	assert_int_equal(size, BLOB);
	other.bytes[3] ^= 4;
	assert_int_equal(blob_exists(fake.r, "p/app", &other, &size, &e), 0);
}

/* ---- login */
static void login_as(const char *mode, const char *user, const char *password)
{
	char json[100];

	snprintf(json, sizeof(json), "{\"auth\": \"%s\"}", mode);
	fake_auth(json);
	fake_close();
	fake_open(user, password);
}

static void one_token_serves_many_requests(void **state)
{
	login_as("bearer", FAKE_USER, FAKE_PASSWORD);
	for (int i = 0; i < 3; i++)
		arrives();
	assert_int_equal(fake_count("/token?", NULL, NULL), 1);
	assert_int_equal(
		fake_count("/token?service=fake%2C%20registry&scope=repository%3Ap%2Fapp%3Apull",
			   "Basic", NULL),
		1);
}

static void basic_login_works(void **state)
{
	login_as("basic", FAKE_USER, FAKE_PASSWORD);
	arrives();
	assert_int_equal(fake_count("/token", NULL, NULL), 0);
}

static void harbors_basic_challenge_to_an_expired_token_renews_it(void **state)
{
	login_as("harbor", FAKE_USER, FAKE_PASSWORD);
	arrives();
	free(fake_control("POST", "expire", NULL));
	arrives();
	assert_int_equal(fake_count("/token?", NULL, NULL), 2);
}

static void a_wrong_secret_that_got_an_anonymous_token_is_final(void **state)
{
	login_as("harbor", FAKE_USER, "wrong");
	fails(ERR_DENIED, CLASS_FINAL,
	      "refused user robot$payments+acceld for p/app (pull): secret wrong, account disabled "
	      "or expired, or no permission");
	assert_true(fake_count("/token?", NULL, NULL) <= 2);
	assert_int_equal(fake_count("blobs/sha", "\"status\": 401", NULL), 3);
}

static void a_wrong_secret_at_the_token_service_is_final(void **state)
{
	login_as("bearer", FAKE_USER, "wrong");
	fails(ERR_DENIED, CLASS_FINAL, "the token service of 127.0.0.1");
	assert_int_equal(fake_count("/token?", NULL, NULL), 1);
}

static void no_credentials_say_that_none_are_configured(void **state)
{
	login_as("basic", NULL, NULL);
	fails(ERR_DENIED, CLASS_FINAL, "wants a login for p/app; none is configured");
}

static void an_identity_token_is_exchanged_by_post(void **state)
{
	struct err e = {0};

	login_as("bearer", "<token>", "refresh-me");
	fake_rules(
		"[{\"method\": \"POST\", \"path\": \"^/token\", \"status\": 200, \"read\": true, "
		"\"body\": \"{\\\"access_token\\\": \\\"x\\\"}\"}]");
	assert_int_equal(read_all(&e), -1); /* the fake does not know x */
	assert_true(fake_count("\"POST\"", "/token", NULL) >= 1);
	assert_int_equal(fake_count("\"GET\"", "/token", NULL), 0);
}

static _Atomic uint64_t shift_ns;

static uint64_t shifted(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec + shift_ns;
}

static int64_t wall(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void a_token_is_renewed_at_four_fifths_of_its_life(void **state)
{
	login_as("bearer", FAKE_USER, FAKE_PASSWORD); /* 300 s */
	arrives();
	shift_ns = 239000000000ull;
	arrives();
	assert_int_equal(fake_count("/token?", NULL, NULL), 1);
	shift_ns = 241000000000ull;
	arrives();
	assert_int_equal(fake_count("/token?", NULL, NULL), 2);
	shift_ns = 0;
}

static void a_token_service_elsewhere_is_not_asked(void **state)
{
	login_as("none", FAKE_USER, FAKE_PASSWORD);
	fake_rules(
		"[{\"path\": \"blobs/sha\", \"status\": 401, \"headers\": {\"WWW-Authenticate\": "
		"\"Bearer realm=\\\"http://169.254.169.254/token\\\"\"}}]");
	fails(ERR_DENIED, CLASS_FINAL,
	      "names a token service at 169.254.169.254, which is another host: set "
	      "provider.source.127.0.0.1");
}

/* ---- limits */
static void a_429_pauses_and_waits(void **state)
{
	struct err e = {0};

	fake_rules("[{\"path\": \"blobs/sha\", \"status\": 429, \"headers\": {\"Retry-After\": "
		   "\"17\"}, \"body\": \"slow down\"}]");
	assert_int_equal(read_all(&e), -1);
	assert_int_equal(e.code, ERR_BUSY);
	assert_int_equal(e.class, CLASS_WAIT);
	assert_int_equal(e.retry_after_ms, 17000);
	assert_int_equal(fake.paused_ms, 17000);
	assert_text_has(e.text, "limits our requests: slow down; next try at 20");
	assert_int_equal(fake_count("blobs/sha", "\"status\": 429", NULL), 1);
}

static void a_429_without_retry_after_waits_30_s(void **state)
{
	struct err e = {0};

	fake_rules("[{\"path\": \"blobs/sha\", \"status\": 429, \"headers\": {\"Retry-After\": "
		   "\"880.092\"}}]");
	assert_int_equal(read_all(&e), -1);
	assert_int_equal(e.retry_after_ms, 30000);
	assert_int_equal(fake.paused_ms, 30000);
}

static void a_broken_server_is_asked_again(void **state)
{
	fake_rules("[{\"path\": \"blobs/sha\", \"status\": 502, \"times\": 2}]");
	arrives();
	fake_rules("[{\"path\": \"blobs/sha\", \"status\": 500}]");
	fails(ERR_NET, CLASS_RETRY, "answered 500 to GET /v2/p/app/blobs/sha256:");
}

/* ---- manifests */
static const char manifest[] =
	"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"}";

static struct imageref ref_of(const char *tag)
{
	struct imageref ref = {.repository = "p/app"};

	snprintf(ref.host, sizeof(ref.host), "%s", fake.host);
	snprintf(ref.tag, sizeof(ref.tag), "%s", tag);
	return ref;
}

static int put(const char *tag, struct err *e)
{
	struct imageref ref = ref_of(tag);

	return registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, manifest, sizeof(manifest) - 1,
				     NULL, e);
}

static void a_manifest_is_put_and_got(void **state)
{
	struct imageref ref = ref_of("v1");
	struct manifest_body m = {0};
	struct err e = {0};
	struct digest d;
	uint64_t size;
	char type[160];

	if (put("v1", &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(fake_count("\"PUT\"", "\"request_id\": \"accel-0193\"", "manifests/v1"),
			 1);
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), 0);
	assert_string_equal(m.data, manifest);
	assert_string_equal(m.media_type, MT_OCI_MANIFEST);
	assert_int_equal(registry_head_manifest(fake.r, &ref, &d, &size, type, &e), 1);
	assert_true(digest_eq(&d, &m.digest));
	assert_int_equal(size, sizeof(manifest) - 1);
	assert_string_equal(type, MT_OCI_MANIFEST);
	ref.tag[0] = '\0';
	ref.digest = d;
	manifest_body_fini(&m);
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), 0);
	manifest_body_fini(&m);
	assert_int_equal(put("", &e), 0); /* by digest */
}

static void all_manifest_types_are_accepted_at_once(void **state)
{
	struct imageref ref = ref_of("v1");
	struct manifest_body m = {0};
	struct err e = {0};

	put("v1", &e);
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), 0);
	manifest_body_fini(&m);
	assert_int_equal(fake_count("\"GET\"",
				    "application/vnd.oci.image.manifest.v1+json, "
				    "application/vnd.oci.image.index.v1+json, "
				    "application/vnd.docker.distribution.manifest.v2+json, "
				    "application/vnd.docker.distribution.manifest.list.v2+json",
				    NULL),
			 1);
}

static void head_without_digest_or_length_reads_the_manifest(void **state)
{
	struct imageref ref = ref_of("v1");
	struct err e = {0};
	struct digest d, want;
	uint64_t size = 0;

	put("v1", &e);
	digest_of(&want, DIGEST_SHA256, manifest, sizeof(manifest) - 1);
	fake_rules("[{\"path\": \"manifests\", \"no_digest\": true, \"times\": 2}, "
		   "{\"method\": \"HEAD\", \"path\": \"manifests\", \"no_length\": true, "
		   "\"after\": 1}]");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(registry_head_manifest(fake.r, &ref, &d, &size, NULL, &e), 1);
		assert_true(digest_eq(&d, &want));
		assert_int_equal(size, sizeof(manifest) - 1);
	}
	assert_int_equal(fake_count("\"GET\"", "manifests", NULL), 2);
}

static void an_absent_manifest_is_0_for_head_and_not_found_for_get(void **state)
{
	struct imageref ref = ref_of("nosuch");
	struct manifest_body m = {0};
	struct err e = {0};
	struct digest d;

	assert_int_equal(registry_head_manifest(fake.r, &ref, &d, NULL, NULL, &e), 0);
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), -1);
	assert_int_equal(e.code, ERR_NOTFOUND);
	assert_text_has(e.text, "p/app:nosuch not found at 127.0.0.1");
	assert_text_has(e.text, "deleted since it was pushed, or the account may not see it");
}

static void a_manifest_with_other_bytes_than_its_digest_is_corrupt(void **state)
{
	struct imageref ref = ref_of("v1");
	struct manifest_body m = {0};
	struct err e = {0};

	put("v1", &e);
	fake_rules("[{\"method\": \"GET\", \"path\": \"manifests\", \"flip\": true}]");
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), -1);
	assert_int_equal(e.code, ERR_CORRUPT);
	assert_int_equal(e.class, CLASS_FINAL);
	assert_int_equal(fake_count("\"GET\"", "manifests", NULL), 2);
	fake_rules(
		"[{\"method\": \"GET\", \"path\": \"manifests\", \"flip\": true, \"times\": 1}]");
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), 0);
	manifest_body_fini(&m);
}

static void a_web_page_is_not_a_manifest(void **state)
{
	struct imageref ref = ref_of("v1");
	struct manifest_body m = {0};
	struct err e = {0};

	put("v1", &e);
	fake_rules("[{\"method\": \"GET\", \"path\": \"manifests\", \"html\": true}]");
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), -1);
	assert_text_has(e.text, "web page instead of the manifest: a proxy is in the way");
}

static void a_manifest_over_4_mib_is_a_limit(void **state)
{
	struct imageref ref = ref_of("big");
	struct manifest_body m = {0};
	scoped_free char *p = fake_bytes((4 << 20) + 1, 3);
	struct err e = {0};

	assert_int_equal(
		registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, p, (4 << 20) + 1, NULL, &e),
		0);
	assert_int_equal(registry_get_manifest(fake.r, &ref, &m, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
}

#define IMMUTABLE                                                                                  \
	"{\"method\": \"PUT\", \"path\": \"manifests\", \"status\": 412, \"read\": true, "         \
	"\"body\": \"{\\\"errors\\\":[{\\\"code\\\":\\\"PRECONDITION\\\",\\\"message\\\":"         \
	"\\\"Failed to process request due to 'app:v1' configured as immutable.\\\"}]}\"}"

static void an_immutable_tag_that_holds_these_bytes_is_success(void **state)
{
	struct imageref ref = ref_of("v1");
	struct err e = {0};

	put("v1", &e);
	fake_rules("[" IMMUTABLE "]");
	assert_int_equal(put("v1", &e), 0);
	assert_int_equal(registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, "{}", 2, NULL, &e),
			 -1);
	assert_int_equal(e.code, ERR_DENIED);
	assert_text_has(e.text, "tag v1 exists at 127.0.0.1");
	assert_text_has(e.text, "and is immutable; it holds sha256:");
	assert_int_equal(e.status, 412); /* an answer: the lock on the target is given back */
}

static void a_put_whose_answer_was_lost_is_repeated(void **state)
{
	struct err e = {0};

	fake_rules("[{\"method\": \"PUT\", \"path\": \"manifests\", \"drop_answer\": true, "
		   "\"times\": 1}]");
	if (put("v1", &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(fake_count("\"PUT\"", "manifests", NULL), 2);
}

static void a_put_ends_with_its_grant(void **state)
{
	struct imageref ref = ref_of("v1");
	struct put_opts o = {.timeout_ms = 400};
	struct err e = {0};
	uint64_t start = clock_mono_ms();

	fake_rules("[{\"method\": \"PUT\", \"path\": \"manifests\", \"delay\": 3}]");
	assert_int_equal(registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, manifest,
					       sizeof(manifest) - 1, &o, &e),
			 -1);
	assert_true(clock_mono_ms() - start < 2500);
	assert_int_equal(e.code, ERR_NET);
	assert_text_has(e.text, "gave no answer within 1 s");
}

static void the_subject_is_reported_as_taken(void **state)
{
	struct imageref ref = ref_of("v1");
	bool taken = true;
	struct put_opts o = {.subject_taken = &taken};
	struct err e = {0};

	assert_int_equal(registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, "{}", 2, &o, &e), 0);
	assert_false(taken);
	fake_rules("[{\"method\": \"PUT\", \"status\": 201, \"read\": true, \"headers\": "
		   "{\"OCI-Subject\": \"sha256:00\"}}]");
	assert_int_equal(registry_put_manifest(fake.r, &ref, MT_OCI_MANIFEST, "{}", 2, &o, &e), 0);
	assert_true(taken);
}

static void referrers_404_is_none(void **state)
{
	struct digest d;
	char *index = NULL;
	size_t n;
	struct err e = {0};

	digest_of(&d, DIGEST_SHA256, "x", 1);
	assert_int_equal(registry_referrers(fake.r, "p/app", &d, &index, &n, &e), 0);
	fake_rules("[{\"path\": \"referrers\", \"status\": 200, \"body\": \"{}\"}]");
	assert_int_equal(registry_referrers(fake.r, "p/app", &d, &index, &n, &e), 1);
	assert_string_equal(index, "{}");
	free(index);
}

/* ---- all at once */
static void *reader(void *arg)
{
	struct err e = {0};

	return (void *)(intptr_t)(read_all(&e) < 0);
}

static void many_threads_share_one_registry(void **state)
{
	pthread_t t[8];
	void *failed;

	login_as("harbor", FAKE_USER, FAKE_PASSWORD);
	fake_rules(
		"[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"reset\": 700000, \"times\": 3, "
		"\"after\": 1}]");
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, reader, NULL);
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
}

static void *stuck(void *arg)
{
	struct err *e = arg;

	return (void *)(intptr_t)read_all(e);
}

static void cancelling_frees_who_waits(void **state)
{
	struct timespec t = {.tv_nsec = 200000000};
	uint64_t start = clock_mono_ms();
	struct err e = {0};
	pthread_t thread;
	void *r;

	fake_rules("[{\"method\": \"GET\", \"path\": \"blobs/sha\", \"delay\": 20}]");
	pthread_create(&thread, NULL, stuck, &e);
	nanosleep(&t, NULL);
	http_cancel_all(fake.h);
	pthread_join(thread, &r);
	assert_int_equal((intptr_t)r, -1);
	assert_int_equal(e.code, ERR_CANCELLED);
	assert_true(clock_mono_ms() - start < 10000);
	assert_int_equal(read_all(&e), -1); /* and what comes later */
	assert_int_equal(e.code, ERR_CANCELLED);
}

#define B(name) cmocka_unit_test_setup_teardown(name, fresh_with_blob, done_with_blob)
#define M(name) cmocka_unit_test_setup_teardown(name, fake_fresh, fake_done)

int main(void)
{
	static const struct clock_source clock = {
		.mono_ns = shifted, .boot_ns = shifted, .wall_ns = wall};
	const struct CMUnitTest tests[] = {
		B(a_blob_arrives_whole),
		B(small_reads_see_the_same_bytes),
		B(a_flipped_byte_is_corrupt),
		B(a_truncated_body_is_resumed_by_range),
		B(a_reset_connection_is_resumed),
		B(a_range_answered_with_200_is_skipped_to),
		B(a_body_that_never_gets_on_fails_after_three_tries),
		B(a_longer_body_than_described_is_corrupt),
		B(a_web_page_is_not_a_blob),
		B(a_missing_blob_says_so),
		B(a_stalled_body_is_idle_and_resumed),
		B(silence_is_named),
		B(a_slow_reader_is_not_idle),
		B(a_redirect_elsewhere_carries_no_login_but_the_range),
		B(relative_redirects_are_followed),
		B(a_chain_of_redirects_ends),
		B(a_redirect_to_metadata_is_refused),
		B(what_a_foreign_host_says_is_not_quoted),
		B(ranges_are_exact_or_fail),
		B(fetch_reads_a_small_blob_and_bounds_it),
		B(exists_tells_size_and_absence),
		B(one_token_serves_many_requests),
		B(basic_login_works),
		B(harbors_basic_challenge_to_an_expired_token_renews_it),
		B(a_wrong_secret_that_got_an_anonymous_token_is_final),
		B(a_wrong_secret_at_the_token_service_is_final),
		B(no_credentials_say_that_none_are_configured),
		B(an_identity_token_is_exchanged_by_post),
		B(a_token_is_renewed_at_four_fifths_of_its_life),
		B(a_token_service_elsewhere_is_not_asked),
		B(a_429_pauses_and_waits),
		B(a_429_without_retry_after_waits_30_s),
		B(a_broken_server_is_asked_again),
		M(a_manifest_is_put_and_got),
		M(all_manifest_types_are_accepted_at_once),
		M(head_without_digest_or_length_reads_the_manifest),
		M(an_absent_manifest_is_0_for_head_and_not_found_for_get),
		M(a_manifest_with_other_bytes_than_its_digest_is_corrupt),
		M(a_web_page_is_not_a_manifest),
		M(a_manifest_over_4_mib_is_a_limit),
		M(an_immutable_tag_that_holds_these_bytes_is_success),
		M(a_put_whose_answer_was_lost_is_repeated),
		M(a_put_ends_with_its_grant),
		M(the_subject_is_reported_as_taken),
		M(referrers_404_is_none),
		B(many_threads_share_one_registry),
		B(cancelling_frees_who_waits),
	};

	clock_replace(&clock); /* before there are threads */
	return cmocka_run_group_tests(tests, fake_start, fake_stop);
}
