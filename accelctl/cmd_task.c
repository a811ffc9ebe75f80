/* accelctl/cmd_task.c - tasks of a server: create, list, get, watch, cancel, retry.
 *
 * `create` and `list` say, print and return what upstream's do (reference: upstream-acceld,
 * accelctl): flags come before arguments, a flag after one is an argument, errors are one fatal
 * line and exit status 1.  The others end as reference cli-ui lists it. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "accelctl/api_client.h"
#include "accelctl/commands.h"
#include "accelctl/tasklist.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/err.h"
#include "common/imageref.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/secret.h"
#include "common/str.h"

enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_TOPIC = 3,
	EXIT_TASK_FAILED = 6,
	EXIT_TIMEOUT = 7
};
enum { SYNC_MS = 75 * 60 * 1000, POLL_MS = 1000, LINE_MAX_BYTES = 4096, OUTPUT_MAX = 256 << 20 };

#define API "/api/v1/conversions"

struct task_options {
	const char *addr, *config, *file, *output, *timeout, *status, *source;
	bool sync, no_headers, quiet, help;
};

enum option_kind { OPT_FLAG, OPT_TEXT };
struct option_row {
	const char *name;
	enum option_kind kind;
	size_t at; /* in struct task_options */
	const char *help;
};
#define AT(field) offsetof(struct task_options, field)

static const struct option_row task_rows[] = {
	{"addr", OPT_TEXT, AT(addr),
	 "Service address in format <host:port>, http(s)://host:port or unix:///path. (default: "
	 "the "
	 "local socket of acceld, then \"localhost:2077\")"},
	{"config", OPT_TEXT, AT(config), "Configuration with the auth_header of the image's host"},
	{0}};
static const struct option_row create_rows[] = {
	{"sync", OPT_FLAG, AT(sync), "Wait until the task has ended (default: false)"},
	{"file", OPT_TEXT, AT(file), "Read references from this file, one a line; \"-\": stdin"},
	{"f", OPT_TEXT, AT(file), "The same"},
	{"o", OPT_TEXT, AT(output), "Print the ids: json or name"},
	{0}};
static const struct option_row list_rows[] = {
	{"o", OPT_TEXT, AT(output), "table, wide, json or name (default: \"table\")"},
	{"no-headers", OPT_FLAG, AT(no_headers), "Leave the first line of the table out"},
	{"q", OPT_FLAG, AT(quiet), "Ids only"},
	{"status", OPT_TEXT, AT(status), "PROCESSING, COMPLETED or FAILED"},
	{"source", OPT_TEXT, AT(source), "Only sources that contain this"},
	{0}};
static const struct option_row get_rows[] = {
	{"o", OPT_TEXT, AT(output), "table or json (default: \"table\")"}, {0}};
static const struct option_row watch_rows[] = {
	{"timeout", OPT_TEXT, AT(timeout), "Give up after this long, such as 30m"},
	{"o", OPT_TEXT, AT(output), "table or json (default: \"table\")"},
	{0}};
static const struct option_row no_rows[] = {{0}};

struct task_call {
	struct api_client client;
	struct task_options o;
	struct settings *settings; /* --config, or NULL */
	int argc;		   /* arguments after the flags */
	char **argv;
};

static int create(struct task_call *t);
static int list(struct task_call *t);
static int get(struct task_call *t);
static int watch(struct task_call *t);
static int cancel(struct task_call *t);
static int retry(struct task_call *t);

static const struct subcommand {
	const char *name, *alias, *args, *summary;
	const struct option_row *rows;
	int (*run)(struct task_call *t);
} subcommands[] = {
	{"create", NULL, " [SOURCE]", "Convert a source to an acceleration image", create_rows,
	 create},
	{"list", "ls", "", "List image conversion tasks", list_rows, list},
	{"get", NULL, " ID", "Show one task with targets, layers and attempts", get_rows, get},
	{"watch", NULL, " ID", "Follow one task until it ends", watch_rows, watch},
	{"cancel", NULL, " ID", "Cancel a task", no_rows, cancel},
	{"retry", NULL, " ID", "Run a finished task again, as a new one", no_rows, retry},
};
enum { SUBCOMMANDS = sizeof(subcommands) / sizeof(subcommands[0]) };

/* ---- help and flags, in the manner of upstream's library */

static void print_options(const struct option_row *rows)
{
	printf("OPTIONS:\n");
	for (; rows->name; rows++)
		printf("   %s%s%s  %s\n", rows->name[1] ? "--" : "-", rows->name,
		       rows->kind == OPT_TEXT ? " value" : "", rows->help);
	printf("   --help, -h  show help\n");
}

static void task_help(void)
{
	printf("NAME:\n   accelctl task - Manage conversion tasks in remote acceld\n\n"
	       "USAGE:\n   accelctl task command [command options]\n\nCOMMANDS:\n");
	for (int i = 0; i < SUBCOMMANDS; i++)
		printf("   %s%s%-*s  %s\n", subcommands[i].name, subcommands[i].alias ? ", " : "",
		       subcommands[i].alias ? (int)(6 - strlen(subcommands[i].name))
					    : (int)(8 - strlen(subcommands[i].name)),
		       subcommands[i].alias ? subcommands[i].alias : "", subcommands[i].summary);
	printf("   help, h   Shows a list of commands or help for one command\n\n");
	print_options(task_rows);
}

static void subcommand_help(const struct subcommand *s)
{
	printf("NAME:\n   accelctl task %s - %s\n\nUSAGE:\n   accelctl task %s [command "
	       "options]%s\n\n",
	       s->name, s->summary, s->name, s->args);
	print_options(s->rows);
}

static int fatal(const struct err *e)
{
	log_line(LOG_FATAL, e->text, NULL);
	return EXIT_FAILED;
}

static int usage_error(const struct subcommand *s, const struct err *e)
{
	printf("Incorrect Usage: %s\n\n", e->text);
	if (s)
		subcommand_help(s);
	else
		task_help();
	return fatal(e);
}

static const struct option_row *option_find(const struct option_row *rows, const char *name,
					    size_t n)
{
	for (; rows->name; rows++)
		if (strlen(rows->name) == n && !strncmp(rows->name, name, n))
			return rows;
	return NULL;
}

static int option_set(struct task_options *o, const struct option_row *r, const char *value,
		      char ***next, char **end, struct err *e)
{
	char *field = (char *)o + r->at;

	if (r->kind == OPT_FLAG) {
		*(bool *)field = true;
		if (value && str_bool(value, (bool *)field, NULL) < 0)
			return err_set(e, ERR_INVALID,
				       "invalid boolean value \"%s\" for -%s: parse error", value,
				       r->name);
		return 0;
	}
	if (!value && *next == end)
		return err_set(e, ERR_INVALID, "flag needs an argument: -%s", r->name);
	*(const char **)field = value ? value : *(*next)++;
	return 0;
}

/* Flags up to the first argument; *argv is moved behind them. */
static int parse_flags(struct task_options *o, const struct option_row *rows, int *argc,
		       char ***argv, struct err *e)
{
	char **next = *argv, **end = *argv + *argc;

	while (next < end && (*next)[0] == '-' && (*next)[1]) {
		const char *name = *next++, *value;
		const struct option_row *r;

		name += name[1] == '-' ? 2 : 1;
		if (!*name) /* "--" */
			break;
		value = strchr(name, '=');
		if (!strcmp(name, "help") || !strcmp(name, "h")) {
			o->help = true;
			continue;
		}
		r = option_find(rows, name, value ? (size_t)(value - name) : strlen(name));
		if (!r)
			return err_set(e, ERR_INVALID, "flag provided but not defined: -%.*s",
				       (int)strcspn(name, "="), name);
		if (option_set(o, r, value ? value + 1 : NULL, &next, end, e) < 0)
			return -1;
	}
	*argc = (int)(end - next);
	*argv = next;
	return 0;
}

/* ---- calls */

static int exit_status(const struct err *e)
{
	return e->code == ERR_NET ? 3 : e->code == ERR_DENIED ? 4 : e->code == ERR_NOTFOUND ? 5 : 1;
}

static int fail(const struct err *e)
{
	log_line(LOG_FATAL, e->text, NULL);
	return exit_status(e);
}

/* With --config: the header of the host that this reference is on. */
static int use_header(struct task_call *t, const char *source, struct err *e)
{
	const struct source_settings *s;
	struct imageref ref;

	if (!t->settings || imageref_parse(&ref, source, NULL) < 0)
		return 0; /* the server says what is wrong with it */
	s = settings_source(t->settings, ref.host);
	if (!s)
		return err_set(e, ERR_INVALID, "no provider.source for %s in %s", ref.host,
			       t->o.config);
	secret_freep(&t->client.authorization);
	t->client.authorization = secret_dup(s->auth_header);
	return 0;
}

static int call_task(const struct task_call *t, const char *method, const char *id,
		     const char *tail, struct api_reply *r, struct err *e)
{
	scoped_free char *target = NULL;

	for (const char *p = id; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-')
			return err_set(e, ERR_INVALID, "'%.64s' is no task id", id);
	target = mem_printf(API "/%s%s", id, tail);
	return api_call(&t->client, method, target, NULL, r, e);
}

/* The task as JSON; NULL with *e. */
static struct json *fetch(const struct task_call *t, const char *id, struct err *e)
{
	struct api_reply r;
	struct json *j = NULL;

	if (call_task(t, "GET", id, "", &r, e) < 0)
		return NULL;
	if (api_check(&r, true, e) == 0 && json_parse(&j, r.body, r.n, NULL, e) == 0 &&
	    json_kind(j) != JSON_OBJECT) {
		json_freep(&j);
		err_set(e, ERR_INVALID, "decode response: it is no task");
	}
	api_reply_fini(&r);
	return j;
}

static const char *field(const struct json *j, const char *key)
{
	const char *v = json_value_str(json_get(j, key));

	return v ? v : "";
}

static void print_clean(const char *before, const char *s, const char *after)
{
	scoped_free char *clean = mem_strdup(s);

	str_clean(clean);
	printf("%s%s%s", before, clean, after);
}

static int print_json(const struct json *j)
{
	scoped(buf_fini) struct buf b = BUF_INIT(OUTPUT_MAX);
	struct err e = {0};

	if (json_write(j, JSON_PRETTY, &b, &e) < 0)
		return fatal(&e);
	puts(b.data);
	return EXIT_OK;
}

static bool ended(const struct json *task)
{
	return strcmp(field(task, "status"), "PROCESSING") != 0;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- create */

static int submit(struct task_call *t, const char *source, bool sync, struct api_reply *r,
		  struct err *e)
{
	scoped(buf_fini) struct buf b = BUF_INIT(64 << 10);

	if (use_header(t, source, e) < 0)
		return -1;
	if (!str_utf8_valid(source, strlen(source)))
		return err_set(e, ERR_INVALID, "the source is no UTF-8");
	buf_add_str(&b,
		    "{\"type\":\"PUSH_ARTIFACT\",\"event_data\":{\"resources\":[{\"resource_url\":",
		    NULL);
	if (json_quote(&b, source, strlen(source), e) < 0 || buf_add_str(&b, "}]}}", e) < 0)
		return -1;
	if (api_call(&t->client, "POST", sync ? API "?sync=true" : API "?sync=false", b.data, r,
		     e) < 0)
		return -1;
	if (api_check(r, false, e) < 0) {
		api_reply_fini(r);
		return -1;
	}
	return 0;
}

/* Follows a task that its server let go before it ended. */
static int wait_ended(struct task_call *t, const char *id, struct err *e)
{
	for (int silence = 0;;) {
		scoped(json_freep) struct json *j = fetch(t, id, e);

		if (!j && (e->code != ERR_NET || ++silence > 60))
			return -1;
		if (j && ended(j))
			return strcmp(field(j, "status"), "FAILED") != 0
				       ? 0
				       : err_set(e, ERR_INVALID, "service response: %s",
						 field(j, "reason"));
		if (j)
			silence = 0;
		pause_ms(POLL_MS);
	}
}

static void print_ids(const struct task_call *t, const char *ids)
{
	struct json *j;

	if (!t->o.output || !ids)
		return;
	if (strcmp(t->o.output, "json") != 0) {
		puts(ids);
		return;
	}
	j = json_new_object();
	json_set_str(j, "id", ids);
	print_json(j);
	json_freep(&j);
}

static int create_one(struct task_call *t, const char *source)
{
	scoped(api_reply_fini) struct api_reply r = {0};
	struct err e = {0};

	if (t->o.sync)
		log_info("Waiting task to be completed...", NULL);
	if (submit(t, source, t->o.sync, &r, &e) < 0)
		return fatal(&e);
	print_ids(t, r.task_id);
	if (!t->o.sync) {
		log_info("Submitted asynchronous task, check status by `task list`.", NULL);
		return EXIT_OK;
	}
	if (r.status == 202 && r.location && strrchr(r.location, '/') &&
	    wait_ended(t, strrchr(r.location, '/') + 1, &e) < 0)
		return fatal(&e);
	log_info("Task has been completed.", NULL);
	return EXIT_OK;
}

static void say_failed(const char *source, const struct err *e, size_t *failed)
{
	log_error("not converted", F_STR("source", source), F_ERR(e), NULL);
	++*failed;
}

/* All are submitted first; then, with --sync, waited for. */
static int create_from(struct task_call *t, FILE *in)
{
	char line[LINE_MAX_BYTES];
	char **ids = NULL, **sources = NULL;
	size_t n = 0, cap = 0, cap2 = 0, failed = 0;
	struct err e = {0};

	while (fgets(line, sizeof(line), in)) {
		scoped(api_reply_fini) struct api_reply r = {0};
		char *source = line + strspn(line, " \t");

		source[strcspn(source, " \t\r\n")] = 0;
		if (!*source || *source == '#')
			continue;
		if (submit(t, source, false, &r, &e) < 0) {
			say_failed(source, &e, &failed);
			continue;
		}
		print_ids(t, r.task_id);
		mem_grow(ids, n, cap);
		mem_grow(sources, n, cap2);
		ids[n] = mem_strdup(r.task_id);
		sources[n++] = mem_strdup(source);
	}
	if (!failed || n)
		log_info("Submitted asynchronous tasks, check status by `task list`.",
			 F_U64("tasks", n), NULL);
	for (size_t i = 0; i < n; i++) {
		if (t->o.sync && ids[i] && wait_ended(t, ids[i], &e) < 0)
			say_failed(sources[i], &e, &failed);
		free(ids[i]);
		free(sources[i]);
	}
	free(ids);
	free(sources);
	if (!failed && t->o.sync)
		log_info("Tasks have been completed.", NULL);
	return failed ? EXIT_FAILED : EXIT_OK;
}

static int create(struct task_call *t)
{
	struct err e = {0};
	FILE *in;
	int status;

	if (t->o.output && strcmp(t->o.output, "json") != 0 && strcmp(t->o.output, "name") != 0) {
		err_set(&e, ERR_INVALID, "-o is '%s', expected json or name", t->o.output);
		return fatal(&e);
	}
	t->client.timeout_ms = t->o.sync ? SYNC_MS : 0;
	if (t->o.file) {
		in = !strcmp(t->o.file, "-") ? stdin : fopen(t->o.file, "re");
		if (!in) {
			err_set(&e, ERR_SYSTEM, "open %s: no such file", t->o.file);
			return fatal(&e);
		}
		t->client.timeout_ms = 0;
		status = create_from(t, in);
		if (in != stdin)
			fclose(in);
		return status;
	}
	if (t->argc < 1) {
		err_set(&e, ERR_INVALID, "source is required");
		return fatal(&e);
	}
	return create_one(t, t->argv[0]);
}

/* ---- list */

static void escape(struct buf *b, const char *s)
{
	for (; *s; s++)
		if (isalnum((unsigned char)*s) || strchr("-._~", *s))
			buf_add_char(b, *s, NULL);
		else
			buf_addf(b, NULL, "%%%02X", (unsigned char)*s);
}

static void list_target(const struct task_call *t, struct buf *b)
{
	buf_add_str(b, API, NULL);
	if (!t->o.status && !t->o.source)
		return;
	buf_add_str(b, "?q=", NULL);
	if (t->o.status) {
		buf_add_str(b, "status%3D", NULL);
		escape(b, t->o.status);
	}
	if (t->o.source) {
		buf_addf(b, NULL, "%ssource%%3D~", t->o.status ? "%2C" : "");
		escape(b, t->o.source);
	}
}

static int print_list(const struct task_call *t, const struct json *j)
{
	scoped(buf_fini) struct buf b = BUF_INIT(OUTPUT_MAX);
	const char *o = t->o.output ? t->o.output : "table";
	struct err e = {0};

	if (t->o.quiet || !strcmp(o, "name")) {
		for (size_t i = 0; i < json_len(j); i++)
			print_clean("", field(json_at(j, i), "id"), "\n");
		return EXIT_OK;
	}
	if (!strcmp(o, "json"))
		return print_json(j);
	if (strcmp(o, "table") != 0 && strcmp(o, "wide") != 0) {
		err_set(&e, ERR_INVALID, "-o is '%s', expected table, wide, json or name", o);
		return fatal(&e);
	}
	tasklist_table(j, !strcmp(o, "wide"), !t->o.no_headers, &b);
	fwrite(b.data, 1, b.len, stdout);
	return EXIT_OK;
}

static int list(struct task_call *t)
{
	scoped(api_reply_fini) struct api_reply r = {0};
	scoped(json_freep) struct json *j = NULL;
	scoped(buf_fini) struct buf target = BUF_INIT(4096);
	struct err e = {0};

	list_target(t, &target);
	if (api_call(&t->client, "GET", target.data, NULL, &r, &e) < 0 ||
	    api_check(&r, false, &e) < 0 || tasklist_decode(&j, r.body, r.n, &e) < 0)
		return fatal(&e);
	return print_list(t, j);
}

/* ---- one task */

static int one_id(const struct task_call *t, const char **id)
{
	if (t->argc != 1) {
		log_line(LOG_FATAL, t->argc ? "one task id is taken" : "a task id is required",
			 NULL);
		return EXIT_USAGE;
	}
	*id = t->argv[0];
	return EXIT_OK;
}

static void print_line(const char *name, const char *value)
{
	if (!*value)
		return;
	printf("%-12s", name);
	print_clean(" ", value, "\n");
}

static void print_task(const struct json *j)
{
	static const char *const keys[] = {"id",      "source",	 "status",     "phase",
					   "reason",  "created", "started",    "finished",
					   "tenant",  "worker",	 "progress",   "rule",
					   "trigger", "parent",	 "reason_code"};
	struct json *targets = json_get(j, "targets");

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		print_line(keys[i],
			   strcmp(keys[i], "finished") != 0 || ended(j) ? field(j, keys[i]) : "");
	printf("%-12s %lld -> %lld bytes\n", "size",
	       (long long)json_value_int(json_get(j, "source_size")),
	       (long long)json_value_int(json_get(j, "target_size")));
	for (size_t i = 0; i < json_len(targets); i++) {
		print_clean(i ? "             " : "targets      ",
			    field(json_at(targets, i), "reference"), "");
		print_clean(" (", field(json_at(targets, i), "driver"), ")\n");
	}
}

static int get(struct task_call *t)
{
	scoped(json_freep) struct json *j = NULL;
	struct err e = {0};
	const char *id;

	if (one_id(t, &id))
		return EXIT_USAGE;
	j = fetch(t, id, &e);
	if (!j)
		return fail(&e);
	if (t->o.output && !strcmp(t->o.output, "json"))
		return print_json(j);
	print_task(j);
	return EXIT_OK;
}

/* A line for each change. */
static void show_change(const struct json *j, char *last, size_t n)
{
	char now[512];

	snprintf(now, sizeof(now), "%s %s", field(j, "phase"), field(j, "progress"));
	if (!strcmp(now, last))
		return;
	str_copy(last, n, now);
	print_clean("", now, "\n");
	fflush(stdout);
}

static int watch(struct task_call *t)
{
	bool json = t->o.output && !strcmp(t->o.output, "json");
	uint64_t until = UINT64_MAX, ms;
	char last[512] = "";
	struct err e = {0};
	const char *id;

	if (one_id(t, &id))
		return EXIT_USAGE;
	if (t->o.timeout) {
		if (str_duration_ms(t->o.timeout, &ms, &e) < 0) {
			err_wrap(&e, "--timeout");
			fatal(&e);
			return EXIT_USAGE;
		}
		until = clock_mono_ms() + ms;
	}
	for (int silence = 0;;) {
		scoped(json_freep) struct json *j = fetch(t, id, &e);

		if (!j && (e.code != ERR_NET || ++silence > 30))
			return fail(&e);
		if (j && !json)
			show_change(j, last, sizeof(last));
		if (j && ended(j)) {
			if (json)
				print_json(j);
			else
				print_line("reason", field(j, "reason"));
			return strcmp(field(j, "status"), "FAILED") != 0 ? EXIT_OK
									 : EXIT_TASK_FAILED;
		}
		if (j)
			silence = 0;
		if (clock_mono_ms() >= until) {
			log_line(LOG_FATAL, "the task has not ended in time", NULL);
			return EXIT_TIMEOUT;
		}
		pause_ms(POLL_MS);
	}
}

/* The header of the task's host has to be known before it may be changed. */
static int change(struct task_call *t, const char *method, const char *tail, struct api_reply *r)
{
	struct err e = {0};
	const char *id;

	if (one_id(t, &id))
		return EXIT_USAGE;
	if (t->settings) {
		scoped(json_freep) struct json *j = fetch(t, id, &e);

		if (!j || use_header(t, field(j, "source"), &e) < 0)
			return fail(&e);
	}
	if (call_task(t, method, id, tail, r, &e) < 0 || api_check(r, true, &e) < 0)
		return fail(&e);
	return EXIT_OK;
}

static int cancel(struct task_call *t)
{
	scoped(api_reply_fini) struct api_reply r = {0};
	int status = change(t, "DELETE", "", &r);

	if (status == EXIT_OK)
		puts(r.status == 202 ? "cancelling" : "cancelled");
	return status;
}

static int retry(struct task_call *t)
{
	scoped(api_reply_fini) struct api_reply r = {0};
	int status = change(t, "POST", "/retry", &r);

	if (status == EXIT_OK)
		print_clean("", r.task_id ? r.task_id : "", "\n");
	return status;
}

/* ---- the command */

static int load_config(struct task_call *t, struct err *e)
{
	struct config_report r = {0};

	if (!t->o.config)
		return 0;
	if (config_load(&t->settings, t->o.config, &r) < 0 && r.n)
		err_set(e, ERR_INVALID, "%s: %s", r.p[0].where, r.p[0].text);
	config_report_fini(&r);
	return t->settings ? 0 : -1;
}

static int run_subcommand(const struct subcommand *s, struct task_call *t)
{
	struct err e = {0};
	int status;

	if (parse_flags(&t->o, s->rows, &t->argc, &t->argv, &e) < 0)
		return usage_error(s, &e);
	if (t->o.help) {
		subcommand_help(s);
		return EXIT_OK;
	}
	if (load_config(t, &e) < 0 || api_client_init(&t->client, t->o.addr, &e) < 0) {
		settings_freep(&t->settings);
		return fatal(&e);
	}
	status = s->run(t);
	api_client_fini(&t->client);
	settings_freep(&t->settings);
	return status;
}

static const struct subcommand *subcommand_find(const char *name)
{
	for (int i = 0; i < SUBCOMMANDS; i++)
		if (!strcmp(subcommands[i].name, name) || str_eq(subcommands[i].alias, name))
			return &subcommands[i];
	return NULL;
}

int cmd_task(int argc, char **argv)
{
	struct task_call t = {.argc = argc - 1, .argv = argv + 1};
	const struct subcommand *s;
	struct err e = {0};

	if (parse_flags(&t.o, task_rows, &t.argc, &t.argv, &e) < 0)
		return usage_error(NULL, &e);
	if (t.o.help || t.argc == 0 || !strcmp(t.argv[0], "help") || !strcmp(t.argv[0], "h")) {
		s = t.argc > 1 ? subcommand_find(t.argv[1]) : NULL;
		if (s)
			subcommand_help(s);
		else
			task_help();
		return EXIT_OK;
	}
	s = subcommand_find(t.argv[0]);
	if (!s) {
		fprintf(stderr, "No help topic for '%s'\n", t.argv[0]);
		return EXIT_NO_TOPIC;
	}
	t.argc--;
	t.argv++;
	return run_subcommand(s, &t);
}
