/* worker/pool.c - see pool.h.
 *
 * One mutex guards the queue, the free lists and the `done` marks.  A thread takes the oldest
 * batch, works on it without the lock, marks it and wakes the one writer that may wait for it.
 * Threads never wait for a writer, and a writer waits only for its own batches: so everything that
 * was submitted gets done, whatever else stands still. */
#include "worker/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/rafs/blake3.h"

#define THREAD_STACK (256u << 10)
#define SHARED_MAX 16u

struct pool {
	struct pool_opts opts;
	size_t out_cap;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct batch *first, **last;  /* the queue */
	struct batch *shared, *spare; /* free ones; spare: owned buffers whose writer is gone */
	bool stop;
	pthread_t *threads;
	uint32_t running;
};

/* What a buffer of n bytes in at most BATCH_SEGMENTS pieces may need when encoded. */
static size_t output_bytes(size_t n)
{
	size_t most = n, piece = 0;

	for (int enc = ENCODE_RAW; enc <= ENCODE_LZ4; enc++) {
		struct encode_as as = {.encoding = enc, .checksum = 1};
		size_t all = encode_bound(&as, n), one = encode_bound(&as, 1);

		most = all > most ? all : most;
		piece = one > piece ? one : piece;
	}
	return most + BATCH_SEGMENTS * piece;
}

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	munmap(b->map, b->map_n);
	pthread_cond_destroy(&b->cond);
	free(b->seg);
	free(b->err);
	free(b);
}

static struct batch *batch_new(const struct pool *p, struct err *e)
{
	size_t in_n = (p->opts.buffer_bytes + 4095) & ~(size_t)4095, n = in_n + p->out_cap;
	/* Counted by RLIMIT_AS now, so that a task that gets its buffers keeps them; in memory as
	 * far as they are used: output is mostly a third of its input. */
	void *map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct batch *b;

	if (map == MAP_FAILED) {
		err_errno(e, errno, "cannot get a buffer of %zu bytes for the compressors", n);
		return NULL;
	}
	b = mem_zalloc(sizeof(*b));
	b->map = map;
	b->map_n = n;
	b->in = map;
	b->out = b->in + in_n;
	b->out_cap = p->out_cap;
	b->seg = mem_array(BATCH_SEGMENTS, sizeof(*b->seg));
	b->err = mem_zalloc(sizeof(*b->err));
	pthread_cond_init(&b->cond, NULL);
	return b;
}

static void hash_segment(const struct batch *b, struct segment *s, struct hasher *h)
{
	const uint8_t *p = b->in + s->at + s->hash_from;
	struct digest d;

	if (s->hash == HASH_SHA256) {
		hasher_update(h, p, s->hash_n);
		hasher_final(h, &d);
		memcpy(s->sum, d.bytes, sizeof(s->sum));
	} else if (s->hash == HASH_BLAKE3) {
		blake3_hash(s->sum, p, s->hash_n);
	}
}

static int encode_segment(const struct pool *p, struct batch *b, struct segment *s,
			  struct encoder *x, size_t *used, struct err *e)
{
	const uint8_t *in = b->in + s->at;
	uint8_t *out = b->out + *used;
	size_t n;

	if (b->out_cap - *used < encode_bound(&b->as, s->n))
		return err_set(e, ERR_BUG,
			       "a batch of %zu pieces does not fit its buffer of %zu bytes", b->n,
			       b->out_cap);
	if (encode(x, &b->as, in, s->n, out, b->out_cap - *used, &n, e) < 0)
		return -1;
	if (FAULT_ARMED("pool.flip"))
		out[n / 2] ^= 0x10;
	if (b->raw_if_larger && n >= s->n) {
		s->raw = true;
		s->stored = s->n;
		return 0;
	}
	if (p->opts.verify && encode_verify(x, &b->as, in, s->n, out, n, e) < 0)
		return err_wrap(e, "a compressed piece does not unpack to its input");
	s->out_at = (uint32_t)*used;
	s->stored = (uint32_t)n;
	*used += n;
	return 0;
}

static int run_batch(const struct pool *p, struct batch *b, struct encoder *x, struct hasher *h,
		     struct err *e)
{
	size_t used = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct segment *s = &b->seg[i];

		hash_segment(b, s, h);
		s->stored = s->n;
		s->raw =
			b->as.encoding == ENCODE_RAW || (s->hash != HASH_NONE && b->known &&
							 b->known(b->known_arg, s->sum, s->hash_n));
		if (!s->literal && !s->raw && encode_segment(p, b, s, x, &used, e) < 0)
			return -1;
	}
	return 0;
}

static struct batch *next_batch(struct pool *p)
{
	struct batch *b;

	pthread_mutex_lock(&p->lock);
	while (!p->first && !p->stop)
		pthread_cond_wait(&p->work, &p->lock);
	b = p->first;
	if (b) {
		p->first = b->next;
		if (!p->first)
			p->last = &p->first;
	}
	pthread_mutex_unlock(&p->lock);
	return b; /* NULL: stopped, and nothing is left */
}

static void *compressor(void *arg)
{
	struct pool *p = arg;
	scoped(encoder_freep) struct encoder *x = encoder_new();
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	struct batch *b;

	while ((b = next_batch(p))) {
		bool ok = run_batch(p, b, x, h, b->err) == 0;

		pthread_mutex_lock(&p->lock);
		b->failed = ok ? NULL : b->err;
		b->done = true;
		pthread_cond_signal(&b->cond);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static int start_threads(struct pool *p, struct err *e)
{
	pthread_attr_t attr;
	int rc = 0;

	p->threads = mem_array(p->opts.threads, sizeof(*p->threads));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	while (p->running < p->opts.threads && rc == 0) {
		rc = pthread_create(&p->threads[p->running], &attr, compressor, p);
		p->running += rc == 0;
	}
	pthread_attr_destroy(&attr);
	return rc == 0 ? 0 : err_errno(e, rc, "cannot start a compressor thread");
}

/* With each writer's own, which is being filled: one for each thread, and for every four threads
 * one that waits, as a piece that takes long keeps those behind it from being written. */
uint32_t pool_shared(uint32_t threads)
{
	return threads < SHARED_MAX * 4 / 5 ? threads + threads / 4 : SHARED_MAX;
}

int pool_open(struct pool **to, const struct pool_opts *o, struct err *e)
{
	scoped(pool_freep) struct pool *p = mem_zalloc(sizeof(*p));

	assert(o->threads > 0 && o->buffer_bytes > 0 && o->shared < BATCHES_MAX);
	p->opts = *o;
	if (!p->opts.shared)
		p->opts.shared = pool_shared(o->threads);
	p->out_cap = output_bytes(o->buffer_bytes);
	p->last = &p->first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	if (o->buffer_bytes > UINT32_MAX / 2)
		return err_set(e, ERR_LIMIT, "compressor buffers of %zu bytes are too large",
			       o->buffer_bytes);
	for (uint32_t i = 0; i < p->opts.shared; i++) {
		struct batch *b = batch_new(p, e);

		if (!b)
			return -1;
		b->next = p->shared;
		p->shared = b;
	}
	if (start_threads(p, e) < 0)
		return -1;
	*to = take_ptr(p);
	return 0;
}

static void free_list(struct batch *b)
{
	while (b) {
		struct batch *next = b->next;

		batch_free(b);
		b = next;
	}
}

void pool_freep(struct pool **pp)
{
	struct pool *p = take_ptr(*pp);

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (uint32_t i = 0; i < p->running; i++)
		pthread_join(p->threads[i], NULL);
	free_list(p->shared);
	free_list(p->spare);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p->threads);
	free(p);
}

size_t pool_buffer_bytes(const struct pool *p)
{
	return p->opts.buffer_bytes;
}

bool pool_verifies(const struct pool *p)
{
	return p->opts.verify;
}

static struct batch *take(struct pool *p, struct batch **list)
{
	struct batch *b;

	pthread_mutex_lock(&p->lock);
	b = *list;
	if (b)
		*list = b->next;
	pthread_mutex_unlock(&p->lock);
	if (b)
		b->next = NULL;
	return b;
}

struct batch *pool_own(struct pool *p, struct err *e)
{
	struct batch *b = take(p, &p->spare);

	if (!b && (b = batch_new(p, e)))
		b->owned = true;
	return b;
}

struct batch *pool_try(struct pool *p)
{
	return take(p, &p->shared);
}

void pool_give(struct pool *p, struct batch *b)
{
	struct batch **list = b->owned ? &p->spare : &p->shared;

	pthread_mutex_lock(&p->lock);
	b->next = *list;
	*list = b;
	pthread_mutex_unlock(&p->lock);
}

void pool_submit(struct pool *p, struct batch *b)
{
	b->done = false;
	b->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->last = b;
	p->last = &b->next;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

bool pool_done(struct pool *p, struct batch *b)
{
	bool done;

	pthread_mutex_lock(&p->lock);
	done = b->done;
	pthread_mutex_unlock(&p->lock);
	return done;
}

void pool_wait(struct pool *p, struct batch *b)
{
	pthread_mutex_lock(&p->lock);
	while (!b->done)
		pthread_cond_wait(&b->cond, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* ---- how many CPUs */

/* "max 100000" or "150000 100000" (cgroup v2, cpu.max): CPUs, rounded up; 0: no bound, or no such
 * file. */
static uint32_t quota_of(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned long long quota, period;
	uint32_t cpus = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%llu %llu", &quota, &period) == 2 && quota && period)
		cpus = (uint32_t)((quota + period - 1) / period);
	fclose(f);
	return cpus;
}

/* The tightest bound of our cgroup and those above it. */
static uint32_t cgroup_cpus(void)
{
	char line[512], path[640], *dir = NULL;
	FILE *f = fopen("/proc/self/cgroup", "re");
	uint32_t least = 0;

	while (f && !dir && fgets(line, sizeof(line), f))
		if (!strncmp(line, "0::/", 4))
			dir = line + 3;
	if (f)
		fclose(f);
	if (!dir)
		return 0;
	dir[strcspn(dir, "\n")] = 0;
	for (;;) {
		uint32_t here;
		char *slash;

		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", dir);
		here = quota_of(path);
		if (here && (!least || here < least))
			least = here;
		if (!(slash = strrchr(dir, '/')))
			return least;
		*slash = 0;
	}
}

uint32_t pool_cpus(void)
{
	cpu_set_t set;
	uint32_t n = 1, quota = cgroup_cpus();

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		n = (uint32_t)CPU_COUNT(&set);
	return quota && quota < n ? quota : n;
}
