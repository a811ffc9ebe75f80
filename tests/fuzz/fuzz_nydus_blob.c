/* Any bytes as a stored Nydus blob: table of contents, sections, chunk infos, bootstrap, chunks. */
#include <stdint.h>
#include <string.h>

#include "common/err.h"
#include "worker/drivers/driver.h"
#include "worker/rafs/rafs_check.h"

struct memory {
	struct blob_at at;
	const uint8_t *p;
};

static int read_at(struct blob_at *b, uint64_t offset, void *to, size_t n, struct err *e)
{
	if (offset > b->size || n > b->size - offset)
		return err_set(e, ERR_CORRUPT, "range behind the end");
	if (n)
		memcpy(to, ((struct memory *)b)->p + offset, n);
	return 0;
}

static int drop(void *arg, const struct tar_piece *p, struct err *e)
{
	volatile uint8_t *sum = arg;

	for (size_t i = 0; p->kind == TAR_DATA && i < p->len; i += 512)
		*sum ^= ((const uint8_t *)p->raw)[i];
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct memory m = {.at = {.size = n, .read = read_at}, .p = p};
	struct descriptor d;
	struct err e = {0};
	uint8_t sum = 0;

	descriptor_init(&d);
	rafs_check_blob(&m.at, &d, drop, &sum, &e);
	return 0;
}
