/* common/driver_options.c - see driver_options.h. */
#include "common/driver_options.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "common/target.h"

#define LINES_MAX                                                                                  \
	(32 * 1024) /* prioritized_files, prefetch_patterns: they travel in each request */
#define AT(member) offsetof(struct target, member)
#define KIB 1024
#define MIB (1024 * 1024)

static const struct word compression_words[] = {
	{"estargz", DRIVER_ESTARGZ, NULL}, {"zstdchunked", DRIVER_ZSTDCHUNKED, NULL}, {0}};

static const struct word dialect_words[] = {
	{"containerd", DIALECT(DIALECT_CONTAINERD, DIALECT_CONTAINERD), NULL},
	{"podman", DIALECT(DIALECT_PODMAN, DIALECT_PODMAN), NULL},
	{"both/containerd", DIALECT(DIALECT_BOTH, DIALECT_CONTAINERD), NULL},
	{"both/podman", DIALECT(DIALECT_BOTH, DIALECT_PODMAN), NULL},
	{"both", 0,
	 "is two targets with a tag each, over one blob; write {driver: zstdchunked, tag: "
	 "\"{tag}-zst\", config: {dialect: both/containerd}} and {driver: zstdchunked, tag: "
	 "\"{tag}-zst-podman\", config: {dialect: both/podman}} under a rule's targets"},
	{0}};

static const struct word fs_version_words[] = {
	{"6", 6, NULL}, {"5", 5, "RAFS v5 is not built; use 6"}, {0}};

static const struct word compressor_words[] = {
	{"none", NYDUS_NONE, NULL},
	{"lz4_block", NYDUS_LZ4, NULL},
	{"zstd", NYDUS_ZSTD, NULL},
	{"gzip", 0, "no Nydus reader takes it for native blobs; use zstd, lz4_block or none"},
	{0}};

static const struct word digester_words[] = {{"blake3", 0, NULL}, {"sha256", 1, NULL}, {0}};

static const struct word backend_words[] = {{"registry", NYDUS_REGISTRY, NULL},
					    {"localfs", NYDUS_LOCALFS, NULL},
					    {"s3", NYDUS_S3, NULL},
					    {"oss", NYDUS_OSS, NULL},
					    {0}};

/* The rows are sorted by key: the canonical text comes out sorted. */
static const struct option estargz_options[] = {
	{"chunk_size", NULL, OPT_SIZE, AT(estargz.chunk_size), "4MiB", IN_OUTPUT, 4 * KIB, 64 * MIB,
	 NULL, "Files are cut into chunks of this size; a reader fetches whole chunks.", NULL},
	{"compression", NULL, OPT_COMPRESSION, 0, "estargz", 0, 0, 0, compression_words,
	 "With zstdchunked the driver is zstdchunked.", NULL},
	{"compression_level", NULL, OPT_INT, AT(estargz.compression_level), "0", IN_OUTPUT, 0, 12,
	 NULL,
	 "libdeflate's level, 1 to 12; 0 is the fastest whose output is no larger than upstream's.",
	 NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(estargz.docker2oci), "true", ALWAYS_OCI, 0, 0, NULL,
	 "The result always has OCI media types, or no node could mount it lazily.",
	 "docker2oci has no effect: the result always has OCI media types"},
	{"prioritized_files", NULL, OPT_LINES, AT(estargz.prioritized_files), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL,
	 "Paths, one a line, that stand first in the blob and are fetched before the container "
	 "starts.",
	 NULL},
	{0}};

static const struct option zstdchunked_options[] = {
	{"chunk_size", NULL, OPT_SIZE, AT(zstdchunked.chunk_size), "4MiB", IN_OUTPUT, 4 * KIB,
	 64 * MIB, NULL, "Files are cut into chunks of this size (containerd's dialect).", NULL},
	{"compression", NULL, OPT_COMPRESSION, 0, "zstdchunked", 0, 0, 0, compression_words,
	 "Upstream's way to choose between estargz and zstdchunked.", NULL},
	{"compression_level", NULL, OPT_INT, AT(zstdchunked.compression_level), "0", IN_OUTPUT, 0,
	 19, NULL,
	 "zstd's level, 1 to 19; 0 is fast, with an output about as large as what the dialect's "
	 "own tools make: near 2 for containerd, 5 for podman and both.",
	 NULL},
	{"dialect", NULL, OPT_DIALECT, 0, "containerd", IN_OUTPUT, 0, 0, dialect_words,
	 "Who reads it lazily: containerd's stargz-snapshotter, or podman and CRI-O.  Two targets "
	 "with "
	 "both/containerd and both/podman share one blob.",
	 NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(zstdchunked.docker2oci), "true", ALWAYS_OCI, 0, 0, NULL,
	 "The result always has OCI media types.",
	 "docker2oci has no effect: the result always has OCI media types"},
	{"prioritized_files", NULL, OPT_LINES, AT(zstdchunked.prioritized_files), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL, "As for estargz (containerd's dialect).", NULL},
	{0}};

static const struct option nydus_options[] = {
	{"backend_config", NULL, OPT_BACKEND, AT(nydus.backend_config), "", IN_OUTPUT, 0, 0, NULL,
	 "For localfs {dir}; for s3 {endpoint, scheme, bucket_name, region, object_prefix, "
	 "access_key_id, access_key_secret}; for oss {endpoint, bucket_name, object_prefix, "
	 "access_key_id, access_key_secret}.  JSON in one text, as upstream has it, or a map.  "
	 "access_key_secret_file names a file with the secret instead.",
	 NULL},
	{"backend_force_push", NULL, OPT_BOOL, AT(nydus.backend_force_push), "false", 0, 0, 0, NULL,
	 "Blobs that the backend has already are written again.", NULL},
	{"backend_type", NULL, OPT_WORD, AT(nydus.backend), "registry", IN_OUTPUT, 0, 0,
	 backend_words,
	 "Where the blobs are stored.  With other than registry the manifest lists the bootstrap "
	 "alone, and the nodes' nydusd needs the same backend in its own configuration.",
	 NULL},
	{"batch_size", NULL, OPT_SIZE, AT(nydus.batch_size), "0", IN_OUTPUT | POWER_OF_TWO, 0,
	 16 * MIB, NULL, "Small files are compressed together up to this size; 0 is off.", NULL},
	{"builder", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL, "Ignored: Nydus is written natively.",
	 "builder is not used: Nydus is written natively, without nydus-image"},
	{"chunk_dict_ref", NULL, OPT_REFERENCE, AT(nydus.chunk_dict_ref), "", IN_OUTPUT, 0, 0, NULL,
	 "A Nydus image whose chunks are not stored again: layers refer to its blobs, and the "
	 "result lists those that it needs.  It must have this target's fs_chunk_size, digester "
	 "and compressor, be of RAFS v6, and not made with oci_ref.  It must lie in the same "
	 "project of the same registry, or be readable without a login: who may pull a result may "
	 "read the dictionary's blobs, too.  Who can push to it decides what results hold, so name "
	 "it by digest where that matters.  It is resolved once a task; another dictionary makes "
	 "other results.",
	 NULL},
	{"compression_level", NULL, OPT_INT, AT(nydus.compression_level), "3", IN_OUTPUT, 1, 19,
	 NULL, "zstd's level.", NULL},
	{"compressor", "rafs_compressor", OPT_WORD, AT(nydus.compressor), "zstd", IN_OUTPUT, 0, 0,
	 compressor_words, "How chunks are compressed.", NULL},
	{"digester", NULL, OPT_WORD, AT(nydus.sha256), "blake3", IN_OUTPUT, 0, 0, digester_words,
	 "The digest of chunks.", NULL},
	{"docker2oci", NULL, OPT_BOOL, AT(nydus.docker2oci), "false", IN_OUTPUT, 0, 0, NULL,
	 "A Docker manifest becomes an OCI one.  Set by oci_ref.", NULL},
	{"encrypt_recipients", NULL, OPT_REFUSED, 0, "", 0, 0, 0, NULL, "Not built.",
	 "encryption is not built"},
	{"fs_align_chunk", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL, "For RAFS v5 only.",
	 "fs_align_chunk has no effect: RAFS v6 always aligns"},
	{"fs_chunk_size", NULL, OPT_SIZE, AT(nydus.chunk_size), "0x100000",
	 IN_OUTPUT | POWER_OF_TWO, 0x1000, 0x1000000, NULL,
	 "Files are cut into chunks of this size.", NULL},
	{"fs_version", "rafs_version", OPT_WORD, AT(nydus.fs_version), "6", IN_OUTPUT, 0, 0,
	 fs_version_words, "The version of RAFS.", NULL},
	{"merge_manifest", NULL, OPT_BOOL, AT(nydus.merge_manifest), "false", IN_OUTPUT, 0, 0, NULL,
	 "The result is an index of the source's manifests and the Nydus ones.", NULL},
	{"oci_ref", NULL, OPT_BOOL, AT(nydus.oci_ref), "false", IN_OUTPUT, 0, 0, NULL,
	 "The source's gzip layers are used as they are; only an index of them is pushed (zran).",
	 NULL},
	{"prefetch_patterns", NULL, OPT_LINES, AT(nydus.prefetch_patterns), "", IN_OUTPUT, 0,
	 LINES_MAX, NULL,
	 "Absolute paths, one a line, that are fetched ahead.  Unset: none in the layers, / in the "
	 "merged "
	 "bootstrap.",
	 NULL},
	{"with_referrer", NULL, OPT_BOOL, AT(nydus.with_referrer), "false", IN_OUTPUT, 0, 0, NULL,
	 "Sets subject to the source's manifest.  Harbor then hides the result from its artifact "
	 "list.",
	 NULL},
	{"work_dir", NULL, OPT_UNUSED, 0, "", 0, 0, 0, NULL,
	 "Ignored: a conversion writes no file.",
	 "work_dir of the driver is not used: a conversion writes no file"},
	{0}};

const struct driver_row driver_rows[DRIVERS] = {
	[DRIVER_ESTARGZ] = {"estargz", estargz_options, 1},
	[DRIVER_ZSTDCHUNKED] = {"zstdchunked", zstdchunked_options, 1},
	[DRIVER_NYDUS] = {"nydus", nydus_options, 1},
};

const struct option *driver_option_find(enum driver_id d, const char *key)
{
	for (const struct option *o = driver_rows[d].options; o->key; o++)
		if (strcmp(o->key, key) == 0 || str_eq(o->old, key))
			return o;
	return NULL;
}

static void size_text(uint64_t v, char to[32])
{
	if (v >= MIB && v % MIB == 0)
		snprintf(to, 32, "%lluMiB", (unsigned long long)(v / MIB));
	else if (v >= KIB && v % KIB == 0)
		snprintf(to, 32, "%lluKiB", (unsigned long long)(v / KIB));
	else
		snprintf(to, 32, "%llu", (unsigned long long)v);
}

static void words_text(const struct word *w, char *to, size_t n)
{
	size_t len = 0;
	bool first = true;

	to[0] = 0;
	for (; w->text; w++) {
		if (w->refused)
			continue;
		len += (size_t)snprintf(to + len, n - len, "%s%s", first ? "" : ", ", w->text);
		assert(len < n);
		first = false;
	}
}

/* "a size from 4KiB to 64MiB" */
void driver_option_expected(const struct option *o, char *to, size_t n)
{
	char min[32], max[32], words[120];

	switch (o->type) {
	case OPT_BOOL:
		snprintf(to, n, "true or false");
		return;
	case OPT_SIZE:
		size_text(o->min, min);
		size_text(o->max, max);
		snprintf(to, n, "%s from %s to %s",
			 o->flags & POWER_OF_TWO ? "a power of two" : "a size", min, max);
		return;
	case OPT_INT:
		snprintf(to, n, "a number from %d to %d", (int)o->min, (int)o->max);
		return;
	case OPT_WORD:
	case OPT_DIALECT:
	case OPT_COMPRESSION:
		words_text(o->words, words, sizeof(words));
		snprintf(to, n, "one of %s", words);
		return;
	case OPT_LINES:
		snprintf(to, n, "lines of text, up to %d bytes", (int)o->max);
		return;
	case OPT_REFERENCE:
		snprintf(to, n, "an image: HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST");
		return;
	case OPT_BACKEND:
		snprintf(to, n, "a JSON object of texts");
		return;
	case OPT_UNUSED:
	case OPT_REFUSED:
		snprintf(to, n, "nothing");
		return;
	}
}
