/* accelctl/cmd_config.c - config check FILE: everything that is wrong with a configuration, by
 * place; config show FILE: what is in effect after file, conf.d and environment; config man:
 * accel.yaml(5). */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "accelctl/commands.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int usage(FILE *to)
{
	fputs("Usage: accelctl config check FILE\n"
	      "       accelctl config show [--effective] [--redact] FILE\n"
	      "       accelctl config man\n"
	      "\n"
	      "check  reports every problem as FILE:LINE:COLUMN: KEY: what was expected; exit "
	      "status 0 or 2\n"
	      "show   prints what is in effect (defaults, file, conf.d, environment); secrets are "
	      "never shown,\n"
	      "       so --effective and --redact are always on\n"
	      "man    prints the manual page accel.yaml(5)\n",
	      to);
	return to == stdout ? EXIT_OK : EXIT_USAGE;
}

static void print_report(const struct config_report *r, FILE *to)
{
	for (size_t i = 0; i < r->n; i++)
		fprintf(to, "%s: %s%s\n", r->p[i].where, r->p[i].note ? "note: " : "",
			r->p[i].text);
}

/* Warnings count here: whoever asks wants to know. */
static size_t count_errors(const struct config_report *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += !r->p[i].note;
	return n;
}

static int check(const char *path)
{
	scoped(settings_freep) struct settings *s = NULL;
	struct config_report r = {0};
	size_t errors;

	config_load(&s, path, &r);
	print_report(&r, stdout);
	errors = count_errors(&r);
	config_report_fini(&r);
	if (errors == 0)
		printf("%s: ok\n", path);
	return errors ? EXIT_USAGE : EXIT_OK;
}

static int show(const char *path)
{
	scoped(settings_freep) struct settings *s = NULL;
	struct config_report r = {0};
	struct buf b = BUF_INIT(16 << 20);
	struct err e = {0};
	int status = EXIT_FAILED;

	config_load(&s, path, &r);
	print_report(&r, stderr);
	config_report_fini(&r);
	if (!s)
		return EXIT_USAGE;
	if (settings_write(s, &b, &e) < 0)
		fprintf(stderr, "accelctl: %s\n", e.text);
	else if (fwrite(b.data, 1, b.len, stdout) == b.len)
		status = EXIT_OK;
	buf_fini(&b);
	return status;
}

/* ---- the manual page */

static void put_text(const char *s)
{
	for (; *s; s++) {
		if (*s == '\\')
			fputs("\\e", stdout);
		else if (*s == ' ' && s[1] == ' ' && s[-1] == '.')
			putchar('\n'), s++; /* a sentence begins on a line of its own */
		else
			putchar(*s);
	}
	putchar('\n');
}

static void put_keys(void)
{
	struct config_key_doc k;
	char section[64] = "";

	for (size_t i = 0; config_key_doc(i, &k); i++) {
		size_t n = strcspn(k.path, ".");

		if (!k.doc)
			continue;
		if (strstr(k.path, "HOST."))
			n = strlen("provider.source.HOST");
		if (strncmp(section, k.path, n) != 0 || section[n]) {
			if (section[0])
				puts(".El");
			snprintf(section, sizeof(section), "%.*s", (int)n, k.path);
			printf(".Ss %s\n.Bl -tag -width Ds\n", section);
		}
		printf(".It Ic %s\n", k.path);
		put_text(k.doc);
		if (strcmp(k.expected, "text") != 0)
			printf("Expected: %s.\n", k.expected);
		if (k.def && k.def[0])
			printf("Default: %s.\n", k.def);
	}
	puts(".El");
}

static void put_options(void)
{
	struct target_option_doc o;

	for (int d = 0; d < DRIVERS; d++) {
		printf(".Ss Options of driver %s\n.Bl -tag -width Ds\n",
		       driver_name((enum driver_id)d));
		for (size_t i = 0; target_option_doc((enum driver_id)d, i, &o); i++) {
			printf(".It Ic %s\n", o.key);
			put_text(o.doc);
			if (strcmp(o.expected, "nothing") != 0)
				printf("Expected: %s.\n", o.expected);
			if (o.def[0])
				printf("Default: %s.\n", o.def);
		}
		puts(".El");
	}
}

static const char man_head[] =
	".\\\" Made by `accelctl config man` from the tables in common/settings_keys.c and "
	"common/driver_options.c.\n"
	".Dd November 24, 2026\n"
	".Dt ACCEL.YAML 5\n"
	".Os\n"
	".Sh NAME\n"
	".Nm accel.yaml\n"
	".Nd configuration of acceld, accel-api-server, accel-worker and accelctl\n"
	".Sh DESCRIPTION\n"
	"One YAML file.\n"
	"Files\n"
	".Pa conf.d/NAME.yaml\n"
	"beside it are read after it, in the order of their names: maps are merged key by key, "
	"anything else is\n"
	"replaced.\n"
	"Then comes the environment:\n"
	".Ev ACCEL_SERVER__PORT\n"
	"is\n"
	".Ic server.port .\n"
	"Registries and secrets are not taken from the environment.\n"
	".Pp\n"
	"Every secret\n"
	".Ar x\n"
	"can be in a file named by\n"
	".Ar x Ns Ic _file ;\n"
	"one newline at its end is cut.\n"
	"A name without a slash is looked for in\n"
	".Ev CREDENTIALS_DIRECTORY\n"
	"first, and the file redis-password there is used for\n"
	".Ic redis.password\n"
	"when no key says otherwise.\n"
	".Pp\n"
	"Times are written as 30s, 10m, 1h30m; a bare number is seconds.\n"
	"Sizes are written as 64MiB or 10GB; kB, MB and GB are powers of 1000.\n"
	".Pp\n"
	"An unknown key is a warning in the sections that upstream's acceld has\n"
	".Po server , metric , provider , converter Pc ,\n"
	"and an error in the others.\n"
	".Ql accelctl config check\n"
	"reports all problems at once.\n"
	".Sh KEYS\n";

static const char man_rules[] =
	".Sh RULES\n"
	"The first rule of\n"
	".Ic converter.rules\n"
	"that fits an image decides what it becomes; a rule has any number of targets.\n"
	"In patterns,\n"
	".Ql *\n"
	"stands for anything within a path segment,\n"
	".Ql **\n"
	"for anything, and a leading\n"
	".Ql \\&!\n"
	"for not.\n"
	".Bd -literal -offset indent\n"
	"converter:\n"
	"  rules:\n"
	"    - name: services\n"
	"      match: { repository: \"prod/**\", tag: \"!*-dev\", platforms: "
	"\"linux/amd64,linux/arm64\" }\n"
	"      targets:\n"
	"        - { driver: nydus, tag: \"{tag}-nydus\", config: { compressor: zstd } }\n"
	"        - { driver: estargz, tag: \"{tag}-esgz\" }\n"
	".Ed\n"
	".Pp\n"
	"A match may also name a\n"
	".Ic host .\n"
	"A target has\n"
	".Ic driver ,\n"
	".Ic tag\n"
	".Pq with {tag} exactly once ,\n"
	".Ic config ,\n"
	".Ic cache_tag ,\n"
	"and\n"
	".Ic overwrite :\n"
	"whether an existing tag that acceld did not make may be replaced.\n"
	".Pp\n"
	"Upstream's form is one rule for all images, with one target:\n"
	".Bd -literal -offset indent\n"
	"converter:\n"
	"  driver:\n"
	"    type: nydus\n"
	"    config: { fs_version: 6 }\n"
	"  rules:\n"
	"    - tag_suffix: -nydus\n"
	"    - cache_tag: nydus-cache\n"
	".Ed\n";

static const char man_tail[] = ".Sh SEE ALSO\n"
			       "The annotated samples in\n"
			       ".Pa deploy/config .\n";

static int man(void)
{
	fputs(man_head, stdout);
	put_keys();
	fputs(man_rules, stdout);
	put_options();
	fputs(man_tail, stdout);
	return EXIT_OK;
}

static int parse_show(int argc, char **argv)
{
	static const struct option options[] = {{"effective", no_argument, NULL, 'e'},
						{"redact", no_argument, NULL, 'r'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (c == '?')
			return usage(stderr);
	}
	if (argc - optind != 1)
		return usage(stderr);
	return show(argv[optind]);
}

int cmd_config(int argc, char **argv)
{
	if (argc < 2)
		return usage(stderr);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return usage(stdout);
	if (strcmp(argv[1], "check") == 0 && argc == 3 && argv[2][0] != '-')
		return check(argv[2]);
	if (strcmp(argv[1], "show") == 0)
		return parse_show(argc - 1, argv + 1);
	if (strcmp(argv[1], "man") == 0 && argc == 2)
		return man();
	return usage(stderr);
}
