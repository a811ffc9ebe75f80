/* api-server/list.c - GET /api/v1/conversions: a bare array, newest first, as upstream; paging and
 * filters as Harbor's lists have them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api-server/answer.h"
#include "api-server/api.h"
#include "api-server/auth.h"
#include "api-server/handlers.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/queue.h"
#include "common/scope.h"
#include "common/str.h"

enum { UNPAGED = 1000, PAGE_SIZE = 10, PAGE_MAX = 100, FILTER_MAX = 512 };

struct listing {
	struct request *q;
	uint64_t page, page_size; /* page 0: not paged */
	char *filter;		  /* q, split in place */
	struct queue_filter f;
};

static void listing_freep(struct listing **l)
{
	if (*l)
		free((*l)->filter);
	free(*l);
	*l = NULL;
}

static int parse_number(const struct request *q, const char *name, uint64_t max, uint64_t *v,
			struct err *e)
{
	const char *text = request_query(q, name);

	if (!text)
		return 0;
	if (str_u64(text, v, e) < 0)
		return err_wrap(e, "%s", name);
	if (*v < 1 || *v > max)
		return err_set(e, ERR_INVALID, "%s is %s, expected 1 to %llu", name, text,
			       (unsigned long long)max);
	return 0;
}

/* q=status=FAILED,source=~nginx */
static int parse_filter(struct listing *l, struct err *e)
{
	char *save, *term;

	for (term = strtok_r(l->filter, ",", &save); term; term = strtok_r(NULL, ",", &save)) {
		if (!strncmp(term, "status=", 7))
			l->f.status = term + 7;
		else if (!strncmp(term, "phase=", 6))
			l->f.phase = term + 6;
		else if (!strncmp(term, "source=~", 8))
			l->f.source = term + 8;
		else
			return err_set(e, ERR_INVALID,
				       "q: '%.64s', expected status=X, phase=X or source=~X", term);
	}
	return 0;
}

static int parse(struct listing *l, const struct request *q, struct err *e)
{
	const char *sort = request_query(q, "sort"), *filter = request_query(q, "q");
	bool paged = request_query(q, "page") || request_query(q, "page_size");

	l->page = paged;
	l->page_size = PAGE_SIZE;
	if (parse_number(q, "page", 1000000, &l->page, e) < 0 ||
	    parse_number(q, "page_size", PAGE_MAX, &l->page_size, e) < 0)
		return -1;
	if (sort && strcmp(sort, "-created") != 0)
		return err_set(e, ERR_INVALID, "sort is '%.64s', expected -created", sort);
	if (filter && strlen(filter) > FILTER_MAX)
		return err_set(e, ERR_INVALID, "q is longer than %d bytes", FILTER_MAX);
	l->filter = mem_strdup(filter);
	if (l->filter && parse_filter(l, e) < 0)
		return -1;
	l->f.limit = paged ? (uint32_t)l->page_size : UNPAGED;
	l->f.offset = paged ? (l->page - 1) * l->page_size : 0;
	return 0;
}

static void add_link(struct listing *l, uint64_t page, const char *rel, struct buf *b)
{
	const char *filter = request_query(l->q, "q");

	buf_addf(b, NULL, "%s</api/v1/conversions?page=%llu&page_size=%llu", b->len ? ", " : "",
		 (unsigned long long)page, (unsigned long long)l->page_size);
	if (filter)
		buf_add_str(b, "&q=", NULL);
	for (const char *p = filter; p && *p; p++) {
		bool plain = (*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z') ||
			     strchr("-._~/", *p);

		buf_addf(b, NULL, plain ? "%c" : "%%%02X", plain ? *p : (unsigned char)*p);
	}
	buf_addf(b, NULL, ">; rel=\"%s\"", rel);
}

static void add_paging(struct listing *l, uint64_t total)
{
	scoped(buf_fini) struct buf links = BUF_INIT(8192);
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)total);
	reply_header(l->q, "X-Total-Count", text);
	if (!l->page)
		return;
	if (l->page > 1)
		add_link(l, l->page - 1, "prev", &links);
	if (l->page * l->page_size < total)
		add_link(l, l->page + 1, "next", &links);
	if (links.len)
		reply_header(l->q, "Link", links.data);
}

static void on_list(const struct task *t, size_t n, uint64_t total, const struct err *e, void *arg)
{
	scoped(listing_freep) struct listing *l = arg;
	struct json *all;

	if (e) {
		answer_unavailable(l->q);
		return;
	}
	add_paging(l, total);
	all = json_new_array();
	for (size_t i = 0; i < n; i++)
		json_append(all, task_to_json(&t[i], false));
	reply_header(l->q, "Cache-Control", "no-store");
	answer_json(l->q, 200, &all);
}

/* Harbor follows a redirect of 301 or 302 with a GET, and takes any 2xx for success: the event
 * would be lost without a trace. */
static bool is_eaten_webhook(struct api *a, struct request *q)
{
	if (!request_header(q, "Referer") || !auth_is_webhook(a->settings, q))
		return false;
	log_error(
		"a webhook came as a GET: something in front redirects it; put the final URL into "
		"Harbor's webhook policy",
		F_STR("referer", request_header(q, "Referer")), F_MODULE("api"), NULL);
	answer_error(q, 400, "ERR_ILLEGAL_PARAMETER",
		     "this is a webhook that a redirect turned into a GET, so the event is lost: "
		     "put the final URL into Harbor's webhook policy",
		     NULL);
	return true;
}

void handle_list(struct api *a, struct request *q, const char *id)
{
	scoped(listing_freep) struct listing *l = mem_zalloc(sizeof(*l));
	struct err e = {0};

	(void)id;
	if (is_eaten_webhook(a, q))
		return;
	l->q = q;
	if (parse(l, q, &e) < 0) {
		answer_error(q, 400, "ERR_ILLEGAL_PARAMETER", e.text, NULL);
		return;
	}
	queue_list(a->queue, &l->f, on_list, l);
	take_ptr(l);
}
