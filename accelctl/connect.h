/* accelctl/connect.h - settings and registries for the commands that talk to a registry themselves.
 */
#ifndef ACCELCTL_CONNECT_H
#define ACCELCTL_CONNECT_H

#include <stdatomic.h>
#include <stddef.h>

struct backend;
struct err;
struct http;
struct imageref;
struct registry;
struct settings;

/* path NULL: no file, docker's configuration and loopback HTTP.  A host that the file does not
 * name, or names without a login, gets docker's login. */
int connect_settings(struct settings **s, const char *path, const char *host, struct err *e);
/* "latest" where a reference has neither tag nor digest. */
int connect_reference(struct imageref *r, const char *text, struct err *e);

struct connection {
	struct settings *settings;
	struct http *http;
	struct registry *registry;
	struct backend **backend; /* of connect_backends */
	size_t n_backends;
};
int connect_open(struct connection *c, const char *config, const struct imageref *ref,
		 struct err *e);
/* The storage backends that the configuration's rules name, each once; one that cannot be opened
 * is told and left out. */
void connect_backends(struct connection *c);
void connect_close(struct connection *c);

/* Before the first thread is started: all of them leave these signals to the one that waits for
 * them. */
void connect_block_signals(void);
/* SIGINT, SIGTERM and SIGHUP set *stop to ERR_CANCELLED and cancel all transfers; a second one ends
 * the program. */
int connect_catch_signals(atomic_int *stop, struct http *http, struct err *e);

#endif
