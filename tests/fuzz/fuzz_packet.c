/* tests/fuzz/fuzz_packet.c - the packets of the socket pair; one packet a line. */
#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "worker/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct packet_reader r;
	struct err e;

	packet_reader_init(&r);
	while (n > 0) {
		const uint8_t *nl = memchr(p, '\n', n);
		size_t len = nl ? (size_t)(nl - p) : n;
		struct json *j = NULL;

		if (packet_take(&r, (const char *)p, len, &j, &e) < 0)
			break;
		json_freep(&j);
		n -= len + (nl != NULL);
		p += len + (nl != NULL);
	}
	packet_reader_fini(&r);
	return 0;
}
