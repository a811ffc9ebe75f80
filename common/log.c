/* common/log.c - see log.h.  logrus' three forms: text, JSON, terminal.  A line is built whole and
 * written with one write(2), so that lines of several processes on one descriptor do not mix; with
 * log_hold() several whole lines go into one. */
#include "common/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/str.h"

#define MAX_FIELDS 32
#define MAX_LINE (64u << 10)
#define MAX_HELD (256u << 10)

static struct {
	enum log_level level;
	enum log_format format;
	int fd;
	bool set;
	const char *module;
	void (*wake)(void *arg); /* lines are held */
	void *wake_arg;
	struct buf held;
} out = {.level = LOG_INFO, .fd = STDERR_FILENO, .held = BUF_INIT(MAX_HELD)};

static _Thread_local char task[40];

static const char *const names[] = {"debug", "info", "warning", "error", "fatal"};

void log_setup(enum log_level level, enum log_format format, int fd)
{
	out.level = level;
	out.format = format;
	out.fd = fd;
	out.set = true;
}

int log_level_parse(const char *s, enum log_level *l, struct err *e)
{
	for (int i = 0; i <= LOG_FATAL; i++)
		if (strcmp(names[i], s) == 0) {
			*l = (enum log_level)i;
			return 0;
		}
	if (strcmp(s, "warn") == 0) {
		*l = LOG_WARNING;
		return 0;
	}
	return err_set(e, ERR_INVALID, "'%.40s' is no log level (debug, info, warning, error)", s);
}

bool log_enabled(enum log_level l)
{
	return l >= out.level;
}

void log_bind_task(const char *task_id)
{
	snprintf(task, sizeof(task), "%s", task_id ? task_id : "");
}

void log_bind_module(const char *module)
{
	out.module = module;
}

/* logrus leaves a value bare if it has only these (also when it is empty). */
static bool bare_char(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '@' && c <= 'Z') || (c >= '-' && c <= '9') ||
	       c == '_' || c == '^' || c == '+'; /* @ A-Z, - . / 0-9 */
}

static bool bare(const char *s)
{
	while (bare_char((unsigned char)*s))
		s++;
	return !*s;
}

/* Bytes that stand for themselves between quotes. */
static size_t plain(const char *s)
{
	size_t n = 0;

	while (s[n] >= 0x20 && s[n] != 0x7f && s[n] != '"' && s[n] != '\\')
		n++;
	return n;
}

/* As Go's strconv.Quote: printable UTF-8 stays, the rest is \x.. or \u.... */
static void quote_go(struct buf *b, const char *s)
{
	char clean[5];

	buf_add_char(b, '"', NULL);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		size_t same = plain(s);

		if (same) {
			buf_add(b, s, same, NULL);
			s += same - 1;
		} else if (c == '"' || c == '\\')
			buf_addf(b, NULL, "\\%c", c);
		else if (c == '\n')
			buf_add_str(b, "\\n", NULL);
		else if (c == '\t')
			buf_add_str(b, "\\t", NULL);
		else if (c == '\r')
			buf_add_str(b, "\\r", NULL);
		else if (c < 0x20 || c == 0x7F)
			buf_addf(b, NULL, "\\x%02x", c);
		else {
			size_t n = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;

			if (strnlen(s, n) < n || !str_utf8_valid(s, n)) {
				buf_addf(b, NULL, "\\x%02x", c);
				continue;
			}
			memcpy(clean, s, n);
			clean[n] = '\0';
			str_clean(clean); /* bidi overrides and their like */
			buf_add_str(b, clean, NULL);
			s += n - 1;
		}
	}
	buf_add_char(b, '"', NULL);
}

static void quote_json(struct buf *b, const char *s)
{
	buf_add_char(b, '"', NULL);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			buf_addf(b, NULL, "\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			buf_addf(b, NULL, "\\u%04x", c);
		else
			buf_add_char(b, (char)c, NULL);
	}
	buf_add_char(b, '"', NULL);
}

/* A handful, so by insertion. */
static void sort_by_key(const struct log_field **f, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		const struct log_field *one = f[i];
		size_t k = i;

		for (; k > 0 && strcmp(f[k - 1]->key, one->key) > 0; k--)
			f[k] = f[k - 1];
		f[k] = one;
	}
}

static const char *field_text(const struct log_field *f, char text[32])
{
	switch (f->kind) {
	case FIELD_U64:
		snprintf(text, 32, "%llu", (unsigned long long)f->u);
		return text;
	case FIELD_I64:
		snprintf(text, 32, "%lld", (long long)f->i);
		return text;
	case FIELD_BOOL:
		return f->i ? "true" : "false";
	default:
		return f->s ? f->s : "";
	}
}

static void line_text(struct buf *b, enum log_level l, const char *when, const char *msg,
		      const struct log_field **f, size_t n)
{
	char text[32];

	buf_add_str(b, "time=\"", NULL);
	buf_add_str(b, when, NULL);
	buf_add_str(b, "\" level=", NULL);
	buf_add_str(b, names[l], NULL);
	buf_add_str(b, " msg=", NULL);
	if (bare(msg))
		buf_add_str(b, msg, NULL);
	else
		quote_go(b, msg);
	for (size_t i = 0; i < n; i++) {
		const char *v = field_text(f[i], text);

		buf_add_char(b, ' ', NULL);
		buf_add_str(b, f[i]->key, NULL);
		buf_add_char(b, '=', NULL);
		if (bare(v))
			buf_add_str(b, v, NULL);
		else
			quote_go(b, v);
	}
}

static void line_json(struct buf *b, enum log_level l, const char *when, const char *msg,
		      const struct log_field **f, size_t n)
{
	char text[32];

	buf_addf(b, NULL, "{\"level\":\"%s\",\"msg\":", names[l]);
	quote_json(b, msg);
	buf_addf(b, NULL, ",\"time\":\"%s\"", when);
	for (size_t i = 0; i < n; i++) {
		buf_addf(b, NULL,
			 ",\"%s\":", strcmp(f[i]->key, "task") == 0 ? "task_id" : f[i]->key);
		if (f[i]->kind == FIELD_STR)
			quote_json(b, field_text(f[i], text));
		else
			buf_add_str(b, field_text(f[i], text), NULL);
	}
	buf_add_char(b, '}', NULL);
}

static void line_terminal(struct buf *b, enum log_level l, const char *when, const char *msg,
			  const struct log_field **f, size_t n)
{
	static const char *const colour[] = {"37", "36", "33", "31", "31"};
	static const char *const four[] = {"DEBU", "INFO", "WARN", "ERRO", "FATA"};
	char shown[512], text[32];

	str_copy(shown, sizeof(shown), msg);
	str_clean(shown);
	buf_addf(b, NULL, "\033[%sm%s\033[0m[%s] %-44s ", colour[l], four[l], when, shown);
	for (size_t i = 0; i < n; i++) {
		const char *v = field_text(f[i], text);

		buf_addf(b, NULL, " \033[%sm%s\033[0m=", colour[l], f[i]->key);
		if (bare(v))
			buf_add_str(b, v, NULL);
		else
			quote_go(b, v);
	}
}

static void write_all(const char *p, size_t n)
{
	while (n > 0) {
		ssize_t r = write(out.fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return; /* nobody reads our log: going on is better than dying */
		p += r;
		n -= (size_t)r;
	}
}

void log_flush(void)
{
	if (!out.held.len)
		return;
	write_all(out.held.data, out.held.len);
	buf_reset(&out.held);
}

void log_hold(void (*wake)(void *arg), void *arg)
{
	log_flush();
	buf_fini(&out.held);
	out.wake = wake;
	out.wake_arg = arg;
}

static void emit(enum log_level l, const struct buf *line)
{
	bool keep = out.wake && l <= LOG_INFO;

	if (out.held.len + line->len > MAX_HELD / 2)
		log_flush();
	if (!keep && !out.held.len) {
		write_all(line->data, line->len);
		return;
	}
	if (!out.held.len && out.wake)
		out.wake(out.wake_arg);
	buf_add(&out.held, line->data, line->len, NULL);
	if (!keep)
		log_flush();
}

void log_line(enum log_level l, const char *msg, ...)
{
	const struct log_field *f[MAX_FIELDS + 2], *one;
	/* not made by F_STR: a compound literal ends with the block it stands in */
	const struct log_field bound_task = {.key = "task", .kind = FIELD_STR, .s = task},
			       bound_module = {.key = "module", .kind = FIELD_STR, .s = out.module};
	bool has_task = false, has_module = false;
	enum log_format format = out.format;
	struct buf b;
	char when[CLOCK_TEXT];
	size_t n = 0;
	va_list ap;

	if (!log_enabled(l))
		return;
	va_start(ap, msg);
	while ((one = va_arg(ap, const struct log_field *)) && n < MAX_FIELDS) {
		has_task |= strcmp(one->key, "task") == 0;
		has_module |= strcmp(one->key, "module") == 0;
		f[n++] = one;
	}
	va_end(ap);
	if (!has_task && task[0])
		f[n++] = &bound_task;
	if (!has_module && out.module)
		f[n++] = &bound_module;
	sort_by_key(f, n);
	clock_rfc3339(when, clock_wall_ns(), 9);
	if (!out.set && isatty(out.fd))
		format = LOG_TERMINAL;
	buf_init(&b, MAX_LINE);
	buf_reserve(&b, 500, NULL);
	if (format == LOG_JSON)
		line_json(&b, l, when, msg, f, n);
	else if (format == LOG_TERMINAL)
		line_terminal(&b, l, when, msg, f, n);
	else
		line_text(&b, l, when, msg, f, n);
	if (b.len == b.max)
		b.len--;
	buf_add_char(&b, '\n', NULL);
	emit(l, &b);
	buf_fini(&b);
}
