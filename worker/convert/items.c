/* worker/convert/items.c - distinct source layers, and what a converted one means for each place
 * where it stands. */
#include <stdlib.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backend/backend.h"
#include "worker/blobat.h"
#include "worker/convert/conv.h"
#include "worker/drivers/driver.h"
#include "worker/layer.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

static struct item *item_of(struct conv *c, const struct descriptor *from)
{
	for (size_t i = 0; i < c->n_items; i++)
		if (digest_eq(&c->item[i].from->digest, &from->digest))
			return &c->item[i];
	c->item[c->n_items].from = from;
	c->item[c->n_items].progress = (struct layer_progress){
		.from = from->digest, .in_total = from->size, .index = (uint32_t)c->n_items};
	return &c->item[c->n_items++];
}

static int larger_first(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->from->size != y->from->size)
		return x->from->size < y->from->size ? 1 : -1;
	return x->progress.index < y->progress.index ? -1 : 1;
}

void conv_list_items(struct conv *c)
{
	size_t most = 0;

	for (size_t m = 0; m < c->source.n; m++)
		most += c->source.image[m].manifest.n_layers;
	c->item = mem_array(most ? most : 1, sizeof(*c->item));
	for (size_t m = 0; m < c->source.n; m++) {
		struct manifest *man = &c->source.image[m].manifest;

		for (size_t l = 0; l < man->n_layers; l++) {
			struct item *it = item_of(c, &man->layers[l]);

			mem_grow(it->place, it->n_places, it->cap_places);
			it->place[it->n_places++] =
				(struct place){.image = (uint32_t)m, .layer = (uint32_t)l};
		}
	}
	for (size_t i = 0; i < c->n_items; i++)
		c->progress.in_total += c->item[i].from->size;
	c->result->layers = c->progress.layers_total = (uint32_t)c->n_items;
	/* The longest work first: the last layer to end decides the time. */
	qsort(c->item, c->n_items, sizeof(*c->item), larger_first);
}

struct layer_in layer_in(struct conv *c, const struct place *p, enum codec codec)
{
	struct resolved_image *im = &c->source.image[p->image];

	return (struct layer_in){.index = p->layer,
				 .from = &im->manifest.layers[p->layer],
				 .codec = codec,
				 .diff_id = &im->config.diff_ids[p->layer]};
}

void result_copy(struct layer_result *to, const struct layer_result *from)
{
	*to = *from;
	to->annotations = (struct annotations){0};
	annotations_copy(&to->annotations, &from->annotations);
}

/* The same layer in another image of this or of an equal target: as from a cache. */
static int take_over(struct conv *c, struct column *k, const struct place *at,
		     const struct layer_in *in, const struct descriptor *stored,
		     const struct layer_result *result, struct err *e)
{
	struct part *p = &k->part[at->image];
	struct blobat_registry blob;
	struct blobat_backend other;
	int r;

	result_copy(&p->result[at->layer], result);
	descriptor_copy(&p->done[at->layer], stored);
	blobat_registry_init(&blob, c->registry, c->job->source.repository, stored);
	blob.ahead = true;
	blobat_backend_init(&other, k->backend, &stored->digest, stored->size);
	r = k->drv->layer_cached(p->im, in, stored, &p->result[at->layer],
				 k->backend ? &other.at : &blob.at, e);
	blobat_registry_fini(&blob);
	blobat_backend_fini(&other);
	if (r == 0) { /* the driver may have given the annotations another face */
		annotations_copy(&p->done[at->layer].annotations,
				 &p->result[at->layer].annotations);
	}
	return r;
}

/* All places of an item in one column, once the first is there (from: where, NULL: nowhere yet). */
int item_fill_places(struct conv *c, struct column *k, const struct item *it, enum codec codec,
		     const struct place *from, const struct descriptor *stored,
		     const struct layer_result *result, struct err *e)
{
	for (size_t i = 0; i < it->n_places; i++) {
		const struct place *at = &it->place[i], *first = NULL;
		const struct layer_in in = layer_in(c, at, codec);

		if (from && from->image == at->image && from->layer == at->layer)
			continue;
		if (from && from->image == at->image)
			first = from;
		for (size_t b = 0; b < i && !first; b++)
			if (it->place[b].image == at->image)
				first = &it->place[b];
		if (!first) {
			if (take_over(c, k, at, &in, stored, result, e) < 0)
				return -1;
			continue;
		}
		if (k->drv->layer_same(k->part[at->image].im, &in, first->layer, e) < 0)
			return -1;
		result_copy(&k->part[at->image].result[at->layer],
			    &k->part[at->image].result[first->layer]);
		descriptor_copy(&k->part[at->image].done[at->layer],
				&k->part[at->image].done[first->layer]);
	}
	return 0;
}

static struct layer_figures *figure(struct conv *c, struct column *k, const struct place *p)
{
	size_t at = p->layer;

	for (uint32_t m = 0; m < p->image; m++)
		at += c->source.image[m].manifest.n_layers;
	return &k->result->layers[at];
}

void item_note_figures(struct conv *c, struct column *k, const struct item *it, uint64_t ms,
		       bool cached, bool shared)
{
	for (size_t i = 0; i < it->n_places; i++) {
		const struct place *p = &it->place[i];
		struct layer_figures *f = figure(c, k, p);
		const struct layer_result *r = &k->part[p->image].result[p->layer];
		const struct descriptor *d = &k->part[p->image].done[p->layer];

		platform_text(&c->source.image[p->image].config.platform, f->platform);
		f->index = p->layer;
		f->from = it->from->digest;
		f->to = d->digest;
		f->in_bytes = it->from->size;
		f->out_bytes = d->size;
		f->unpacked = r->unpacked;
		f->ms = i == 0 && !shared ? ms : 0;
		f->cached = cached;
		f->shared = shared || i > 0;
		str_copy(f->plain, sizeof(f->plain), r->plain_reason);
	}
}
