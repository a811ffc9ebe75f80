/* accelctl/tasklist.c - see tasklist.h.
 *
 * Go's text/tabwriter with tabs as padding: a column is as wide as its longest cell plus one,
 * rounded up to 8; the last cell of a line is not padded. */
#include "accelctl/tasklist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

enum { COLUMNS = 9, UPSTREAM_COLUMNS = 5, CUT = 80, TAB = 8 };

/* ---- decoding, with the words of Go's encoding/json */

static const char *go_kind(enum json_kind k)
{
	static const char *const names[] = {
		[JSON_NULL] = "null",	  [JSON_BOOL] = "bool",	    [JSON_INT] = "number",
		[JSON_DOUBLE] = "number", [JSON_STRING] = "string", [JSON_ARRAY] = "array",
		[JSON_OBJECT] = "object"};

	return names[k];
}

/* A number as it stood in the text: the first under that key that is no plain number. */
static void odd_number(const char *body, const char *key, char to[64])
{
	scoped_free char *name = mem_printf("\"%s\"", key);

	to[0] = 0;
	for (const char *p = body; (p = strstr(p, name));) {
		p += strlen(name);
		p += strspn(p, " \t\r\n:");
		size_t n = strspn(p, "+-.0123456789eE");

		if (n == strspn(p, "0123456789") || n >= 64)
			continue;
		memcpy(to, p, n);
		to[n] = 0;
		return;
	}
}

static int check_size(const struct json *task, const char *key, const char *body, struct err *e)
{
	const struct json *v = json_get(task, key);
	char number[64];

	if (!v || (json_kind(v) == JSON_INT && json_value_int(v) >= 0))
		return 0;
	if (json_kind(v) == JSON_INT || json_kind(v) == JSON_DOUBLE) {
		odd_number(body, key, number);
		return err_set(
			e, ERR_INVALID,
			"decode response: json: cannot unmarshal number %s into Go struct field "
			"Task.%s of type uint",
			number, key);
	}
	return err_set(e, ERR_INVALID,
		       "decode response: json: cannot unmarshal %s into Go struct field Task.%s of "
		       "type uint",
		       go_kind(json_kind(v)), key);
}

static int check_time(const struct json *task, const char *key, struct err *e)
{
	const struct json *v = json_get(task, key);
	const char *text = json_value_str(v);
	int64_t ns;

	if (!v || (text && (!strcmp(text, "0001-01-01T00:00:00Z") ||
			    clock_parse_rfc3339(text, &ns, NULL) == 0)))
		return 0;
	if (!text)
		return err_set(e, ERR_INVALID,
			       "decode response: Time.UnmarshalJSON: input is not a JSON string");
	return err_set(e, ERR_INVALID,
		       "decode response: parsing time \"%.80s\" as \"2006-01-02T15:04:05Z07:00\": "
		       "cannot parse \"%.80s\" as \"2006\"",
		       text, text);
}

static int check_text(const struct json *task, const char *key, struct err *e)
{
	const struct json *v = json_get(task, key);

	if (!v || json_kind(v) == JSON_STRING)
		return 0;
	return err_set(e, ERR_INVALID,
		       "decode response: json: cannot unmarshal %s into Go struct field Task.%s of "
		       "type string",
		       go_kind(json_kind(v)), key);
}

int tasklist_decode(struct json **list, const char *body, size_t n, struct err *e)
{
	const struct json_limits lenient = {.trailing = true};
	scoped(json_freep) struct json *j = NULL;

	if (json_parse(&j, body, n, &lenient, e) < 0)
		return err_wrap(e, "decode response");
	if (!j)
		j = json_new_array(); /* null */
	if (json_kind(j) != JSON_ARRAY)
		return err_set(e, ERR_INVALID,
			       "decode response: json: cannot unmarshal %s into Go value of type "
			       "[]task.Task",
			       go_kind(json_kind(j)));
	for (size_t i = 0; i < json_len(j); i++) {
		const struct json *t = json_at(j, i);

		if (check_text(t, "id", e) < 0 || check_time(t, "created", e) < 0 ||
		    check_time(t, "finished", e) < 0 || check_text(t, "source", e) < 0 ||
		    check_size(t, "source_size", body, e) < 0 ||
		    check_size(t, "target_size", body, e) < 0 || check_text(t, "status", e) < 0 ||
		    check_text(t, "reason", e) < 0)
			return -1;
	}
	*list = take_ptr(j);
	return 0;
}

/* ---- the table */

static size_t runes(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* "2006-01-02 15:04:05", in the zone that the server sent. */
static char *date(const struct json *task)
{
	const char *t = json_value_str(json_get(task, "created"));

	if (!t || strlen(t) < 19)
		return mem_strdup("0001-01-01 00:00:00");
	return mem_printf("%.10s %.8s", t, t + 11);
}

static char *text(const struct json *task, const char *key, bool cut)
{
	const char *v = json_value_str(json_get(task, key));
	char *s = v && cut && strlen(v) > CUT ? mem_printf("%.*s...", CUT, v)
					      : mem_strdup(v ? v : "");

	str_clean(s);
	return s;
}

static char *size(const struct json *task, const char *key)
{
	return mem_printf("%lld", (long long)json_value_int(json_get(task, key)));
}

static void fill_row(char *row[COLUMNS], const struct json *task)
{
	row[0] = text(task, "id", false);
	row[1] = date(task);
	row[2] = text(task, "status", false);
	row[3] = text(task, "source", true);
	row[4] = text(task, "reason", true);
	row[5] = text(task, "phase", false);
	row[6] = size(task, "source_size");
	row[7] = size(task, "target_size");
	row[8] = text(task, "progress", false);
}

static void write_row(char *const row[COLUMNS], const size_t width[COLUMNS], size_t columns,
		      struct buf *to)
{
	for (size_t i = 0; i < columns; i++) {
		size_t cell = (width[i] + 1 + TAB - 1) / TAB * TAB, n = runes(row[i]);

		buf_add_str(to, row[i], NULL);
		for (; i + 1 < columns && n < cell; n = n / TAB * TAB + TAB)
			buf_add_char(to, '\t', NULL);
	}
	buf_add_char(to, '\n', NULL);
}

void tasklist_table(const struct json *list, bool wide, bool header, struct buf *to)
{
	static const char *const head[COLUMNS] = {"ID",		 "CREATED",	"STATUS",
						  "SOURCE",	 "REASON",	"PHASE",
						  "SOURCE SIZE", "TARGET SIZE", "PROGRESS"};
	size_t rows = json_len(list) + 1, columns = wide ? COLUMNS : UPSTREAM_COLUMNS;
	size_t width[COLUMNS] = {0};
	char *(*row)[COLUMNS] = mem_array(rows, sizeof(*row));

	for (size_t r = 0; r < rows; r++) {
		for (size_t c = 0; r == 0 && c < COLUMNS; c++)
			row[0][c] = mem_strdup(head[c]);
		if (r > 0)
			fill_row(row[r], json_at(list, r - 1));
		for (size_t c = 0; c < COLUMNS && (r > 0 || header); c++)
			if (runes(row[r][c]) > width[c])
				width[c] = runes(row[r][c]);
	}
	for (size_t r = header ? 0 : 1; r < rows; r++)
		write_row(row[r], width, columns, to);
	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < COLUMNS; c++)
			free(row[r][c]);
	free(row);
}
