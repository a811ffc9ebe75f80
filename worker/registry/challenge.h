/* worker/registry/challenge.h - what a 401 asks for: RFC 9110 §11.6.1, WWW-Authenticate.
 *
 * One value may hold several challenges, parameters come in any order, quoted values hold commas;
 * Harbor sends two scopes in one value, and an empty challenge where nothing would help. */
#ifndef WORKER_REGISTRY_CHALLENGE_H
#define WORKER_REGISTRY_CHALLENGE_H

#include <stddef.h>

enum challenge_scheme { CHALLENGE_OTHER, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
	enum challenge_scheme scheme;
	char *realm, *service, *scope, *error; /* or NULL */
};

#define CHALLENGES_MAX 8
struct challenges {
	struct challenge c[CHALLENGES_MAX];
	size_t n;
};

/* Adds the challenges of one header value.  What cannot be read is left out; more than fit are
 * dropped. */
void challenges_parse(struct challenges *to, const char *value);
const struct challenge *challenges_find(const struct challenges *c, enum challenge_scheme scheme);
void challenges_fini(struct challenges *c);

#endif
