/* worker/packet.h - supervisor and task process: one SOCK_SEQPACKET pair, JSON packets of at most
 * 64 KiB.
 *
 * Larger documents travel as numbered parts and are put together again, up to 512 KiB.  Every
 * packet is an object with a string `t`.  The words (down: from the supervisor; up: from the task
 * process): down  start   {id, epoch, attempt, event_age_ms, cpus, memory, max_image_size, verify,
 * timeout_ms, request, backends[], sources[]} cancel  {why: cancel | release | timeout}      lost
 * {} reply {n,
 * ...}                               the answer to an ask up    progress{text}          pause
 * {host, ms}      metrics {d: [[name, [label...], value]...]} ask     {n, what: ticket | publish |
 * moved | cache_get | cache_put | cache_lease, ...} unlock  {target} result  {class, code, reason,
 * retry_after_ms, missing_source, source_size, target_size, detail} A task process that an image
 * took over can send anything here: each packet is checked where it is read, and keys, targets and
 * repositories are built from the request, never from a packet. */
#ifndef WORKER_PACKET_H
#define WORKER_PACKET_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

struct err;
struct json;

#define PACKET_FD 3
#define PACKET_BYTES (64u << 10)
#define PACKET_DOCUMENT (512u << 10)

struct packet_reader { /* puts parts together */
	struct buf parts;
	unsigned next;
};
void packet_reader_init(struct packet_reader *r);
void packet_reader_fini(struct packet_reader *r);
/* 1 and *j (may be one made of parts), 0 when the other side closed, -1; -2: nothing there now
 * (non-blocking fd). */
int packet_read(struct packet_reader *r, int fd, struct json **j, struct err *e);
/* The type of a packet, "" if it has none. */
const char *packet_type(const struct json *j);
/* From bytes, for fuzzing: the same checks as packet_read makes.  1, or 0 while parts are missing.
 */
int packet_take(struct packet_reader *r, const char *p, size_t n, struct json **j, struct err *e);

/* Never blocks longer than the socket does.  -1 with ERR_BUSY when the buffer of a non-blocking
 * socket is full. */
int packet_send(int fd, const struct json *j, struct err *e);

#endif
