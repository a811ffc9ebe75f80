/* tests/unit/test_queue.c - what the queue makes of answers, also of strange ones, and that each
 * call is answered exactly once.  The other side is a server of this program that logs anyone in
 * and then gives the answer of the test; the real one is driven by tests/integration/queue. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config.h"
#include "common/err.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/redis.h"
#include "common/resp.h"
#include "common/secret.h"

static struct {
	struct loop *loop;
	struct settings *settings;
	struct redis *redis;
	struct queue *queue;
	struct loop_timer *guard;
	char dir[64], path[96];
	int listening, peer;
	struct loop_fd *accepting, *reading;
	struct resp_reader *reader;
	const char *answer; /* to every EVALSHA; NULL: none */
	char first[64];	    /* word of the last command */
	unsigned evals;
	bool hang_up;
	/* what came */
	int calls;
	bool ready, final;
	struct err why;
	int kind, n, other;
	char id[TASK_ID], text[200];
} t;

static void forget_peer(void)
{
	loop_fd_freep(&t.reading);
	resp_reader_freep(&t.reader);
	if (t.peer >= 0)
		close(t.peer);
	t.peer = -1;
}

static void give(const char *bytes)
{
	if (bytes)
		assert_int_equal(write(t.peer, bytes, strlen(bytes)), (ssize_t)strlen(bytes));
}

static void serve(const struct reply *command)
{
	static const char info[] =
		"redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
	const char *word = command->element[0]->str;
	char head[32];

	snprintf(t.first, sizeof(t.first), "%s", word);
	if (strcmp(word, "INFO") == 0) {
		snprintf(head, sizeof(head), "$%zu\r\n", sizeof(info) - 1);
		give(head);
		give(info);
		give("\r\n");
	} else if (strcmp(word, "EVAL") == 0) {
		t.evals++;
		give(t.evals > 1 && t.answer ? t.answer
					     : "*1\r\n$2\r\nOK\r\n"); /* the first is hello */
	} else if (strcmp(word, "EVALSHA") == 0) {
		if (t.hang_up)
			shutdown(t.peer, SHUT_RDWR);
		else
			give(t.answer);
	} else {
		give("+OK\r\n");
	}
}

static void on_bytes(int what, void *arg)
{
	char bytes[65536];
	ssize_t n = read(t.peer, bytes, sizeof(bytes));
	const struct reply *command;

	if (n <= 0) {
		forget_peer();
		return;
	}
	assert_int_equal(resp_reader_feed(t.reader, bytes, (size_t)n, NULL), 0);
	while (t.reader && resp_reader_next(t.reader, &command, NULL) > 0) {
		serve(command);
		resp_reply_free(command);
	}
}

static void on_peer(int what, void *arg)
{
	int fd = accept(t.listening, NULL, NULL);

	forget_peer();
	t.peer = fd;
	t.evals = 0;
	t.reader = resp_reader_new(0);
	t.reading = loop_fd(t.loop, fd, LOOP_READ, on_bytes, NULL);
}

static void on_state(bool ready, const struct err *why, void *arg)
{
	t.ready = ready;
	if (ready)
		loop_stop(t.loop);
}

static void too_long(void *arg)
{
	fail_msg("nothing came for 60 s");
}

static int up(void **s)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	log_setup(LOG_FATAL, LOG_TEXT, 2);
	memset(&t, 0, sizeof(t));
	t.peer = -1;
	snprintf(t.dir, sizeof(t.dir), "/tmp/test_queue.XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.path, sizeof(t.path), "%s/s", t.dir);
	memcpy(sun.sun_path, t.path, sizeof(t.path));
	t.listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(t.listening, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(t.listening, 8), 0);
	assert_int_equal(loop_open(&t.loop, NULL), 0);
	t.accepting = loop_fd(t.loop, t.listening, LOOP_READ, on_peer, NULL);
	t.guard = loop_timer(t.loop, 60000, 0, too_long, NULL);
	t.settings = settings_default();
	free(t.settings->redis.addr);
	t.settings->redis.addr = mem_printf("unix://%s", t.path);
	assert_int_equal(redis_open(&t.redis, t.loop, t.settings, "test", on_state, NULL, NULL), 0);
	t.queue = queue_new(t.redis, t.settings);
	loop_run(t.loop, NULL);
	assert_true(redis_ready(t.redis));
	return 0;
}

static int down(void **s)
{
	redis_freep(&t.redis);
	queue_freep(&t.queue);
	forget_peer();
	loop_fd_freep(&t.accepting);
	loop_timer_freep(&t.guard);
	loop_freep(&t.loop);
	settings_freep(&t.settings);
	close(t.listening);
	unlink(t.path);
	rmdir(t.dir);
	return 0;
}

static void came(const struct err *e)
{
	t.calls++;
	if (e)
		t.why = *e;
	else
		err_clear(&t.why);
	loop_stop(t.loop);
}

static void on_claim(const struct claimed *c, const struct err *e, void *arg)
{
	if (c) {
		t.kind = (int)c->kind;
		t.n = (int)c->attempt;
		t.other = c->replay;
		memcpy(t.id, c->id, TASK_ID);
		if (c->request)
			snprintf(t.text, sizeof(t.text), "%.*s", (int)c->request_n, c->request);
	}
	came(e);
}

static void claim(const char *answer)
{
	t.answer = answer;
	t.calls = 0;
	queue_claim(t.queue, "w", "0123456789abcdef0123456789abcdef", on_claim, NULL);
	assert_int_equal(t.calls, 0); /* never inside the call */
	while (!t.calls)
		loop_run(t.loop, NULL);
	assert_int_equal(t.calls, 1);
}

#define ID "0193e3a0-7b1c-7000-8000-000000000000"

static void a_claimed_task_is_read(void **s)
{
	claim("*9\r\n$4\r\nTASK\r\n$36\r\n" ID
	      "\r\n$4\r\n1234\r\n$2\r\n{}\r\n:2\r\n:1\r\n:5\r\n:60000\r\n$6\r\nreplay\r\n");
	assert_int_equal(t.why.code, ERR_OK);
	assert_int_equal(t.kind, CLAIM_TASK);
	assert_string_equal(t.id, ID);
	assert_string_equal(t.text, "{}");
	assert_int_equal(t.n, 2);
	assert_int_equal(t.other, 1);
	claim("*2\r\n$5\r\nEMPTY\r\n:-1\r\n");
	assert_int_equal(t.kind, CLAIM_EMPTY);
	claim("*1\r\n$6\r\nPAUSED\r\n");
	assert_int_equal(t.kind, CLAIM_PAUSED);
}

static void strange_answers_are_our_bug_not_a_crash(void **s)
{
	static const char *const strange[] = {"+OK\r\n",
					      ":1\r\n",
					      "$-1\r\n",
					      "*0\r\n",
					      "*1\r\n*0\r\n",
					      "*2\r\n$4\r\nTASK\r\n:1\r\n",
					      "*1\r\n$4\r\nTASK\r\n",
					      "*1\r\n$5\r\nTASKS\r\n",
					      "-ERR a script is wrong\r\n"};

	for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		claim(strange[i]);
		if (t.why.code != ERR_BUG)
			fail_msg("%s was taken for %s", strange[i], err_slug(t.why.code));
	}
}

static void replies_that_mean_again_are_busy(void **s)
{
	static const struct {
		const char *reply;
		enum err_code code;
	} rows[] = {
		{"-TRYAGAIN x\r\n", ERR_BUSY},	 {"-CLUSTERDOWN x\r\n", ERR_BUSY},
		{"-MOVED 1 a:1\r\n", ERR_BUSY},	 {"-ASK 1 a:1\r\n", ERR_BUSY},
		{"-BUSY x\r\n", ERR_BUSY},	 {"-MISCONF x\r\n", ERR_BUSY},
		{"-NOREPLICAS x\r\n", ERR_BUSY}, {"-OOM x\r\n", ERR_LIMIT},
		{"-NOPERM x\r\n", ERR_DENIED},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		claim(rows[i].reply);
		assert_int_equal(t.why.code, rows[i].code);
		assert_true(redis_ready(t.redis));
	}
}

static void loading_and_read_only_lead_to_a_new_handshake(void **s)
{
	static const char *const rows[] = {"-LOADING x\r\n", "-READONLY x\r\n", "-MASTERDOWN x\r\n",
					   "-UNBLOCKED x\r\n"};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		claim(rows[i]);
		assert_int_equal(t.why.code, ERR_BUSY);
		t.answer = NULL;
		while (!redis_ready(t.redis))
			loop_run(t.loop, NULL);
	}
}

static void a_script_that_is_not_known_is_sent_whole_once(void **s)
{
	claim("-NOSCRIPT No matching script.\r\n"); /* and EVAL gets it too: no endless loop */
	assert_string_equal(t.first, "EVAL");
	assert_int_equal(t.evals, 2);
	assert_int_equal(t.why.code, ERR_BUSY);
}

static void a_connection_that_breaks_is_an_error_and_comes_back(void **s)
{
	t.hang_up = true;
	claim(NULL);
	assert_int_equal(t.why.code, ERR_NET);
	assert_text_has(t.why.text, "closed the connection");
	t.hang_up = false;
	claim("*1\r\n$6\r\nPAUSED\r\n"); /* the break is waited out */
	assert_int_equal(t.why.code, ERR_OK);
}

static void silence_is_an_error_at_the_deadline(void **s)
{
	claim(NULL);
	assert_int_equal(t.why.code, ERR_NET);
	assert_text_has(t.why.text, "no answer within");
	assert_false(redis_ready(t.redis));
	claim(NULL); /* known to be silent: at once */
	assert_text_has(t.why.text, "no answer within");
	give("*1\r\n$6\r\nPAUSED\r\n"); /* too late for the first, but it speaks again */
	t.calls = 0;
	while (!redis_ready(t.redis))
		loop_run(t.loop, NULL);
	assert_int_equal(t.calls, 0);
	claim("*2\r\n$5\r\nEMPTY\r\n:-1\r\n");
	assert_int_equal(t.kind, CLAIM_EMPTY);
}

static void what_is_pending_when_it_is_freed_is_cancelled(void **s)
{
	t.answer = NULL;
	for (int i = 0; i < 3; i++)
		queue_claim(t.queue, "w", "0123456789abcdef0123456789abcdef", on_claim, NULL);
	redis_freep(&t.redis);
	assert_int_equal(t.calls, 3);
	assert_int_equal(t.why.code, ERR_CANCELLED);
}

static void on_claim_free(const struct claimed *c, const struct err *e, void *arg)
{
	t.calls++;
	redis_freep(&t.redis);
	loop_stop(t.loop);
}

static void it_may_be_freed_in_a_callback(void **s)
{
	t.answer = "*1\r\n$6\r\nPAUSED\r\n";
	queue_claim(t.queue, "w", "0123456789abcdef0123456789abcdef", on_claim_free, NULL);
	queue_claim(t.queue, "w", "0123456789abcdef0123456789abcdef", on_claim, NULL);
	loop_run(t.loop, NULL);
	assert_int_equal(t.calls, 2);
	assert_int_equal(t.why.code, ERR_CANCELLED);
}

static void on_enqueue(const struct enqueue_result *r, const struct err *e, void *arg)
{
	t.kind = r ? (int)r->outcome : -1;
	came(e);
}

static void enqueue_says_what_is_wrong_with_its_task(void **s)
{
	struct task_request rq = {.given = (char *)"x",
				  .rule = (char *)"",
				  .platforms = (char *)"",
				  .trace = (char *)""};
	struct enqueue c = {.id = "not-an-id", .request = &rq};

	t.calls = 0;
	queue_enqueue(t.queue, &c, on_enqueue, NULL);
	assert_int_equal(t.calls, 0);
	while (!t.calls)
		loop_run(t.loop, NULL);
	assert_int_equal(t.calls, 1);
	assert_int_equal(t.why.code, ERR_BUG);
	assert_text_has(t.why.text, "'not-an-id' is no task id");
}

/* ---- several in one turn: one call, an answer for each */

static char answers[400];

static void on_one_of_many(const struct enqueue_result *r, const struct err *e, void *arg)
{
	static const char *const words[] = {"ok", "joined", "full", "group", "echo"};

	snprintf(answers + strlen(answers), sizeof(answers) - strlen(answers), "%s%s:%s ",
		 (const char *)arg, r ? words[r->outcome] : err_slug(e->code), r ? r->id : "");
	came(e);
}

static const char *enqueue_three(const char *answer)
{
	static const char *const names[] = {"a=", "b=", "c="};
	struct task_request rq = {.given = (char *)"x",
				  .rule = (char *)"",
				  .platforms = (char *)"",
				  .trace = (char *)""};
	struct enqueue c = {.id = ID, .request = &rq};

	strcpy(rq.source.host, "h.example");
	strcpy(rq.source.repository, "t/i");
	strcpy(rq.source.tag, "1");
	t.answer = answer;
	t.calls = 0;
	answers[0] = 0;
	for (int i = 0; i < 3; i++)
		queue_enqueue(t.queue, &c, on_one_of_many, (void *)(uintptr_t)names[i]);
	assert_int_equal(t.calls, 0);
	return answers;
}

static void each_of_one_turn_gets_its_own_answer(void **s)
{
	enqueue_three("*3\r\n*3\r\n$3\r\nDUP\r\n$2\r\nid\r\n$5\r\nready\r\n"
		      "*2\r\n$3\r\nERR\r\n$9\r\nWRONGTYPE\r\n$2\r\nOK\r\n");
	while (t.calls < 3)
		loop_run(t.loop, NULL);
	assert_string_equal(answers, "a=joined:id b=bug: c=ok:" ID " ");
	assert_int_equal(t.evals, 1); /* hello; the rest by its hash */
}

static void an_answer_of_another_length_is_nobodys(void **s)
{
	enqueue_three("*2\r\n$2\r\nOK\r\n$2\r\nOK\r\n");
	while (t.calls < 3)
		loop_run(t.loop, NULL);
	assert_string_equal(answers, "a=bug: b=bug: c=bug: ");
	enqueue_three("*3\r\n$2\r\nOK\r\n:1\r\n$-1\r\n");
	while (t.calls < 3)
		loop_run(t.loop, NULL);
	assert_string_equal(answers, "a=ok:" ID " b=bug: c=bug: ");
}

static void what_waits_for_the_turns_end_is_cancelled_too(void **s)
{
	enqueue_three(NULL);
	redis_freep(&t.redis);
	assert_int_equal(t.calls, 0);
	queue_freep(&t.queue);
	assert_string_equal(answers, "a=cancelled: b=cancelled: c=cancelled: ");
}

static void on_beats(const enum beat *b, size_t n, const struct err *e, void *arg)
{
	t.n = (int)n;
	t.kind = n == 2 ? (int)(b[0] * 10 + b[1]) : -1;
	came(e);
}

static void heartbeats_come_back_in_their_order(void **s)
{
	struct heartbeat b[2] = {{ID, "0", NULL}, {ID, "1", "p"}};

	t.answer = "*2\r\n$6\r\nCANCEL\r\n$4\r\nGONE\r\n";
	queue_heartbeat(t.queue, b, 2, on_beats, NULL);
	loop_run(t.loop, NULL);
	assert_int_equal(t.kind, BEAT_CANCEL * 10 + BEAT_GONE);
	t.answer = "*1\r\n$2\r\nOK\r\n"; /* one is missing */
	queue_heartbeat(t.queue, b, 2, on_beats, NULL);
	loop_run(t.loop, NULL);
	assert_int_equal(t.why.code, ERR_BUG);
}

int main(void)
{
#define Q(f) cmocka_unit_test_setup_teardown(f, up, down)
	const struct CMUnitTest tests[] = {
		Q(a_claimed_task_is_read),
		Q(strange_answers_are_our_bug_not_a_crash),
		Q(replies_that_mean_again_are_busy),
		Q(loading_and_read_only_lead_to_a_new_handshake),
		Q(a_script_that_is_not_known_is_sent_whole_once),
		Q(a_connection_that_breaks_is_an_error_and_comes_back),
		Q(silence_is_an_error_at_the_deadline),
		Q(what_is_pending_when_it_is_freed_is_cancelled),
		Q(it_may_be_freed_in_a_callback),
		Q(enqueue_says_what_is_wrong_with_its_task),
		Q(each_of_one_turn_gets_its_own_answer),
		Q(an_answer_of_another_length_is_nobodys),
		Q(what_waits_for_the_turns_end_is_cancelled_too),
		Q(heartbeats_come_back_in_their_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
