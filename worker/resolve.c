/* worker/resolve.c - see resolve.h. */
#include "worker/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/mem.h"
#include "common/platform.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target.h"
#include "worker/limits.h"

static void image_fini(struct resolved_image *im)
{
	descriptor_fini(&im->from);
	manifest_fini(&im->manifest);
	imageconfig_fini(&im->config);
}

void resolved_fini(struct resolved *r)
{
	manifest_body_fini(&r->body);
	index_fini(&r->index);
	for (size_t i = 0; i < r->n; i++)
		image_fini(&r->image[i]);
	free(r->image);
	memset(r, 0, sizeof(*r));
}

const char *platform_text(const struct platform *p, char text[136])
{
	if (!p->os[0] && !p->arch[0])
		text[0] = '\0';
	else
		snprintf(text, 136, "%s/%s%s%s", p->os, p->arch, p->variant[0] ? "/" : "",
			 p->variant);
	return text;
}

uint64_t resolved_image_size(const struct resolved_image *im)
{
	uint64_t size = im->manifest.config.size;

	for (size_t i = 0; i < im->manifest.n_layers; i++)
		size += im->manifest.layers[i].size;
	return size;
}

static int read_config(struct resolved_image *im, struct registry *reg, const char *repository,
		       bool any, struct err *e)
{
	struct buf b = BUF_INIT(LIMIT_CONFIG + 1);
	int r = -1;

	if (im->manifest.config.size > LIMIT_CONFIG)
		return err_set(e, ERR_LIMIT, "the config has %llu bytes, at most %u are taken",
			       (unsigned long long)im->manifest.config.size, LIMIT_CONFIG);
	if (blob_fetch(reg, repository, &im->manifest.config, LIMIT_CONFIG, &b, e) < 0)
		err_wrap(e, "read the config");
	else if (imageconfig_parse(&im->config, b.data, b.len, e) < 0)
		err_wrap(e, "read the config");
	else
		r = any ? 0 : classify_config(&im->manifest, &im->config, e);
	buf_fini(&b);
	return r;
}

/* One image manifest, from its bytes. */
static int read_image(struct resolved_image *im, const struct manifest_body *b,
		      struct registry *reg, const char *repository, bool any, struct err *e)
{
	if (manifest_parse(&im->manifest, b->data, b->n, e) < 0)
		return err_wrap(e, "read the manifest");
	if (!im->manifest.media_type[0])
		str_copy(im->manifest.media_type, sizeof(im->manifest.media_type),
			 b->media_type[0] ? b->media_type : MT_OCI_MANIFEST);
	if (!any && classify_manifest(&im->manifest, e) < 0)
		return -1;
	return read_config(im, reg, repository, any, e);
}

static void add(struct resolved *r, struct resolved_image *im)
{
	r->image = mem_resize(r->image, r->n + 1, sizeof(*r->image));
	r->image[r->n++] = *im;
	r->size += resolved_image_size(im);
}

static void drop(struct resolved *r, const char *why)
{
	if (!r->dropped++)
		str_copy(r->dropped_why, sizeof(r->dropped_why), why);
}

/* 1: read, 0: dropped, -1. */
static int read_child(struct resolved *r, const struct descriptor *d, struct registry *reg,
		      const struct imageref *ref, bool any, struct err *e)
{
	struct resolved_image im = {0};
	struct manifest_body body;
	struct imageref child = *ref;
	char text[DIGEST_TEXT], platform[136];
	int got;

	child.tag[0] = '\0';
	child.digest = d->digest;
	if (registry_get_manifest(reg, &child, &body, e) < 0)
		return err_wrap(e, "manifest %s (%s)", digest_short(&d->digest, text),
				platform_text(&d->platform, platform));
	descriptor_copy(&im.from, d);
	got = read_image(&im, &body, reg, ref->repository, any, e);
	manifest_body_fini(&body);
	if (got == 0) {
		add(r, &im);
		return 1;
	}
	image_fini(&im);
	if (e->class != CLASS_SKIP)
		return err_wrap(e, "manifest %s (%s)", digest_short(&d->digest, text),
				platform_text(&d->platform, platform));
	drop(r, e->text);
	err_clear(e);
	return 0;
}

static bool wanted(const struct descriptor *d, const char *platforms)
{
	const struct platform *p = &d->platform;

	if (!platforms || !*platforms || !p->set || (!p->os[0] && !p->arch[0]))
		return true;
	return platforms_match(platforms, p->os, p->arch, p->variant);
}

static int read_children(struct resolved *r, struct registry *reg, const struct imageref *ref,
			 const struct resolve_opts *o, struct err *e)
{
	size_t unwanted = 0;

	for (size_t i = 0; i < r->index.n; i++) {
		const struct descriptor *d = &r->index.manifests[i];
		const char *why;

		if (!classify_child_is_image(d, &why) &&
		    !(o->any && str_eq(why, "a Nydus image"))) {
			if (str_eq(why, "a Nydus image"))
				return err_class(e, ERR_UNSUPPORTED, CLASS_SKIP,
						 "already converted: it holds a Nydus image");
			drop(r, why);
		} else if (!wanted(d, o->platforms)) {
			unwanted++;
		} else if (read_child(r, d, reg, ref, o->any, e) < 0) {
			return -1;
		}
	}
	r->dropped += (uint32_t)unwanted;
	if (r->n)
		return 0;
	if (unwanted)
		return err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "no image of the index is for %s",
				 o->platforms);
	return err_class(e, ERR_UNSUPPORTED, CLASS_SKIP, "the index holds no image to convert%s%s",
			 r->dropped ? ": " : "", r->dropped_why);
}

static int read_index(struct resolved *r, struct registry *reg, const struct imageref *ref,
		      const struct resolve_opts *o, struct err *e)
{
	if (index_parse(&r->index, r->body.data, r->body.n, e) < 0)
		return err_wrap(e, "read the index");
	if (!r->index.media_type[0])
		str_copy(r->index.media_type, sizeof(r->index.media_type),
			 r->body.media_type[0] ? r->body.media_type : MT_OCI_INDEX);
	if (!o->any && classify_annotations(&r->index.annotations, e) < 0)
		return -1;
	return read_children(r, reg, ref, o, e);
}

static int read_one(struct resolved *r, struct registry *reg, const struct imageref *ref,
		    const struct resolve_opts *o, struct err *e)
{
	struct resolved_image im = {0};

	if (read_image(&im, &r->body, reg, ref->repository, o->any, e) < 0) {
		image_fini(&im);
		return -1;
	}
	str_copy(im.from.media_type, sizeof(im.from.media_type), im.manifest.media_type);
	im.from.digest = r->body.digest;
	im.from.size = r->body.n;
	add(r, &im);
	return 0;
}

/* By tag and by digest in one request while they agree; else the digest decides. */
static int read_body(struct resolved *r, struct registry *reg, const struct imageref *ref,
		     struct err *e)
{
	struct imageref by_tag = *ref;
	struct err why = {0};

	if (!ref->tag[0] || !digest_is_set(&ref->digest))
		return registry_get_manifest(reg, ref, &r->body, e);
	memset(&by_tag.digest, 0, sizeof(by_tag.digest));
	if (registry_get_manifest(reg, &by_tag, &r->body, &why) == 0) {
		r->tag_agrees = digest_eq(&r->body.digest, &ref->digest);
		if (r->tag_agrees)
			return 0;
		manifest_body_fini(&r->body);
	} else if (why.code != ERR_NOTFOUND && why.code != ERR_CORRUPT) {
		if (e)
			*e = why;
		return -1;
	}
	return registry_get_manifest(reg, ref, &r->body, e);
}

static int fill(struct resolved *r, struct registry *reg, const struct imageref *ref,
		const struct resolve_opts *o, struct err *e)
{
	if (read_body(r, reg, ref, e) < 0)
		return -1;
	if (classify_body(&r->body, &r->kind, e) < 0)
		return -1;
	return r->kind == KIND_INDEX ? read_index(r, reg, ref, o, e) : read_one(r, reg, ref, o, e);
}

int resolve(struct resolved *r, struct registry *reg, const struct imageref *ref,
	    const struct resolve_opts *o, struct err *e)
{
	struct resolved got = {0};
	int rc = fill(&got, reg, ref, o, e);

	if (rc < 0 && !got.body.data) {
		resolved_fini(&got);
		return -1;
	}
	/* On failure too what the reference names is told: its digest stands in the result. */
	*r = got;
	return rc;
}
