/* common/fault.c - see fault.h. */
#include "common/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/env.h"
#include "common/err.h"

static const struct {
	const char *name, *what;
} fault_points[] = {
	{"api.before_enqueue", "API server: a request was validated, nothing is in Redis"},
	{"api.after_enqueue", "API server: the task is in Redis, nothing was answered"},
	{"pool.flip", "worker: one byte of compressed output is flipped"},
	{"publish.before_put", "worker: publishing was granted, the tag was not PUT"},
	{"publish.after_put", "worker: the tag was PUT, the task is not finished"},
	{"publish.lock", "publish: how long a target's lock is held without an answer (ms=)"},
	{"publish.takeover", "publish: when who took a lock over looks at the target again (ms=)"},
	{"layer.before_commit",
	 "worker: a blob is complete and checked, the committing PUT was not sent"},
	{"backend.before_commit",
	 "worker: a blob is whole under its temporary name in a backend, not yet under its own"},
	{"backend.copy_in_parts", "worker: a bucket's object is copied as those over 5 GiB are"},
	{"supervisor.after_claim", "supervisor: a task was claimed, its process not started"},
	{"supervisor.before_finish",
	 "supervisor: a task process gave its result, Redis does not know"},
	{"supervisor.after_finish", "supervisor: Redis has the result, nothing else was done"},
	{"task.start", "task process: the start packet was read"},
	{"task.convert", "task process: before the first layer"},
};

void fault_list(FILE *f)
{
	for (size_t i = 0; i < sizeof(fault_points) / sizeof(*fault_points); i++)
		fprintf(f, "%-26s %s\n", fault_points[i].name, fault_points[i].what);
}

#ifdef ACCEL_FAULTS
#define MAX_RULES 16

static struct rule {
	char name[40];
	unsigned at, seen; /* at 0: every time */
	char action[40];
} rules[MAX_RULES];
static size_t n_rules;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ACCEL_FAULT=name[@n]:action,... */
static void load(void)
{
	const char *p = env_get("ACCEL_FAULT");

	while (p && *p && n_rules < MAX_RULES) {
		size_t n = strcspn(p, ",");
		char one[100];
		char *colon, *at;

		snprintf(one, sizeof(one), "%.*s", (int)n, p);
		p += n + (p[n] == ',');
		colon = strchr(one, ':');
		if (!colon)
			continue;
		*colon = '\0';
		at = strchr(one, '@');
		if (at)
			*at++ = '\0';
		rules[n_rules].at = at ? (unsigned)atoi(at) : 0;
		snprintf(rules[n_rules].name, sizeof(rules->name), "%.39s", one);
		snprintf(rules[n_rules].action, sizeof(rules->action), "%.39s", colon + 1);
		n_rules++;
	}
}

static struct rule *due(const char *name)
{
	struct rule *found = NULL;

	pthread_once(&once, load);
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_rules; i++)
		if (strcmp(rules[i].name, name) == 0 &&
		    (++rules[i].seen == rules[i].at || rules[i].at == 0))
			found = &rules[i];
	pthread_mutex_unlock(&lock);
	return found;
}

bool fault_armed(const char *name)
{
	return due(name) != NULL;
}

uint64_t fault_ms(const char *name, uint64_t ms)
{
	struct rule *r = due(name);

	return r && strncmp(r->action, "ms=", 3) == 0 ? strtoull(r->action + 3, NULL, 10) : ms;
}

static void delay(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&t, &t) != 0)
		;
}

int fault_hit(const char *name, struct err *e)
{
	struct rule *r = due(name);

	if (!r)
		return 0;
	if (strcmp(r->action, "kill") == 0)
		raise(SIGKILL);
	else if (strcmp(r->action, "stop") == 0)
		raise(SIGSTOP); /* to this very thread: it goes no step further before it stops */
	else if (strcmp(r->action, "exit") == 0)
		_exit(1);
	else if (strncmp(r->action, "delay=", 6) == 0)
		delay(atol(r->action + 6));
	else if (strncmp(r->action, "err=", 4) == 0) {
		char slug[32];

		snprintf(slug, sizeof(slug), "%.31s", r->action + 4);
		for (char *c = slug; *c; c++)
			*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
		return err_set(e, err_code_of(slug), "fault point %s", name);
	}
	return 0;
}
#endif
