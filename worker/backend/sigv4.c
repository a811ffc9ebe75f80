/* worker/backend/sigv4.c - see sigv4.h.
 *
 * Three steps: the canonical request; its hash with date, region and service as the text to sign;
 * a key that is a chain of HMACs from the secret over the same three, so that a leaked one is good
 * for a day, a region and a service. */
#include "worker/backend/sigv4.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define SIGN_MAX (64 * 1024)
#define DAY 8 /* of the date: YYYYMMDD */

void sigv4_date(char date[SIGV4_DATE], long long wall_ns)
{
	time_t t = (time_t)(wall_ns / 1000000000);
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(date, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &tm);
}

/* Blanks around a value go, and runs of them inside become one. */
static int add_value(struct buf *to, const char *v, struct err *e)
{
	bool blank = false;

	v += strspn(v, " \t");
	for (; *v; v++) {
		if (*v == ' ' || *v == '\t') {
			blank = true;
			continue;
		}
		if (blank && buf_add_char(to, ' ', e) < 0)
			return -1;
		blank = false;
		if (buf_add_char(to, *v, e) < 0)
			return -1;
	}
	return 0;
}

static int add_names(const struct sigv4 *q, struct buf *to, struct err *e)
{
	for (size_t i = 0; i < q->n_headers; i++)
		if (buf_addf(to, e, "%s%s", i ? ";" : "", q->header[i].name) < 0)
			return -1;
	return 0;
}

int sigv4_canonical(const struct sigv4 *q, struct buf *to, struct err *e)
{
	if (buf_addf(to, e, "%s\n%s\n%s\n", q->method, q->path, q->query) < 0)
		return -1;
	for (size_t i = 0; i < q->n_headers; i++)
		if (buf_addf(to, e, "%s:", q->header[i].name) < 0 ||
		    add_value(to, q->header[i].value, e) < 0 || buf_add_char(to, '\n', e) < 0)
			return -1;
	if (buf_add_char(to, '\n', e) < 0 || add_names(q, to, e) < 0)
		return -1;
	return buf_addf(to, e, "\n%s", q->payload);
}

static void signing_key(const struct sigv4 *q, uint8_t key[32])
{
	const char *const links[] = {q->region, q->service, "aws4_request"};
	scoped(buf_wipe) struct buf b = BUF_INIT(SIGN_MAX);

	buf_add_str(&b, "AWS4", NULL);
	buf_add(&b, secret_value(q->secret), secret_len(q->secret), NULL);
	digest_hmac_sha256(key, b.data, b.len, q->date, DAY);
	for (size_t i = 0; i < 3; i++)
		digest_hmac_sha256(key, key, 32, links[i], strlen(links[i]));
}

static int text_to_sign(const struct sigv4 *q, struct buf *to, struct err *e)
{
	scoped(buf_fini) struct buf canonical = BUF_INIT(SIGN_MAX);
	char hex[DIGEST_TEXT];
	struct digest d;

	if (sigv4_canonical(q, &canonical, e) < 0)
		return -1;
	digest_of(&d, DIGEST_SHA256, canonical.data, canonical.len);
	return buf_addf(to, e, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", q->date,
			q->date, q->region, q->service, digest_hex(&d, hex));
}

int sigv4_authorization(const struct sigv4 *q, struct buf *to, struct err *e)
{
	scoped(buf_fini) struct buf text = BUF_INIT(SIGN_MAX);
	uint8_t key[32], sum[32];
	char hex[65];

	if (text_to_sign(q, &text, e) < 0)
		return -1;
	signing_key(q, key);
	digest_hmac_sha256(sum, key, sizeof(key), text.data, text.len);
	secret_wipe(key, sizeof(key));
	str_hex(hex, sum, sizeof(sum));
	if (buf_addf(to, e,
		     "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=",
		     q->key_id, q->date, q->region, q->service) < 0 ||
	    add_names(q, to, e) < 0)
		return -1;
	return buf_addf(to, e, ", Signature=%s", hex);
}
