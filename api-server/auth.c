/* api-server/auth.c - see auth.h. */
#include "api-server/auth.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/config.h"
#include "common/httpd.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"

/* Root and our own user on the unix socket; loopback only when the configuration says so, because
 * proxies and port forwards come from there. */
static bool is_exempt(const struct settings *s, const struct request *q)
{
	uid_t uid;

	if (request_peer_is_unix(q, &uid))
		return uid == 0 || uid == geteuid();
	return s->auth.allow_loopback && request_peer_is_loopback(q);
}

static const char *header_of(const struct request *q)
{
	const char *h = request_header(q, "Authorization");

	return h && *h ? h : NULL;
}

static bool host_matches(const struct settings *s, const struct request *q, const char *host)
{
	const struct source_settings *src = settings_source(s, host);
	const char *h = header_of(q);

	if (!src)
		return false;
	if (is_exempt(s, q))
		return true;
	if (!src->auth_header)
		return !h; /* as upstream: a header where none is expected is a wrong one */
	return h && secret_eq(src->auth_header, h, strlen(h));
}

static bool refused(const char *host)
{
	scoped_free char *msg = mem_printf("failed to authenticate for host %s", host);
	scoped_free char *why = mem_printf("unmatched auth header for host %s", host);

	log_error(msg, F_STR("error", why), F_MODULE("api"), NULL);
	return false;
}

bool auth_host(const struct settings *s, const struct request *q, const char *host)
{
	return host_matches(s, q, host) || refused(host);
}

static bool token_allows(const struct settings *s, const struct request *q, bool write)
{
	const char *h = header_of(q);
	bool found = false;

	if (!h || strncasecmp(h, "Bearer ", 7) != 0)
		return false;
	h += 7;
	for (size_t i = 0; i < s->auth.n_tokens; i++) { /* all of them: no timing */
		const struct token_settings *t = &s->auth.token[i];
		bool scope = write ? t->write || t->admin : t->read || t->write || t->admin;

		found |= secret_matches_sha256(h, strlen(h), t->sha256) && scope;
	}
	return found;
}

bool auth_write(const struct settings *s, const struct request *q, const char *host)
{
	return token_allows(s, q, true) || host_matches(s, q, host) || refused(host);
}

bool auth_read(const struct settings *s, const struct request *q)
{
	return !s->auth.n_tokens || is_exempt(s, q) || token_allows(s, q, false);
}

bool auth_is_webhook(const struct settings *s, const struct request *q)
{
	const char *h = header_of(q);
	bool found = false;

	for (size_t i = 0; h && i < s->n_sources; i++)
		found |= s->source[i].auth_header &&
			 secret_eq(s->source[i].auth_header, h, strlen(h));
	return found;
}
