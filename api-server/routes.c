/* api-server/routes.c - see routes.h. */
#include "api-server/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "api-server/auth.h"
#include "api-server/counters.h"
#include "api-server/handlers.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/task.h"

const struct route routes[] = {
	{"POST", "/api/v1/conversions", ACCESS_OWN, handle_create,
	 "a webhook of Harbor, or a request: convert these images"},
	{"GET", "/api/v1/conversions", ACCESS_READ, handle_list, "the tasks, newest first"},
	{"GET", "/api/v1/conversions/{id}", ACCESS_READ, handle_show, "one task, with everything"},
	{"DELETE", "/api/v1/conversions/{id}", ACCESS_OWN, handle_cancel, "cancel a task"},
	{"POST", "/api/v1/conversions/{id}/retry", ACCESS_OWN, handle_retry,
	 "run a finished task again, as a new one"},
	{"GET", "/api/v1/health", ACCESS_OPEN, handle_health, "upstream's health check"},
	{"GET", "/healthz", ACCESS_OPEN, handle_healthz, "this process works"},
	{"GET", "/readyz", ACCESS_OPEN, handle_readyz, "it may be sent requests"},
	{"GET", "/metrics", ACCESS_OPEN, handle_metrics, "for Prometheus"},
};
const unsigned n_routes = sizeof(routes) / sizeof(routes[0]);

/* {id} takes a task's id; everything else is compared as it is. */
static bool path_matches(const char *pattern, const char *path, char id[TASK_ID])
{
	const char *brace = strstr(pattern, "{id}");
	size_t n = brace ? (size_t)(brace - pattern) : 0;

	if (!brace)
		return !strcmp(pattern, path);
	if (strncmp(pattern, path, n) != 0 || strlen(path) < n + TASK_ID - 1 ||
	    strcmp(path + n + TASK_ID - 1, brace + 4) != 0)
		return false;
	str_copy(id, TASK_ID, path + n);
	return task_id_valid(id);
}

static const struct route *find(const struct request *q, char id[TASK_ID])
{
	for (unsigned i = 0; i < n_routes; i++)
		if (!strcmp(routes[i].method, request_method(q)) &&
		    path_matches(routes[i].path, request_path(q), id))
			return &routes[i];
	return NULL;
}

/* The client's X-Request-Id is taken over only in a form that is harmless everywhere. */
static void set_request_id(struct request *q, struct call *c)
{
	const char *id = request_header(q, "X-Request-Id");
	size_t n = id ? strlen(id) : 0;
	bool good = n > 0 && n < sizeof(c->request_id);

	for (size_t i = 0; good && i < n; i++)
		good = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
			      id[i]) != NULL;
	if (good)
		str_copy(c->request_id, sizeof(c->request_id), id);
	else
		task_new_id(c->request_id);
	reply_header(q, "X-Request-Id", c->request_id);
}

void routes_on_request(struct request *q, void *arg)
{
	struct api *a = arg;
	struct call *c = mem_zalloc(sizeof(*c));
	char id[TASK_ID] = "";
	const struct route *r = find(q, id);

	c->url = r ? r->path : "/*";
	request_set_user(q, c);
	set_request_id(q, c);
	if (!r || (r->handle == handle_metrics && !a->settings->metric_enabled))
		answer_no_endpoint(q);
	else if (r->access == ACCESS_READ && !auth_read(a->settings, q))
		answer_unauthorized(q);
	else
		r->handle(a, q, id);
}

/* Any client can send any Host: the first few are told apart. */
static const char *host_label(struct api *a, const struct request *q)
{
	const char *host = request_header(q, "Host");

	if (!host || strlen(host) > 100)
		return "other";
	for (size_t i = 0; i < a->n_host_labels; i++)
		if (!strcmp(a->host_label[i], host))
			return host;
	if (a->n_host_labels == API_HOST_LABELS)
		return "other";
	a->host_label[a->n_host_labels++] = mem_strdup(host);
	return host;
}

static const char *method_label(const char *method)
{
	static const char *const known[] = {"GET",    "POST",	 "HEAD", "PUT",
					    "DELETE", "OPTIONS", "PATCH"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i], method))
			return method;
	return "other";
}

static void observe(struct api *a, const struct request *q, const char *url, int status,
		    uint64_t in_bytes, uint64_t out_bytes)
{
	char code[12];
	const char *labels[] = {code, host_label(a, q), method_label(request_method(q)), url};

	snprintf(code, sizeof(code), "%d", status);
	metrics_add(a->metrics, COUNT_REQUESTS, labels, 1);
	metrics_observe(a->metrics, COUNT_REQUEST_SECONDS, labels, (double)request_age_us(q) / 1e6);
	metrics_observe(a->metrics, COUNT_REQUEST_BYTES, labels,
			(double)(in_bytes + strlen(request_uri(q))));
	metrics_observe(a->metrics, COUNT_RESPONSE_BYTES, labels, (double)out_bytes);
}

/* METHOD URI STATUS LATENCY IN>OUTbytes IP, as upstream. */
static void access_line(const struct request *q, int status, uint64_t in_bytes, uint64_t out_bytes)
{
	char latency[CLOCK_TEXT], ip[64], *colon;
	scoped_free char *msg = NULL;

	str_copy(ip, sizeof(ip), request_peer(q));
	colon = strrchr(ip, ':');
	if (colon)
		*colon = 0;
	clock_go_duration(latency, request_age_us(q) * 1000);
	msg = mem_printf("%s %s %d %s %llu>%llubytes %s", request_method(q), request_uri(q), status,
			 latency, (unsigned long long)in_bytes, (unsigned long long)out_bytes, ip);
	log_info(msg, F_MODULE("api"), NULL);
}

void routes_on_done(const struct request *q, int status, uint64_t in_bytes, uint64_t out_bytes,
		    void *arg)
{
	struct api *a = arg;
	struct call *c = request_user(q);
	const char *url = c ? c->url : "/*";

	/* Scrapes and probes come every few seconds and say nothing. */
	if (strcmp(url, "/metrics") != 0) {
		observe(a, q, url, status, in_bytes, out_bytes);
		if (status >= 400 || (strcmp(url, "/healthz") != 0 && strcmp(url, "/readyz") != 0))
			access_line(q, status, in_bytes, out_bytes);
	}
	free(c);
}

void routes_on_refused(const char *peer, int status, const char *why, void *arg)
{
	char code[12];

	snprintf(code, sizeof(code), "%d", status);
	counters_add(arg, COUNT_REFUSED, code);
	log_warning("refused bytes that are no request", F_STR("peer", peer),
		    F_I64("status", status), F_STR("why", why), F_MODULE("api"), NULL);
}
