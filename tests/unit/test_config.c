/* Configuration: YAML to settings, with every problem named by place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/secret.h"

static char *report_text(const struct config_report *r)
{
	struct buf b = BUF_INIT(1 << 20);
	char *text;

	for (size_t i = 0; i < r->n; i++)
		buf_addf(&b, NULL, "%s: %s%s\n", r->p[i].where, r->p[i].text,
			 r->p[i].fatal	? ""
			 : r->p[i].note ? " (note)"
					: " (warning)");
	text = mem_strdup(b.data);
	buf_fini(&b);
	return text;
}

/* Loads, and wants exactly these problems. */
static struct settings *load(const char *yaml, const char *want)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r);
	text = report_text(&r);
	assert_string_equal(text, want);
	assert_int_equal(s == NULL, r.n_fatal > 0);
	free(text);
	config_report_fini(&r);
	return s;
}

#define NO_RULE "c.yaml: converter.rules: no rule: no image will be converted (warning)\n"

static void refused(const char *yaml, const char *part)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	assert_int_equal(config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r), -1);
	assert_null(s);
	text = report_text(&r);
	if (!strstr(text, part))
		fail_msg("%s\nlacks: %s", text, part);
	free(text);
	config_report_fini(&r);
}

static void warned(const char *yaml, const char *part)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r);
	text = report_text(&r);
	if (!s || !strstr(text, part))
		fail_msg("%s\nlacks: %s", text, part);
	free(text);
	config_report_fini(&r);
	settings_freep(&s);
}

static void defaults_are_those_of_the_design(void **state)
{
	struct settings *s = settings_default();

	assert_string_equal(s->server.name, "API");
	assert_string_equal(s->server.host, "0.0.0.0");
	assert_int_equal(s->server.port, 2077);
	assert_int_equal(s->server.sync_timeout_ms, 70 * 60 * 1000);
	assert_false(s->metric_enabled);
	assert_int_equal(s->gc_threshold, 10000000000ull);
	assert_int_equal(s->cache_size, 200);
	assert_string_equal(s->cache_version, "v1");
	assert_true(s->converter.worker >= 1);
	assert_int_equal(s->converter.verify, VERIFY_FULL);
	assert_int_equal(s->queue.lease_ms, 15000);
	assert_int_equal(s->queue.heartbeat_ms, 5000);
	assert_int_equal(s->queue.tick_ms, 1000);
	assert_int_equal(s->queue.max_gap_ms, 8000);
	assert_int_equal(s->queue.max_attempts, 5);
	assert_int_equal(s->queue.max_crash, 3);
	assert_int_equal(s->queue.backoff_ms, 10000);
	assert_int_equal(s->queue.backoff_max_ms, 600000);
	assert_int_equal(s->queue.deadline_ms, 86400000);
	assert_int_equal(s->queue.fresh_ms, 600000);
	assert_int_equal(s->queue.max_open, 1000000);
	assert_int_equal(s->queue.max_group, 100000);
	assert_int_equal(s->queue.registry_limit, 16);
	assert_int_equal(s->queue.keep_finished, 10000);
	assert_int_equal(s->queue.keep_finished_ms, 7 * 86400000ull);
	assert_int_equal(s->queue.keep_dead, 2000);
	assert_int_equal(s->queue.keep_dead_ms, 30 * 86400000ull);
	assert_int_equal(s->queue.keep_bytes, 256 << 20);
	assert_int_equal(s->worker.memory, 512 << 20);
	assert_int_equal(s->worker.drain_timeout_ms, 840000);
	assert_false(s->worker.drain_timeout_set);
	assert_int_equal(s->worker.task_timeout_ms, 7200000);
	assert_int_equal(s->worker.max_image_size, 64ull << 30);
	assert_string_equal(s->worker.listen, ":2078");
	assert_null(s->redis.addr);
	assert_int_equal(s->redis.durability, DURABILITY_MEMORY);
	assert_int_equal(s->log.level, LOG_INFO);
	assert_string_equal(s->rules.platforms, "");
	assert_null(settings_source(s, "h.x"));
	settings_freep(&s);
	assert_null(s);
}

static void an_empty_file_is_all_defaults(void **state)
{
	struct settings *s = load("", NO_RULE);

	assert_int_equal(s->server.port, 2077);
	settings_freep(&s);
	s = load("# nothing\nserver:\n  # host: x\nprovider:\n", NO_RULE);
	settings_freep(&s);
}

/* ---- upstream's files */

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct buf b = BUF_INIT(1 << 20);
	char part[4096], *text;
	size_t n;

	if (!f)
		fail_msg("%s", path);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		buf_add(&b, part, n, NULL);
	fclose(f);
	text = mem_strdup(b.data);
	buf_fini(&b);
	return text;
}

/* Only notes are said about a file in upstream's form. */
static struct settings *load_sample(const char *path)
{
	struct config_report r = {0};
	struct settings *s = NULL;
	char *text;

	if (config_load(&s, path, &r) < 0) {
		text = report_text(&r);
		fail_msg("%s", text);
	}
	for (size_t i = 0; i < r.n; i++)
		if (!r.p[i].note)
			fail_msg("%s: %s", r.p[i].where, r.p[i].text);
	config_report_fini(&r);
	return s;
}

static void the_four_shapes_of_upstream_load(void **state)
{
	static const struct {
		const char *path, *tag;
		enum driver_id driver;
	} samples[] = {
		{"deploy/config/config.nydus.yaml", "{tag}-nydus", DRIVER_NYDUS},
		{"deploy/config/config.nydus.ref.yaml", "{tag}-nydus-oci-ref", DRIVER_NYDUS},
		{"deploy/config/config.estargz.yaml", "{tag}-esgz", DRIVER_ESTARGZ},
		{"deploy/config/config.estargz.zstdchunked.yaml", "{tag}-zstdchunked",
		 DRIVER_ZSTDCHUNKED},
	};

	for (size_t i = 0; i < 4; i++) {
		struct settings *s = load_sample(samples[i].path);
		const struct source_settings *src = settings_source(s, "harbor.example.com");

		assert_int_equal(s->rules.n, 1);
		assert_int_equal(s->rules.rule[0].targets[0].driver, samples[i].driver);
		assert_string_equal(s->rules.rule[0].targets[0].tag_template, samples[i].tag);
		assert_true(s->rules.rule[0].targets[0].upstream_form);
		assert_string_equal(secret_value(src->username), "accel");
		assert_string_equal(secret_value(src->password), "change-me");
		assert_string_equal(secret_value(src->auth_header), "change-me-too");
		assert_false(src->plain_http);
		assert_true(settings_source(s, "localhost")->plain_http);
		assert_null(settings_source(s, "localhost")->username);
		assert_int_equal(s->gc_threshold, 10000000000ull);
		assert_int_equal(s->converter.worker, 5);
		assert_true(s->metric_enabled);
		assert_string_equal(s->rules.platforms, "linux/amd64");
		settings_freep(&s);
	}
}

static void the_full_sample_holds_the_defaults(void **state)
{
	struct settings *s = load_sample("deploy/config/accel.yaml"), *d = settings_default();

	assert_int_equal(memcmp(&s->queue, &d->queue, sizeof(s->queue)), 0);
	assert_int_equal(s->server.sync_timeout_ms, d->server.sync_timeout_ms);
	assert_int_equal(s->server.max_body, d->server.max_body);
	assert_int_equal(s->worker.memory, d->worker.memory);
	assert_int_equal(s->rules.n, 2);
	assert_int_equal(s->rules.rule[0].n_targets, 2);
	settings_freep(&s);
	settings_freep(&d);
}

static void the_full_sample_names_every_key(void **state)
{
	char *text = slurp("deploy/config/accel.yaml");
	struct config_key_doc k;

	for (size_t i = 0; config_key_doc(i, &k); i++) {
		const char *last = strrchr(k.path, '.');
		char line[80];

		if (!k.doc || strstr(k.path, "gcpolicy") || strstr(k.path, "provider.cache_") ||
		    strstr(k.path, "harbor_annotation") ||
		    strcmp(k.path, "converter.driver") == 0 ||
		    strcmp(k.path, "redis.password") == 0 ||
		    strcmp(k.path, "provider.source.HOST.auth") == 0 ||
		    strcmp(k.path, "provider.source.HOST.auth_file") == 0 ||
		    strcmp(k.path, "provider.source.HOST.password") == 0 ||
		    strcmp(k.path, "provider.source.HOST.webhook.auth_header") == 0)
			continue; /* upstream's, or there is a better way */
		snprintf(line, sizeof(line), "%s:", last ? last + 1 : k.path);
		if (!strstr(text, line))
			fail_msg("%s is not in accel.yaml", k.path);
	}
	free(text);
}

static void upstreams_suffix_and_cache_tag_may_stand_in_two_items(void **state)
{
	struct settings *s = load("converter:\n"
				  "  driver: {type: nydus, config: {fs_version: 6}}\n"
				  "  rules:\n"
				  "    - cache_tag: nydus-cache\n"
				  "    - tag_suffix: -nydus\n"
				  "    - tag_suffix: -ignored\n",
				  "c.yaml:4:18: converter.rules: cache_tag: images of this tag are "
				  "not converted; layers are "
				  "remembered under it, not in Redis (note)\n");

	assert_int_equal(s->rules.n, 1);
	assert_string_equal(s->rules.rule[0].targets[0].tag_template, "{tag}-nydus");
	assert_string_equal(s->rules.rule[0].targets[0].cache_tag, "nydus-cache");
	settings_freep(&s);
}

static void yaml_bools_and_ints_arrive_as_text_in_driver_config(void **state)
{
	struct settings *s = load("converter:\n"
				  "  driver:\n"
				  "    type: nydus\n"
				  "    config:\n"
				  "      fs_version: 6\n"
				  "      docker2oci: true\n"
				  "      fs_chunk_size: 0x200000\n"
				  "      with_referrer:\n"
				  "      prefetch_patterns: |\n"
				  "        /usr/bin\n"
				  "        /etc\n"
				  "  rules: [{tag_suffix: -n}]\n",
				  "");
	const struct nydus_options *o = &s->rules.rule[0].targets[0].nydus;

	assert_true(o->docker2oci);
	assert_false(o->with_referrer);
	assert_int_equal(o->chunk_size, 0x200000);
	assert_string_equal(o->prefetch_patterns, "/usr/bin\n/etc");
	settings_freep(&s);
}

/* ---- problems */

static void every_problem_is_collected_with_its_place(void **state)
{
	assert_null(load("server:\n"
			 "  port: 70000\n"
			 "  nam: x\n"
			 "redis:\n"
			 "  adr: x\n"
			 "  durability: replica\n"
			 "queue: {lease: soon}\n"
			 "converter:\n"
			 "  worker: 0\n"
			 "  rules:\n"
			 "    - targets:\n"
			 "        - {driver: nydos, tag: '{tag}'}\n",
			 "c.yaml:2:9: server.port: \"70000\": expected a number from 0 to 65535\n"
			 "c.yaml:3:3: server.nam: unknown key; did you mean name? (warning)\n"
			 "c.yaml:5:3: redis.adr: unknown key; did you mean addr?\n"
			 "c.yaml:6:15: redis.durability: replica is not built; use fsync\n"
			 "c.yaml:7:16: queue.lease: \"soon\": expected a time from 1s to 1h\n"
			 "c.yaml:9:11: converter.worker: \"0\": expected a number from 1 to 1024\n"
			 "c.yaml:12:20: converter.rules[0].targets[0].driver: unknown driver "
			 "\"nydos\", expected "
			 "estargz, zstdchunked or nydus; did you mean nydus?\n"
			 "c.yaml:12:32: converter.rules[0].targets[0]: tag \"{tag}\": expected "
			 "more than {tag}, or "
			 "the source would be overwritten\n"));
}

static void unknown_keys_warn_in_upstreams_sections_and_fail_in_ours(void **state)
{
	warned("servers: {}\n", "c.yaml:1:1: servers: unknown key; did you mean server? (warning)");
	warned("provider: {source: {h.x: {insecur: true}}}\n",
	       "provider.source.h.x.insecur: unknown key; did you mean insecure? (warning)");
	warned("metric: {enable: true}\n", "metric.enable: unknown key; did you mean enabled?");
	warned("zzz: 1\n", "c.yaml:1:1: zzz: unknown key (warning)");
	warned("converter: {driver: {type: nydus, config: {compresor: x}}, rules: [{tag_suffix: "
	       "-n}]}\n",
	       "did you mean compressor? (warning)");
	refused("queue: {leas: 1}\n", "queue.leas: unknown key; did you mean lease?");
	refused("worker: {mem: 1}\n", "worker.mem: unknown key");
	refused("log: {levl: info}\n", "log.levl: unknown key; did you mean level?");
	refused("ui: {enabel: 1}\n", "ui.enabel: unknown key; did you mean enabled?");
	refused("auth: {allow_lopback: 1}\n", "did you mean allow_loopback?");
	refused("converter: {rules: [{name: a, target: []}]}\n", "did you mean targets?");
}

static void what_is_not_built_is_an_error_that_says_so(void **state)
{
	refused("redis: {sentinel: {master: x}}\n", "redis.sentinel: Sentinel is not built yet");
	refused("redis: {cluster: true}\n", "redis.cluster: Redis Cluster is not built yet");
	refused("redis: {url: 'redis://x'}\n", "redis.url: use redis.addr");
	refused("log: {file: /x}\n", "log.file: the log goes to stderr");
	refused("ui: {enabled: true}\n", "ui.enabled: the page is not built yet");
	refused("tracing: {a: 1}\n", "tracing: tracing is not built yet");
	refused("converter: {driver: {type: nydus, config: {fs_version: 5}}, rules: [{tag_suffix: "
		"-n}]}\n",
		"RAFS v5 is not built");
	refused("converter: {driver: {type: nydus, config: {encrypt_recipients: x}}, rules: "
		"[{tag_suffix: -n}]}\n",
		"encryption is not built");
	refused("converter: {driver: {type: nydus, config: {backend_type: oss}}, rules: "
		"[{tag_suffix: -n}]}\n",
		"backend_type oss needs backend_config");
	refused("converter: {driver: {type: nydus, config: {backend_type: s3, backend_config: "
		"{bucket_name: b, regoin: r}}}, rules: [{tag_suffix: -n}]}\n",
		"did you mean region?");
	refused("converter: {driver: {type: nydus, config: {backend_type: localfs, "
		"backend_config: {dir: [a]}}}, rules: [{tag_suffix: -n}]}\n",
		"backend_config.dir: expected text, found a list");
}

static void bad_yaml_is_told_with_line_and_column(void **state)
{
	refused("a: b: c\n", "c.yaml:1:5: not YAML");
	refused("a:\n\t- b\n", "c.yaml:2:1: not YAML");
	refused("server: {port: 1, port: 2}\n",
		"c.yaml:1:19: port: the same key twice, first in line 1");
	refused("- a\n", "expected a map at the top, found a list");
	refused("a\n", "expected a map at the top, found text");
	refused("--- {}\n--- {}\n", "a second document");
	refused("? [a]\n: b\n", "a key must be text");
	refused("a: *b\n", "alias *b: no such anchor");
	refused("x: &x {a: b}\ny: {<<: *x}\n", "merge keys");
	refused("server: {name: \"a\\0b\"}\n", "holds a NUL");
	refused("server: {name: !foo b}\n", "tag !foo is not known");
	refused("a: \xc3(\n", "not YAML");
}

static void depth_size_and_aliases_are_bounded(void **state)
{
	struct buf b = BUF_INIT(4 << 20);
	struct config_report r = {0};
	struct settings *s;

	for (int i = 0; i < 40; i++)
		buf_add_str(&b, "{a: ", NULL);
	refused(b.data, "nested deeper than 32");
	buf_reset(&b);
	buf_add_str(&b, "a: &a [x,x,x,x,x,x,x,x,x,x]\n", NULL);
	for (char c = 'b'; c < 'j'; c++)
		buf_addf(&b, NULL, "%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c,
			 c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1, c - 1);
	refused(b.data, "more than 100000 values");
	buf_reset(&b);
	buf_add_str(&b, "a: &a x\nb: [", NULL);
	for (int i = 0; i < 101; i++)
		buf_add_str(&b, "*a, ", NULL);
	buf_add_str(&b, "]\n", NULL);
	refused(b.data, "more than 100 aliases");
	buf_reset(&b);
	while (b.len <= 1 << 20)
		buf_add_str(&b, "# comment\n", NULL);
	assert_int_equal(config_load_text(&s, "c.yaml", b.data, b.len, &r), -1);
	assert_non_null(strstr(r.p[0].text, "at most 1048576"));
	config_report_fini(&r);
	buf_fini(&b);
}

static void the_number_of_problems_is_bounded(void **state)
{
	struct buf b = BUF_INIT(1 << 20);
	struct config_report r = {0};
	struct settings *s;

	buf_add_str(&b, "queue:\n", NULL);
	for (int i = 0; i < 5000; i++)
		buf_addf(&b, NULL, "  k%d: 1\n", i);
	assert_int_equal(config_load_text(&s, "c.yaml", b.data, b.len, &r), -1);
	assert_true(r.n <= 200);
	assert_int_equal(r.n_fatal, 5000);
	config_report_fini(&r);
	buf_fini(&b);
}

static void yaml_1_1_traps_are_read_by_the_schema(void **state)
{
	struct settings *s =
		load("metric: {enabled: yes}\n"
		     "server: {port: '8080', name: 007, uds_mode: 0600}\n"
		     "converter: {worker: 10, driver: {type: nydus}, rules: [{tag_suffix: -1}]}\n",
		     "");

	assert_true(s->metric_enabled);
	assert_int_equal(s->server.port, 8080);
	assert_string_equal(s->server.name, "007");
	assert_int_equal(s->server.uds_mode, 0600);
	assert_string_equal(s->rules.rule[0].targets[0].tag_template, "{tag}-1");
	settings_freep(&s);
	refused("converter: {worker: 010}\n", "\"010\": expected a number");
	refused("server: {port: 0x10}\n", "\"0x10\": expected a number");
	refused("metric: {enabled: maybe}\n", "expected true or false");
}

static void anchors_and_aliases_work(void **state)
{
	struct settings *s = load("provider:\n"
				  "  source:\n"
				  "    a.x: &s {insecure: true}\n"
				  "    b.x: *s\n",
				  NO_RULE);

	assert_true(settings_source(s, "b.x")->insecure);
	settings_freep(&s);
}

/* ---- registries */

static void hosts_are_lower_cased_and_bounded(void **state)
{
	struct settings *s = load(
		"provider: {source: {Harbor.Example.COM:8443: , '[::1]:5000': {}}}\n", NO_RULE);

	assert_non_null(settings_source(s, "harbor.example.com:8443"));
	assert_true(settings_source(s, "[::1]:5000")->plain_http);
	settings_freep(&s);
	refused("provider: {source: {A.x: , a.X: }}\n", "the same host twice");
	refused("provider: {source: {'https://h.x': }}\n", "expected a host");
	refused("provider: {source: {h.x/prod: }}\n", "expected a host");
	refused("provider: {source: {harbor: }}\n", "needs a dot or a port");
	refused("provider: {source: {h.x: yes}}\n", "expected a map, found text");
	refused("provider: {source: [a]}\n", "expected a map of hosts, found a list");
}

static void auth_is_split_at_the_first_colon(void **state)
{
	struct settings *s =
		load("provider: {source: {h.x: {auth: 'cm9ib3QkeDphOmI6Yw=='}}}\n", NO_RULE);

	assert_string_equal(secret_value(s->source[0].username), "robot$x");
	assert_string_equal(secret_value(s->source[0].password), "a:b:c");
	settings_freep(&s);
	s = load("provider: {source: {h.x: {auth: YTpiCg==}}}\n", NO_RULE); /* echo a:b | base64 */
	assert_string_equal(secret_value(s->source[0].password), "b");
	settings_freep(&s);
	s = load("provider: {source: {h.x: {auth: ''}}}\n", NO_RULE);
	assert_null(s->source[0].username);
	settings_freep(&s);
	refused("provider: {source: {h.x: {auth: 'a:b'}}}\n",
		"c.yaml:1:33: provider.source.h.x.auth: expected base64 of user:password");
	refused("provider: {source: {h.x: {auth: YWJj}}}\n", "no user before a colon");
	refused("provider: {source: {h.x: {auth: YTpi, username: u}}}\n", "given twice");
	refused("provider: {source: {h.x: {username: u}}}\n", "username without password_file");
	refused("provider: {source: {h.x: {password: u}}}\n", "password without username");
}

static void secrets_are_never_quoted(void **state)
{
	static const char *const yaml[] = {
		"provider: {source: {h.x: {auth: hunter2hunter2}}}\n",
		"auth: {tokens: [{name: a, sha256: hunter2, scopes: [read]}]}\n",
		"redis: {password: hunter2, password_file: /nonexistent}\n",
		"converter: {driver: {type: nydus, config: {backend_config: "
		"'{\"k\":\"hunter2\"}'}}, rules: [{tag_suffix: -n}]}\n",
	};

	for (size_t i = 0; i < sizeof(yaml) / sizeof(*yaml); i++) {
		struct config_report r = {0};
		struct settings *s;
		char *text;

		assert_int_equal(config_load_text(&s, "c.yaml", yaml[i], strlen(yaml[i]), &r), -1);
		text = report_text(&r);
		if (strstr(text, "hunter2"))
			fail_msg("%s", text);
		free(text);
		config_report_fini(&r);
	}
}

static void messages_carry_no_control_characters(void **state)
{
	struct config_report r = {0};
	struct settings *s;
	const char *yaml = "\"a\\x1b[31m\\n\": 1\nserver: {port: \"\\x1b[31mx\"}\n";

	assert_int_equal(config_load_text(&s, "c.yaml", yaml, strlen(yaml), &r), -1);
	for (size_t i = 0; i < r.n; i++)
		for (const char *p = r.p[i].text; *p; p++)
			assert_true((unsigned char)*p >= 0x20);
	config_report_fini(&r);
}

static void endpoints_are_checked(void **state)
{
	struct settings *s = load(
		"provider: {source: {h.x: {endpoint: 'http://core:8080', plain_http: true}}}\n",
		NO_RULE);

	assert_string_equal(s->source[0].endpoint, "http://core:8080");
	settings_freep(&s);
	refused("provider: {source: {h.x: {endpoint: 'core:8080'}}}\n", "expected http(s)://");
	refused("provider: {source: {h.x: {realm: 'https://u:p@h'}}}\n",
		"without user or password");
	refused("provider: {source: {h.x: {ca_file: /nonexistent/ca.pem}}}\n",
		"ca_file: \"/nonexistent/ca.pem\": cannot read: No such file or directory");
	refused("provider: {source: {h.x: {cert_file: /dev/null}}}\n", "belong together");
}

/* ---- rules, tokens, combinations */

static void a_rule_has_many_targets(void **state)
{
	struct settings *s = load(
		"rules:\n"
		"  - name: services\n"
		"    match: { repository: \"prod/**\", tag: \"!*-dev\", platforms: [linux/arm64, "
		"linux/amd64], host: H.x }\n"
		"    targets:\n"
		"      - { driver: nydus, tag: \"{tag}-nydus\", config: { compressor: zstd } }\n"
		"      - { driver: estargz, tag: \"{tag}-esgz\", overwrite: true, config: "
		"{prioritized_files: [/a, /b]} }\n",
		"");
	const struct rule *r = &s->rules.rule[0];

	assert_string_equal(r->name, "services");
	assert_string_equal(r->host, "h.x");
	assert_string_equal(r->platforms, "linux/amd64,linux/arm64");
	assert_int_equal(r->n_targets, 2);
	assert_false(r->targets[0].overwrite);
	assert_true(r->targets[1].overwrite);
	assert_false(r->targets[1].upstream_form);
	assert_string_equal(r->targets[1].estargz.prioritized_files, "/a\n/b");
	settings_freep(&s);
}

static void wrong_rules_are_refused(void **state)
{
	refused("rules: [{targets: [{driver: nydus, tag: '{tag}-a'}, {driver: estargz, tag: "
		"'{tag}-a'}]}]\n",
		"rule 1 (rules[0]): targets 1 and 2 have the same reference");
	refused("rules: [{name: a}]\n", "targets: expected a list");
	refused("rules: [a]\n", "expected a rule");
	refused("rules: {}\n", "rules: expected a list, found a map");
	refused("rules: []\nconverter: {rules: []}\n", "converter.rules is there as well");
	refused("rules: [{targets: [{driver: nydus}]}]\n", "tag: missing");
	refused("rules: [{targets: [{tag: '{tag}-a'}]}]\n", "driver: missing");
	refused("rules: [{targets: [a]}]\n", "expected a map with driver and tag");
	refused("rules: [{match: {tag: 'a b'}, targets: [{driver: nydus, tag: '{tag}-a'}]}]\n",
		"pattern \"a b\"");
	refused("rules: [{match: {platforms: linux}, targets: [{driver: nydus, tag: "
		"'{tag}-a'}]}]\n",
		"platform \"linux\"");
	refused("converter: {platforms: linux/amd64/v8/x/y}\n", "platform \"linux/amd64/v8/x/y\"");
	refused("converter: {rules: [{tag_suffix: -n}]}\n", "converter.driver.type: missing");
	refused("converter: {driver: {type: nydus}, rules: [{cache_tag: n}]}\n",
		"tag_suffix: missing");
	refused("converter: {driver: {type: nydus}, rules: [{tag_suffix: 'a b'}]}\n",
		"tag_suffix: tag");
	refused("provider: {source: {h.x: null}}\n"
		"converter: {driver: {type: nydus, config: {chunk_dict_ref: h.y/dict:1}}, rules: "
		"[{tag_suffix: -n}]}\n",
		"chunk_dict_ref: h.y is not in provider.source");
	refused("converter: {driver: {type: nydus, config: {docker2oci: perhaps}}, rules: "
		"[{tag_suffix: -n}]}\n",
		"option docker2oci: \"perhaps\" is not true or false");
	refused("converter: {driver: {type: nydus, config: {batch_size: 0x200000}}, rules: "
		"[{tag_suffix: -n}]}\n",
		"over fs_chunk_size");
	warned("converter: {driver: {type: nydus}, rules: []}\n", "converter.driver: not used");
}

static void tokens_are_typed(void **state)
{
	struct settings *s = load(
		"auth:\n"
		"  tokens:\n"
		"    - {name: a, sha256: "
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, scopes: "
		"[read]}\n"
		"    - {sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, "
		"scopes: write}\n",
		NO_RULE);

	assert_int_equal(s->auth.n_tokens, 2);
	assert_true(s->auth.token[0].read && !s->auth.token[0].write);
	assert_true(s->auth.token[1].read && s->auth.token[1].write && !s->auth.token[1].admin);
	settings_freep(&s);
	refused("auth: {tokens: [{name: a, scopes: [read]}]}\n", "without sha256");
	refused("auth: {tokens: [{sha256: "
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}\n",
		"without scopes");
	refused("auth: {tokens: [{scopes: [all]}]}\n", "\"all\": expected read, write or admin");
	refused("auth: {tokens: [a]}\n", "expected a map with name");
	refused("auth: {tokens: {}}\n", "expected a list");
}

static void what_contradicts_is_refused(void **state)
{
	refused("queue: {lease: 5s, heartbeat: 4s, max_gap: 3s}\n",
		"queue.heartbeat: expected at most half");
	refused("queue: {max_gap: 20s}\n", "queue.max_gap: expected less than queue.lease");
	refused("queue: {backoff: 20m}\n", "queue.backoff: expected at most");
	refused("server: {tls_cert_file: /dev/null}\n", "belong together");
	refused("redis: {ca_file: /dev/null}\n", "redis.ca_file: needs redis.tls: true");
	refused("redis: {tls: true, addr: 'unix:///x'}\n", "redis.tls: contradicts");
	refused("redis: {username: x}\n", "needs redis.password_file");
	refused("redis: {addr: localhost}\n", "expected HOST:PORT");
	refused("redis: {addr: 'redis://h:1'}\n", "database, user and TLS have keys");
	refused("redis: {addr: '::1:6379'}\n", "IPv6 address in brackets");
	refused("redis: {addr: 'unix://x'}\n", "expected an absolute path");
	refused("worker: {listen: 2078}\n", "expected ADDRESS:PORT");
	refused("server: {name: 'a-b'}\n", "expected letters");
}

static void redis_addresses_are_taken(void **state)
{
	struct settings *s =
		load("redis: {addr: '[::1]:6379', password: x}\nworker: {listen: '127.0.0.1:0'}\n",
		     NO_RULE);

	assert_string_equal(s->redis.addr, "[::1]:6379");
	assert_string_equal(s->worker.listen, "127.0.0.1:0");
	settings_freep(&s);
	s = load("redis: {addr: 'unix:///run/redis.sock'}\nworker: {listen: off, drain_timeout: "
		 "1s}\nserver: {uds: /a}\n",
		 NO_RULE);
	assert_string_equal(s->worker.listen, "off");
	assert_true(s->worker.drain_timeout_set);
	assert_true(s->server.uds_only);
	settings_freep(&s);
}

/* ---- files, conf.d, environment */

static char *folder(void)
{
	char *path = mem_strdup("/tmp/accel-config-XXXXXX");

	assert_non_null(mkdtemp(path));
	return path;
}

static void put(const char *dir, const char *name, const char *text)
{
	char *path = mem_printf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static void remove_folder(char *dir)
{
	static const char *const names[] = {
		"c.yaml",	  "conf.d/10.yaml", "conf.d/20.yaml", "conf.d/no.txt",
		"redis-password", "secret",	    "conf.d",	      ""};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char *path = mem_printf("%s/%s", dir, names[i]);

		remove(path);
		free(path);
	}
	free(dir);
}

static struct settings *load_file(const char *dir, const char *want)
{
	char *path = mem_printf("%s/c.yaml", dir), *text;
	struct config_report r = {0};
	struct settings *s = NULL;

	config_load(&s, path, &r);
	text = report_text(&r);
	if (!strstr(text, want))
		fail_msg("%s", text);
	free(text);
	config_report_fini(&r);
	free(path);
	return s;
}

static void conf_d_is_merged_by_name(void **state)
{
	char *dir = folder(), *conf_d = mem_printf("%s/conf.d", dir);
	struct settings *s;

	mkdir(conf_d, 0700);
	put(dir, "c.yaml",
	    "server: {port: 1, name: A}\nprovider: {source: {a.x: {insecure: true}}}\n");
	put(dir, "conf.d/20.yaml", "server: {port: 3}\nprovider: {source: {a.x: , b.x: }}\n");
	put(dir, "conf.d/10.yaml", "server: {port: 2}\nserver2: 1\n");
	put(dir, "conf.d/no.txt", "server: {port: 4}\n");
	s = load_file(dir, "conf.d/10.yaml:2:1: server2: unknown key; did you mean server?");
	assert_int_equal(s->server.port, 3);
	assert_string_equal(s->server.name, "A");
	assert_int_equal(s->n_sources, 2);
	assert_true(settings_source(s, "a.x")->insecure); /* an empty value takes nothing away */
	settings_freep(&s);
	free(conf_d);
	remove_folder(dir);
}

static void a_missing_file_is_told(void **state)
{
	char *dir = folder();

	assert_null(load_file(dir, "c.yaml: cannot open: No such file or directory"));
	remove_folder(dir);
}

static void the_environment_comes_last(void **state)
{
	char *dir = folder();
	struct settings *s;

	put(dir, "c.yaml", "server: {port: 1}\n");
	setenv("ACCEL_SERVER__PORT", "4000", 1);
	setenv("ACCEL_QUEUE__MAX_ATTEMPTS", "9", 1);
	setenv("ACCEL_CONVERTER__DRIVER__TYPE", "estargz", 1);
	setenv("ACCEL_ADDR", "x:1", 1); /* no key: one underscore */
	s = load_file(dir, "");
	assert_int_equal(s->server.port, 4000);
	assert_int_equal(s->queue.max_attempts, 9);
	settings_freep(&s);
	setenv("ACCEL_SERVER__PORT", "x", 1);
	assert_null(load_file(dir, "ACCEL_SERVER__PORT: server.port: \"x\": expected a number"));
	unsetenv("ACCEL_SERVER__PORT");
	setenv("ACCEL_QUEUE__LEAS", "1s", 1);
	assert_null(
		load_file(dir, "ACCEL_QUEUE__LEAS: queue.leas: unknown key; did you mean lease?"));
	unsetenv("ACCEL_QUEUE__LEAS");
	setenv("ACCEL_REDIS__PASSWORD", "hunter2", 1);
	assert_null(load_file(dir, "a secret is not taken from the environment"));
	unsetenv("ACCEL_REDIS__PASSWORD");
	setenv("ACCEL_PROVIDER__SOURCE__H", "x", 1);
	assert_null(load_file(dir, "registries are not taken from the environment"));
	unsetenv("ACCEL_PROVIDER__SOURCE__H");
	unsetenv("ACCEL_QUEUE__MAX_ATTEMPTS");
	unsetenv("ACCEL_CONVERTER__DRIVER__TYPE");
	unsetenv("ACCEL_ADDR");
	remove_folder(dir);
}

static void secrets_come_from_files_and_credentials(void **state)
{
	char *dir = folder(), *yaml;
	struct settings *s;

	put(dir, "secret", "from-file\n");
	yaml = mem_printf("redis: {password_file: %s/secret}\n", dir);
	put(dir, "c.yaml", yaml);
	s = load_file(dir, "");
	assert_string_equal(secret_value(s->redis.password), "from-file");
	settings_freep(&s);
	put(dir, "c.yaml", "provider: {source: {h.x: {username: u, password_file: secret}}}\n");
	put(dir, "redis-password", "from-systemd\n");
	setenv("CREDENTIALS_DIRECTORY", dir, 1);
	s = load_file(dir, "");
	assert_string_equal(secret_value(s->redis.password), "from-systemd");
	assert_string_equal(secret_value(s->source[0].password), "from-file");
	settings_freep(&s);
	unsetenv("CREDENTIALS_DIRECTORY");
	put(dir, "c.yaml", "redis: {password_file: /nonexistent/p}\n");
	assert_null(load_file(dir, "redis.password_file: "));
	free(yaml);
	remove_folder(dir);
}

/* ---- written back */

static void what_is_written_reads_back_as_the_same(void **state)
{
	static const char *const samples[] = {"deploy/config/accel.yaml",
					      "deploy/config/config.nydus.yaml",
					      "deploy/config/config.estargz.zstdchunked.yaml"};

	for (size_t i = 0; i < 3; i++) {
		struct settings *s = load_sample(samples[i]), *again = NULL;
		struct buf a = BUF_INIT(1 << 20), b = BUF_INIT(1 << 20);
		struct config_report r = {0};
		struct err e = {0};

		assert_int_equal(settings_write(s, &a, &e), 0);
		if (config_load_text(&again, "shown", a.data, a.len, &r) < 0)
			fail_msg("%s:\n%s", report_text(&r), a.data);
		assert_int_equal(settings_write(again, &b, &e), 0);
		assert_string_equal(a.data, b.data);
		assert_null(strstr(a.data, "change-me"));
		settings_freep(&s);
		settings_freep(&again);
		config_report_fini(&r);
		buf_fini(&a);
		buf_fini(&b);
	}
}

static void secrets_are_written_as_redacted(void **state)
{
	struct settings *s =
		load("redis: {addr: 'h:1', password: hunter2}\n"
		     "provider: {source: {h.x: {auth: YTpi, webhook: {auth_header: hunter2}}}}\n",
		     NO_RULE);
	struct buf b = BUF_INIT(1 << 20);

	assert_int_equal(settings_write(s, &b, NULL), 0);
	assert_null(strstr(b.data, "hunter2"));
	assert_non_null(strstr(b.data, "  password: \"<redacted>\"\n"));
	assert_non_null(strstr(b.data, "      webhook:\n        auth_header: \"<redacted>\"\n"));
	settings_freep(&s);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_those_of_the_design),
		cmocka_unit_test(an_empty_file_is_all_defaults),
		cmocka_unit_test(the_four_shapes_of_upstream_load),
		cmocka_unit_test(the_full_sample_holds_the_defaults),
		cmocka_unit_test(the_full_sample_names_every_key),
		cmocka_unit_test(upstreams_suffix_and_cache_tag_may_stand_in_two_items),
		cmocka_unit_test(yaml_bools_and_ints_arrive_as_text_in_driver_config),
		cmocka_unit_test(every_problem_is_collected_with_its_place),
		cmocka_unit_test(unknown_keys_warn_in_upstreams_sections_and_fail_in_ours),
		cmocka_unit_test(what_is_not_built_is_an_error_that_says_so),
		cmocka_unit_test(bad_yaml_is_told_with_line_and_column),
		cmocka_unit_test(depth_size_and_aliases_are_bounded),
		cmocka_unit_test(the_number_of_problems_is_bounded),
		cmocka_unit_test(yaml_1_1_traps_are_read_by_the_schema),
		cmocka_unit_test(anchors_and_aliases_work),
		cmocka_unit_test(hosts_are_lower_cased_and_bounded),
		cmocka_unit_test(auth_is_split_at_the_first_colon),
		cmocka_unit_test(secrets_are_never_quoted),
		cmocka_unit_test(messages_carry_no_control_characters),
		cmocka_unit_test(endpoints_are_checked),
		cmocka_unit_test(a_rule_has_many_targets),
		cmocka_unit_test(wrong_rules_are_refused),
		cmocka_unit_test(tokens_are_typed),
		cmocka_unit_test(what_contradicts_is_refused),
		cmocka_unit_test(redis_addresses_are_taken),
		cmocka_unit_test(conf_d_is_merged_by_name),
		cmocka_unit_test(a_missing_file_is_told),
		cmocka_unit_test(the_environment_comes_last),
		cmocka_unit_test(secrets_come_from_files_and_credentials),
		cmocka_unit_test(what_is_written_reads_back_as_the_same),
		cmocka_unit_test(secrets_are_written_as_redacted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
