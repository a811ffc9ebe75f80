/* common/target_hash.h - two hashes, and both are promises: the dedup key decides whether two
 * requests are the same task, the options hash whether a tag in a registry already is what is
 * wanted.
 *
 * Their golden tests in test_target.c must not be changed without raising "acc-dedup-1" or the
 * format version. */
#ifndef COMMON_TARGET_HASH_H
#define COMMON_TARGET_HASH_H

#include <stddef.h>

struct err;
struct imageref;
struct target;

/* Lower hex of SHA-256 over: acc-dedup-1, host/repository, tag or "", digest or "", then per target
 * sorted by target tag: driver, target tag, canonical options, format version, sorted platforms. */
int target_dedup_key(const struct imageref *source, const struct target *targets, size_t n,
		     const char *platforms, char hex[65], struct err *e);
/* 16 hex digits of SHA-256 over options, format version, sorted platforms: io.acceld.options. */
void target_options_hash(const struct target *t, const char *platforms, char hex[17]);

#endif
