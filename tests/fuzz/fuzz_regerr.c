/* What a registry's error answer says: first line WWW-Authenticate, the rest a body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/str.h"
#include "worker/registry/challenge.h"
#include "worker/registry/regerr.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const int statuses[] = {400, 401, 403, 404, 412, 413, 429, 500, 503, 302};
	const uint8_t *end = memchr(p, '\n', n);
	size_t line = end ? (size_t)(end - p) : n;
	char *header = malloc(line + 1), code[64], message[201];
	struct regerr_ask ask = {
		.what = ASK_MANIFEST_PUT, .host = "h", .repository = "a/b", .user = "u"};
	struct challenges all = {.n = 0};

	if (!header)
		return 0;
	memcpy(header, p, line);
	header[line] = '\0';
	challenges_parse(&all, header);
	if (all.n > CHALLENGES_MAX)
		abort();
	challenges_fini(&all);
	p += end ? line + 1 : line;
	n -= end ? line + 1 : line;
	regerr_read((const char *)p, n, code, message);
	if (strlen(code) >= 64 || strlen(message) > 200 ||
	    !str_utf8_valid(message, strlen(message)))
		abort();
	for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++) {
		struct err e = {0};
		struct regerr_answer r = {.status = statuses[i],
					  .body = (const char *)p,
					  .n = n,
					  .retry_after = header};

		regerr_set(&ask, &r, &e);
		if (!e.text[0] || e.code == ERR_OK)
			abort();
	}
	free(header);
	return 0;
}
