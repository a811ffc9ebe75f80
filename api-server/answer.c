/* api-server/answer.c - see answer.h. */
#include "api-server/answer.h"

#include "common/buf.h"
#include "common/err.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/scope.h"
#include "common/str.h"

enum { ANSWER_MAX = 64 << 20 };

void answer_json(struct request *q, int status, struct json **value)
{
	scoped(buf_fini) struct buf b = BUF_INIT(ANSWER_MAX);
	struct err e = {0};
	int r = json_write(*value, request_query(q, "pretty") ? JSON_PRETTY : JSON_COMPACT, &b, &e);

	json_freep(value);
	if (r < 0 || buf_add_char(&b, '\n', &e) < 0)
		reply(q, 500, NULL, "", 0);
	else
		reply(q, status, "application/json", b.data, b.len);
}

void answer_ok(struct request *q)
{
	reply(q, 200, "application/json", "\"Ok\"\n", 5);
}

void answer_error(struct request *q, int status, const char *code, const char *message,
		  const char *detail)
{
	struct json *j = json_new_object(), *errors = json_new_array(), *one = json_new_object();
	const struct call *c = request_user(q);
	char text[1024];

	json_set_str(j, "code", code);
	str_copy(text, sizeof(text), message);
	str_clean(text);
	json_set_str(j, "message", text);
	json_set_str(one, "code", code);
	str_copy(text, sizeof(text), detail ? detail : message);
	str_clean(text);
	json_set_str(one, "message", text);
	json_append(errors, one);
	json_set(j, "errors", errors);
	if (c)
		json_set_str(j, "request_id", c->request_id);
	answer_json(q, status, &j);
}

void answer_unavailable(struct request *q)
{
	reply_header(q, "Retry-After", "5");
	answer_error(q, 500, "ERR_UNAVAILABLE",
		     "the task store does not answer, nothing was accepted; try again", NULL);
}

void answer_unauthorized(struct request *q)
{
	answer_error(q, 401, "ERR_UNAUTHORIZED", "invalid auth config", NULL);
}

void answer_no_endpoint(struct request *q)
{
	answer_error(q, 404, "ERR_INVALID_ENDPOINT", "Endpoint not found", NULL);
}
