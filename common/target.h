/* common/target.h - one wanted result: a driver's name and typed options, the template of the
 * target tag.  API server and worker agree here without linking a driver.  Tags: target_tag.h;
 * JSON: target_json.h; hashes: target_hash.h.
 *
 * Canonical options are `key=value` lines sorted by key, defaults left out, so that writing a
 * default changes nothing.  The options are a table, driver_options.h: it also makes documentation
 * and `config check`. */
#ifndef COMMON_TARGET_H
#define COMMON_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/imageref.h"
#include "common/storage.h"

struct err;
struct secret;

enum driver_id { DRIVER_ESTARGZ, DRIVER_ZSTDCHUNKED, DRIVER_NYDUS, DRIVERS };

enum zstd_dialect { DIALECT_CONTAINERD, DIALECT_PODMAN, DIALECT_BOTH };
/* With `dialect: both` one blob serves two targets: both/containerd and both/podman. */
enum nydus_compressor { NYDUS_NONE, NYDUS_LZ4, NYDUS_ZSTD };

struct estargz_options {
	uint64_t chunk_size;	 /* bytes; default 4 MiB */
	int compression_level;	 /* libdeflate 1..12; 0: our default */
	char *prioritized_files; /* newline-separated paths, or NULL */
	bool docker2oci;	 /* accepted; the result is always OCI */
};

struct zstdchunked_options {
	enum zstd_dialect dialect; /* default containerd */
	enum zstd_dialect face;	   /* with DIALECT_BOTH: whose annotations this target carries */
	uint64_t chunk_size;	   /* containerd's dialect; default 4 MiB */
	int compression_level;	   /* zstd 1..19; 0: our default for the dialect */
	char *prioritized_files;
	bool docker2oci;
};

struct nydus_options {
	int fs_version; /* 6 */
	enum nydus_compressor compressor;
	uint64_t chunk_size;	 /* 0x1000..0x1000000, power of two; default 0x100000 */
	uint64_t batch_size;	 /* 0: off */
	bool sha256;		 /* digester; default blake3 */
	char *prefetch_patterns; /* newline-separated; NULL: none in layers, "/" in the merged
				    bootstrap */
	char *chunk_dict_ref;
	bool oci_ref, with_referrer, docker2oci, merge_manifest, backend_force_push;
	enum nydus_backend backend;
	char *backend_config; /* where the blobs go: storage.h's JSON without the key; or NULL */
	struct secret *backend_key_id, *backend_key_secret; /* never in a request, key or text */
	int compression_level;				    /* zstd; default 3 */
};

struct target {
	enum driver_id driver;
	char *tag_template; /* "{tag}-nydus" */
	bool overwrite;	    /* an existing target tag that is not ours may be replaced */
	bool upstream_form; /* from upstream's tag_suffix: overwrites as upstream does */
	char *cache_tag;    /* upstream's remote cache, or NULL */
	char *sealed_options, *sealed_json; /* target_seal's, or NULL */
	union {
		struct estargz_options estargz;
		struct zstdchunked_options zstdchunked;
		struct nydus_options nydus;
	};
};

const char *driver_name(enum driver_id d); /* "estargz", "zstdchunked", "nydus" */

/* Sets defaults; tag_template NULL. */
void target_init(struct target *t, enum driver_id d);
void target_fini(struct target *t);
void target_copy(struct target *to, const struct target *from);
/* "estargz" with compression zstdchunked becomes DRIVER_ZSTDCHUNKED.  ERR_INVALID names the
 * nearest. */
int target_driver_parse(enum driver_id *d, const char *name, struct err *e);
/* One option as text, as in driver.config.  ERR_INVALID: key, value, what was expected, did you
 * mean; ERR_UNSUPPORTED for what is known and not built (fs_version 5, encryption). *warning
 * (static text or NULL): accepted, but without effect. */
int target_option(struct target *t, const char *key, const char *value, const char **warning,
		  struct err *e);
/* The driver has an option of this name (its old upstream name included). */
bool target_option_known(enum driver_id d, const char *key);
/* Row i of the driver's options table, for documentation; false after the last one. */
struct target_option_doc {
	const char *key, *def, *doc;
	char expected[160]; /* "a size from 4KiB to 64MiB" */
};
bool target_option_doc(enum driver_id d, size_t i, struct target_option_doc *doc);
/* Options that contradict each other. */
int target_check(const struct target *t, struct err *e);
/* The canonical text described above. */
char *target_options_text(const struct target *t);
#define TARGET_TEXT_MAX (256 * 1024) /* bytes: options and JSON of one target stay below it */
/* Each option that is not the default, sorted by key; the value is valid for the call. */
void target_options_each(const struct target *t,
			 void (*on)(void *arg, const char *key, const char *value), void *arg);
/* What target_seal worked out is forgotten: t is about to change. */
void target_unseal(struct target *t);
/* The version of a format's bytes: raised when the same input and options give other bytes. */
uint32_t target_format_version(enum driver_id d);
/* "estargz/1", for io.acceld.format. */
const char *target_format(const struct target *t, char text[32]);

#endif
