/* common/log.h - one event, one line, in logrus' text format or JSON, on stderr.
 *
 *   time="2026-11-24T03:19:30.511Z" level=info msg="layer converted" module=converter layer=3
 * task=0193...
 *
 * The message is constant; what varies is a field.  Values from outside are escaped here.  Secrets
 * never. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_FATAL };
enum log_format { LOG_TEXT, LOG_JSON, LOG_TERMINAL };

/* Defaults: info, text (terminal form when stderr is one), stderr. */
void log_setup(enum log_level level, enum log_format format, int fd);
int log_level_parse(const char *s, enum log_level *l, struct err *e);
bool log_enabled(enum log_level l);
/* Bound to every line of this thread until replaced; NULL: none.  Copied. */
void log_bind_task(const char *task_id);
void log_bind_module(const char *module); /* process-wide default; a static string */

/* A field: key and a value of one kind.  End a list with NULL.
 *   log_info("layer converted", F_U64("in_bytes", n), F_STR("digest", text), NULL); */
struct log_field {
	const char *key;
	enum { FIELD_STR, FIELD_U64, FIELD_I64, FIELD_BOOL } kind;
	const char *s;
	uint64_t u;
	int64_t i;
};
#define F_STR(k, v) (&(struct log_field){.key = (k), .kind = FIELD_STR, .s = (v)})
#define F_U64(k, v) (&(struct log_field){.key = (k), .kind = FIELD_U64, .u = (v)})
#define F_I64(k, v) (&(struct log_field){.key = (k), .kind = FIELD_I64, .i = (v)})
#define F_BOOL(k, v) (&(struct log_field){.key = (k), .kind = FIELD_BOOL, .i = (v)})
#define F_ERR(e) F_STR("error", (e)->text)
#define F_MODULE(m) F_STR("module", m)

/* A busy server's lines of info and debug are kept until log_flush, or until there are many, and go
 * out in one write; warnings and errors take those before them along at once.  wake is called when
 * there is a first one.  One thread; NULL: each line at once again. */
void log_hold(void (*wake)(void *arg), void *arg);
void log_flush(void);

void log_line(enum log_level l, const char *msg, ...) __attribute__((sentinel));
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
