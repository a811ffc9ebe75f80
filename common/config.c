/* common/config.c - YAML into nodes that know where they stand: file, conf.d, environment; see
 * config.h.
 *
 * libyaml's events are read by one recursive function.  What could grow is counted: bytes, depth,
 * nodes (an alias is a copy, so aliases of aliases cannot multiply beyond the count). */
#include "common/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "common/buf.h"
#include "common/config_impl.h"
#include "common/env.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"

#define FILE_MAX (1024 * 1024)
#define DEPTH_MAX 32
#define NODES_MAX 100000
#define ALIASES_MAX 100
#define PROBLEMS_MAX 200
#define CONF_D_MAX 1000

/* ---- the report */

void config_report_add(struct config_report *r, enum severity s, const char *where, const char *fmt,
		       ...)
{
	struct config_problem *p;
	char text[1400];
	va_list ap;

	if (s == SEVERITY_FATAL)
		r->n_fatal++;
	if (r->n >= PROBLEMS_MAX)
		return; /* someone handed us something that is no configuration */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	str_clean(text);
	mem_grow(r->p, r->n, r->cap);
	p = &r->p[r->n++];
	p->where = mem_strdup(where);
	str_clean(p->where);
	p->text = mem_strdup(text);
	p->fatal = s == SEVERITY_FATAL;
	p->note = s == SEVERITY_NOTE;
}

void config_report_fini(struct config_report *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->p[i].where);
		free(r->p[i].text);
	}
	free(r->p);
	memset(r, 0, sizeof(*r));
}

void config_where(const struct node *n, bool at_key, char *to, size_t size)
{
	unsigned line = at_key && n->key_line ? n->key_line : n->line;
	unsigned column = at_key && n->key_line ? n->key_column : n->column;

	if (line)
		snprintf(to, size, "%s:%u:%u", n->file, line, column);
	else
		snprintf(to, size, "%s", n->file);
}

/* ---- nodes */

const char *node_kind_name(enum node_kind k)
{
	static const char *const names[] = {"nothing", "text", "a map", "a list"};

	return names[k];
}

struct node *node_get(const struct node *map, const char *key)
{
	if (!map || map->kind != NODE_MAP)
		return NULL;
	for (size_t i = 0; i < map->n; i++)
		if (strcmp(map->kid[i]->key, key) == 0)
			return map->kid[i];
	return NULL;
}

static struct node *node_new(enum node_kind kind, const char *file)
{
	struct node *n = mem_zalloc(sizeof(*n));

	n->kind = kind;
	n->file = file;
	n->text = mem_strdup("");
	return n;
}

static void node_freep(struct node **np)
{
	struct node *n = *np;

	if (!n)
		return;
	for (size_t i = 0; i < n->n; i++)
		node_freep(&n->kid[i]);
	free(n->kid);
	if (n->text)
		explicit_bzero(n->text, strlen(n->text)); /* it may have been a secret */
	free(n->text);
	free(n->key);
	free(n);
	*np = NULL;
}

static void node_add(struct node *parent, struct node *kid)
{
	mem_grow(parent->kid, parent->n, parent->cap);
	parent->kid[parent->n++] = kid;
}

static void tree_fini(struct tree *t)
{
	node_freep(&t->root);
	for (size_t i = 0; i < t->n_names; i++)
		free(t->name[i]);
	free(t->name);
	memset(t, 0, sizeof(*t));
}

static const char *tree_name(struct tree *t, const char *name)
{
	mem_grow(t->name, t->n_names, t->cap_names);
	t->name[t->n_names] = mem_strdup(name);
	return t->name[t->n_names++];
}

/* Maps are merged key by key, everything else is replaced.  Takes *over. */
static void node_merge(struct node **to, struct node **over)
{
	struct node *a = *to, *b = *over;

	if (b->kind == NODE_NULL && a->kind == NODE_MAP) {
		node_freep(over); /* `server:` with comments only changes nothing */
		return;
	}
	if (a->kind != NODE_MAP || b->kind != NODE_MAP) {
		node_freep(to);
		*to = take_ptr(*over);
		return;
	}
	for (size_t i = 0; i < b->n; i++) {
		size_t k = 0;

		while (k < a->n && strcmp(a->kid[k]->key, b->kid[i]->key) != 0)
			k++;
		if (k < a->n)
			node_merge(&a->kid[k], &b->kid[i]);
		else
			node_add(a, take_ptr(b->kid[i]));
	}
	node_freep(over);
}

/* ---- YAML */

struct anchor {
	char *name;
	struct node *node; /* a copy of its own */
};

struct reader {
	yaml_parser_t parser;
	struct tree *tree;
	const char *file;
	struct config_report *report;
	struct anchor *anchor;
	size_t n_anchors, cap_anchors;
};

static int refuse(struct reader *r, yaml_mark_t at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int refuse(struct reader *r, yaml_mark_t at, const char *fmt, ...)
{
	char where[512], text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(where, sizeof(where), "%s:%zu:%zu", r->file, at.line + 1, at.column + 1);
	config_report_add(r->report, SEVERITY_FATAL, where, "%s", text);
	return -1;
}

static int next_event(struct reader *r, yaml_event_t *ev)
{
	if (yaml_parser_parse(&r->parser, ev))
		return 0;
	return refuse(r, r->parser.problem_mark, "not YAML: %s%s%s",
		      r->parser.problem ? r->parser.problem : "unreadable",
		      r->parser.context ? " " : "", r->parser.context ? r->parser.context : "");
}

static int count_node(struct reader *r, yaml_mark_t at)
{
	if (++r->tree->nodes > NODES_MAX)
		return refuse(r, at, "more than %d values", NODES_MAX);
	return 0;
}

static bool is_null(const yaml_event_t *ev)
{
	static const char *const words[] = {"", "~", "null", "Null", "NULL"};
	const char *text = (const char *)ev->data.scalar.value;

	if (ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcmp(text, words[i]) == 0)
			return true;
	return false;
}

static bool core_tag(const char *tag)
{
	static const char *const known[] = {"tag:yaml.org,2002:str",  "tag:yaml.org,2002:int",
					    "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float",
					    "tag:yaml.org,2002:null", "tag:yaml.org,2002:map",
					    "tag:yaml.org,2002:seq",  "!"};

	for (size_t i = 0; tag && i < sizeof(known) / sizeof(*known); i++)
		if (strcmp(tag, known[i]) == 0)
			return true;
	return !tag;
}

static struct node *node_copy(struct reader *r, const struct node *from, yaml_mark_t at)
{
	struct node *n = NULL;

	if (count_node(r, at) < 0)
		return NULL;
	n = node_new(from->kind, from->file);
	free(n->text);
	n->text = mem_strdup(from->text);
	n->key = mem_strdup(from->key);
	n->line = from->line;
	n->column = from->column;
	n->key_line = from->key_line;
	n->key_column = from->key_column;
	for (size_t i = 0; i < from->n; i++) {
		struct node *kid = node_copy(r, from->kid[i], at);

		if (!kid) {
			node_freep(&n);
			return NULL;
		}
		node_add(n, kid);
	}
	return n;
}

static int keep_anchor(struct reader *r, const yaml_char_t *name, const struct node *n,
		       yaml_mark_t at)
{
	struct node *copy;

	if (!name)
		return 0;
	copy = node_copy(r, n, at);
	if (!copy)
		return -1;
	for (size_t i = 0; i < r->n_anchors; i++)
		if (strcmp(r->anchor[i].name, (const char *)name) == 0) {
			node_freep(&r->anchor[i].node); /* YAML: the latest counts */
			r->anchor[i].node = copy;
			return 0;
		}
	mem_grow(r->anchor, r->n_anchors, r->cap_anchors);
	r->anchor[r->n_anchors].name = mem_strdup((const char *)name);
	r->anchor[r->n_anchors++].node = copy;
	return 0;
}

static struct node *read_alias(struct reader *r, const yaml_event_t *ev)
{
	const char *name = (const char *)ev->data.alias.anchor;

	if (++r->tree->aliases > ALIASES_MAX) {
		refuse(r, ev->start_mark, "more than %d aliases", ALIASES_MAX);
		return NULL;
	}
	for (size_t i = 0; i < r->n_anchors; i++)
		if (strcmp(r->anchor[i].name, name) == 0)
			return node_copy(r, r->anchor[i].node, ev->start_mark);
	refuse(r, ev->start_mark, "alias *%s: no such anchor above", name);
	return NULL;
}

static struct node *read_scalar(struct reader *r, const yaml_event_t *ev)
{
	const char *text = (const char *)ev->data.scalar.value;
	struct node *n;

	if (strlen(text) != ev->data.scalar.length) {
		refuse(r, ev->start_mark, "the value holds a NUL");
		return NULL;
	}
	if (!core_tag((const char *)ev->data.scalar.tag)) {
		refuse(r, ev->start_mark, "tag %s is not known", (const char *)ev->data.scalar.tag);
		return NULL;
	}
	if (count_node(r, ev->start_mark) < 0)
		return NULL;
	n = node_new(is_null(ev) ? NODE_NULL : NODE_TEXT, r->file);
	if (n->kind == NODE_TEXT) {
		free(n->text);
		n->text = mem_strdup(text);
	}
	return n;
}

static struct node *read_node(struct reader *r, yaml_event_t *ev, unsigned depth);

static int read_list(struct reader *r, struct node *list, unsigned depth)
{
	for (;;) {
		scoped(yaml_event_delete) yaml_event_t ev = {0};
		struct node *kid;

		if (next_event(r, &ev) < 0)
			return -1;
		if (ev.type == YAML_SEQUENCE_END_EVENT)
			return 0;
		kid = read_node(r, &ev, depth + 1);
		if (!kid)
			return -1;
		node_add(list, kid);
	}
}

static int check_key(struct reader *r, const struct node *map, const yaml_event_t *ev)
{
	const char *key = (const char *)ev->data.scalar.value;
	const struct node *first;

	if (ev->type != YAML_SCALAR_EVENT)
		return refuse(r, ev->start_mark, "a key must be text");
	if (strlen(key) != ev->data.scalar.length)
		return refuse(r, ev->start_mark, "the key holds a NUL");
	if (strcmp(key, "<<") == 0)
		return refuse(r, ev->start_mark, "merge keys (<<) are not supported");
	first = node_get(map, key);
	if (first)
		return refuse(r, ev->start_mark, "%s: the same key twice, first in line %u", key,
			      first->key_line);
	return 0;
}

static int read_map(struct reader *r, struct node *map, unsigned depth)
{
	for (;;) {
		scoped(yaml_event_delete) yaml_event_t key = {0};
		scoped(yaml_event_delete) yaml_event_t value = {0};
		struct node *kid;

		if (next_event(r, &key) < 0)
			return -1;
		if (key.type == YAML_MAPPING_END_EVENT)
			return 0;
		if (check_key(r, map, &key) < 0 || next_event(r, &value) < 0)
			return -1;
		kid = read_node(r, &value, depth + 1);
		if (!kid)
			return -1;
		free(kid->key);
		kid->key = mem_strdup((const char *)key.data.scalar.value);
		kid->key_line = (unsigned)key.start_mark.line + 1;
		kid->key_column = (unsigned)key.start_mark.column + 1;
		node_add(map, kid);
	}
}

static struct node *read_collection(struct reader *r, const yaml_event_t *ev, unsigned depth)
{
	bool map = ev->type == YAML_MAPPING_START_EVENT;
	const yaml_char_t *tag = map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag;
	struct node *n;

	if (depth >= DEPTH_MAX) {
		refuse(r, ev->start_mark, "nested deeper than %d", DEPTH_MAX);
		return NULL;
	}
	if (!core_tag((const char *)tag)) {
		refuse(r, ev->start_mark, "tag %s is not known", (const char *)tag);
		return NULL;
	}
	if (count_node(r, ev->start_mark) < 0)
		return NULL;
	n = node_new(map ? NODE_MAP : NODE_LIST, r->file);
	if ((map ? read_map(r, n, depth) : read_list(r, n, depth)) < 0)
		node_freep(&n);
	return n;
}

/* The node that begins with ev; NULL after saying what was wrong. */
static struct node *read_node(struct reader *r, yaml_event_t *ev, unsigned depth)
{
	const yaml_char_t *anchor = NULL;
	struct node *n = NULL;

	switch (ev->type) {
	case YAML_ALIAS_EVENT:
		n = read_alias(r, ev);
		break;
	case YAML_SCALAR_EVENT:
		anchor = ev->data.scalar.anchor;
		n = read_scalar(r, ev);
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = ev->data.mapping_start.anchor;
		n = read_collection(r, ev, depth);
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = ev->data.sequence_start.anchor;
		n = read_collection(r, ev, depth);
		break;
	default:
		refuse(r, ev->start_mark, "a value was expected");
		break;
	}
	if (!n)
		return NULL;
	n->line = (unsigned)ev->start_mark.line + 1;
	n->column = (unsigned)ev->start_mark.column + 1;
	if (keep_anchor(r, anchor, n, ev->start_mark) < 0)
		node_freep(&n);
	return n;
}

/* One document, or none.  *root stays NULL when the file holds nothing. */
static int read_document(struct reader *r, struct node **root)
{
	for (;;) {
		scoped(yaml_event_delete) yaml_event_t ev = {0};

		if (next_event(r, &ev) < 0)
			return -1;
		switch (ev.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			continue;
		case YAML_DOCUMENT_START_EVENT:
			if (*root)
				return refuse(r, ev.start_mark,
					      "a second document; one is expected");
			continue;
		case YAML_STREAM_END_EVENT:
			return 0;
		default:
			*root = read_node(r, &ev, 0);
			if (!*root)
				return -1;
			if ((*root)->kind != NODE_MAP && (*root)->kind != NODE_NULL)
				return refuse(r, ev.start_mark,
					      "expected a map at the top, found %s",
					      node_kind_name((*root)->kind));
		}
	}
}

static int read_yaml(struct tree *t, const char *file, const char *yaml, size_t n,
		     struct config_report *report)
{
	struct reader r = {.tree = t, .file = tree_name(t, file), .report = report};
	struct node *root = NULL;
	int result;

	if (n > FILE_MAX) {
		config_report_add(report, SEVERITY_FATAL, file, "%zu bytes, at most %d are allowed",
				  n, FILE_MAX);
		return -1;
	}
	if (!yaml_parser_initialize(&r.parser))
		abort(); /* out of memory, as in mem */
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml, n);
	result = read_document(&r, &root);
	yaml_parser_delete(&r.parser);
	for (size_t i = 0; i < r.n_anchors; i++) {
		free(r.anchor[i].name);
		node_freep(&r.anchor[i].node);
	}
	free(r.anchor);
	if (result == 0 && root)
		node_merge(&t->root, &root);
	node_freep(&root);
	return result;
}

/* ---- files */

static int slurp(const char *path, struct buf *to, struct err *e)
{
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char part[16384];
	ssize_t n;

	if (fd < 0)
		return err_errno(e, errno, "cannot open");
	while ((n = read(fd, part, sizeof(part))) > 0)
		if (buf_add(to, part, (size_t)n, e) < 0)
			return -1;
	return n < 0 ? err_errno(e, errno, "cannot read") : 0;
}

static int read_file(struct tree *t, const char *path, struct config_report *r)
{
	struct buf b = BUF_INIT(FILE_MAX + 1);
	struct err e = {0};
	int result = 0;

	if (slurp(path, &b, &e) < 0) {
		config_report_add(r, SEVERITY_FATAL, path, "%s", e.text);
		result = -1;
	} else {
		result = read_yaml(t, path, b.data, b.len, r);
	}
	buf_wipe(&b);
	return result;
}

static int is_yaml(const struct dirent *d)
{
	return d->d_name[0] != '.' && (str_ends(d->d_name, ".yaml") || str_ends(d->d_name, ".yml"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* bytes: no locale */
}

/* conf.d/NAME.yaml beside the file. */
static void read_conf_d(struct tree *t, const char *path, struct config_report *r)
{
	const char *slash = strrchr(path, '/');
	scoped_free char *folder =
		slash ? mem_printf("%.*s/conf.d", (int)(slash - path), path) : mem_strdup("conf.d");
	struct dirent **names = NULL;
	int n = scandir(folder, &names, is_yaml, by_name);

	if (n < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			config_report_add(r, SEVERITY_FATAL, folder, "cannot read: %s",
					  strerror(errno));
		return;
	}
	if (n > CONF_D_MAX)
		config_report_add(r, SEVERITY_FATAL, folder, "more than %d files", CONF_D_MAX);
	for (int i = 0; i < n; i++) {
		scoped_free char *file = mem_printf("%s/%s", folder, names[i]->d_name);

		if (i < CONF_D_MAX)
			read_file(t, file, r);
		free(names[i]);
	}
	free(names);
}

/* ---- the environment: ACCEL_SERVER__PORT is server.port */

struct env_reader {
	struct tree *tree;
	struct config_report *report;
};

static void read_variable(const char *name, const char *value, void *arg)
{
	struct env_reader *r = arg;
	const char *file, *p = name + strlen("ACCEL_");
	struct node *root, *at;
	char key[128];

	if (!strstr(p, "__") || !*value)
		return; /* ACCEL_ADDR and the like are not keys */
	if (strlen(p) >= sizeof(key))
		return;
	if (str_starts(p, "PROVIDER__SOURCE")) {
		config_report_add(
			r->report, SEVERITY_FATAL, name,
			"registries are not taken from the environment; use conf.d/NAME.yaml");
		return;
	}
	file = tree_name(r->tree, name);
	root = at = node_new(NODE_MAP, file);
	for (;;) {
		const char *end = strstr(p, "__");
		size_t n = end ? (size_t)(end - p) : strlen(p);
		struct node *kid = node_new(end ? NODE_MAP : NODE_TEXT, file);

		for (size_t i = 0; i < n; i++)
			key[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] - 'A' + 'a') : p[i];
		key[n] = 0;
		kid->key = mem_strdup(key);
		kid->from_environment = true;
		node_add(at, kid);
		at = kid;
		if (!end)
			break;
		p = end + 2;
	}
	free(at->text);
	at->text = mem_strdup(value);
	node_merge(&r->tree->root, &root);
}

/* ---- all of it */

static void tree_init(struct tree *t, const char *name)
{
	memset(t, 0, sizeof(*t));
	t->root = node_new(NODE_MAP, tree_name(t, name));
}

int config_load(struct settings **s, const char *path, struct config_report *r)
{
	scoped(tree_fini) struct tree t;
	struct env_reader env = {&t, r};

	*s = NULL;
	tree_init(&t, path);
	if (read_file(&t, path, r) < 0)
		return -1;
	read_conf_d(&t, path, r);
	env_each("ACCEL_", read_variable, &env);
	*s = settings_from_tree(t.root, r);
	return *s ? 0 : -1;
}

int config_load_text(struct settings **s, const char *name, const char *yaml, size_t n,
		     struct config_report *r)
{
	scoped(tree_fini) struct tree t;

	*s = NULL;
	tree_init(&t, name);
	if (read_yaml(&t, name, yaml, n, r) == 0)
		*s = settings_from_tree(t.root, r);
	return *s ? 0 : -1;
}
