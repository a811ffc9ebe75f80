/* common/tls.h - TLS contexts and what is checked of the other side: TLS 1.2 or newer, always.
 *
 * The bytes are moved by libevent's bufferevents (bufferevent_openssl_socket_new) in resp and
 * httpd.  A context is shared by many connections, and may be freed while they live. */
#ifndef COMMON_TLS_H
#define COMMON_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct ssl_ctx_st; /* OpenSSL's SSL_CTX */
struct ssl_st;	   /* OpenSSL's SSL */

/* ca_file NULL: the system's.  cert_file and key_file: both or neither.  ERR_INVALID names the
 * file. */
int tls_client_context(struct ssl_ctx_st **ctx, const char *ca_file, const char *cert_file,
		       const char *key_file, struct err *e);
/* client_ca_file NULL: no client certificate is asked for; else one is required. */
int tls_server_context(struct ssl_ctx_st **ctx, const char *cert_file, const char *key_file,
		       const char *client_ca_file, struct err *e);
void tls_context_freep(struct ssl_ctx_st **ctx);

/* A client's end: the certificate must be for `host` (a name or an address; SNI for names alone).
 * Goes to a bufferevent, which owns it then. */
int tls_client_new(struct ssl_st **ssl, struct ssl_ctx_st *ctx, const char *host, struct err *e);
int tls_server_new(struct ssl_st **ssl, struct ssl_ctx_st *ctx, struct err *e);
void tls_freep(struct ssl_st **ssl); /* one that no bufferevent took */

/* Why a handshake or a connection failed, for a message: "certificate verify failed: self-signed
 * certificate". `code` is what bufferevent_get_openssl_error gave, or 0; empties OpenSSL's queue of
 * this thread. */
const char *tls_why(const struct ssl_st *ssl, unsigned long code, char *text, size_t n);

#endif
