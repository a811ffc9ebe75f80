/* accelctl/cmd_inspect.c - what an image is: platforms, layers, formats, sizes, and what it was
 * made from. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelctl/commands.h"
#include "accelctl/connect.h"
#include "accelctl/progress.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/resolve.h"
#include "worker/verify.h"

static int usage(FILE *to)
{
	fputs("Usage: accelctl inspect [--config FILE] [-o table|json] REFERENCE\n"
	      "\n"
	      "Shows platforms, layers with their formats and sizes, and what the image was made "
	      "from.\n",
	      to);
	return to == stdout ? 0 : 2;
}

static const struct annotations *top_annotations(const struct resolved *r)
{
	if (r->kind == KIND_INDEX)
		return &r->index.annotations;
	return &r->image[0].manifest.annotations;
}

/* ---- JSON */
static struct json *layer_json(const struct descriptor *d, const struct digest *diff_id)
{
	struct json *j = json_new_object();
	const char *plain = annotations_get(&d->annotations, ANN_PLAIN);
	char text[DIGEST_TEXT];

	json_set_str(j, "digest", digest_text(&d->digest, text));
	json_set_str(j, "media_type", d->media_type);
	json_set_int(j, "size", (int64_t)d->size);
	json_set_str(j, "format", verify_format(d));
	if (diff_id)
		json_set_str(j, "diff_id", digest_text(diff_id, text));
	if (plain)
		json_set_str(j, "plain", plain);
	return j;
}

static struct json *image_json(const struct resolved_image *im)
{
	struct json *j = json_new_object(), *list = json_new_array(), *blobs = json_new_array();
	scoped_free struct digest *blob = NULL;
	char text[DIGEST_TEXT], platform[136];
	size_t n;

	json_set_str(j, "platform", platform_text(&im->config.platform, platform));
	json_set_str(j, "digest", digest_text(&im->from.digest, text));
	json_set_str(j, "media_type", im->manifest.media_type);
	json_set_int(j, "size", (int64_t)resolved_image_size(im));
	if (im->manifest.annotations.n)
		json_set(j, "annotations", annotations_to_json(&im->manifest.annotations));
	for (size_t i = 0; i < im->manifest.n_layers; i++)
		json_append(list,
			    layer_json(&im->manifest.layers[i],
				       i < im->config.n_diff_ids ? &im->config.diff_ids[i] : NULL));
	json_set(j, "layers", list);
	n = verify_backend_blobs(&im->manifest, &blob);
	for (size_t i = 0; i < n; i++)
		json_append(blobs, json_new_str(digest_text(&blob[i], text)));
	if (n)
		json_set(j, "backend_blobs", blobs);
	else
		json_freep(&blobs);
	return j;
}

static int print_json(const struct resolved *r, const struct imageref *ref)
{
	scoped(json_freep) struct json *j = json_new_object();
	struct json *list = json_new_array();
	const struct annotations *a = top_annotations(r);
	struct buf b = BUF_INIT(64u << 20);
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT];

	json_set_str(j, "reference", imageref_text(ref, text));
	json_set_str(j, "digest", digest_text(&r->body.digest, dtext));
	json_set_str(j, "media_type", r->body.media_type);
	json_set_str(j, "kind", r->kind == KIND_INDEX ? "index" : "image");
	json_set_int(j, "size", (int64_t)r->size);
	if (annotations_get(a, ANN_FORMAT))
		json_set_str(j, "format", annotations_get(a, ANN_FORMAT));
	if (annotations_get(a, ANN_SOURCE_REFERENCE))
		json_set_str(j, "source", annotations_get(a, ANN_SOURCE_REFERENCE));
	if (annotations_get(a, ANN_SOURCE_DIGEST))
		json_set_str(j, "source_digest", annotations_get(a, ANN_SOURCE_DIGEST));
	json_set_int(j, "dropped", r->dropped);
	for (size_t i = 0; i < r->n; i++)
		json_append(list, image_json(&r->image[i]));
	json_set(j, "images", list);
	if (json_write(j, JSON_PRETTY, &b, NULL) == 0)
		puts(b.data);
	buf_fini(&b);
	return 0;
}

/* ---- a table */
static void print_image(const struct resolved_image *im)
{
	scoped_free struct digest *blob = NULL;
	size_t n = verify_backend_blobs(&im->manifest, &blob);
	char text[DIGEST_TEXT], platform[136], size[24];

	platform_text(&im->config.platform, platform);
	printf("\n%s  %s  %s\n", platform[0] ? platform : "(no platform)",
	       digest_text(&im->from.digest, text), progress_size(resolved_image_size(im), size));
	printf("  %5s  %-20s  %9s  %-16s  %s\n", "LAYER", "DIGEST", "SIZE", "FORMAT", "NOTE");
	for (size_t i = 0; i < im->manifest.n_layers; i++) {
		const struct descriptor *d = &im->manifest.layers[i];
		const char *plain = annotations_get(&d->annotations, ANN_PLAIN);
		scoped_free char *note = mem_strdup(plain ? plain : "");

		str_clean(note);
		printf("  %5zu  %-20s  %9s  %-16s%s%s\n", i + 1, digest_short(&d->digest, text),
		       progress_size(d->size, size), verify_format(d), note[0] ? "  " : "", note);
	}
	for (size_t i = 0; i < n; i++)
		printf("  %5s  %-20s  %9s  %-16s  in a storage backend\n", "blob",
		       digest_short(&blob[i], text), "", "Nydus");
}

static void print_table(const struct resolved *r, const struct imageref *ref)
{
	const struct annotations *a = top_annotations(r);
	const char *format = annotations_get(a, ANN_FORMAT);
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT], size[24];

	printf("Reference   %s\n", imageref_text(ref, text));
	printf("Digest      %s\n", digest_text(&r->body.digest, dtext));
	printf("Type        %s\n", r->body.media_type);
	printf("Size        %s\n", progress_size(r->size, size));
	if (format)
		printf("Format      %s\n", format);
	if (annotations_get(a, ANN_SOURCE_REFERENCE))
		printf("Made from   %s\n", annotations_get(a, ANN_SOURCE_REFERENCE));
	if (annotations_get(a, ANN_SOURCE_DIGEST))
		printf("            %s\n", annotations_get(a, ANN_SOURCE_DIGEST));
	if (r->dropped)
		printf("Left out    %u (%s)\n", r->dropped, r->dropped_why);
	for (size_t i = 0; i < r->n; i++)
		print_image(&r->image[i]);
}

/* What resolve refuses is still something: an artifact, a chart, a signature. */
static int print_other(const struct resolved *r, const struct imageref *ref, const struct err *e)
{
	char text[IMAGEREF_TEXT], dtext[DIGEST_TEXT];

	printf("Reference   %s\nDigest      %s\nType        %s\nNote        %s\n",
	       imageref_text(ref, text), digest_text(&r->body.digest, dtext), r->body.media_type,
	       e->text);
	return 0;
}

static int inspect(const char *config, const char *text, bool json)
{
	const struct resolve_opts any = {.any = true};
	struct resolved r = {0};
	struct connection c;
	struct imageref ref;
	struct err e = {0};
	int rc;

	if (connect_reference(&ref, text, &e) < 0 || connect_open(&c, config, &ref, &e) < 0) {
		fprintf(stderr, "accelctl: inspect %s: %s\n", text, e.text);
		return err_exit_status(e.code);
	}
	rc = resolve(&r, c.registry, &ref, &any, &e);
	if (rc == 0 && json)
		print_json(&r, &ref);
	else if (rc == 0)
		print_table(&r, &ref);
	else if (e.class == CLASS_SKIP && r.body.data && !json)
		rc = print_other(&r, &ref, &e);
	else
		fprintf(stderr, "accelctl: inspect %s: %s\n", text, e.text);
	resolved_fini(&r);
	connect_close(&c);
	return rc == 0 ? 0 : err_exit_status(e.code);
}

int cmd_inspect(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"output", required_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	const char *config = NULL;
	bool json = false;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+ho:", options, NULL)) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (c == 'c')
			config = optarg;
		else if (c == 'o' && (str_eq(optarg, "json") || str_eq(optarg, "table")))
			json = str_eq(optarg, "json");
		else
			return usage(stderr);
	}
	return argc - optind == 1 ? inspect(config, argv[optind], json) : usage(stderr);
}
