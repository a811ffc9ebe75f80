/* tests/unit/test_task.c - ids, states, the request record, what GET shows. */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/rules.h"
#include "common/task.h"

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void ids_are_uuids_that_sort_by_time(void **s)
{
	char a[TASK_ID], b[TASK_ID];

	task_new_id(a);
	task_new_id(b);
	assert_true(task_id_valid(a));
	assert_int_equal(a[14], '7');
	assert_string_not_equal(a, b);
	assert_true(strncmp(a, b, 13) <= 0);
	assert_false(task_id_valid(""));
	assert_false(task_id_valid("0193e3a0-7b1c-7000-8000-00000000000"));
	assert_false(task_id_valid("0193e3a0-7b1c-7000-8000-0000000000001"));
	assert_false(task_id_valid("0193E3a0-7b1c-7000-8000-000000000000"));
	assert_false(task_id_valid("0193e3a0-7b1c-7000-8000-00000000000:"));
	assert_false(task_id_valid("0193e3a0+7b1c-7000-8000-000000000000"));
}

static void states_have_names(void **s)
{
	enum task_state v;

	for (int i = TASK_READY; i <= TASK_CANCELLED; i++) {
		assert_int_equal(task_state_parse(task_state_name((enum task_state)i), &v), 0);
		assert_int_equal(v, i);
	}
	assert_int_equal(task_state_parse("Ready", &v), -1);
	assert_int_equal(task_state_parse(NULL, &v), -1);
}

static void make_rule(struct rule *rule, struct target targets[2])
{
	*rule = (struct rule){.name = (char *)"services", .targets = targets, .n_targets = 2};
	target_init(&targets[0], DRIVER_ESTARGZ);
	targets[0].tag_template = mem_strdup("{tag}-esgz");
	target_init(&targets[1], DRIVER_NYDUS);
	targets[1].tag_template = mem_strdup("{tag}-nydus");
}

static void end_rule(struct target targets[2])
{
	target_fini(&targets[0]);
	target_fini(&targets[1]);
}

static void write_request(struct buf *b, const char *ref, enum task_trigger trigger)
{
	struct target targets[2];
	struct task_request r;
	struct imageref source;
	struct rule rule;
	struct err e;

	make_rule(&rule, targets);
	assert_int_equal(imageref_parse(&source, ref, &e), 0);
	assert_int_equal(task_request_from_rule(&r, &source, ref, &rule, "linux/amd64", trigger,
						"trace-1", &e),
			 0);
	assert_int_equal(task_request_write(&r, b, &e), 0);
	task_request_fini(&r);
	end_rule(targets);
}

static void a_request_survives_the_record(void **s)
{
	struct buf b = BUF_INIT(1 << 14), again = BUF_INIT(1 << 14);
	struct task_request r;
	struct json *j = NULL;
	struct err e;

	write_request(&b, "h.example/ten/img:1@sha256:" A64, TRIGGER_EVENT);
	assert_text_has(b.data, "{\"given\":\"h.example/ten/img:1@sha256:" A64
				"\",\"moves\":0,\"pinned\":false,");
	assert_text_has(b.data,
			"\"source\":{\"digest\":\"sha256:" A64
			"\",\"host\":\"h.example\",\"repository\":\"ten/img\",\"tag\":\"1\"}");
	assert_text_has(b.data, "\"v\":1}");
	assert_null(strchr(b.data, ' '));
	assert_int_equal(task_request_parse(&r, b.data, b.len, &e), 0);
	assert_string_equal(r.source.repository, "ten/img");
	assert_string_equal(r.rule, "services");
	assert_string_equal(r.platforms, "linux/amd64");
	assert_string_equal(r.trace, "trace-1");
	assert_int_equal(r.n_targets, 2);
	assert_int_equal(r.targets[1].driver, DRIVER_NYDUS);
	assert_int_equal(r.trigger, TRIGGER_EVENT);
	assert_false(r.pinned);
	assert_int_equal(task_request_write(&r, &again, &e), 0);
	assert_string_equal(again.data, b.data); /* the same bytes: it is canonical */
	buf_reset(&again);
	assert_int_equal(json_parse(&j, b.data, b.len, NULL, &e), 0);
	assert_int_equal(json_write(j, JSON_SORTED, &again, &e), 0);
	assert_string_equal(again.data, b.data); /* keys sorted, no spaces */
	json_freep(&j);
	task_request_fini(&r);
	buf_fini(&b);
	buf_fini(&again);
}

static void only_a_person_pins_tag_and_digest(void **s)
{
	struct buf b = BUF_INIT(1 << 14);
	struct task_request r;

	write_request(&b, "h.example/ten/img:1@sha256:" A64, TRIGGER_REQUEST);
	assert_int_equal(task_request_parse(&r, b.data, b.len, NULL), 0);
	assert_true(r.pinned);
	task_request_fini(&r);
	buf_reset(&b);
	write_request(&b, "h.example/ten/img@sha256:" A64, TRIGGER_REQUEST);
	assert_int_equal(task_request_parse(&r, b.data, b.len, NULL), 0);
	assert_false(r.pinned);
	task_request_fini(&r);
	buf_fini(&b);
}

static void a_target_tag_that_gets_too_long_is_refused_at_once(void **s)
{
	struct imageref source = {.host = "h.example", .repository = "a/b"};
	struct target targets[2];
	struct task_request r = {0};
	struct rule rule;
	struct err e;

	memset(source.tag, 't', 126);
	make_rule(&rule, targets);
	assert_int_equal(task_request_from_rule(&r, &source, "x", &rule, "", TRIGGER_EVENT, "", &e),
			 -1);
	assert_int_equal(e.code, ERR_INVALID);
	assert_null(r.targets);
	end_rule(targets);
}

static void damaged_records_are_refused_with_their_place(void **s)
{
	static const struct {
		const char *from, *to, *text;
	} rows[] = {
		{"\"v\":1", "\"v\":2", "v is 2, this program knows 1"},
		{"\"v\":1", "\"w\":1", "v"},
		{"\"host\":\"h.example\"", "\"host\":\"h/example\"", "source"},
		{"\"host\":\"h.example\"", "\"host\":\"\"", "source"},
		{"\"host\":\"h.example\"", "\"host\":\"H.example\"", "source"},
		{"\"repository\":\"ten/img\"", "\"repository\":\"../img\"", "source"},
		{"\"repository\":\"ten/img\"", "\"repository\":\"ten/img:1@x\"", "source"},
		{"\"tag\":\"1\"", "\"tag\":\"a b\"", "source"},
		{"\"digest\":\"sha256:aaaa", "\"digest\":\"sha256:zzzz", "source"},
		{"\"trigger\":\"event\"", "\"trigger\":\"evil\"", "trigger: 'evil' is none"},
		{"\"driver\":\"estargz\"", "\"driver\":\"tar\"", "targets"},
		{"\"targets\":[", "\"targets\":[7,", "targets"},
		{"\"pinned\":false", "\"pinned\":\"no\"", "pinned"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = BUF_INIT(1 << 14), bad = BUF_INIT(1 << 14);
		struct task_request r = {0};
		const char *at;
		struct err e;

		write_request(&b, "h.example/ten/img:1@sha256:" A64, TRIGGER_EVENT);
		at = strstr(b.data, rows[i].from);
		assert_non_null(at);
		buf_add(&bad, b.data, (size_t)(at - b.data), NULL);
		buf_add_str(&bad, rows[i].to, NULL);
		buf_add_str(&bad, at + strlen(rows[i].from), NULL);
		if (task_request_parse(&r, bad.data, bad.len, &e) != -1)
			fail_msg("taken: %s", rows[i].to);
		assert_text_has(e.text, rows[i].text);
		assert_null(r.given);
		buf_fini(&b);
		buf_fini(&bad);
	}
}

static void a_record_over_8_kib_is_refused_both_ways(void **s)
{
	struct buf b = BUF_INIT(1 << 20);
	struct target targets[2];
	struct task_request r;
	struct imageref source;
	struct rule rule;
	struct err e;
	char *big = mem_zalloc(9001);

	memset(big, 'x', 9000);
	make_rule(&rule, targets);
	imageref_parse(&source, "h.example/a/b:1", NULL);
	assert_int_equal(task_request_from_rule(&r, &source, big, &rule, "", TRIGGER_EVENT, "", &e),
			 0);
	assert_int_equal(task_request_write(&r, &b, &e), -1);
	assert_int_equal(e.code, ERR_LIMIT);
	assert_int_equal(b.len, 0);
	task_request_fini(&r);
	memset(big, ' ', 9000);
	assert_int_equal(task_request_parse(&r, big, 9000, &e), -1);
	free(big);
	end_rule(targets);
	buf_fini(&b);
}

static void phases_and_statuses(void **s)
{
	static const struct {
		struct task t;
		const char *phase, *status;
	} rows[] = {
		{{.state = TASK_READY}, "queued", "PROCESSING"},
		{{.state = TASK_RUNNING}, "running", "PROCESSING"},
		{{.state = TASK_RUNNING, .cancelling = true}, "cancelling", "PROCESSING"},
		{{.state = TASK_DELAYED}, "retrying", "PROCESSING"},
		{{.state = TASK_DELAYED, .waiting = true}, "waiting", "PROCESSING"},
		{{.state = TASK_DONE}, "done", "COMPLETED"},
		{{.state = TASK_DONE, .skipped = true}, "skipped", "COMPLETED"},
		{{.state = TASK_FAILED}, "failed", "FAILED"},
		{{.state = TASK_FAILED, .dead = true}, "dead", "FAILED"},
		{{.state = TASK_CANCELLED}, "cancelled", "FAILED"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_string_equal(task_phase(&rows[i].t), rows[i].phase);
		assert_string_equal(task_status(&rows[i].t), rows[i].status);
	}
}

static void upstreams_eight_fields_come_first_and_as_it_writes_them(void **s)
{
	struct task t = {.state = TASK_DONE,
			 .created_ms = 1649227511832,
			 .finished_ms = 1649227511900,
			 .source_size = 70254592,
			 .target_size = 72351744};
	struct json *j;
	struct buf b = BUF_INIT(1 << 14);

	memcpy(t.id, "5bdf7e80-1f1e-461f-a50d-f41d27434662", TASK_ID);
	t.source = mem_strdup("192.168.1.1/library/nginx:latest");
	j = task_to_json(&t, false);
	assert_int_equal(json_write(j, JSON_COMPACT, &b, NULL), 0);
	assert_text_has(b.data, "{\"id\":\"5bdf7e80-1f1e-461f-a50d-f41d27434662\",\"created\":"
				"\"2022-04-06T06:45:11.832Z\","
				"\"finished\":\"2022-04-06T06:45:11.9Z\",\"source\":\"192.168.1.1/"
				"library/nginx:latest\","
				"\"source_size\":70254592,\"target_size\":72351744,\"status\":"
				"\"COMPLETED\",\"reason\":\"\","
				"\"phase\":\"done\"");
	assert_null(strstr(b.data, "\"attempts\""));
	json_freep(&j);
	t.finished_ms = 0;
	buf_reset(&b);
	j = task_to_json(&t, true);
	json_write(j, JSON_COMPACT, &b, NULL);
	assert_text_has(b.data, "\"finished\":\"0001-01-01T00:00:00Z\"");
	assert_text_has(b.data, "\"attempts\":[]");
	json_freep(&j);
	buf_fini(&b);
	task_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ids_are_uuids_that_sort_by_time),
		T(states_have_names),
		T(a_request_survives_the_record),
		T(only_a_person_pins_tag_and_digest),
		T(a_target_tag_that_gets_too_long_is_refused_at_once),
		T(damaged_records_are_refused_with_their_place),
		T(a_record_over_8_kib_is_refused_both_ways),
		T(phases_and_statuses),
		T(upstreams_eight_fields_come_first_and_as_it_writes_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
