/* Any bytes as a webhook, in both payload formats: what is taken must be within its bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api-server/webhook.h"
#include "common/err.h"

static void one(const char *type, const char *p, size_t n)
{
	struct webhook w = {0};
	struct err e = {0};
	size_t bad;
	char text[IMAGEREF_TEXT];

	if (webhook_parse(&w, type, p, n, &e) < 0) {
		if (e.code != ERR_INVALID || !e.text[0])
			abort();
		return;
	}
	if (!w.type || w.n > WEBHOOK_ITEMS || (!w.push && w.n))
		abort();
	if (webhook_references(&w, &bad, &e) < 0) {
		if (bad >= w.n)
			abort();
	} else {
		for (size_t i = 0; i < w.n; i++)
			if (!w.item[i].ref.host[0] ||
			    !strchr(imageref_text(&w.item[i].ref, text), '/'))
				abort();
	}
	webhook_fini(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	one("application/json", (const char *)p, n);
	one("application/cloudevents+json", (const char *)p, n);
	return 0;
}
