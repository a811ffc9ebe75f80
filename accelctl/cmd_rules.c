/* accelctl/cmd_rules.c - rules explain: which rule an image meets, what it becomes, and why. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelctl/commands.h"
#include "common/config.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/target_hash.h"
#include "common/target_tag.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int usage(FILE *to)
{
	fputs("Usage: accelctl rules explain --config FILE REFERENCE\n"
	      "\n"
	      "Says of each rule whether it fits, and what the first that fits makes of the "
	      "image.\n",
	      to);
	return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static const char *refusing_pattern(const struct rule *r, const char *what)
{
	if (strcmp(what, "host") == 0)
		return r->host;
	return strcmp(what, "repository") == 0 ? r->repository : r->tag;
}

static void explain_target(const struct target *t, const struct imageref *source,
			   const char *platforms)
{
	scoped_free char *options = target_options_text(t);
	struct imageref to;
	struct err e = {0};
	char text[IMAGEREF_TEXT], format[32], hash[17];

	if (target_ref(t, source, &to, &e) < 0) {
		printf("  %-12s error: %s\n", driver_name(t->driver), e.text);
		return;
	}
	target_options_hash(t, platforms, hash);
	printf("  %-12s %s\n", driver_name(t->driver), imageref_text(&to, text));
	printf("               format %s, options %s\n", target_format(t, format), hash);
	for (char *line = options; *line;) {
		size_t n = strcspn(line, "\n");

		printf("               %.*s\n", (int)n, line);
		line += n + (line[n] ? 1 : 0);
	}
}

static int explain(const struct settings *s, const struct imageref *source)
{
	const struct rules *rules = &s->rules;
	const struct rule *found = rules_find(rules, source);
	const char *platforms;
	char text[IMAGEREF_TEXT];

	printf("%s\n", imageref_text(source, text));
	if (!settings_source(s, source->host))
		printf("no provider.source for %s: a server refuses it with 401\n", source->host);
	if (rules_is_output(rules, source))
		printf("tag %s could be the output of a rule: an event for it makes no task\n",
		       source->tag);
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *r = &rules->rule[i];
		const char *what = rule_refuses(r, source);

		if (what)
			printf("rule %s: no, the %s does not match %s\n", r->name, what,
			       refusing_pattern(r, what));
		else
			printf("rule %s: %s\n", r->name,
			       r == found ? "fits" : "would fit, but comes later");
	}
	if (!found) {
		printf("no rule fits: the image is skipped\n");
		return EXIT_OK;
	}
	platforms = rules_platforms(rules, found);
	printf("platforms: %s\n", platforms[0] ? platforms : "all");
	for (size_t i = 0; i < found->n_targets; i++)
		explain_target(&found->targets[i], source, platforms);
	return EXIT_OK;
}

/* Upstream adds latest to a name without tag and digest; so do all our commands. */
static int parse_reference(struct imageref *r, const char *text)
{
	struct err e = {0};

	if (imageref_parse(r, text, &e) < 0) {
		fprintf(stderr, "accelctl: %s\n", e.text);
		return -1;
	}
	if (!r->tag[0] && !digest_is_set(&r->digest))
		strcpy(r->tag, "latest");
	return 0;
}

static int load_and_explain(const char *config, const char *reference)
{
	scoped(settings_freep) struct settings *s = NULL;
	struct config_report r = {0};
	struct imageref source;

	config_load(&s, config, &r);
	for (size_t i = 0; i < r.n; i++)
		if (r.p[i].fatal)
			fprintf(stderr, "%s: %s\n", r.p[i].where, r.p[i].text);
	config_report_fini(&r);
	if (!s || parse_reference(&source, reference) < 0)
		return EXIT_USAGE;
	return explain(s, &source);
}

int cmd_rules(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *config = NULL;
	int c;

	if (argc >= 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout);
	if (argc < 2 || strcmp(argv[1], "explain") != 0)
		return usage(stderr);
	argc--, argv++;
	optind = 0;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (c == '?')
			return usage(stderr);
		config = optarg;
	}
	if (!config || argc - optind != 1)
		return usage(stderr);
	return load_and_explain(config, argv[optind]);
}
