/* worker/packet.c - see packet.h. */
#include "worker/packet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"

#define PART_TEXT (24u << 10) /* quoted, it may grow to twice this */

static const struct json_limits limits = {.bytes = PACKET_DOCUMENT, .depth = 24};

void packet_reader_init(struct packet_reader *r)
{
	buf_init(&r->parts, PACKET_DOCUMENT);
	r->next = 0;
}

void packet_reader_fini(struct packet_reader *r)
{
	buf_wipe(&r->parts);
	r->next = 0;
}

const char *packet_type(const struct json *j)
{
	const char *t = json_value_str(json_get(j, "t"));

	return t ? t : "";
}

/* {"t":"part","i":0,"of":3,"data":"..."} */
static int take_part(struct packet_reader *r, const struct json *part, struct json **j,
		     struct err *e)
{
	const struct json *data = json_get(part, "data");
	int64_t i, of;

	if (json_int(part, "i", "part", &i, e) < 0 || json_int(part, "of", "part", &of, e) < 0)
		return -1;
	if (!json_value_str(data) || i != r->next || i >= of || of > 64)
		return err_set(e, ERR_INVALID, "packet: part %lld of %lld does not follow",
			       (long long)i, (long long)of);
	if (buf_add(&r->parts, json_value_str(data), json_value_len(data), e) < 0)
		return -1;
	if (++r->next < of)
		return 0;
	r->next = 0;
	i = json_parse(j, r->parts.data, r->parts.len, &limits, e);
	buf_reset(&r->parts);
	if (i < 0)
		return -1;
	if (json_kind(*j) != JSON_OBJECT || strcmp(packet_type(*j), "part") == 0) {
		json_freep(j);
		return err_set(e, ERR_INVALID, "packet: no object");
	}
	return 1;
}

int packet_take(struct packet_reader *r, const char *p, size_t n, struct json **j, struct err *e)
{
	scoped(json_freep) struct json *one = NULL;

	*j = NULL;
	if (json_parse(&one, p, n, &limits, e) < 0)
		return err_wrap(e, "packet");
	if (json_want(one, JSON_OBJECT, "packet", e) < 0)
		return -1;
	if (strcmp(packet_type(one), "part") == 0)
		return take_part(r, one, j, e);
	*j = take_ptr(one);
	return 1;
}

int packet_read(struct packet_reader *r, int fd, struct json **j, struct err *e)
{
	scoped_free char *p = mem_alloc(PACKET_BYTES);
	ssize_t n;
	int got;

	do {
		do
			n = recv(fd, p, PACKET_BYTES, MSG_TRUNC);
		while (n < 0 && errno == EINTR);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return -2;
		if (n < 0 && errno != ECONNRESET)
			return err_errno(e, errno, "packet");
		if (n <= 0)
			return 0;
		if (n > (ssize_t)PACKET_BYTES)
			return err_set(e, ERR_LIMIT, "packet of %zd bytes", n);
		got = packet_take(r, p, (size_t)n, j, e);
		explicit_bzero(p, (size_t)n);
	} while (got == 0);
	return got;
}

static int send_text(int fd, const char *p, size_t n, struct err *e)
{
	ssize_t r;

	do
		r = send(fd, p, n, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS))
		return err_set(e, ERR_BUSY, "the other process does not read");
	return r < 0 ? err_errno(e, errno, "packet") : 0;
}

int packet_send(int fd, const struct json *j, struct err *e)
{
	scoped(buf_wipe) struct buf text = BUF_INIT(PACKET_DOCUMENT), part = BUF_INIT(PACKET_BYTES);
	size_t of, from = 0;

	if (json_write(j, JSON_COMPACT, &text, e) < 0)
		return -1;
	if (text.len <= PACKET_BYTES)
		return send_text(fd, text.data, text.len, e);
	of = (text.len + PART_TEXT - 1) / PART_TEXT;
	for (size_t i = 0; i < of; i++) {
		size_t n = text.len - from < PART_TEXT ? text.len - from : PART_TEXT;

		/* never inside a UTF-8 sequence: each part is JSON of its own */
		while (from + n < text.len && ((unsigned char)text.data[from + n] & 0xC0) == 0x80)
			n--;
		buf_reset(&part);
		if (buf_addf(&part, e, "{\"t\":\"part\",\"i\":%zu,\"of\":%zu,\"data\":", i, of) <
			    0 ||
		    json_quote(&part, text.data + from, i + 1 == of ? text.len - from : n, e) < 0 ||
		    buf_add_char(&part, '}', e) < 0 || send_text(fd, part.data, part.len, e) < 0)
			return -1;
		from += n;
	}
	return 0;
}
