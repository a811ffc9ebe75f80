/* Configuration: YAML to settings, with every problem named by place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/secret.h"

static char *report_text(const struct config_report *r)
{
	struct buf b = BUF_INIT(1 << 20);
	char *text;

	for (size_t i = 0; i < r->n; i++)
		buf_addf(&b, NULL, "%s: %s%s\n", r->p[i].where, r->p[i].text,
			 r->p[i].fatal	? ""
			 : r->p[i].note ? " (note)"
					: " (warning)");
	text = mem_strdup(b.data);
	buf_fini(&b);
	return text;
}

/* Loads, and wants exactly these problems. */
static struct settings *load(const char *yaml, const char *want)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r);
	text = report_text(&r);
	assert_string_equal(text, want);
	assert_int_equal(s == NULL, r.n_fatal > 0);
	free(text);
	config_report_fini(&r);
	return s;
}

#define NO_RULE "c.yaml: converter.rules: no rule: no image will be converted (warning)\n"

static void refused(const char *yaml, const char *part)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	assert_int_equal(config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r), -1);
	assert_null(s);
	text = report_text(&r);
	if (!strstr(text, part))
		fail_msg("%s\nlacks: %s", text, part);
	free(text);
	config_report_fini(&r);
}

static void warned(const char *yaml, const char *part)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r);
	text = report_text(&r);
	if (!s || !strstr(text, part))
		fail_msg("%s\nlacks: %s", text, part);
	free(text);
	config_report_fini(&r);
	settings_freep(&s);
}

static void defaults_are_those_of_the_design(void **state)
{
	struct settings *s = settings_default();

	assert_string_equal(s->server.name, "API");
	assert_string_equal(s->server.host, "0.0.0.0");
	assert_int_equal(s->server.port, 2077);
	assert_int_equal(s->server.sync_timeout_ms, 70 * 60 * 1000);
	assert_false(s->metric_enabled);
	assert_int_equal(s->gc_threshold, 10000000000ull);
	assert_int_equal(s->cache_size, 200);
	assert_string_equal(s->cache_version, "v1");
	assert_true(s->converter.worker >= 1);
	assert_int_equal(s->converter.verify, VERIFY_FULL);
	assert_int_equal(s->queue.lease_ms, 15000);
	assert_int_equal(s->queue.heartbeat_ms, 5000);
	assert_int_equal(s->queue.tick_ms, 1000);
	assert_int_equal(s->queue.max_gap_ms, 8000);
	assert_int_equal(s->queue.max_attempts, 5);
	assert_int_equal(s->queue.max_crash, 3);
	assert_int_equal(s->queue.backoff_ms, 10000);
	assert_int_equal(s->queue.backoff_max_ms, 600000);
	assert_int_equal(s->queue.deadline_ms, 86400000);
	assert_int_equal(s->queue.fresh_ms, 600000);
	assert_int_equal(s->queue.max_open, 1000000);
	assert_int_equal(s->queue.max_group, 100000);
	assert_int_equal(s->queue.registry_limit, 16);
	assert_int_equal(s->queue.keep_finished, 10000);
	assert_int_equal(s->queue.keep_finished_ms, 7 * 86400000ull);
	assert_int_equal(s->queue.keep_dead, 2000);
	assert_int_equal(s->queue.keep_dead_ms, 30 * 86400000ull);
	assert_int_equal(s->queue.keep_bytes, 256 << 20);
	assert_int_equal(s->worker.memory, 512 << 20);
	assert_int_equal(s->worker.drain_timeout_ms, 840000);
	assert_false(s->worker.drain_timeout_set);
	assert_int_equal(s->worker.task_timeout_ms, 7200000);
	assert_int_equal(s->worker.max_image_size, 64ull << 30);
	assert_string_equal(s->worker.listen, ":2078");
	assert_null(s->redis.addr);
	assert_int_equal(s->redis.durability, DURABILITY_MEMORY);
	assert_int_equal(s->log.level, LOG_INFO);
	assert_string_equal(s->rules.platforms, "");
	assert_null(settings_source(s, "h.x"));
	settings_freep(&s);
	assert_null(s);
}

static void an_empty_file_is_all_defaults(void **state)
{
	struct settings *s = load("", NO_RULE);

	assert_int_equal(s->server.port, 2077);
	settings_freep(&s);
	s = load("# nothing\nserver:\n  # host: x\nprovider:\n", NO_RULE);
	settings_freep(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_those_of_the_design),
		cmocka_unit_test(an_empty_file_is_all_defaults),
	};

	(void)refused;
	(void)warned;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
