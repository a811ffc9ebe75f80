/* worker/convert/finish.c - after the layers: config, manifest, index, and the tag. */
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/classify.h"
#include "worker/convert/conv.h"
#include "worker/drivers/driver.h"
#include "worker/limits.h"
#include "worker/publish.h"
#include "worker/registry/registry.h"
#include "worker/resolve.h"

static void strip_content(struct descriptor *d)
{
	if (!d->extra) /* `data` and `urls` are the source blob's */
		return;
	json_del(d->extra, "data");
	json_del(d->extra, "urls");
}

/* A layer that ended as plain says so itself: the result of the task may be gone when someone asks.
 */
static void finish_layer(const struct part *p, size_t n, struct descriptor *d)
{
	strip_content(d);
	annotations_del(&d->annotations, ANN_PLAIN);
	for (size_t i = 0; i < n; i++)
		if (p->result[i].plain_reason[0] && digest_eq(&p->done[i].digest, &d->digest))
			annotations_set(&d->annotations, ANN_PLAIN, p->result[i].plain_reason);
}

/* An event names tag and digest, a person the tag alone: what the result says of its source is the
 * same. */
static const char *source_name(const struct conv *c, char text[IMAGEREF_TEXT])
{
	struct imageref ref = c->job->source;

	if (ref.tag[0])
		memset(&ref.digest, 0, sizeof(ref.digest));
	return imageref_text(&ref, text);
}

static void annotate(struct conv *c, const struct column *k, struct annotations *a,
		     const struct digest *source)
{
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT], format[32];

	annotations_set(a, ANN_SOURCE_DIGEST, digest_text(source, dtext));
	annotations_set(a, ANN_SOURCE_REFERENCE, source_name(c, text));
	annotations_set(a, ANN_FORMAT, target_format(k->target, format));
	annotations_set(a, ANN_OPTIONS, k->options);
	annotations_set(a, ANN_GENERATION, "1");
}

static bool is_oci(const char *media_type)
{
	return str_starts(media_type, "application/vnd.oci.");
}

static int finish_config(struct conv *c, struct part *p, struct err *e)
{
	struct buf b = BUF_INIT(LIMIT_CONFIG);
	struct manifest *m = &p->manifest;
	int r = imageconfig_write(&p->config, &b, e);

	if (r == 0) {
		digest_of(&m->config.digest, DIGEST_SHA256, b.data, b.len);
		m->config.size = b.len;
		strip_content(&m->config);
		r = blob_push(c->registry, c->job->source.repository, b.data, b.len,
			      &m->config.digest, e);
		if (r < 0)
			err_wrap(e, "push the config");
	}
	buf_fini(&b);
	return r;
}

static int finish_part(struct conv *c, struct column *k, size_t i, struct err *e)
{
	struct resolved_image *im = &c->source.image[i];
	struct part *p = &k->part[i];
	struct manifest *m = &p->manifest;
	bool alone = c->source.kind == KIND_IMAGE || (c->source.n == 1 && !k->drv->index_of_one);
	const struct digest *from = alone ? &c->source.body.digest : &im->from.digest;
	char text[IMAGEREF_TEXT];
	const struct driver_source where = {
		.reference = source_name(c, text), .digest = from, .manifest = &im->from};

	/* a copy: parse of our own writing keeps every member */
	buf_reset(&p->manifest_text);
	if (manifest_write(&im->manifest, &p->manifest_text, e) < 0 ||
	    manifest_parse(m, p->manifest_text.data, p->manifest_text.len, e) < 0)
		return err_wrap(e, "copy the manifest");
	imageconfig_copy(&p->config, &im->config);
	if (k->drv->finish(p->im, p->done, p->result, im->manifest.n_layers, m, &p->config, e) < 0)
		return -1;
	if (k->drv->mark)
		k->drv->mark(k->target, &where, m);
	annotate(c, k, &m->annotations, from);
	for (size_t l = 0; l < m->n_layers; l++)
		finish_layer(p, im->manifest.n_layers, &m->layers[l]);
	if (finish_config(c, p, e) < 0)
		return -1;
	buf_reset(&p->manifest_text);
	if (manifest_write(m, &p->manifest_text, e) < 0)
		return err_wrap(e, "write the manifest");
	/* Its place in an index: everything of the source's entry but what names the bytes. */
	descriptor_copy(&p->out, &im->from);
	str_copy(p->out.media_type, sizeof(p->out.media_type), m->media_type);
	digest_of(&p->out.digest, DIGEST_SHA256, p->manifest_text.data, p->manifest_text.len);
	p->out.size = p->manifest_text.len;
	strip_content(&p->out);
	k->result->size += m->config.size;
	for (size_t l = 0; l < m->n_layers; l++)
		k->result->size += m->layers[l].size;
	return 0;
}

static int copy_index(struct index *to, const struct index *from, struct err *e)
{
	struct buf b = BUF_INIT(16u << 20);
	int r = index_write(from, &b, e);

	if (r == 0)
		r = index_parse(to, b.data, b.len, e);
	buf_fini(&b);
	return r;
}

static int plain_index(struct conv *c, struct column *k, struct index *x, struct err *e)
{
	if (copy_index(x, &c->source.index, e) < 0)
		return err_wrap(e, "copy the index");
	for (size_t i = 0; i < x->n; i++)
		descriptor_fini(&x->manifests[i]);
	x->n = 0;
	for (size_t i = 0; i < c->source.n; i++) {
		descriptor_copy(index_add(x), &k->part[i].out);
		if (is_oci(k->part[i].out.media_type))
			str_copy(x->media_type, sizeof(x->media_type), MT_OCI_INDEX);
	}
	return 0;
}

/* 1: an index is the result, 0: the one manifest is. */
static int make_index(struct conv *c, struct column *k, struct index *x, struct err *e)
{
	scoped_free struct index_child *child = mem_array(c->source.n, sizeof(*child));
	bool from_index = c->source.kind == KIND_INDEX;

	for (size_t i = 0; i < c->source.n; i++)
		child[i] = (struct index_child){.from = &c->source.image[i].from,
						.src = &c->source.image[i].manifest,
						.cfg = &c->source.image[i].config,
						.done = &k->part[i].out};
	if (k->drv->index) {
		int r = k->drv->index(k->target, from_index ? &c->source.index : NULL, child,
				      c->source.n, &c->store, &k->push, x, e);

		if (r != 0)
			return r;
	}
	if (!from_index || (c->source.n == 1 && !k->drv->index_of_one))
		return 0;
	return plain_index(c, k, x, e) < 0 ? -1 : 1;
}

int column_finish(struct conv *c, struct column *k, struct err *e)
{
	struct index x;
	int r = 0;

	k->result->size = 0;
	for (size_t i = 0; i < k->result->n_layers; i++)
		k->result->plain_layers += k->result->layers[i].plain[0] != '\0';
	for (size_t i = 0; i < c->source.n && r == 0; i++)
		r = finish_part(c, k, i, e);
	if (r < 0)
		return -1;
	index_init(&x);
	r = make_index(c, k, &x, e);
	if (r > 0) {
		annotate(c, k, &x.annotations, &c->source.body.digest);
		r = index_write(&x, &k->index_text, e);
		str_copy(k->index_type, sizeof(k->index_type),
			 x.media_type[0] ? x.media_type : MT_OCI_INDEX);
	}
	index_fini(&x);
	return r;
}

int column_publish(struct conv *c, struct column *k, struct err *e)
{
	bool index = k->index_text.len > 0;
	size_t n = c->source.n + k->push.n, at = 0;
	scoped_free struct publish_manifest *m = mem_array(n + 1, sizeof(*m));
	struct publish_manifest top;
	struct publish_answer a = {0};
	char replaced[DIGEST_TEXT];
	struct publish p = {.registry = c->registry,
			    .ops = c->job->publish ? c->job->publish : &publish_always,
			    .source = &c->job->source,
			    .source_digest = &c->source.body.digest,
			    .target = &k->result->ref,
			    .children = m,
			    .top = &top,
			    .pinned = c->job->pinned,
			    .must_publish = c->job->must_publish,
			    .stop = c->job->stop};

	for (size_t i = 0; i < k->push.n; i++) {
		m[at] = (struct publish_manifest){.media_type = k->push.m[i].media_type,
						  .data = k->push.m[i].data,
						  .n = k->push.m[i].n};
		digest_of(&m[at].digest, DIGEST_SHA256, m[at].data, m[at].n);
		at++;
	}
	for (size_t i = 0; i < c->source.n; i++)
		m[at++] = (struct publish_manifest){.media_type = k->part[i].out.media_type,
						    .data = k->part[i].manifest_text.data,
						    .n = k->part[i].manifest_text.len,
						    .digest = k->part[i].out.digest};
	top = m[at - 1];
	p.n_children = index ? at : at - 1;
	if (index) {
		top = (struct publish_manifest){.media_type = k->index_type,
						.data = k->index_text.data,
						.n = k->index_text.len};
		digest_of(&top.digest, DIGEST_SHA256, top.data, top.n);
	}
	if (publish_target(&p, &a, e) < 0)
		return -1;
	if (digest_is_set(&a.now))
		c->result->moved_to = a.now;
	if (a.as != AS_PUBLISHED) {
		column_end(k, TARGET_SKIPPED, a.reason);
		return 0;
	}
	k->result->digest = top.digest;
	if (digest_eq(&k->result->digest, &k->result->replaced))
		memset(&k->result->replaced, 0, sizeof(k->result->replaced));
	else if (digest_is_set(&k->result->replaced))
		conv_warn(c, "target tag moved", "replaced",
			  digest_text(&k->result->replaced, replaced));
	column_end(k, TARGET_PUBLISHED, NULL);
	return 0;
}
