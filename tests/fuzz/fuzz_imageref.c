/* Any bytes as a reference: what is taken must be written and read back as the same reference. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/imageref.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct imageref r, again;
	struct err e = {0};
	char text[IMAGEREF_TEXT];
	char *z = malloc(n + 1);

	if (!z)
		return 0;
	memcpy(z, p, n);
	z[n] = 0;
	if (imageref_parse(&r, z, &e) == 0) {
		imageref_text(&r, text);
		if (imageref_parse(&again, text, &e) < 0 || !imageref_eq(&r, &again))
			abort();
		if (!imageref_repository_valid(r.repository))
			abort();
		if (r.tag[0] && !imageref_tag_valid(r.tag))
			abort();
	}
	imageref_host_is_loopback(z);
	free(z);
	return 0;
}
