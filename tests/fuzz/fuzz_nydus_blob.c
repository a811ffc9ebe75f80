/* Any bytes as a stored Nydus blob: table of contents, sections, chunk infos, bootstrap, chunks; as
 * its own chunk dictionary; and as an index of a gzip layer, which it is itself, too. */
#include <stdint.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "worker/drivers/driver.h"
#include "worker/rafs/rafs_check.h"
#include "worker/rafs/rafs_restart.h"

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

static int itself(struct blob_at *b, const char *id, struct blob_at **to, struct err *e)
{
	*to = b;
	return 0;
}

static void restart(struct blob_at *at, struct err *e)
{
	scoped(buf_fini) struct buf digests = BUF_INIT(1u << 20);
	scoped(rafs_layer_fini) struct rafs_layer l = {0};
	const struct rafs_section *s;
	struct rafs_toc toc;

	if (rafs_toc_read(&toc, at, e) < 0 || rafs_layer_read(&l, at, e) < 0)
		return;
	s = rafs_toc_find(&toc, "blob.digest");
	if (!s || rafs_section_read(s, at, &digests, e) == 0)
		rafs_check_restarts(&l, digests.data, digests.len, at, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct memory m = {.at = {.size = n, .read = read_at, .other = itself}, .p = p};
	struct descriptor d;
	struct err e = {0};
	uint8_t sum = 0;

	descriptor_init(&d);
	rafs_check_blob(&m.at, &d, drop, &sum, &e);
	restart(&m.at, &e);
	return 0;
}
