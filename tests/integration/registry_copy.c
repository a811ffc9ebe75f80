/* tests/tools/registry_copy.c - copies one image (manifest, config, layers; no index) between two
 * repositories with the worker's registry client: `registry_copy [options] FROM TO`.
 *
 * --user NAME --password-file FILE --ca FILE --cert FILE --key FILE --https --threads N --repeat N
 * Prints the manifest's digest; errors as "code class: text". */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/http.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/stream.h"
#include "worker/oci/descriptor.h"
#include "worker/registry/registry.h"

struct job {
	struct registry *r;
	const char *from, *to;
	struct descriptor *d;
	size_t n;
	size_t next;
	pthread_mutex_t lock;
	struct err e;
	bool failed;
};

static int copy_blob(struct registry *r, const char *from, const char *to,
		     const struct descriptor *d, struct err *e)
{
	enum { PIECE = 256 << 10 };
	scoped(source_freep) struct source *s = NULL;
	scoped(upload_freep) struct upload *u = NULL;
	scoped_free char *p = mem_alloc(PIECE);
	ssize_t n;

	if (blob_source(&s, r, from, d, e) < 0)
		return err_wrap(e, "download");
	if (upload_open(&u, r, to, e) < 0)
		return err_wrap(e, "start upload");
	while ((n = source_read(s, p, PIECE, e)) > 0)
		if (upload_write(u, p, (size_t)n, e) < 0)
			return err_wrap(e, "upload");
	if (n < 0)
		return err_wrap(e, "download");
	return upload_commit(u, &d->digest, d->size, e);
}

static void *copy_thread(void *arg)
{
	struct job *j = arg;

	for (;;) {
		struct err e = {0};
		size_t i;

		pthread_mutex_lock(&j->lock);
		i = j->next++;
		pthread_mutex_unlock(&j->lock);
		if (i >= j->n)
			return NULL;
		if (copy_blob(j->r, j->from, j->to, &j->d[i], &e) == 0)
			continue;
		pthread_mutex_lock(&j->lock);
		if (!j->failed)
			j->e = e;
		j->failed = true;
		pthread_mutex_unlock(&j->lock);
	}
}

static int descriptor_read(struct descriptor *d, const struct json *j, struct err *e)
{
	const char *digest;
	int64_t size;

	*d = (struct descriptor){0};
	if (json_str(j, "digest", "", &digest, e) < 0 || json_int(j, "size", "", &size, e) < 0)
		return -1;
	d->size = (uint64_t)size;
	return digest_parse(&d->digest, digest, e);
}

static int copy_image(struct registry *r, const struct imageref *from, const struct imageref *to,
		      unsigned threads, struct err *e)
{
	struct manifest_body m = {0};
	struct json *root = NULL, *layers = NULL, *config = NULL;
	struct job j = {.r = r,
			.from = from->repository,
			.to = to->repository,
			.lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t t[16];
	char text[DIGEST_TEXT];

	if (registry_get_manifest(r, from, &m, e) < 0)
		return err_wrap(e, "manifest");
	if (json_parse(&root, m.data, m.n, NULL, e) < 0 ||
	    json_array(root, "layers", "", &layers, e) < 0 ||
	    json_obj(root, "config", "", &config, e) < 0)
		return -1;
	j.n = json_len(layers) + 1;
	j.d = mem_array(j.n, sizeof(*j.d));
	if (descriptor_read(&j.d[0], config, e) < 0)
		return -1;
	for (size_t i = 1; i < j.n; i++)
		if (descriptor_read(&j.d[i], json_at(layers, i - 1), e) < 0)
			return -1;
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, copy_thread, &j);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	free(j.d);
	json_freep(&root);
	if (j.failed) {
		*e = j.e;
		manifest_body_fini(&m);
		return -1;
	}
	if (registry_put_manifest(r, to, m.media_type, m.data, m.n, NULL, e) < 0) {
		manifest_body_fini(&m);
		return err_wrap(e, "manifest");
	}
	printf("%s\n", digest_text(&m.digest, text));
	manifest_body_fini(&m);
	return 0;
}

static struct option options[] = {
	{"user", 1, NULL, 'u'},	   {"password-file", 1, NULL, 'p'}, {"ca", 1, NULL, 'c'},
	{"cert", 1, NULL, 'e'},	   {"key", 1, NULL, 'k'},	    {"https", 0, NULL, 's'},
	{"threads", 1, NULL, 't'}, {"repeat", 1, NULL, 'r'},	    {NULL, 0, NULL, 0}};

int main(int argc, char **argv)
{
	struct source_settings s = {.plain_http = true};
	struct imageref from, to;
	struct http *h = NULL;
	struct registry *r = NULL;
	struct err e = {0};
	unsigned threads = 4, repeat = 1;
	uint64_t in, out;
	int c, ret = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'u')
			s.username = secret_new(optarg, strlen(optarg));
		else if (c == 'p')
			s.password = secret_from_file(optarg, &e);
		else if (c == 'c')
			s.ca_file = optarg;
		else if (c == 'e')
			s.cert_file = optarg;
		else if (c == 'k')
			s.key_file = optarg;
		else if (c == 's')
			s.plain_http = false;
		else if (c == 't')
			threads = (unsigned)atoi(optarg) % 17;
		else if (c == 'r')
			repeat = (unsigned)atoi(optarg);
		else
			return 2;
	}
	if (argc - optind != 2 || imageref_parse(&from, argv[optind], &e) < 0 ||
	    imageref_parse(&to, argv[optind + 1], &e) < 0) {
		fprintf(stderr, "usage: registry_copy [options] FROM TO: %s\n", e.text);
		return 2;
	}
	s.host = from.host;
	if (http_open(&h, 8, &e) < 0 || registry_open(&r, h, &s, NULL, &e) < 0)
		ret = -1;
	for (unsigned i = 0; ret == 0 && i < repeat; i++)
		ret = copy_image(r, &from, &to, threads, &e);
	if (ret < 0)
		fprintf(stderr, "%s %s: %s\n", err_slug(e.code), err_class_name(e.class), e.text);
	if (h) {
		http_traffic(h, &in, &out);
		fprintf(stderr, "in=%" PRIu64 " out=%" PRIu64 "\n", in, out);
	}
	registry_freep(&r);
	http_freep(&h);
	secret_freep(&s.username);
	secret_freep(&s.password);
	return ret < 0;
}
