/* common/settings_keys.c - one table of keys: path, type, bounds, default, words for people.
 *
 * Parsing, the environment, "did you mean", `config show` and accel.yaml(5) all read it; a key is
 * added by adding a row and a member.  Lists (rules, tokens) and the map of registries are read in
 * settings.c and settings_rules.c; they use the same rows for what is inside. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/settings_impl.h"
#include "common/str.h"

#define SECRET_TEXT_MAX (64 * 1024)
#define M(member) offsetof(struct settings, member), sizeof(((struct settings *)0)->member)
#define S(member)                                                                                  \
	offsetof(struct source_settings, member), sizeof(((struct source_settings *)0)->member)
#define NOWHERE 0, 0
#define SECOND 1000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

/* ---- checks of single values */

static int check_name(const char *v, struct err *e)
{
	for (const char *p = v; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '_')
			return err_set(e, ERR_INVALID, "expected letters, digits and _");
	if (!*v || strlen(v) > 64)
		return err_set(e, ERR_INVALID, "expected 1 to 64 letters, digits and _");
	return 0;
}

static int check_socket(const char *v, struct err *e)
{
	if (v[0] != '/')
		return err_set(e, ERR_INVALID, "expected an absolute path");
	if (strlen(v) >= 108)
		return err_set(e, ERR_INVALID, "expected a path of at most 107 bytes, has %zu",
			       strlen(v));
	return 0;
}

/* The port behind the last colon, and something before it unless that may be empty. */
static int check_host_port(const char *v, bool empty_host, bool port_0, struct err *e)
{
	const char *colon = strrchr(v, ':');
	uint64_t port;

	if (!colon || (colon == v && !empty_host) || str_u64(colon + 1, &port, NULL) < 0 ||
	    port > 65535 || (port == 0 && !port_0))
		return err_set(e, ERR_INVALID, "expected HOST:PORT");
	if (memchr(v, ':', (size_t)(colon - v)) && (v[0] != '[' || colon[-1] != ']'))
		return err_set(e, ERR_INVALID, "expected HOST:PORT, an IPv6 address in brackets");
	return 0;
}

static int check_redis_addr(const char *v, struct err *e)
{
	if (str_starts(v, "unix://"))
		return check_socket(v + strlen("unix://"), e);
	if (strstr(v, "://"))
		return err_set(e, ERR_INVALID,
			       "expected HOST:PORT or unix:///PATH; database, user and TLS have "
			       "keys of their own");
	return check_host_port(v, false, false, e);
}

static int check_listen(const char *v, struct err *e)
{
	if (strcmp(v, "off") == 0)
		return 0;
	if (check_host_port(v, true, true, NULL) < 0)
		return err_set(e, ERR_INVALID, "expected ADDRESS:PORT, :PORT, or off");
	return 0;
}

static int check_url(const char *v, struct err *e)
{
	const char *rest = str_starts(v, "https://")  ? v + 8
			   : str_starts(v, "http://") ? v + 7
						      : NULL;

	if (!rest || !*rest || *rest == '/' || strpbrk(rest, " \t\r\n@\"\\<>"))
		return err_set(e, ERR_INVALID,
			       "expected http(s)://HOST[:PORT], without user or password");
	return 0;
}

/* ---- the table */

static const struct choice verify_words[] = {
	{"off", VERIFY_OFF, NULL}, {"index", VERIFY_INDEX, NULL}, {"full", VERIFY_FULL, NULL}, {0}};
static const struct choice durability_words[] = {{"memory", DURABILITY_MEMORY, NULL},
						 {"fsync", DURABILITY_FSYNC, NULL},
						 {"replica", 0, "is not built; use fsync"},
						 {0}};
static const struct choice level_words[] = {{"debug", LOG_DEBUG, NULL},
					    {"info", LOG_INFO, NULL},
					    {"warning", LOG_WARNING, NULL},
					    {"error", LOG_ERROR, NULL},
					    {0}};
static const struct choice format_words[] = {
	{"text", LOG_TEXT, NULL}, {"json", LOG_JSON, NULL}, {"terminal", LOG_TERMINAL, NULL}, {0}};

/* In the order in which they are documented and shown. */
const struct key settings_keys[] = {
	{"server.name", KEY_TEXT, M(server.name), "API", 0, 0, NULL, check_name,
	 "In the start line of the log and in the names of the HTTP metrics.", NULL},
	{"server.uds", KEY_TEXT, M(server.uds), NULL, 0, 0, NULL, check_socket,
	 "Listen on this unix socket instead of TCP.", NULL},
	{"server.uds_mode", KEY_OCTAL, M(server.uds_mode), "0660", 0, 0777, NULL, NULL,
	 "Permissions of the socket.", NULL},
	{"server.host", KEY_TEXT, M(server.host), "0.0.0.0", 0, 0, NULL, NULL,
	 "The address to listen on; IPv6 without brackets.", NULL},
	{"server.port", KEY_NUMBER, M(server.port), "2077", 0, 65535, NULL, NULL,
	 "The port to listen on; 0 takes a free one and prints it.", NULL},
	{"server.tls_cert_file", KEY_FILE, M(server.tls_cert_file), NULL, 0, 0, NULL, NULL,
	 "Serve HTTPS with this certificate chain (PEM).", NULL},
	{"server.tls_key_file", KEY_FILE, M(server.tls_key_file), NULL, 0, 0, NULL, NULL,
	 "Its key (PEM).", NULL},
	{"server.tls_client_ca_file", KEY_FILE, M(server.tls_client_ca_file), NULL, 0, 0, NULL,
	 NULL, "Ask clients for a certificate of one of these authorities.", NULL},
	{"server.sync_timeout", KEY_TIME, M(server.sync_timeout_ms), "70m", SECOND, DAY, NULL, NULL,
	 "How long ?sync=true waits before it answers 202.", NULL},
	{"server.drain_delay", KEY_TIME, M(server.drain_delay_ms), "0s", 0, 10 * MINUTE, NULL, NULL,
	 "On SIGTERM go on serving this long while /readyz says draining.", NULL},
	{"server.max_body", KEY_SIZE, M(server.max_body), "1MiB", KIB, GIB, NULL, NULL,
	 "The largest request body.", NULL},
	{"server.max_header", KEY_SIZE, M(server.max_header), "16KiB", KIB, MIB, NULL, NULL,
	 "The largest header block.", NULL},
	{"server.max_connections", KEY_NUMBER, M(server.max_connections), "4096", 1, 1000000, NULL,
	 NULL, "Connections at a time.", NULL},
	{"server.max_connections_per_peer", KEY_NUMBER, M(server.max_connections_per_peer), "2048",
	 1, 1000000, NULL, NULL, "Connections of one address at a time.", NULL},
	{"server.max_waiters", KEY_NUMBER, M(server.max_waiters), "2048", 0, 1000000, NULL, NULL,
	 "Requests with ?sync=true that wait at a time.", NULL},
	{"server.rate_per_peer", KEY_NUMBER, M(server.rate_per_peer), "1000", 0, 1000000, NULL,
	 NULL, "Requests of one address per second, loopback excepted; 0 is no limit.", NULL},

	{"metric.enabled", KEY_BOOL, M(metric_enabled), "false", 0, 0, NULL, NULL,
	 "Serve /metrics.", NULL},

	{"provider.source", KEY_OTHER, NOWHERE, NULL, 0, 0, NULL, NULL,
	 "The registries, by host and port.  No other host is ever contacted with a task's "
	 "reference.",
	 NULL},
	{"provider.work_dir", KEY_TEXT, M(work_dir), NULL, 0, 0, NULL, NULL,
	 "Where acceld keeps its Redis.  Default: /var/lib/accel, or $XDG_STATE_HOME/accel when "
	 "not root.  "
	 "Nothing else writes to a disk.",
	 NULL},
	{"provider.gcpolicy.threshold", KEY_SIZE, M(gc_threshold), "10GB", 0, UINT64_MAX, NULL,
	 NULL, "Accepted from upstream's files.  There is no local content store to collect.",
	 "no effect: there is no local content store to collect"},
	{"provider.cache_size", KEY_NUMBER, M(cache_size), "200", 0, 100000, NULL, NULL,
	 "Layers that are kept under a cache_tag, for each platform.", NULL},
	{"provider.cache_version", KEY_TEXT, M(cache_version), "v1", 0, 0, NULL, NULL,
	 "What is under a cache_tag counts only if it has this version.", NULL},

	{"converter.worker", KEY_NUMBER, M(converter.worker), NULL, 1, 1024, NULL, NULL,
	 "Tasks at a time in a worker process.  Default: the number of CPUs.", NULL},
	{"converter.harbor_annotation", KEY_BOOL, M(converter.harbor_annotation), "false", 0, 0,
	 NULL, NULL, "No effect, as upstream: every result carries io.acceld annotations.", NULL},
	{"converter.verify", KEY_WORD, M(converter.verify), "full", 0, 0, verify_words, NULL,
	 "What is read back before a blob is committed: all of it, its index, or nothing.", NULL},
	{"converter.platforms", KEY_OTHER, NOWHERE, "", 0, 0, NULL, NULL,
	 "Platforms to convert, separated by commas; empty: all.", NULL},
	{"converter.driver", KEY_OTHER, NOWHERE, NULL, 0, 0, NULL, NULL,
	 "Upstream's form: type and config of the one driver.", NULL},
	{"converter.rules", KEY_OTHER, NOWHERE, NULL, 0, 0, NULL, NULL,
	 "Which image becomes what; the first rule that fits wins.", NULL},
	{"rules", KEY_OTHER, NOWHERE, NULL, 0, 0, NULL, NULL, "The same as converter.rules.", NULL},

	{"redis.addr", KEY_TEXT, M(redis.addr), NULL, 0, 0, NULL, check_redis_addr,
	 "HOST:PORT or unix:///PATH.  Without it acceld starts a private redis-server.", NULL},
	{"redis.username", KEY_TEXT, M(redis.username), NULL, 0, 0, NULL, NULL, "An ACL user.",
	 NULL},
	{"redis.password", KEY_SECRET, M(redis.password), NULL, 0, 0, NULL, NULL,
	 "Its password; better in a file.", NULL},
	{"redis.password_file", KEY_SECRET_FILE, M(redis.password), NULL, 0, 0, NULL, NULL,
	 "A file with the password.", NULL},
	{"redis.db", KEY_NUMBER, M(redis.db), "0", 0, 65535, NULL, NULL, "The database's number.",
	 NULL},
	{"redis.tls", KEY_BOOL, M(redis.tls), "false", 0, 0, NULL, NULL,
	 "Connect by TLS; the certificate is verified.", NULL},
	{"redis.ca_file", KEY_FILE, M(redis.ca_file), NULL, 0, 0, NULL, NULL,
	 "Authorities to trust instead of the system's.", NULL},
	{"redis.cert_file", KEY_FILE, M(redis.cert_file), NULL, 0, 0, NULL, NULL,
	 "A client certificate.", NULL},
	{"redis.key_file", KEY_FILE, M(redis.key_file), NULL, 0, 0, NULL, NULL, "Its key.", NULL},
	{"redis.durability", KEY_WORD, M(redis.durability), "memory", 0, 0, durability_words, NULL,
	 "When a task counts as stored: in the server's memory (appendfsync everysec), or on its "
	 "disk.",
	 NULL},
	{"redis.url", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL,
	 "use redis.addr, redis.username, redis.password_file, redis.db and redis.tls"},
	{"redis.sentinel", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL,
	 "Sentinel is not built yet"},
	{"redis.cluster", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL,
	 "Redis Cluster is not built yet"},

	{"queue.lease", KEY_TIME, M(queue.lease_ms), "15s", SECOND, HOUR, NULL, NULL,
	 "A task whose worker is silent this long runs again.", NULL},
	{"queue.heartbeat", KEY_TIME, M(queue.heartbeat_ms), "5s", 100, HOUR, NULL, NULL,
	 "How often a worker says that its tasks live; below half the lease.", NULL},
	{"queue.tick", KEY_TIME, M(queue.tick_ms), "1s", 100, MINUTE, NULL, NULL,
	 "How often due retries and expired leases are looked for.", NULL},
	{"queue.max_gap", KEY_TIME, M(queue.max_gap_ms), "8s", SECOND, HOUR, NULL, NULL,
	 "No tick for longer means that Redis was away; leases are then not counted as expired.",
	 NULL},
	{"queue.max_attempts", KEY_NUMBER, M(queue.max_attempts), "5", 1, 1000, NULL, NULL,
	 "Attempts before a task is dead.", NULL},
	{"queue.max_crash", KEY_NUMBER, M(queue.max_crash), "3", 1, 1000, NULL, NULL,
	 "Crashes of its process before a task is dead.", NULL},
	{"queue.backoff", KEY_TIME, M(queue.backoff_ms), "10s", 10, DAY, NULL, NULL,
	 "The pause before the second attempt; it doubles each time, with full jitter.", NULL},
	{"queue.backoff_max", KEY_TIME, M(queue.backoff_max_ms), "10m", 10, DAY, NULL, NULL,
	 "The longest pause.", NULL},
	{"queue.deadline", KEY_TIME, M(queue.deadline_ms), "24h", SECOND, 365 * DAY, NULL, NULL,
	 "A task ends this long after it was accepted, whatever it waits for.", NULL},
	{"queue.fresh", KEY_TIME, M(queue.fresh_ms), "10m", 0, DAY, NULL, NULL,
	 "A finished task answers for the same event this long.", NULL},
	{"queue.max_open", KEY_NUMBER, M(queue.max_open), "1000000", 1, 100000000, NULL, NULL,
	 "Unfinished tasks; more are refused with 429.", NULL},
	{"queue.max_group", KEY_NUMBER, M(queue.max_group), "100000", 1, 100000000, NULL, NULL,
	 "Waiting tasks of one tenant.", NULL},
	{"queue.registry_limit", KEY_NUMBER, M(queue.registry_limit), "16", 1, 100000, NULL, NULL,
	 "Running tasks of one registry.", NULL},
	{"queue.keep_finished", KEY_NUMBER, M(queue.keep_finished), "10000", 0, 10000000, NULL,
	 NULL, "Finished tasks that are kept.", NULL},
	{"queue.keep_finished_time", KEY_TIME, M(queue.keep_finished_ms), "168h", 0, 3650 * DAY,
	 NULL, NULL, "And for how long.", NULL},
	{"queue.keep_dead", KEY_NUMBER, M(queue.keep_dead), "2000", 0, 10000000, NULL, NULL,
	 "Dead tasks that are kept.", NULL},
	{"queue.keep_dead_time", KEY_TIME, M(queue.keep_dead_ms), "720h", 0, 3650 * DAY, NULL, NULL,
	 "And for how long.", NULL},
	{"queue.keep_bytes", KEY_SIZE, M(queue.keep_bytes), "256MiB", MIB, TIB, NULL, NULL,
	 "What kept tasks may take in Redis.", NULL},

	{"worker.threads", KEY_NUMBER, M(worker.threads), "0", 0, 1024, NULL, NULL,
	 "Compressors of a worker; 0: by cgroup and CPU affinity.", NULL},
	{"worker.memory", KEY_SIZE, M(worker.memory), "512MiB", 64 * MIB, TIB, NULL, NULL,
	 "What one task may take before it ends with a limit error.", NULL},
	{"worker.drain_timeout", KEY_TIME, M(worker.drain_timeout_ms), "840s", 0, DAY, NULL, NULL,
	 "On SIGTERM running tasks have this long; then they are handed back.  Under acceld: 20s.",
	 NULL},
	{"worker.task_timeout", KEY_TIME, M(worker.task_timeout_ms), "2h", SECOND, 7 * DAY, NULL,
	 NULL, "The longest attempt.", NULL},
	{"worker.max_image_size", KEY_SIZE, M(worker.max_image_size), "64GiB", MIB, 1024 * TIB,
	 NULL, NULL, "The largest image, unpacked.", NULL},
	{"worker.listen", KEY_TEXT, M(worker.listen), ":2078", 0, 0, NULL, check_listen,
	 "Where a worker serves /healthz, /readyz and /metrics; off under acceld.", NULL},
	{"worker.tmp", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL,
	 "a conversion writes no file"},

	{"auth.tokens", KEY_OTHER, NOWHERE, NULL, 0, 0, NULL, NULL,
	 "A list of {name, sha256, scopes}: SHA-256 of each token in hex, scopes of read, write, "
	 "admin.",
	 NULL},
	{"auth.allow_loopback", KEY_BOOL, M(auth.allow_loopback), "false", 0, 0, NULL, NULL,
	 "TCP peers on loopback need no header.  Proxies and port forwards come from there too.",
	 NULL},

	{"log.level", KEY_WORD, M(log.level), "info", 0, 0, level_words, NULL,
	 "The least that is logged.", NULL},
	{"log.format", KEY_WORD, M(log.format), "text", 0, 0, format_words, NULL,
	 "On stderr: logrus' text form, JSON lines, or for a terminal.", NULL},
	{"log.file", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL, "the log goes to stderr"},

	{"ui.enabled", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL,
	 "the page is not built yet"},
	{"ui.dir", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL, "the page is not built yet"},

	{"tracing", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL, "tracing is not built yet"},
};

/* Below provider.source.HOST. */
const struct key settings_source_keys[] = {
	{"auth", KEY_AUTH, S(password), NULL, 0, 0, NULL, NULL,
	 "Base64 of user:password, split at the first colon.", NULL},
	{"auth_file", KEY_AUTH_FILE, S(password), NULL, 0, 0, NULL, NULL, "A file with the same.",
	 NULL},
	{"username", KEY_SECRET, S(username), NULL, 0, 0, NULL, NULL, "A robot's name.", NULL},
	{"password", KEY_SECRET, S(password), NULL, 0, 0, NULL, NULL,
	 "Its secret; better in a file.", NULL},
	{"password_file", KEY_SECRET_FILE, S(password), NULL, 0, 0, NULL, NULL,
	 "A file with the secret.", NULL},
	{"webhook.auth_header", KEY_SECRET, S(auth_header), NULL, 0, 0, NULL, NULL,
	 "What the Authorization header of a webhook for this host must be.", NULL},
	{"webhook.auth_header_file", KEY_SECRET_FILE, S(auth_header), NULL, 0, 0, NULL, NULL,
	 "A file with the same.", NULL},
	{"plain_http", KEY_BOOL, S(plain_http), NULL, 0, 0, NULL, NULL,
	 "Speak HTTP to it.  Default: true for loopback hosts, false for others; never changed by "
	 "itself.",
	 NULL},
	{"insecure", KEY_BOOL, S(insecure), "false", 0, 0, NULL, NULL,
	 "Do not verify its certificate.", NULL},
	{"ca_file", KEY_FILE, S(ca_file), NULL, 0, 0, NULL, NULL,
	 "Authorities to trust instead of the system's.", NULL},
	{"cert_file", KEY_FILE, S(cert_file), NULL, 0, 0, NULL, NULL, "A client certificate.",
	 NULL},
	{"key_file", KEY_FILE, S(key_file), NULL, 0, 0, NULL, NULL, "Its key.", NULL},
	{"endpoint", KEY_URL, S(endpoint), NULL, 0, 0, NULL, check_url,
	 "Where workers reach it, if not under its public name.", NULL},
	{"realm", KEY_URL, S(realm), NULL, 0, 0, NULL, check_url,
	 "Where its token service is, if not on the same host.", NULL},
	{"max_running", KEY_NUMBER, S(max_running), "0", 0, 100000, NULL, NULL,
	 "Running tasks of this registry; 0: queue.registry_limit.", NULL},
};

const struct key *key_find(const struct key *rows, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].path, path) == 0)
			return &rows[i];
	return NULL;
}

const size_t settings_n_keys = COUNT(settings_keys),
	     settings_n_source_keys = COUNT(settings_source_keys);
static_assert(COUNT(settings_keys) <= SETTINGS_KEYS_MAX, "struct loader has a flag for each");

/* ---- words for people */

void key_time_text(uint64_t ms, char to[32])
{
	if (ms && ms % HOUR == 0)
		snprintf(to, 32, "%lluh", (unsigned long long)(ms / HOUR));
	else if (ms && ms % MINUTE == 0)
		snprintf(to, 32, "%llum", (unsigned long long)(ms / MINUTE));
	else if (ms % SECOND == 0)
		snprintf(to, 32, "%llus", (unsigned long long)(ms / SECOND));
	else
		snprintf(to, 32, "%llums", (unsigned long long)ms);
}

void key_size_text(uint64_t v, char to[32])
{
	static const struct {
		const char *unit;
		uint64_t bytes;
	} units[] = {{"TiB", TIB},	 {"GiB", GIB},	  {"MiB", MIB},
		     {"GB", 1000000000}, {"MB", 1000000}, {"KiB", KIB}};

	for (size_t i = 0; i < COUNT(units); i++)
		if (v && v % units[i].bytes == 0) {
			snprintf(to, 32, "%llu%s", (unsigned long long)(v / units[i].bytes),
				 units[i].unit);
			return;
		}
	snprintf(to, 32, "%llu", (unsigned long long)v);
}

static void expected_range(const struct key *k, char *to, size_t n)
{
	char min[32], max[32];
	void (*text)(uint64_t, char[32]) = k->type == KEY_TIME ? key_time_text : key_size_text;

	if (k->type == KEY_NUMBER) {
		snprintf(to, n, "a number from %llu to %llu", (unsigned long long)k->min,
			 (unsigned long long)k->max);
		return;
	}
	text(k->min, min);
	text(k->max, max);
	if (k->max == UINT64_MAX)
		snprintf(to, n, "a size, such as 10GB or 64MiB");
	else
		snprintf(to, n, "a %s from %s to %s", k->type == KEY_TIME ? "time" : "size", min,
			 max);
}

static void expected_words(const struct key *k, char *to, size_t n)
{
	size_t len = (size_t)snprintf(to, n, "one of");

	for (const struct choice *c = k->words; c->text; c++)
		if (!c->refused)
			len += (size_t)snprintf(to + len, n - len, "%s %s", len > 6 ? "," : "",
						c->text);
	assert(len < n);
}

void key_expected(const struct key *k, char *to, size_t n)
{
	switch (k->type) {
	case KEY_BOOL:
		snprintf(to, n, "true or false");
		return;
	case KEY_OCTAL:
		snprintf(to, n, "an octal mode, such as 0660");
		return;
	case KEY_NUMBER:
	case KEY_SIZE:
	case KEY_TIME:
		expected_range(k, to, n);
		return;
	case KEY_WORD:
		expected_words(k, to, n);
		return;
	case KEY_FILE:
	case KEY_SECRET_FILE:
	case KEY_AUTH_FILE:
		snprintf(to, n, "the path of a file");
		return;
	case KEY_URL:
		snprintf(to, n, "http(s)://HOST[:PORT]");
		return;
	case KEY_AUTH:
		snprintf(to, n, "base64 of user:password");
		return;
	default:
		snprintf(to, n, "text");
		return;
	}
}

/* ---- one value into its member */

char *key_shown(const char *value, char to[SHOWN])
{
	str_copy(to, SHOWN, value);
	str_clean(to);
	return to;
}

int key_parse_bool(const char *v, bool *to)
{
	/* Go's words, and those of YAML 1.1 that yaml.v3 takes for a bool. */
	static const char *const yes[] = {"yes", "Yes", "YES", "on", "On", "ON", "y", "Y"};
	static const char *const no[] = {"no", "No", "NO", "off", "Off", "OFF", "n", "N"};

	for (size_t i = 0; i < COUNT(yes); i++) {
		if (strcmp(v, yes[i]) == 0)
			return *to = true, 0;
		if (strcmp(v, no[i]) == 0)
			return *to = false, 0;
	}
	return str_bool(v, to, NULL);
}

static int store_number(const struct key *k, void *base, uint64_t v)
{
	void *to = (char *)base + k->at;

	if (k->size == 2)
		*(uint16_t *)to = (uint16_t)v;
	else if (k->size == 4)
		*(uint32_t *)to = (uint32_t)v;
	else
		*(uint64_t *)to = v;
	return 0;
}

static int set_number(const struct key *k, void *base, const char *v)
{
	uint64_t n = 0;
	char *end;
	int r;

	if (k->type == KEY_OCTAL) {
		n = strtoull(v, &end, 8);
		r = *v >= '0' && *v <= '7' && !*end ? 0 : -1;
	} else if (k->type == KEY_SIZE) {
		r = str_size(v, &n, NULL);
	} else if (k->type == KEY_TIME) {
		r = str_duration_ms(v, &n, NULL);
	} else {
		r = str_u64(v, &n, NULL);
	}
	if (r < 0 || n < k->min || n > k->max)
		return -1;
	return store_number(k, base, n);
}

static int not_expected(const struct key *k, const char *v, struct err *e)
{
	char expected[160], value[SHOWN];

	key_expected(k, expected, sizeof(expected));
	return err_set(e, ERR_INVALID, "\"%s\": expected %s", key_shown(v, value), expected);
}

static int set_word(const struct key *k, void *base, const char *v, struct err *e)
{
	for (const struct choice *c = k->words; c->text; c++) {
		if (strcmp(c->text, v) != 0)
			continue;
		if (c->refused)
			return err_set(e, ERR_UNSUPPORTED, "%s %s", v, c->refused);
		memcpy((char *)base + k->at, &c->value, sizeof(int));
		return 0;
	}
	return not_expected(k, v, e);
}

static int set_text(const struct key *k, void *base, const char *v, struct err *e)
{
	char **to = (void *)((char *)base + k->at);
	char value[SHOWN];

	if (!*v && !k->def) { /* an empty value is none */
		free(*to);
		*to = NULL;
		return 0;
	}
	if (k->check && k->check(v, e) < 0)
		return err_wrap(e, "\"%s\"", key_shown(v, value));
	if (k->type == KEY_FILE && access(v, R_OK) < 0) {
		err_errno(e, errno, "cannot read");
		return err_wrap(e, "\"%s\"", key_shown(v, value));
	}
	free(*to);
	*to = mem_strdup(v);
	return 0;
}

static int set_secret(struct secret **to, struct secret *value, struct err *e)
{
	if (*to) {
		secret_freep(&value);
		return err_set(e, ERR_INVALID,
			       "given twice (as a value and as a file, or in auth)");
	}
	*to = value;
	return 0;
}

/* "user:password" in base64, as docker's config.json has it.  A newline at the end (of `echo`
 * without -n) is cut. */
static int set_auth(struct source_settings *s, const char *text, struct err *e)
{
	struct buf b = BUF_INIT(SECRET_TEXT_MAX);
	const char *colon;
	int r = -1;

	if (str_unbase64(&b, text, strlen(text), NULL) < 0) {
		err_set(e, ERR_INVALID, "expected base64 of user:password");
		goto out;
	}
	while (b.len > 0 && (b.data[b.len - 1] == '\n' || b.data[b.len - 1] == '\r'))
		b.len--;
	colon = memchr(b.data, ':', b.len);
	if (!colon || colon == b.data || memchr(b.data, 0, b.len)) {
		err_set(e, ERR_INVALID,
			"expected base64 of user:password, it holds no user before a colon");
		goto out;
	}
	r = set_secret(&s->username, secret_new(b.data, (size_t)(colon - b.data)), e);
	if (r == 0)
		r = set_secret(&s->password,
			       secret_new(colon + 1, (size_t)(b.data + b.len - colon) - 1), e);
out:
	buf_wipe(&b);
	return r;
}

static int set_from_file(const struct key *k, void *base, const char *path, struct err *e)
{
	scoped(secret_freep) struct secret *s = secret_from_config(path, e);

	if (!s)
		return -1;
	if (k->type == KEY_AUTH_FILE)
		return set_auth(base, secret_value(s), e);
	return set_secret((void *)((char *)base + k->at), take_ptr(s), e);
}

int key_set(const struct key *k, void *base, const char *v, struct err *e)
{
	bool b;

	switch (k->type) {
	case KEY_TEXT:
	case KEY_FILE:
	case KEY_URL:
		return set_text(k, base, v, e);
	case KEY_BOOL:
		if (key_parse_bool(v, &b) < 0)
			return not_expected(k, v, e);
		*(bool *)((char *)base + k->at) = b;
		return 0;
	case KEY_NUMBER:
	case KEY_OCTAL:
	case KEY_SIZE:
	case KEY_TIME:
		return set_number(k, base, v) < 0 ? not_expected(k, v, e) : 0;
	case KEY_WORD:
		return set_word(k, base, v, e);
	case KEY_SECRET:
		if (!*v)
			return 0;
		return set_secret((void *)((char *)base + k->at), secret_new(v, strlen(v)), e);
	case KEY_AUTH:
		return *v ? set_auth(base, v, e) : 0;
	case KEY_SECRET_FILE:
	case KEY_AUTH_FILE:
		return *v ? set_from_file(k, base, v, e) : 0;
	case KEY_OTHER:
	case KEY_REFUSED:
		break;
	}
	return err_set(e, ERR_BUG, "%s has no setter", k->path);
}

void key_free(const struct key *k, void *base)
{
	void *at = (char *)base + k->at;

	switch (k->type) {
	case KEY_TEXT:
	case KEY_FILE:
	case KEY_URL:
		free(*(char **)at);
		*(char **)at = NULL;
		return;
	case KEY_SECRET:
	case KEY_SECRET_FILE:
	case KEY_AUTH:
	case KEY_AUTH_FILE:
		secret_freep(at);
		return;
	default:
		return;
	}
}
