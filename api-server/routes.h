/* api-server/routes.h - the one table of what this server answers: method, path, who may, handler.
 *
 * Whatever is not in it, other methods on its paths and HEAD included, gets upstream's 404. */
#ifndef API_SERVER_ROUTES_H
#define API_SERVER_ROUTES_H

#include <stdint.h>

struct api;
struct request;

enum route_access {
	ACCESS_OPEN, /* anyone */
	ACCESS_READ, /* auth.tokens, when there are any */
	ACCESS_OWN,  /* the handler decides, knowing the host */
};

struct route {
	const char *method, *path; /* {id} is a task's id */
	enum route_access access;
	void (*handle)(struct api *a, struct request *q, const char *id);
	const char *doc;
};

extern const struct route routes[];
extern const unsigned n_routes;

/* For httpd: arg is the struct api. */
void routes_on_request(struct request *q, void *arg);
/* The access line and the metrics of a finished request. */
void routes_on_done(const struct request *q, int status, uint64_t in_bytes, uint64_t out_bytes,
		    void *arg);
void routes_on_refused(const char *peer, int status, const char *why, void *arg);

#endif
