/* api-server/rate.h - requests per second and address: token buckets of one second's size. */
#ifndef API_SERVER_RATE_H
#define API_SERVER_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate;

struct rate *rate_new(void);
void rate_freep(struct rate **r);
/* One request of this peer ("10.0.0.1:4711"); per_second 0: no limit. */
bool rate_take(struct rate *r, const char *peer, uint32_t per_second);

#endif
