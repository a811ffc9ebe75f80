/* worker/convert/convert.c - see convert.h.
 *
 * One table has it all: targets (columns) times images, that is platforms (rows); where they meet
 * is a `part`, with the driver's image and what became of each layer (conv.h).  Here is the order
 * of things; each step is a file of its own. */
#include "worker/convert/convert.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/fault.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backend/backend.h"
#include "worker/cache.h"
#include "worker/classify.h"
#include "worker/convert/conv.h"
#include "worker/dictionary.h"
#include "worker/drivers/driver.h"
#include "worker/limits.h"
#include "worker/pool.h"
#include "worker/publish.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

#define OPEN_LAYERS 4

static struct limits_cost cost_of(const struct column *k)
{
	struct drv_cost d = k->drv->cost(k->target);

	return (struct limits_cost){.entry = d.entry, .chunk = d.chunk, .chunk_size = d.chunk_size};
}

static int open_pool(struct conv *c, struct err *e)
{
	struct pool_opts o = {.threads = c->job->threads ? c->job->threads : pool_cpus(),
			      .buffer_bytes = 4u << 20,
			      .verify = c->job->verify == VERIFY_FULL};
	size_t targets = conv_active(c), layers = c->job->layers ? c->job->layers : OPEN_LAYERS;
	size_t n_cost = 0;
	uint64_t base;

	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		size_t n = k->active && k->drv->largest ? k->drv->largest(k->target) : 0;

		if (n > o.buffer_bytes)
			o.buffer_bytes = n;
	}
	if (layers > c->n_items)
		layers = c->n_items;
	base = (uint64_t)o.buffer_bytes * (layers * targets + pool_shared(o.threads));
	for (size_t i = 0; i < c->n_columns; i++)
		if (c->column[i].active && c->column[i].backend)
			base += layers * backend_held_bytes(c->column[i].backend);
	c->cost = mem_array(targets ? targets : 1, sizeof(*c->cost));
	for (size_t i = 0; i < c->n_columns; i++)
		if (c->column[i].active)
			c->cost[n_cost++] = cost_of(&c->column[i]);
	c->limits = mem_array(c->source.n, sizeof(*c->limits));
	for (size_t i = 0; i < c->source.n; i++)
		limits_init(&c->limits[i], c->job->max_image_size, c->job->memory, base, c->cost,
			    n_cost);
	return pool_open(&c->pool, &o, e);
}

static int convert_layers(struct conv *c, struct err *e)
{
	if (open_pool(c, e) < 0)
		return -1;
	conv_open_columns(c);
	if (FAULT("task.convert", e) < 0)
		return -1;
	return conv_active(c) ? conv_run_layers(c, e) : 0;
}

static void init_columns(struct conv *c)
{
	const struct convert_job *j = c->job;

	c->column = mem_array(j->n_targets ? j->n_targets : 1, sizeof(*c->column));
	c->result->targets =
		mem_array(j->n_targets ? j->n_targets : 1, sizeof(*c->result->targets));
	c->n_columns = c->result->n_targets = j->n_targets;
	for (size_t i = 0; i < j->n_targets; i++) {
		struct column *k = &c->column[i];

		k->target = &j->targets[i];
		k->drv = driver_of(k->target);
		k->result = &c->result->targets[i];
		k->result->driver = driver_name(k->target->driver);
		target_format(k->target, k->result->format);
		k->active = true;
		pthread_mutex_init(&k->lock, NULL);
		buf_init(&k->index_text, 16u << 20);
	}
}

static void start_columns(struct conv *c)
{
	size_t n = 0;

	for (size_t m = 0; m < c->source.n; m++)
		n += c->source.image[m].manifest.n_layers;
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (column_start(c, k, &e) < 0)
			column_fail(k, &e);
		if (k->active) {
			k->result->n_layers = n;
			k->result->layers = mem_array(n ? n : 1, sizeof(*k->result->layers));
		}
	}
}

static void finish_columns(struct conv *c, uint64_t since)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (!k->active)
			continue;
		if (conv_stopped(c, &e) < 0 || column_finish(c, k, &e) < 0)
			column_fail(k, &e);
		else
			conv_step(c, STEP_CONVERTED, &k->result->ref, since);
	}
}

static void publish_columns(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		uint64_t since = clock_mono_ns();
		struct err e = {0};

		if (!k->active)
			continue;
		conv_step(c, STEP_PUSHING, &k->result->ref, 0);
		if (conv_stopped(c, &e) < 0 || column_publish(c, k, &e) < 0)
			column_fail(k, &e);
		else if (k->result->outcome == TARGET_PUBLISHED)
			conv_step(c, STEP_PUSHED, &k->result->ref, since);
	}
}

static int run(struct conv *c, struct err *e)
{
	const struct convert_job *j = c->job;
	const struct source_settings *s = settings_source(j->settings, j->source.host);
	const struct registry_opts ro = {
		.request_id = j->request_id, .on_pause = j->on_pause, .arg = j->pause_arg};
	uint64_t since = clock_mono_ns();

	if (!s)
		return err_class(e, ERR_DENIED, CLASS_WAIT, "no provider.source for %s here",
				 j->source.host);
	if (registry_open(&c->registry, j->http, s, &ro, e) < 0)
		return -1;
	if (classify_reference(&j->settings->rules, &j->source, e) < 0)
		return -1;
	conv_open_caches(c);
	conv_step(c, STEP_PULLING, NULL, 0);
	if (conv_read_source(c, e) < 0)
		return -1;
	conv_list_items(c);
	start_columns(c);
	c->result->pull_ms = (clock_mono_ns() - since) / 1000000;
	conv_step(c, STEP_PULLED, NULL, since);
	if (!conv_active(c))
		return 0;
	since = clock_mono_ns();
	conv_step(c, STEP_CONVERTING, NULL, 0);
	if (convert_layers(c, e) < 0)
		return -1;
	finish_columns(c, since);
	c->result->convert_ms = (clock_mono_ns() - since) / 1000000;
	since = clock_mono_ns();
	conv_save_caches(c);
	publish_columns(c);
	c->result->push_ms = (clock_mono_ns() - since) / 1000000;
	return 0;
}

static void conv_fini(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		for (size_t m = 0; k->part && m < c->source.n; m++)
			part_fini(k, &k->part[m], c->source.image[m].manifest.n_layers);
		free(k->part);
		backend_freep(&k->backend);
		buf_fini(&k->index_text);
		for (size_t m = 0; m < k->push.n; m++)
			free(k->push.m[m].data);
		free(k->push.m);
		if (k->target == &k->pinned)
			target_fini(&k->pinned);
		pthread_mutex_destroy(&k->lock);
	}
	free(c->column);
	for (size_t i = 0; i < c->n_items; i++)
		free(c->item[i].place);
	free(c->item);
	free(c->limits);
	free(c->cost);
	for (size_t i = 0; i < c->n_tagged; i++)
		cache_freep(&c->tagged[i].cache);
	free(c->tagged);
	pool_freep(&c->pool);
	blob_store_fini(&c->store);
	for (size_t i = 0; i < c->n_dictionaries; i++)
		dictionary_freep(&c->dictionary[i].of);
	free(c->dictionary);
	registry_freep(&c->registry);
	resolved_fini(&c->source);
	pthread_mutex_destroy(&c->window);
	pthread_mutex_destroy(&c->lock);
}

/* Wait before retry before final; every failed target is named. */
static int sum_up(struct convert_result *r, struct err *e)
{
	static const int rank[] = {
		[CLASS_FINAL] = 0, [CLASS_RETRY] = 1, [CLASS_WAIT] = 2, [CLASS_SKIP] = -1};
	const struct target_result *worst = NULL;
	size_t failed = 0;

	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target_result *t = &r->targets[i];

		if (t->outcome != TARGET_FAILED)
			continue;
		failed++;
		if (!worst || rank[t->class] > rank[worst->class])
			worst = t;
	}
	if (!failed)
		return 0;
	err_class(e, worst->code, worst->class, "%s", worst->reason);
	e->retry_after_ms = worst->retry_after_ms;
	if (r->n_targets > 1)
		err_wrap(e, "%s", worst->ref.tag[0] ? worst->ref.tag : worst->driver);
	for (size_t i = 0; i < r->n_targets && failed > 1; i++)
		if (&r->targets[i] != worst && r->targets[i].outcome == TARGET_FAILED) {
			size_t n = strlen(e->text);

			snprintf(e->text + n, sizeof(e->text) - n, "; %s: %s",
				 r->targets[i].ref.tag, r->targets[i].reason);
		}
	return -1;
}

static int end(struct conv *c, int rc, struct err *e)
{
	struct convert_result *r = c->result;

	r->cached_layers = c->cached;
	r->in_bytes = c->progress.in_bytes;
	r->out_bytes = c->progress.out_bytes;
	if (rc == 0)
		return sum_up(r, e);
	for (size_t i = 0; i < c->n_columns; i++) {
		if (!c->column[i].active)
			continue;
		if (e->class == CLASS_SKIP)
			column_end(&c->column[i], TARGET_SKIPPED, e->text);
		else
			column_fail(&c->column[i], e);
	}
	if (e->class != CLASS_SKIP)
		return -1;
	r->skipped = true;
	str_copy(r->reason, sizeof(r->reason), e->text);
	err_clear(e);
	return 0;
}

int convert_image(const struct convert_job *job, struct convert_result *r, struct err *e)
{
	struct conv c = {.job = job, .result = r};
	int rc;

	pthread_mutex_init(&c.lock, NULL);
	pthread_mutex_init(&c.window, NULL);
	conv_store_init(&c.store);
	init_columns(&c);
	/* A person may ask for an image that no rule fits; the task says so. */
	rc = job->n_targets ? run(&c, e)
			    : err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "no rule fits this image");
	/* A stop shows up as whatever it interrupted. */
	if (rc < 0 && job->stop && atomic_load(job->stop))
		err_set(e, (enum err_code)atomic_load(job->stop), "cancelled");
	rc = end(&c, rc, e);
	/* All targets skipped for one reason: so is the image. */
	if (rc == 0 && !r->skipped && r->n_targets) {
		bool all = true;

		for (size_t i = 0; i < r->n_targets; i++)
			all &= r->targets[i].outcome == TARGET_SKIPPED;
		if (all) {
			r->skipped = true;
			str_copy(r->reason, sizeof(r->reason), r->targets[0].reason);
		}
	}
	conv_fini(&c);
	return rc;
}
