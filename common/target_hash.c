/* common/target_hash.c - see target_hash.h. */
#include "common/target_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/target.h"
#include "common/target_tag.h"

static void add_line(struct buf *b, const char *line)
{
	buf_add_str(b, line, NULL);
	buf_add_char(b, '\n', NULL);
}

static void add_target(struct buf *b, const struct target *t, const char *tag,
		       const char *platforms)
{
	scoped_free char *options = target_options_text(t);
	char version[16];

	add_line(b, driver_name(t->driver));
	add_line(b, tag);
	buf_add_str(b, options, NULL); /* whole lines already */
	snprintf(version, sizeof(version), "%u", target_format_version(t->driver));
	add_line(b, version);
	add_line(b, platforms);
}

struct tagged {
	struct imageref ref;
	const struct target *target;
};

static int tagged_cmp(const void *a, const void *b)
{
	return strcmp(((const struct tagged *)a)->ref.tag, ((const struct tagged *)b)->ref.tag);
}

int target_dedup_key(const struct imageref *source, const struct target *targets, size_t n,
		     const char *platforms, char hex[65], struct err *e)
{
	scoped_free struct tagged *order = mem_array(n ? n : 1, sizeof(*order));
	scoped(buf_fini) struct buf b = BUF_INIT((n + 1) * 2 * TARGET_TEXT_MAX); /* never reached */
	char text[IMAGEREF_TEXT], digest[DIGEST_TEXT] = "";
	struct digest sum;

	for (size_t i = 0; i < n; i++) {
		order[i].target = &targets[i];
		if (target_ref(&targets[i], source, &order[i].ref, e) < 0)
			return -1;
	}
	qsort(order, n, sizeof(*order), tagged_cmp);
	if (digest_is_set(&source->digest))
		digest_text(&source->digest, digest);
	buf_reserve(&b, 1000, NULL);
	add_line(&b, "acc-dedup-1");
	add_line(&b, imageref_name(source, text));
	add_line(&b, source->tag);
	add_line(&b, digest);
	for (size_t i = 0; i < n; i++)
		add_target(&b, order[i].target, order[i].ref.tag, platforms);
	digest_of(&sum, DIGEST_SHA256, b.data, b.len);
	str_hex(hex, sum.bytes, 32);
	return 0;
}

void target_options_hash(const struct target *t, const char *platforms, char hex[17])
{
	scoped_free char *options = target_options_text(t);
	scoped(buf_fini) struct buf b = BUF_INIT(2 * TARGET_TEXT_MAX);
	struct digest sum;
	char format[32];

	buf_add_str(&b, options, NULL);
	add_line(&b, target_format(t, format));
	add_line(&b, platforms);
	digest_of(&sum, DIGEST_SHA256, b.data, b.len);
	str_hex(hex, sum.bytes, 8);
}
