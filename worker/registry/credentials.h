/* worker/registry/credentials.h - login data for one-time mode: docker's and podman's files and
 * helpers. Order and formats: reference/cli-ui.md §1.2, "Credentials".  Helpers run without a
 * shell, 10 s at most. */
#ifndef WORKER_REGISTRY_CREDENTIALS_H
#define WORKER_REGISTRY_CREDENTIALS_H

struct err;
struct secret;

struct credentials {
	struct secret *username, *password; /* both NULL: anonymous */
	struct secret *identity_token;	    /* instead of a password, or NULL */
};
/* 1 found, 0 none, -1 a file or helper is broken (says which). */
int credentials_find(struct credentials *c, const char *host, struct err *e);
void credentials_fini(struct credentials *c);

#endif
