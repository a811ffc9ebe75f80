/* accelctl/main.c - one table of commands: it dispatches, and makes help and completion.
 *
 * Upstream's help, errors and exit statuses where upstream has them (reference: upstream-acceld,
 * accelctl): the version first on stderr, help on stdout with 0, an unknown command 3. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelctl/commands.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/startup.h"
#include "common/str.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} commands[] = {
	{"task", cmd_task, "Manage conversion tasks in remote acceld"},
	{"convert", cmd_convert, "Convert an image locally (one-time mode)"},
	{"check", cmd_check, "Compare a converted image with its source, entry by entry"},
	{"inspect", cmd_inspect, "Show what an image is: platforms, layers, formats, sizes"},
	{"layer", cmd_layer, "Make or take apart one layer, for debugging formats"},
	{"config", cmd_config, "Check or show a configuration file"},
	{"rules", cmd_rules, "Explain which rule an image meets"},
	{"health", cmd_health, "Ask a server how it is"},
	{"version", cmd_version, "Print the version"},
};
#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void help(FILE *to)
{
	fputs("NAME:\n   accelctl - A CLI tool to manage acceleration service\n\n"
	      "USAGE:\n   accelctl [global options] command [command options]\n\n"
	      "VERSION:\n   ",
	      to);
	fprintf(to, "%s\n\nCOMMANDS:\n", startup_version());
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(to, "   %-7s  %s\n", commands[i].name, commands[i].summary);
	fputs("   help, h  Shows a list of commands or help for one command\n\n"
	      "GLOBAL OPTIONS:\n   --help, -h     show help\n   --version, -v  print the version\n",
	      to);
}

static int unknown(const char *name)
{
	const char *names[N_COMMANDS];
	const char *near;

	for (size_t i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	near = str_nearest(name, names, N_COMMANDS);
	fprintf(stderr, "No help topic for '%s'\n", name);
	if (near)
		fprintf(stderr, "Did you mean '%s'?\n", near);
	return 3;
}

static int dispatch(int argc, char **argv)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, argv[0]) == 0)
			return commands[i].run(argc, argv);
	return unknown(argv[0]);
}

static int help_command(int argc, char **argv)
{
	char *args[] = {argc > 1 ? argv[1] : NULL, (char *)"--help", NULL};

	if (args[0])
		return dispatch(2, args);
	help(stdout);
	return 0;
}

static int bad_flag(const char *arg)
{
	scoped_free char *msg =
		mem_printf("flag provided but not defined: -%s", arg + (arg[1] == '-') + 1);

	printf("Incorrect Usage: %s\n\n", msg);
	help(stdout);
	log_line(LOG_FATAL, msg, NULL);
	return 1;
}

int main(int argc, char **argv)
{
	mem_setup();
	startup_log_version();
	if (argc < 2 || str_eq(argv[1], "--help") || str_eq(argv[1], "-h")) {
		help(stdout);
		return 0;
	}
	if (str_eq(argv[1], "--version") || str_eq(argv[1], "-v")) {
		printf("accelctl version %s\n", startup_version());
		return 0;
	}
	if (argv[1][0] == '-')
		return bad_flag(argv[1]);
	if (str_eq(argv[1], "help") || str_eq(argv[1], "h"))
		return help_command(argc - 1, argv + 1);
	return dispatch(argc - 1, argv + 1);
}
