/* worker/registry/token.h - the login at one registry: which scheme it asked for, and the tokens it
 * gave, one for each scope.  Safe from several threads; a token is fetched by one of them while the
 * others wait for it.
 *
 * A token is renewed at 80 % of its life.  A realm must be on the registry's own host, in its
 * configured `realm`, or be docker.io's (no SSRF: design, "Registry client"). */
#ifndef WORKER_REGISTRY_TOKEN_H
#define WORKER_REGISTRY_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct http;
struct http_peer;
struct http_response;
struct login;
struct source_settings;

/* s, peer: borrowed.  base: "https://host:port" where requests go. */
struct login *login_new(struct http *h, const struct source_settings *s,
			const struct http_peer *peer, const char *base);
void login_freep(struct login **l);
const char *login_user(const struct login *l); /* NULL: anonymous */

#define LOGIN_SCOPE 600
/* The scope of requests about one repository, and pull on `also` (a mount's source, or NULL). */
void login_scope(char to[LOGIN_SCOPE], const char *repository, bool push, const char *also);

/* The Authorization value for `scope`, or NULL while the registry did not ask for one.  The caller
 * frees it (login_value_freep wipes).  fresh: at most half of the token's life is over. */
int login_value(struct login *l, const char *scope, bool fresh, char **value, struct err *e);
void login_value_freep(char **value);
/* After a 401 to a request that carried `sent` (NULL: nothing).  1: login_value gives something
 * else now, try again.  0: nothing more can be done. */
int login_refused(struct login *l, const char *scope, const char *sent,
		  const struct http_response *r, struct err *e);
/* Where tokens really come from when the challenge names `realm`; ERR_DENIED when it may not be
 * asked.  *own: the registry's own host, or a configured one.  For tests. */
int login_realm(const struct source_settings *s, const char *base, bool plain_http,
		const char *realm, char **url, bool *own, struct err *e);

#endif
