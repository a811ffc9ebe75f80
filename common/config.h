/* common/config.h - the configuration: YAML -> a tree of nodes with file:line:column; conf.d and
 * environment over it; typed settings out of it.
 *
 * Order: default < file < conf.d/NAME.yaml beside it (by name) < ACCEL_A__B environment.  Every
 * problem is collected, each with file:line:column, key, value and what was expected; nothing stops
 * at the first. Keys and defaults: accel.yaml(5), which is made from the same table
 * (settings_keys.c). */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/log.h"
#include "common/rules.h"

struct err;
struct secret;
struct buf;

struct source_settings { /* provider.source.HOST */
	char *host;	 /* lower case, port kept */
	struct secret *username,
		*password;	    /* from auth, auth_file, or username + password_file; or NULL */
	struct secret *auth_header; /* webhook.auth_header(_file), or NULL */
	bool plain_http;	    /* default: true for loopback hosts */
	bool insecure;
	char *ca_file, *cert_file, *key_file; /* or NULL */
	char *endpoint;	      /* "http(s)://host:port" where workers reach it, or NULL */
	char *realm;	      /* the same for its token service, or NULL */
	uint32_t max_running; /* tasks of this registry at a time; 0: queue.registry_limit */
};

struct token_settings { /* auth.tokens[] */
	char *name;
	char *sha256; /* 64 hex */
	bool read, write, admin;
};

enum verify_mode { VERIFY_OFF, VERIFY_INDEX, VERIFY_FULL };
enum durability { DURABILITY_MEMORY, DURABILITY_FSYNC };

struct settings {
	struct {
		char *name, *uds, *host;
		uint16_t port; /* 0: any free one, printed in the start line */
		uint32_t uds_mode;
		bool uds_only; /* server.uds set: no TCP, as upstream */
		char *tls_cert_file, *tls_key_file, *tls_client_ca_file;
		uint64_t sync_timeout_ms, drain_delay_ms;
		uint64_t max_body, max_header;
		uint32_t max_connections, max_connections_per_peer, max_waiters, rate_per_peer;
	} server;
	bool metric_enabled;
	struct source_settings *source;
	size_t n_sources;
	char *work_dir;
	uint64_t gc_threshold;
	uint32_t cache_size;
	char *cache_version;
	struct {
		uint32_t worker; /* slots per worker process */
		bool harbor_annotation;
		enum verify_mode verify;
	} converter;
	struct rules rules;
	struct {
		char *addr; /* "host:port" or "unix:///path"; NULL: none configured */
		char *username;
		struct secret *password;
		uint32_t db;
		bool tls;
		char *ca_file, *cert_file, *key_file;
		enum durability durability;
	} redis;
	struct {
		uint64_t lease_ms, heartbeat_ms, tick_ms, max_gap_ms;
		uint32_t max_attempts, max_crash;
		uint64_t backoff_ms, backoff_max_ms, deadline_ms, fresh_ms;
		uint64_t max_open, max_group;
		uint32_t registry_limit;
		uint64_t keep_finished, keep_finished_ms, keep_dead, keep_dead_ms, keep_bytes;
	} queue;
	struct {
		uint32_t threads; /* 0: by cgroup and affinity */
		uint64_t memory;  /* per task process */
		uint64_t drain_timeout_ms, task_timeout_ms, max_image_size;
		bool drain_timeout_set;
		char *listen; /* ":2078", "127.0.0.1:0", "off" */
	} worker;
	struct {
		struct token_settings *token;
		size_t n_tokens;
		bool allow_loopback;
	} auth;
	struct {
		enum log_level level;
		enum log_format format;
	} log;
};

struct config_problem {
	char *where; /* "config.yaml:12:3", or the name of a variable */
	char *text;
	bool fatal; /* false: a warning at start; `config check` reports it as an error all the same
		     */
	bool note;  /* not even that: a key of upstream's that is accepted and has no effect */
};
struct config_report {
	struct config_problem *p;
	size_t n, cap;
	size_t n_fatal;
};

/* *s is NULL when anything is fatal; the report says what, in the order of the files.  -1 then. */
int config_load(struct settings **s, const char *path, struct config_report *r);
/* From text, for tests and fuzzing; `name` stands for the file in messages. */
int config_load_text(struct settings **s, const char *name, const char *yaml, size_t n,
		     struct config_report *r);
struct settings *settings_default(void); /* no file: loopback HTTP, docker's credentials */
void settings_freep(struct settings **s);
void config_report_fini(struct config_report *r);
/* NULL when the host is not configured. */
const struct source_settings *settings_source(const struct settings *s, const char *host);
/* The effective configuration as YAML, secrets as "<redacted>". */
int settings_write(const struct settings *s, struct buf *to, struct err *e);

/* Row i of the table of keys, for the manual page; false after the last one. */
struct config_key_doc {
	char path[64];
	const char *def, *doc; /* doc NULL: known, and refused as not built */
	char expected[160];    /* "a time from 1s to 1h" */
};
bool config_key_doc(size_t i, struct config_key_doc *doc);

#endif
