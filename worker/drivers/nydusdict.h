/* worker/drivers/nydusdict.h - the Nydus driver's chunk dictionary: read once for all images of a
 * conversion, with what the registry needs to know of its blobs. */
#ifndef WORKER_DRIVERS_NYDUSDICT_H
#define WORKER_DRIVERS_NYDUSDICT_H

struct blob_store;
struct descriptor;
struct err;
struct nydus_dict;
struct rafs_dict;

/* ref: pinned by digest.  The store keeps it: borrowed from there. */
int nydus_dict_open(struct nydus_dict **d, const char *ref, struct blob_store *s, struct err *e);
const struct rafs_dict *nydus_dict_chunks(const struct nydus_dict *d);
/* The layer of the dictionary's image that is this blob (lower hex), or NULL. */
const struct descriptor *nydus_dict_layer(const struct nydus_dict *d, const char *id);

#endif
