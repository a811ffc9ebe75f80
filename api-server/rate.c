/* api-server/rate.c - see rate.h.
 *
 * A fixed table: an address has one of four places, and takes the one that was used longest ago
 * when none is its own.  Who loses its place starts with a full bucket again. */
#include "api-server/rate.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/digest.h"
#include "common/mem.h"
#include "common/str.h"

enum { ROWS = 1024, WAYS = 4 };

struct bucket {
	char address[INET6_ADDRSTRLEN + 2];
	uint64_t at_ms;
	double left;
};

struct rate {
	uint32_t seed; /* so that nobody can aim at another's row */
	struct bucket b[ROWS][WAYS];
};

struct rate *rate_new(void)
{
	struct rate *r = mem_zalloc(sizeof(*r));

	digest_random(&r->seed, sizeof(r->seed));
	return r;
}

void rate_freep(struct rate **r)
{
	free(*r);
	*r = NULL;
}

static struct bucket *bucket_of(struct rate *r, const char *address, uint64_t now,
				uint32_t per_second)
{
	uint32_t hash = 2166136261u ^ r->seed;
	struct bucket *row, *oldest;

	for (const char *p = address; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	row = oldest = r->b[(hash ^ hash >> 16) % ROWS];
	for (int i = 0; i < WAYS; i++) {
		if (!strcmp(row[i].address, address))
			return &row[i];
		if (row[i].at_ms < oldest->at_ms)
			oldest = &row[i];
	}
	str_copy(oldest->address, sizeof(oldest->address), address);
	oldest->at_ms = now;
	oldest->left = per_second;
	return oldest;
}

bool rate_take(struct rate *r, const char *peer, uint32_t per_second)
{
	char address[INET6_ADDRSTRLEN + 2];
	const char *colon = strrchr(peer, ':');
	uint64_t now = clock_mono_ms();
	struct bucket *b;

	if (!per_second)
		return true;
	str_copy(address, sizeof(address), peer);
	if (colon && (size_t)(colon - peer) < sizeof(address))
		address[colon - peer] = 0;
	b = bucket_of(r, address, now, per_second);
	b->left += (double)(now - b->at_ms) / 1000 * per_second;
	b->at_ms = now;
	if (b->left > per_second)
		b->left = per_second;
	if (b->left < 1)
		return false;
	b->left--;
	return true;
}
