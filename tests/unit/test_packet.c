/* tests/unit/test_packet.c */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "common/json.h"
#include "worker/packet.h"

static void pair(int fd[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fd), 0);
}

static void a_packet_goes_through(void **s)
{
	struct packet_reader r;
	struct json *j = json_new_object(), *got = NULL;
	struct err e;
	int fd[2];

	pair(fd);
	packet_reader_init(&r);
	json_set_str(j, "t", "cancel");
	assert_int_equal(packet_send(fd[0], j, &e), 0);
	assert_int_equal(packet_read(&r, fd[1], &got, &e), 1);
	assert_string_equal(packet_type(got), "cancel");
	json_freep(&got);
	assert_int_equal(packet_read(&r, fd[1], &got, &e), -2);
	close(fd[0]);
	assert_int_equal(packet_read(&r, fd[1], &got, &e), 0);
	close(fd[1]);
	json_freep(&j);
	packet_reader_fini(&r);
}

static void a_large_document_travels_in_parts(void **s)
{
	struct packet_reader r;
	struct json *j = json_new_object(), *a = json_new_array(), *got = NULL;
	struct err e;
	int fd[2], big = 1 << 20;

	pair(fd);
	setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	packet_reader_init(&r);
	json_set_str(j, "t", "result");
	for (int i = 0; i < 2000; i++)
		json_append(a, json_new_str("layer \xc3\xa4\xf0\x9f\x98\x80 \"quoted\" \n "
					    "sha256:9f86d081884c"));
	json_set(j, "detail", a);
	assert_int_equal(packet_send(fd[0], j, &e), 0);
	assert_int_equal(packet_read(&r, fd[1], &got, &e), 1);
	assert_int_equal(json_len(json_get(got, "detail")), 2000);
	assert_string_equal(json_value_str(json_at(json_get(got, "detail"), 1999)),
			    "layer \xc3\xa4\xf0\x9f\x98\x80 \"quoted\" \n sha256:9f86d081884c");
	json_freep(&got);
	json_freep(&j);
	close(fd[0]);
	close(fd[1]);
	packet_reader_fini(&r);
}

static void nonsense_is_refused(void **s)
{
	static const char *const bad[] = {
		"",
		"[]",
		"null",
		"{",
		"{\"t\":\"part\"}",
		"{\"t\":\"part\",\"i\":1,\"of\":2,\"data\":\"x\"}",
		"{\"t\":\"part\",\"i\":0,\"of\":1,\"data\":\"[]\"}",
		"{\"t\":\"part\",\"i\":0,\"of\":100,\"data\":\"\"}",
		"{\"t\":\"part\",\"i\":0,\"of\":1,\"data\":\"{\\\"t\\\":\\\"part\\\"}\"}",
	};
	struct packet_reader r;
	struct json *j = NULL;
	struct err e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		packet_reader_init(&r);
		assert_int_equal(packet_take(&r, bad[i], strlen(bad[i]), &j, &e), -1);
		assert_null(j);
		packet_reader_fini(&r);
	}
}

static void a_full_socket_is_told_and_does_not_block(void **s)
{
	struct json *j = json_new_object();
	struct err e;
	int fd[2], r = 0;

	pair(fd);
	json_set_str(j, "t", "reply");
	for (int i = 0; i < 100000 && r == 0; i++)
		r = packet_send(fd[0], j, &e);
	assert_int_equal(r, -1);
	assert_int_equal(e.code, ERR_BUSY);
	close(fd[0]);
	close(fd[1]);
	json_freep(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_packet_goes_through),
		T(a_large_document_travels_in_parts),
		T(nonsense_is_refused),
		T(a_full_socket_is_told_and_does_not_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
