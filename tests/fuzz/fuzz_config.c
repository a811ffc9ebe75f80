/* Any bytes as a configuration.  What is taken must be written, and read back as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"

static void same_again(const struct settings *s)
{
	struct buf a = BUF_INIT(64 << 20), b = BUF_INIT(64 << 20);
	struct config_report r = {0};
	struct settings *again = NULL;

	if (settings_write(s, &a, NULL) < 0)
		abort();
	if (a.len <= 1 << 20) { /* what we write for it may be larger than what we read */
		if (config_load_text(&again, "again", a.data, a.len, &r) < 0)
			abort();
		if (settings_write(again, &b, NULL) < 0 || strcmp(a.data, b.data) != 0)
			abort();
	}
	settings_freep(&again);
	config_report_fini(&r);
	buf_fini(&a);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct config_report r = {0};
	struct settings *s = NULL;

	/* Keys that name files would read what happens to be on this machine. */
	if (memmem(p, n, "_file", 5))
		return 0;
	if (config_load_text(&s, "fuzz", (const char *)p, n, &r) == 0)
		same_again(s);
	else if (s || r.n_fatal == 0 || r.n == 0)
		abort();
	settings_freep(&s);
	config_report_fini(&r);
	return 0;
}
