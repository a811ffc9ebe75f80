/* common/settings_impl.h - what the files behind settings share: settings_keys.c (the table of
 * keys, one value), settings.c (a tree), settings_rules.c (drivers and rules), settings_write.c
 * (written back). */
#ifndef COMMON_SETTINGS_IMPL_H
#define COMMON_SETTINGS_IMPL_H

#include "common/config_impl.h"

#define SHOWN 120 /* of a wrong value in a message */
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

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

#define SETTINGS_KEYS_MAX 128
extern const struct key settings_keys[]; /* members of struct settings, as documented and shown */
extern const struct key settings_source_keys[]; /* below provider.source.HOST */
extern const size_t settings_n_keys, settings_n_source_keys;

const struct key *key_find(const struct key *rows, size_t n, const char *path); /* NULL: none */
/* Text into the member of base.  The message never quotes a secret. */
int key_set(const struct key *k, void *base, const char *value, struct err *e);
void key_free(const struct key *k, void *base); /* what the member owns */
/* "a number from 1 to 1024" */
void key_expected(const struct key *k, char *to, size_t n);
void key_time_text(uint64_t ms, char to[32]);
void key_size_text(uint64_t bytes, char to[32]);
int key_parse_bool(const char *value, bool *to); /* Go's words and YAML 1.1's */
/* A value that may be shown: cut and cleaned.  Returns to. */
char *key_shown(const char *value, char to[SHOWN]);

struct loader {
	struct settings *s;
	struct config_report *report;
	bool seen[SETTINGS_KEYS_MAX]; /* by row */
	const struct node *driver, *rules, *our_rules;
};

void loader_say(struct loader *l, enum severity s, const struct node *n, bool at_key,
		const char *path, const char *text);
void loader_sayf(struct loader *l, enum severity s, const struct node *n, const char *path,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void loader_unknown_key(struct loader *l, const struct node *n, const char *path, bool fatal,
			const char *near);
void loader_expected(struct loader *l, const struct node *n, const char *path, const char *what);
/* settings_rules.c */
void loader_platforms(struct loader *l, const struct node *n, const char *path, char **to);
void loader_rules(struct loader *l, const struct node *root); /* from driver, rules, our_rules */

#endif
