/* worker/asks.h - what a task process may ask of its supervisor, and how it is answered from the
 * queue.
 *
 * Keys, targets and repositories come from the slot's request, never from the packet: a target that
 * the request does not make is refused. */
#ifndef WORKER_ASKS_H
#define WORKER_ASKS_H

struct json;
struct queue;
struct redis;
struct settings;
struct slot;

struct asks {
	struct queue *queue;
	struct redis *redis;
	const struct settings *settings;
	/* The slot may be freed while an answer is under way: its owner says whether it is still
	 * there. */
	struct slot *(*find)(void *arg, const char *task_id);
	void *arg;
};

void asks_take(const struct asks *a, struct slot *s, const struct json *packet);   /* t = ask */
void asks_unlock(const struct asks *a, struct slot *s, const struct json *packet); /* t = unlock */
void asks_pause(const struct asks *a, struct slot *s, const struct json *packet);  /* t = pause */

#endif
