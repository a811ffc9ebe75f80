/* common/network.h - the network thread: it runs every transfer of a process, and alone touches
 * curl's multi handle.  It knows no HTTP: it adds, resumes and removes jobs, and tells each what
 * becomes of it.
 *
 * Owners ask for that by commands, from any thread.  A job is freed by the network thread, asked by
 * its owner: so nothing is ever freed under curl's feet, and no owner waits for a removal. */
#ifndef COMMON_NETWORK_H
#define COMMON_NETWORK_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct network;
struct network_job;

struct network_ops { /* all called on the network thread */
	void (*started)(struct network_job *j);
	void (*resume)(struct network_job *j);		      /* as it was asked */
	void (*tick)(struct network_job *j, uint64_t now_ms); /* every 250 ms or sooner; mono ms */
	/* It is over.  It may still be among those that run: network_remove. */
	void (*over)(struct network_job *j, CURLcode c);
	/* It was not added, or the thread ends. */
	void (*failed)(struct network_job *j, const struct err *why);
	/* After network_cancel_all, again and again until it runs no more. */
	void (*cancelled)(struct network_job *j, const struct err *why);
	void (*free)(struct network_job *j);
};

struct network_job { /* first member of a transfer; its maker sets the first four */
	const struct network_ops *ops;
	struct network *network;
	CURL *easy; /* the network thread's from NETWORK_ADD on; its CURLOPT_PRIVATE is the job */
	bool cleans_up; /* takes back what was begun: after network_cancel_all, too */
	/* the network's */
	struct network_job *next;
	unsigned cmd;
	bool live;
};

/* connections: kept open for reuse, per host; 0: 8. */
int network_open(struct network **n, uint32_t connections, struct err *e);
void network_freep(struct network **n); /* cancels what runs, joins the thread */
/* All jobs are cancelled with ERR_CANCELLED, and those that come later fail; but those that clean
 * up. */
void network_cancel_all(struct network *n);
int network_check(struct network *n, struct err *e); /* ERR_CANCELLED after network_cancel_all */

enum network_command { NETWORK_ADD = 1, NETWORK_RESUME = 2, NETWORK_FREE = 4 };
/* Asks for it and returns; after NETWORK_FREE the job is not the owner's any more. */
void network_post(struct network_job *j, enum network_command cmd);
/* On the network thread: it runs no more. */
void network_remove(struct network_job *j);

#endif
