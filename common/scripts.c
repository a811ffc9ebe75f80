/* common/scripts.c - see scripts.h. */
#include "common/scripts.h"

#include <stdint.h>
#include <string.h>

#include "common/str.h"

/* Paths are from the top of the tree, where make runs the compiler. */
#define SCRIPT(name, flags)                                                                        \
	__asm__(".pushsection .rodata\n"                                                           \
		"script_" #name ":\n"                                                              \
		".ascii \"#!lua" flags "\\n\"\n"                                                   \
		".incbin \"common/queue/lib.lua\"\n"                                               \
		".incbin \"common/queue/" #name ".lua\"\n"                                         \
		".byte 0\n"                                                                        \
		".popsection\n");                                                                  \
	extern const char script_##name[]

SCRIPT(cache_forget, " flags=allow-oom");
SCRIPT(cache_get, " flags=no-writes");
SCRIPT(cache_lease, "");
SCRIPT(cache_put, "");
SCRIPT(cache_release, " flags=allow-oom");
SCRIPT(cancel, " flags=allow-oom");
SCRIPT(claim, " flags=allow-oom");
SCRIPT(counts, " flags=no-writes");
SCRIPT(enqueue, "");
SCRIPT(finish, " flags=allow-oom");
SCRIPT(fsck, " flags=allow-oom");
SCRIPT(get, " flags=no-writes");
SCRIPT(heartbeat, " flags=allow-oom");
SCRIPT(hello, " flags=allow-oom");
SCRIPT(list, " flags=no-writes");
SCRIPT(pause, " flags=allow-oom");
SCRIPT(publish, " flags=allow-oom");
SCRIPT(tick, " flags=allow-oom");
SCRIPT(ticket, " flags=allow-oom");
SCRIPT(unlock, " flags=allow-oom");

#define ROW(name)                                                                                  \
	{                                                                                          \
#name, script_##name                                                               \
	}
const struct script scripts[SCRIPTS] = {
	ROW(cache_forget), ROW(cache_get), ROW(cache_lease), ROW(cache_put), ROW(cache_release),
	ROW(cancel),	   ROW(claim),	   ROW(counts),	     ROW(enqueue),   ROW(finish),
	ROW(fsck),	   ROW(get),	   ROW(heartbeat),   ROW(hello),     ROW(list),
	ROW(pause),	   ROW(publish),   ROW(tick),	     ROW(ticket),    ROW(unlock),
};

int script_find(const char *name)
{
	for (int i = 0; i < SCRIPTS; i++)
		if (str_eq(scripts[i].name, name))
			return i;
	return -1;
}

static uint32_t rol(uint32_t v, int n)
{
	return v << n | v >> (32 - n);
}

/* FIPS 180-4, "SHA-1".  A name here, no protection: Redis chose it. */
static void sha1_block(uint32_t h[5], const uint8_t *p)
{
	static const uint32_t key[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
		       (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 80; i++)
		w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (int i = 0; i < 80; i++) {
		uint32_t f = i < 20		 ? (b & c) | (~b & d)
			     : i >= 40 && i < 60 ? (b & c) | (b & d) | (c & d)
						 : b ^ c ^ d;
		uint32_t t = rol(a, 5) + f + e + key[i / 20] + w[i];

		e = d;
		d = c;
		c = rol(b, 30);
		b = a;
		a = t;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

void script_sha1(const char *text, char hex[41])
{
	uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	size_t n = strlen(text), left = n % 64;
	uint8_t last[128] = {0}, out[20];
	uint64_t bits = (uint64_t)n * 8;
	size_t end = left < 56 ? 64 : 128;

	for (size_t at = 0; at + 64 <= n; at += 64)
		sha1_block(h, (const uint8_t *)text + at);
	memcpy(last, text + n - left, left);
	last[left] = 0x80;
	for (int i = 0; i < 8; i++)
		last[end - 1 - (size_t)i] = (uint8_t)(bits >> (8 * i));
	for (size_t at = 0; at < end; at += 64)
		sha1_block(h, last + at);
	for (int i = 0; i < 20; i++)
		out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
	str_hex(hex, out, 20);
}
