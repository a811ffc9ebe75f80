/* accelctl/cmd_check.c - a converted image against its source, entry by entry, and the format's own
 * rules. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelctl/commands.h"
#include "accelctl/connect.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/buf.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/verify.h"

#define SHOWN 50 /* problems on a terminal; more are counted */

static int usage(FILE *to)
{
	fputs("Usage: accelctl check [--config FILE] [--source REF] [-o json] REFERENCE\n"
	      "\n"
	      "Reads a converted image back: digests, diff_ids, the rules of its format, and "
	      "every\n"
	      "entry against the source that its annotations name (or --source).  Nydus blobs in "
	      "a\n"
	      "storage backend are read from those that the rules of --config name.\n"
	      "Exit status: 0 all is equal, 1 problems were found or it could not be read, 2 "
	      "usage.\n",
	      to);
	return to == stdout ? 0 : 2;
}

struct told {
	bool json;
	size_t problems;
	struct json *list; /* of problems */
};

static void on_problem(void *arg, const char *platform, size_t layer, const char *path,
		       const char *what)
{
	struct told *t = arg;
	scoped_free char *p = mem_strdup(path), *w = mem_strdup(what);
	char where[32] = "";

	if (layer)
		snprintf(where, sizeof(where), "layer %zu", layer);
	t->problems++;
	str_clean(p);
	str_clean(w);
	if (t->json && t->problems <= 10000) {
		struct json *j = json_new_object();

		json_set_str(j, "platform", platform);
		if (layer)
			json_set_int(j, "layer", (int64_t)layer);
		if (p[0])
			json_set_str(j, "path", p);
		json_set_str(j, "problem", w);
		json_append(t->list, j);
	} else if (!t->json && t->problems <= SHOWN) {
		printf("PROBLEM  %s%s%s%s%s: %s\n", platform, platform[0] && where[0] ? ", " : "",
		       where, p[0] ? ", " : "", p, w);
	}
}

static void on_layer(void *arg, const char *platform, size_t layer, size_t layers, size_t entries,
		     const char *format)
{
	const struct told *t = arg;

	if (!t->json)
		printf("checked  %s%slayer %zu: %zu entries, %s\n", platform,
		       platform[0] ? ", " : "", layer, entries, format);
}

static void print_json(const struct told *t, const struct verify_report *r)
{
	struct json *j = json_new_object();
	struct buf b = BUF_INIT(64u << 20);

	json_set_bool(j, "ok", r->problems == 0);
	json_set_int(j, "platforms", (int64_t)r->platforms);
	json_set_int(j, "layers", (int64_t)r->layers);
	json_set_int(j, "entries", (int64_t)r->entries);
	json_set_int(j, "problems", (int64_t)r->problems);
	json_set(j, "list", json_clone(t->list));
	if (json_write(j, JSON_PRETTY, &b, NULL) == 0)
		puts(b.data);
	buf_fini(&b);
	json_freep(&j);
}

static int check(const char *config, const struct imageref *ref, const struct imageref *source,
		 struct told *t, struct verify_report *r, struct err *e)
{
	struct verify_ops o = {.problem = on_problem, .layer = on_layer, .arg = t};
	struct connection c;
	int rc;

	if (connect_open(&c, config, ref, e) < 0)
		return -1;
	connect_backends(&c);
	o.backend = c.backend;
	o.n_backends = c.n_backends;
	rc = verify_image(c.registry, ref, source, &o, r, e);
	connect_close(&c);
	return rc;
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
						{"source", required_argument, NULL, 's'},
						{"output", required_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	const char *config = NULL, *source = NULL;
	struct imageref ref, from;
	struct verify_report r = {0};
	struct told t = {0};
	struct err e = {0};
	int c, rc;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+ho:", options, NULL)) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (c == 'c')
			config = optarg;
		else if (c == 's')
			source = optarg;
		else if (c == 'o' && str_eq(optarg, "json"))
			t.json = true;
		else
			return usage(stderr);
	}
	if (argc - optind != 1)
		return usage(stderr);
	t.list = json_new_array();
	rc = connect_reference(&ref, argv[optind], &e);
	if (rc == 0 && source)
		rc = connect_reference(&from, source, &e);
	if (rc == 0)
		rc = check(config, &ref, source ? &from : NULL, &t, &r, &e);
	if (rc < 0) {
		fprintf(stderr, "accelctl: check %s: %s\n", argv[optind], e.text);
	} else if (t.json) {
		print_json(&t, &r);
	} else {
		if (t.problems > SHOWN)
			printf("         %zu more problems\n", t.problems - SHOWN);
		printf("%s  %zu platforms, %zu layers, %zu entries, %zu problems\n",
		       r.problems ? "FAILED" : "ok    ", r.platforms, r.layers, r.entries,
		       r.problems);
	}
	json_freep(&t.list);
	if (rc < 0)
		return err_exit_status(e.code);
	return r.problems ? 1 : 0;
}
