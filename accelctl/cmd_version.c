/* accelctl/cmd_version.c - the version, and which codecs made it: output bytes depend on them. */
#include <stdio.h>
#include <string.h>

#include "accelctl/commands.h"
#include "common/startup.h"
#include "common/str.h"
#include "common/target.h"
#include "worker/codec/encode.h"

int cmd_version(int argc, char **argv)
{
	bool json = argc > 2 && str_eq(argv[1], "-o") && str_eq(argv[2], "json");

	if (argc > 1 && !json) {
		FILE *to = str_eq(argv[1], "--help") || str_eq(argv[1], "-h") ? stdout : stderr;

		fputs("Usage: accelctl version [-o json]\n\n"
		      "Prints the version, the codecs it is linked with and the formats it "
		      "writes.\n",
		      to);
		return to == stdout ? 0 : 2;
	}
	if (json)
		printf("{\"version\":\"%s\",\"codecs\":\"%s\",\"formats\":{", startup_version(),
		       encode_versions());
	else
		printf("accelctl version %s\ncodecs  %s\n", startup_version(), encode_versions());
	for (int d = 0; d < DRIVERS; d++)
		printf(json ? "%s\"%s\":%u" : "%sformat  %s/%u\n", json && d ? "," : "",
		       driver_name(d), target_format_version(d));
	if (json)
		puts("}}");
	return 0;
}
