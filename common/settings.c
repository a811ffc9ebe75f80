/* common/settings.c - one table of keys: path, type, bounds, default, words for people.
 *
 * Parsing, the environment, "did you mean", `config show` and accel.yaml(5) all read it; a key is
 * added by adding a row and a member.  Lists (rules, tokens) and maps with names of the user's
 * (provider.source) are read by functions below; they use the same rows for what is inside. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config_impl.h"
#include "common/env.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

#define SECRET_TEXT_MAX (64 * 1024)
#define SHOWN 120 /* of a wrong value in a message */

enum key_type {
	KEY_TEXT,
	KEY_BOOL,
	KEY_NUMBER, /* uint16_t, uint32_t or uint64_t, by the member's size */
	KEY_OCTAL,  /* uint32_t */
	KEY_SIZE,   /* bytes: uint64_t */
	KEY_TIME,   /* ms: uint64_t */
	KEY_WORD,   /* an enum */
	KEY_FILE,   /* the path of a file that must be readable */
	KEY_URL,    /* http(s)://host[:port][/path] */
	KEY_SECRET,
	KEY_SECRET_FILE,
	KEY_AUTH,      /* base64 of user:password, into username and password */
	KEY_AUTH_FILE, /* the same from a file */
	KEY_OTHER,     /* read by a function of its own */
	KEY_REFUSED,   /* not built; the note says so */
};

struct choice {
	const char *text;
	int value;
	const char *refused;
};

struct key {
	const char *path;
	enum key_type type;
	size_t at, size; /* of the member */
	const char *def; /* NULL: nothing, or computed (the doc says how) */
	uint64_t min, max;
	const struct choice *words;
	int (*check)(const char *value, struct err *e);
	const char *doc, *note;
};

#define M(member) offsetof(struct settings, member), sizeof(((struct settings *)0)->member)
#define S(member)                                                                                  \
	offsetof(struct source_settings, member), sizeof(((struct source_settings *)0)->member)
#define NOWHERE 0, 0
#define COUNT(a) (sizeof(a) / sizeof(*(a)))
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
static const struct key keys[] = {
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
	 NULL},
	{"provider.cache_size", KEY_NUMBER, M(cache_size), "200", 0, 100000, NULL, NULL,
	 "Layers that a cache_tag records.", NULL},
	{"provider.cache_version", KEY_TEXT, M(cache_version), "v1", 0, 0, NULL, NULL,
	 "A cache_tag with another version is not used.", NULL},

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
	{"queue.wait_policy", KEY_TIME, M(queue.wait_policy_ms), "24h", 0, 365 * DAY, NULL, NULL,
	 "How long an image that its registry has not scanned yet is waited for.", NULL},

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

	{"ui.enabled", KEY_BOOL, M(ui_enabled), "true", 0, 0, NULL, NULL, "Serve the page at /.",
	 NULL},
	{"ui.dir", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL, "the page is built in"},

	{"tracing", KEY_REFUSED, NOWHERE, NULL, 0, 0, NULL, NULL, NULL, "tracing is not built yet"},
};

/* Below provider.source.HOST. */
static const struct key source_keys[] = {
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

/* Unknown keys in these are mistakes; upstream ignored those in its own sections, so we warn there.
 */
static const char *const our_sections[] = {"redis", "queue", "worker", "auth",
					   "log",   "ui",    "rules"};

static bool our_section(const char *path)
{
	size_t n = strcspn(path, ".[");

	for (size_t i = 0; i < COUNT(our_sections); i++)
		if (strlen(our_sections[i]) == n && strncmp(path, our_sections[i], n) == 0)
			return true;
	return false;
}

static const struct key *key_find(const struct key *rows, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].path, path) == 0)
			return &rows[i];
	return NULL;
}

/* ---- words for people */

static void time_text(uint64_t ms, char to[32])
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

static void size_text(uint64_t v, char to[32])
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
	void (*text)(uint64_t, char[32]) = k->type == KEY_TIME ? time_text : size_text;

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

static void expected_text(const struct key *k, char *to, size_t n)
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

struct loader {
	struct settings *s;
	struct config_report *report;
	bool seen[COUNT(keys)];
	const struct node *driver, *rules, *our_rules;
};

static char *shown(const char *value, char to[SHOWN])
{
	str_copy(to, SHOWN, value);
	str_clean(to);
	return to;
}

static void say(struct loader *l, enum severity s, const struct node *n, bool at_key,
		const char *path, const char *text)
{
	char where[512];

	config_where(n, at_key, where, sizeof(where));
	config_report_add(l->report, s, where, "%s: %s", path, text);
}

static void sayf(struct loader *l, enum severity s, const struct node *n, const char *path,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void sayf(struct loader *l, enum severity s, const struct node *n, const char *path,
		 const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(l, s, n, false, path, text);
}

static int parse_bool(const char *v, bool *to)
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

	expected_text(k, expected, sizeof(expected));
	return err_set(e, ERR_INVALID, "\"%s\": expected %s", shown(v, value), expected);
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
		return err_wrap(e, "\"%s\"", shown(v, value));
	if (k->type == KEY_FILE && access(v, R_OK) < 0) {
		err_errno(e, errno, "cannot read");
		return err_wrap(e, "\"%s\"", shown(v, value));
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

/* A name without a slash is looked up among systemd's credentials first. */
static struct secret *secret_file(const char *path, struct err *e)
{
	const char *folder = env_get("CREDENTIALS_DIRECTORY");
	struct secret *s;

	if (folder && !strchr(path, '/')) {
		scoped_free char *below = mem_printf("%s/%s", folder, path);

		if (access(below, R_OK) == 0)
			return secret_from_file(below, e);
	}
	s = secret_from_file(path, e);
	return s;
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
	scoped(secret_freep) struct secret *s = secret_file(path, e);

	if (!s)
		return -1;
	if (k->type == KEY_AUTH_FILE)
		return set_auth(base, secret_value(s), e);
	return set_secret((void *)((char *)base + k->at), take_ptr(s), e);
}

/* Text into the member.  The message never quotes a secret. */
static int set_value(const struct key *k, void *base, const char *v, struct err *e)
{
	bool b;

	switch (k->type) {
	case KEY_TEXT:
	case KEY_FILE:
	case KEY_URL:
		return set_text(k, base, v, e);
	case KEY_BOOL:
		if (parse_bool(v, &b) < 0)
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

/* ---- settings without a file */

static uint32_t cpus(void)
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > 1024 ? 1024 : (uint32_t)n;
}

static char *default_work_dir(void)
{
	char *below = NULL;

	if (geteuid() != 0) {
		scoped_free char *state = env_path("XDG_STATE_HOME", ".local/state");

		if (state)
			below = mem_printf("%s/accel", state);
	}
	return below ? below : mem_strdup("/var/lib/accel");
}

struct settings *settings_default(void)
{
	struct settings *s = mem_zalloc(sizeof(*s));
	struct err e = {0};

	for (size_t i = 0; i < COUNT(keys); i++) {
		const struct key *k = &keys[i];

		if (k->def && k->type != KEY_OTHER && set_value(k, s, k->def, &e) < 0)
			assert(!"a default does not parse");
	}
	s->converter.worker = cpus();
	s->work_dir = default_work_dir();
	s->rules.platforms = mem_strdup("");
	return s;
}

static void free_member(const struct key *k, void *base)
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

static void source_fini(struct source_settings *s)
{
	for (size_t i = 0; i < COUNT(source_keys); i++)
		free_member(&source_keys[i], s);
	free(s->host);
}

void settings_freep(struct settings **sp)
{
	struct settings *s = *sp;

	if (!s)
		return;
	for (size_t i = 0; i < COUNT(keys); i++)
		if (keys[i].size)
			free_member(&keys[i], s);
	for (size_t i = 0; i < s->n_sources; i++)
		source_fini(&s->source[i]);
	free(s->source);
	for (size_t i = 0; i < s->auth.n_tokens; i++) {
		free(s->auth.token[i].name);
		free(s->auth.token[i].sha256);
	}
	free(s->auth.token);
	rules_fini(&s->rules);
	free(s);
	*sp = NULL;
}

const struct source_settings *settings_source(const struct settings *s, const char *host)
{
	for (size_t i = 0; i < s->n_sources; i++)
		if (strcmp(s->source[i].host, host) == 0)
			return &s->source[i];
	return NULL;
}

/* ---- walking a tree */

/* A map whose keys are rows: the whole file, or one registry. */
struct scope {
	const struct key *rows;
	size_t n;
	void *base;
	const char *shown; /* in front of each path in messages: "provider.source.HOST." */
};

static struct scope top_scope(struct loader *l)
{
	return (struct scope){keys, COUNT(keys), l->s, ""};
}

static bool is_section(const struct scope *sc, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < sc->n; i++)
		if (strncmp(sc->rows[i].path, path, n) == 0 && sc->rows[i].path[n] == '.')
			return true;
	return false;
}

/* The nearest name that may stand in the same map; the caller frees. */
static char *nearest(const struct scope *sc, const char *prefix, const char *key)
{
	char *names[COUNT(keys)] = {0};
	size_t n = 0, len = strlen(prefix);
	char *found;

	for (size_t i = 0; i < sc->n; i++)
		if (strncmp(sc->rows[i].path, prefix, len) == 0)
			names[n++] = mem_strndup(sc->rows[i].path + len,
						 strcspn(sc->rows[i].path + len, "."));
	found = mem_strdup(str_nearest(key, (const char *const *)names, n));
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	return found;
}

static void unknown_key(struct loader *l, const struct node *n, const char *path, bool fatal,
			const char *near)
{
	scoped_free char *text = mem_printf("unknown key%s%s%s", near ? "; did you mean " : "",
					    near ? near : "", near ? "?" : "");

	say(l, fatal ? SEVERITY_FATAL : SEVERITY_WARNING, n, true, path, text);
}

static void expected_kind(struct loader *l, const struct node *n, const char *path,
			  const char *what)
{
	sayf(l, SEVERITY_FATAL, n, path, "expected %s, found %s", what, node_kind_name(n->kind));
}

static void read_other(struct loader *l, const struct key *k, const struct node *n);

static void read_key(struct loader *l, const struct scope *sc, const struct key *k,
		     const struct node *n)
{
	scoped_free char *path = mem_printf("%s%s", sc->shown, k->path);
	struct err e = {0};

	if (n->kind == NODE_NULL)
		return; /* the default, as if it were not there */
	if (k->type == KEY_REFUSED) {
		say(l, SEVERITY_FATAL, n, true, path, k->note);
	} else if (k->type == KEY_OTHER) {
		read_other(l, k, n);
	} else if (n->kind != NODE_TEXT) {
		expected_kind(l, n, path, "a single value");
	} else if (k->type == KEY_SECRET && n->from_environment) {
		say(l, SEVERITY_FATAL, n, false, path,
		    "a secret is not taken from the environment; name a file in the variable with "
		    "_FILE at its end");
	} else if (set_value(k, sc->base, n->text, &e) < 0) {
		say(l, SEVERITY_FATAL, n, false, path, e.text);
	} else if (sc->rows == keys) {
		l->seen[k - keys] = true;
	}
}

static void walk(struct loader *l, const struct scope *sc, const struct node *map,
		 const char *prefix)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct node *n = map->kid[i];
		scoped_free char *path = mem_printf("%s%s", prefix, n->key);
		scoped_free char *full = mem_printf("%s%s", sc->shown, path);
		const struct key *k = key_find(sc->rows, sc->n, path);

		if (k) {
			read_key(l, sc, k, n);
		} else if (!is_section(sc, path)) {
			scoped_free char *near = nearest(sc, prefix, n->key);

			unknown_key(l, n, full, our_section(full), near);
		} else if (n->kind == NODE_MAP) {
			scoped_free char *below = mem_printf("%s.", path);

			walk(l, sc, n, below);
		} else if (n->kind != NODE_NULL) {
			expected_kind(l, n, full, "a map");
		}
	}
}

static const struct node *find(const struct node *root, const char *path)
{
	const struct node *n = root;

	while (n && *path) {
		size_t len = strcspn(path, ".");
		scoped_free char *key = mem_strndup(path, len);

		n = node_get(n, key);
		path += len + (path[len] == '.');
	}
	return n;
}

/* ---- provider.source */

static int check_host(const char *host, char canonical[256], struct err *e)
{
	scoped_free char *text = mem_printf("%s/x", host);
	struct imageref r;

	if (strchr(host, '/') || imageref_parse(&r, text, NULL) < 0)
		return err_set(e, ERR_INVALID, "expected a host, with its port if it has one");
	if (strcmp(r.repository, "x") != 0 && strcmp(r.repository, "library/x") != 0)
		return err_set(e, ERR_INVALID,
			       "no image reference names this host: it needs a dot or a port");
	strcpy(canonical, r.host);
	return 0;
}

static void check_source(struct loader *l, const struct source_settings *s, const struct node *n,
			 const char *path)
{
	if (!s->username != !s->password)
		sayf(l, SEVERITY_FATAL, n, path, "%s without %s",
		     s->username ? "username" : "password",
		     s->username ? "password_file" : "username");
	if (!s->cert_file != !s->key_file)
		sayf(l, SEVERITY_FATAL, n, path, "cert_file and key_file belong together");
	if (s->plain_http && (s->ca_file || s->cert_file || s->insecure) &&
	    !imageref_host_is_loopback(s->host))
		sayf(l, SEVERITY_WARNING, n, path,
		     "plain_http leaves ca_file, cert_file and insecure unused");
	if (s->insecure && s->ca_file)
		sayf(l, SEVERITY_WARNING, n, path, "insecure leaves ca_file unused");
}

static void read_source(struct loader *l, const struct node *n)
{
	scoped_free char *path = mem_printf("provider.source.%s", n->key);
	scoped_free char *below = mem_printf("%s.", path);
	struct settings *s = l->s;
	struct source_settings *to;
	struct err e = {0};
	char host[256];

	if (check_host(n->key, host, &e) < 0) {
		say(l, SEVERITY_FATAL, n, true, path, e.text);
		return;
	}
	if (settings_source(s, host)) {
		say(l, SEVERITY_FATAL, n, true, path, "the same host twice");
		return;
	}
	if (n->kind != NODE_MAP && n->kind != NODE_NULL) {
		expected_kind(l, n, path, "a map");
		return;
	}
	s->source = mem_resize(s->source, s->n_sources + 1, sizeof(*s->source));
	to = &s->source[s->n_sources++];
	memset(to, 0, sizeof(*to));
	to->host = mem_strdup(host);
	to->plain_http = imageref_host_is_loopback(host);
	if (n->kind == NODE_MAP)
		walk(l, &(struct scope){source_keys, COUNT(source_keys), to, below}, n, "");
	check_source(l, to, n, path);
}

/* ---- auth.tokens */

static bool hex64(const char *s)
{
	return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static int read_scope(struct token_settings *t, const char *v)
{
	if (strcmp(v, "read") == 0)
		t->read = true;
	else if (strcmp(v, "write") == 0)
		t->read = t->write = true;
	else if (strcmp(v, "admin") == 0)
		t->read = t->write = t->admin = true;
	else
		return -1;
	return 0;
}

static void read_scopes(struct loader *l, struct token_settings *t, const struct node *n,
			const char *path)
{
	char value[SHOWN];

	if (n->kind == NODE_TEXT && read_scope(t, n->text) == 0)
		return;
	if (n->kind != NODE_LIST) {
		expected_kind(l, n, path, "a list of read, write, admin");
		return;
	}
	for (size_t i = 0; i < n->n; i++)
		if (n->kid[i]->kind != NODE_TEXT || read_scope(t, n->kid[i]->text) < 0)
			sayf(l, SEVERITY_FATAL, n->kid[i], path,
			     "\"%s\": expected read, write or admin",
			     shown(n->kid[i]->text, value));
}

static void read_token(struct loader *l, struct token_settings *t, const struct node *n,
		       const char *path)
{
	static const char *const names[] = {"name", "sha256", "scopes"};

	if (n->kind != NODE_MAP) {
		expected_kind(l, n, path, "a map with name, sha256 and scopes");
		return;
	}
	for (size_t i = 0; i < n->n; i++) {
		const struct node *v = n->kid[i];
		scoped_free char *at = mem_printf("%s.%s", path, v->key);

		if (strcmp(v->key, "scopes") == 0)
			read_scopes(l, t, v, at);
		else if (strcmp(v->key, "name") != 0 && strcmp(v->key, "sha256") != 0)
			unknown_key(l, v, at, true, str_nearest(v->key, names, COUNT(names)));
		else if (v->kind != NODE_TEXT)
			expected_kind(l, v, at, "text");
		else if (strcmp(v->key, "name") == 0)
			t->name = mem_strdup(v->text);
		else if (hex64(v->text))
			t->sha256 = mem_strdup(v->text);
		else /* perhaps the token itself: not quoted */
			say(l, SEVERITY_FATAL, v, false, at,
			    "expected the 64 lower-case hex digits of the token's SHA-256");
	}
	if (!t->sha256 && !node_get(n, "sha256"))
		sayf(l, SEVERITY_FATAL, n, path, "without sha256");
	if (!t->read)
		sayf(l, SEVERITY_FATAL, n, path,
		     "without scopes: expected some of read, write, admin");
	if (!t->name)
		t->name = mem_strdup(path);
}

static void read_tokens(struct loader *l, const struct node *n)
{
	struct settings *s = l->s;

	if (n->kind != NODE_LIST) {
		expected_kind(l, n, "auth.tokens", "a list");
		return;
	}
	s->auth.token = mem_array(n->n + 1, sizeof(*s->auth.token));
	s->auth.n_tokens = n->n;
	for (size_t i = 0; i < n->n; i++) {
		scoped_free char *path = mem_printf("auth.tokens[%zu]", i);

		read_token(l, &s->auth.token[i], n->kid[i], path);
	}
}

/* ---- platforms, drivers, rules */

/* Text, or a list of texts joined by `with`.  NULL after saying what was wrong. */
static char *joined_text(struct loader *l, const struct node *n, const char *path, const char *with)
{
	struct buf b = BUF_INIT(MIB); /* a configuration is no larger */
	char *text;

	if (n->kind == NODE_TEXT || n->kind == NODE_NULL)
		return mem_strdup(n->text);
	for (size_t i = 0; n->kind == NODE_LIST && i < n->n; i++) {
		if (n->kid[i]->kind != NODE_TEXT) {
			expected_kind(l, n->kid[i], path, "text");
			buf_fini(&b);
			return NULL;
		}
		buf_add_str(&b, i ? with : "", NULL);
		buf_add_str(&b, n->kid[i]->text, NULL);
	}
	if (n->kind != NODE_LIST)
		expected_kind(l, n, path, "text");
	text = n->kind == NODE_LIST ? mem_strdup(b.data) : NULL;
	buf_fini(&b);
	return text;
}

static void read_platforms(struct loader *l, const struct node *n, const char *path, char **to)
{
	scoped_free char *text = joined_text(l, n, path, ",");
	struct err e = {0};
	char *sorted;

	if (!text)
		return;
	if (platforms_normalize(text, &sorted, &e) < 0) {
		say(l, SEVERITY_FATAL, n, false, path, e.text);
		return;
	}
	free(*to);
	*to = sorted;
}

static void read_option(struct loader *l, struct target *t, const struct node *n, const char *path)
{
	scoped_free char *at = mem_printf("%s.%s", path, n->key);
	scoped_free char *value = NULL;
	const char *warning = NULL;
	struct err e = {0};
	bool known = target_option_known(t->driver, n->key);

	value = joined_text(l, n, at, "\n");
	if (!value)
		return;
	if (target_option(t, n->key, value, &warning, &e) < 0)
		say(l, known ? SEVERITY_FATAL : SEVERITY_WARNING, n, !known, at, e.text);
	else if (warning)
		say(l, SEVERITY_NOTE, n, true, at, warning);
}

/* compression first: it decides which options there are. */
static void read_options(struct loader *l, struct target *t, const struct node *map,
			 const char *path)
{
	const struct node *first = node_get(map, "compression");
	struct err e = {0};

	if (map->kind != NODE_MAP) {
		if (map->kind != NODE_NULL)
			expected_kind(l, map, path, "a map");
		return;
	}
	if (first)
		read_option(l, t, first, path);
	for (size_t i = 0; i < map->n; i++)
		if (map->kid[i] != first)
			read_option(l, t, map->kid[i], path);
	if (target_check(t, &e) < 0)
		say(l, SEVERITY_FATAL, map, true, path, e.text);
}

/* t is initialised even when something was wrong. */
static void read_driver(struct loader *l, struct target *t, const struct node *parent,
			const struct node *name, const char *path)
{
	enum driver_id d = DRIVER_NYDUS;
	struct err e = {0};

	if (!name || name->kind == NODE_NULL)
		sayf(l, SEVERITY_FATAL, parent, path,
		     "missing: expected estargz, zstdchunked or nydus");
	else if (name->kind != NODE_TEXT)
		expected_kind(l, name, path, "estargz, zstdchunked or nydus");
	else if (target_driver_parse(&d, name->text, &e) < 0)
		say(l, SEVERITY_FATAL, name, false, path, e.text);
	target_init(t, d);
}

static void known_keys(struct loader *l, const struct node *map, const char *path,
		       const char *const *names, size_t n, bool fatal)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct node *v = map->kid[i];
		bool known = false;

		for (size_t k = 0; k < n; k++)
			known = known || strcmp(names[k], v->key) == 0;
		if (!known) {
			scoped_free char *at = mem_printf("%s.%s", path, v->key);

			unknown_key(l, v, at, fatal, str_nearest(v->key, names, n));
		}
	}
}

/* The text of an optional key; NULL when absent, empty, or wrong. */
static const char *opt_text(struct loader *l, const struct node *map, const char *key,
			    const char *path)
{
	const struct node *n = node_get(map, key);

	if (!n || n->kind == NODE_NULL)
		return NULL;
	if (n->kind != NODE_TEXT) {
		scoped_free char *at = mem_printf("%s.%s", path, key);

		expected_kind(l, n, at, "text");
		return NULL;
	}
	return n->text[0] ? n->text : NULL;
}

static void read_cache_tag(struct loader *l, struct target *t, const struct node *map,
			   const char *path)
{
	const char *tag = opt_text(l, map, "cache_tag", path);

	if (!tag)
		return;
	if (imageref_tag_valid(tag))
		t->cache_tag = mem_strdup(tag);
	else
		sayf(l, SEVERITY_FATAL, node_get(map, "cache_tag"), path, "cache_tag: not a tag");
}

static void read_target(struct loader *l, struct target *t, const struct node *n, const char *path)
{
	static const char *const names[] = {"driver", "tag", "config", "overwrite", "cache_tag"};
	const struct node *config = node_get(n, "config"), *overwrite = node_get(n, "overwrite");
	scoped_free char *at_config = mem_printf("%s.config", path);
	scoped_free char *at_driver = mem_printf("%s.driver", path);
	const char *tag = opt_text(l, n, "tag", path);
	struct err e = {0};

	read_driver(l, t, n, node_get(n, "driver"), at_driver);
	if (n->kind != NODE_MAP) {
		expected_kind(l, n, path, "a map with driver and tag");
		t->tag_template = mem_strdup("{tag}-");
		return;
	}
	known_keys(l, n, path, names, COUNT(names), true);
	if (!tag)
		sayf(l, SEVERITY_FATAL, n, path, "tag: missing, expected such as \"{tag}-nydus\"");
	else if (target_template_check(tag, &e) < 0)
		say(l, SEVERITY_FATAL, node_get(n, "tag"), false, path, e.text);
	t->tag_template = mem_strdup(tag ? tag : "{tag}-");
	if (config)
		read_options(l, t, config, at_config);
	if (overwrite &&
	    (overwrite->kind != NODE_TEXT || parse_bool(overwrite->text, &t->overwrite) < 0))
		sayf(l, SEVERITY_FATAL, overwrite, path, "overwrite: expected true or false");
	read_cache_tag(l, t, n, path);
}

static char *read_pattern(struct loader *l, const struct node *match, const char *key,
			  const char *path)
{
	const char *text = opt_text(l, match, key, path);
	struct err e = {0};

	if (!text)
		return NULL;
	if (pattern_check(text, &e) < 0) {
		say(l, SEVERITY_FATAL, node_get(match, key), false, path, e.text);
		return NULL;
	}
	return mem_strdup(text);
}

static void read_match(struct loader *l, struct rule *r, const struct node *match, const char *path)
{
	static const char *const names[] = {"host", "repository", "tag", "platforms"};
	const struct node *platforms = node_get(match, "platforms");

	if (match->kind != NODE_MAP) {
		if (match->kind != NODE_NULL)
			expected_kind(l, match, path, "a map");
		return;
	}
	known_keys(l, match, path, names, COUNT(names), true);
	r->host = read_pattern(l, match, "host", path);
	for (char *p = r->host; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	r->repository = read_pattern(l, match, "repository", path);
	r->tag = read_pattern(l, match, "tag", path);
	if (platforms)
		read_platforms(l, platforms, path, &r->platforms);
}

static struct rule *add_rule(struct loader *l)
{
	struct rules *r = &l->s->rules;

	r->rule = mem_resize(r->rule, r->n + 1, sizeof(*r->rule));
	memset(&r->rule[r->n], 0, sizeof(*r->rule));
	return &r->rule[r->n++];
}

static void check_last_rule(struct loader *l, const struct node *n, const char *path,
			    size_t fatal_before)
{
	struct rules one = {.rule = &l->s->rules.rule[l->s->rules.n - 1], .n = 1};
	struct err e = {0};

	if (l->report->n_fatal == fatal_before && rules_check(&one, &e) < 0)
		say(l, SEVERITY_FATAL, n, false, path, e.text);
}

static void read_rule(struct loader *l, const struct node *n, const char *path)
{
	static const char *const names[] = {"name", "match", "targets"};
	const struct node *match = node_get(n, "match"), *targets = node_get(n, "targets");
	scoped_free char *at_match = mem_printf("%s.match", path);
	const char *name = opt_text(l, n, "name", path);
	size_t fatal_before = l->report->n_fatal;
	struct rule *r = add_rule(l);

	r->name = mem_strdup(name ? name : path);
	known_keys(l, n, path, names, COUNT(names), true);
	if (match)
		read_match(l, r, match, at_match);
	if (!targets || targets->kind != NODE_LIST || targets->n == 0) {
		sayf(l, SEVERITY_FATAL, targets ? targets : n, path,
		     "targets: expected a list of {driver, tag}");
		return;
	}
	r->targets = mem_array(targets->n, sizeof(*r->targets));
	for (size_t i = 0; i < targets->n; i++) {
		scoped_free char *at = mem_printf("%s.targets[%zu]", path, i);

		read_target(l, &r->targets[i], targets->kid[i], at);
		r->n_targets = i + 1;
	}
	check_last_rule(l, n, path, fatal_before);
}

static bool upstream_item(const struct node *n)
{
	return n->kind == NODE_MAP && !node_get(n, "targets") &&
	       (node_get(n, "tag_suffix") || node_get(n, "cache_tag"));
}

/* Upstream: the first tag_suffix and the first cache_tag of the list, whichever items hold them. */
static const struct node *first_of(const struct node *list, const char *key)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct node *v =
			upstream_item(list->kid[i]) ? node_get(list->kid[i], key) : NULL;

		if (v && v->kind == NODE_TEXT && v->text[0])
			return v;
	}
	return NULL;
}

static void read_upstream_rule(struct loader *l, const struct node *list, const char *path)
{
	static const char *const names[] = {"type", "config"};
	const struct node *suffix = first_of(list, "tag_suffix"),
			  *cache = first_of(list, "cache_tag");
	const struct node *config = l->driver ? node_get(l->driver, "config") : NULL;
	struct rule *r = add_rule(l);
	struct target *t;
	struct err e = {0};

	r->name = mem_strdup("default");
	r->targets = mem_array(1, sizeof(*r->targets));
	r->n_targets = 1;
	t = &r->targets[0];
	read_driver(l, t, l->driver ? l->driver : list,
		    l->driver ? node_get(l->driver, "type") : NULL, "converter.driver.type");
	t->upstream_form = true;
	if (l->driver)
		known_keys(l, l->driver, "converter.driver", names, COUNT(names), false);
	if (config)
		read_options(l, t, config, "converter.driver.config");
	if (!suffix) {
		sayf(l, SEVERITY_FATAL, list, path, "tag_suffix: missing, expected such as -nydus");
	} else {
		t->tag_template = mem_printf("{tag}%s", suffix->text);
		if (target_template_check(t->tag_template, &e) < 0)
			sayf(l, SEVERITY_FATAL, suffix, path, "tag_suffix: %s", e.text);
	}
	if (cache && !imageref_tag_valid(cache->text))
		sayf(l, SEVERITY_FATAL, cache, path, "cache_tag: not a tag");
	else if (cache)
		t->cache_tag = mem_strdup(cache->text);
}

static void read_rules(struct loader *l, const struct node *list, const char *path)
{
	static const char *const names[] = {"tag_suffix", "cache_tag"};
	bool upstream = false;

	if (list->kind != NODE_LIST) {
		expected_kind(l, list, path, "a list");
		return;
	}
	for (size_t i = 0; i < list->n; i++) {
		const struct node *n = list->kid[i];
		scoped_free char *at = mem_printf("%s[%zu]", path, i);

		if (upstream_item(n)) {
			known_keys(l, n, at, names, COUNT(names), false);
			if (!upstream)
				read_upstream_rule(l, list, path);
			upstream = true;
		} else if (n->kind == NODE_MAP) {
			read_rule(l, n, at);
		} else {
			expected_kind(l, n, at, "a rule: {tag_suffix}, or {name, match, targets}");
		}
	}
	if (l->driver && !upstream)
		say(l, SEVERITY_WARNING, l->driver, true, "converter.driver",
		    "not used: no rule has a tag_suffix");
}

static void read_all_rules(struct loader *l, const struct node *root)
{
	if (l->rules && l->our_rules) {
		say(l, SEVERITY_FATAL, l->our_rules, true, "rules",
		    "converter.rules is there as well; keep one");
		return;
	}
	if (l->rules)
		read_rules(l, l->rules, "converter.rules");
	else if (l->our_rules)
		read_rules(l, l->our_rules, "rules");
	else
		say(l, SEVERITY_WARNING, root, false, "converter.rules",
		    "no rule: no image will be converted");
}

static void read_other(struct loader *l, const struct key *k, const struct node *n)
{
	if (strcmp(k->path, "provider.source") == 0) {
		if (n->kind != NODE_MAP)
			expected_kind(l, n, k->path, "a map of hosts");
		else
			for (size_t i = 0; i < n->n; i++)
				read_source(l, n->kid[i]);
	} else if (strcmp(k->path, "converter.platforms") == 0) {
		read_platforms(l, n, k->path, &l->s->rules.platforms);
	} else if (strcmp(k->path, "converter.driver") == 0) {
		if (n->kind == NODE_MAP)
			l->driver = n;
		else
			expected_kind(l, n, k->path, "a map with type and config");
	} else if (strcmp(k->path, "converter.rules") == 0) {
		l->rules = n;
	} else if (strcmp(k->path, "rules") == 0) {
		l->our_rules = n;
	} else {
		read_tokens(l, n);
	}
}

/* ---- what belongs together */

static bool given(const struct loader *l, const char *path)
{
	const struct key *k = key_find(keys, COUNT(keys), path);

	assert(k);
	return l->seen[k - keys];
}

static void conflict(struct loader *l, const struct node *root, const char *path, const char *text)
{
	const struct node *n = find(root, path);

	say(l, SEVERITY_FATAL, n ? n : root, n != NULL, path, text);
}

static void check_together(struct loader *l, const struct node *root)
{
	const struct settings *s = l->s;

	if (!s->server.tls_cert_file != !s->server.tls_key_file)
		conflict(l, root,
			 s->server.tls_cert_file ? "server.tls_cert_file" : "server.tls_key_file",
			 "server.tls_cert_file and server.tls_key_file belong together");
	if (s->server.tls_client_ca_file && !s->server.tls_cert_file)
		conflict(l, root, "server.tls_client_ca_file", "needs server.tls_cert_file");
	if (!s->redis.cert_file != !s->redis.key_file)
		conflict(l, root, s->redis.cert_file ? "redis.cert_file" : "redis.key_file",
			 "redis.cert_file and redis.key_file belong together");
	if ((s->redis.ca_file || s->redis.cert_file) && !s->redis.tls)
		conflict(l, root, s->redis.ca_file ? "redis.ca_file" : "redis.cert_file",
			 "needs redis.tls: true");
	if (s->redis.tls && s->redis.addr && str_starts(s->redis.addr, "unix:"))
		conflict(l, root, "redis.tls", "contradicts redis.addr, which is a unix socket");
	if (s->redis.username && !s->redis.password)
		conflict(l, root, "redis.username", "needs redis.password_file");
	if (s->queue.heartbeat_ms * 2 > s->queue.lease_ms)
		conflict(l, root, "queue.heartbeat", "expected at most half of queue.lease");
	if (s->queue.max_gap_ms >= s->queue.lease_ms)
		conflict(l, root, "queue.max_gap", "expected less than queue.lease");
	if (s->queue.tick_ms >= s->queue.max_gap_ms)
		conflict(l, root, "queue.tick", "expected less than queue.max_gap");
	if (s->queue.backoff_ms > s->queue.backoff_max_ms)
		conflict(l, root, "queue.backoff", "expected at most queue.backoff_max");
}

/* systemd's LoadCredential=redis-password:... needs no key at all. */
static void read_credentials(struct loader *l, const struct node *root)
{
	const char *folder = env_get("CREDENTIALS_DIRECTORY");
	struct err e = {0};

	if (!folder || l->s->redis.password)
		return;
	{
		scoped_free char *path = mem_printf("%s/redis-password", folder);

		if (access(path, F_OK) < 0)
			return;
		l->s->redis.password = secret_from_file(path, &e);
		if (!l->s->redis.password)
			say(l, SEVERITY_FATAL, root, false, "redis.password", e.text);
	}
}

struct settings *settings_from_tree(const struct node *root, struct config_report *r)
{
	scoped(settings_freep) struct settings *s = settings_default();
	struct loader l = {.s = s, .report = r};
	struct scope top = top_scope(&l);

	walk(&l, &top, root, "");
	read_all_rules(&l, root);
	read_credentials(&l, root);
	check_together(&l, root);
	if (s->converter.harbor_annotation)
		say(&l, SEVERITY_NOTE, find(root, "converter.harbor_annotation"), true,
		    "converter.harbor_annotation",
		    "no effect: every result carries io.acceld annotations");
	s->server.uds_only = s->server.uds != NULL;
	s->worker.drain_timeout_set = given(&l, "worker.drain_timeout");
	return r->n_fatal ? NULL : take_ptr(s);
}

/* ---- written back */

static int put_line(struct buf *to, size_t depth, const char *key, const char *value, struct err *e)
{
	return buf_addf(to, e, "%*s%s:%s%s\n", (int)depth * 2, "", key, *value ? " " : "", value);
}

/* Double-quoted YAML.  JSON's quoting would not do: YAML folds U+2028 and refuses U+007F. */
static int put_yaml(struct buf *to, const char *s, struct err *e)
{
	int r = buf_add_char(to, '"', e);

	while (*s && r == 0) {
		unsigned char c = (unsigned char)*s;
		unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0, code = c;

		if (more && strnlen(s, more + 1) == more + 1 && str_utf8_valid(s, more + 1)) {
			code = c & (0x3fu >> more);
			for (unsigned i = 1; i <= more; i++)
				code = code << 6 | ((unsigned char)s[i] & 0x3f);
			s += more;
		}
		s++;
		if (code == '"' || code == '\\')
			r = buf_addf(to, e, "\\%c", (int)code);
		else if (code >= 0x20 && code < 0x7f)
			r = buf_add_char(to, (char)code, e);
		else
			r = buf_addf(to, e, "\\U%08X", code);
	}
	return r < 0 ? -1 : buf_add_char(to, '"', e);
}

static int put_quoted(struct buf *to, size_t depth, const char *key, const char *value,
		      struct err *e)
{
	if (buf_addf(to, e, "%*s%s: ", (int)depth * 2, "", key) < 0 || put_yaml(to, value, e) < 0)
		return -1;
	return buf_add_char(to, '\n', e);
}

/* The value as text, NULL when there is none; *quote: it is a string. */
static const char *value_text(const struct key *k, const void *base, char small[32], bool *quote)
{
	const void *at = (const char *)base + k->at;
	uint64_t v = 0;
	int word = 0;

	*quote = false;
	if (k->type == KEY_NUMBER || k->type == KEY_OCTAL || k->type == KEY_SIZE ||
	    k->type == KEY_TIME)
		v = k->size == 2   ? *(const uint16_t *)at
		    : k->size == 4 ? *(const uint32_t *)at
				   : *(const uint64_t *)at;
	switch (k->type) {
	case KEY_TEXT:
	case KEY_FILE:
	case KEY_URL:
		*quote = true;
		return *(char *const *)at;
	case KEY_BOOL:
		return *(const bool *)at ? "true" : "false";
	case KEY_NUMBER:
		snprintf(small, 32, "%llu", (unsigned long long)v);
		return small;
	case KEY_OCTAL:
		*quote = true;
		snprintf(small, 32, "%04o", (unsigned)v);
		return small;
	case KEY_SIZE:
		size_text(v, small);
		return small;
	case KEY_TIME:
		time_text(v, small);
		return small;
	case KEY_WORD:
		memcpy(&word, at, sizeof(word));
		for (const struct choice *c = k->words; c->text; c++)
			if (c->value == word && !c->refused)
				return c->text;
		return NULL;
	case KEY_SECRET:
		*quote = true;
		return *(struct secret *const *)at ? "<redacted>" : NULL;
	default:
		return NULL;
	}
}

/* "a.b.c" after "a.x" opens b: one line per new part but the last. */
static int open_sections(struct buf *to, size_t depth, char last[64], const char *path,
			 size_t *parts, struct err *e)
{
	size_t at = 0, n = 0;
	bool same = true;

	for (;; n++) {
		size_t len = strcspn(path + at, ".");

		if (!path[at + len])
			break;
		same = same && strncmp(last, path, at + len + 1) == 0;
		if (!same && buf_addf(to, e, "%*s%.*s:\n", (int)(depth + n) * 2, "", (int)len,
				      path + at) < 0)
			return -1;
		at += len + 1;
	}
	snprintf(last, 64, "%s", path);
	*parts = n;
	return 0;
}

static int write_other(const struct settings *s, const struct key *k, size_t depth, struct buf *to,
		       struct err *e);

static int write_rows(const struct settings *s, const struct key *rows, size_t n, const void *base,
		      size_t depth, struct buf *to, struct err *e)
{
	char last[64] = "", small[32];
	size_t parts;
	bool quote = false;

	for (size_t i = 0; i < n; i++) {
		const struct key *k = &rows[i];
		const char *dot = strrchr(k->path, '.'), *value = NULL;

		if (k->type != KEY_OTHER && !(value = value_text(k, base, small, &quote)))
			continue;
		if (k->type == KEY_OTHER &&
		    (strcmp(k->path, "rules") == 0 || strcmp(k->path, "converter.driver") == 0))
			continue; /* written as converter.rules */
		if (open_sections(to, depth, last, k->path, &parts, e) < 0)
			return -1;
		if (k->type == KEY_OTHER ? write_other(s, k, depth + parts, to, e)
		    : quote ? put_quoted(to, depth + parts, dot ? dot + 1 : k->path, value, e)
			    : put_line(to, depth + parts, dot ? dot + 1 : k->path, value, e))
			return -1;
	}
	return 0;
}

static int write_sources(const struct settings *s, size_t depth, struct buf *to, struct err *e)
{
	if (put_line(to, depth, "source", s->n_sources ? "" : "{}", e) < 0)
		return -1;
	for (size_t i = 0; i < s->n_sources; i++) {
		const struct source_settings *src = &s->source[i];

		if (buf_addf(to, e, "%*s\"%s\":\n", (int)(depth + 1) * 2, "", src->host) < 0 ||
		    write_rows(s, source_keys, COUNT(source_keys), src, depth + 2, to, e) < 0)
			return -1;
	}
	return 0;
}

static int write_target(const struct target *t, size_t depth, struct buf *to, struct err *e)
{
	scoped(json_freep) struct json *j = target_to_json(t);
	const struct json *options = json_get(j, "options");
	int pad = (int)depth * 2;

	if (buf_addf(to, e, "%*s- driver: %s\n%*s  tag: \"%s\"\n", pad, "", driver_name(t->driver),
		     pad, "", t->tag_template) < 0)
		return -1;
	if (t->cache_tag && put_quoted(to, depth + 1, "cache_tag", t->cache_tag, e) < 0)
		return -1;
	/* Upstream's form overwrites, and so must what is written for it. */
	if ((t->overwrite || t->upstream_form) &&
	    put_line(to, depth + 1, "overwrite", "true", e) < 0)
		return -1;
	if (json_len(options) && put_line(to, depth + 1, "config", "", e) < 0)
		return -1;
	for (struct json_iter i = json_first(options); i.key; json_next(&i))
		if (put_quoted(to, depth + 2, i.key, json_value_str(i.value), e) < 0)
			return -1;
	return 0;
}

static int write_rule(const struct rule *r, size_t depth, struct buf *to, struct err *e)
{
	const struct {
		const char *key, *value;
	} match[] = {{"host", r->host},
		     {"repository", r->repository},
		     {"tag", r->tag},
		     {"platforms", r->platforms}};
	bool any = r->host || r->repository || r->tag || r->platforms;

	if (buf_addf(to, e, "%*s- name: ", (int)depth * 2, "") < 0 ||
	    put_yaml(to, r->name, e) < 0 || buf_add_char(to, '\n', e) < 0)
		return -1;
	if (any && put_line(to, depth + 1, "match", "", e) < 0)
		return -1;
	for (size_t i = 0; i < COUNT(match); i++)
		if (match[i].value &&
		    put_quoted(to, depth + 2, match[i].key, match[i].value, e) < 0)
			return -1;
	if (put_line(to, depth + 1, "targets", "", e) < 0)
		return -1;
	for (size_t i = 0; i < r->n_targets; i++)
		if (write_target(&r->targets[i], depth + 2, to, e) < 0)
			return -1;
	return 0;
}

static int write_tokens(const struct settings *s, size_t depth, struct buf *to, struct err *e)
{
	if (put_line(to, depth, "tokens", s->auth.n_tokens ? "" : "[]", e) < 0)
		return -1;
	for (size_t i = 0; i < s->auth.n_tokens; i++) {
		const struct token_settings *t = &s->auth.token[i];

		if (buf_addf(to, e, "%*s- sha256: \"%s\"\n", (int)(depth + 1) * 2, "", t->sha256) <
			    0 ||
		    put_quoted(to, depth + 2, "name", t->name, e) < 0 ||
		    put_line(to, depth + 2, "scopes",
			     t->admin	? "[admin]"
			     : t->write ? "[write]"
					: "[read]",
			     e) < 0)
			return -1;
	}
	return 0;
}

static int write_other(const struct settings *s, const struct key *k, size_t depth, struct buf *to,
		       struct err *e)
{
	if (strcmp(k->path, "provider.source") == 0)
		return write_sources(s, depth, to, e);
	if (strcmp(k->path, "converter.platforms") == 0)
		return put_quoted(to, depth, "platforms", s->rules.platforms, e);
	if (strcmp(k->path, "auth.tokens") == 0)
		return write_tokens(s, depth, to, e);
	if (put_line(to, depth, "rules", s->rules.n ? "" : "[]", e) < 0)
		return -1;
	for (size_t i = 0; i < s->rules.n; i++)
		if (write_rule(&s->rules.rule[i], depth + 1, to, e) < 0)
			return -1;
	return 0;
}

int settings_write(const struct settings *s, struct buf *to, struct err *e)
{
	return write_rows(s, keys, COUNT(keys), s, 0, to, e);
}

bool config_key_doc(size_t i, struct config_key_doc *doc)
{
	const struct key *k;
	static const char *const prefix = "provider.source.HOST.";

	if (i < COUNT(keys))
		k = &keys[i];
	else if (i < COUNT(keys) + COUNT(source_keys))
		k = &source_keys[i - COUNT(keys)];
	else
		return false;
	snprintf(doc->path, sizeof(doc->path), "%s%s", i < COUNT(keys) ? "" : prefix, k->path);
	doc->def = k->def;
	doc->doc = k->type == KEY_REFUSED ? NULL : k->doc;
	expected_text(k, doc->expected, sizeof(doc->expected));
	return true;
}
