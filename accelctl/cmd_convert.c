/* accelctl/cmd_convert.c - one image, here and now: no server, no Redis, no disk.
 *
 * Log lines, help and exit statuses are upstream's; what is ours comes after them. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelctl/commands.h"
#include "accelctl/connect.h"
#include "accelctl/progress.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/http.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/platform.h"
#include "common/rules.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target_tag.h"
#include "worker/cache.h"
#include "worker/convert/convert.h"
#include "worker/pool.h"

#define MODULE F_MODULE("converter")

struct args {
	const char *config, *source, *driver, *tag, *platforms, *verify, *output;
	const char *options[32];
	size_t n_options;
	uint64_t threads;
	enum progress_mode progress;
};

static void help(void)
{
	fputs("NAME:\n   accelctl convert - Convert an image locally (one-time mode)\n\n"
	      "USAGE:\n   accelctl convert [command options] [SOURCE]\n\n"
	      "OPTIONS:\n"
	      "   --config value     Specify the path of config in yaml format\n"
	      "   --driver value     Without a config: estargz, zstdchunked or nydus\n"
	      "   --option KEY=VALUE An option of that driver; may be repeated\n"
	      "   --tag value        Its target tag (default: \"{tag}-DRIVER\")\n"
	      "   --platforms value  Only these, as linux/amd64,linux/arm64 (default: all)\n"
	      "   --verify value     full, index or off (default: the config's, else full)\n"
	      "   --threads value    Compressor threads (default: the config's, else all CPUs)\n"
	      "   --progress value   auto, tty, plain, json or none (default: \"auto\")\n"
	      "   -o json            Print the result as JSON on stdout\n"
	      "   --help, -h         show help\n",
	      stdout);
}

static int fatal(const char *msg)
{
	log_line(LOG_FATAL, msg, NULL);
	return 1;
}

enum {
	OPT_CONFIG = 256,
	OPT_DRIVER,
	OPT_OPTION,
	OPT_TAG,
	OPT_PLATFORMS,
	OPT_VERIFY,
	OPT_THREADS,
	OPT_PROGRESS
};

static const struct option options[] = {
	{"config", required_argument, NULL, OPT_CONFIG},
	{"driver", required_argument, NULL, OPT_DRIVER},
	{"option", required_argument, NULL, OPT_OPTION},
	{"tag", required_argument, NULL, OPT_TAG},
	{"platforms", required_argument, NULL, OPT_PLATFORMS},
	{"verify", required_argument, NULL, OPT_VERIFY},
	{"threads", required_argument, NULL, OPT_THREADS},
	{"progress", required_argument, NULL, OPT_PROGRESS},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int take(struct args *a, int opt, struct err *e)
{
	switch (opt) {
	case OPT_CONFIG:
		a->config = optarg;
		return 0;
	case OPT_DRIVER:
		a->driver = optarg;
		return 0;
	case OPT_OPTION:
		if (a->n_options == sizeof(a->options) / sizeof(*a->options))
			return err_set(e, ERR_INVALID, "too many --option");
		a->options[a->n_options++] = optarg;
		return 0;
	case OPT_TAG:
		a->tag = optarg;
		return 0;
	case OPT_PLATFORMS:
		a->platforms = optarg;
		return 0;
	case OPT_VERIFY:
		a->verify = optarg;
		return 0;
	case OPT_THREADS:
		return str_u64(optarg, &a->threads, e) < 0 ? err_wrap(e, "--threads") : 0;
	case OPT_PROGRESS:
		return progress_mode_parse(optarg, &a->progress, e);
	default:
		a->output = optarg;
		return str_eq(optarg, "json") ? 0
					      : err_set(e, ERR_INVALID,
							"output is '%.40s', expected json", optarg);
	}
}

/* 0 go on, 1 end with *status. */
static int parse(struct args *a, int argc, char **argv, int *status)
{
	struct err e = {0};
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:ho:", options, NULL)) != -1) {
		if (c == 'h') {
			help();
			*status = 0;
			return 1;
		}
		if (c == '?' || c == ':') {
			const char *arg = argv[optind - 1];
			scoped_free char *msg =
				c == ':' ? mem_printf("flag needs an argument: %s", arg)
					 : mem_printf("flag provided but not defined: -%s",
						      arg + strspn(arg, "-"));

			printf("Incorrect Usage: %s\n\n", msg);
			help();
			*status = fatal(msg);
			return 1;
		}
		if (take(a, c, &e) < 0) {
			*status = fatal(e.text);
			return 1;
		}
	}
	a->source = argv[optind];
	if (!a->config && !a->driver)
		*status = fatal("Required flag \"config\" not set");
	else if (!a->source)
		*status = fatal("source is required");
	else
		return 0;
	return 1;
}

/* ---- what to convert to */
struct plan {
	const struct target *targets;
	size_t n;
	const char *platforms;
	const char *rule;
	struct target own; /* of --driver */
	char *own_platforms;
};

static int plan_from_options(struct plan *p, const struct args *a, struct err *e)
{
	enum driver_id d;
	scoped_free char *tag = NULL;

	if (target_driver_parse(&d, a->driver, e) < 0)
		return -1;
	target_init(&p->own, d);
	tag = a->tag ? mem_strdup(a->tag) : mem_printf("{tag}-%s", a->driver);
	if (target_template_check(tag, e) < 0)
		return -1;
	p->own.tag_template = take_ptr(tag);
	p->own.upstream_form = true; /* the person named the tag */
	for (size_t i = 0; i < a->n_options; i++) {
		const char *eq = strchr(a->options[i], '=');
		const char *warning = NULL;
		scoped_free char *key =
			eq ? mem_strndup(a->options[i], (size_t)(eq - a->options[i])) : NULL;

		if (!eq)
			return err_set(e, ERR_INVALID, "--option '%s', expected KEY=VALUE",
				       a->options[i]);
		if (target_option(&p->own, key, eq + 1, &warning, e) < 0)
			return -1;
		if (warning)
			log_warning(warning, F_STR("option", key), NULL);
	}
	if (target_check(&p->own, e) < 0)
		return -1;
	p->targets = &p->own;
	p->n = 1;
	return 0;
}

static int make_plan(struct plan *p, const struct args *a, const struct settings *s,
		     const struct imageref *source, struct err *e)
{
	const struct rule *rule;
	char text[IMAGEREF_TEXT];

	if (a->platforms) {
		if (platforms_normalize(a->platforms, &p->own_platforms, e) < 0)
			return -1;
		p->platforms = p->own_platforms;
	}
	if (a->driver) {
		if (!p->platforms)
			p->platforms = s->rules.platforms;
		return plan_from_options(p, a, e);
	}
	rule = rules_find(&s->rules, source);
	if (!rule)
		return err_set(e, ERR_NOTFOUND, "not found matched conversion rule for %s",
			       imageref_text(source, text));
	p->targets = rule->targets;
	p->n = rule->n_targets;
	p->rule = rule->name;
	if (!p->platforms)
		p->platforms = rules_platforms(&s->rules, rule);
	return 0;
}

/* ---- upstream's log lines */
struct telling {
	struct progress *progress;
	const struct imageref *source;
	bool cache; /* upstream writes "(cached N/M)" only with a cache_tag, and keeps the space
		       without */
};

static void on_step(void *arg, enum convert_step s, const struct imageref *target, uint64_t ns,
		    uint32_t cached, uint32_t layers)
{
	static const struct {
		const char *verb;
		bool ended, counted;
	} steps[] = {
		[STEP_PULLING] = {"pulling", false, false},
		[STEP_PULLED] = {"pulled", true, true},
		[STEP_CONVERTING] = {"converting", false, false},
		[STEP_CONVERTED] = {"converted", true, true},
		[STEP_PUSHING] = {"pushing", false, false},
		[STEP_PUSHED] = {"pushed", true, false},
	};
	struct telling *t = arg;
	char ref[IMAGEREF_TEXT], elapse[CLOCK_TEXT], count[48] = "";
	scoped_free char *msg = NULL;

	imageref_text(target ? target : t->source, ref);
	clock_go_duration(elapse, ns);
	if (steps[s].counted && t->cache)
		snprintf(count, sizeof(count), " (cached %u/%u)", cached, layers);
	else if (steps[s].counted)
		snprintf(count, sizeof(count), " ");
	msg = steps[s].ended
		      ? mem_printf("%s image %s%s, elapse %s", steps[s].verb, ref, count, elapse)
		      : mem_printf("%s image %s", steps[s].verb, ref);
	progress_clear(t->progress);
	log_info(msg, MODULE, NULL);
}

static void on_layer(void *arg, const struct layer_progress *l, const struct convert_progress *all)
{
	struct telling *t = arg;

	progress_layer(t->progress, l, all);
}

static void on_cache(void *arg, enum cache_step s, const struct imageref *tag)
{
	static const char *const lines[] = {[CACHE_PULLING] = "pulling cache %s",
					    [CACHE_PULLED] = "pulled cache %s",
					    [CACHE_NOT_FOUND] = "cache %s not found",
					    [CACHE_PUSHING] = "pushing cache %s",
					    [CACHE_PUSHED] = "pushed cache %s"};
	struct telling *t = arg;
	char ref[IMAGEREF_TEXT], msg[IMAGEREF_TEXT + 32];

	snprintf(msg, sizeof(msg), lines[s], imageref_text(tag, ref));
	progress_clear(t->progress);
	log_info(msg, MODULE, NULL);
}

static void on_warn(void *arg, const char *msg, const char *key, const char *value)
{
	struct telling *t = arg;

	progress_clear(t->progress);
	log_warning(msg, MODULE, F_STR(key, value), NULL);
}

/* ---- */
static int verify_of(const struct args *a, const struct settings *s, enum verify_mode *v,
		     struct err *e)
{
	*v = a->config ? s->converter.verify : VERIFY_FULL;
	if (!a->verify)
		return 0;
	if (str_eq(a->verify, "full"))
		*v = VERIFY_FULL;
	else if (str_eq(a->verify, "index"))
		*v = VERIFY_INDEX;
	else if (str_eq(a->verify, "off"))
		*v = VERIFY_OFF;
	else
		return err_set(e, ERR_INVALID, "verify is '%.40s', expected full, index or off",
			       a->verify);
	return 0;
}

static void tell_result(const struct convert_result *r, const struct imageref *source)
{
	char ref[IMAGEREF_TEXT];

	imageref_text(source, ref);
	if (r->skipped) {
		scoped_free char *msg = mem_printf("skipped image %s: %s", ref, r->reason);

		log_info(msg, MODULE, NULL);
		return;
	}
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target_result *t = &r->targets[i];
		scoped_free char *msg = NULL;

		if (!t->ref.repository[0])
			continue;
		imageref_text(&t->ref, ref);
		if (t->outcome == TARGET_UNCHANGED)
			msg = mem_printf("image has been converted: %s", ref);
		else if (t->outcome == TARGET_SKIPPED)
			msg = mem_printf("skipped image %s: %s", ref, t->reason);
		else if (t->plain_layers)
			msg = mem_printf("%u of %zu layers of %s are not lazy", t->plain_layers,
					 t->n_layers, ref);
		if (msg)
			log_line(t->plain_layers ? LOG_WARNING : LOG_INFO, msg, MODULE, NULL);
	}
}

static int print_json(const struct convert_result *r, const struct err *e, int rc)
{
	struct buf b = BUF_INIT(16u << 20);
	scoped(json_freep) struct json *j = convert_result_to_json(r);

	if (rc < 0) {
		json_set_str(j, "error", e->text);
		json_set_str(j, "error_code", err_slug(e->code));
		json_set_str(j, "error_class", err_class_name(e->class));
	}
	if (json_write(j, JSON_PRETTY, &b, NULL) == 0)
		printf("%s\n", b.data);
	buf_fini(&b);
	return 0;
}

static bool has_cache(const struct plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->targets[i].cache_tag)
			return true;
	return false;
}

static int convert(const struct args *a, const struct settings *s, const struct plan *p,
		   const struct imageref *source, struct err *e)
{
	scoped(http_freep) struct http *http = NULL;
	static atomic_int stop;
	struct telling t = {.source = source, .cache = has_cache(p)};
	const struct convert_ops ops = {
		.step = on_step, .layer = on_layer, .cache = on_cache, .warn = on_warn, .arg = &t};
	struct convert_result r;
	struct convert_job job = {.source = *source,
				  .rule = p->rule,
				  .targets = p->targets,
				  .n_targets = p->n,
				  .platforms = p->platforms,
				  .settings = s,
				  .threads =
					  (uint32_t)(a->threads ? a->threads : s->worker.threads),
				  .memory = s->worker.memory,
				  .max_image_size = s->worker.max_image_size,
				  .stop = &stop,
				  .ops = &ops};
	int rc;

	connect_block_signals();
	if (verify_of(a, s, &job.verify, e) < 0 || http_open(&http, 16, e) < 0 ||
	    connect_catch_signals(&stop, http, e) < 0)
		return -1;
	job.http = http;
	t.progress = progress_new(a->progress);
	convert_result_init(&r);
	rc = convert_image(&job, &r, e);
	progress_freep(&t.progress);
	if (rc == 0)
		tell_result(&r, source);
	if (a->output)
		print_json(&r, e, rc);
	convert_result_fini(&r);
	return rc;
}

/* Upstream's two early ends. */
static bool is_output(const struct settings *s, const struct imageref *source)
{
	char ref[IMAGEREF_TEXT];
	scoped_free char *msg = NULL;
	bool cache = false;

	if (!source->tag[0] || !rules_is_output(&s->rules, source))
		return false;
	for (size_t i = 0; i < s->rules.n; i++)
		for (size_t t = 0; t < s->rules.rule[i].n_targets; t++)
			cache |= str_eq(s->rules.rule[i].targets[t].cache_tag, source->tag);
	msg = mem_printf(cache ? "image was remote cache: %s" : "image has been converted: %s",
			 imageref_text(source, ref));
	log_info(msg, NULL);
	return true;
}

int cmd_convert(int argc, char **argv)
{
	struct args a = {0};
	scoped(settings_freep) struct settings *s = NULL;
	struct imageref source;
	struct plan p = {0};
	struct err e = {0};
	int rc, status = 0;

	if (parse(&a, argc, argv, &status))
		return status;
	if (connect_reference(&source, a.source, &e) < 0 ||
	    connect_settings(&s, a.config, source.host, &e) < 0)
		return fatal(e.text);
	if (is_output(s, &source))
		return 0;
	rc = make_plan(&p, &a, s, &source, &e);
	if (rc == 0)
		rc = convert(&a, s, &p, &source, &e);
	if (p.targets == &p.own || a.driver)
		target_fini(&p.own);
	free(p.own_platforms);
	if (rc == 0)
		return 0;
	fatal(e.text);
	return e.code == ERR_CANCELLED ? 130 : 1;
}
