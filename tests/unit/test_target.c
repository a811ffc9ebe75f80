/* Targets: typed options, tags, platforms, and the two hashes that must never change silently. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/platform.h"
#include "common/secret.h"
#include "common/target.h"
#include "common/target_hash.h"
#include "common/target_json.h"
#include "common/target_tag.h"

#define HEX64 "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static void set(struct target *t, const char *key, const char *value)
{
	struct err e = {0};
	const char *warning;

	if (target_option(t, key, value, &warning, &e) < 0)
		fail_msg("%s=%s: %s", key, value, e.text);
}

static void refused(struct target *t, const char *key, const char *value, enum err_code code,
		    const char *why)
{
	struct err e = {0};

	if (target_option(t, key, value, NULL, &e) == 0)
		fail_msg("taken: %s=%s", key, value);
	assert_int_equal(e.code, code);
	if (!strstr(e.text, why))
		fail_msg("%s lacks %s", e.text, why);
}

static void options_are(const struct target *t, const char *want)
{
	char *text = target_options_text(t);

	assert_string_equal(text, want);
	free(text);
}

static void defaults_are_those_of_the_header(void **state)
{
	struct target t;

	target_init(&t, DRIVER_ESTARGZ);
	assert_int_equal(t.estargz.chunk_size, 4 << 20);
	assert_int_equal(t.estargz.compression_level, 0);
	assert_null(t.estargz.prioritized_files);
	target_fini(&t);
	target_init(&t, DRIVER_ZSTDCHUNKED);
	assert_int_equal(t.zstdchunked.dialect, DIALECT_CONTAINERD);
	assert_int_equal(t.zstdchunked.compression_level, 0);
	target_fini(&t);
	target_init(&t, DRIVER_NYDUS);
	assert_int_equal(t.nydus.fs_version, 6);
	assert_int_equal(t.nydus.compressor, NYDUS_ZSTD);
	assert_int_equal(t.nydus.chunk_size, 0x100000);
	assert_int_equal(t.nydus.batch_size, 0);
	assert_false(t.nydus.sha256);
	assert_false(t.nydus.docker2oci);
	assert_int_equal(t.nydus.backend, NYDUS_REGISTRY);
	assert_null(t.nydus.prefetch_patterns);
	target_fini(&t);
}

static void writing_a_default_changes_nothing(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	set(&t, "fs_chunk_size", "1048576");
	set(&t, "compressor", "zstd");
	set(&t, "rafs_version", "6");
	set(&t, "docker2oci", "");
	set(&t, "prefetch_patterns", "\n  \n");
	options_are(&t, "");
	target_fini(&t);
	target_init(&t, DRIVER_ESTARGZ);
	set(&t, "chunk_size", "4194304");
	set(&t, "docker2oci", "false"); /* no effect on the result */
	options_are(&t, "");
	target_fini(&t);
}

static void canonical_options_are_sorted_lines(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	set(&t, "with_referrer", "1");
	set(&t, "rafs_compressor", "lz4_block");
	set(&t, "prefetch_patterns", " /usr/bin \n\n/etc\\x\n");
	set(&t, "fs_chunk_size", "0x200000");
	set(&t, "digester", "sha256");
	options_are(&t, "compressor=lz4_block\n"
			"digester=sha256\n"
			"fs_chunk_size=2097152\n"
			"prefetch_patterns=/usr/bin\\n/etc\\\\x\n"
			"with_referrer=true\n");
	target_fini(&t);
}

static void oci_ref_forces_docker2oci(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	set(&t, "oci_ref", "true");
	set(&t, "docker2oci", "false");
	assert_true(t.nydus.docker2oci);
	target_fini(&t);
}

static void bools_are_those_of_go(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	set(&t, "docker2oci", "T");
	assert_true(t.nydus.docker2oci);
	refused(&t, "docker2oci", "yes", ERR_INVALID, "\"yes\" is not true or false");
	target_fini(&t);
}

static void sizes_have_ranges(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	refused(&t, "fs_chunk_size", "0x800", ERR_INVALID, "a power of two from 4KiB to 16MiB");
	refused(&t, "fs_chunk_size", "3MiB", ERR_INVALID, "power of two");
	refused(&t, "fs_chunk_size", "0x2000000", ERR_INVALID, "16MiB");
	refused(&t, "fs_chunk_size", "0x", ERR_INVALID, "power of two");
	refused(&t, "fs_chunk_size", "0xfffffffffffffffff", ERR_INVALID, "power of two");
	refused(&t, "fs_chunk_size", "-1", ERR_INVALID, "power of two");
	refused(&t, "compression_level", "20", ERR_INVALID, "a number from 1 to 19");
	refused(&t, "compressor", "brotli", ERR_INVALID, "one of none, lz4_block, zstd");
	set(&t, "fs_chunk_size", "0X1000");
	assert_int_equal(t.nydus.chunk_size, 0x1000);
	target_fini(&t);
}

static void what_is_not_built_says_so(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	refused(&t, "fs_version", "5", ERR_UNSUPPORTED, "RAFS v5 is not built");
	refused(&t, "fs_version", "7", ERR_INVALID, "one of 6");
	refused(&t, "encrypt_recipients", "jwe:key.pem", ERR_UNSUPPORTED,
		"encryption is not built");
	refused(&t, "compressor", "gzip", ERR_UNSUPPORTED, "gzip");
	refused(&t, "chunk_dict_ref", "h.x/UPPER:1", ERR_INVALID, "option chunk_dict_ref: ");
	set(&t, "encrypt_recipients", "");
	target_fini(&t);
	target_init(&t, DRIVER_ZSTDCHUNKED);
	/* what to write instead, to be copied */
	refused(&t, "dialect", "both", ERR_UNSUPPORTED,
		"{driver: zstdchunked, tag: \"{tag}-zst\", config: {dialect: both/containerd}} and "
		"{driver: zstdchunked, tag: \"{tag}-zst-podman\", config: {dialect: both/podman}}");
	target_fini(&t);
}

static void a_backend_is_named_without_its_key(void **state)
{
	static const char config[] = "{\"bucket_name\":\"b\",\"region\":\"r\",\"access_key_id\":"
				     "\"AKID\",\"access_key_secret\":\"hunter2\"}";
	struct buf b = BUF_INIT(4096);
	struct target t, back, copy;
	struct json *j;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	t.tag_template = mem_strdup("{tag}-n");
	set(&t, "backend_config", config);
	assert_int_equal(target_check(&t, &e), -1);
	assert_non_null(strstr(e.text, "without backend_type"));
	set(&t, "backend_type", "s3");
	set(&t, "backend_force_push", "true");
	assert_int_equal(target_check(&t, &e), 0);
	options_are(&t, "backend_config={\"bucket_name\":\"b\",\"region\":\"r\"}\n"
			"backend_type=s3\n");
	j = target_to_json(&t);
	assert_int_equal(json_write(j, JSON_SORTED, &b, &e), 0);
	assert_null(strstr(b.data, "hunter2"));
	assert_null(strstr(b.data, "AKID"));
	assert_int_equal(target_from_json(&back, j, "", &e), 0);
	assert_string_equal(back.nydus.backend_config, t.nydus.backend_config);
	assert_true(back.nydus.backend_force_push);
	assert_null(back.nydus.backend_key_secret);
	target_copy(&copy, &t);
	assert_true(secret_eq(copy.nydus.backend_key_secret, "hunter2", 7));
	set(&copy, "backend_config", "");
	assert_null(copy.nydus.backend_key_secret);
	assert_int_equal(target_check(&copy, &e), -1);
	assert_non_null(strstr(e.text, "backend_type s3 needs backend_config"));
	set(&t, "oci_ref", "true");
	assert_int_equal(target_check(&t, &e), -1);
	assert_non_null(strstr(e.text, "oci_ref contradicts backend_type"));
	json_freep(&j);
	buf_fini(&b);
	target_fini(&t);
	target_fini(&back);
	target_fini(&copy);
}

static void secrets_in_a_refused_option_are_not_quoted(void **state)
{
	struct target t;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	assert_int_equal(target_option(&t, "backend_config", "{\"secret\":\"hunter2\"}", NULL, &e),
			 -1);
	assert_null(strstr(e.text, "hunter2"));
	target_fini(&t);
}

static void an_unknown_option_gets_a_suggestion(void **state)
{
	struct target t;

	target_init(&t, DRIVER_NYDUS);
	refused(&t, "compresor", "zstd", ERR_INVALID, "did you mean compressor?");
	refused(&t, "a\x1b[31m", "x", ERR_INVALID, "has no option");
	assert_true(target_option_known(DRIVER_NYDUS, "rafs_version"));
	assert_false(target_option_known(DRIVER_NYDUS, "prioritized_files"));
	target_fini(&t);
}

static void ignored_options_warn(void **state)
{
	struct target t;
	const char *warning = NULL;

	target_init(&t, DRIVER_NYDUS);
	assert_int_equal(target_option(&t, "builder", "/usr/bin/nydus-image", &warning, NULL), 0);
	assert_non_null(strstr(warning, "natively"));
	target_fini(&t);
	target_init(&t, DRIVER_ESTARGZ);
	assert_int_equal(target_option(&t, "docker2oci", "true", &warning, NULL), 0);
	assert_null(warning);
	assert_int_equal(target_option(&t, "docker2oci", "false", &warning, NULL), 0);
	assert_non_null(strstr(warning, "always has OCI"));
	target_fini(&t);
}

static void estargz_with_compression_zstdchunked_changes_the_driver(void **state)
{
	struct target t;

	target_init(&t, DRIVER_ESTARGZ);
	set(&t, "chunk_size", "1MiB");
	set(&t, "prioritized_files", "/bin/sh");
	set(&t, "compression", "zstdchunked");
	set(&t, "compression_level", "15");
	assert_int_equal(t.driver, DRIVER_ZSTDCHUNKED);
	options_are(&t, "chunk_size=1048576\ncompression_level=15\nprioritized_files=/bin/sh\n");
	set(&t, "compression", "zstdchunked");
	refused(&t, "compression", "estargz", ERR_INVALID, "contradicts");
	refused(&t, "compression", "gzip", ERR_INVALID, "one of estargz, zstdchunked");
	target_fini(&t);
}

static void a_dictionary_is_named_in_full(void **state)
{
	struct target t, copy;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	assert_null(t.nydus.chunk_dict_ref);
	options_are(&t, "");
	set(&t, "chunk_dict_ref", "busybox");
	assert_string_equal(t.nydus.chunk_dict_ref, "docker.io/library/busybox:latest");
	set(&t, "chunk_dict_ref", "h.x/dict:1");
	options_are(&t, "chunk_dict_ref=h.x/dict:1\n");
	target_copy(&copy, &t);
	set(&t, "chunk_dict_ref", "");
	assert_null(t.nydus.chunk_dict_ref);
	assert_string_equal(copy.nydus.chunk_dict_ref, "h.x/dict:1");
	set(&copy, "oci_ref", "true");
	assert_int_equal(target_check(&copy, &e), -1);
	assert_non_null(strstr(e.text, "chunk_dict_ref contradicts oci_ref"));
	target_fini(&copy);
	target_fini(&t);
}

static void both_dialects_keep_their_faces(void **state)
{
	struct target t;

	target_init(&t, DRIVER_ZSTDCHUNKED);
	set(&t, "dialect", "both/podman");
	assert_int_equal(t.zstdchunked.dialect, DIALECT_BOTH);
	assert_int_equal(t.zstdchunked.face, DIALECT_PODMAN);
	options_are(&t, "dialect=both/podman\n");
	set(&t, "dialect", "both/containerd");
	options_are(&t, "dialect=both/containerd\n");
	target_fini(&t);
}

static void contradictions_are_found(void **state)
{
	struct target t;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	set(&t, "batch_size", "0x200000");
	assert_int_equal(target_check(&t, &e), -1);
	assert_non_null(strstr(e.text, "over fs_chunk_size"));
	set(&t, "batch_size", "512");
	assert_int_equal(target_check(&t, &e), -1);
	set(&t, "batch_size", "0x10000");
	assert_int_equal(target_check(&t, &e), 0);
	set(&t, "oci_ref", "true");
	assert_int_equal(target_check(&t, &e), -1);
	target_fini(&t);
	target_init(&t, DRIVER_ZSTDCHUNKED);
	set(&t, "dialect", "podman");
	assert_int_equal(target_check(&t, &e), 0);
	set(&t, "prioritized_files", "/a");
	assert_int_equal(target_check(&t, &e), -1);
	target_fini(&t);
}

static void driver_names_are_checked(void **state)
{
	enum driver_id d;
	struct err e = {0};

	assert_int_equal(target_driver_parse(&d, "nydus", &e), 0);
	assert_int_equal(d, DRIVER_NYDUS);
	assert_int_equal(target_driver_parse(&d, "estargzz", &e), -1);
	assert_non_null(strstr(e.text, "did you mean estargz?"));
	assert_int_equal(target_driver_parse(&d, "", &e), -1);
}

static void templates_are_checked(void **state)
{
	struct err e = {0};
	char text[300];

	assert_int_equal(target_template_check("{tag}-nydus", &e), 0);
	assert_int_equal(target_template_check("nydus-{tag}", &e), 0);
	assert_int_equal(target_template_check("{tag}", &e), -1);
	assert_int_equal(target_template_check("-nydus", &e), -1);
	assert_int_equal(target_template_check("{tag}-{tag}", &e), -1);
	assert_int_equal(target_template_check("-{tag}", &e), -1);
	assert_int_equal(target_template_check(".{tag}", &e), -1);
	assert_int_equal(target_template_check("{tag} x", &e), -1);
	assert_int_equal(target_template_check("{tag}{x}", &e), -1);
	memset(text, 'a', sizeof(text));
	strcpy(text + 128, "{tag}");
	assert_int_equal(target_template_check(text, &e), -1);
	strcpy(text + 127, "{tag}");
	assert_int_equal(target_template_check(text, &e), 0);
}

static void target_is(const char *source, const char *template, const char *want)
{
	struct imageref from, to;
	struct target t;
	struct err e = {0};
	char text[IMAGEREF_TEXT];

	target_init(&t, DRIVER_NYDUS);
	t.tag_template = mem_strdup(template);
	assert_int_equal(imageref_parse(&from, source, &e), 0);
	if (target_ref(&t, &from, &to, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(imageref_text(&to, text), want);
	assert_true(target_tag_matches(template, to.tag));
	target_fini(&t);
}

static void the_target_of_each_kind_of_source(void **state)
{
	target_is("h.x/a:v1", "{tag}-nydus", "h.x/a:v1-nydus");
	target_is("h.x/a:v1@sha256:" HEX64, "{tag}-nydus", "h.x/a:v1-nydus");
	target_is("h.x/a@sha256:" HEX64, "{tag}-nydus", "h.x/a:sha256-" HEX64 "-nydus");
	target_is("h.x/a:v1", "pre_{tag}.z", "h.x/a:pre_v1.z");
}

static void a_target_tag_over_128_characters_is_invalid(void **state)
{
	struct imageref from, to;
	struct target t;
	struct err e = {0};

	target_init(&t, DRIVER_NYDUS);
	t.tag_template = mem_strdup("{tag}-nydus");
	assert_int_equal(imageref_parse(&from, "h.x/a:b", &e), 0);
	memset(from.tag, 'a', 122);
	from.tag[122] = 0;
	assert_int_equal(target_ref(&t, &from, &to, &e), 0);
	assert_int_equal(strlen(to.tag), 128);
	strcat(from.tag, "a");
	assert_int_equal(target_ref(&t, &from, &to, &e), -1);
	assert_int_equal(e.code, ERR_INVALID);
	assert_non_null(strstr(e.text, "129 characters"));
	from.tag[0] = 0; /* neither tag nor digest */
	assert_int_equal(target_ref(&t, &from, &to, &e), -1);
	target_fini(&t);
}

static void tags_match_only_when_something_stands_for_tag(void **state)
{
	assert_true(target_tag_matches("{tag}-nydus", "a-nydus"));
	assert_false(target_tag_matches("{tag}-nydus", "-nydus"));
	assert_false(target_tag_matches("{tag}-nydus", "a-nydus2"));
	assert_false(target_tag_matches("a{tag}a", "aa"));
	assert_true(target_tag_matches("a{tag}a", "aaa"));
}

/* Changing these constants re-converts every image of every user. */
static void the_dedup_key_is_golden(void **state)
{
	struct imageref from;
	struct target t[2];
	struct err e = {0};
	char hex[65];

	target_init(&t[0], DRIVER_NYDUS);
	t[0].tag_template = mem_strdup("{tag}-nydus");
	set(&t[0], "compressor", "lz4_block");
	target_init(&t[1], DRIVER_ESTARGZ);
	t[1].tag_template = mem_strdup("{tag}-esgz");
	assert_int_equal(imageref_parse(&from, "harbor.example.com/prod/app:v1", &e), 0);
	assert_int_equal(target_dedup_key(&from, t, 2, "linux/amd64,linux/arm64", hex, &e), 0);
	/* printf
	 * 'acc-dedup-1\nharbor.example.com/prod/app\nv1\n\nestargz\nv1-esgz\n1\nlinux/amd64,linux/arm64\n'\
	 * 'nydus\nv1-nydus\ncompressor=lz4_block\n1\nlinux/amd64,linux/arm64\n' | sha256sum */
	assert_string_equal(hex,
			    "1b4aaa20176b28f41621c38dad1d032e306ee8a14cf8733b896dd76fc7522f0b");
	assert_int_equal(imageref_parse(&from, "harbor.example.com/prod/app@sha256:" HEX64, &e), 0);
	assert_int_equal(target_dedup_key(&from, t, 1, "", hex, &e), 0);
	assert_string_equal(hex,
			    "8e4e0ed1618ac87e4217e2066dc7cac7bc7d2b42debc47dbcab2e45d6987fbf0");
	target_fini(&t[0]);
	target_fini(&t[1]);
}

static void the_dedup_key_does_not_depend_on_the_order_of_targets(void **state)
{
	struct imageref from;
	struct target t[2], swapped[2];
	char a[65], b[65];

	target_init(&t[0], DRIVER_NYDUS);
	t[0].tag_template = mem_strdup("{tag}-n");
	target_init(&t[1], DRIVER_ESTARGZ);
	t[1].tag_template = mem_strdup("{tag}-e");
	swapped[0] = t[1];
	swapped[1] = t[0];
	assert_int_equal(imageref_parse(&from, "h.x/a:b", NULL), 0);
	assert_int_equal(target_dedup_key(&from, t, 2, "", a, NULL), 0);
	assert_int_equal(target_dedup_key(&from, swapped, 2, "", b, NULL), 0);
	assert_string_equal(a, b);
	assert_int_equal(target_dedup_key(&from, t, 1, "", b, NULL), 0);
	assert_string_not_equal(a, b);
	target_fini(&t[0]);
	target_fini(&t[1]);
}

static void sealing_a_target_changes_nothing_but_the_work(void **state)
{
	struct target open, sealed, copy;
	struct buf a = BUF_INIT(4096), b = BUF_INIT(4096), c = BUF_INIT(4096);
	char x[17], y[17], *text;

	target_init(&open, DRIVER_NYDUS);
	open.tag_template = mem_strdup("{tag}-\"n");
	open.overwrite = true;
	set(&open, "compressor", "lz4_block");
	target_copy(&sealed, &open);
	target_seal(&sealed);
	target_copy(&copy, &sealed);
	assert_non_null(copy.sealed_json);
	assert_int_equal(target_write(&open, &a, NULL), 0);
	assert_int_equal(target_write(&copy, &b, NULL), 0);
	assert_string_equal(a.data, b.data);
	target_options_hash(&open, "", x);
	target_options_hash(&copy, "", y);
	assert_string_equal(x, y);

	set(&copy, "compressor", "none"); /* breaks the seal */
	text = target_options_text(&copy);
	assert_string_equal(text, "compressor=none\n");
	free(text);
	assert_int_equal(target_write(&copy, &c, NULL), 0);
	assert_non_null(strstr(c.data, "\"options\":{\"compressor\":\"none\"}"));
	target_fini(&open);
	target_fini(&sealed);
	target_fini(&copy);
	buf_fini(&a);
	buf_fini(&b);
	buf_fini(&c);
}

static void the_options_hash_is_golden(void **state)
{
	struct target t;
	char hex[17];

	target_init(&t, DRIVER_ESTARGZ);
	target_options_hash(&t, "", hex); /* printf 'estargz/1\n\n' | sha256sum */
	assert_string_equal(hex, "8f33652f8bee4266");
	set(&t, "compression_level", "9");
	target_options_hash(&t, "linux/amd64", hex);
	assert_string_equal(hex, "9f74cec9da8d67c2");
	target_fini(&t);
}

static void json_carries_a_target_unchanged(void **state)
{
	struct target t, back;
	struct err e = {0};
	struct json *j;
	struct buf b = BUF_INIT(1 << 16);
	char x[17], y[17];

	target_init(&t, DRIVER_ZSTDCHUNKED);
	t.tag_template = mem_strdup("{tag}-zstd");
	t.cache_tag = mem_strdup("cache");
	t.overwrite = t.upstream_form = true;
	set(&t, "dialect", "both/podman");
	set(&t, "prioritized_files", "/a\n/b c");
	j = target_to_json(&t);
	assert_int_equal(json_write(j, JSON_SORTED, &b, &e), 0);
	assert_string_equal(b.data,
			    "{\"cache_tag\":\"cache\",\"driver\":\"zstdchunked\",\"options\":{"
			    "\"dialect\":\"both/podman\",\"prioritized_files\":\"/a\\n/b c\"},"
			    "\"overwrite\":true,\"tag\":\"{tag}-zstd\",\"upstream\":true}");
	assert_int_equal(target_from_json(&back, j, "targets[0]", &e), 0);
	target_options_hash(&t, "", x);
	target_options_hash(&back, "", y);
	assert_string_equal(x, y);
	assert_string_equal(back.cache_tag, "cache");
	assert_true(back.overwrite && back.upstream_form);
	target_fini(&back);
	target_copy(&back, &t);
	target_options_hash(&back, "", y);
	assert_string_equal(x, y);
	target_fini(&back);
	target_fini(&t);
	json_freep(&j);
	buf_fini(&b);
}

static void wrong_json_names_its_place(void **state)
{
	static const char *const bad[] = {
		"[]",
		"{}",
		"{\"driver\":\"x\",\"tag\":\"{tag}-a\"}",
		"{\"driver\":\"nydus\"}",
		"{\"driver\":\"nydus\",\"tag\":\"a\"}",
		"{\"driver\":\"nydus\",\"tag\":\"{tag}-a\",\"options\":{\"compressor\":1}}",
		"{\"driver\":\"nydus\",\"tag\":\"{tag}-a\",\"options\":{\"nope\":\"1\"}}",
		"{\"driver\":\"nydus\",\"tag\":\"{tag}-a\",\"options\":{\"builder\":\"a\\u0000b\"}"
		"}",
		"{\"driver\":\"nydus\",\"tag\":\"{tag}-a\",\"cache_tag\":\"a/b\"}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct json *j = NULL;
		struct target t;
		struct err e = {0};

		assert_int_equal(json_parse(&j, bad[i], strlen(bad[i]), NULL, &e), 0);
		assert_int_equal(target_from_json(&t, j, "targets[3]", &e), -1);
		if (!strstr(e.text, "targets[3]"))
			fail_msg("%s: %s", bad[i], e.text);
		json_freep(&j);
	}
}

static void platforms_are(const char *text, const char *want)
{
	struct err e = {0};
	char *sorted = NULL;

	if (platforms_normalize(text, &sorted, &e) < 0)
		fail_msg("%s: %s", text, e.text);
	assert_string_equal(sorted, want);
	free(sorted);
}

static void platforms_are_normalised_as_containerd_does(void **state)
{
	platforms_are("", "");
	platforms_are("  ", "");
	platforms_are("linux/amd64", "linux/amd64");
	platforms_are("linux/arm64, linux/amd64 ,linux/arm64/v8", "linux/amd64,linux/arm64");
	platforms_are("linux/aarch64", "linux/arm64");
	platforms_are("linux/aarch64/v9", "linux/arm64/v9");
	platforms_are("Linux/X86_64", "linux/amd64");
	platforms_are("linux/x86-64/v1", "linux/amd64");
	platforms_are("linux/amd64/v2", "linux/amd64/v2");
	platforms_are("linux/arm", "linux/arm/v7");
	platforms_are("linux/arm/7", "linux/arm/v7");
	platforms_are("linux/arm/v6", "linux/arm/v6");
	platforms_are("linux/armhf", "linux/arm/v7");
	platforms_are("linux/armel", "linux/arm/v6");
	platforms_are("linux/i386", "linux/386");
	platforms_are("macos/arm64", "darwin/arm64");
	platforms_are("arm64", "linux/arm64");
}

static void wrong_platforms_are_refused(void **state)
{
	static const char *const bad[] = {
		"linux",	"linux/",	   "/amd64",	   "linux/amd64/v8/x",
		"linux/amd64,", ",linux/amd64",	   "linux/am d64", "linux//v7",
		"all",		"linux/amd64,,x/y"};
	char *sorted;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct err e = {0};

		if (platforms_normalize(bad[i], &sorted, &e) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(e.code, ERR_INVALID);
	}
}

static void platforms_match_what_they_name(void **state)
{
	assert_true(platforms_match("", "windows", "amd64", ""));
	assert_true(platforms_match("linux/amd64,linux/arm64", "linux", "arm64", "v8"));
	assert_true(platforms_match("linux/amd64,linux/arm64", "linux", "aarch64", ""));
	assert_true(platforms_match("linux/arm/v7", "linux", "arm", ""));
	assert_true(platforms_match("linux/arm", "linux", "arm", "v7"));
	assert_false(platforms_match("linux/arm/v7", "linux", "arm", "v6"));
	assert_false(platforms_match("linux/amd64", "linux", "amd64", "v3"));
	assert_false(platforms_match("linux/amd64", "windows", "amd64", ""));
	assert_false(platforms_match("linux/amd64", "unknown", "unknown", ""));
	assert_false(platforms_match("linux/amd64", "", "", ""));
}

static void every_option_is_documented(void **state)
{
	for (int d = 0; d < DRIVERS; d++) {
		struct target_option_doc doc;
		char last[64] = "";
		size_t i = 0;

		for (; target_option_doc((enum driver_id)d, i, &doc); i++) {
			assert_true(strcmp(last, doc.key) <
				    0); /* sorted: canonical text relies on it */
			snprintf(last, sizeof(last), "%s", doc.key);
			assert_true(strlen(doc.doc) > 5 && strlen(doc.expected) > 5);
		}
		assert_true(i >= 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_those_of_the_header),
		cmocka_unit_test(writing_a_default_changes_nothing),
		cmocka_unit_test(canonical_options_are_sorted_lines),
		cmocka_unit_test(oci_ref_forces_docker2oci),
		cmocka_unit_test(bools_are_those_of_go),
		cmocka_unit_test(sizes_have_ranges),
		cmocka_unit_test(what_is_not_built_says_so),
		cmocka_unit_test(a_backend_is_named_without_its_key),
		cmocka_unit_test(secrets_in_a_refused_option_are_not_quoted),
		cmocka_unit_test(an_unknown_option_gets_a_suggestion),
		cmocka_unit_test(ignored_options_warn),
		cmocka_unit_test(estargz_with_compression_zstdchunked_changes_the_driver),
		cmocka_unit_test(both_dialects_keep_their_faces),
		cmocka_unit_test(a_dictionary_is_named_in_full),
		cmocka_unit_test(contradictions_are_found),
		cmocka_unit_test(driver_names_are_checked),
		cmocka_unit_test(templates_are_checked),
		cmocka_unit_test(the_target_of_each_kind_of_source),
		cmocka_unit_test(a_target_tag_over_128_characters_is_invalid),
		cmocka_unit_test(tags_match_only_when_something_stands_for_tag),
		cmocka_unit_test(the_dedup_key_is_golden),
		cmocka_unit_test(the_dedup_key_does_not_depend_on_the_order_of_targets),
		cmocka_unit_test(sealing_a_target_changes_nothing_but_the_work),
		cmocka_unit_test(the_options_hash_is_golden),
		cmocka_unit_test(json_carries_a_target_unchanged),
		cmocka_unit_test(wrong_json_names_its_place),
		cmocka_unit_test(platforms_are_normalised_as_containerd_does),
		cmocka_unit_test(wrong_platforms_are_refused),
		cmocka_unit_test(platforms_match_what_they_name),
		cmocka_unit_test(every_option_is_documented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
