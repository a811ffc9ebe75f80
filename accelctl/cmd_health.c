/* accelctl/cmd_health.c - asks a server how it is: health, or with --ready whether it may be sent
 * requests.  Exit status: 0 yes, 1 no, 2 usage, 3 not reached. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "accelctl/api_client.h"
#include "accelctl/commands.h"
#include "common/err.h"
#include "common/log.h"
#include "common/scope.h"
#include "common/str.h"

enum { HEALTH_MS = 5000 };

static int usage(FILE *to)
{
	fputs("Usage: accelctl health [--ready] [--addr ADDR]\n\n"
	      "Prints what /api/v1/health (or /readyz) answers.\n"
	      "Exit status: 0 healthy, 1 not, 2 usage, 3 no answer.\n",
	      to);
	return to == stdout ? 0 : 2;
}

int cmd_health(int argc, char **argv)
{
	static const struct option opts[] = {{"ready", no_argument, NULL, 'r'},
					     {"addr", required_argument, NULL, 'a'},
					     {"help", no_argument, NULL, 'h'},
					     {0}};
	scoped(api_client_fini) struct api_client c = {0};
	scoped(api_reply_fini) struct api_reply r = {0};
	const char *addr = NULL;
	struct err e = {0};
	bool ready = false;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, "+h", opts, NULL)) >= 0) {
		if (o == 'r')
			ready = true;
		else if (o == 'a')
			addr = optarg;
		else
			return usage(o == 'h' ? stdout : stderr);
	}
	if (optind < argc)
		return usage(stderr);
	if (api_client_init(&c, addr, &e) < 0) {
		log_line(LOG_FATAL, e.text, NULL);
		return 1;
	}
	c.timeout_ms = HEALTH_MS;
	if (api_call(&c, "GET", ready ? "/readyz" : "/api/v1/health", NULL, &r, &e) < 0) {
		log_line(LOG_FATAL, e.text, NULL);
		return 3;
	}
	str_clean(r.body);
	puts(r.body);
	return r.status == 200 ? 0 : 1;
}
