/* api-server/auth.h - who may do what: source headers and tokens (design "Authentication").
 *
 * It fails closed: a missing header is a wrong header, a host that is not configured is refused
 * whoever asks, since only configured hosts are ever contacted.  Comparisons take constant time. */
#ifndef API_SERVER_AUTH_H
#define API_SERVER_AUTH_H

#include <stdbool.h>

struct request;
struct settings;

/* May this request name an image of the host?  Logs a refusal as upstream does. */
bool auth_host(const struct settings *s, const struct request *q, const char *host);
/* May it cancel or retry a task of the host: as auth_host, or a token with scope write. */
bool auth_write(const struct settings *s, const struct request *q, const char *host);
/* May it look: all may unless auth.tokens are configured. */
bool auth_read(const struct settings *s, const struct request *q);
/* It carries the webhook header of some configured source. */
bool auth_is_webhook(const struct settings *s, const struct request *q);

#endif
