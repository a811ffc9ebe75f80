/* common/network.c - see network.h.  The list of commands is all that owners and the network thread
 * share; a job stands in it once, with all that is asked of it. */
#include "common/network.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/mem.h"

enum { TICK_MS = 250 };

struct network {
	CURLM *multi;
	pthread_t thread;
	pthread_mutex_t lock;
	struct network_job *first_cmd, *last_cmd;
	bool stop, cancelled;
	struct network_job **live; /* the network thread's */
	size_t n_live, cap_live;
};

void network_remove(struct network_job *x)
{
	struct network *n = x->network;

	if (!x->live)
		return;
	curl_multi_remove_handle(n->multi, x->easy);
	x->live = false;
	for (size_t i = 0; i < n->n_live; i++)
		if (n->live[i] == x) {
			n->live[i] = n->live[--n->n_live];
			return;
		}
}

static void cancelled_error(struct err *e)
{
	err_set(e, ERR_CANCELLED, "cancelled");
}

static void run_command(struct network *n, struct network_job *x, unsigned cmd, bool cancelled)
{
	struct err e = {0};

	if (cmd & NETWORK_FREE) {
		network_remove(x);
		x->ops->free(x);
		return;
	}
	if (cmd & NETWORK_ADD) {
		if (cancelled) {
			cancelled_error(&e);
			x->ops->failed(x, &e);
			return;
		}
		if (curl_multi_add_handle(n->multi, x->easy) != CURLM_OK) {
			err_set(&e, ERR_BUG, "curl_multi_add_handle failed");
			x->ops->failed(x, &e);
			return;
		}
		mem_grow(n->live, n->n_live, n->cap_live);
		n->live[n->n_live++] = x;
		x->live = true;
		x->ops->started(x);
	}
	if ((cmd & NETWORK_RESUME) && x->live)
		x->ops->resume(x);
}

/* Returns false when it is time to end. */
static bool run_commands(struct network *n)
{
	struct network_job *x;
	bool stop, cancelled;

	pthread_mutex_lock(&n->lock);
	stop = n->stop;
	cancelled = n->cancelled;
	while ((x = n->first_cmd)) {
		unsigned cmd = x->cmd;

		n->first_cmd = x->next;
		if (!n->first_cmd)
			n->last_cmd = NULL;
		x->cmd = 0;
		x->next = NULL;
		pthread_mutex_unlock(&n->lock);
		run_command(n, x, cmd, stop || (cancelled && !x->cleans_up));
		pthread_mutex_lock(&n->lock);
	}
	pthread_mutex_unlock(&n->lock);
	if (cancelled || stop) {
		struct err e = {0};

		cancelled_error(&e);
		for (size_t i = n->n_live; i-- > 0;) {
			x = n->live[i];
			if (stop)
				x->ops->failed(x, &e);
			else if (!x->cleans_up)
				x->ops->cancelled(x, &e);
		}
	}
	return !stop;
}

static void tick(struct network *n)
{
	uint64_t now = clock_mono_ms();

	for (size_t i = n->n_live; i-- > 0;) /* a job may remove itself */
		n->live[i]->ops->tick(n->live[i], now);
}

static void *network_main(void *arg)
{
	struct network *n = arg;
	CURLMsg *m;
	int running, left;

	while (run_commands(n)) {
		curl_multi_perform(n->multi, &running);
		while ((m = curl_multi_info_read(n->multi, &left))) {
			struct network_job *x = NULL;
			CURLcode c = m->data.result;

			if (m->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x);
			x->ops->over(x, c);
		}
		tick(n);
		curl_multi_poll(n->multi, NULL, 0, n->n_live ? TICK_MS : 60000, NULL);
	}
	return NULL;
}

void network_post(struct network_job *x, enum network_command cmd)
{
	struct network *n = x->network;

	pthread_mutex_lock(&n->lock);
	if (!x->cmd) {
		if (n->last_cmd)
			n->last_cmd->next = x;
		else
			n->first_cmd = x;
		n->last_cmd = x;
	}
	x->cmd |= cmd;
	pthread_mutex_unlock(&n->lock);
	curl_multi_wakeup(n->multi);
}

static void global_init(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		abort();
}

int network_open(struct network **out, uint32_t connections, struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_attr_t attr;
	struct network *n;
	int r;

	pthread_once(&once, global_init);
	n = mem_zalloc(sizeof(*n));
	n->multi = curl_multi_init();
	if (!n->multi)
		abort();
	pthread_mutex_init(&n->lock, NULL);
	curl_multi_setopt(n->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	curl_multi_setopt(n->multi, CURLMOPT_MAXCONNECTS,
			  (long)(connections ? connections : 8) * 4);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 512 << 10);
	r = pthread_create(&n->thread, &attr, network_main, n);
	pthread_attr_destroy(&attr);
	if (r) {
		curl_multi_cleanup(n->multi);
		free(n);
		return err_errno(e, r, "start the network thread");
	}
	*out = n;
	return 0;
}

void network_freep(struct network **np)
{
	struct network *n = *np;

	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	pthread_mutex_unlock(&n->lock);
	curl_multi_wakeup(n->multi);
	pthread_join(n->thread, NULL);
	curl_multi_cleanup(n->multi);
	pthread_mutex_destroy(&n->lock);
	free(n->live);
	free(n);
	*np = NULL;
}

void network_cancel_all(struct network *n)
{
	pthread_mutex_lock(&n->lock);
	n->cancelled = true;
	pthread_mutex_unlock(&n->lock);
	curl_multi_wakeup(n->multi);
}

int network_check(struct network *n, struct err *e)
{
	bool cancelled;

	pthread_mutex_lock(&n->lock);
	cancelled = n->cancelled;
	pthread_mutex_unlock(&n->lock);
	if (cancelled)
		cancelled_error(e);
	return cancelled ? -1 : 0;
}
