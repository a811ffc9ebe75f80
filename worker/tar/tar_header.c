#include "worker/tar/tar_header.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "worker/tar/tar_reader.h"

/* POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". */
enum {
	NAME = 0,
	MODE = 100,
	UID = 108,
	GID = 116,
	SIZE = 124,
	MTIME = 136,
	CHECKSUM = 148,
	TYPE = 156,
	LINK = 157,
	MAGIC = 257,
	USER = 265,
	GROUP = 297,
	DEV_MAJOR = 329,
	DEV_MINOR = 337,
	PREFIX = 345,
	GNU_ATIME = 345,
	GNU_CTIME = 357,
	STAR_ATIME = 476,
	STAR_CTIME = 488,
	STAR_MAGIC = 508,
	GNU_REAL_SIZE = 483,
};

bool tar_block_is_zero(const uint8_t block[512])
{
	return block[0] == 0 && memcmp(block, block + 1, 511) == 0;
}

static struct tar_text text(const uint8_t *field, size_t n)
{
	return (struct tar_text){(const char *)field, strnlen((const char *)field, n)};
}

static bool base256(const uint8_t *p, size_t n, int64_t *v)
{
	uint8_t invert = p[0] & 0x40 ? 0xff : 0;
	uint64_t x = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t c = p[i] ^ invert;

		if (i == 0)
			c &= 0x7f;
		if (x >> 56)
			return false;
		x = x << 8 | c;
	}
	if (x >> 63)
		return false;
	*v = invert ? ~(int64_t)x : (int64_t)x;
	return true;
}

static bool blank(uint8_t c)
{
	return c == ' ' || c == 0;
}

bool tar_number(const uint8_t *p, size_t n, int64_t *v)
{
	uint64_t x = 0;

	if (n > 0 && p[0] & 0x80)
		return base256(p, n, v);
	while (n > 0 && blank(*p))
		p++, n--;
	while (n > 0 && blank(p[n - 1]))
		n--;
	for (; n > 0 && *p != 0; p++, n--) { /* what follows a NUL does not count */
		if (*p < '0' || *p > '7' || x >> 61)
			return false;
		x = x << 3 | (*p & 7);
	}
	*v = (int64_t)x;
	return true;
}

/* POSIX wants the sum of unsigned bytes; some old tars added signed ones. */
static bool checksum_holds(const uint8_t b[512])
{
	uint32_t sum = 8 * ' ', high = 0;
	int64_t want;

	for (size_t i = 0; i < 512; i++) {
		sum += b[i];
		high += b[i] >> 7;
	}
	for (size_t i = CHECKSUM; i < TYPE; i++) {
		sum -= b[i];
		high -= b[i] >> 7;
	}
	/* octal only: a base-256 checksum is none */
	if (b[CHECKSUM] & 0x80 || !tar_number(b + CHECKSUM, 8, &want))
		return false;
	return want == sum || want == (int64_t)sum - 256 * (int64_t)high;
}

static enum tar_format format_of(const uint8_t b[512])
{
	if (memcmp(b + MAGIC, "ustar", 6) == 0)
		return memcmp(b + STAR_MAGIC, "tar", 4) == 0 ? TAR_STAR : TAR_USTAR;
	return memcmp(b + MAGIC, "ustar  ", 8) == 0 ? TAR_GNU : TAR_V7;
}

static bool is_ascii(struct tar_text t)
{
	for (size_t i = 0; i < t.n; i++)
		if (t.p[i] & 0x80)
			return false;
	return true;
}

/* Old GNU headers keep two times where ustar keeps the prefix.  Go before 1.8 wrote a prefix there
 * all the same (golang.org/issue/12594): times that are no numbers are a prefix, if it is ASCII. */
static void gnu_times(struct tar_block *h, const uint8_t b[512])
{
	bool ok = true;

	if (b[GNU_ATIME] != 0) {
		ok = tar_number(b + GNU_ATIME, 12, &h->atime);
		h->has_atime = true;
	}
	if (b[GNU_CTIME] != 0) {
		ok = tar_number(b + GNU_CTIME, 12, &h->ctime) && ok;
		h->has_ctime = true;
	}
	if (ok)
		return;
	h->has_atime = h->has_ctime = false;
	h->atime = h->ctime = 0;
	h->prefix = text(b + PREFIX, 155);
	if (!is_ascii(h->prefix))
		h->prefix.n = 0;
}

static int bad_number(struct err *e, const char *what)
{
	return err_set(e, ERR_CORRUPT, "tar header: its %s is not a number", what);
}

int tar_block_decode(struct tar_block *h, const uint8_t b[512], struct err *e)
{
	struct {
		uint16_t at, n;
		int64_t *to;
		const char *what;
	} numbers[] = {
		{SIZE, 12, &h->size, "size"},
		{MODE, 8, &h->mode, "mode"},
		{UID, 8, &h->uid, "uid"},
		{GID, 8, &h->gid, "gid"},
		{MTIME, 12, &h->mtime, "time"},
		{DEV_MAJOR, 8, &h->dev_major, "device number"},
		{DEV_MINOR, 8, &h->dev_minor, "device number"},
	};
	size_t n = 5;

	if (!checksum_holds(b))
		return err_set(e, ERR_CORRUPT, "tar header: its checksum does not match");
	memset(h, 0, sizeof(*h));
	h->format = format_of(b);
	h->type = (char)b[TYPE];
	h->name = text(b + NAME, 100);
	h->link = text(b + LINK, 100);
	if (h->format != TAR_V7) {
		h->user = text(b + USER, 32);
		h->group = text(b + GROUP, 32);
		n = 7;
	}
	for (size_t i = 0; i < n; i++)
		if (!tar_number(b + numbers[i].at, numbers[i].n, numbers[i].to))
			return bad_number(e, numbers[i].what);
	if (h->format == TAR_USTAR) {
		h->prefix = text(b + PREFIX, 155);
	} else if (h->format == TAR_STAR) {
		h->prefix = text(b + PREFIX, 131);
		h->has_atime = h->has_ctime = true;
		if (!tar_number(b + STAR_ATIME, 12, &h->atime) ||
		    !tar_number(b + STAR_CTIME, 12, &h->ctime))
			return bad_number(e, "time");
	} else if (h->format == TAR_GNU) {
		gnu_times(h, b);
	}
	return 0;
}

int tar_gnu_spans(const uint8_t *at, size_t most, struct tar_span *spans, bool *more, struct err *e)
{
	size_t i;

	*more = at[24 * most] != 0;
	for (i = 0; i < most && at[24 * i] != 0; i++) {
		int64_t offset, n;

		if (!tar_number(at + 24 * i, 12, &offset) ||
		    !tar_number(at + 24 * i + 12, 12, &n) || offset < 0 || n < 0)
			return err_set(e, ERR_CORRUPT,
				       "sparse map of a tar entry: entry %zu is no extent", i);
		spans[i] = (struct tar_span){(uint64_t)offset, (uint64_t)n};
	}
	return (int)i;
}

bool tar_gnu_real_size(const uint8_t block[512], int64_t *size)
{
	return tar_number(block + GNU_REAL_SIZE, 12, size);
}

bool tar_decimal(struct tar_text t, int64_t *v)
{
	bool minus = t.n > 0 && t.p[0] == '-';
	uint64_t x = 0;
	size_t i = t.n > 0 && (t.p[0] == '-' || t.p[0] == '+');

	if (i == t.n)
		return false;
	for (; i < t.n; i++) {
		unsigned int c = (unsigned int)(t.p[i] - '0');

		if (c > 9 || x > (UINT64_MAX - c) / 10)
			return false;
		x = x * 10 + c;
	}
	if (x > (uint64_t)INT64_MAX + minus)
		return false;
	*v = minus ? (int64_t)(0 - x) : (int64_t)x;
	return true;
}

bool tar_time(struct tar_text t, int64_t *seconds, uint32_t *ns)
{
	const char *dot = memchr(t.p, '.', t.n);
	struct tar_text whole = {t.p, dot ? (size_t)(dot - t.p) : t.n};
	uint32_t x = 0, scale = 100000000;
	int64_t s;

	if (!tar_decimal(whole, &s))
		return false;
	for (const char *p = dot ? dot + 1 : t.p + t.n; p < t.p + t.n; p++) {
		if (*p < '0' || *p > '9')
			return false;
		x += (uint32_t)(*p - '0') * scale;
		scale /= 10; /* what is finer than a nanosecond is dropped */
	}
	if (t.p[0] == '-' && x > 0) { /* also "-0.5" */
		if (s == INT64_MIN)
			return false;
		s--;
		x = 1000000000 - x;
	}
	*seconds = s;
	*ns = x;
	return true;
}

static bool is(struct tar_text t, const char *s)
{
	return t.n == strlen(s) && memcmp(t.p, s, t.n) == 0;
}

int tar_pax_next(struct tar_text *rest, struct tar_text *key, struct tar_text *value, struct err *e)
{
	const char *space, *equals, *end;
	int64_t n;

	if (rest->n == 0)
		return 0;
	space = memchr(rest->p, ' ', rest->n);
	if (!space || !tar_decimal((struct tar_text){rest->p, (size_t)(space - rest->p)}, &n) ||
	    n < 5 || (uint64_t)n > rest->n || n <= space - rest->p + 1)
		return err_set(e, ERR_CORRUPT,
			       "PAX header: a record does not start with its length");
	end = rest->p + n - 1;
	if (*end != '\n')
		return err_set(e, ERR_CORRUPT,
			       "PAX header: a record of %lld bytes does not end its line",
			       (long long)n);
	equals = memchr(space + 1, '=', (size_t)(end - space - 1));
	if (!equals || equals == space + 1)
		return err_set(e, ERR_CORRUPT, "PAX header: a record has no key");
	*key = (struct tar_text){space + 1, (size_t)(equals - space - 1)};
	*value = (struct tar_text){equals + 1, (size_t)(end - equals - 1)};
	if (is(*key, "path") || is(*key, "linkpath") || is(*key, "uname") || is(*key, "gname")) {
		if (memchr(value->p, 0, value->n))
			return err_set(e, ERR_CORRUPT, "PAX header: %.*s holds a NUL", (int)key->n,
				       key->p);
	} else if (memchr(key->p, 0, key->n)) {
		return err_set(e, ERR_CORRUPT, "PAX header: a key holds a NUL");
	}
	rest->p += n;
	rest->n -= (size_t)n;
	return 1;
}

/* How many bytes follow this first byte, and the range of the second (RFC 3629, 4); 0 for a byte
 * that starts nothing. */
static size_t utf8_tail(uint8_t c, uint8_t *low, uint8_t *high)
{
	*low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
	*high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	return c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
}

bool tar_utf8(struct tar_text t)
{
	const uint8_t *p = (const uint8_t *)t.p, *end = p + t.n;

	while (p < end) {
		uint8_t low, high;
		size_t tail;

		if (*p < 0x80) {
			p++;
			continue;
		}
		tail = utf8_tail(*p, &low, &high);
		if (tail == 0 || (size_t)(end - p) <= tail || p[1] < low || p[1] > high)
			return false;
		for (size_t i = 2; i <= tail; i++)
			if ((p[i] & 0xc0) != 0x80)
				return false;
		p += tail + 1;
	}
	return true;
}

/* From the last component to the first, so that ".." needs no memory: it takes away the next one
 * that stays. */
size_t tar_clean_name(const char *name, char *to, size_t n)
{
	size_t length = 0, at = 0;

	for (int writing = 0; writing < 2; writing++) {
		const char *end = name + strlen(name);
		size_t above = 0;

		at = length; /* writing: the next component ends here */
		while (end > name) {
			const char *start = end;
			size_t part;

			while (start > name && start[-1] != '/')
				start--;
			part = (size_t)(end - start);
			end = start > name ? start - 1 : start;
			if (part == 0 || (part == 1 && start[0] == '.'))
				continue;
			if (part == 2 && start[0] == '.' && start[1] == '.') {
				above++;
				continue;
			}
			if (above > 0) {
				above--;
				continue;
			}
			if (!writing) {
				length += part + (length > 0);
				continue;
			}
			at -= part;
			for (size_t i = 0; i < part && at + i + 1 < n; i++)
				to[at + i] = start[i];
			if (at > 0 && --at + 1 < n)
				to[at] = '/';
		}
	}
	if (n > 0)
		to[length < n ? length : n - 1] = 0;
	return length;
}

static void octal(uint8_t *field, size_t n, uint64_t v)
{
	field[n - 1] = 0;
	for (size_t i = n - 1; i-- > 0; v >>= 3)
		field[i] = (uint8_t)('0' + (v & 7));
}

/* Field by field as Go's archive/tar writes a ustar header; a size from 8 GiB on is GNU's base-256.
 */
void tar_write_header(uint8_t b[512], const struct tar_out *h)
{
	size_t n = strlen(h->name);
	uint32_t sum = 0;

	assert(n <= 100);
	memset(b, 0, 512);
	memcpy(b + NAME, h->name, n);
	octal(b + MODE, 8, h->mode);
	octal(b + UID, 8, 0);
	octal(b + GID, 8, 0);
	if (h->size >> 33) {
		uint64_t v = h->size;

		for (size_t i = 12; i-- > 0; v >>= 8)
			b[SIZE + i] = (uint8_t)v;
		b[SIZE] = 0x80;
	} else {
		octal(b + SIZE, 12, h->size);
	}
	octal(b + MTIME, 12, 0);
	b[TYPE] = (uint8_t)h->type;
	memcpy(b + MAGIC, "ustar\00000", 8);
	octal(b + DEV_MAJOR, 8, 0);
	octal(b + DEV_MINOR, 8, 0);
	memset(b + CHECKSUM, ' ', 8);
	for (size_t i = 0; i < 512; i++)
		sum += b[i];
	octal(b + CHECKSUM, 7, sum);
}
