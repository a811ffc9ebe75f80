/* common/url.c - see url.h. */
#include "common/url.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

static int get_part(CURLU *u, CURLUPart part, char **to)
{
	char *p = NULL;

	if (curl_url_get(u, part, &p, 0) != CURLUE_OK)
		return -1;
	*to = mem_strdup(p);
	curl_free(p);
	return 0;
}

int url_split(const char *url, char **scheme, char **host_port, char **path, struct err *e)
{
	CURLU *u = curl_url();
	char *s = NULL, *h = NULL, *p = NULL, *port = NULL;
	int ok;

	if (!u)
		abort();
	ok = curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	     get_part(u, CURLUPART_SCHEME, &s) == 0 && get_part(u, CURLUPART_HOST, &h) == 0 &&
	     get_part(u, CURLUPART_PATH, &p) == 0;
	if (ok && get_part(u, CURLUPART_PORT, &port) == 0) {
		char *joined = mem_printf("%s:%s", h, port);

		free(h);
		h = joined;
	}
	curl_url_cleanup(u);
	free(port);
	if (!ok) {
		free(s);
		free(h);
		free(p);
		return err_set(e, ERR_INVALID, "not a URL");
	}
	if (scheme)
		*scheme = take_ptr(s);
	if (host_port)
		*host_port = take_ptr(h);
	if (path)
		*path = take_ptr(p);
	free(s);
	free(h);
	free(p);
	return 0;
}

int url_resolve(const char *base, const char *location, char **url, struct err *e)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *full = NULL;
	int r = -1;

	if (!u)
		abort();
	if (curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_URL, location, 0) != CURLUE_OK)
		err_set(e, ERR_INVALID, "Location is not a URL");
	else if (get_part(u, CURLUPART_SCHEME, &scheme) < 0 ||
		 (!str_eq(scheme, "http") && !str_eq(scheme, "https")))
		err_set(e, ERR_INVALID, "Location is neither http nor https");
	else {
		char *user = NULL;

		/* user:password@ in a Location is an attempt to look like another host */
		if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK) {
			curl_free(user);
			err_set(e, ERR_INVALID, "Location holds a user name");
		} else {
			curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
			if (get_part(u, CURLUPART_URL, &full) < 0)
				err_set(e, ERR_INVALID, "Location is not a URL");
			else
				r = 0;
		}
	}
	curl_url_cleanup(u);
	free(scheme);
	if (r == 0)
		*url = full;
	return r;
}

char *url_escape(const char *s)
{
	static const char hex[] = "0123456789ABCDEF";
	char *to = mem_array(strlen(s) + 1, 3), *w = to;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    strchr("-._~", c)) {
			*w++ = (char)c;
		} else {
			*w++ = '%';
			*w++ = hex[c >> 4];
			*w++ = hex[c & 15];
		}
	}
	*w = '\0';
	return to;
}

int url_add_query(char **url, const char *name, const char *value, struct err *e)
{
	scoped_free char *n = url_escape(name), *v = url_escape(value);
	size_t len = strcspn(*url, "#");
	const char *mark = memchr(*url, '?', len), *join = mark ? "&" : "?";
	char *to;

	if (len > 65536)
		return err_set(e, ERR_LIMIT, "a URL of %zu bytes", len);
	if (len && ((*url)[len - 1] == '?' || (mark && (*url)[len - 1] == '&')))
		join = "";
	to = mem_printf("%.*s%s%s=%s", (int)len, *url, join, n, v);
	free(*url);
	*url = to;
	return 0;
}
