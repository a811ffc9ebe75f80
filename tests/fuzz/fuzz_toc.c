/* A stored blob that may be anything, through the checks of eStargz and zstd:chunked; and the same
 * bytes as the JSON of a table, and as footers.  The first byte chooses. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/err.h"
#include "common/scope.h"
#include "worker/blobat.h"
#include "worker/drivers/driver.h"
#include "worker/drivers/footer.h"
#include "worker/drivers/toc.h"
#include "worker/drivers/tocread.h"
#include "worker/drivers/zstdcheck.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void read_table(enum toc_form form, const uint8_t *p, size_t n)
{
	struct toc_builder b = {.toc = toc_new(form, 0)};
	scoped(toc_reader_freep) struct toc_reader *r = toc_reader_new(toc_build, &b);
	struct digest d;
	struct err e;

	/* in two pieces, so that tokens are cut */
	if (toc_reader_feed(r, p, n / 2, &e) == 0 &&
	    toc_reader_feed(r, p + n / 2, n - n / 2, &e) == 0 &&
	    toc_reader_finish(r, &d, &e) == 0 && toc_build_end(&b, &e) == 0)
		toc_seal(b.toc, &e);
	toc_freep(&b.toc);
}

static void check_blob(const struct driver *drv, const char *key, const uint8_t *p, size_t n)
{
	struct blobat_memory at;
	struct descriptor d;
	struct err e;

	descriptor_init(&d);
	annotations_set(&d.annotations, key, "x");
	blobat_memory_init(&at, p, n);
	drv->check(&at.at, &d, NULL, NULL, &e);
	descriptor_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct zstd_footer f;
	uint64_t a, b;
	struct err e;

	if (!n)
		return 0;
	switch (p[0] % 4) {
	case 0:
		read_table(TOC_ESTARGZ, p + 1, n - 1);
		read_table(TOC_BOTH, p + 1, n - 1);
		break;
	case 1:
		check_blob(&estargz_driver, CONTAINERD_TOC_DIGEST, p + 1, n - 1);
		break;
	case 2:
		check_blob(&zstdchunked_driver, "other", p + 1, n - 1);
		check_blob(&zstdchunked_driver, PODMAN_CHECKSUM, p + 1, n - 1);
		break;
	default:
		footer_estargz_parse(p + 1, n - 1, n - 1, &a, &b, &e);
		footer_zstd_parse(p + 1, n - 1, n - 1, &f, &a, &e);
	}
	return 0;
}
