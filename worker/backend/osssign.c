/* worker/backend/osssign.c - see osssign.h.  The body is not signed: Content-MD5, which is, guards
 * it. */
#include "worker/backend/osssign.h"

#include <stdio.h>
#include <time.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define SIGN_MAX (64 * 1024)

void osssign_date(char date[OSSSIGN_DATE], long long wall_ns)
{
	static const char day[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char month[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t t = (time_t)(wall_ns / 1000000000);
	struct tm tm;

	gmtime_r(&t, &tm); /* by hand: strftime's names follow the locale */
	snprintf(date, OSSSIGN_DATE, "%s, %02u %s %04u %02u:%02u:%02u GMT", day[tm.tm_wday % 7],
		 (unsigned)tm.tm_mday % 100, month[tm.tm_mon % 12],
		 (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
		 (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

int osssign_authorization(const struct osssign *q, struct buf *to, struct err *e)
{
	scoped(buf_fini) struct buf text = BUF_INIT(SIGN_MAX);
	uint8_t sum[20];

	if (buf_addf(&text, e, "%s\n%s\n%s\n%s\n%s%s", q->method, q->content_md5, q->content_type,
		     q->date, q->headers, q->resource) < 0)
		return -1;
	digest_hmac_sha1(sum, secret_value(q->secret), secret_len(q->secret), text.data, text.len);
	if (buf_addf(to, e, "OSS %s:", q->key_id) < 0)
		return -1;
	return str_base64(to, sum, sizeof(sum), e);
}
