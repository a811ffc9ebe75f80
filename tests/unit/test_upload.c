/* Uploads against the fake registry: every way, and every way it can go wrong. */
#include <pthread.h>

#include "common/clock.h"
#include "common/scope.h"
#include "tests/unit/fake.h"

enum { MIB = 1 << 20 };

static char *bytes;
static size_t size;
static struct digest digest;

static void make(size_t n)
{
	free(bytes);
	bytes = fake_bytes(n, (uint32_t)n + 1);
	size = n;
	digest_of(&digest, DIGEST_SHA256, bytes, n);
}

static int done(void **state)
{
	free(bytes);
	bytes = NULL;
	return fake_done(state);
}

/* As a driver writes: 256 KiB at a time. */
static int send_to(const char *repository, struct err *e)
{
	scoped(upload_freep) struct upload *u = NULL;

	if (upload_open(&u, fake.r, repository, e) < 0)
		return -1;
	for (size_t at = 0; at < size; at += 256 << 10) {
		size_t n = size - at < 256 << 10 ? size - at : 256 << 10;

		if (upload_write(u, bytes + at, n, e) < 0)
			return -1;
	}
	return upload_commit(u, &digest, size, e);
}

static void arrives(void)
{
	struct err e = {0};

	if (send_to("p/app", &e) < 0) {
		fake_show_log();
		fail_msg("%s", e.text);
	}
	assert_true(fake_has_blob(&digest, size));
	fake_assert_no_uploads();
}

static void fails(enum err_code code, const char *text)
{
	struct err e = {0};

	assert_int_equal(send_to("p/app", &e), -1);
	assert_text_has(e.text, text);
	assert_int_equal(e.code, code);
	assert_false(fake_has_blob(&digest, size));
	fake_assert_no_uploads();
}

static unsigned patches(void)
{
	return fake_count("\"PATCH\"", NULL, NULL);
}

static void a_small_blob_is_head_post_put(void **state)
{
	make(2 * MIB);
	arrives();
	assert_int_equal(fake_count("\"HEAD\"", NULL, NULL), 1);
	assert_int_equal(fake_count("\"POST\"", NULL, NULL), 1);
	assert_int_equal(fake_count("\"PUT\"", "\"in\": 2097152", NULL), 1);
	assert_int_equal(patches(), 0);
}

static void an_empty_blob_is_a_blob(void **state)
{
	make(0);
	arrives();
}

static void a_blob_that_is_there_is_not_sent(void **state)
{
	make(1000);
	arrives();
	arrives();
	assert_int_equal(fake_count("\"PUT\"", "blobs", NULL), 1);
	make(3 * MIB);
	arrives();
	assert_int_equal(blob_push(fake.r, "p/app", bytes, size, &digest, NULL), 0);
	assert_int_equal(patches(), 1);
}

static void a_large_blob_is_one_streamed_patch(void **state)
{
	make(9 * MIB + 17);
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": null", "\"in\": 9437201"), 1);
	assert_int_equal(patches(), 1);
	assert_int_equal(fake_count("\"PUT\"", "\"in\": 0", "digest=sha256"), 1);
}

static void what_is_not_committed_is_deleted(void **state)
{
	struct upload *u = NULL;
	struct err e = {0};

	make(5 * MIB);
	assert_int_equal(upload_open(&u, fake.r, "p/app", &e), 0);
	assert_int_equal(upload_write(u, bytes, size, &e), 0);
	upload_freep(&u);
	fake_assert_no_uploads();
	assert_int_equal(fake_count("\"DELETE\"", NULL, NULL), 1);
	/* Not broken off: a registry may know the session by what it answered to this alone. */
	assert_int_equal(fake_count("\"PATCH\"", "\"status\": 202", "\"in\": 5242880"), 1);
}

static void a_cancelled_stream_ends_and_its_session_is_deleted(void **state)
{
	struct upload *u = NULL;
	struct err e = {0};
	int r = 0;

	make(5 * MIB);
	assert_int_equal(upload_open(&u, fake.r, "p/app", &e), 0);
	assert_int_equal(upload_write(u, bytes, size, &e), 0);
	http_cancel_all(fake.h);
	for (int i = 0; r == 0 && i < 100; i++)
		r = upload_write(u, bytes, size, &e);
	assert_int_equal(r, -1);
	assert_int_equal(e.code, ERR_CANCELLED);
	upload_freep(&u);
	fake_assert_no_uploads();
	assert_int_equal(fake_count("\"PATCH\"", "\"status\": 202", NULL), 1);
	assert_int_equal(fake_count("\"DELETE\"", NULL, NULL), 1);
}

static void nothing_is_sent_for_an_upload_that_is_dropped_early(void **state)
{
	struct upload *u = NULL;
	struct err e = {0};

	make(MIB);
	assert_int_equal(upload_open(&u, fake.r, "p/app", &e), 0);
	assert_int_equal(upload_write(u, bytes, size, &e), 0);
	upload_freep(&u);
	assert_int_equal(fake_count("v2", NULL, NULL), 0);
}

static void a_wrong_size_at_commit_is_our_bug(void **state)
{
	struct upload *u = NULL;
	struct err e = {0};

	make(100);
	upload_open(&u, fake.r, "p/app", &e);
	upload_write(u, bytes, 100, &e);
	assert_int_equal(upload_commit(u, &digest, 99, &e), -1);
	assert_int_equal(e.code, ERR_BUG);
	upload_freep(&u);
}

static void refused(int status)
{
	char rules[200];

	make(9 * MIB);
	snprintf(rules, sizeof(rules), "[{\"method\": \"PATCH\", \"status\": %d, \"times\": 1}]",
		 status);
	fake_rules(rules);
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"0-4194303\"", NULL), 1);
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"8388608-9437183\"", NULL),
			 1);
	assert_int_equal(patches(), 4);
	/* learnt: the next one begins that way */
	make(9 * MIB + 1);
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": null", NULL), 1);
}

static void a_stream_refused_with_404_goes_in_pieces(void **state)
{
	refused(404);
}
static void a_stream_refused_with_405_goes_in_pieces(void **state)
{
	refused(405);
}
static void a_stream_refused_with_411_goes_in_pieces(void **state)
{
	refused(411);
}
static void a_stream_refused_with_413_goes_in_pieces(void **state)
{
	refused(413);
}
static void a_stream_refused_with_416_goes_in_pieces(void **state)
{
	refused(416);
}
static void a_stream_refused_with_501_goes_in_pieces(void **state)
{
	refused(501);
}

static void a_body_limit_halves_the_pieces(void **state)
{
	make(5 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"max_body\": 1048576}]");
	/* The limit may show when more was sent than is held: then the layer comes again. */
	send_to("p/app", NULL);
	arrives();
	assert_true(fake_count("\"PATCH\"", "\"content_range\": \"0-1048575\"",
			       "\"status\": 202") >= 1);
}

static void a_body_limit_below_a_small_blob_is_met_too(void **state)
{
	make(2 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"max_body\": 1048576}, {\"method\": \"PUT\", "
		   "\"max_body\": 1048576}]");
	arrives();
}

static void a_hopeless_body_limit_is_named(void **state)
{
	make(3 * MIB);
	fake.r->no_stream = true;
	fake_rules("[{\"method\": \"PATCH\", \"max_body\": 1000}]");
	fails(ERR_LIMIT, "refuses bodies of 393216 bytes");
}

static void bytes_dropped_in_silence_are_noticed_and_pieces_come_next(void **state)
{
	struct err e = {0};

	make(5 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"keep\": 1048576, \"times\": 1}]");
	assert_int_equal(send_to("p/app", &e), -1);
	assert_int_equal(e.code, ERR_NET);
	assert_int_equal(e.class, CLASS_RETRY);
	assert_text_has(e.text, "kept 1048576 of 5242880 streamed bytes");
	arrives(); /* the layer again */
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"0-4194303\"", NULL), 1);
}

static void a_piece_kept_in_part_is_sent_on_from_there(void **state)
{
	make(9 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"status\": 413, \"times\": 1}, "
		   "{\"method\": \"PATCH\", \"keep\": 1000000, \"after\": 1, \"times\": 2}]");
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"1000000-", NULL), 1);
}

static void a_registry_that_keeps_nothing_is_given_up(void **state)
{
	make(5 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"status\": 413, \"times\": 1}, "
		   "{\"method\": \"PATCH\", \"keep\": 0, \"after\": 1}]");
	fails(ERR_NET, "keeps nothing of a piece");
}

static void a_reset_piece_goes_on_where_the_registry_is(void **state)
{
	make(9 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"status\": 413, \"times\": 1}, "
		   "{\"method\": \"PATCH\", \"reset\": 100000, \"after\": 2, \"times\": 1}, "
		   "{\"close\": true}]");
	arrives();
	assert_int_equal(fake_count("\"GET\"", "blobs/uploads", NULL), 1);
}

static void a_lost_answer_to_a_piece_is_asked_for(void **state)
{
	make(9 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"status\": 413, \"times\": 1}, "
		   "{\"method\": \"PATCH\", \"drop_answer\": true, \"after\": 1, \"times\": 1}, "
		   "{\"close\": true}]");
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"0-", NULL), 1);
}

static void pieces_are_as_large_as_the_registry_demands(void **state)
{
	make(20 * MIB);
	fake_rules("[{\"chunk_min\": 16777216}]");
	arrives();
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": \"0-16777215\"", NULL), 1);
	assert_int_equal(patches(), 2);
}

static void a_stream_that_breaks_late_is_a_retry(void **state)
{
	struct err e = {0};

	make(9 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"reset\": 6000000}]");
	assert_int_equal(send_to("p/app", &e), -1);
	assert_int_equal(e.code, ERR_NET);
	assert_int_equal(e.class, CLASS_RETRY);
	assert_text_has(e.text, "closed the connection after ");
	fake_rules("[]");
	arrives(); /* in pieces, which survive the next break */
	assert_int_equal(fake_count("\"PATCH\"", "\"content_range\": null", NULL), 1);
}

static void a_late_413_is_a_retry_that_will_go_in_pieces(void **state)
{
	struct err e = {0};

	make(20 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"max_body\": 6000000}]");
	assert_int_equal(send_to("p/app", &e), -1);
	assert_int_equal(e.code, ERR_NET);
	assert_int_equal(e.class, CLASS_RETRY);
	arrives();
}

static void locations_of_every_kind_are_understood(void **state)
{
	static const char *const kinds[] = {"relative", "query", "other_port", "https"};

	for (size_t i = 0; i < 4; i++) {
		char rules[100];

		make(3 * MIB + i);
		snprintf(rules, sizeof(rules), "[{\"path\": \"uploads\", \"location\": \"%s\"}]",
			 kinds[i]);
		fake_rules(rules);
		arrives();
		make(1000 + i);
		arrives();
	}
}

static void a_location_without_range_is_believed_after_a_look(void **state)
{
	make(3 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"no_range_header\": true}]");
	arrives();
	assert_int_equal(fake_count("\"HEAD\"", "blobs/sha", "\"status\": 200"), 1);
}

static void a_lost_answer_to_the_put_is_found_out(void **state)
{
	make(3 * MIB);
	fake_rules("[{\"method\": \"PUT\", \"drop_answer\": true, \"times\": 1}, "
		   "{\"close\": true}]");
	arrives();
	assert_int_equal(fake_count("\"PUT\"", NULL, NULL), 1);
	make(3000);
	fake_rules("[{\"method\": \"PUT\", \"drop_answer\": true, \"times\": 1}]");
	arrives();
}

static void a_failed_put_is_repeated(void **state)
{
	make(3 * MIB);
	fake_rules("[{\"method\": \"PUT\", \"status\": 502, \"times\": 1}]");
	arrives();
	make(3000);
	fake_rules("[{\"method\": \"PUT\", \"status\": 500, \"times\": 2, \"read\": true}]");
	arrives();
	assert_true(fake.r->max_commits < 4); /* a 502 halves them */
}

static void other_bytes_at_the_registry_are_corrupt(void **state)
{
	make(3000);
	digest.bytes[0] ^= 1;
	fails(ERR_CORRUPT, "got other bytes than we sent");
}

static void harbors_quota_is_final_and_in_its_words(void **state)
{
	struct err e = {0};

	make(3000);
	fake_rules(
		"[{\"method\": \"PUT\", \"status\": 403, \"read\": true, \"body\": "
		"\"{\\\"errors\\\":[{\\\"code\\\":\\\"DENIED\\\",\\\"message\\\":\\\"adding 1.2 "
		"GiB "
		"of storage resource, which when updated to current usage of 1 GiB will exceed the "
		"configured upper limit of 2 GiB.\\\"}]}\"}]");
	assert_int_equal(send_to("p/app", &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_int_equal(e.class, CLASS_FINAL);
	assert_text_has(e.text, "project p of 127.0.0.1");
	assert_text_has(e.text, "is out of quota: adding 1.2 GiB");
}

static void an_expired_login_is_renewed_before_the_stream(void **state)
{
	make(5 * MIB);
	fake_auth("{\"auth\": \"harbor\"}");
	fake_close();
	fake_open(FAKE_USER, FAKE_PASSWORD);
	arrives();
	make(5 * MIB + 1);
	fake_rules("[{\"method\": \"PATCH\", \"status\": 401, \"times\": 1, \"headers\": "
		   "{\"Www-Authenticate\": \"Basic realm=\\\"harbor\\\"\"}}]");
	arrives();
	fake_rules("[{\"method\": \"PUT\", \"status\": 401, \"times\": 1, \"headers\": "
		   "{\"Www-Authenticate\": \"Basic realm=\\\"harbor\\\"\"}}]");
	make(5 * MIB + 2);
	arrives();
}

static void a_login_that_dies_in_mid_upload_is_renewed_for_the_commit(void **state)
{
	struct upload *u = NULL;
	struct err e = {0};

	make(5 * MIB);
	fake_auth("{\"auth\": \"harbor\"}");
	fake_close();
	fake_open(FAKE_USER, FAKE_PASSWORD);
	assert_int_equal(upload_open(&u, fake.r, "p/app", &e), 0);
	assert_int_equal(upload_write(u, bytes, size, &e), 0);
	free(fake_control("POST", "expire", NULL));
	if (upload_commit(u, &digest, size, &e) < 0)
		fail_msg("%s", e.text);
	upload_freep(&u);
	assert_true(fake_has_blob(&digest, size));
}

static void a_put_applied_late_is_waited_for(void **state)
{
	make(3 * MIB);
	fake_rules("[{\"method\": \"PUT\", \"late\": 1}]");
	arrives();
	assert_int_equal(fake_count("\"PUT\"", NULL, NULL), 1);
}

static void only_201_is_a_mount(void **state)
{
	struct err e = {0};
	struct digest other;

	make(1000);
	arrives();
	assert_int_equal(blob_mount(fake.r, "q/b", "p/app", &digest, &e), 1);
	fake_rules("[{\"method\": \"POST\", \"mount\": 202}]");
	assert_int_equal(blob_mount(fake.r, "q/c", "p/app", &digest, &e), 0);
	fake_assert_no_uploads();
	fake_rules("[{\"method\": \"POST\", \"mount\": 401}]");
	assert_int_equal(blob_mount(fake.r, "q/c", "p/app", &digest, &e), 0);
	fake_rules("[]");
	digest_of(&other, DIGEST_SHA256, "y", 1);
	assert_int_equal(blob_mount(fake.r, "q/c", "p/app", &other, &e), 0);
	fake_assert_no_uploads();
}

static void a_mount_asks_for_both_scopes(void **state)
{
	struct err e = {0};

	make(1000);
	arrives();
	fake_auth("{\"auth\": \"bearer\"}");
	fake_close();
	fake_open(FAKE_USER, FAKE_PASSWORD);
	assert_int_equal(blob_mount(fake.r, "q/b", "p/app", &digest, &e), 1);
	assert_int_equal(fake_count("/token?", "scope=repository%3Aq%2Fb%3Apull%2Cpush",
				    "scope=repository%3Ap%2Fapp%3Apull"),
			 1);
}

static void a_slow_registry_blocks_the_writer_without_loss(void **state)
{
	make(4 * MIB);
	fake_rules("[{\"method\": \"PATCH\", \"rate\": 4000000}]");
	arrives();
}

static void a_slow_writer_is_not_idle(void **state)
{
	struct upload *u = NULL;
	struct timespec t = {.tv_nsec = 600000000};
	struct err e = {0};

	make(5 * MIB);
	fake.r->idle_ms = 250;
	assert_int_equal(upload_open(&u, fake.r, "p/app", &e), 0);
	assert_int_equal(upload_write(u, bytes, 3 * MIB, &e), 0);
	nanosleep(&t, NULL);
	if (upload_write(u, bytes + 3 * MIB, 2 * MIB, &e) < 0 ||
	    upload_commit(u, &digest, size, &e) < 0)
		fail_msg("%s", e.text);
	upload_freep(&u);
}

static void a_stuck_registry_ends_the_upload(void **state)
{
	struct err e = {0};

	make(9 * MIB);
	fake.r->idle_ms = 300;
	fake_rules("[{\"method\": \"PATCH\", \"delay\": 5}]");
	assert_int_equal(send_to("p/app", &e), -1);
	assert_int_equal(e.code, ERR_NET);
}

static void *sender(void *arg)
{
	char repository[20];
	struct err e = {0};

	snprintf(repository, sizeof(repository), "p/%d", (int)(intptr_t)arg);
	if (send_to(repository, &e) < 0)
		fprintf(stderr, "%s\n", e.text);
	else
		return NULL;
	return arg;
}

static void many_uploads_at_once(void **state)
{
	pthread_t t[8];
	void *failed;

	make(6 * MIB);
	fake_auth("{\"auth\": \"harbor\"}");
	fake_close();
	fake_open(FAKE_USER, FAKE_PASSWORD);
	for (intptr_t i = 0; i < 8; i++)
		pthread_create(&t[i], NULL, sender, (void *)(i + 1));
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	fake_assert_no_uploads();
}

#define U(name) cmocka_unit_test_setup_teardown(name, fake_fresh, done)

int main(void)
{
	const struct CMUnitTest tests[] = {
		U(a_small_blob_is_head_post_put),
		U(an_empty_blob_is_a_blob),
		U(a_blob_that_is_there_is_not_sent),
		U(a_large_blob_is_one_streamed_patch),
		U(a_cancelled_stream_ends_and_its_session_is_deleted),
		U(what_is_not_committed_is_deleted),
		U(nothing_is_sent_for_an_upload_that_is_dropped_early),
		U(a_wrong_size_at_commit_is_our_bug),
		U(a_stream_refused_with_404_goes_in_pieces),
		U(a_stream_refused_with_405_goes_in_pieces),
		U(a_stream_refused_with_411_goes_in_pieces),
		U(a_stream_refused_with_413_goes_in_pieces),
		U(a_stream_refused_with_416_goes_in_pieces),
		U(a_stream_refused_with_501_goes_in_pieces),
		U(a_body_limit_halves_the_pieces),
		U(a_body_limit_below_a_small_blob_is_met_too),
		U(a_hopeless_body_limit_is_named),
		U(bytes_dropped_in_silence_are_noticed_and_pieces_come_next),
		U(a_piece_kept_in_part_is_sent_on_from_there),
		U(a_registry_that_keeps_nothing_is_given_up),
		U(a_reset_piece_goes_on_where_the_registry_is),
		U(a_lost_answer_to_a_piece_is_asked_for),
		U(pieces_are_as_large_as_the_registry_demands),
		U(a_stream_that_breaks_late_is_a_retry),
		U(a_late_413_is_a_retry_that_will_go_in_pieces),
		U(locations_of_every_kind_are_understood),
		U(a_location_without_range_is_believed_after_a_look),
		U(a_lost_answer_to_the_put_is_found_out),
		U(a_failed_put_is_repeated),
		U(other_bytes_at_the_registry_are_corrupt),
		U(harbors_quota_is_final_and_in_its_words),
		U(an_expired_login_is_renewed_before_the_stream),
		U(a_login_that_dies_in_mid_upload_is_renewed_for_the_commit),
		U(a_put_applied_late_is_waited_for),
		U(only_201_is_a_mount),
		U(a_mount_asks_for_both_scopes),
		U(a_slow_registry_blocks_the_writer_without_loss),
		U(a_slow_writer_is_not_idle),
		U(a_stuck_registry_ends_the_upload),
		U(many_uploads_at_once),
	};

	return cmocka_run_group_tests(tests, fake_start, fake_stop);
}
