/* common/config_impl.h - what config.c (YAML to nodes) and settings.c (nodes to settings) share.
 *
 * A scalar stays text until the table of keys says what it is: YAML 1.1 would make `010` eight,
 * `yes` a truth and `1:30` ninety. */
#ifndef COMMON_CONFIG_IMPL_H
#define COMMON_CONFIG_IMPL_H

#include "common/config.h"

enum node_kind { NODE_NULL, NODE_TEXT, NODE_MAP, NODE_LIST };

struct node {
	enum node_kind kind;
	char *text;	       /* NODE_TEXT; "" for NODE_NULL */
	char *key;	       /* in a map */
	const char *file;      /* borrowed from the tree; for the environment the variable's name */
	unsigned line, column; /* of the value; 0: none */
	unsigned key_line, key_column; /* of the key */
	bool from_environment;
	struct node **kid; /* of a map or list */
	size_t n, cap;
};

struct tree {
	struct node *root; /* a map */
	char **name;	   /* files and variables that nodes point to */
	size_t n_names, cap_names;
	size_t nodes, aliases; /* bounded, so that aliases cannot multiply */
};

struct node *node_get(const struct node *map, const char *key); /* NULL when absent */
/* "a map", "a list", "text", "nothing" */
const char *node_kind_name(enum node_kind k);

enum severity { SEVERITY_NOTE, SEVERITY_WARNING, SEVERITY_FATAL };
void config_report_add(struct config_report *r, enum severity s, const char *where, const char *fmt,
		       ...) __attribute__((format(printf, 4, 5)));
/* At the node's value, or at its key. */
void config_where(const struct node *n, bool at_key, char *to, size_t size);

/* Settings from a tree: settings.c.  NULL when the report has anything fatal. */
struct settings *settings_from_tree(const struct node *root, struct config_report *r);

#endif
