/* api-server/handlers.h - what routes calls.  Each ends its request, now or later. */
#ifndef API_SERVER_HANDLERS_H
#define API_SERVER_HANDLERS_H

struct api;
struct request;

void handle_create(struct api *a, struct request *q, const char *id);
void handle_list(struct api *a, struct request *q, const char *id);
void handle_show(struct api *a, struct request *q, const char *id);
void handle_cancel(struct api *a, struct request *q, const char *id);
void handle_retry(struct api *a, struct request *q, const char *id);
void handle_health(struct api *a, struct request *q, const char *id);
void handle_healthz(struct api *a, struct request *q, const char *id);
void handle_readyz(struct api *a, struct request *q, const char *id);
void handle_metrics(struct api *a, struct request *q, const char *id);

#endif
