/* worker/convert/layers.c - one source layer through all columns, and the threads that do it.
 *
 * Of targets whose blobs would be the same (equal driver identity) one converts, the others take
 * over. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/convert/conv.h"
#include "worker/drivers/driver.h"
#include "worker/layer.h"
#include "worker/limits.h"

#define OPEN_LAYERS 4
#define RENEW_MS 30000		 /* a lease lasts two minutes: common/queue/cache_lease.lua */
#define STACK_BYTES (512u << 10) /* ours need 256 KiB; libraries' drivers and sanitizers more */

struct work {
	struct conv *c;
	struct item *it;
	struct column **lead;
	size_t n_lead;
	uint64_t leased_ms;
};

/* So that nobody converts a large layer beside us. */
static void keep_leases(struct work *w)
{
	uint64_t now = clock_mono_ms();

	if (now - w->leased_ms < RENEW_MS)
		return;
	w->leased_ms = now;
	for (size_t i = 0; i < w->n_lead; i++)
		item_keep_lease(w->lead[i], w->it);
}

static void on_bytes(void *arg, uint64_t in, uint64_t out)
{
	struct work *w = arg;
	struct conv *c = w->c;
	struct layer_progress *p = &w->it->progress;
	struct err e;

	if (conv_stopped(c, &e) < 0)
		return;
	keep_leases(w);
	pthread_mutex_lock(&c->lock);
	if (in > p->in_bytes && in <= p->in_total) { /* later passes tell nothing new */
		c->progress.in_bytes += in - p->in_bytes;
		p->in_bytes = in;
	}
	if (out > p->out_bytes) {
		c->progress.out_bytes += out - p->out_bytes;
		p->out_bytes = out;
	}
	conv_tell_layer(c, w->it);
	pthread_mutex_unlock(&c->lock);
}

/* What out counted last may have come after the last byte in. */
static void on_done(struct work *w, const struct layer_target *t, size_t n)
{
	uint64_t out = 0;

	for (size_t i = 0; i < n; i++)
		out += t[i].out_bytes;
	pthread_mutex_lock(&w->c->lock);
	if (out > w->it->progress.out_bytes) {
		w->c->progress.out_bytes += out - w->it->progress.out_bytes;
		w->it->progress.out_bytes = out;
	}
	pthread_mutex_unlock(&w->c->lock);
}

static struct column *lead_of(struct conv *c, struct column *k, struct column **lead, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (lead[i]->drv == k->drv && strcmp(lead[i]->identity, k->identity) == 0)
			return lead[i];
	return NULL;
}

static void after_layer(struct conv *c, struct item *it, struct column *k, struct layer_target *t,
			enum codec codec, uint64_t ms)
{
	const struct place *at = &it->place[0];
	struct part *p = &k->part[at->image];
	struct err e = {0};

	if (!t->done) {
		item_to_cache(c, k, it, NULL, NULL);
		column_fail(k, &t->err);
		return;
	}
	p->done[at->layer] = t->to; /* taken over */
	p->result[at->layer] = t->result;
	t->to = (struct descriptor){0};
	t->result = (struct layer_result){0};
	if (item_fill_places(c, k, it, codec, at, &p->done[at->layer], &p->result[at->layer], &e) <
	    0) {
		item_to_cache(c, k, it, NULL, NULL);
		column_fail(k, &e);
		return;
	}
	item_note_figures(c, k, it, ms, false, false);
	item_to_cache(c, k, it, &p->done[at->layer], &p->result[at->layer]);
}

static int wrap_layer(struct conv *c, const struct item *it, struct err *e)
{
	const struct place *at = &it->place[0];
	char text[DIGEST_TEXT], platform[136] = "";

	if (c->source.n > 1)
		platform_text(&c->source.image[at->image].config.platform, platform);
	return err_wrap(e, "%s%slayer %u of %zu (%s)", platform, platform[0] ? ", " : "",
			at->layer + 1, c->source.image[at->image].manifest.n_layers,
			digest_short(&it->from->digest, text));
}

/* All places must agree on what the layer unpacks to. */
static int check_places(struct conv *c, const struct item *it, struct err *e)
{
	const struct layer_in first = layer_in(c, &it->place[0], CODEC_NONE);
	char one[DIGEST_TEXT], two[DIGEST_TEXT];

	for (size_t i = 1; i < it->n_places; i++) {
		const struct layer_in in = layer_in(c, &it->place[i], CODEC_NONE);

		if (!digest_eq(in.diff_id, first.diff_id))
			return err_set(e, ERR_CORRUPT,
				       "it stands twice with different diff_ids, %s and %s",
				       digest_text(first.diff_id, one),
				       digest_text(in.diff_id, two));
	}
	return 0;
}

static int convert_leads(struct conv *c, struct item *it, struct column **lead, size_t n,
			 struct err *e)
{
	const struct layer_io io = {
		.open = conv_open_source, .create = conv_create_target, .arg = c};
	scoped_free struct layer_target *t = mem_array(n, sizeof(*t));
	scoped_free struct limits **limits = mem_array(it->n_places, sizeof(struct limits *));
	struct work w = {.c = c, .it = it, .lead = lead, .n_lead = n, .leased_ms = clock_mono_ms()};
	struct layer_job j = {.io = &io,
			      .pool = c->pool,
			      .in = layer_in(c, &it->place[0], CODEC_NONE),
			      .target = t,
			      .n_targets = n,
			      .limits = limits,
			      .n_limits = it->n_places,
			      .max_out = c->limits[0].max_unpacked,
			      .window = &c->window,
			      .stop = &c->halt,
			      .on_bytes = on_bytes,
			      .arg = &w};
	uint64_t start = clock_mono_ms();
	int r;

	for (size_t i = 0; i < it->n_places; i++)
		limits[i] = &c->limits[it->place[i].image];
	for (size_t i = 0; i < n; i++)
		t[i] = (struct layer_target){.drv = lead[i]->drv,
					     .target = lead[i]->target,
					     .im = lead[i]->part[it->place[0].image].im};
	r = check_places(c, it, e);
	if (r == 0)
		r = layer_convert(&j, e);
	on_done(&w, t, n);
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && !t[i].done)
			wrap_layer(c, it, &t[i].err);
		if (r == 0)
			after_layer(c, it, lead[i], &t[i], j.in.codec, clock_mono_ms() - start);
		else
			item_to_cache(c, lead[i], it, NULL, NULL); /* gives the lease back */
		descriptor_fini(&t[i].to);
		layer_result_fini(&t[i].result);
	}
	return r < 0 ? wrap_layer(c, it, e) : 0;
}

/* Equal targets: their blobs are the lead's. */
static void follow(struct conv *c, struct item *it, struct column *k, struct column *lead)
{
	const struct place *at = &it->place[0];
	struct part *p = &lead->part[at->image];
	struct err e = {0};

	if (!column_active(lead)) {
		struct err why = {.code = lead->result->code,
				  .class = lead->result->class,
				  .retry_after_ms = lead->result->retry_after_ms};

		str_copy(why.text, sizeof(why.text), lead->result->reason);
		column_fail(k, &why);
		return;
	}
	if (item_fill_places(c, k, it, CODEC_NONE, NULL, &p->done[at->layer], &p->result[at->layer],
			     &e) < 0) {
		wrap_layer(c, it, &e);
		column_fail(k, &e);
		return;
	}
	item_note_figures(c, k, it, 0, false, true);
}

static const char *plain_note(struct conv *c, const struct item *it)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];

		if (column_active(k) && k->part)
			return k->part[it->place[0].image].result[it->place[0].layer].plain_reason;
	}
	return "";
}

static int by_identity(const void *a, const void *b)
{
	const struct column *x = *(struct column *const *)a, *y = *(struct column *const *)b;
	int order = strcmp(x->identity, y->identity);

	return order ? order : (x > y) - (x < y);
}

/* In the order of identities: two tasks whose rules name the same targets in another order would
 * each wait for the lease that the other has. */
static size_t in_order(struct conv *c, struct column **to)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_columns; i++)
		if (column_active(&c->column[i]))
			to[n++] = &c->column[i];
	qsort(to, n, sizeof(*to), by_identity);
	return n;
}

static int convert_item(struct conv *c, struct item *it, struct err *e)
{
	scoped_free struct column **all = mem_array(c->n_columns, sizeof(struct column *));
	scoped_free struct column **lead = mem_array(c->n_columns, sizeof(struct column *));
	scoped_free struct column **tail = mem_array(c->n_columns, sizeof(struct column *));
	size_t n = 0, n_tail = 0, cached = 0, n_all = in_order(c, all);

	conv_layer_state(c, it, LAYER_RUNNING, NULL);
	for (size_t i = 0; i < n_all; i++) {
		struct column *k = all[i];

		if (lead_of(c, k, lead, n)) {
			tail[n_tail++] = k;
		} else if (item_from_cache(c, k, it)) {
			item_note_figures(c, k, it, 0, true, false);
			cached++;
		} else {
			lead[n++] = k;
		}
	}
	if (n && convert_leads(c, it, lead, n, e) < 0) {
		conv_layer_state(c, it, LAYER_FAILED, e->text);
		return -1;
	}
	for (size_t i = 0; i < n_tail; i++)
		follow(c, it, tail[i], lead_of(c, tail[i], lead, n));
	if (!n && cached) {
		pthread_mutex_lock(&c->lock);
		c->cached++;
		pthread_mutex_unlock(&c->lock);
	}
	conv_layer_state(c, it, !n && cached ? LAYER_CACHED : LAYER_DONE, plain_note(c, it));
	return 0;
}

static void *layer_thread(void *arg)
{
	struct conv *c = arg;

	for (;;) {
		size_t i = atomic_fetch_add(&c->next_item, 1);
		struct err e = {0};

		if (i >= c->n_items || atomic_load(&c->halt))
			return NULL;
		if (conv_stopped(c, &e) < 0 || !conv_active(c) ||
		    convert_item(c, &c->item[i], &e) < 0) {
			if (e.code != ERR_OK)
				conv_fail_all(c, &e);
			return NULL;
		}
	}
}

int conv_run_layers(struct conv *c, struct err *e)
{
	size_t n = c->job->layers ? c->job->layers : OPEN_LAYERS, started = 0;
	pthread_t thread[64];
	pthread_attr_t attr;
	int rc = 0;

	if (n > c->n_items)
		n = c->n_items;
	if (n > sizeof(thread) / sizeof(*thread))
		n = sizeof(thread) / sizeof(*thread);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	while (started < n && rc == 0) {
		rc = pthread_create(&thread[started], &attr, layer_thread, c);
		started += rc == 0;
	}
	pthread_attr_destroy(&attr);
	for (size_t i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	if (rc && !started && n)
		return err_errno(e, rc, "start a thread");
	if (c->failed) {
		*e = c->err;
		return -1;
	}
	return 0;
}
