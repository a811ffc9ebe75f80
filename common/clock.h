/* common/clock.h - time: monotonic for durations, boot time (goes on during suspend) for leases,
 * wall time for people.  Tests put their own clock in place of the system's. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stddef.h>
#include <stdint.h>

struct err;

uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
uint64_t clock_boot_ms(void);
int64_t clock_wall_ns(void); /* since 1970 */
int64_t clock_wall_ms(void);

struct clock_source {
	uint64_t (*mono_ns)(void);
	uint64_t (*boot_ns)(void);
	int64_t (*wall_ns)(void);
};
void clock_replace(const struct clock_source *c); /* tests only; NULL: the system's again */

#define CLOCK_TEXT 40 /* enough for any text below, with its NUL */
/* "2026-11-24T03:19:30.511683706Z": RFC 3339 in UTC.  digits: 0 none, 3 or 9 always that many; -1:
 * as many of nine as are not trailing zeros (as Go's RFC3339Nano does). */
void clock_rfc3339(char text[CLOCK_TEXT], int64_t wall_ns, int digits);
int clock_parse_rfc3339(const char *text, int64_t *wall_ns, struct err *e);
/* As Go prints a Duration: "290.216683ms", "5.4s", "1m2.5s", "0s". */
void clock_go_duration(char text[CLOCK_TEXT], uint64_t ns);
/* RFC 9110 Retry-After: seconds or an HTTP date -> ms from now; -1 when it is neither. */
int clock_retry_after(const char *text, uint64_t *ms);

#endif
