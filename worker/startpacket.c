/* worker/startpacket.c - see startpacket.h. */
#include "worker/startpacket.h"

#include "common/config.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/secret.h"
#include "common/str.h"
#include "common/target.h"
#include "common/task.h"
#include "worker/slots.h"

#define MOVES_MAX 3 /* supersessions in a row, then publish what there is */

static void set_secret(struct json *j, const char *key, const struct secret *s)
{
	if (s)
		json_set_str(j, key, secret_value(s));
}

static struct json *source_json(const struct source_settings *c)
{
	struct json *j = json_new_object();

	json_set_str(j, "host", c->host);
	set_secret(j, "username", c->username);
	set_secret(j, "password", c->password);
	json_set_bool(j, "plain_http", c->plain_http);
	json_set_bool(j, "insecure", c->insecure);
	json_set_str(j, "ca_file", c->ca_file);
	json_set_str(j, "cert_file", c->cert_file);
	json_set_str(j, "key_file", c->key_file);
	json_set_str(j, "endpoint", c->endpoint);
	json_set_str(j, "realm", c->realm);
	return j;
}

static void set_login(struct json *source, const struct json *login)
{
	const char *username = json_value_str(json_get(login, "username")),
		   *password = json_value_str(json_get(login, "password"));

	if (username && password && !json_get(source, "username")) {
		json_set_str(source, "username", username);
		json_set_str(source, "password", password);
	}
}

/* Chunk dictionaries of other hosts are read without a login (worker/dictionary.h). */
static struct json *dictionary_json(const struct source_settings *c)
{
	struct source_settings anonymous = *c;

	anonymous.username = anonymous.password = NULL;
	anonymous.cert_file = anonymous.key_file = NULL;
	return source_json(&anonymous);
}

/* The hosts that a request names: its own, and those of chunk dictionaries. */
static struct json *sources_json(const struct settings *c, const struct task_request *r,
				 const struct json *login)
{
	struct json *list = json_new_array();
	const struct source_settings *own = settings_source(c, r->source.host);
	struct imageref ref;

	if (own) {
		json_append(list, source_json(own));
		set_login(json_at(list, 0), login);
	}
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target *t = &r->targets[i];
		const struct source_settings *other;

		if (t->driver != DRIVER_NYDUS || !t->nydus.chunk_dict_ref ||
		    imageref_parse(&ref, t->nydus.chunk_dict_ref, NULL) < 0)
			continue;
		other = settings_source(c, ref.host);
		if (other && other != own)
			json_append(list, dictionary_json(other));
	}
	return list;
}

/* This worker's own key to what a request's target names; NULL: its configuration has no such
 * backend, and then the task process gets none. */
static const struct target *backend_here(const struct settings *c, const struct target *t)
{
	const struct target *found = NULL;

	for (size_t i = 0; i < c->rules.n; i++)
		for (size_t k = 0; k < c->rules.rule[i].n_targets; k++) {
			const struct target *x = &c->rules.rule[i].targets[k];

			if (x->driver != DRIVER_NYDUS || x->nydus.backend != t->nydus.backend ||
			    !str_eq(x->nydus.backend_config, t->nydus.backend_config))
				continue;
			if (!found || (!found->nydus.backend_key_id && x->nydus.backend_key_id))
				found = x;
		}
	return found;
}

/* The backends that a request names: one for each target, null where none is needed or known. */
static struct json *backends_json(const struct settings *c, const struct task_request *r)
{
	struct json *list = json_new_array();

	for (size_t i = 0; i < r->n_targets; i++) {
		const struct target *t = &r->targets[i], *own = NULL;
		struct json *j = NULL;

		if (t->driver == DRIVER_NYDUS && t->nydus.backend != NYDUS_REGISTRY)
			own = backend_here(c, t);
		if (own) {
			j = json_new_object();
			set_secret(j, "access_key_id", own->nydus.backend_key_id);
			set_secret(j, "access_key_secret", own->nydus.backend_key_secret);
		}
		json_append(list, j);
	}
	return list;
}

struct json *startpacket(const struct settings *c, const struct slot *s, uint32_t threads,
			 const char *request, size_t n, const struct json *login)
{
	struct json *j = json_new_object(), *r = NULL;

	if (json_parse(&r, request, n, NULL, NULL) < 0)
		r = NULL;
	json_set_str(j, "t", "start");
	json_set_str(j, "id", s->id);
	json_set_int(j, "epoch", (int64_t)s->epoch);
	json_set_int(j, "cpus", threads);
	json_set_int(j, "memory", (int64_t)c->worker.memory);
	json_set_int(j, "max_image_size", (int64_t)c->worker.max_image_size);
	json_set_int(j, "cache_size", c->cache_size);
	json_set_str(j, "cache_version", c->cache_version);
	json_set_int(j, "verify", c->converter.verify);
	json_set_int(j, "timeout_ms", (int64_t)c->worker.task_timeout_ms);
	json_set_int(j, "must_publish", s->request.moves >= MOVES_MAX);
	json_set(j, "request", r);
	json_set(j, "backends", backends_json(c, &s->request));
	json_set(j, "sources", sources_json(c, &s->request, login));
	return j;
}
