/* worker/drivers/tarsplit.c - see tarsplit.h.
 *
 * A line for the bytes before an entry's contents (the padding of the one before, and its headers),
 * then a line for the entry with the CRC-64 of its contents; at the end a line for the end marker,
 * and lines for what comes after. */
#include "worker/drivers/tarsplit.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/codec/crc64.h"
#include "worker/tar/tar_reader.h"

#define SEGMENT_MOST ((size_t)1 << 20)
#define END_MARKER 1024u
#define LINE_MAX ((size_t)1 << 30)

struct tarsplit {
	tarsplit_put *put;
	void *arg;
	uint64_t lines, bytes;
	struct buf segment, line, name;
	bool in_entry; /* its line is written when its contents have passed */
	uint64_t size, left;
	uint64_t crc;
	uint64_t marker; /* bytes of the end marker seen */
};

struct tarsplit *tarsplit_new(tarsplit_put *put, void *arg)
{
	struct tarsplit *t = mem_zalloc(sizeof(*t));

	t->put = put;
	t->arg = arg;
	buf_init(&t->segment, LINE_MAX);
	buf_init(&t->line, LINE_MAX);
	buf_init(&t->name, LINE_MAX);
	return t;
}

void tarsplit_freep(struct tarsplit **tt)
{
	struct tarsplit *t = take_ptr(*tt);

	if (!t)
		return;
	buf_fini(&t->segment);
	buf_fini(&t->line);
	buf_fini(&t->name);
	free(t);
}

uint64_t tarsplit_bytes(const struct tarsplit *t)
{
	return t->bytes;
}

static int put_line(struct tarsplit *t, struct err *e)
{
	if (buf_addf(&t->line, e, ",\"position\":%" PRIu64 "}\n", t->lines) < 0)
		return -1;
	t->lines++;
	t->bytes += t->line.len;
	return t->put(t->arg, t->line.data, t->line.len, e);
}

static int put_segment(struct tarsplit *t, const void *p, size_t n, struct err *e)
{
	buf_reset(&t->line);
	if (buf_add_str(&t->line, "{\"type\":2,\"payload\":\"", e) < 0 ||
	    str_base64(&t->line, p, n, e) < 0 || buf_add_str(&t->line, "\"", e) < 0)
		return -1;
	return put_line(t, e);
}

/* As Go's encoder: <, > and & and the line separators are escaped too. */
static int put_quoted(struct buf *b, const char *s, struct err *e)
{
	if (buf_add_char(b, '"', e) < 0)
		return -1;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		int rc;

		if (c == '"' || c == '\\')
			rc = buf_addf(b, e, "\\%c", c);
		else if (c == '\n' || c == '\r' || c == '\t')
			rc = buf_addf(b, e, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
		else if (c < 0x20 || c == '<' || c == '>' || c == '&')
			rc = buf_addf(b, e, "\\u%04x", c);
		else if (!strncmp(s, "\xe2\x80\xa8", 3) || !strncmp(s, "\xe2\x80\xa9", 3))
			rc = buf_addf(b, e, "\\u202%c", s[2] == '\xa8' ? '8' : '9'), s += 2;
		else
			rc = buf_add_char(b, (char)c, e);
		if (rc < 0)
			return -1;
	}
	return buf_add_char(b, '"', e);
}

static int put_name(struct tarsplit *t, struct err *e)
{
	if (!t->name.len)
		return 0;
	if (str_utf8_valid(t->name.data, t->name.len))
		return buf_add_str(&t->line, ",\"name\":", e) < 0
			       ? -1
			       : put_quoted(&t->line, t->name.data, e);
	if (buf_add_str(&t->line, ",\"name_raw\":\"", e) < 0 ||
	    str_base64(&t->line, t->name.data, t->name.len, e) < 0)
		return -1;
	return buf_add_str(&t->line, "\"", e);
}

static int end_entry(struct tarsplit *t, struct err *e)
{
	uint8_t crc[8];

	t->in_entry = false;
	buf_reset(&t->line);
	if (buf_add_str(&t->line, "{\"type\":1", e) < 0 || put_name(t, e) < 0)
		return -1;
	if (!t->size)
		return buf_add_str(&t->line, ",\"payload\":null", e) < 0 ? -1 : put_line(t, e);
	for (int i = 0; i < 8; i++)
		crc[i] = (uint8_t)(t->crc >> (56 - 8 * i));
	if (buf_addf(&t->line, e, ",\"size\":%" PRIu64 ",\"payload\":\"", t->size) < 0 ||
	    str_base64(&t->line, crc, sizeof(crc), e) < 0 || buf_add_str(&t->line, "\"", e) < 0)
		return -1;
	return put_line(t, e);
}

static int begin_entry(struct tarsplit *t, const struct tar_entry *n, struct err *e)
{
	if (put_segment(t, t->segment.data, t->segment.len, e) < 0)
		return -1;
	buf_reset(&t->segment);
	buf_reset(&t->name);
	if (buf_add_str(&t->name, n->name, e) < 0)
		return -1;
	t->in_entry = true;
	t->size = t->left = n->size;
	t->crc = 0;
	return t->left ? 0 : end_entry(t, e);
}

/* The end marker is one segment with the padding before it; what follows comes in parts. */
static int put_trailer(struct tarsplit *t, const uint8_t *p, size_t n, struct err *e)
{
	while (n) {
		uint64_t room = t->marker < END_MARKER ? END_MARKER - t->marker
						       : SEGMENT_MOST - t->segment.len;
		size_t part = room < n ? (size_t)room : n;

		if (buf_add(&t->segment, p, part, e) < 0)
			return -1;
		t->marker += part;
		p += part;
		n -= part;
		if (part < room)
			break;
		if (put_segment(t, t->segment.data, t->segment.len, e) < 0)
			return -1;
		buf_reset(&t->segment);
	}
	return 0;
}

int tarsplit_piece(struct tarsplit *t, const struct tar_piece *p, struct err *e)
{
	switch (p->kind) {
	case TAR_HEADER:
		return buf_add(&t->segment, p->raw, p->len, e) < 0 ? -1
								   : begin_entry(t, p->entry, e);
	case TAR_DATA:
		t->crc = crc64(t->crc, p->raw, p->len);
		t->left -= p->len;
		return t->left ? 0 : end_entry(t, e);
	case TAR_PADDING:
		return buf_add(&t->segment, p->raw, p->len, e);
	case TAR_TRAILER:
		return put_trailer(t, p->raw, p->len, e);
	default:
		return err_set(e, ERR_BUG, "a sparse file was shown to tar-split");
	}
}

int tarsplit_end(struct tarsplit *t, struct err *e)
{
	if (!t->segment.len)
		return 0;
	if (put_segment(t, t->segment.data, t->segment.len, e) < 0)
		return -1;
	buf_reset(&t->segment);
	return 0;
}
