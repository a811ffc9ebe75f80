/* The request record of a task: what is taken is written again, and read again the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct task_request r, again;
	struct buf one = BUF_INIT(1 << 16), two = BUF_INIT(1 << 16);
	struct err e;

	if (task_request_parse(&r, (const char *)data, n, &e) < 0)
		return 0;
	if (task_request_write(&r, &one, &e) ==
	    0) { /* defaults that are spelled out may pass 8 KiB */
		if (task_request_parse(&again, one.data, one.len, &e) < 0)
			abort();
		if (task_request_write(&again, &two, &e) < 0 || strcmp(one.data, two.data) != 0)
			abort();
		task_request_fini(&again);
	}
	task_request_fini(&r);
	buf_fini(&one);
	buf_fini(&two);
	return 0;
}
