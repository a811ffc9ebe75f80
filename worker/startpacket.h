/* worker/startpacket.h - the first packet to a task process: all that it is told of its task and of
 * this worker's configuration.  It holds secrets: those of the hosts and backends that the request
 * names, and no others. */
#ifndef WORKER_STARTPACKET_H
#define WORKER_STARTPACKET_H

#include <stddef.h>
#include <stdint.h>

struct json;
struct settings;
struct slot;

/* request: JSON of n bytes, as it was claimed; s->request is the same, parsed.  login: username and
 * password that this machine has for the source, or NULL; used where the configuration has none. */
struct json *startpacket(const struct settings *c, const struct slot *s, uint32_t threads,
			 const char *request, size_t n, const struct json *login);

#endif
