/* common/str.c - see str.h. */
#include "common/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

struct slice slice_of(const char *s)
{
	return (struct slice){s, s ? strlen(s) : 0};
}

bool slice_eq(struct slice s, const char *z)
{
	return strlen(z) == s.n && (s.n == 0 || memcmp(s.p, z, s.n) == 0);
}

struct slice slice_trim(const char *p, size_t n)
{
	while (n > 0 && (p[0] == ' ' || p[0] == '\t' || p[0] == '\r'))
		p++, n--;
	while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'))
		n--;
	return (struct slice){p, n};
}

char *slice_dup(struct slice s)
{
	return mem_strndup(s.p ? s.p : "", s.n);
}

bool str_eq(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool str_ieq(const char *a, const char *b)
{
	return a && b ? strcasecmp(a, b) == 0 : a == b;
}

int str_u64(const char *s, uint64_t *v, struct err *e)
{
	uint64_t r = 0;

	if (!*s || (s[0] == '0' && s[1]))
		return err_set(e, ERR_INVALID, "'%.40s' is no number", s);
	for (const char *p = s; *p; p++) {
		if (!isdigit((unsigned char)*p) || __builtin_mul_overflow(r, 10, &r) ||
		    __builtin_add_overflow(r, (uint64_t)(*p - '0'), &r))
			return err_set(e, ERR_INVALID, "'%.40s' is no number below 2^64", s);
	}
	*v = r;
	return 0;
}

/* "12", "12.5": *whole and thousandths of the fraction; returns where it ends, NULL if there is no
 * digit. */
static const char *decimal(const char *p, uint64_t *whole, uint64_t *millionths)
{
	uint64_t unit = 100000;
	const char *start = p;

	*whole = *millionths = 0;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(*whole, 10, whole) ||
		    __builtin_add_overflow(*whole, (uint64_t)(*p - '0'), whole))
			return NULL;
	if (p == start)
		return NULL;
	if (*p == '.' && isdigit((unsigned char)p[1]))
		for (p++; isdigit((unsigned char)*p); p++, unit /= 10)
			*millionths += (uint64_t)(*p - '0') * unit;
	return p;
}

/* whole.millionths * unit, or false when it does not fit. */
static bool scale(uint64_t whole, uint64_t millionths, uint64_t unit, uint64_t *v)
{
	unsigned __int128 r =
		(unsigned __int128)whole * unit + (unsigned __int128)millionths * unit / 1000000;

	*v = (uint64_t)r;
	return r <= UINT64_MAX;
}

int str_size(const char *s, uint64_t *bytes, struct err *e)
{
	static const struct {
		const char *name;
		uint64_t unit;
	} units[] = {
		{"", 1},
		{"b", 1},
		{"k", 1000ull},
		{"kb", 1000ull},
		{"ki", 1ull << 10},
		{"kib", 1ull << 10},
		{"m", 1000000ull},
		{"mb", 1000000ull},
		{"mi", 1ull << 20},
		{"mib", 1ull << 20},
		{"g", 1000000000ull},
		{"gb", 1000000000ull},
		{"gi", 1ull << 30},
		{"gib", 1ull << 30},
		{"t", 1000000000000ull},
		{"tb", 1000000000000ull},
		{"ti", 1ull << 40},
		{"tib", 1ull << 40},
	};
	uint64_t whole, millionths;
	const char *p = decimal(s, &whole, &millionths);

	if (p) {
		while (*p == ' ')
			p++;
		for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
			if (strcasecmp(p, units[i].name) == 0 &&
			    scale(whole, millionths, units[i].unit, bytes))
				return 0;
	}
	return err_set(e, ERR_INVALID, "'%.40s' is no size (such as 512MiB, 10GB or 67108864)", s);
}

int str_duration_ms(const char *s, uint64_t *ms, struct err *e)
{
	static const struct {
		const char *name;
		uint64_t unit;
	} units[] = {{"ms", 1}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"d", 86400000}};
	uint64_t sum = 0, whole, millionths, part;
	const char *p = s;

	if (!*s)
		goto bad;
	while (*p) {
		size_t i;

		p = decimal(p, &whole, &millionths);
		if (!p)
			goto bad;
		for (i = 0; i < sizeof(units) / sizeof(*units); i++)
			if (str_starts(p, units[i].name))
				break;
		if (i == sizeof(units) / sizeof(*units)) {
			if (*p || sum) /* a bare number is seconds, and stands alone */
				goto bad;
			if (!scale(whole, millionths, 1000, ms))
				goto bad;
			return 0;
		}
		p += strlen(units[i].name);
		if (!scale(whole, millionths, units[i].unit, &part) ||
		    __builtin_add_overflow(sum, part, &sum))
			goto bad;
	}
	*ms = sum;
	return 0;
bad:
	return err_set(e, ERR_INVALID, "'%.40s' is no duration (such as 30s, 1m30s, 250ms or 2h)",
		       s);
}

int str_bool(const char *s, bool *v, struct err *e)
{
	static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
	static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};

	for (int i = 0; i < 6; i++) {
		if (strcmp(s, yes[i]) == 0 || strcmp(s, no[i]) == 0) {
			*v = strcmp(s, yes[i]) == 0;
			return 0;
		}
	}
	return err_set(e, ERR_INVALID, "'%.40s' is neither true nor false", s);
}

/* One UTF-8 sequence at p: its length and code point, or 0. RFC 3629: no overlong forms, no
 * surrogates. */
static size_t utf8_at(const unsigned char *p, size_t n, uint32_t *cp)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80		   ? 1
		     : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
		     : (p[0] & 0xF0) == 0xE0	   ? 3
		     : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
						   : 0;

	if (len == 0 || len > n)
		return 0;
	*cp = len == 1 ? p[0] : p[0] & (0xFFu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xC0) != 0x80)
			return 0;
		*cp = *cp << 6 | (p[i] & 0x3F);
	}
	if (*cp < least[len] || *cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000))
		return 0;
	return len;
}

bool str_utf8_valid(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	uint32_t cp;
	size_t len;

	while (n > 0) {
		uint64_t eight = 0;

		if (n >= 8)
			memcpy(&eight, p, 8);
		if (n >= 8 && !(eight & 0x8080808080808080)) { /* nearly always ASCII */
			p += 8;
			n -= 8;
			continue;
		}
		if (*p < 0x80) {
			p++;
			n--;
			continue;
		}
		len = utf8_at(p, n, &cp);
		if (len == 0)
			return false;
		p += len;
		n -= len;
	}
	return true;
}

static bool hides(uint32_t cp)
{
	return cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x061C || cp == 0x200E ||
	       cp == 0x200F || cp == 0x2028 || cp == 0x2029 || (cp >= 0x202A && cp <= 0x202E) ||
	       (cp >= 0x2066 && cp <= 0x2069) || cp == 0xFEFF;
}

void str_clean(char *s)
{
	unsigned char *p = (unsigned char *)s, *to = p;
	size_t n = strlen(s);
	uint32_t cp = 0;

	while (n > 0) {
		size_t len = utf8_at(p, n, &cp);

		if (len == 0) {
			*to++ = '?';
			len = 1;
		} else if (hides(cp)) {
			*to++ = cp == '\t' || cp == '\n' || cp == '\r' ? ' ' : '?';
		} else {
			memmove(to, p, len);
			to += len;
		}
		p += len;
		n -= len;
	}
	*to = '\0';
}

void str_copy(char *to, size_t n, const char *from)
{
	size_t len = strlen(from);

	if (n == 0)
		return;
	if (len >= n) {
		len = n - 1;
		while (len > 0 && ((unsigned char)from[len] & 0xC0) == 0x80)
			len--;
	}
	memcpy(to, from, len);
	to[len] = '\0';
}

void str_hex(char *to, const void *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++) {
		to[2 * i] = digits[p[i] >> 4];
		to[2 * i + 1] = digits[p[i] & 15];
	}
	to[2 * n] = '\0';
}

static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int str_unhex(uint8_t *to, size_t n, const char *hex)
{
	if (strlen(hex) != 2 * n)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int hi = nibble(hex[2 * i]), lo = nibble(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -1;
		to[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int str_base64(struct buf *to, const void *bytes, size_t n, struct err *e)
{
	const uint8_t *p = bytes;
	char *q;

	if (buf_reserve(to, (n + 2) / 3 * 4, e) < 0)
		return -1;
	q = to->data + to->len;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
			     (i + 2 < n ? p[i + 2] : 0);

		*q++ = base64_digits[v >> 18];
		*q++ = base64_digits[v >> 12 & 63];
		*q++ = i + 1 < n ? base64_digits[v >> 6 & 63] : '=';
		*q++ = i + 2 < n ? base64_digits[v & 63] : '=';
	}
	to->len = (size_t)(q - to->data);
	if (to->cap)
		*q = '\0';
	return 0;
}

int str_unbase64(struct buf *to, const char *s, size_t n, struct err *e)
{
	size_t start = to->len;

	if (n % 4 != 0)
		return err_set(e, ERR_INVALID, "not base64: the length is no multiple of 4");
	for (size_t i = 0; i < n; i += 4) {
		int pad = i + 4 < n ? 0 : s[i + 3] != '=' ? 0 : s[i + 2] != '=' ? 1 : 2;
		uint32_t v = 0;
		char out[3];

		for (int k = 0; k < 4; k++) {
			const char *d =
				k < 4 - pad && s[i + k] ? strchr(base64_digits, s[i + k]) : NULL;

			if (k < 4 - pad && !d) {
				to->len = start;
				return err_set(e, ERR_INVALID, "not base64: byte %zu",
					       i + (size_t)k);
			}
			v = v << 6 | (d ? (uint32_t)(d - base64_digits) : 0);
		}
		out[0] = (char)(v >> 16);
		out[1] = (char)(v >> 8);
		out[2] = (char)v;
		if (buf_add(to, out, (size_t)(3 - pad), e) < 0)
			return -1;
	}
	return 0;
}

unsigned str_distance(const char *a, const char *b)
{
	enum { MAX = 64 };
	unsigned row[MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > MAX || m > MAX)
		return (unsigned)(n > m ? n : m);
	for (size_t j = 0; j <= m; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned best = diagonal + (tolower((unsigned char)a[i - 1]) !=
						    tolower((unsigned char)b[j - 1]));

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[m];
}

const char *str_nearest(const char *word, const char *const *words, size_t n)
{
	unsigned best = (unsigned)strlen(word) / 3 + 1;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		unsigned d = str_distance(word, words[i]);

		if (d < best) {
			best = d;
			found = words[i];
		}
	}
	return found;
}
