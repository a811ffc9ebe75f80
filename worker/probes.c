/* worker/probes.c - see probes.h. */
#include "worker/probes.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "worker/supervisor.h"

static void answer(struct request *q, void *arg)
{
	struct supervisor *v = arg;
	scoped(buf_fini) struct buf b = BUF_INIT(4u << 20);
	const char *path = request_path(q), *why;

	if (strcmp(request_method(q), "GET") != 0 && strcmp(request_method(q), "HEAD") != 0) {
		reply(q, 405, "text/plain; charset=utf-8", "GET only\n", 9);
	} else if (strcmp(path, "/healthz") == 0) { /* that this is answered at all is the answer */
		reply(q, 200, "text/plain; charset=utf-8", "ok\n", 3);
	} else if (strcmp(path, "/readyz") == 0) {
		supervisor_status(v, &b);
		reply(q, supervisor_ready(v, &why) ? 200 : 503, "application/json", b.data, b.len);
	} else if (strcmp(path, "/metrics") == 0) {
		supervisor_metrics(v, &b, NULL);
		reply(q, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
	} else {
		reply(q, 404, "text/plain; charset=utf-8", "not found\n", 10);
	}
}

int probes_open(struct httpd **h, struct loop *l, const char *listen, struct supervisor *v,
		struct err *e)
{
	const char *colon = strrchr(listen, ':');
	scoped_free char *host = NULL, *bound = NULL;
	const struct httpd_opts o = {.max_body = 4096, .max_connections = 64};
	uint64_t port;

	*h = NULL;
	if (strcmp(listen, "off") == 0)
		return 0;
	if (!colon || str_u64(colon + 1, &port, NULL) < 0 || port > 65535)
		return err_set(e, ERR_INVALID, "worker.listen: '%s' is neither HOST:PORT nor off",
			       listen);
	host = mem_strndup(listen, (size_t)(colon - listen));
	if (httpd_open(h, l, &o, answer, v, e) < 0)
		return -1;
	if (httpd_listen_tcp(*h, host, (uint16_t)port, NULL, NULL, NULL, &bound, e) < 0) {
		log_warning("no probes and metrics of this worker", F_ERR(e), NULL);
		httpd_freep(h);
		return 0;
	}
	log_info("worker's probes and metrics", F_STR("listen", bound), NULL);
	return 0;
}
