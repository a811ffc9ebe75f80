/* worker/rafs/rafs_zran.c - see rafs_zran.h. */
#include "worker/rafs/rafs_zran.h"

#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/scope.h"
#include "worker/codec/blocks.h"
#include "worker/rafs/rafs_v6.h"

#define APART (32u << 10) /* unpacked bytes between boundaries that are kept */
#define CONTEXT_IN (512u << 10)
#define CONTEXT_OUT (2u << 20)
#define CONTEXT_MAX (16u << 20)

struct mark { /* a boundary where inflate can start */
	uint64_t in, out, member;
	uint8_t bits, byte;
	uint8_t *window;
	uint32_t window_n;
};

struct end { /* a boundary where it can stop */
	uint64_t in, out;
};

struct context {
	struct mark start;
	uint64_t last; /* end of its last chunk, unpacked */
	uint64_t in_len, out_len;
	size_t chunks;
};

struct kept {
	struct rafs_zran_chunk c;
	uint64_t end; /* unpacked */
};

struct rafs_zran {
	struct mark *ahead; /* in order; [first, n) */
	size_t first, n_ahead, cap_ahead;
	struct mark now; /* the latest one at or before where we are */
	bool have_now;
	struct end *end;
	size_t n_ends, cap_ends;
	uint64_t kept_out; /* of the last boundary that was kept */
	struct context *context;
	size_t n_contexts, cap_contexts;
	struct kept *chunk;
	size_t n_chunks, cap_chunks;
	struct kept open; /* the chunk begun */
	bool fresh;	  /* its context was made for it */
	bool impossible;
};

struct rafs_zran *rafs_zran_new(void)
{
	return mem_zalloc(sizeof(struct rafs_zran));
}

void rafs_zran_freep(struct rafs_zran **zp)
{
	struct rafs_zran *z = take_ptr(*zp);

	if (!z)
		return;
	for (size_t i = z->first; i < z->n_ahead; i++)
		free(z->ahead[i].window);
	for (size_t i = 0; i < z->n_contexts; i++)
		free(z->context[i].start.window);
	free(z->now.window);
	free(z->ahead);
	free(z->end);
	free(z->context);
	free(z->chunk);
	free(z);
}

void rafs_zran_give_up(struct rafs_zran *z)
{
	z->impossible = true;
}

int rafs_zran_block(struct rafs_zran *z, const struct block *b, struct err *e)
{
	bool starts_member = b->out_pos == b->member_out && !b->end;
	struct mark *m;

	if (!b->end && !starts_member && b->out_pos - z->kept_out < APART)
		return 0;
	z->kept_out = b->out_pos;
	mem_grow(z->end, z->n_ends, z->cap_ends);
	z->end[z->n_ends++] = (struct end){b->in_pos, b->out_pos};
	if (b->end)
		return 0;
	if (z->first && z->first == z->n_ahead)
		z->first = z->n_ahead = 0;
	mem_grow(z->ahead, z->n_ahead, z->cap_ahead);
	m = &z->ahead[z->n_ahead++];
	*m = (struct mark){.in = b->in_pos,
			   .out = b->out_pos,
			   .member = b->member_out,
			   .bits = b->in_bits,
			   .byte = b->in_bits ? b->in_byte : 0,
			   .window_n = (uint32_t)b->window_n};
	if (b->window_n)
		m->window = mem_dup(b->window, b->window_n);
	return 0;
}

void rafs_zran_pass(struct rafs_zran *z, uint64_t pos)
{
	while (z->first < z->n_ahead && z->ahead[z->first].out <= pos) {
		free(z->now.window);
		z->now = z->ahead[z->first++];
		z->have_now = true;
	}
	if (z->first > 64) { /* the ring's used part goes */
		memmove(z->ahead, z->ahead + z->first,
			(z->n_ahead - z->first) * sizeof(z->ahead[0]));
		z->n_ahead -= z->first;
		z->first = 0;
	}
}

static bool wants_context(const struct rafs_zran *z, uint64_t end)
{
	const struct mark *c = z->n_contexts ? &z->context[z->n_contexts - 1].start : NULL;

	if (!c)
		return true;
	if (c->member != z->now.member)
		return true;
	return z->now.out != c->out &&
	       (z->now.in - c->in >= CONTEXT_IN || end - c->out >= CONTEXT_OUT);
}

void rafs_zran_begin(struct rafs_zran *z, uint64_t pos, uint32_t n)
{
	rafs_zran_pass(z, pos);
	z->fresh = false;
	if (!z->have_now)
		z->impossible = true;
	if (z->impossible)
		return;
	if (wants_context(z, pos + n)) {
		struct context *c;

		mem_grow(z->context, z->n_contexts, z->cap_contexts);
		c = &z->context[z->n_contexts++];
		*c = (struct context){.start = z->now};
		c->start.window = z->now.window_n ? mem_dup(z->now.window, z->now.window_n) : NULL;
		z->fresh = true;
	}
	z->open.c = (struct rafs_zran_chunk){
		.at = z->now.in,
		.context = (uint32_t)z->n_contexts - 1,
		.in_context = (uint32_t)(pos - z->context[z->n_contexts - 1].start.out)};
	z->open.end = pos + n;
}

void rafs_zran_keep(struct rafs_zran *z)
{
	if (z->impossible)
		return;
	mem_grow(z->chunk, z->n_chunks, z->cap_chunks);
	z->chunk[z->n_chunks++] = z->open;
	z->context[z->open.c.context].last = z->open.end;
	z->context[z->open.c.context].chunks++;
}

void rafs_zran_drop(struct rafs_zran *z)
{
	if (!z->impossible && z->fresh)
		free(z->context[--z->n_contexts].start.window);
}

/* The first boundary at or behind `out`; NULL: none. */
static const struct end *end_at(const struct rafs_zran *z, uint64_t out)
{
	size_t low = 0, high = z->n_ends;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (z->end[mid].out < out)
			low = mid + 1;
		else
			high = mid;
	}
	return low < z->n_ends ? &z->end[low] : NULL;
}

bool rafs_zran_close(struct rafs_zran *z)
{
	for (size_t i = 0; i < z->n_contexts && !z->impossible; i++) {
		struct context *c = &z->context[i];
		const struct end *end = end_at(z, c->last);

		if (!end || c->last - c->start.out > CONTEXT_MAX) {
			z->impossible = true;
			break;
		}
		c->in_len = end->in - c->start.in;
		/* Not to the boundary: nydusd has inflate fill just so much, and takes the end of
		 * the stream, which it would see there, for an error. */
		c->out_len = c->last - c->start.out;
	}
	for (size_t i = 0; i < z->n_chunks && !z->impossible; i++) {
		struct rafs_zran_chunk *c = &z->chunk[i].c;
		uint64_t n = end_at(z, z->chunk[i].end)->in - c->at;

		c->n = n > 0xffffff ? 0xffffff : n ? (uint32_t)n : 1; /* a hint for reading ahead */
	}
	return !z->impossible;
}

const struct rafs_zran_chunk *rafs_zran_chunk(const struct rafs_zran *z, size_t i)
{
	return &z->chunk[i].c;
}

uint32_t rafs_zran_contexts(const struct rafs_zran *z)
{
	return (uint32_t)z->n_contexts;
}

int rafs_zran_write(const struct rafs_zran *z, struct buf *to, struct err *e)
{
	uint64_t dict = 0;

	for (size_t i = 0; i < z->n_contexts; i++) {
		const struct context *c = &z->context[i];
		struct v6_zran d = {.in = le64_of(c->start.in),
				    .out = le64_of(c->start.out),
				    .dict = le64_of(dict),
				    .in_len = le32_of((uint32_t)c->in_len),
				    .out_len = le32_of((uint32_t)c->out_len),
				    .dict_len = le32_of(c->start.window_n),
				    .byte = c->start.byte,
				    .bits = c->start.bits};

		dict += c->start.window_n;
		if (buf_add(to, &d, sizeof(d), e) < 0)
			return -1;
	}
	for (size_t i = 0; i < z->n_contexts; i++)
		if (buf_add(to, z->context[i].start.window, z->context[i].start.window_n, e) < 0)
			return -1;
	return 0;
}
