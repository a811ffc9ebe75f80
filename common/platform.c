/* common/platform.c - see platform.h; the rows are those of containerd's platforms package. */
#include "common/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/str.h"

struct platform {
	char os[32], arch[32], variant[32];
};

static const struct {
	const char *given, *variant, *arch, *becomes; /* variant NULL: any */
} arch_rows[] = {
	{"i386", NULL, "386", ""},	 {"x86_64", "", "amd64", ""},
	{"x86_64", "v1", "amd64", ""},	 {"x86-64", "", "amd64", ""},
	{"x86-64", "v1", "amd64", ""},	 {"amd64", "v1", "amd64", ""},
	{"x86_64", NULL, "amd64", NULL}, {"x86-64", NULL, "amd64", NULL},
	{"aarch64", "", "arm64", ""},	 {"aarch64", "8", "arm64", ""},
	{"aarch64", "v8", "arm64", ""},	 {"aarch64", NULL, "arm64", NULL},
	{"arm64", "8", "arm64", ""},	 {"arm64", "v8", "arm64", ""},
	{"armhf", NULL, "arm", "v7"},	 {"armel", NULL, "arm", "v6"},
	{"arm", "", "arm", "v7"},	 {"arm", "5", "arm", "v5"},
	{"arm", "6", "arm", "v6"},	 {"arm", "7", "arm", "v7"},
	{"arm", "8", "arm", "v8"},
};

static void platform_normalize(struct platform *p)
{
	if (strcmp(p->os, "macos") == 0)
		strcpy(p->os, "darwin");
	for (size_t i = 0; i < sizeof(arch_rows) / sizeof(*arch_rows); i++) {
		if (strcmp(p->arch, arch_rows[i].given) != 0)
			continue;
		if (arch_rows[i].variant && strcmp(p->variant, arch_rows[i].variant) != 0)
			continue;
		strcpy(p->arch, arch_rows[i].arch);
		if (arch_rows[i].becomes)
			strcpy(p->variant, arch_rows[i].becomes);
		return;
	}
}

static const char *const known_archs[] = {
	"386",	   "amd64",   "arm",	  "arm64",   "armhf",	"armel", "i386", "x86_64", "x86-64",
	"aarch64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm", "mips64", "ppc64"};

static bool known_arch(const char *s)
{
	for (size_t i = 0; i < sizeof(known_archs) / sizeof(*known_archs); i++)
		if (strcmp(s, known_archs[i]) == 0)
			return true;
	return false;
}

static int platform_refuse(struct slice text, const char *why, struct err *e)
{
	char shown[80];

	snprintf(shown, sizeof(shown), "%.*s", (int)(text.n < 70 ? text.n : 70), text.p);
	str_clean(shown);
	return err_set(e, ERR_INVALID, "platform \"%s\": %s", shown, why);
}

/* One component, lower-cased: [A-Za-z0-9_.-]+ */
static int component_copy(char to[32], const char *p, size_t n)
{
	if (n == 0 || n >= 32)
		return -1;
	for (size_t i = 0; i < n; i++) {
		char c = p[i];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && !strchr("_.-", c))
			return -1;
		to[i] = c;
	}
	to[n] = 0;
	return 0;
}

static int platform_parse(struct platform *p, struct slice text, struct err *e)
{
	char part[3][32] = {{0}};
	size_t n = 0, at = 0;

	for (;; at++) {
		size_t end = at;

		while (end < text.n && text.p[end] != '/')
			end++;
		if (n == 3 || component_copy(part[n], text.p + at, end - at) < 0)
			return platform_refuse(text, "expected OS/ARCH or OS/ARCH/VARIANT", e);
		n++;
		at = end;
		if (at == text.n)
			break;
	}
	memset(p, 0, sizeof(*p));
	if (n == 1) {
		if (!known_arch(part[0]))
			return platform_refuse(text, "expected OS/ARCH, such as linux/amd64", e);
		strcpy(p->os, "linux");
		strcpy(p->arch, part[0]);
	} else {
		strcpy(p->os, part[0]);
		strcpy(p->arch, part[1]);
		strcpy(p->variant, part[2]);
	}
	platform_normalize(p);
	return 0;
}

#define PLATFORM_TEXT 100
#define PLATFORMS_MAX 64

static int text_cmp(const void *a, const void *b)
{
	return strcmp(a, b);
}

int platforms_normalize(const char *text, char **sorted, struct err *e)
{
	char list[PLATFORMS_MAX][PLATFORM_TEXT];
	struct buf b = BUF_INIT(PLATFORMS_MAX * PLATFORM_TEXT);
	struct platform p;
	size_t n = 0;

	for (const char *s = text; slice_trim(text, strlen(text)).n > 0;) {
		size_t len = strcspn(s, ",");

		if (n == PLATFORMS_MAX)
			return err_set(e, ERR_INVALID, "more than %d platforms", PLATFORMS_MAX);
		if (platform_parse(&p, slice_trim(s, len), e) < 0)
			return -1;
		snprintf(list[n++], PLATFORM_TEXT, "%s/%s%s%s", p.os, p.arch,
			 p.variant[0] ? "/" : "", p.variant);
		if (!s[len])
			break;
		s += len + 1;
	}
	qsort(list, n, PLATFORM_TEXT, text_cmp);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && strcmp(list[i], list[i - 1]) == 0)
			continue;
		if (b.len > 0)
			buf_add_char(&b, ',', NULL);
		buf_add_str(&b, list[i], NULL);
	}
	*sorted = mem_strdup(b.data);
	buf_fini(&b);
	return 0;
}

bool platforms_match(const char *platforms, const char *os, const char *arch, const char *variant)
{
	struct platform p = {0}, want;

	if (!platforms[0])
		return true;
	if (component_copy(p.os, os, strlen(os)) < 0 ||
	    component_copy(p.arch, arch, strlen(arch)) < 0)
		return false;
	if (variant[0] && component_copy(p.variant, variant, strlen(variant)) < 0)
		return false;
	platform_normalize(&p);
	for (const char *s = platforms;;) {
		size_t n = strcspn(s, ",");

		if (platform_parse(&want, (struct slice){s, n}, NULL) == 0 &&
		    strcmp(p.os, want.os) == 0 && strcmp(p.arch, want.arch) == 0 &&
		    strcmp(p.variant, want.variant) == 0)
			return true;
		if (!s[n])
			return false;
		s += n + 1;
	}
}
