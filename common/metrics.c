/* common/metrics.c - see metrics.h.
 *
 * A family keeps its children in the order they came and in a small hash table; a scrape sorts
 * families once (the tables are given in any order) and writes children as they came. */
#include "common/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"

enum { CHILDREN = 512, BUCKETS = 128, LABELS = 8, VALUE_MAX = 128 };

struct child {
	char *value[LABELS];
	double v; /* counter, gauge; histogram: the sum */
	uint64_t count;
	uint64_t *bucket;
	struct child *next; /* of its hash bucket */
};

struct family {
	const struct metric_desc *d;
	char *name;
	size_t n_labels, n_buckets, n, cap;
	struct child **child;
	struct child *hash[BUCKETS];
};

struct metrics {
	struct family *f;
	size_t n;
	size_t *order; /* of names */
};

static char *with_namespace(const char *name, const char *namespace)
{
	const char *at = strstr(name, "%s");

	if (!at)
		return mem_strdup(name);
	return mem_printf("%.*s%s%s", (int)(at - name), name, namespace, at + 2);
}

struct metrics *metrics_new(const struct metric_desc *d, size_t n, const char *namespace)
{
	struct metrics *m = mem_zalloc(sizeof(*m));

	m->n = n;
	m->f = mem_array(n, sizeof(*m->f));
	m->order = mem_array(n, sizeof(*m->order));
	for (size_t i = 0; i < n; i++) {
		struct family *f = &m->f[i];
		size_t k = i;

		f->d = &d[i];
		f->name = with_namespace(d[i].name, namespace);
		while (d[i].labels && f->n_labels < LABELS && d[i].labels[f->n_labels])
			f->n_labels++;
		while (d[i].buckets && d[i].buckets[f->n_buckets] > 0)
			f->n_buckets++;
		for (; k > 0 && strcmp(m->f[m->order[k - 1]].name, f->name) > 0; k--)
			m->order[k] = m->order[k - 1];
		m->order[k] = i;
	}
	return m;
}

static void child_free(struct child *c)
{
	for (size_t i = 0; i < LABELS; i++)
		free(c->value[i]);
	free(c->bucket);
	free(c);
}

void metrics_freep(struct metrics **mp)
{
	struct metrics *m = *mp;

	if (!m)
		return;
	for (size_t i = 0; i < m->n; i++) {
		for (size_t k = 0; k < m->f[i].n; k++)
			child_free(m->f[i].child[k]);
		free(m->f[i].child);
		free(m->f[i].name);
	}
	free(m->f);
	free(m->order);
	free(m);
	*mp = NULL;
}

static uint32_t hash_of(const struct family *f, const char *const *values)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < f->n_labels; i++) {
		for (const char *s = values[i]; *s; s++)
			h = (h ^ (unsigned char)*s) * 16777619u;
		h = (h ^ 0xff) * 16777619u;
	}
	return h % BUCKETS;
}

static struct child *find(const struct family *f, const char *const *values, uint32_t hash)
{
	for (struct child *c = f->hash[hash]; c; c = c->next) {
		size_t i = 0;

		while (i < f->n_labels && !strcmp(c->value[i], values[i]))
			i++;
		if (i == f->n_labels)
			return c;
	}
	return NULL;
}

static struct child *child_new(struct family *f, const char *const *values, uint32_t hash)
{
	struct child *c = mem_zalloc(sizeof(*c));

	for (size_t i = 0; i < f->n_labels; i++)
		c->value[i] = mem_strdup(values[i]);
	c->bucket = mem_array(f->n_buckets + 1, sizeof(*c->bucket));
	c->next = f->hash[hash];
	f->hash[hash] = c;
	mem_grow(f->child, f->n, f->cap);
	f->child[f->n++] = c;
	return c;
}

/* Where the values go that came after the family was full. */
static struct child *other_child(struct family *f)
{
	static const char *const other[LABELS] = {"other", "other", "other", "other",
						  "other", "other", "other", "other"};
	struct child *c = find(f, other, hash_of(f, other));

	return c ? c : child_new(f, other, hash_of(f, other));
}

static struct child *child_of(struct family *f, const char *const *values)
{
	char cut[LABELS][VALUE_MAX];
	const char *clean[LABELS];
	struct child *c;
	uint32_t hash;

	c = find(f, values, hash_of(f, values)); /* nearly always */
	if (c)
		return c;
	for (size_t i = 0; i < f->n_labels; i++) {
		str_copy(cut[i], sizeof(cut[i]), values[i]);
		clean[i] = cut[i];
	}
	hash = hash_of(f, clean);
	c = find(f, clean, hash);
	if (c)
		return c;
	return f->n < CHILDREN ? child_new(f, clean, hash) : other_child(f);
}

void metrics_add(struct metrics *m, size_t id, const char *const *values, double v)
{
	child_of(&m->f[id], values)->v += v;
}

void metrics_set(struct metrics *m, size_t id, const char *const *values, double v)
{
	child_of(&m->f[id], values)->v = v;
}

void metrics_observe(struct metrics *m, size_t id, const char *const *values, double v)
{
	struct family *f = &m->f[id];
	struct child *c = child_of(f, values);
	size_t i = 0;

	while (i < f->n_buckets && v > f->d->buckets[i])
		i++;
	c->bucket[i]++;
	c->count++;
	c->v += v;
}

int metrics_add_named(struct metrics *m, const char *name, const char *const *values, double v,
		      struct err *e)
{
	for (size_t i = 0; i < m->n; i++) {
		struct family *f = &m->f[i];

		if (strcmp(f->name, name) != 0)
			continue;
		for (size_t k = 0; k < f->n_labels; k++)
			if (!values || !values[k])
				return err_set(e, ERR_INVALID, "metric %s has %zu labels, got %zu",
					       name, f->n_labels, k);
		if (f->d->kind == METRIC_HISTOGRAM)
			metrics_observe(m, i, values, v);
		else
			metrics_add(m, i, values, v);
		return 0;
	}
	return err_set(e, ERR_INVALID, "no metric is named %s", name);
}

/* ---- text */

static int write_value(struct buf *to, double v, struct err *e)
{
	char text[40];

	if (isinf(v))
		return buf_add_str(to, v > 0 ? "+Inf\n" : "-Inf\n", e);
	/* The shortest that reads back the same, as Go's 'g' with precision -1. */
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	if (v == floor(v) && fabs(v) < 1e15)
		snprintf(text, sizeof(text), "%.0f", v);
	return buf_addf(to, e, "%s\n", text);
}

static int write_labels(const struct family *f, const struct child *c, const char *le,
			struct buf *to, struct err *e)
{
	bool first = true;

	if (!f->n_labels && !le)
		return buf_add_char(to, ' ', e);
	if (buf_add_char(to, '{', e) < 0)
		return -1;
	for (size_t i = 0; i < f->n_labels; i++) {
		if (buf_addf(to, e, "%s%s=\"", first ? "" : ",", f->d->labels[i]) < 0)
			return -1;
		first = false;
		for (const char *s = c->value[i]; *s; s++) {
			const char *text = *s == '\\' ? "\\\\" : *s == '"' ? "\\\"" : NULL;

			if (*s == '\n')
				text = "\\n";
			if ((text ? buf_add_str(to, text, e) : buf_add_char(to, *s, e)) < 0)
				return -1;
		}
		if (buf_add_char(to, '"', e) < 0)
			return -1;
	}
	if (le && buf_addf(to, e, "%sle=\"%s\"", first ? "" : ",", le) < 0)
		return -1;
	return buf_add_str(to, "} ", e);
}

static int write_histogram(const struct family *f, const struct child *c, struct buf *to,
			   struct err *e)
{
	uint64_t sum = 0;
	char le[40];

	for (size_t i = 0; i <= f->n_buckets; i++) {
		sum += c->bucket[i];
		if (i == f->n_buckets)
			strcpy(le, "+Inf");
		else if (f->d->buckets[i] >= 1e6) /* as client_golang writes them: 1.048576e+06 */
			snprintf(le, sizeof(le), "%.9e", f->d->buckets[i]);
		else
			snprintf(le, sizeof(le), "%.9g", f->d->buckets[i]);
		if (strchr(le, 'e')) { /* no trailing zeros before the exponent */
			char *exp = strchr(le, 'e'), *z = exp;

			while (z[-1] == '0')
				z--;
			if (z[-1] == '.')
				z--;
			memmove(z, exp, strlen(exp) + 1);
		}
		if (buf_addf(to, e, "%s_bucket", f->name) < 0 ||
		    write_labels(f, c, le, to, e) < 0 ||
		    buf_addf(to, e, "%llu\n", (unsigned long long)sum) < 0)
			return -1;
	}
	if (buf_addf(to, e, "%s_sum", f->name) < 0 || write_labels(f, c, NULL, to, e) < 0 ||
	    write_value(to, c->v, e) < 0)
		return -1;
	if (buf_addf(to, e, "%s_count", f->name) < 0 || write_labels(f, c, NULL, to, e) < 0)
		return -1;
	return buf_addf(to, e, "%llu\n", (unsigned long long)c->count);
}

static int write_head(const char *name, const char *help, const char *kind, struct buf *to,
		      struct err *e)
{
	return buf_addf(to, e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static int write_family(const struct family *f, struct buf *to, struct err *e)
{
	static const char *const kinds[] = {"counter", "gauge", "histogram"};

	if (!f->n)
		return 0;
	if (write_head(f->name, f->d->help, kinds[f->d->kind], to, e) < 0)
		return -1;
	for (size_t i = 0; i < f->n; i++) {
		const struct child *c = f->child[i];

		if (f->d->kind == METRIC_HISTOGRAM) {
			if (write_histogram(f, c, to, e) < 0)
				return -1;
			continue;
		}
		if (buf_add_str(to, f->name, e) < 0 || write_labels(f, c, NULL, to, e) < 0 ||
		    write_value(to, c->v, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- the process, as client_golang's collector names it */

struct process {
	double cpu, threads, start, rss, vsz, vsz_max, open_fds, max_fds, net_in, net_out;
};

static bool read_file(const char *path, char *text, size_t n)
{
	FILE *f = fopen(path, "re");
	size_t got = f ? fread(text, 1, n - 1, f) : 0;

	text[got] = 0;
	if (f)
		fclose(f);
	return got > 0;
}

/* The IpExt lines: names, then values in the same order. */
static void read_network(struct process *p)
{
	static char text[16384];
	char *names, *values, *name, *value, *n, *v;

	if (!read_file("/proc/self/net/netstat", text, sizeof(text)) ||
	    !(names = strstr(text, "IpExt:")) || !(values = strstr(names + 6, "IpExt:")))
		return;
	values[-1] = 0;
	name = strtok_r(names, " \n", &n);
	value = strtok_r(values, " \n", &v);
	for (; name && value; name = strtok_r(NULL, " \n", &n), value = strtok_r(NULL, " \n", &v)) {
		if (!strcmp(name, "InOctets"))
			p->net_in = strtod(value, NULL);
		else if (!strcmp(name, "OutOctets"))
			p->net_out = strtod(value, NULL);
	}
}

static void read_process(struct process *p)
{
	char stat[1024], line[4096], *at;
	unsigned long utime = 0, stime = 0, vsz = 0;
	unsigned long long start = 0;
	long threads = 0, rss = 0, hz = sysconf(_SC_CLK_TCK);
	struct rlimit lim = {0};
	struct rusage use = {0};

	getrusage(RUSAGE_SELF, &use);
	p->cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
		 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
	if (read_file("/proc/self/stat", stat, sizeof(stat)) && (at = strrchr(stat, ')')))
		sscanf(at + 1,
		       " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %ld "
		       "%*d %llu %lu %ld",
		       &utime, &stime, &threads, &start, &vsz, &rss);
	p->threads = (double)threads;
	p->vsz = (double)vsz;
	p->rss = (double)rss * (double)sysconf(_SC_PAGESIZE);
	if (read_file("/proc/stat", line, sizeof(line)) && (at = strstr(line, "\nbtime ")))
		p->start = strtod(at + 7, NULL) + (double)start / (double)hz;
	else
		p->start = (double)start / (double)hz;
	getrlimit(RLIMIT_AS, &lim);
	p->vsz_max = lim.rlim_cur == RLIM_INFINITY ? 18446744073709551615.0 : (double)lim.rlim_cur;
	read_network(p);
	getrlimit(RLIMIT_NOFILE, &lim);
	p->max_fds = (double)lim.rlim_cur;
	for (int fd = 0, misses = 0; misses < 256 && fd < 65536; fd++) {
		bool open = fcntl(fd, F_GETFD) >= 0;

		misses = open ? 0 : misses + 1;
		p->open_fds += open;
	}
}

static int write_process(struct buf *to, struct err *e)
{
	struct process p = {0};

	read_process(&p);
	const struct {
		const char *name, *kind, *help;
		double v;
	} row[] = {
		{"process_cpu_seconds_total", "counter",
		 "Total user and system CPU time spent in seconds.", p.cpu},
		{"process_max_fds", "gauge", "Maximum number of open file descriptors.", p.max_fds},
		{"process_network_receive_bytes_total", "counter",
		 "Number of bytes received by the process over the network.", p.net_in},
		{"process_network_transmit_bytes_total", "counter",
		 "Number of bytes sent by the process over the network.", p.net_out},
		{"process_open_fds", "gauge", "Number of open file descriptors.", p.open_fds},
		{"process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", p.rss},
		{"process_start_time_seconds", "gauge",
		 "Start time of the process since unix epoch in seconds.", p.start},
		{"process_threads", "gauge", "Number of threads of the process.", p.threads},
		{"process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", p.vsz},
		{"process_virtual_memory_max_bytes", "gauge",
		 "Maximum amount of virtual memory available in bytes.", p.vsz_max},
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		if (write_head(row[i].name, row[i].help, row[i].kind, to, e) < 0 ||
		    buf_addf(to, e, "%s ", row[i].name) < 0 || write_value(to, row[i].v, e) < 0)
			return -1;
	return 0;
}

int metrics_write(const struct metrics *m, struct buf *to, struct err *e)
{
	bool process = false;

	for (size_t i = 0; i < m->n; i++) {
		const struct family *f = &m->f[m->order[i]];

		if (!process && strcmp(f->name, "process_") > 0) {
			process = true;
			if (write_process(to, e) < 0)
				return -1;
		}
		if (write_family(f, to, e) < 0)
			return -1;
	}
	return process ? 0 : write_process(to, e);
}
