/* worker/dictionary.h - the image that a target's chunk_dict_ref names: found once a task, pinned
 * by its digest.
 *
 * Results refer to its blobs, which are put into the repository of the result: so whoever may pull
 * a result may read them whole.  Therefore it is used only where that tells nobody anything new: it
 * lies in the source's own project (tenant) at the same registry, or can be read without a login.
 * The login of the task's host serves for the former alone, no other host's login is used at all.
 */
#ifndef WORKER_DICTIONARY_H
#define WORKER_DICTIONARY_H

#include "common/imageref.h"

struct descriptor;
struct dictionary;
struct err;
struct http;
struct manifest;
struct registry;
struct registry_opts;
struct settings;

struct dictionary_opts {
	const struct imageref *source; /* of the task */
	struct registry *own;	       /* the task's registry, with its login */
	struct http *http;
	const struct settings *settings;
	const struct registry_opts *registry;
};

/* Resolves `asked`; an index must have one Nydus image in it.  DENIED: not one that may be used
 * here, or no host in provider.source; INVALID: no Nydus image.  All is borrowed until freed. */
int dictionary_open(struct dictionary **d, const char *asked, const struct dictionary_opts *o,
		    struct err *e);
void dictionary_freep(struct dictionary **d);
const char *dictionary_pinned(const struct dictionary *d); /* "host/repository@sha256:..." */
int dictionary_manifest(struct dictionary *d, struct manifest *m, struct err *e);
struct buf;
int dictionary_fetch(struct dictionary *d, const struct descriptor *blob, size_t max,
		     struct buf *to, struct err *e);
/* One of its blobs into a repository of the task's registry: there already, mounted, or copied. */
int dictionary_bring(struct dictionary *d, const char *repository, const struct descriptor *blob,
		     struct err *e);

#endif
