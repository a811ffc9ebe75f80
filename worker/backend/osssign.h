/* worker/backend/osssign.h - signature version 1 of Alibaba Cloud's OSS, in the Authorization
 * header: HMAC-SHA1 in base64.
 * https://www.alibabacloud.com/help/en/oss/developer-reference/include-signatures-in-the-authorization-header
 */
#ifndef WORKER_BACKEND_OSSSIGN_H
#define WORKER_BACKEND_OSSSIGN_H

struct err;
struct buf;
struct secret;

#define OSSSIGN_DATE 32 /* "Thu, 17 Nov 2005 18:49:58 GMT" and NUL */

struct osssign {
	const char *key_id;
	const struct secret *secret;
	const char *method;
	const char *content_md5, *content_type; /* as sent; or "" */
	const char *date;			/* as in Date */
	const char *headers;  /* "x-oss-...:value\n", sorted, each with its newline; or "" */
	const char *resource; /* "/BUCKET/KEY?uploadId=...": not encoded, subresources sorted */
};
int osssign_authorization(const struct osssign *q, struct buf *to, struct err *e);
void osssign_date(char date[OSSSIGN_DATE], long long wall_ns);

#endif
