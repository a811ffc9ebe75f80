/* common/xfer.c - see xfer.h.
 *
 * A body crosses between the caller's thread and the network thread in a ring: one side moves
 * `head`, the other `tail`, both under the transfer's lock, and the bytes themselves are copied
 * outside of it.  When the ring is full (or empty, for an upload) the callback pauses the transfer;
 * whoever changes that posts a resume. */
#include "common/xfer.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/address.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/env.h"
#include "common/err.h"
#include "common/http_message.h"
#include "common/mem.h"
#include "common/network.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/url.h"

enum {
	RING = 1 << 20,
	RING_HALF = RING / 2,
	RESUME_SEND_AT = 128 << 10, /* a paused upload goes on when that much is there */
	CONNECT_MS = 10000,
	IDLE_MS = 60000,
	END_MS = 2000, /* for the answer to a body that a cancellation ended */
	MAX_HEADER_BYTES = 128 << 10,
	DEFAULT_RESPONSE = 64 << 10,
	CA_MAX = 4 << 20,
};

struct xfer {
	struct network_job job;
	struct xfer_shared *shared;
	struct curl_slist *headers;
	char curl_words[CURL_ERROR_SIZE];
	char *host; /* host:port, port always there */
	char *name; /* host, as a user wrote it */
	bool allow_private, want_stream, upload, may_end_early;
	char *ca_file, *cert_file;
	uint64_t max_response, idle_ms, timeout_ms;

	/* the network thread's */
	bool kick, overflow, head_broken;
	uint64_t last_ms, expected, end_ms; /* end_ms: of the wait for a cancelled one's answer */
	curl_off_t sent;
	char refused[160];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool headers_done, done, failed, streaming;
	bool paused;   /* by the ring: not idle */
	bool resuming; /* a resume was posted and not run yet */
	bool finished; /* an upload's last byte is in the ring */
	bool ending;   /* cancelled: its body ends where it is */
	size_t want;   /* the waiting side wakes when that much is there */
	char *ring;
	uint64_t head, tail;
	struct http_response *r;
	struct err err;
};

static struct xfer *of(struct network_job *j) /* its first member */
{
	return (struct xfer *)(void *)j;
}

/* ---- addresses */

/* With a proxy the connection goes to the administrator's proxy: its address says nothing. */
static bool address_allowed(const struct xfer *x, enum address_kind k)
{
	return k == ADDRESS_PUBLIC ||
	       (k == ADDRESS_PRIVATE && (x->allow_private || x->shared->proxied));
}

static curl_socket_t on_opensocket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct xfer *x = arg;
	enum address_kind k = address_kind_of(&a->addr);
	char ip[64] = "?";

	if (!address_allowed(x, k)) {
		if (a->family == AF_INET)
			inet_ntop(AF_INET,
				  &((const struct sockaddr_in *)(const void *)&a->addr)->sin_addr,
				  ip, sizeof(ip));
		else if (a->family == AF_INET6)
			inet_ntop(AF_INET6,
				  &((const struct sockaddr_in6 *)(const void *)&a->addr)->sin6_addr,
				  ip, sizeof(ip));
		snprintf(x->refused, sizeof(x->refused), "%s, a %s address", ip,
			 k == ADDRESS_LINK_LOCAL ? "link-local" : "private");
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- curl's errors in our words: reference/registries.md §3 */

static bool says(const struct xfer *x, const char *words)
{
	return strstr(x->curl_words, words) != NULL;
}

static void tls_failed(struct xfer *x, CURLcode c, struct err *e)
{
	if (says(x, "no alternative certificate subject name"))
		err_set(e, ERR_DENIED, "certificate of %s is for another name", x->name);
	else if (c == CURLE_PEER_FAILED_VERIFICATION)
		err_set(e, ERR_DENIED,
			"certificate of %s not trusted: %s; set provider.source.%s.ca_file",
			x->name, x->curl_words, x->name);
	else if (says(x, "wrong version number") || says(x, "packet length too long"))
		err_set(e, ERR_DENIED,
			"%s does not speak TLS; if that is meant, set plain_http: true for it",
			x->name);
	else
		err_set(e, ERR_NET, "TLS handshake with %s failed: %s", x->name, x->curl_words);
}

static uint64_t body_total(const struct xfer *x)
{
	return x->expected;
}

static void timed_out(struct xfer *x, struct err *e)
{
	uint64_t got = x->streaming ? x->head : 0;

	if (says(x, "Resolving timed out"))
		err_set(e, ERR_NET, "DNS timed out for %s after %d s", x->name, CONNECT_MS / 1000);
	else if (says(x, "Connection timed out") || says(x, "SSL connection timeout"))
		err_set(e, ERR_NET, "no answer from %s within %d s", x->host, CONNECT_MS / 1000);
	else if (x->streaming && body_total(x))
		err_set(e, ERR_NET,
			"%s sent nothing for %" PRIu64 " s after %" PRIu64 " of %" PRIu64 " bytes",
			x->name, x->idle_ms / 1000, got, body_total(x));
	else if (x->timeout_ms && !x->streaming)
		err_set(e, ERR_NET, "%s gave no answer within %" PRIu64 " s", x->name,
			(x->timeout_ms + 999) / 1000);
	else
		err_set(e, ERR_NET, "%s sent nothing for %" PRIu64 " s after %" PRIu64 " bytes",
			x->name, x->idle_ms / 1000, got);
}

static void curl_failed(struct xfer *x, CURLcode c, struct err *e)
{
	long os = 0;

	if (x->refused[0] && !x->headers_done) {
		err_set(e, ERR_DENIED, "%s is at %s: refused", x->name, x->refused);
		return;
	}
	if (!x->curl_words[0])
		snprintf(x->curl_words, sizeof(x->curl_words), "%s", curl_easy_strerror(c));
	str_clean(x->curl_words);
	if (says(x, "certificate required") || says(x, "alert bad certificate") ||
	    (c == CURLE_SSL_CONNECT_ERROR && says(x, "alert handshake failure") && !x->cert_file &&
	     says(x, "certificate"))) {
		err_set(e, ERR_DENIED,
			"%s wants a client certificate; set cert_file and key_file "
			"for it",
			x->name);
		return;
	}
	switch (c) {
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		if (c == CURLE_SSL_CONNECT_ERROR && says(x, "SYSCALL"))
			err_set(e, ERR_NET, "%s closed the connection without an answer", x->name);
		else
			tls_failed(x, c, e);
		return;
	case CURLE_SSL_CACERT_BADFILE:
		err_set(e, ERR_INVALID, "cannot read ca_file %s: %s",
			x->ca_file ? x->ca_file : "of the system", x->curl_words);
		return;
	case CURLE_SSL_CERTPROBLEM:
		err_set(e, ERR_INVALID, "cannot use cert_file %s: %s",
			x->cert_file ? x->cert_file : "", x->curl_words);
		return;
	case CURLE_COULDNT_RESOLVE_HOST:
		err_set(e, ERR_NET, "cannot resolve %s", x->name);
		return;
	case CURLE_COULDNT_RESOLVE_PROXY:
		err_set(e, ERR_NET, "cannot resolve the proxy that the environment names");
		return;
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(x->job.easy, CURLINFO_OS_ERRNO, &os);
		if (os == ECONNREFUSED || os == 0)
			err_set(e, ERR_NET, "%s refuses connections", x->host);
		else
			err_set(e, ERR_NET, "%s unreachable: %s", x->host, strerror((int)os));
		return;
	case CURLE_OPERATION_TIMEDOUT:
		timed_out(x, e);
		return;
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
		if (x->streaming)
			err_set(e, ERR_NET,
				"connection closed after %" PRIu64 " of %" PRIu64 " bytes", x->head,
				body_total(x));
		else if (x->upload)
			err_set(e, ERR_NET,
				"%s closed the connection after %" PRIu64 " bytes were sent",
				x->name, x->tail);
		else
			err_set(e, ERR_NET, "%s closed the connection without an answer", x->name);
		return;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
		err_set(e, ERR_NET, "%s does not speak HTTP", x->host);
		return;
	case CURLE_WRITE_ERROR:
	case CURLE_ABORTED_BY_CALLBACK:
		if (x->head_broken)
			err_set(e, ERR_NET, "%s sent more than %d bytes of headers", x->name,
				MAX_HEADER_BYTES);
		else if (x->refused[0])
			err_set(e, ERR_DENIED, "%s is at %s: refused", x->name, x->refused);
		else
			err_set(e, ERR_LIMIT, "%s answered with more than %" PRIu64 " bytes",
				x->name, x->max_response);
		return;
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		err_set(e, ERR_NET, "HTTP/2 stream reset by %s", x->name);
		return;
	default:
		err_set(e, ERR_NET, "request to %s failed: %s", x->name, x->curl_words);
	}
}

/* ---- callbacks, all on the network thread */

static void note_address(struct xfer *x)
{
	char *ip = NULL;
	enum address_kind k;

	if (curl_easy_getinfo(x->job.easy, CURLINFO_PRIMARY_IP, &ip) != CURLE_OK || !ip || !*ip)
		return;
	k = address_kind(ip);
	x->r->private_address = k != ADDRESS_PUBLIC;
	/* A connection that another request opened and this one may not use. */
	if (!address_allowed(x, k))
		snprintf(x->refused, sizeof(x->refused), "%s, a private address", ip);
}

static void headers_end(struct xfer *x)
{
	const char *len = http_header(x->r, "content-length");
	uint64_t v;

	x->expected = len && str_u64(len, &v, NULL) == 0 ? v : 0;
	note_address(x);
	pthread_mutex_lock(&x->lock);
	x->headers_done = true;
	x->streaming = x->want_stream && (x->r->status == 200 || x->r->status == 206);
	if (x->upload && x->r->status >= 300)
		x->kick = true; /* curl waits for a paused upload even when the answer is here */
	pthread_cond_broadcast(&x->changed);
	pthread_mutex_unlock(&x->lock);
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct xfer *x = arg;
	size_t all = size * n, len = all;

	x->last_ms = clock_mono_ms();
	while (len && (p[len - 1] == '\r' || p[len - 1] == '\n'))
		len--;
	if (x->headers_done && x->streaming)
		return all; /* trailers */
	if (len >= 9 && !memcmp(p, "HTTP/", 5)) {
		const char *sp = memchr(p, ' ', len);

		http_response_clear(x->r);
		x->r->status = sp && len - (size_t)(sp - p) >= 4
				       ? (sp[1] - '0') * 100 + (sp[2] - '0') * 10 + (sp[3] - '0')
				       : 0;
		return all;
	}
	if (len == 0) {
		if (x->r->status >= 200)
			headers_end(x);
		return x->refused[0] ? 0 : all;
	}
	x->r->header_bytes += all;
	if (x->r->header_bytes > MAX_HEADER_BYTES) {
		x->head_broken = true;
		return 0;
	}
	if (!x->headers_done)
		http_response_add(x->r, p, len);
	return all;
}

static void ring_put(struct xfer *x, const char *p, size_t n)
{
	size_t at = x->head & (RING - 1), first = n < RING - at ? n : RING - at;

	memcpy(x->ring + at, p, first);
	memcpy(x->ring, p + first, n - first);
}

static void ring_get(struct xfer *x, char *p, size_t n)
{
	size_t at = x->tail & (RING - 1), first = n < RING - at ? n : RING - at;

	memcpy(p, x->ring + at, first);
	memcpy(p + first, x->ring, n - first);
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct xfer *x = arg;
	size_t all = size * n;
	uint64_t head;

	x->last_ms = clock_mono_ms();
	if (!x->streaming) {
		atomic_fetch_add_explicit(&x->shared->in, all, memory_order_relaxed);
		if (x->r->body.len + all > x->max_response) {
			buf_add(&x->r->body, p, x->max_response - x->r->body.len, NULL);
			x->overflow = true;
			return 0;
		}
		return buf_add(&x->r->body, p, all, NULL) < 0 ? 0 : all;
	}
	pthread_mutex_lock(&x->lock);
	head = x->head;
	if (RING - (head - x->tail) < all) {
		x->paused = true;
		pthread_cond_broadcast(&x->changed);
		pthread_mutex_unlock(&x->lock);
		return CURL_WRITEFUNC_PAUSE;
	}
	pthread_mutex_unlock(&x->lock);
	ring_put(x, p, all); /* the reader does not look past head */
	atomic_fetch_add_explicit(&x->shared->in, all, memory_order_relaxed);
	pthread_mutex_lock(&x->lock);
	x->head = head + all;
	if (x->want && x->head - x->tail >= x->want)
		pthread_cond_signal(&x->changed);
	pthread_mutex_unlock(&x->lock);
	return all;
}

static size_t on_upload(char *p, size_t size, size_t n, void *arg)
{
	struct xfer *x = arg;
	size_t room = size * n, k;

	x->last_ms = clock_mono_ms();
	/* curl stops sending after an error answer, but not when that says "Connection: close": it
	 * would wait for the rest of the body for ever. */
	if (x->headers_done && x->r->status >= 300)
		return CURL_READFUNC_ABORT;
	pthread_mutex_lock(&x->lock);
	k = x->head - x->tail < room ? (size_t)(x->head - x->tail) : room;
	if (k == 0 && !x->finished) {
		x->paused = true;
		pthread_cond_broadcast(&x->changed);
	}
	if (k == 0) {
		k = x->finished ? 0 : CURL_READFUNC_PAUSE;
		pthread_mutex_unlock(&x->lock);
		return k;
	}
	pthread_mutex_unlock(&x->lock);
	ring_get(x, p, k);
	atomic_fetch_add_explicit(&x->shared->out, k, memory_order_relaxed);
	pthread_mutex_lock(&x->lock);
	x->tail += k;
	if (x->want && RING - (x->head - x->tail) >= x->want)
		pthread_cond_signal(&x->changed);
	pthread_mutex_unlock(&x->lock);
	return k;
}

/* A body from memory has no callback that tells of progress: so that a slow link is not idle. */
static int on_progress(void *arg, curl_off_t dl_all, curl_off_t dl, curl_off_t ul_all,
		       curl_off_t ul)
{
	struct xfer *x = arg;

	if (ul != x->sent) {
		x->sent = ul;
		x->last_ms = clock_mono_ms();
	}
	return 0;
}

/* ---- the job, on the network thread */

static void job_free(struct network_job *j)
{
	struct xfer *x = of(j);

	curl_easy_cleanup(x->job.easy);
	curl_slist_free_all(x->headers);
	http_response_freep(&x->r);
	pthread_cond_destroy(&x->changed);
	pthread_mutex_destroy(&x->lock);
	if (x->ring)
		free(x->ring);
	free(x->host);
	free(x->name);
	free(x->ca_file);
	free(x->cert_file);
	free(x);
}

/* The transfer is over; its caller may look at everything.  e: NULL for success. */
static void finish(struct xfer *x, const struct err *e)
{
	network_remove(&x->job);
	pthread_mutex_lock(&x->lock);
	if (!x->done) {
		x->done = true;
		x->failed = e != NULL;
		if (e)
			x->err = *e;
	}
	pthread_cond_broadcast(&x->changed);
	pthread_mutex_unlock(&x->lock);
}

static void job_over(struct network_job *j, CURLcode c)
{
	struct xfer *x = of(j);
	struct err e = {0};
	bool answered = x->headers_done && !x->streaming && !x->refused[0] && !x->head_broken;

	/* An error answer whose body was too long, or that came before the upload was over and was
	 * followed by a reset, is an answer. */
	if (c == CURLE_OK || (answered && x->r->status >= 300)) {
		finish(x, NULL);
		return;
	}
	curl_failed(x, c, &e);
	finish(x, &e);
}

static void job_failed(struct network_job *j, const struct err *why)
{
	finish(of(j), why);
}

static void job_cancelled(struct network_job *j, const struct err *why)
{
	struct xfer *x = of(j);
	uint64_t now = clock_mono_ms();
	bool ends = false;

	pthread_mutex_lock(&x->lock);
	if (x->may_end_early && x->tail > 0 && !x->ending) {
		ends = x->ending = x->finished = true;
		x->tail = x->head;
		x->paused = false;
		pthread_cond_broadcast(&x->changed);
	}
	pthread_mutex_unlock(&x->lock);
	if (ends) {
		x->end_ms = now + END_MS;
		curl_easy_pause(x->job.easy, CURLPAUSE_CONT);
	} else if (!x->ending || now >= x->end_ms) {
		finish(x, why);
	}
}

static void job_started(struct network_job *j)
{
	of(j)->last_ms = clock_mono_ms();
}

static void job_resume(struct network_job *j)
{
	struct xfer *x = of(j);

	pthread_mutex_lock(&x->lock);
	x->paused = x->resuming = false;
	pthread_mutex_unlock(&x->lock);
	x->last_ms = clock_mono_ms();
	curl_easy_pause(x->job.easy, CURLPAUSE_CONT);
}

/* How long it has been idle. */
static void job_tick(struct network_job *j, uint64_t now)
{
	struct xfer *x = of(j);
	bool paused;
	struct err e = {0};

	pthread_mutex_lock(&x->lock);
	if (x->kick)
		x->paused = false;
	paused = x->paused;
	pthread_mutex_unlock(&x->lock);
	if (x->kick) {
		x->kick = false;
		curl_easy_pause(x->job.easy, CURLPAUSE_CONT);
	}
	if (paused || now < x->last_ms + x->idle_ms)
		return;
	x->timeout_ms = 0;
	timed_out(x, &e);
	finish(x, &e);
}

static const struct network_ops job_ops = {.started = job_started,
					   .resume = job_resume,
					   .tick = job_tick,
					   .over = job_over,
					   .failed = job_failed,
					   .cancelled = job_cancelled,
					   .free = job_free};

/* ---- making a transfer */

static bool has_header(const char *const *headers, const char *name)
{
	size_t n = strlen(name);

	for (; headers && *headers; headers++)
		if (!strncasecmp(*headers, name, n) && (*headers)[n] == ':')
			return true;
	return false;
}

static void add_line(struct xfer *x, const char *line)
{
	struct curl_slist *l = curl_slist_append(x->headers, line);

	if (!l)
		abort();
	x->headers = l;
}

static int add_headers(struct xfer *x, const struct http_request *q, const struct hop *hop,
		       struct err *e)
{
	for (const char *const *p = q->headers; p && *p; p++) {
		if (strpbrk(*p, "\r\n"))
			return err_set(e, ERR_INVALID, "a header holds a line break");
		add_line(x, *p);
	}
	if (q->authorization && !hop->foreign) {
		scoped_free char *line = NULL;

		if (strpbrk(q->authorization, "\r\n"))
			return err_set(e, ERR_INVALID, "a credential holds a line break");
		line = mem_printf("Authorization: %s", q->authorization);
		add_line(x, line);
	}
	if (!has_header(q->headers, "Accept"))
		add_line(x, "Accept: */*");
	if (!has_header(q->headers, "Content-Type"))
		add_line(x, "Content-Type:");
	add_line(x, q->expect_continue ? "Expect: 100-continue" : "Expect:");
	curl_easy_setopt(x->job.easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 2000L);
	return 0;
}

static const char *system_ca(void)
{
	static const char *const paths[] = {"/etc/ssl/certs/ca-certificates.crt",
					    "/etc/pki/tls/certs/ca-bundle.crt",
					    "/etc/ssl/cert.pem"};
	const char *p = env_get("SSL_CERT_FILE");
	struct stat st;

	if (p)
		return p;
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		if (stat(paths[i], &st) == 0)
			return paths[i];
	return NULL;
}

static int read_pem(const char *path, struct buf *to, struct err *e)
{
	FILE *f = path ? fopen(path, "re") : NULL;
	char piece[4096];
	size_t n;
	int r = 0;

	if (!f)
		return path ? err_errno(e, errno, "cannot read ca_file %s", path) : 0;
	while (r == 0 && (n = fread(piece, 1, sizeof(piece), f)) > 0)
		r = buf_add(to, piece, n, e);
	fclose(f);
	return r == 0 ? buf_add_char(to, '\n', e) : r;
}

/* This host: its own CA alone.  A foreign host reached by a redirect: the system's and that one. */
static int set_trust(struct xfer *x, const struct http_peer *p, const struct hop *hop,
		     struct err *e)
{
	const char *ca = p->ca_file ? p->ca_file : system_ca();

	curl_easy_setopt(x->job.easy, CURLOPT_CAPATH,
			 NULL); /* or curl does not cache what it read */
	if (p->insecure) {
		curl_easy_setopt(x->job.easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(x->job.easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (p->ca_file && hop->foreign) {
		struct buf pem;
		struct curl_blob blob;
		int r;

		buf_init(&pem, CA_MAX);
		r = read_pem(p->ca_file, &pem, e) < 0 || read_pem(system_ca(), &pem, e) < 0;
		if (!r) {
			blob = (struct curl_blob){pem.data, pem.len, CURL_BLOB_COPY};
			curl_easy_setopt(x->job.easy, CURLOPT_CAINFO_BLOB, &blob);
		}
		buf_fini(&pem);
		if (r)
			return -1;
	} else if (ca) {
		curl_easy_setopt(x->job.easy, CURLOPT_CAINFO, ca);
		x->ca_file = mem_strdup(ca);
	}
	if (p->cert_file && !hop->foreign) {
		curl_easy_setopt(x->job.easy, CURLOPT_SSLCERT, p->cert_file);
		x->cert_file = mem_strdup(p->cert_file);
		if (p->key_file)
			curl_easy_setopt(x->job.easy, CURLOPT_SSLKEY, p->key_file);
	}
	return 0;
}

static void set_method(struct xfer *x, const struct http_request *q, uint64_t content_length)
{
	CURL *c = x->job.easy;

	if (x->upload) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_upload);
		curl_easy_setopt(c, CURLOPT_READDATA, x);
		curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
		if (content_length != UINT64_MAX)
			curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)content_length);
		else
			add_line(x, "Transfer-Encoding: chunked");
	} else if (str_eq(q->method, "HEAD")) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
		return;
	} else if (q->body_n || str_eq(q->method, "POST") || str_eq(q->method, "PUT") ||
		   str_eq(q->method, "PATCH")) {
		curl_easy_setopt(c, CURLOPT_POST, 1L);
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_n);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->body_n ? q->body : "");
		curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
		curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
		curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
		curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	}
	if (!str_eq(q->method, "GET"))
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
}

static void set_common(struct xfer *x, const struct http_request *q, const char *url)
{
	CURL *c = x->job.easy;

	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PRIVATE, &x->job);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 1L);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 512L << 10);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "acceld/" ACCEL_VERSION);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, x->curl_words);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_opensocket);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, x);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	if (q->timeout_ms)
		curl_easy_setopt(c, CURLOPT_TIMEOUT_MS,
				 (long)(q->timeout_ms < 86400000 ? q->timeout_ms : 86400000));
	if (q->fresh_connection)
		curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L);
}

void xfer_freep(struct xfer **x)
{
	if (*x)
		network_post(&(*x)->job, NETWORK_FREE);
	*x = NULL;
}

static struct xfer *xfer_new(struct xfer_shared *shared)
{
	struct xfer *x = mem_zalloc(sizeof(*x));

	x->shared = shared;
	x->job.ops = &job_ops;
	x->job.network = shared->network;
	x->job.easy = curl_easy_init();
	if (!x->job.easy)
		abort();
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->changed, NULL);
	x->r = mem_zalloc(sizeof(*x->r));
	return x;
}

static int check_scheme(const struct http_peer *p, const char *scheme, const char *host,
			struct err *e)
{
	if (str_eq(scheme, "https") || (str_eq(scheme, "http") && p->plain_http))
		return 0;
	return err_set(
		e, ERR_DENIED,
		"%s is asked for over plain HTTP, which is not allowed: set plain_http: true "
		"for it if that is meant",
		host);
}

/* Makes it and hands it to the network thread. */
int xfer_start(struct xfer **out, struct xfer_shared *shared, const struct http_request *q,
	       const struct hop *hop, bool want_stream, bool upload, uint64_t content_length,
	       struct err *e)
{
	static const struct http_peer nothing;
	const struct http_peer *p = q->peer ? q->peer : &nothing;
	scoped(xfer_freep) struct xfer *x = xfer_new(shared);
	scoped_free char *scheme = NULL;

	if (url_split(hop->url, &scheme, &x->name, NULL, e) < 0)
		return -1;
	if (check_scheme(p, scheme, x->name, e) < 0)
		return -1;
	x->host = strchr(x->name, ']')
			  ? (strchr(strchr(x->name, ']'), ':') ? mem_strdup(x->name) : NULL)
		  : strchr(x->name, ':') ? mem_strdup(x->name)
					 : NULL;
	if (!x->host)
		x->host = mem_printf("%s:%s", x->name, str_eq(scheme, "https") ? "443" : "80");
	x->allow_private = hop->allow_private;
	x->want_stream = want_stream;
	x->upload = upload;
	x->may_end_early = q->may_end_early;
	x->max_response = q->max_response ? q->max_response : DEFAULT_RESPONSE;
	x->idle_ms = q->idle_ms ? q->idle_ms : IDLE_MS;
	x->timeout_ms = q->timeout_ms;
	x->r->url = mem_strdup(hop->url);
	buf_init(&x->r->body, x->max_response);
	if (want_stream || upload)
		x->ring = mem_alloc(RING);
	set_common(x, q, hop->url);
	if (add_headers(x, q, hop, e) < 0 || set_trust(x, p, hop, e) < 0)
		return -1;
	set_method(x, q, content_length);
	curl_easy_setopt(x->job.easy, CURLOPT_HTTPHEADER, x->headers);
	if (!upload)
		atomic_fetch_add_explicit(&shared->out, q->body_n, memory_order_relaxed);
	x->job.cleans_up = str_eq(q->method, "DELETE");
	if (!x->job.cleans_up && network_check(shared->network, e) < 0)
		return -1;
	network_post(&x->job, NETWORK_ADD);
	*out = take_ptr(x);
	return 0;
}

/* Waits for the headers of a body that streams, else for the end. */
int xfer_wait(struct xfer *x, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&x->lock);
	while (!x->done && !(x->headers_done && x->streaming))
		pthread_cond_wait(&x->changed, &x->lock);
	if (x->done && x->failed && !x->streaming) {
		if (e)
			*e = x->err;
		r = -1;
	}
	pthread_mutex_unlock(&x->lock);
	return r;
}

/* ---- the caller's side of a body */

ssize_t xfer_read(struct xfer *x, void *p, size_t n, struct err *e)
{
	size_t want = n < RING_HALF ? n : RING_HALF, k;
	bool resume, over;

	pthread_mutex_lock(&x->lock);
	while (x->head - x->tail < want && !x->done) {
		x->want = want;
		pthread_cond_wait(&x->changed, &x->lock);
	}
	x->want = 0;
	k = x->head - x->tail < n ? (size_t)(x->head - x->tail) : n;
	over = k == 0 && x->failed;
	if (over && e)
		*e = x->err;
	pthread_mutex_unlock(&x->lock);
	if (k == 0)
		return over ? -1 : 0;
	ring_get(x, p, k);
	pthread_mutex_lock(&x->lock);
	x->tail += k;
	resume = x->paused && !x->resuming && RING - (x->head - x->tail) >= RING_HALF;
	if (resume)
		x->resuming = true;
	pthread_mutex_unlock(&x->lock);
	if (resume)
		network_post(&x->job, NETWORK_RESUME);
	return (ssize_t)k;
}

static int upload_over(const struct xfer *x, struct err *e)
{
	if (x->failed)
		return e ? (*e = x->err, -1) : -1;
	if (x->ending)
		return err_set(e, ERR_CANCELLED, "cancelled");
	return err_set(e, ERR_NET, "%s answered %d after %" PRIu64 " bytes were sent", x->name,
		       x->r->status, x->tail);
}

/* The answer is here before the body is over.  A good one does not end it. */
static bool refused_early(const struct xfer *x)
{
	return x->done || x->ending || (x->headers_done && x->r->status >= 300);
}

int xfer_write(struct xfer *x, const void *p, size_t n, struct err *e)
{
	const char *from = p;

	while (n) {
		size_t want = n < RING_HALF ? n : RING_HALF, k;
		bool resume, over;

		pthread_mutex_lock(&x->lock);
		while (RING - (x->head - x->tail) < want && !refused_early(x)) {
			x->want = want;
			pthread_cond_wait(&x->changed, &x->lock);
		}
		x->want = 0;
		over = refused_early(x);
		k = RING - (x->head - x->tail) < n ? (size_t)(RING - (x->head - x->tail)) : n;
		if (over)
			upload_over(x, e);
		pthread_mutex_unlock(&x->lock);
		if (over)
			return -1;
		ring_put(x, from, k);
		pthread_mutex_lock(&x->lock);
		x->head += k;
		resume = x->paused && !x->resuming && x->head - x->tail >= RESUME_SEND_AT;
		if (resume)
			x->resuming = true;
		pthread_mutex_unlock(&x->lock);
		if (resume)
			network_post(&x->job, NETWORK_RESUME);
		from += k;
		n -= k;
	}
	return 0;
}

void xfer_written(struct xfer *x)
{
	pthread_mutex_lock(&x->lock);
	x->finished = true;
	pthread_mutex_unlock(&x->lock);
	network_post(&x->job, NETWORK_RESUME);
}

int xfer_answer(struct xfer *x, struct http_response **r, struct err *e)
{
	pthread_mutex_lock(&x->lock);
	while (!x->done)
		pthread_cond_wait(&x->changed, &x->lock);
	pthread_mutex_unlock(&x->lock);
	if (x->failed) {
		if (e)
			*e = x->err;
		return -1;
	}
	*r = take_ptr(x->r);
	return 0;
}

bool xfer_streams(const struct xfer *x)
{
	return x->streaming;
}

struct http_response *xfer_response(struct xfer *x)
{
	return x->r;
}

struct http_response *xfer_take_response(struct xfer *x)
{
	return take_ptr(x->r);
}

const char *xfer_name(const struct xfer *x)
{
	return x->name;
}
