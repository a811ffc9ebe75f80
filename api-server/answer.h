/* api-server/answer.h - the few forms that answers have: "Ok", a JSON value, an error. */
#ifndef API_SERVER_ANSWER_H
#define API_SERVER_ANSWER_H

struct json;
struct request;

/* What routes notes about a request while it is worked on. */
struct call {
	const char *url; /* the route's pattern, for metrics; "/\*" for none */
	char request_id[65];
};

void answer_ok(struct request *q); /* 200 "Ok" */
/* Takes value.  ?pretty indents, as upstream's framework does. */
void answer_json(struct request *q, int status, struct json **value);
/* One body for both readers: upstream's client takes message, Harbor's errors[].  detail is the
 * longer text, for errors[]; NULL: the same. */
void answer_error(struct request *q, int status, const char *code, const char *message,
		  const char *detail);
void answer_unavailable(struct request *q); /* Redis did not take it: 500, come again */
void answer_unauthorized(struct request *q);
void answer_no_endpoint(struct request *q);

#endif
