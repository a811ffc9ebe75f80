/* worker/drivers/sparse.c - see sparse.h.  POSIX.1-2017 pax, "pax Extended Header". */
#include "worker/drivers/sparse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/scope.h"
#include "worker/tar/tar_reader.h"

#define RECORDS_MAX ((size_t)1 << 30)

static size_t digits(size_t n)
{
	return (size_t)snprintf(NULL, 0, "%zu", n);
}

/* "LENGTH KEY=VALUE\n", the length counting itself. */
static int record(struct buf *b, const char *key, const void *value, size_t n, struct err *e)
{
	size_t rest = strlen(key) + n + 3, len = rest + digits(rest);

	len = rest + digits(len);
	return buf_addf(b, e, "%zu %s=", len, key) < 0 || buf_add(b, value, n, e) < 0
		       ? -1
		       : buf_add_char(b, '\n', e);
}

static int record_text(struct buf *b, const char *key, const char *s, struct err *e)
{
	return s && *s ? record(b, key, s, strlen(s), e) : 0;
}

static int record_number(struct buf *b, const char *key, uint64_t v, struct err *e)
{
	char s[24];

	return record(b, key, s, (size_t)snprintf(s, sizeof(s), "%" PRIu64, v), e);
}

static int record_time(struct buf *b, const char *key, int64_t sec, uint32_t ns, struct err *e)
{
	char s[48];
	int n;

	if (!ns)
		n = snprintf(s, sizeof(s), "%" PRId64, sec);
	else if (sec >= 0)
		n = snprintf(s, sizeof(s), "%" PRId64 ".%09u", sec, ns);
	else /* -1.25 is 750000000 ns after -2 */
		n = snprintf(s, sizeof(s), "-%" PRId64 ".%09u", -(sec + 1), 1000000000u - ns);
	return record(b, key, s, (size_t)n, e);
}

static int records(struct buf *b, const struct tar_entry *n, struct err *e)
{
	if (record_text(b, "path", n->name, e) < 0 || record_number(b, "size", n->size, e) < 0 ||
	    record_number(b, "uid", n->uid, e) < 0 || record_number(b, "gid", n->gid, e) < 0 ||
	    record_text(b, "uname", n->user, e) < 0 || record_text(b, "gname", n->group, e) < 0 ||
	    record_time(b, "mtime", n->mtime, n->mtime_ns, e) < 0)
		return -1;
	if (n->has_atime && record_time(b, "atime", n->atime, n->atime_ns, e) < 0)
		return -1;
	if (n->has_ctime && record_time(b, "ctime", n->ctime, n->ctime_ns, e) < 0)
		return -1;
	for (size_t i = 0; i < n->n_xattr; i++) {
		scoped(buf_fini) struct buf key = BUF_INIT(RECORDS_MAX);

		if (buf_addf(&key, e, "SCHILY.xattr.%s", n->xattr[i].name) < 0 ||
		    record(b, key.data, n->xattr[i].value, n->xattr[i].n, e) < 0)
			return -1;
	}
	return 0;
}

int sparse_header(struct buf *to, const struct tar_entry *n, struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(RECORDS_MAX);
	static const uint8_t zeros[TAR_BLOCK];
	uint8_t block[TAR_BLOCK];

	if (records(&b, n, e) < 0)
		return -1;
	tar_write_header(block, &(struct tar_out){.name = "PaxHeaders.0/sparse",
						  .type = 'x',
						  .mode = 0644,
						  .size = b.len});
	if (buf_add(to, block, sizeof(block), e) < 0 || buf_add(to, b.data, b.len, e) < 0 ||
	    buf_add(to, zeros, tar_padding(b.len), e) < 0)
		return -1;
	tar_write_header(block, &(struct tar_out){.name = "sparse",
						  .type = '0',
						  .mode = n->mode & 07777777,
						  .size = n->size});
	return buf_add(to, block, sizeof(block), e);
}

void tar_retype(uint8_t b[512], char type)
{
	unsigned sum = 0;
	char text[8];

	b[156] = (uint8_t)type;
	memset(b + 148, ' ', 8);
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += b[i];
	snprintf(text, sizeof(text), "%06o", sum);
	memcpy(b + 148, text, 7);
}
