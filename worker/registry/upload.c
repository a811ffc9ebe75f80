/* worker/registry/upload.c - blobs pushed: see registry.h.
 *
 * Up to 2 MiB are held, so that a small blob is HEAD, POST and one PUT.  A larger one is POST, one
 * streamed PATCH (chunked, with Expect: 100-continue, so that an early refusal has read nothing),
 * a look at the Range that came back, PUT.  Where a registry or a proxy before it refuses that, the
 * blob goes in pieces, each kept until it is acknowledged; and later uploads begin that way. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream.h"
#include "common/url.h"
#include "worker/registry/registry_impl.h"

enum {
	HELD_MAX = 2 << 20,
	PIECE = 4 << 20,
	PIECE_MIN = 256 << 10, /* below that a proxy's limit is no setting but a mistake */
	PIECE_MAX = 64 << 20,
	PIECE_TRIES = 4,
	COMMIT_TIMEOUT_MS = 600000, /* a store may copy a large blob before it answers */
	DELETE_TIMEOUT_MS = 10000,
	COMMIT_TRIES = 3,
};

enum state { UPLOAD_HELD, UPLOAD_STREAM, UPLOAD_PIECES, UPLOAD_DONE };

struct upload {
	struct registry *r;
	char *repository;
	char *url; /* of the open session, or NULL */
	enum state state;
	char *held; /* HELD, and the start of a stream; the current piece of PIECES */
	size_t held_n, held_cap;
	uint64_t written;      /* by the caller */
	uint64_t acknowledged; /* PIECES: the registry has that much */
	uint64_t min_piece;    /* OCI-Chunk-Min-Length */
	bool range_unknown;    /* the registry did not say what it has: look after the commit */
	struct sink *sink;
};

static void ask_of(const struct upload *u, struct ask *a, const char *method, const char *url)
{
	*a = (struct ask){.method = method,
			  .url = url,
			  .repository = u->repository,
			  .push = true,
			  .what = ASK_UPLOAD};
}

int upload_open(struct upload **out, struct registry *r, const char *repository, struct err *e)
{
	struct upload *u = mem_zalloc(sizeof(*u));

	u->r = r;
	u->repository = mem_strdup(repository);
	*out = u;
	return 0;
}

static void hold(struct upload *u, const char *p, size_t n)
{
	if (u->held_n + n > u->held_cap) {
		u->held_cap = u->held_n + n > u->held_cap * 2 ? u->held_n + n : u->held_cap * 2;
		u->held = mem_resize(u->held, u->held_cap, 1);
	}
	memcpy(u->held + u->held_n, p, n);
	u->held_n += n;
}

/* ---- the session */
static int begin(struct upload *u, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = registry_url(u->r, u->repository, "blobs/uploads/");
	const char *min;
	struct ask a;
	uint64_t n;

	ask_of(u, &a, "POST", url);
	if (registry_ask(u->r, &a, &resp, NULL, e) < 0)
		return -1;
	if (http_status(resp) != 202 && http_status(resp) != 201)
		return registry_bad(u->r, &a, resp, e);
	free(take_ptr(u->url));
	if (registry_location(u->r, url, resp, &u->url, e) < 0)
		return -1;
	min = http_header(resp, "oci-chunk-min-length");
	if (min && str_u64(min, &n, NULL) == 0)
		u->min_piece = n;
	return 0;
}

/* A closed session is a courtesy: Harbor wants the delete permission for it, others lack it. */
static void drop_session(struct upload *u)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	struct ask a;

	if (!u->url)
		return;
	ask_of(u, &a, "DELETE", u->url);
	a.timeout_ms = DELETE_TIMEOUT_MS;
	a.once = true;
	registry_ask(u->r, &a, &resp, NULL, NULL);
	free(take_ptr(u->url));
}

static int next_url(struct upload *u, const struct http_response *resp, struct err *e)
{
	char *url = NULL;

	if (!http_header(resp, "location"))
		return 0; /* the same one then */
	if (registry_location(u->r, u->url, resp, &url, e) < 0)
		return -1;
	free(u->url);
	u->url = url;
	return 0;
}

/* "0-4194303" (or "bytes=0-…"): how many bytes are there; -1: unknown.  "0-0" is what some answer
 * for an empty upload and others for one byte. */
static int64_t range_end(const char *value)
{
	const char *p = value;
	uint64_t last;

	if (!p)
		return -1;
	if (str_starts(p, "bytes=") || str_starts(p, "bytes "))
		p += 6;
	if (!str_starts(p, "0-") || str_u64(p + 2, &last, NULL) < 0 || last > INT64_MAX - 1)
		return -1;
	return (int64_t)last + 1;
}

/* ---- pieces */
static size_t piece_size(const struct upload *u)
{
	uint64_t n = __atomic_load_n(&u->r->piece, __ATOMIC_RELAXED);

	if (!n)
		n = PIECE;
	if (n < u->min_piece)
		n = u->min_piece;
	return n < PIECE_MAX ? (size_t)n : PIECE_MAX;
}

/* Asks the session how much it has. */
static int ask_offset(struct upload *u, uint64_t *there, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	struct ask a;
	int64_t end;

	ask_of(u, &a, "GET", u->url);
	if (registry_ask(u->r, &a, &resp, NULL, e) < 0)
		return -1;
	if (http_status(resp) != 204 && http_status(resp) != 200)
		return registry_bad(u->r, &a, resp, e);
	end = range_end(http_header(resp, "range"));
	if (end < 0)
		return err_set(e, ERR_NET, "%s does not say how much of the upload it has",
			       u->r->s->host);
	*there = end <= 1 && u->acknowledged == 0 ? 0 : (uint64_t)end;
	return next_url(u, resp, e);
}

/* Moves to offset `there`, which must lie in the piece that is held. */
static int move_to(struct upload *u, uint64_t there, struct err *e)
{
	size_t done;

	if (there < u->acknowledged || there > u->acknowledged + u->held_n)
		return err_set(e, ERR_NET, "%s has %" PRIu64 " bytes of the upload, not %" PRIu64,
			       u->r->s->host, there, u->acknowledged);
	done = (size_t)(there - u->acknowledged);
	memmove(u->held, u->held + done, u->held_n - done);
	u->held_n -= done;
	u->acknowledged = there;
	return 0;
}

/* Sends one piece.  0: held and acknowledged tell how far it came, perhaps not at all; -1. */
static int send_piece(struct upload *u, size_t n, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	char range[64];
	struct ask a;
	uint64_t there;
	int64_t end;
	int status;

	snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, u->acknowledged,
		 u->acknowledged + n - 1);
	ask_of(u, &a, "PATCH", u->url);
	a.content_type = "application/octet-stream";
	a.content_range = range;
	a.body = u->held;
	a.body_n = n;
	a.once = true;
	a.timeout_ms = COMMIT_TIMEOUT_MS;
	if (registry_ask(u->r, &a, &resp, NULL, e) < 0) {
		if (e->code != ERR_NET || e->status || ask_offset(u, &there, NULL) < 0)
			return -1;
		return move_to(u, there, e);
	}
	status = http_status(resp);
	if (status == 416) {
		registry_bad(u->r, &a, resp, e);
		return ask_offset(u, &there, NULL) < 0 ? -1 : move_to(u, there, e);
	}
	if (status == 413 && n / 2 >= PIECE_MIN && n / 2 >= u->min_piece) {
		__atomic_store_n(&u->r->piece, n / 2, __ATOMIC_RELAXED);
		return 0;
	}
	if (status >= 500 && ask_offset(u, &there, NULL) == 0) {
		registry_bad(u->r, &a, resp, e);
		return move_to(u, there, e);
	}
	if (status / 100 != 2)
		return registry_bad(u->r, &a, resp, e);
	end = range_end(http_header(resp, "range"));
	if (end < 0) {
		u->range_unknown = true;
		end = (int64_t)(u->acknowledged + n);
	}
	if (next_url(u, resp, e) < 0)
		return -1;
	/* "0-0" is also what an empty upload answers. */
	there = end == 1 && u->acknowledged == 0 && n > 1 ? 0 : (uint64_t)end;
	if (there > u->acknowledged + n)
		return err_set(e, ERR_NET,
			       "%s says it has %" PRIu64 " bytes after %" PRIu64 " were sent",
			       u->r->s->host, there, u->acknowledged + n);
	return move_to(u, there, e); /* less than was sent: the rest goes again */
}

/* Sends what is held: whole pieces, or all of it. */
static int send_held(struct upload *u, bool all, struct err *e)
{
	unsigned fruitless = 0;

	while (u->held_n && (all || u->held_n >= piece_size(u))) {
		size_t n = u->held_n < piece_size(u) ? u->held_n : piece_size(u);
		uint64_t before = u->acknowledged;
		size_t piece_before = piece_size(u);
		struct err why = {0};
		int r = send_piece(u, n, &why);

		if (r < 0)
			return e ? (*e = why, -1) : -1;
		if (u->acknowledged == before && piece_size(u) == piece_before) {
			if (++fruitless >= PIECE_TRIES) {
				if (!why.code)
					err_set(&why, ERR_NET, "%s keeps nothing of a piece",
						u->r->s->host);
				return e ? (*e = why, -1) : -1;
			}
		} else {
			fruitless = 0;
		}
	}
	return 0;
}

static void learn_no_stream(struct upload *u)
{
	__atomic_store_n(&u->r->no_stream, true, __ATOMIC_RELAXED);
}

static int to_pieces(struct upload *u, struct err *e)
{
	sink_freep(&u->sink);
	learn_no_stream(u);
	drop_session(u); /* who knows what is in it */
	if (begin(u, e) < 0)
		return -1;
	u->state = UPLOAD_PIECES;
	u->acknowledged = 0;
	return send_held(u, false, e);
}

/* ---- one streamed PATCH */
static bool refuses_streams(int status)
{
	return status == 404 || status == 405 || status == 411 || status == 413 || status == 416 ||
	       status == 501;
}

static int open_stream(struct upload *u, struct err *e)
{
	struct ask a;

	ask_of(u, &a, "PATCH", u->url);
	a.content_type = "application/octet-stream";
	return registry_send(u->r, &a, UINT64_MAX, &u->sink, e);
}

/* A bad answer to the stream.  While all bytes are still held another way is tried: 0 in pieces
 * now, 1 a new stream is open; -1. */
static int stream_refused(struct upload *u, const struct http_response *resp, bool may_login,
			  struct err *why)
{
	bool all_held = u->held_n == u->written;
	int status = http_status(resp);
	struct ask a;

	if (status == 401 && may_login && all_held) {
		sink_freep(&u->sink);
		drop_session(u);
		/* An ordinary request renews the login, and says for sure when it cannot. */
		if (begin(u, why) < 0)
			return -1;
		return open_stream(u, why) < 0 ? -1 : 1;
	}
	if (refuses_streams(status) && all_held)
		return to_pieces(u, why);
	ask_of(u, &a, "PATCH", u->url);
	registry_bad(u->r, &a, resp, why);
	if (refuses_streams(status)) {
		learn_no_stream(u);
		err_class(why, ERR_NET, CLASS_RETRY,
			  "%s refused the streamed upload after %" PRIu64
			  " bytes (%d); the next one goes in pieces",
			  u->r->s->host, u->written, status);
		why->status = status;
	} else if (status == 401) {
		why->class = CLASS_RETRY;
	}
	return -1;
}

/* Writing to the stream failed. */
static int stream_broke(struct upload *u, bool may_login, struct err *why)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	bool all_held = u->held_n == u->written;

	if (why->code == ERR_CANCELLED)
		return -1;
	if (http_send_response(u->sink, &resp, why) == 0)
		return stream_refused(u, resp, may_login, why);
	if (why->code != ERR_NET)
		return -1;
	/* Some cut the connection instead of answering 413, and the answer may be lost in the
	 * reset.  Pieces survive that, so what comes next goes in pieces. */
	learn_no_stream(u);
	return all_held ? to_pieces(u, why) : -1;
}

/* The 2 MiB held so far, as the start of a stream. */
static int start_stream(struct upload *u, struct err *e)
{
	for (bool may_login = true;; may_login = false) {
		struct err why = {0};
		int r;

		if (!u->sink && open_stream(u, e) < 0)
			return -1;
		if (sink_write(u->sink, u->held, u->held_n, &why) == 0) {
			u->state = UPLOAD_STREAM;
			return 0;
		}
		r = stream_broke(u, may_login, &why);
		if (r < 0)
			return e ? (*e = why, -1) : -1;
		if (r == 0)
			return 0; /* in pieces now */
	}
}

static int leave_held(struct upload *u, struct err *e)
{
	if (begin(u, e) < 0)
		return -1;
	if (__atomic_load_n(&u->r->no_stream, __ATOMIC_RELAXED) || u->min_piece) {
		u->state = UPLOAD_PIECES;
		return send_held(u, false, e);
	}
	return start_stream(u, e);
}

static int stream_write(struct upload *u, const void *p, size_t n, struct err *e)
{
	struct err why = {0};

	/* From here on the held start is not all there is. */
	u->written += n;
	if (sink_write(u->sink, p, n, &why) == 0) {
		if (u->held) {
			free(take_ptr(u->held));
			u->held_n = u->held_cap = 0;
		}
		return 0;
	}
	stream_broke(u, false, &why);
	return e ? (*e = why, -1) : -1;
}

int upload_write(struct upload *u, const void *p, size_t n, struct err *e)
{
	const char *from = p;

	if (u->state == UPLOAD_STREAM)
		return stream_write(u, p, n, e);
	while (n) {
		size_t room, k;

		if (u->state == UPLOAD_STREAM)
			return stream_write(u, from, n, e);
		room = u->state == UPLOAD_HELD ? HELD_MAX : piece_size(u);
		k = u->held_n < room ? room - u->held_n : 0;
		k = n < k ? n : k;
		hold(u, from, k);
		u->written += k;
		from += k;
		n -= k;
		if (u->state == UPLOAD_HELD && n && leave_held(u, e) < 0)
			return -1;
		if (u->state == UPLOAD_PIECES && send_held(u, false, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- commit */
static int end_stream(struct upload *u, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	struct err why = {0};
	int64_t end;
	int r = 0;

	if (sink_finish(u->sink, e) < 0)
		return -1;
	if (http_send_response(u->sink, &resp, &why) < 0) {
		if (why.code == ERR_NET)
			learn_no_stream(u);
		r = -1;
	} else if (http_status(resp) / 100 != 2) {
		r = stream_refused(u, resp, false, &why);
		if (r == 0)
			return 0; /* in pieces now */
	}
	if (r < 0)
		return e ? (*e = why, -1) : -1;
	if (next_url(u, resp, e) < 0)
		return -1;
	sink_freep(&u->sink);
	end = range_end(http_header(resp, "range"));
	u->range_unknown = end < 0;
	if (end >= 0 && (uint64_t)end != u->written) {
		learn_no_stream(u);
		return err_set(e, ERR_NET,
			       "%s kept %" PRId64 " of %" PRIu64
			       " streamed bytes; the next upload goes in pieces",
			       u->r->s->host, end, u->written);
	}
	return 0;
}

/* The PUT.  1: the connection broke, nobody knows; 0 done; -1. */
static int put(struct upload *u, const struct digest *d, const void *body, size_t n, struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped_free char *url = mem_strdup(u->url);
	char text[DIGEST_TEXT];
	struct ask a;
	const char *said;
	struct digest got;
	int r;

	if (url_add_query(&url, "digest", digest_text(d, text), e) < 0)
		return -1;
	ask_of(u, &a, "PUT", url);
	a.content_type = "application/octet-stream";
	a.body = body;
	a.body_n = n;
	a.once = true;
	a.timeout_ms = a.idle_ms = COMMIT_TIMEOUT_MS;
	a.fresh_login = true;
	registry_commit_begin(u->r);
	r = registry_ask(u->r, &a, &resp, NULL, e);
	registry_commit_end(u->r);
	if (r < 0)
		return e->code == ERR_NET && !e->status ? 1 : -1;
	if (http_status(resp) / 100 != 2) {
		registry_bad(u->r, &a, resp, e);
		return http_status(resp) >= 500 || http_status(resp) == 404 ? 1 : -1;
	}
	said = http_header(resp, "docker-content-digest");
	if (said && digest_parse(&got, said, NULL) == 0 && got.alg == d->alg && !digest_eq(&got, d))
		return err_class(e, ERR_CORRUPT, CLASS_RETRY, "%s stored %s for %s", u->r->s->host,
				 said, text);
	free(take_ptr(u->url)); /* the session is gone */
	return 0;
}

static int is_there(struct upload *u, const struct digest *d, uint64_t size, struct err *e)
{
	uint64_t there = UINT64_MAX;
	int found = registry_blob_head(u->r, u->repository, d, true, &there, e);

	if (found == 1 && there != UINT64_MAX && there != size)
		return err_class(e, ERR_CORRUPT, CLASS_RETRY,
				 "%s holds %" PRIu64 " bytes under the digest of %" PRIu64,
				 u->r->s->host, there, size);
	return found;
}

static int commit_held(struct upload *u, const struct digest *d, uint64_t size, struct err *e)
{
	struct err why = {0};
	int r = is_there(u, d, size, &why);

	for (int i = 0; r == 0 && i < COMMIT_TRIES; i++) {
		why = (struct err){0};
		if (begin(u, &why) < 0)
			return e ? (*e = why, -1) : -1;
		r = put(u, d, u->held, u->held_n, &why);
		if (r == 0)
			return 0;
		if (r < 0 && (why.status == 413 || why.status == 405 || why.status == 411)) {
			/* a body limit below 2 MiB, or a registry that wants PATCH */
			if (!u->r->piece && why.status == 413)
				__atomic_store_n(&u->r->piece,
						 u->held_n / 2 > PIECE_MIN ? u->held_n / 2
									   : PIECE_MIN,
						 __ATOMIC_RELAXED);
			u->state = UPLOAD_PIECES;
			return 1;
		}
		if (r < 0)
			return e ? (*e = why, -1) : -1;
		r = is_there(u, d, size, NULL); /* a lost answer */
		if (r < 0)
			r = 0;
		if (r == 0)
			drop_session(u);
	}
	if (r == 1)
		return 0;
	return e ? (*e = why, -1) : -1;
}

static int commit_session(struct upload *u, const struct digest *d, uint64_t size, struct err *e)
{
	struct err why = {0};
	int r = -1;

	for (int i = 0; i < COMMIT_TRIES; i++) {
		why = (struct err){0};
		r = put(u, d, NULL, 0, &why);
		if (r <= 0)
			break;
		if (is_there(u, d, size, NULL) == 1) {
			r = 0;
			break;
		}
		if (why.status == 404)
			break; /* no session, no blob */
	}
	if (r == 0 && u->range_unknown) { /* ECR drops bytes in silence */
		why = (struct err){0};
		r = is_there(u, d, size, &why) - 1;
		if (r < 0 && !why.code)
			err_set(&why, ERR_NET, "%s lost the blob that it took", u->r->s->host);
	}
	if (r)
		return e ? (*e = why, -1) : -1;
	return 0;
}

int upload_commit(struct upload *u, const struct digest *d, uint64_t size, struct err *e)
{
	char text[DIGEST_TEXT];
	int r = 1;

	if (size != u->written)
		return err_set(e, ERR_BUG, "%" PRIu64 " bytes written, %" PRIu64 " committed",
			       u->written, size);
	if (u->state == UPLOAD_HELD)
		r = commit_held(u, d, size, e);
	if (r == 1) {
		if (u->state == UPLOAD_STREAM && end_stream(u, e) < 0)
			return -1;
		if (u->state == UPLOAD_PIECES && send_held(u, true, e) < 0)
			return -1;
		r = commit_session(u, d, size, e);
	}
	if (r < 0)
		return err_wrap(e, "upload of %s", digest_short(d, text));
	u->state = UPLOAD_DONE;
	return 0;
}

/* A stream that is broken off leaves a session that some registries cannot name any more: its URL
 * says how much it holds, and only the answer to the stream tells that. */
static void break_off(struct upload *u)
{
	scoped(http_response_freep) struct http_response *resp = NULL;

	if (sink_is_open(u->sink) && sink_finish(u->sink, NULL) < 0)
		return;
	if (http_send_response(u->sink, &resp, NULL) == 0 && resp && http_status(resp) / 100 == 2)
		next_url(u, resp, NULL);
}

void upload_freep(struct upload **up)
{
	struct upload *u = *up;

	if (!u)
		return;
	if (u->sink && u->state == UPLOAD_STREAM)
		break_off(u);
	sink_freep(&u->sink);
	if (u->state != UPLOAD_DONE)
		drop_session(u);
	free(u->url);
	free(u->repository);
	free(u->held);
	free(u);
	*up = NULL;
}

int blob_push(struct registry *r, const char *repository, const void *p, size_t n,
	      const struct digest *d, struct err *e)
{
	scoped(upload_freep) struct upload *u = NULL;

	if (n > HELD_MAX) { /* below that upload_commit looks */
		int there = registry_blob_head(r, repository, d, true, NULL, e);

		if (there != 0)
			return there < 0 ? -1 : 0;
	}
	if (upload_open(&u, r, repository, e) < 0 || upload_write(u, p, n, e) < 0)
		return -1;
	return upload_commit(u, d, n, e);
}

/* ---- mount */
int blob_mount(struct registry *r, const char *repository, const char *from, const struct digest *d,
	       struct err *e)
{
	scoped(http_response_freep) struct http_response *resp = NULL;
	scoped(upload_freep) struct upload *session = NULL;
	scoped_free char *url = registry_url(r, repository, "blobs/uploads/");
	char text[DIGEST_TEXT];
	struct err why = {0};
	struct ask a;

	if (url_add_query(&url, "mount", digest_text(d, text), e) < 0 ||
	    url_add_query(&url, "from", from, e) < 0)
		return -1;
	if (upload_open(&session, r, repository, e) < 0)
		return -1;
	ask_of(session, &a, "POST", url);
	a.mount_from = from;
	if (registry_ask(r, &a, &resp, NULL, &why) < 0) {
		if (why.code == ERR_CANCELLED || why.code == ERR_BUSY)
			return e ? (*e = why, -1) : -1;
		return 0; /* 401: no pull on `from`, or no such project: only the upload decides */
	}
	if (http_status(resp) == 201)
		return 1;
	if (http_status(resp) == 202)
		registry_location(r, url, resp, &session->url, NULL); /* closed by upload_freep */
	if (http_status(resp) == 429)
		return registry_bad(r, &a, resp, e);
	return 0;
}
