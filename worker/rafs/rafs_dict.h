/* worker/rafs/rafs_dict.h - a chunk dictionary: the chunks that another image's blobs hold, by
 * digest, so that a layer points to them instead of storing them again.
 *
 * Made of that image's merged bootstrap, of which the tables alone are read.  Nothing in it changes
 * once it is made, so layers on many threads ask it without a lock. */
#ifndef WORKER_RAFS_RAFS_DICT_H
#define WORKER_RAFS_RAFS_DICT_H

#include "worker/rafs/rafs_tree.h"

#define RAFS_DICT_BOOTSTRAP ((size_t)256 << 20) /* about 2 million chunks */

struct rafs_dict;

/* ERR_CORRUPT: not a bootstrap; ERR_UNSUPPORTED: of RAFS v5, encrypted, or an index of gzip layers
 * (oci_ref), whose data no blob holds. */
int rafs_dict_read(struct rafs_dict **d, const void *boot, size_t n, struct err *e);
void rafs_dict_freep(struct rafs_dict **d);

/* What is to be packed can be looked up here at all, and both can lie in one image: chunk size,
 * digester and compressor are the same.  ERR_INVALID names the option that differs. */
struct rafs_pack_opts;
int rafs_dict_fits(const struct rafs_dict *d, const struct rafs_pack_opts *o, struct err *e);

/* The chunk of this digest and length, or NULL.  Of several blobs that hold it the first one's. */
const struct rafs_chunk *rafs_dict_find(const struct rafs_dict *d, const uint8_t digest[32],
					uint32_t unpacked);
size_t rafs_dict_blobs(const struct rafs_dict *d);
const struct rafs_blob *rafs_dict_blob(const struct rafs_dict *d, size_t i);
/* This blob as some other bootstrap lists it is one of ours, in every field that readers use. */
bool rafs_dict_has(const struct rafs_dict *d, const struct rafs_blob *b);

#endif
