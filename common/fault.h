/* common/fault.h - fault points: places where a test can make this process stop, die or fail.
 *
 * Nothing unless built with -DACCEL_FAULTS.
 * ACCEL_FAULT=name[@n]:kill|stop|exit|err=CODE|delay=MS[,...] acts when the point is passed for the
 * n-th time (default: every time).  name:ms=MS is for spans of time that a test cannot wait for.
 * Every name is listed in fault_points[] of fault.c, so that
 * `--list-faults` prints them all. */
#ifndef COMMON_FAULT_H
#define COMMON_FAULT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct err;

#ifdef ACCEL_FAULTS
int fault_hit(const char *name, struct err *e); /* -1 with *e filled for err=CODE */
bool fault_armed(const char *name); /* for points that change data: true when it must act now */
uint64_t fault_ms(const char *name, uint64_t ms); /* ms, or what ACCEL_FAULT says instead */
#define FAULT(name, e) fault_hit((name), (e))
#define FAULT_MS(name, ms) fault_ms((name), (ms))
#define FAULT_ARMED(name) fault_armed(name)
#else
static inline int fault_none(struct err *e)
{
	(void)e;
	return 0;
}
#define FAULT(name, e) fault_none(e)
#define FAULT_ARMED(name) false
#define FAULT_MS(name, ms) ((uint64_t)(ms))
#endif
void fault_list(FILE *f); /* one name a line, with what it is for */

#endif
