/* common/clock.c - see clock.h. */
#include "common/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/err.h"
#include "common/str.h"

#define SECOND 1000000000ll

static const struct clock_source *replaced; /* tests only */

static uint64_t now_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void clock_replace(const struct clock_source *c)
{
	replaced = c;
}

uint64_t clock_mono_ns(void)
{
	return replaced ? replaced->mono_ns() : now_ns(CLOCK_MONOTONIC);
}

uint64_t clock_mono_ms(void)
{
	return clock_mono_ns() / 1000000;
}

uint64_t clock_boot_ms(void)
{
	return (replaced ? replaced->boot_ns() : now_ns(CLOCK_BOOTTIME)) / 1000000;
}

int64_t clock_wall_ns(void)
{
	return replaced ? replaced->wall_ns() : (int64_t)now_ns(CLOCK_REALTIME);
}

int64_t clock_wall_ms(void)
{
	return clock_wall_ns() / 1000000;
}

/* v in n digits, with zeros in front. */
static void put_digits(char *to, int n, uint64_t v)
{
	for (; n > 0; v /= 10)
		to[--n] = (char)('0' + v % 10);
}

/* Days since 1970-01-01 -> year, month, day, in the proleptic Gregorian calendar: counted in eras
 * of 400 years that begin on 1 March, so that the leap day is a year's last. */
static void civil(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
	unsigned doe = (unsigned)(z - era * 146097);
	unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned from_march = (5 * doy + 2) / 153;

	*day = doy - (153 * from_march + 2) / 5 + 1;
	*month = from_march < 10 ? from_march + 3 : from_march - 9;
	*year = era * 400 + yoe + (*month <= 2);
}

/* By hand: each log line has one, and gmtime_r and printf spend 7,000 instructions on it. */
void clock_rfc3339(char text[CLOCK_TEXT], int64_t wall_ns, int digits)
{
	int64_t s = wall_ns / SECOND, ns = wall_ns % SECOND, days, year;
	unsigned month, day, of_day;
	size_t n = 29;

	if (ns < 0) {
		ns += SECOND;
		s--;
	}
	days = (s >= 0 ? s : s - 86399) / 86400;
	of_day = (unsigned)(s - days * 86400);
	civil(days, &year, &month, &day);
	memcpy(text, "0000-00-00T00:00:00.", 20);
	put_digits(text, 4, (uint64_t)year);
	put_digits(text + 5, 2, month);
	put_digits(text + 8, 2, day);
	put_digits(text + 11, 2, of_day / 3600);
	put_digits(text + 14, 2, of_day / 60 % 60);
	put_digits(text + 17, 2, of_day % 60);
	put_digits(text + 20, 9, (uint64_t)ns);
	if (digits >= 0)
		n = digits ? 20 + (size_t)digits : 19;
	else
		while (text[n - 1] == '0' || text[n - 1] == '.')
			if (text[--n] == '.')
				break;
	text[n] = 'Z';
	text[n + 1] = 0;
}

static bool digits_at(const char *p, int n, int *v)
{
	*v = 0;
	for (int i = 0; i < n; i++) {
		if (!isdigit((unsigned char)p[i]))
			return false;
		*v = *v * 10 + (p[i] - '0');
	}
	return true;
}

/* "Z" or "+hh:mm" up to the end -> seconds east of UTC. */
static bool zone(const char *p, int *east)
{
	int h, m;

	*east = 0;
	if ((*p == 'Z' || *p == 'z') && p[1] == '\0')
		return true;
	if ((*p != '+' && *p != '-') || !digits_at(p + 1, 2, &h) || p[3] != ':' ||
	    !digits_at(p + 4, 2, &m) || p[6] != '\0' || h > 23 || m > 59)
		return false;
	*east = (h * 60 + m) * 60 * (*p == '-' ? -1 : 1);
	return true;
}

int clock_parse_rfc3339(const char *text, int64_t *wall_ns, struct err *e)
{
	struct tm tm = {0};
	int year, mon, east;
	int64_t ns = 0, unit = SECOND / 10;
	const char *p = text + 19;

	if (strlen(text) < 20 || !digits_at(text, 4, &year) || text[4] != '-' ||
	    !digits_at(text + 5, 2, &mon) || text[7] != '-' ||
	    !digits_at(text + 8, 2, &tm.tm_mday) || (text[10] != 'T' && text[10] != 't') ||
	    !digits_at(text + 11, 2, &tm.tm_hour) || text[13] != ':' ||
	    !digits_at(text + 14, 2, &tm.tm_min) || text[16] != ':' ||
	    !digits_at(text + 17, 2, &tm.tm_sec) || mon < 1 || mon > 12 || tm.tm_mday < 1 ||
	    tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return err_set(e, ERR_INVALID, "'%.40s' is no RFC 3339 time", text);
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p); p++, unit /= 10)
			ns += (*p - '0') * unit;
	if (!zone(p, &east))
		return err_set(e, ERR_INVALID, "'%.40s' is no RFC 3339 time", text);
	tm.tm_year = year - 1900;
	tm.tm_mon = mon - 1;
	if (year < 1678 ||
	    year > 2261) { /* outside of int64 nanoseconds: Go's zero time among them */
		*wall_ns = year < 1970 ? INT64_MIN : INT64_MAX;
		return 0;
	}
	*wall_ns = ((int64_t)timegm(&tm) - east) * SECOND + ns;
	return 0;
}

/* value / unit with the fraction's trailing zeros cut. */
static int with_fraction(char *to, size_t n, uint64_t value, uint64_t unit, int digits,
			 const char *suffix)
{
	char frac[16];
	int len;

	snprintf(frac, sizeof(frac), ".%0*llu", digits, (unsigned long long)(value % unit));
	len = (int)strlen(frac);
	while (len > 1 && frac[len - 1] == '0')
		len--;
	frac[len == 1 ? 0 : len] = '\0';
	return snprintf(to, n, "%llu%s%s", (unsigned long long)(value / unit), frac, suffix);
}

void clock_go_duration(char text[CLOCK_TEXT], uint64_t ns)
{
	uint64_t minutes = ns / (60 * SECOND), hours = minutes / 60;
	int n = 0;

	if (ns == 0)
		snprintf(text, CLOCK_TEXT, "0s");
	else if (ns < 1000)
		snprintf(text, CLOCK_TEXT, "%lluns", (unsigned long long)ns);
	else if (ns < 1000000)
		with_fraction(text, CLOCK_TEXT, ns, 1000, 3, "\302\265s");
	else if (ns < (uint64_t)SECOND)
		with_fraction(text, CLOCK_TEXT, ns, 1000000, 6, "ms");
	if (ns < (uint64_t)SECOND)
		return;
	if (hours)
		n += snprintf(text, CLOCK_TEXT, "%lluh", (unsigned long long)hours);
	if (minutes)
		n += snprintf(text + n, CLOCK_TEXT - (size_t)n, "%llum",
			      (unsigned long long)(minutes % 60));
	with_fraction(text + n, CLOCK_TEXT - (size_t)n, ns % (60 * SECOND), SECOND, 9, "s");
}

int clock_retry_after(const char *text, uint64_t *ms)
{
	struct tm tm = {0};
	uint64_t seconds;
	const char *end;
	int64_t at;

	while (*text == ' ' || *text == '\t')
		text++;
	if (str_u64(text, &seconds, NULL) == 0) {
		*ms = seconds > 86400 ? 86400000 : seconds * 1000;
		return 0;
	}
	end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	if (!end || *end)
		return -1;
	at = (int64_t)timegm(&tm) * 1000 - clock_wall_ms();
	*ms = at > 0 ? (uint64_t)at : 0;
	return 0;
}
