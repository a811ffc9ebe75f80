/* accelctl/progress.c - see progress.h. */
#include "accelctl/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/env.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

#define REDRAW_MS 100
#define PLAIN_MS 5000
#define BAR 24
#define RATE_MS 3000 /* what the rate is taken over */

struct row {
	struct layer_progress l;
	uint64_t began_ms, told_ms;
	uint64_t mark_ms, mark_bytes; /* rate: since then */
	double rate;		      /* bytes a second */
};

struct progress {
	enum progress_mode mode;
	struct row *row; /* by order of first sight */
	size_t n, cap;
	struct convert_progress all;
	struct row sum;
	uint64_t drawn_ms;
	size_t lines; /* on the screen now */
	bool colour, hidden;
};

int progress_mode_parse(const char *text, enum progress_mode *m, struct err *e)
{
	static const char *const names[] = {"auto", "tty", "plain", "json", "none"};

	for (int i = 0; i <= PROGRESS_NONE; i++)
		if (strcmp(names[i], text) == 0) {
			*m = (enum progress_mode)i;
			return 0;
		}
	return err_set(e, ERR_INVALID,
		       "progress is '%.40s', expected auto, tty, plain, json or none", text);
}

struct progress *progress_new(enum progress_mode m)
{
	struct progress *p = mem_zalloc(sizeof(*p));
	const char *term = env_get("TERM");
	bool terminal = isatty(STDERR_FILENO) && !str_eq(term, "dumb");

	p->mode = m == PROGRESS_AUTO ? (terminal ? PROGRESS_TTY : PROGRESS_PLAIN) : m;
	p->colour = terminal && !env_get("NO_COLOR");
	return p;
}

const char *progress_size(uint64_t bytes, char text[24])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 999.5 && u < 4) {
		v /= 1000;
		u++;
	}
	snprintf(text, 24, u == 0 || v >= 99.95 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return text;
}

static void time_left(double seconds, char text[24])
{
	unsigned s = (unsigned)(seconds + 0.5);

	if (seconds < 0 || seconds > 359999)
		text[0] = '\0';
	else if (s >= 3600)
		snprintf(text, 24, "%uh%02um", s / 3600, s / 60 % 60);
	else if (s >= 60)
		snprintf(text, 24, "%um%02us", s / 60, s % 60);
	else
		snprintf(text, 24, "%us", s);
}

static void note_rate(struct row *r, uint64_t now)
{
	uint64_t ms = now - r->mark_ms;

	if (!r->mark_ms) {
		r->mark_ms = now;
		r->mark_bytes = r->l.in_bytes;
	} else if (ms >= 500) {
		double now_rate = (double)(r->l.in_bytes - r->mark_bytes) * 1000 / (double)ms;

		r->rate = r->rate > 0 ? r->rate * 0.6 + now_rate * 0.4 : now_rate;
		r->mark_ms = now;
		r->mark_bytes = r->l.in_bytes;
	}
}

/* ---- a terminal */
static void terminal_size(size_t *rows, size_t *columns)
{
	struct winsize w;

	*rows = 24;
	*columns = 80;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row && w.ws_col) {
		*rows = w.ws_row;
		*columns = w.ws_col;
	}
}

static void put_bar(struct buf *b, uint64_t part, uint64_t whole)
{
	size_t n = whole ? (size_t)(part * BAR / whole) : 0;

	if (n > BAR)
		n = BAR;
	buf_add_char(b, '[', NULL);
	for (size_t i = 0; i < BAR; i++)
		buf_add_char(b, i < n ? '=' : (i == n && part < whole ? '>' : ' '), NULL);
	buf_add_char(b, ']', NULL);
}

/* A line never wraps: what was drawn could not be taken back. */
static void end_line(struct buf *b, size_t from, size_t columns)
{
	size_t width = b->len - from;

	if (width >= columns) {
		b->len = from + columns - 1;
		b->data[b->len] = '\0';
	}
	buf_add_str(b, "\033[K\n", NULL);
}

static void put_row(struct buf *b, const struct progress *p, const struct row *r, const char *name,
		    size_t columns)
{
	char done[24], total[24], out[24], rate[24], left[24];
	size_t from = b->len;
	const struct layer_progress *l = &r->l;

	switch (l->state) {
	case LAYER_RUNNING:
		buf_addf(b, NULL, "%-20s ", name);
		put_bar(b, l->in_bytes, l->in_total);
		buf_addf(b, NULL, " %8s / %-8s", progress_size(l->in_bytes, done),
			 progress_size(l->in_total, total));
		if (r->rate > 0) {
			time_left((double)(l->in_total - l->in_bytes) / r->rate, left);
			buf_addf(b, NULL, " %8s/s %6s", progress_size((uint64_t)r->rate, rate),
				 left);
		}
		break;
	case LAYER_DONE:
	case LAYER_CACHED:
		buf_addf(b, NULL, "%-20s %s  %s -> %s%s%s", name,
			 l->state == LAYER_CACHED ? "cached" : "done  ",
			 progress_size(l->in_total, total), progress_size(l->out_bytes, out),
			 l->note[0] ? "  plain: " : "", l->note);
		break;
	case LAYER_FAILED:
		buf_addf(b, NULL, "%-20s failed  %s", name, l->note);
		break;
	default:
		buf_addf(b, NULL, "%-20s waiting", name);
	}
	end_line(b, from, columns);
}

static void put_sum(struct buf *b, struct progress *p, size_t columns)
{
	const struct convert_progress *a = &p->all;
	char done[24], total[24], rate[24], left[24] = "";
	size_t from = b->len;

	buf_addf(b, NULL, "layers %3u of %-3u     ", a->layers_done, a->layers_total);
	put_bar(b, a->in_bytes, a->in_total);
	buf_addf(b, NULL, " %8s / %-8s", progress_size(a->in_bytes, done),
		 progress_size(a->in_total, total));
	if (p->sum.rate > 0 && a->in_bytes < a->in_total) {
		time_left((double)(a->in_total - a->in_bytes) / p->sum.rate, left);
		buf_addf(b, NULL, " %8s/s %6s", progress_size((uint64_t)p->sum.rate, rate), left);
	}
	end_line(b, from, columns);
}

static void row_name(const struct row *r, char text[DIGEST_TEXT])
{
	digest_short(&r->l.from, text);
}

/* Running layers first, then those that ended last; all of them below the terminal's height. */
static void put_rows(struct buf *b, const struct progress *p, size_t height, size_t columns,
		     size_t *lines)
{
	size_t running = 0, room, skip;
	char name[DIGEST_TEXT];

	for (size_t i = 0; i < p->n; i++)
		running += p->row[i].l.state == LAYER_RUNNING;
	room = height > running + 2 ? height - running - 2 : 0;
	skip = p->n - running > room ? p->n - running - room : 0;
	for (size_t i = 0; i < p->n; i++) {
		const struct row *r = &p->row[i];

		if (r->l.state != LAYER_RUNNING && skip) {
			skip--;
			continue;
		}
		if (*lines + 2 >= height)
			break;
		row_name(r, name);
		put_row(b, p, r, name, columns);
		(*lines)++;
	}
}

static void write_all(const char *p, size_t n)
{
	while (n > 0) {
		ssize_t r = write(STDERR_FILENO, p, n);

		if (r <= 0)
			return;
		p += r;
		n -= (size_t)r;
	}
}

static void draw(struct progress *p)
{
	struct buf b = BUF_INIT(256u << 10);
	size_t height, columns, lines = 0;

	terminal_size(&height, &columns);
	if (!p->hidden)
		buf_add_str(&b, "\033[?25l", NULL);
	p->hidden = true;
	if (p->lines)
		buf_addf(&b, NULL, "\033[%zuA", p->lines);
	put_rows(&b, p, height, columns, &lines);
	put_sum(&b, p, columns);
	lines++;
	buf_add_str(&b, "\033[J", NULL);
	write_all(b.data, b.len);
	p->lines = lines;
	buf_fini(&b);
}

void progress_clear(struct progress *p)
{
	char text[64];

	if (p->mode != PROGRESS_TTY || !p->lines)
		return;
	snprintf(text, sizeof(text), "\033[%zuA\033[J\033[?25h", p->lines);
	write_all(text, strlen(text));
	p->lines = 0;
	p->hidden = false;
}

/* ---- no terminal */
static void plain(struct row *r, bool changed, uint64_t now)
{
	static const char *const msgs[] = {[LAYER_WAITING] = "layer waits",
					   [LAYER_RUNNING] = "layer is being converted",
					   [LAYER_DONE] = "layer converted",
					   [LAYER_CACHED] = "layer was cached",
					   [LAYER_FAILED] = "layer failed"};
	const struct layer_progress *l = &r->l;
	char text[DIGEST_TEXT];

	if (l->state == LAYER_RUNNING && (changed || now - r->told_ms < PLAIN_MS))
		return;
	if (!changed && l->state != LAYER_RUNNING)
		return;
	r->told_ms = now;
	digest_text(&l->from, text);
	if (l->note[0])
		log_info(msgs[l->state], F_MODULE("converter"), F_STR("digest", text),
			 F_U64("in_bytes", l->in_bytes), F_U64("out_bytes", l->out_bytes),
			 F_STR(l->state == LAYER_FAILED ? "reason" : "plain", l->note), NULL);
	else
		log_info(msgs[l->state], F_MODULE("converter"), F_STR("digest", text),
			 F_U64("in_bytes", l->in_bytes), F_U64("in_total", l->in_total),
			 F_U64("out_bytes", l->out_bytes), F_U64("ms", now - r->began_ms), NULL);
}

static void json_line(const struct progress *p, const struct row *r)
{
	static const char *const states[] = {"waiting", "running", "done", "cached", "failed"};
	char text[DIGEST_TEXT], line[512];
	int n = snprintf(line, sizeof(line),
			 "{\"layer\":\"%s\",\"state\":\"%s\",\"in_bytes\":%" PRIu64
			 ",\"in_total\":%" PRIu64 ",\"out_bytes\":%" PRIu64
			 ",\"layers_done\":%u,\"layers_total\":%u}\n",
			 digest_text(&r->l.from, text), states[r->l.state], r->l.in_bytes,
			 r->l.in_total, r->l.out_bytes, p->all.layers_done, p->all.layers_total);

	write_all(line, (size_t)n);
}

/* ---- */
static struct row *row_of(struct progress *p, const struct layer_progress *l)
{
	for (size_t i = 0; i < p->n; i++)
		if (digest_eq(&p->row[i].l.from, &l->from))
			return &p->row[i];
	mem_grow(p->row, p->n, p->cap);
	p->row[p->n] = (struct row){.l.from = l->from, .began_ms = clock_mono_ms()};
	p->row[p->n].told_ms = p->row[p->n].began_ms;
	return &p->row[p->n++];
}

void progress_layer(struct progress *p, const struct layer_progress *l,
		    const struct convert_progress *all)
{
	uint64_t now = clock_mono_ms();
	struct row *r = row_of(p, l);
	bool changed = r->l.state != l->state;

	r->l = *l;
	p->all = *all;
	p->sum.l.in_bytes = all->in_bytes;
	note_rate(r, now);
	note_rate(&p->sum, now);
	if (p->mode == PROGRESS_PLAIN)
		plain(r, changed, now);
	else if (p->mode == PROGRESS_JSON && (changed || now - r->told_ms >= REDRAW_MS)) {
		r->told_ms = now;
		json_line(p, r);
	} else if (p->mode == PROGRESS_TTY && (changed || now - p->drawn_ms >= REDRAW_MS)) {
		p->drawn_ms = now;
		draw(p);
	}
}

void progress_freep(struct progress **pp)
{
	struct progress *p = *pp;

	if (!p)
		return;
	if (p->mode == PROGRESS_TTY && p->lines) /* the last state stays */
		draw(p);
	if (p->hidden)
		write_all("\033[?25h", 6);
	free(p->row);
	free(p);
	*pp = NULL;
}
