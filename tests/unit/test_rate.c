#include <stdio.h>

#include "api-server/rate.h"
#include "common/clock.h"
#include "unit.h"

static uint64_t now_ns = 1000000000;

static uint64_t now(void)
{
	return now_ns;
}

static int64_t wall(void)
{
	return (int64_t)now_ns;
}

static const struct clock_source still = {now, now, wall};

static void a_peer_gets_its_rate_and_a_second_of_burst(void **state)
{
	struct rate *r = rate_new();
	int taken = 0;

	clock_replace(&still);
	for (int i = 0; i < 50; i++)
		taken += rate_take(r, "10.0.0.1:1000", 10);
	assert_int_equal(taken, 10);
	now_ns += 500000000;
	for (int i = 0; i < 50; i++)
		taken += rate_take(r, "10.0.0.1:2000", 10); /* another port: the same peer */
	assert_int_equal(taken, 15);
	assert_true(rate_take(r, "10.0.0.2:1000", 10));
	assert_true(rate_take(r, "[::1]:1000", 10));
	clock_replace(NULL);
	rate_freep(&r);
}

static void zero_is_no_limit(void **state)
{
	struct rate *r = rate_new();

	for (int i = 0; i < 10000; i++)
		assert_true(rate_take(r, "10.0.0.1:1000", 0));
	rate_freep(&r);
}

static void many_addresses_need_no_more_memory_and_a_busy_one_stays_limited(void **state)
{
	struct rate *r = rate_new();
	char peer[40];
	int taken = 0;

	clock_replace(&still);
	for (int i = 0; i < 1000; i++) {
		snprintf(peer, sizeof(peer), "10.1.%d.%d:1", i / 256, i % 256);
		rate_take(r, peer, 5);
		now_ns +=
			1000000; /* a millisecond: the busy one is never the one used longest ago */
		taken += rate_take(r, "10.0.0.1:1", 5);
	}
	assert_true(taken <= 11); /* the burst, and a second of its rate */
	clock_replace(NULL);
	rate_freep(&r);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(a_peer_gets_its_rate_and_a_second_of_burst),
		T(zero_is_no_limit),
		T(many_addresses_need_no_more_memory_and_a_busy_one_stays_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
