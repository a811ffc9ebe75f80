/* worker/convert/outcome.c - what is told of a conversion, and how a target or the whole of it
 * ends. */
#include <pthread.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/str.h"
#include "worker/convert/conv.h"

void conv_step(struct conv *c, enum convert_step s, const struct imageref *target, uint64_t since)
{
	const struct convert_ops *o = c->job->ops;

	if (!o || !o->step)
		return;
	pthread_mutex_lock(&c->lock);
	o->step(o->arg, s, target, since ? clock_mono_ns() - since : 0, c->cached,
		c->result->layers);
	pthread_mutex_unlock(&c->lock);
}

void conv_warn(struct conv *c, const char *msg, const char *key, const char *value)
{
	const struct convert_ops *o = c->job->ops;

	if (!o || !o->warn)
		return;
	pthread_mutex_lock(&c->lock);
	o->warn(o->arg, msg, key, value);
	pthread_mutex_unlock(&c->lock);
}

void conv_tell_layer(struct conv *c, struct item *it)
{
	const struct convert_ops *o = c->job->ops;

	if (o && o->layer)
		o->layer(o->arg, &it->progress, &c->progress);
}

void conv_layer_state(struct conv *c, struct item *it, enum layer_state s, const char *note)
{
	pthread_mutex_lock(&c->lock);
	it->progress.state = s;
	str_copy(it->progress.note, sizeof(it->progress.note), note ? note : "");
	if (s == LAYER_DONE || s == LAYER_CACHED) {
		c->progress.layers_done++;
		c->progress.in_bytes += it->progress.in_total - it->progress.in_bytes;
		it->progress.in_bytes = it->progress.in_total;
	}
	conv_tell_layer(c, it);
	pthread_mutex_unlock(&c->lock);
}

int conv_stopped(struct conv *c, struct err *e)
{
	int code = c->job->stop ? atomic_load(c->job->stop) : 0;

	if (!code)
		return 0;
	atomic_store(&c->halt, code);
	return err_set(e, (enum err_code)code, code == ERR_CANCELLED ? "cancelled" : "stopped");
}

void column_fail(struct column *k, const struct err *e)
{
	pthread_mutex_lock(&k->lock);
	if (k->active) {
		k->active = false;
		k->result->outcome = TARGET_FAILED;
		k->result->code = e->code;
		k->result->class = e->class;
		k->result->retry_after_ms = e->retry_after_ms;
		str_copy(k->result->reason, sizeof(k->result->reason), e->text);
	}
	pthread_mutex_unlock(&k->lock);
}

void column_end(struct column *k, enum target_outcome o, const char *reason)
{
	k->active = false;
	k->result->outcome = o;
	str_copy(k->result->reason, sizeof(k->result->reason), reason ? reason : "");
}

bool column_active(struct column *k)
{
	bool a;

	pthread_mutex_lock(&k->lock);
	a = k->active;
	pthread_mutex_unlock(&k->lock);
	return a;
}

size_t conv_active(struct conv *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_columns; i++)
		n += column_active(&c->column[i]);
	return n;
}

void conv_fail_all(struct conv *c, const struct err *e)
{
	pthread_mutex_lock(&c->lock);
	if (!c->failed) {
		c->failed = true;
		c->err = *e;
	}
	pthread_mutex_unlock(&c->lock);
	atomic_store(&c->halt, e->code == ERR_OK ? ERR_BUG : (int)e->code);
}
