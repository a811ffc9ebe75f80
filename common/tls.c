/* common/tls.c - see tls.h. */
#include "common/tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/err.h"
#include "common/str.h"

static const char *queued(unsigned long code, char *text, size_t n)
{
	const char *reason;
	unsigned long more;

	while ((more = ERR_get_error()) != 0)
		if (!code)
			code = more;
	if (code && ERR_SYSTEM_ERROR(code))
		reason = strerror(ERR_GET_REASON(code));
	else
		reason = code ? ERR_reason_error_string(code)
			      : NULL; /* may be NULL for a known code too */
	snprintf(text, n, "%s", reason ? reason : "no reason given");
	return text;
}

void tls_context_freep(struct ssl_ctx_st **ctx)
{
	SSL_CTX_free(*ctx);
	*ctx = NULL;
}

void tls_freep(struct ssl_st **ssl)
{
	SSL_free(*ssl);
	*ssl = NULL;
}

static int load_pair(SSL_CTX *ctx, const char *cert, const char *key, struct err *e)
{
	char why[256];

	if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
		return err_set(e, ERR_INVALID, "certificate %s: %s", cert,
			       queued(0, why, sizeof(why)));
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		return err_set(e, ERR_INVALID, "key %s: %s", key, queued(0, why, sizeof(why)));
	if (SSL_CTX_check_private_key(ctx) != 1)
		return err_set(e, ERR_INVALID, "key %s does not belong to certificate %s", key,
			       cert);
	return 0;
}

static int load_ca(SSL_CTX *ctx, const char *file, struct err *e)
{
	char why[256];

	if (!file && SSL_CTX_set_default_verify_paths(ctx) != 1)
		return err_set(e, ERR_SYSTEM, "the system's certificates: %s",
			       queued(0, why, sizeof(why)));
	if (file && SSL_CTX_load_verify_locations(ctx, file, NULL) != 1)
		return err_set(e, ERR_INVALID, "CA file %s: %s", file, queued(0, why, sizeof(why)));
	return 0;
}

static SSL_CTX *context(const SSL_METHOD *method)
{
	SSL_CTX *ctx;

	ERR_clear_error();
	ctx = SSL_CTX_new(method);
	if (!ctx)
		return NULL;
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS); /* idle connections: 32 KiB less each */
	return ctx;
}

int tls_client_context(struct ssl_ctx_st **to, const char *ca_file, const char *cert_file,
		       const char *key_file, struct err *e)
{
	SSL_CTX *ctx;

	if (!cert_file != !key_file)
		return err_set(e, ERR_INVALID,
			       "a client certificate needs both its file and its key's");
	ctx = context(TLS_client_method());
	if (!ctx)
		return err_set(e, ERR_SYSTEM, "no TLS context could be made");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (load_ca(ctx, ca_file, e) < 0 ||
	    (cert_file && load_pair(ctx, cert_file, key_file, e) < 0)) {
		SSL_CTX_free(ctx);
		return -1;
	}
	*to = ctx;
	return 0;
}

int tls_server_context(struct ssl_ctx_st **to, const char *cert_file, const char *key_file,
		       const char *client_ca_file, struct err *e)
{
	SSL_CTX *ctx = context(TLS_server_method());

	if (!ctx)
		return err_set(e, ERR_SYSTEM, "no TLS context could be made");
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
	if (load_pair(ctx, cert_file, key_file, e) < 0 ||
	    (client_ca_file && load_ca(ctx, client_ca_file, e) < 0)) {
		SSL_CTX_free(ctx);
		return -1;
	}
	if (client_ca_file)
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	*to = ctx;
	return 0;
}

static bool is_address(const char *host)
{
	unsigned char to[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, to) == 1 || inet_pton(AF_INET6, host, to) == 1;
}

int tls_client_new(struct ssl_st **to, struct ssl_ctx_st *ctx, const char *host, struct err *e)
{
	SSL *ssl = SSL_new(ctx);
	char why[256];

	/* Without these two a valid certificate of anyone would do. */
	if (!ssl || SSL_set1_host(ssl, host) != 1 ||
	    (!is_address(host) && SSL_set_tlsext_host_name(ssl, host) != 1)) {
		SSL_free(ssl);
		return err_set(e, ERR_SYSTEM, "TLS to %s: %s", host, queued(0, why, sizeof(why)));
	}
	*to = ssl;
	return 0;
}

int tls_server_new(struct ssl_st **to, struct ssl_ctx_st *ctx, struct err *e)
{
	char why[256];
	SSL *ssl = SSL_new(ctx);

	if (!ssl)
		return err_set(e, ERR_SYSTEM, "TLS: %s", queued(0, why, sizeof(why)));
	*to = ssl;
	return 0;
}

const char *tls_why(const struct ssl_st *ssl, unsigned long code, char *text, size_t n)
{
	char why[256];
	long verdict = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;

	queued(code, why, sizeof(why));
	if (verdict != X509_V_OK)
		snprintf(text, n, "%s: %s", why, X509_verify_cert_error_string(verdict));
	else
		str_copy(text, n, why);
	return text;
}
