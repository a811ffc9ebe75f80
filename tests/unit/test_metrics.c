#include <stdio.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/metrics.h"
#include "unit.h"

enum { REQUESTS, SECONDS, DEPTH, ZED };
static const char *const labels[] = {"code", "url", NULL};
static const double buckets[] = {.005, .5, 1048576, 0};
static const struct metric_desc table[] = {
	{"x_%s_requests_total", "How many.", METRIC_COUNTER, labels, NULL},
	{"x_%s_seconds", "How long.", METRIC_HISTOGRAM, labels, buckets},
	{"a_depth", "Depth.", METRIC_GAUGE, NULL, NULL},
	{"zed", "Never set.", METRIC_GAUGE, NULL, NULL},
};

static struct metrics *make(void)
{
	return metrics_new(table, 4, "api");
}

static char *text_of(const struct metrics *m, struct buf *b)
{
	struct err e = {0};

	buf_init(b, 1 << 20);
	assert_int_equal(metrics_write(m, b, &e), 0);
	return b->data;
}

static void families_are_sorted_and_empty_ones_left_out(void **state)
{
	struct metrics *m = make();
	struct buf b;

	metrics_set(m, DEPTH, NULL, 3.5);
	metrics_add(m, REQUESTS, (const char *[]){"200", "/"}, 1);
	metrics_add(m, REQUESTS, (const char *[]){"200", "/"}, 2);
	const char *t = text_of(m, &b), *process = strstr(t, "\n# HELP process_cpu_seconds_total ");

	assert_memory_equal(t, "# HELP a_depth Depth.\n# TYPE a_depth gauge\na_depth 3.5\n", 53);
	assert_non_null(process);
	assert_text_has(process, "# TYPE x_api_requests_total counter\n"
				 "x_api_requests_total{code=\"200\",url=\"/\"} 3\n");
	assert_null(strstr(t, "zed"));
	assert_null(strstr(t, "seconds_bucket"));
	buf_fini(&b);
	metrics_freep(&m);
}

static void histograms_are_cumulative_and_write_bounds_as_go_does(void **state)
{
	struct metrics *m = make();
	struct buf b;
	const char *const v[] = {"200", "/"};

	metrics_observe(m, SECONDS, v, .005);
	metrics_observe(m, SECONDS, v, .1);
	metrics_observe(m, SECONDS, v, 2e6);
	assert_text_has(text_of(m, &b),
			"x_api_seconds_bucket{code=\"200\",url=\"/\",le=\"0.005\"} 1\n"
			"x_api_seconds_bucket{code=\"200\",url=\"/\",le=\"0.5\"} 2\n"
			"x_api_seconds_bucket{code=\"200\",url=\"/\",le=\"1.048576e+06\"} 2\n"
			"x_api_seconds_bucket{code=\"200\",url=\"/\",le=\"+Inf\"} 3\n"
			"x_api_seconds_sum{code=\"200\",url=\"/\"} 2000000.105\n"
			"x_api_seconds_count{code=\"200\",url=\"/\"} 3\n");
	buf_fini(&b);
	metrics_freep(&m);
}

static void label_values_are_escaped_and_bounded_in_number_and_length(void **state)
{
	struct metrics *m = make();
	struct buf b;
	char value[300];

	metrics_add(m, REQUESTS, (const char *[]){"a\"b\\c\nd", "/"}, 1);
	for (int i = 0; i < 2000; i++) {
		snprintf(value, sizeof(value), "host-%d", i);
		metrics_add(m, REQUESTS, (const char *[]){"200", value}, 1);
	}
	const char *t = text_of(m, &b);
	size_t lines = 0;

	assert_text_has(t, "{code=\"a\\\"b\\\\c\\nd\",url=\"/\"} 1\n");
	assert_text_has(t, "x_api_requests_total{code=\"other\",url=\"other\"} 1489\n");
	for (const char *p = t; (p = strstr(p, "\nx_api_requests_total{")); p++)
		lines++;
	assert_int_equal(lines, 513);
	buf_fini(&b);
	memset(value, 'x', sizeof(value) - 1);
	value[299] = 0;
	metrics_freep(&m);
	m = make();
	metrics_add(m, REQUESTS, (const char *[]){"200", value}, 1);
	assert_null(strstr(text_of(m, &b), value));
	buf_fini(&b);
	metrics_freep(&m);
}

static void deltas_by_name_need_a_known_name_and_all_labels(void **state)
{
	struct metrics *m = make();
	struct err e = {0};
	struct buf b;

	assert_int_equal(metrics_add_named(m, "x_api_requests_total",
					   (const char *[]){"200", "/", NULL}, 4, &e),
			 0);
	assert_int_equal(
		metrics_add_named(m, "x_api_requests_total", (const char *[]){"200", NULL}, 4, &e),
		-1);
	assert_int_equal(metrics_add_named(m, "nope", NULL, 4, &e), -1);
	assert_text_has(e.text, "no metric is named nope");
	assert_text_has(text_of(m, &b), "x_api_requests_total{code=\"200\",url=\"/\"} 4\n");
	buf_fini(&b);
	metrics_freep(&m);
}

static void the_process_is_described(void **state)
{
	struct metrics *m = make();
	struct buf b;
	const char *t = text_of(m, &b);
	static const char *const names[] = {"process_cpu_seconds_total",
					    "process_max_fds",
					    "process_open_fds",
					    "process_resident_memory_bytes",
					    "process_start_time_seconds",
					    "process_virtual_memory_bytes",
					    "process_virtual_memory_max_bytes",
					    "process_network_receive_bytes_total",
					    "process_network_transmit_bytes_total"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char line[128];
		double v = -1;

		snprintf(line, sizeof(line), "\n%s ", names[i]);
		const char *at = strstr(t, line);

		assert_non_null(at);
		assert_int_equal(sscanf(at + strlen(line), "%lf", &v), 1);
		assert_true(v >= 0);
		if (strstr(names[i], "resident") || strstr(names[i], "start_time"))
			assert_true(v > 1000);
	}
	buf_fini(&b);
	metrics_freep(&m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(families_are_sorted_and_empty_ones_left_out),
		T(histograms_are_cumulative_and_write_bounds_as_go_does),
		T(label_values_are_escaped_and_bounded_in_number_and_length),
		T(deltas_by_name_need_a_known_name_and_all_labels),
		T(the_process_is_described),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
