/* Redis's replies: any bytes, in pieces of any size, are replies, "more", or a refusal; never more
 * memory than the bound allows. */
#include <stdint.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static size_t weigh(const struct reply *r)
{
	size_t sum = r->kind == REPLY_STR ? r->n : 1;

	if ((r->kind == REPLY_STR || r->kind == REPLY_STATUS || r->kind == REPLY_ERROR) &&
	    r->str[r->n] != 0)
		abort();
	for (size_t i = 0; r->kind == REPLY_ARRAY && i < r->n; i++)
		sum += weigh(r->element[i]);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct resp_reader *r = resp_reader_new(4096);
	size_t piece = n ? 1 + data[0] % 64 : 1;
	const struct reply *reply;
	struct err e;
	int got = 0;

	for (size_t at = n ? 1 : 0; at < n && got >= 0; at += piece) {
		if (resp_reader_feed(r, data + at, at + piece < n ? piece : n - at, &e) < 0)
			break;
		while ((got = resp_reader_next(r, &reply, &e)) > 0) {
			weigh(reply);
			resp_reply_free(reply);
		}
	}
	resp_reader_freep(&r);
	return 0;
}
