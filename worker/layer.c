/* worker/layer.c - see layer.h.
 *
 * Reading is a chain of sources: the stored blob under a meter (progress, stop, and what went wrong
 * below the unpacker), the unpacker, a hasher for the diff_id, the tar reader.  When bytes do not
 * unpack, the rest of the blob is read all the same: if its digest is wrong, that is the cause, and
 * the words say so. */
#include "worker/layer.h"

#include <string.h>

#include "common/fault.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream_impl.h"
#include "worker/limits.h"

#define TELL_BYTES (1u << 20)
#define RUNS 3 /* of one target: the first and two more */

struct run { /* one target in one run */
	struct layer_target *t;
	struct drv_layer *l;
	struct out *out;
	bool open;   /* takes part in this pass */
	bool blocks; /* wants block boundaries */
	atomic_uint_least64_t written;
};

/* ---- the meter: stored bytes as they come */
struct meter {
	struct source base;
	struct source *from;
	struct layer_job *job;
	struct run *run;
	size_t n_runs;
	uint64_t told;
	bool ended, failed;
	struct err err;
};

static void tell(struct meter *m)
{
	uint64_t out = 0;

	m->told = source_pos(m->from);
	for (size_t i = 0; i < m->n_runs; i++)
		out += atomic_load(&m->run[i].written);
	if (m->job->on_bytes)
		m->job->on_bytes(m->job->arg, m->told, out);
}

static ssize_t meter_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct meter *m = (struct meter *)s;
	int code = m->job->stop ? atomic_load(m->job->stop) : 0;
	ssize_t r;

	if (code) {
		err_set(&m->err, (enum err_code)code, "stopped");
		m->failed = true;
	}
	r = m->failed ? -1 : source_read(m->from, buf, n, &m->err);
	if (r < 0) {
		m->failed = true;
		*e = m->err;
		return -1;
	}
	m->ended = r == 0;
	if (source_pos(m->from) - m->told >= TELL_BYTES || r == 0)
		tell(m);
	return r;
}

static void meter_free(struct source *s)
{
	struct meter *m = (struct meter *)s;

	source_freep(&m->from);
	free(m);
}

static const struct source_ops meter_ops = {.read = meter_read, .free = meter_free};

/* Bytes that do not unpack may only be wrong bytes: read on to where the digest is compared. */
static bool stored_bytes_are_wrong(struct meter *m)
{
	char rest[16384];

	while (!m->failed && !m->ended) {
		struct err e;

		if (meter_read(&m->base, rest, sizeof(rest), &e) < 0)
			return true;
	}
	return m->failed;
}

/* ---- the hasher: unpacked bytes on their way to the tar reader */
struct tee {
	struct source base;
	struct source *from;
	struct hasher *hash; /* NULL: this pass need not hash */
	bool failed;
};

static ssize_t tee_read(struct source *s, void *buf, size_t n, struct err *e)
{
	struct tee *t = (struct tee *)s;
	ssize_t r = source_read(t->from, buf, n, e);

	t->failed = r < 0;
	if (r > 0 && t->hash)
		hasher_update(t->hash, buf, (size_t)r);
	return r;
}

static void tee_free(struct source *s)
{
	struct tee *t = (struct tee *)s;

	source_freep(&t->from);
	hasher_freep(&t->hash);
	free(t);
}

static const struct source_ops tee_ops = {.read = tee_read, .free = tee_free};

/* ---- out's destination, counted */
struct counted {
	const struct out_ops *ops;
	void *dest;
	struct run *run;
};

static int counted_write(void *dest, const void *p, size_t n, struct err *e)
{
	struct counted *c = dest;

	atomic_fetch_add(&c->run->written, n);
	return c->ops->write(c->dest, p, n, e);
}

static int counted_commit(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	struct counted *c = dest;

	return c->ops->commit(c->dest, d, size, e);
}

static void counted_abort(void *dest)
{
	struct counted *c = dest;

	c->ops->abort(c->dest);
	free(c);
}

static const struct out_ops counted_ops = {
	.write = counted_write,
	.commit = counted_commit,
	.abort = counted_abort,
};

static int open_out(struct layer_job *j, struct run *r, struct err *e)
{
	const struct driver *drv = r->t->drv;
	struct out_opts o = {.as = drv->encoding(r->t->target)};
	struct counted *c = mem_zalloc(sizeof(*c));

	if (drv->out_opts)
		drv->out_opts(r->l, &o);
	c->run = r;
	if (j->io->create(j->io->arg, r->t->target, &c->ops, &c->dest, e) < 0) {
		free(c);
		return err_wrap(e, "start upload");
	}
	return out_open(&r->out, j->pool, &o, &counted_ops, c, e); /* takes c */
}

/* ---- one run over the targets that are not done */
struct reading {
	struct layer_job *job;
	struct run *run;
	size_t n;
	int pass;
	bool large_window;
	struct meter *meter; /* inside tar */
	struct tee *tee;     /* the same */
	struct tar_reader *tar;
};

static void drop(struct run *r)
{
	if (r->l)
		r->t->drv->layer_close(r->l);
	r->l = NULL;
	out_freep(&r->out); /* not committed: the upload is deleted */
	r->open = false;
}

static int on_block(void *arg, const struct block *b, struct err *e)
{
	struct reading *rd = arg;

	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];

		if (r->open && r->blocks && r->t->drv->block(r->l, b, &r->t->err) < 0)
			drop(r);
	}
	return 0;
}

static size_t still_open(const struct reading *rd)
{
	size_t n = 0;

	for (size_t i = 0; i < rd->n; i++)
		n += rd->run[i].open;
	return n;
}

/* Pass 0: the layers of the drivers; they say whether they want blocks. */
static bool open_layers(struct reading *rd)
{
	bool blocks = false;

	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];

		if (r->open && rd->pass == 0 &&
		    r->t->drv->layer_open(&r->l, r->t->im, &rd->job->in, &r->blocks, &r->t->err) <
			    0)
			drop(r);
		blocks |= r->open && r->blocks;
	}
	return blocks;
}

static void begin(struct reading *rd)
{
	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];
		const struct driver *drv = r->t->drv;
		bool headers;

		if (!r->open)
			continue;
		headers = drv->headers_only && drv->headers_only(r->l, rd->pass);
		if (!headers && !r->out && open_out(rd->job, r, &r->t->err) < 0)
			drop(r);
		else if (drv->begin(r->l, rd->pass, headers ? NULL : r->out, &r->t->err) < 0)
			drop(r);
	}
}

static int start_reading(struct reading *rd, struct err *e)
{
	struct layer_job *j = rd->job;
	scoped(source_freep) struct source *body = NULL;
	struct codec_opts o = {.max_out = j->max_out, .large_window = rd->large_window};
	struct meter *m;

	if (j->io->open(j->io->arg, &body, j->in.from, e) < 0) {
		j->bad_transfer = e->code == ERR_CORRUPT;
		return err_wrap(e, "download");
	}
	m = mem_zalloc(sizeof(*m));
	*m = (struct meter){.base.ops = &meter_ops,
			    .from = take_ptr(body),
			    .job = j,
			    .run = rd->run,
			    .n_runs = rd->n};
	body = &m->base;
	if (codec_sniff(&body, &j->in.codec, e) < 0)
		return err_wrap(e, "download");
	rd->meter = m;
	if (open_layers(rd)) {
		o.on_block = on_block;
		o.arg = rd;
	}
	if (codec_unpack(&body, j->in.codec, &o, e) < 0)
		return err_wrap(e, "unpack");
	rd->tee = mem_zalloc(sizeof(*rd->tee));
	*rd->tee = (struct tee){
		.base.ops = &tee_ops,
		.from = take_ptr(body),
		.hash = rd->pass == 0 && j->in.diff_id ? hasher_new(j->in.diff_id->alg) : NULL};
	body = &rd->tee->base;
	return tar_open(&rd->tar, &body, NULL, e);
}

/* Bounds of every image that this layer stands in. */
static int count(const struct layer_job *j, const struct tar_piece *p, struct err *e)
{
	for (size_t i = 0; i < j->n_limits; i++) {
		if (p->kind == TAR_HEADER && p->entry &&
		    limits_entry(j->limits[i], p->entry, e) < 0)
			return -1;
		if (limits_bytes(j->limits[i], p->len, e) < 0)
			return -1;
	}
	return 0;
}

static void show(struct reading *rd, const struct tar_piece *p)
{
	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];

		if (r->open && r->t->drv->tar(r->l, p, &r->t->err) < 0)
			drop(r); /* a driver names the entry it failed on */
	}
}

/* Which of the chain failed decides the words; wrong stored bytes explain everything above them. */
static int explain(struct reading *rd, struct err *e)
{
	if (rd->meter->failed || (e->code == ERR_CORRUPT && stored_bytes_are_wrong(rd->meter))) {
		*e = rd->meter->err;
		rd->job->bad_transfer = e->code == ERR_CORRUPT;
		return err_wrap(e, "download");
	}
	return err_wrap(e, rd->tee && rd->tee->failed ? "unpack" : "read tar");
}

static int check_diff_id(struct reading *rd, struct err *e)
{
	struct layer_job *j = rd->job;
	char got[DIGEST_TEXT], want[DIGEST_TEXT];

	j->unpacked = source_pos(&rd->tee->base);
	if (!rd->tee->hash)
		return 0;
	hasher_final(rd->tee->hash, &j->diff_id);
	if (digest_eq(&j->diff_id, j->in.diff_id))
		return 0;
	return err_class(e, ERR_CORRUPT, CLASS_FINAL, "it unpacks to %s, the config says %s",
			 digest_text(&j->diff_id, got), digest_text(j->in.diff_id, want));
}

static int read_pass(struct reading *rd, struct err *e)
{
	struct tar_piece p;
	int r = 0;

	begin(rd);
	while (still_open(rd) && (r = tar_next(rd->tar, &p, e)) > 0) {
		if (rd->pass == 0 && count(rd->job, &p, e) < 0)
			return -1;
		show(rd, &p);
	}
	if (!still_open(rd))
		return 0;
	if (r < 0)
		return explain(rd, e);
	return check_diff_id(rd, e);
}

static int one_pass(struct reading *rd, struct err *e)
{
	int r = start_reading(rd, e);

	if (r == 0)
		r = read_pass(rd, e);
	tar_closep(&rd->tar);
	rd->meter = NULL;
	rd->tee = NULL;
	return r;
}

/* Source digest and size, diff_id and all pieces hold: index and footer, then the PUT that makes
 * the blob exist. */
static int finish_target(struct run *r, struct err *e)
{
	struct layer_target *t = r->t;

	if (t->drv->layer_end(r->l, &t->result, e) < 0)
		return -1;
	if (t->result.absent || t->result.verbatim)
		return 0;
	if (!r->out)
		return err_set(e, ERR_BUG, "driver %s wrote no blob", t->drv->name);
	if (FAULT("layer.before_commit", e) < 0)
		return -1;
	descriptor_init(&t->to);
	if (out_commit(r->out, &t->to.digest, &t->to.size, e) < 0)
		return err_wrap(e, "finish upload");
	str_copy(t->to.media_type, sizeof(t->to.media_type), t->result.media_type);
	annotations_copy(&t->to.annotations, &t->result.annotations);
	return 0;
}

static void finish(struct reading *rd)
{
	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];

		if (!r->open)
			continue;
		if (finish_target(r, &r->t->err) < 0) {
			layer_result_fini(&r->t->result);
			memset(&r->t->result, 0, sizeof(r->t->result));
		} else {
			if (r->t->result.verbatim)
				descriptor_copy(&r->t->to, rd->job->in.from);
			r->t->done = true;
			r->t->out_bytes = r->t->to.size;
		}
		drop(r);
	}
}

/* After a pass: who wants the layer once more stays open, others wait for the end. */
static bool next_pass(struct reading *rd, bool waiting[])
{
	bool more = false;

	for (size_t i = 0; i < rd->n; i++) {
		struct run *r = &rd->run[i];

		if (!r->open)
			continue;
		if (r->t->drv->again && r->t->drv->again(r->l) == 1) {
			more = true;
		} else {
			r->open = false;
			waiting[i] = true;
		}
	}
	rd->pass++;
	return more;
}

static int run_once(struct layer_job *j, bool large_window, struct err *e)
{
	scoped_free struct run *run = mem_array(j->n_targets, sizeof(*run));
	scoped_free bool *waiting = mem_array(j->n_targets, sizeof(*waiting));
	struct reading rd = {.job = j, .run = run, .large_window = large_window};
	int r = 0;

	for (size_t i = 0; i < j->n_targets; i++)
		if (!j->target[i].done && !j->target[i].failed) {
			err_clear(&j->target[i].err);
			run[rd.n++] = (struct run){.t = &j->target[i], .open = true};
		}
	while (still_open(&rd)) {
		r = one_pass(&rd, e);
		if (r < 0 || !next_pass(&rd, waiting))
			break;
	}
	for (size_t i = 0; i < rd.n; i++) {
		run[i].open |= waiting[i];
		if (r < 0)
			drop(&run[i]);
	}
	if (r == 0)
		finish(&rd);
	return r;
}

/* ---- again: broken uploads, a corrupt transfer, a large window */
static int read_layer(struct layer_job *j, struct err *e)
{
	int r = run_once(j, false, e);

	if (r == 0 || e->code != ERR_LIMIT || j->in.codec != CODEC_ZSTD || !j->window)
		return r;
	/* One layer at a time: up to 128 MiB of window are not in the buffers' sum. */
	pthread_mutex_lock(j->window);
	r = run_once(j, true, e);
	pthread_mutex_unlock(j->window);
	return r;
}

/* Targets whose upload broke; the others that are not done have failed for good. */
static size_t to_run_again(struct layer_job *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_targets; i++) {
		struct layer_target *t = &j->target[i];

		if (t->done || t->failed)
			continue;
		if (t->err.class == CLASS_RETRY && t->err.code == ERR_NET)
			n++;
		else
			t->failed = true;
	}
	return n;
}

int layer_convert(struct layer_job *j, struct err *e)
{
	for (int i = 1;; i++) {
		bool lied_before = j->bad_transfer;
		int r;

		j->bad_transfer = false;
		r = read_layer(j, e);

		if (r < 0 && j->bad_transfer && !lied_before && i < RUNS)
			continue; /* a transfer may lie once, not twice */
		if (r < 0 && j->bad_transfer)
			e->class = CLASS_FINAL;
		if (r < 0)
			return -1;
		if (!to_run_again(j) || i >= RUNS)
			return 0;
	}
}
