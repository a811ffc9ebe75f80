/* worker/convert/targets.c - before the layers: the source, what the targets' tags name already,
 * the drivers' images. */
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/target_hash.h"
#include "common/target_tag.h"
#include "worker/backend/backend.h"
#include "worker/classify.h"
#include "worker/convert/conv.h"
#include "worker/dictionary.h"
#include "worker/drivers/driver.h"
#include "worker/layer.h"
#include "worker/publish.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

int conv_read_source(struct conv *c, struct err *e)
{
	const struct convert_job *j = c->job;
	const struct publish_ops *ops = j->publish ? j->publish : &publish_always;
	const struct resolve_opts o = {.platforms = j->platforms};
	char text[DIGEST_TEXT];
	struct digest now;
	int same, r;

	r = resolve(&c->source, c->registry, &j->source, &o, e);
	if (c->source.body.data)
		c->result->source_digest = c->source.body.digest;
	if (r < 0)
		return -1;
	c->result->source_size = c->source.size;
	c->result->platforms = (uint32_t)c->source.n;
	c->result->dropped_platforms = c->source.dropped;
	if (!j->source.tag[0] || !digest_is_set(&j->source.digest) || c->source.tag_agrees)
		return 0;
	/* A pinned tag that has moved on: its targets belong to the newer image. */
	same = publish_source_unchanged(c->registry, &j->source, &c->source.body.digest, &now, e);
	if (same != 0 || j->must_publish)
		return same < 0 ? -1 : 0;
	if (!digest_is_set(&now))
		return err_class(e, ERR_NOTFOUND, CLASS_SKIP, "source tag deleted");
	c->result->moved_to = now;
	/* Nothing else may announce the new digest: it is enqueued before this task ends. */
	if (!j->pinned && ops->moved(ops->arg, &now, e) < 0)
		return -1;
	return err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "superseded by %s",
			 digest_text(&now, text));
}

/* Sizes of a result that stays, from its manifests. */
static uint64_t existing_size(struct conv *c, const struct imageref *ref)
{
	const struct resolve_opts o = {.any = true};
	struct resolved r = {0};
	struct err e;
	uint64_t size = resolve(&r, c->registry, ref, &o, &e) == 0 ? r.size : 0;

	resolved_fini(&r);
	return size;
}

static int read_annotations(const struct manifest_body *b, struct annotations *a)
{
	struct manifest m;
	struct index x;
	struct err e;

	if (manifest_parse(&m, b->data, b->n, &e) == 0) {
		annotations_copy(a, &m.annotations);
		manifest_fini(&m);
		return 0;
	}
	if (index_parse(&x, b->data, b->n, &e) < 0)
		return -1;
	annotations_copy(a, &x.annotations);
	index_fini(&x);
	return 0;
}

/* The target's tag as it is now: this very result, another of ours, someone else's, or nothing. */
static int look_at_target(struct conv *c, struct column *k, struct err *e)
{
	struct target_result *t = k->result;
	struct annotations a = {0};
	struct manifest_body b;
	struct err why = {0};
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT];
	bool ours, same;

	if (registry_get_manifest(c->registry, &t->ref, &b, &why) < 0) {
		/* Harbor hides what is not scanned yet, our own result too: then it is made anew.
		 */
		if (why.code == ERR_NOTFOUND ||
		    (why.status == 412 && (k->target->upstream_form || k->target->overwrite)))
			return 0;
		*e = why;
		return err_wrap(e, "look at %s", imageref_text(&t->ref, text));
	}
	ours = read_annotations(&b, &a) == 0 && annotations_get(&a, ANN_SOURCE_DIGEST);
	same = ours &&
	       str_eq(annotations_get(&a, ANN_SOURCE_DIGEST),
		      digest_text(&c->source.body.digest, dtext)) &&
	       str_eq(annotations_get(&a, ANN_OPTIONS), k->options);
	t->replaced = b.digest;
	manifest_body_fini(&b);
	annotations_fini(&a);
	if (same) {
		t->digest = t->replaced;
		memset(&t->replaced, 0, sizeof(t->replaced));
		t->size = existing_size(c, &t->ref);
		column_end(k, TARGET_UNCHANGED, NULL);
		return 0;
	}
	if (ours || k->target->upstream_form || k->target->overwrite)
		return 0;
	return err_set(e, ERR_INVALID,
		       "%s exists and was not made by acceld; set overwrite: true to replace it",
		       imageref_text(&t->ref, text));
}

/* From here on the target names its dictionary by digest: what is made depends on it, so identity
 * and options say which it was. */
static int pin_target(struct conv *c, struct column *k, struct err *e)
{
	const struct target *t = k->target;
	const char *pinned;

	if (t->driver != DRIVER_NYDUS || !t->nydus.chunk_dict_ref)
		return 0;
	pinned = conv_pin_dictionary(c, t->nydus.chunk_dict_ref, e);
	if (!pinned)
		return -1;
	target_copy(&k->pinned, t);
	k->target = &k->pinned;
	/* Not by hand: a copy of a rule's target is sealed. */
	return target_option(&k->pinned, "chunk_dict_ref", pinned, NULL, e);
}

int column_start(struct conv *c, struct column *k, struct err *e)
{
	const struct target *t;

	if (target_ref(k->target, &c->job->source, &k->result->ref, e) < 0 ||
	    pin_target(c, k, e) < 0)
		return -1;
	t = k->target;
	if (!k->drv)
		return err_set(e, ERR_UNSUPPORTED, "driver %s is not built in",
			       driver_name(t->driver));
	if (k->drv->identity(t, k->identity, sizeof(k->identity)) < 0)
		return err_set(e, ERR_BUG, "driver %s: its options are too long", k->drv->name);
	target_options_hash(t, c->job->platforms ? c->job->platforms : "", k->options);
	if (backend_wanted(t) &&
	    (backend_prepare(t, e) < 0 || backend_open(&k->backend, c->job->http, t, e) < 0))
		return -1;
	return look_at_target(c, k, e);
}

static int open_part(struct conv *c, struct column *k, size_t i, struct err *e)
{
	struct resolved_image *im = &c->source.image[i];
	struct part *p = &k->part[i];
	size_t n = im->manifest.n_layers;

	p->done = mem_array(n ? n : 1, sizeof(*p->done));
	p->result = mem_array(n ? n : 1, sizeof(*p->result));
	buf_init(&p->manifest_text, 16u << 20);
	return k->drv->image_open(&p->im, k->target, &im->manifest, &im->config, &c->store, e);
}

void conv_open_columns(struct conv *c)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		struct column *k = &c->column[i];
		struct err e = {0};

		if (!k->active)
			continue;
		k->part = mem_array(c->source.n, sizeof(*k->part));
		for (size_t m = 0; m < c->source.n && k->active; m++)
			if (open_part(c, k, m, &e) < 0)
				column_fail(k, &e);
	}
}

void part_fini(struct column *k, struct part *p, size_t n_layers)
{
	if (p->im)
		k->drv->image_close(p->im);
	for (size_t i = 0; p->done && i < n_layers; i++) {
		descriptor_fini(&p->done[i]);
		layer_result_fini(&p->result[i]);
	}
	free(p->done);
	free(p->result);
	manifest_fini(&p->manifest);
	imageconfig_fini(&p->config);
	buf_fini(&p->manifest_text);
	descriptor_fini(&p->out);
}
