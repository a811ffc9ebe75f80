/* tests/unit/test_convert.c - images through the whole of the worker, against a registry in memory.
 */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "tests/unit/mockreg.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/json.h"
#include "common/scope.h"
#include "worker/cache.h"
#include "worker/classify.h"
#include "worker/codec/codec.h"
#include "worker/codec/encode.h"
#include "worker/convert/convert.h"
#include "worker/publish.h"
#include "worker/tar/tar_reader.h"

#define HOST "127.0.0.1:5000"

/* ---- making images */
static void add_file(struct buf *tar, const char *name, const void *p, size_t n)
{
	uint8_t block[512];
	static const uint8_t zeros[512];

	tar_write_header(block,
			 &(struct tar_out){.name = name, .type = '0', .mode = 0644, .size = n});
	buf_add(tar, block, 512, NULL);
	buf_add(tar, p, n, NULL);
	buf_add(tar, zeros, tar_padding(n), NULL);
}

static void end_tar(struct buf *tar)
{
	static const uint8_t zeros[1024];

	buf_add(tar, zeros, sizeof(zeros), NULL);
}

struct made { /* a layer */
	struct descriptor d;
	struct digest diff_id;
};

static void make_layer(struct made *m, const char *seed, size_t bytes)
{
	struct buf tar = BUF_INIT(64u << 20);
	char *data = mem_alloc(bytes ? bytes : 1);
	const struct encode_as as = {.encoding = ENCODE_GZIP, .level = 1};
	struct encoder *x = encoder_new();
	struct err e = {0};
	unsigned state = 1;
	size_t cap, n;
	char *out;

	for (size_t i = 0; i < bytes; i++)
		data[i] = (char)("abcdefgh"[(state = state * 1103515245 + 12345) >> 29] + seed[0]);
	add_file(&tar, seed, data, bytes);
	add_file(&tar, "empty", "", 0);
	end_tar(&tar);
	digest_of(&m->diff_id, DIGEST_SHA256, tar.data, tar.len);
	cap = encode_bound(&as, tar.len);
	out = mem_alloc(cap);
	assert_int_equal(encode(x, &as, tar.data, tar.len, out, cap, &n, &e), 0);
	memset(&m->d, 0, sizeof(m->d));
	m->d.digest = mock_add(out, n, NULL);
	m->d.size = n;
	str_copy(m->d.media_type, sizeof(m->d.media_type), MT_DOCKER_LAYER_GZIP);
	encoder_freep(&x);
	free(out);
	free(data);
	buf_fini(&tar);
}

static struct digest make_image(const struct made *m, size_t n, const char *arch, const char *tag,
				const struct digest *wrong_diff_id)
{
	struct buf b = BUF_INIT(1u << 20);
	struct digest config, top;
	char text[DIGEST_TEXT];

	buf_addf(&b, NULL,
		 "{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Healthcheck\":{\"Test\":["
		 "\"NONE\"]}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[",
		 arch);
	for (size_t i = 0; i < n; i++)
		buf_addf(
			&b, NULL, "%s\"%s\"", i ? "," : "",
			digest_text(i == 0 && wrong_diff_id ? wrong_diff_id : &m[i].diff_id, text));
	buf_add_str(&b, "]}}", NULL);
	config = mock_add(b.data, b.len, NULL);
	{
		size_t config_n = b.len;

		buf_reset(&b);
		buf_addf(&b, NULL,
			 "{\"schemaVersion\":2,\"mediaType\":\"" MT_DOCKER_MANIFEST
			 "\",\"config\":{\"mediaType\":\"" MT_DOCKER_CONFIG
			 "\",\"size\":%zu,\"digest\":\"%s\"},\"layers\":[",
			 config_n, digest_text(&config, text));
	}
	for (size_t i = 0; i < n; i++)
		buf_addf(
			&b, NULL,
			"%s{\"mediaType\":\"%s\",\"size\":%zu,\"digest\":\"%s\",\"data\":\"eA==\"}",
			i ? "," : "", m[i].d.media_type, (size_t)m[i].d.size,
			digest_text(&m[i].d.digest, text));
	buf_add_str(&b, "],\"future\":7}", NULL);
	top = mock_add(b.data, b.len, MT_DOCKER_MANIFEST);
	if (tag)
		mock_set_tag(tag, &top);
	buf_fini(&b);
	return top;
}

/* ---- running */
struct asked {
	int tickets, asks, releases, moves;
	enum permission answers[8]; /* in turn; then granted */
	int n_answers;
	size_t digests;
	struct digest moved;
};

static int on_ticket(void *arg, const struct imageref *target, uint64_t *ticket, struct err *e)
{
	*ticket = (uint64_t)++((struct asked *)arg)->tickets;
	return 0;
}

static int on_ask(void *arg, const struct imageref *target, uint64_t ticket,
		  const struct digest *digests, size_t n, struct grant *g, struct err *e)
{
	struct asked *a = arg;
	int i = a->asks++;

	a->digests = n;
	g->permission = i < a->n_answers ? a->answers[i] : PERMIT_GRANTED;
	g->until_boot_ms = clock_boot_ms() + 60000;
	str_copy(g->other, sizeof(g->other), "other/image:tag");
	return 0;
}

static int on_release(void *arg, const struct imageref *target, struct err *e)
{
	((struct asked *)arg)->releases++;
	return 0;
}

static int on_moved(void *arg, const struct digest *now, struct err *e)
{
	((struct asked *)arg)->moves++;
	((struct asked *)arg)->moved = *now;
	return 0;
}

struct fixture {
	struct settings *settings;
	struct target target[3];
	size_t n_targets;
	struct convert_job job;
	struct convert_result result;
	struct asked asked;
	struct publish_ops publish;
	struct err err;
};

static void start(struct fixture *f, const char *ref)
{
	struct err e = {0};

	memset(f, 0, sizeof(*f));
	f->settings = settings_default();
	f->settings->source = mem_resize(f->settings->source, f->settings->n_sources + 1,
					 sizeof(struct source_settings));
	f->settings->source[f->settings->n_sources++] =
		(struct source_settings){.host = mem_strdup(HOST), .plain_http = true};
	target_init(&f->target[0], DRIVER_ESTARGZ);
	f->target[0].tag_template = mem_strdup("{tag}-esgz");
	f->n_targets = 1;
	f->publish = (struct publish_ops){.ticket = on_ticket,
					  .ask = on_ask,
					  .release = on_release,
					  .moved = on_moved,
					  .arg = &f->asked};
	f->job = (struct convert_job){.settings = f->settings,
				      .targets = f->target,
				      .n_targets = 1,
				      .verify = VERIFY_FULL,
				      .threads = 2,
				      .publish = &f->publish};
	if (imageref_parse(&f->job.source, ref, &e) < 0)
		fail_msg("%s", e.text);
	convert_result_init(&f->result);
}

static int run(struct fixture *f)
{
	int r;

	memset(&f->err, 0, sizeof(f->err));
	convert_result_fini(&f->result);
	f->job.n_targets = f->n_targets;
	r = convert_image(&f->job, &f->result, &f->err);
	assert_int_equal(mock.open_uploads, 0);
	return r;
}

static void ran(struct fixture *f)
{
	if (run(f) < 0)
		fail_msg("%s", f->err.text);
}

static void stop(struct fixture *f)
{
	convert_result_fini(&f->result);
	for (size_t i = 0; i < f->n_targets; i++)
		target_fini(&f->target[i]);
	settings_freep(&f->settings);
	mock_reset();
}

/* ---- reading results */
static void get(struct manifest *m, struct imageconfig *c, const struct digest *d)
{
	struct mock_blob *b = mock_find(d, true);
	struct err e = {0};

	assert_non_null(b);
	if (manifest_parse(m, b->data, b->n, &e) < 0)
		fail_msg("%s", e.text);
	b = mock_find(&m->config.digest, false);
	assert_non_null(b);
	assert_int_equal(b->n, m->config.size);
	if (imageconfig_parse(c, b->data, b->n, &e) < 0)
		fail_msg("%s", e.text);
}

static void every_layer_unpacks_to_its_diff_id(const struct manifest *m,
					       const struct imageconfig *c)
{
	assert_int_equal(m->n_layers, c->n_diff_ids);
	for (size_t i = 0; i < m->n_layers; i++) {
		const struct mock_blob *b = mock_find(&m->layers[i].digest, false);
		const struct codec_opts o = {0};
		struct hasher *h = hasher_new(DIGEST_SHA256);
		struct source *s;
		struct digest d;
		struct err e = {0};
		char buf[4096];
		ssize_t r;

		assert_non_null(b);
		assert_int_equal(b->n, m->layers[i].size);
		s = source_from_memory(b->data, b->n);
		assert_int_equal(codec_unpack(&s, CODEC_GZIP, &o, &e), 0);
		while ((r = source_read(s, buf, sizeof(buf), &e)) > 0)
			hasher_update(h, buf, (size_t)r);
		if (r < 0)
			fail_msg("%s", e.text);
		hasher_final(h, &d);
		assert_true(digest_eq(&d, &c->diff_ids[i]));
		hasher_freep(&h);
		source_freep(&s);
	}
}

/* ---- tests */
static void an_image_becomes_lazy_and_every_layer_unpacks_to_its_diff_id(void **s)
{
	struct made l[2];
	struct fixture f;
	struct manifest m;
	struct imageconfig c;
	struct digest source;
	char text[DIGEST_TEXT];

	make_layer(&l[0], "a", 5000000);
	make_layer(&l[1], "b", 1000);
	source = make_image(l, 2, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_true(digest_eq(&f.result.source_digest, &source));
	assert_true(digest_eq(&mock_tag_of("v1-esgz")->digest, &f.result.targets[0].digest));
	get(&m, &c, &f.result.targets[0].digest);
	every_layer_unpacks_to_its_diff_id(&m, &c);
	assert_string_equal(m.media_type, MT_OCI_MANIFEST);
	assert_string_equal(m.layers[0].media_type, MT_OCI_LAYER_GZIP);
	assert_non_null(annotations_get(&m.layers[0].annotations,
					"containerd.io/snapshot/stargz/toc.digest"));
	assert_string_equal(annotations_get(&m.annotations, ANN_SOURCE_DIGEST),
			    digest_text(&source, text));
	assert_string_equal(annotations_get(&m.annotations, ANN_SOURCE_REFERENCE), HOST "/p/r:v1");
	assert_string_equal(annotations_get(&m.annotations, ANN_GENERATION), "1");
	assert_non_null(json_get(m.extra, "future"));
	assert_null(json_get(m.layers[0].extra, "data")); /* it was the source blob's */
	assert_non_null(json_get(json_get(c.json, "config"), "Healthcheck"));
	assert_int_equal(f.result.targets[0].size,
			 m.config.size + m.layers[0].size + m.layers[1].size);
	assert_int_equal(mock.gets, 2);
	assert_int_equal(f.asked.asks, 1);
	assert_int_equal(f.asked.releases, 1);
	assert_int_equal(f.asked.digests, 1);
	manifest_fini(&m);
	imageconfig_fini(&c);
	stop(&f);
}

static void the_bytes_depend_on_neither_threads_nor_open_layers(void **s)
{
	static const struct {
		uint32_t threads, layers;
	} ways[] = {{1, 1}, {2, 4}, {7, 2}, {3, 3}};
	struct digest first = {0};

	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		struct made l[3];
		struct fixture f;

		make_layer(&l[0], "x", 9000000);
		make_layer(&l[1], "y", 100000);
		make_layer(&l[2], "z", 0);
		make_image(l, 3, "amd64", "v1", NULL);
		start(&f, HOST "/p/r:v1");
		f.job.threads = ways[i].threads;
		f.job.layers = ways[i].layers;
		ran(&f);
		if (i == 0)
			first = f.result.targets[0].digest;
		assert_true(digest_eq(&first, &f.result.targets[0].digest));
		stop(&f);
	}
}

static void a_layer_that_stands_twice_is_read_and_written_once(void **s)
{
	struct made l[3];
	struct fixture f;
	struct manifest m;
	struct imageconfig c;

	make_layer(&l[0], "a", 2000);
	make_layer(&l[1], "b", 2000);
	l[2] = l[0];
	make_image(l, 3, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	ran(&f);
	assert_int_equal(mock.gets, 2);
	assert_int_equal(mock.commits, 2);
	get(&m, &c, &f.result.targets[0].digest);
	assert_true(digest_eq(&m.layers[0].digest, &m.layers[2].digest));
	every_layer_unpacks_to_its_diff_id(&m, &c);
	assert_true(f.result.targets[0].layers[2].shared);
	manifest_fini(&m);
	imageconfig_fini(&c);
	stop(&f);
}

/* An index of amd64, arm64 and an attestation; the first layer is shared. */
static void make_index(struct made l[3])
{
	struct buf b = BUF_INIT(1u << 20);
	struct made two[2];
	struct digest one, other, top, att;
	char a[DIGEST_TEXT], c[DIGEST_TEXT], x[DIGEST_TEXT];

	make_layer(&l[0], "s", 3000);
	make_layer(&l[1], "a", 3000);
	make_layer(&l[2], "b", 3000);
	one = make_image(l, 2, "amd64", NULL, NULL);
	two[0] = l[0];
	two[1] = l[2];
	other = make_image(two, 2, "arm64", NULL, NULL);
	att = mock_add("{}", 2, MT_OCI_MANIFEST);
	buf_addf(&b, NULL,
		 "{\"schemaVersion\":2,\"mediaType\":\"" MT_DOCKER_LIST "\",\"manifests\":["
		 "{\"mediaType\":\"" MT_DOCKER_MANIFEST "\",\"size\":%zu,\"digest\":\"%s\","
		 "\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"},\"annotations\":{"
		 "\"k\":\"v\"}},"
		 "{\"mediaType\":\"" MT_DOCKER_MANIFEST "\",\"size\":%zu,\"digest\":\"%s\","
		 "\"platform\":{\"architecture\":\"arm64\",\"os\":\"linux\"}},"
		 "{\"mediaType\":\"" MT_OCI_MANIFEST "\",\"size\":2,\"digest\":\"%s\","
		 "\"platform\":{\"architecture\":\"unknown\",\"os\":\"unknown\"},"
		 "\"annotations\":{\"vnd.docker.reference.type\":\"attestation-manifest\"}}],"
		 "\"annotations\":{\"top\":\"1\"}}",
		 mock_find(&one, true)->n, digest_text(&one, a), mock_find(&other, true)->n,
		 digest_text(&other, c), digest_text(&att, x));
	top = mock_add(b.data, b.len, MT_DOCKER_LIST);
	mock_set_tag("v1", &top);
	buf_fini(&b);
}

static void an_index_keeps_its_platforms_and_loses_its_attestations(void **s)
{
	struct made l[3];
	struct fixture f;
	struct mock_blob *b;
	struct index x;
	struct err e = {0};

	make_index(l);
	start(&f, HOST "/p/r:v1");
	ran(&f);
	assert_int_equal(f.result.platforms, 2);
	assert_int_equal(f.result.dropped_platforms, 1);
	assert_int_equal(mock.gets, 3);
	assert_int_equal(f.asked.digests, 3); /* two children and the index */
	b = mock_find(&f.result.targets[0].digest, true);
	assert_int_equal(index_parse(&x, b->data, b->n, &e), 0);
	assert_string_equal(x.media_type, MT_OCI_INDEX);
	assert_string_equal(b->media_type, MT_OCI_INDEX);
	assert_int_equal(x.n, 2);
	assert_string_equal(x.manifests[0].platform.arch, "amd64");
	assert_string_equal(annotations_get(&x.manifests[0].annotations, "k"), "v");
	assert_string_equal(x.manifests[1].platform.arch, "arm64");
	assert_string_equal(annotations_get(&x.annotations, "top"), "1");
	assert_non_null(annotations_get(&x.annotations, ANN_OPTIONS));
	for (size_t i = 0; i < 2; i++) {
		struct manifest m;
		struct imageconfig c;

		get(&m, &c, &x.manifests[i].digest);
		every_layer_unpacks_to_its_diff_id(&m, &c);
		manifest_fini(&m);
		imageconfig_fini(&c);
	}
	index_fini(&x);
	stop(&f);
}

static void a_platform_filter_leaves_an_index_of_one(void **s)
{
	struct made l[3];
	struct fixture f;
	struct mock_blob *b;
	struct index x;
	struct err e = {0};

	make_index(l);
	start(&f, HOST "/p/r:v1");
	f.job.platforms = "linux/arm64";
	ran(&f);
	assert_int_equal(mock.gets, 2);
	b = mock_find(&f.result.targets[0].digest, true);
	assert_int_equal(index_parse(&x, b->data, b->n, &e), 0);
	assert_int_equal(x.n, 1);
	index_fini(&x);
	f.job.platforms = "linux/s390x";
	ran(&f);
	assert_true(f.result.skipped);
	assert_string_equal(f.result.reason, "no image of the index is for linux/s390x");
	stop(&f);
}

static void a_second_run_changes_nothing_and_knows_the_sizes(void **s)
{
	struct made l;
	struct fixture f;
	uint64_t size;

	make_layer(&l, "a", 5000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	ran(&f);
	size = f.result.targets[0].size;
	mock.gets = 0;
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_UNCHANGED);
	assert_int_equal(f.result.targets[0].size, size);
	assert_int_equal(mock.gets, 0);
	assert_int_equal(mock.tag_puts, 1);
	f.target[0].estargz.chunk_size = 1u << 20; /* other options: another result */
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_true(digest_is_set(&f.result.targets[0].replaced));
	stop(&f);
}

static void corrupt(const char *why, const struct digest *flip, const struct digest *wrong_diff_id)
{
	struct made l;
	struct fixture f;
	struct digest old;

	make_layer(&l, "a", 3000000);
	make_image(&l, 1, "amd64", "v1", wrong_diff_id);
	start(&f, HOST "/p/r:v1");
	f.target[0].upstream_form = true;
	old = mock_add("{\"schemaVersion\":2}", 19, MT_OCI_MANIFEST);
	mock_set_tag("v1-esgz", &old);
	if (flip)
		mock.flip = l.d.digest;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_CORRUPT);
	assert_int_equal(f.err.class, CLASS_FINAL);
	assert_text_has(f.err.text, why);
	assert_text_has(f.err.text, "layer 1 of 1 (sha256:");
	assert_int_equal(f.result.targets[0].outcome, TARGET_FAILED);
	assert_int_equal(mock.commits, 0);
	assert_int_equal(mock.tag_puts, 0);
	assert_true(digest_eq(&mock_tag_of("v1-esgz")->digest, &old));
	stop(&f);
}

static void wrong_bytes_are_told_by_their_digest_and_leave_nothing_behind(void **s)
{
	static const struct digest any = {.alg = DIGEST_SHA256};

	corrupt("download: delivered sha256:", &any, NULL);
	corrupt("it unpacks to sha256:", NULL,
		&(struct digest){.alg = DIGEST_SHA256, .bytes = {1}});
}

static void a_broken_upload_runs_its_layer_again(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 100000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.break_uploads = 2;
	ran(&f);
	assert_int_equal(mock.gets, 3);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	stop(&f);

	make_layer(&l, "a", 100000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.break_uploads = 3;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_NET);
	assert_int_equal(f.err.class, CLASS_RETRY);
	assert_text_has(f.err.text, "layer 1 of 1");
	assert_text_has(f.err.text, "upload: connection reset");
	assert_int_equal(mock.tag_puts, 0);
	stop(&f);
}

static void a_target_that_fails_is_dropped_alone_and_equal_targets_share(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 100000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	target_copy(&f.target[1], &f.target[0]);
	free(f.target[1].tag_template);
	f.target[1].tag_template = mem_strdup("{tag}-two");
	target_copy(&f.target[2], &f.target[0]);
	free(f.target[2].tag_template);
	f.target[2].tag_template = mem_printf("{tag}-%0126d", 0); /* over 128 characters */
	f.n_targets = 3;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_INVALID);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_int_equal(f.result.targets[1].outcome, TARGET_PUBLISHED);
	assert_int_equal(f.result.targets[2].outcome, TARGET_FAILED);
	assert_int_equal(mock.gets, 1);
	assert_int_equal(mock.commits, 1);
	assert_true(f.result.targets[1].layers[0].shared);
	stop(&f);
}

static void a_tag_of_someone_else_is_not_overwritten(void **s)
{
	struct made l;
	struct fixture f;
	struct digest old;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	old = make_image(&l, 1, "arm64", "v1-esgz", NULL);
	start(&f, HOST "/p/r:v1");
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_INVALID);
	assert_text_has(f.err.text, "v1-esgz exists and was not made by acceld");
	assert_int_equal(mock.gets, 0);
	f.target[0].overwrite = true;
	ran(&f);
	assert_true(digest_eq(&f.result.targets[0].replaced, &old));
	stop(&f);
}

static void move_source(void)
{
	struct made l;

	make_layer(&l, "n", 500);
	make_image(&l, 1, "amd64", "v1", NULL);
	mock.on_get = NULL;
	mock.before_put = NULL;
}

static void drop_source(void)
{
	str_copy(mock_tag_of("v1")->tag, sizeof(mock.tag[0].tag), "gone");
	mock.on_get = NULL;
}

static void a_source_tag_that_moved_is_enqueued_and_nothing_is_published(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.on_get = move_source;
	ran(&f);
	assert_true(f.result.skipped);
	assert_text_has(f.result.reason, "superseded by sha256:");
	assert_int_equal(f.asked.moves, 1);
	assert_true(digest_eq(&f.asked.moved, &mock_tag_of("v1")->digest));
	assert_true(digest_eq(&f.result.moved_to, &f.asked.moved));
	assert_int_equal(f.asked.asks, 0);
	assert_int_equal(mock.tag_puts, 0);
	stop(&f);
}

static void three_times_superseded_publishes_what_there_is(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.job.must_publish = true;
	mock.on_get = move_source;
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_int_equal(f.asked.moves, 1); /* the newer one still has its turn */
	stop(&f);
}

static void a_push_between_grant_and_end_is_not_lost(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.before_put = move_source;
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_int_equal(f.asked.moves, 1);
	assert_true(digest_is_set(&f.result.moved_to));
	stop(&f);
}

static void a_source_tag_that_is_gone_skips_and_leaves_the_target(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.on_get = drop_source;
	ran(&f);
	assert_true(f.result.skipped);
	assert_string_equal(f.result.reason, "source tag deleted");
	assert_int_equal(f.asked.moves, 0);
	assert_int_equal(mock.tag_puts, 0);
	stop(&f);
}

static void a_pinned_digest_whose_tag_moved_is_skipped_without_an_enqueue(void **s)
{
	struct made l;
	struct fixture f;
	struct digest d;
	char ref[512], text[DIGEST_TEXT];

	make_layer(&l, "a", 1000);
	d = make_image(&l, 1, "amd64", "v1", NULL);
	move_source();
	snprintf(ref, sizeof(ref), HOST "/p/r:v1@%s", digest_text(&d, text));
	start(&f, ref);
	f.job.pinned = true;
	ran(&f);
	assert_true(f.result.skipped);
	assert_text_has(f.result.reason, "superseded by sha256:");
	assert_int_equal(f.asked.moves, 0);
	assert_int_equal(mock.gets, 0);
	stop(&f);
}

static void an_events_digest_whose_tag_moved_is_skipped_and_the_new_one_enqueued(void **s)
{
	struct made l;
	struct fixture f;
	struct digest d;
	char ref[512], text[DIGEST_TEXT];

	make_layer(&l, "a", 1000);
	d = make_image(&l, 1, "amd64", "v1", NULL);
	move_source();
	snprintf(ref, sizeof(ref), HOST "/p/r:v1@%s", digest_text(&d, text));
	start(&f, ref);
	ran(&f);
	assert_true(f.result.skipped);
	assert_text_has(f.result.reason, "superseded by sha256:");
	assert_int_equal(f.asked.moves, 1);
	assert_int_equal(mock.gets, 0);
	stop(&f);
}

static void permission_other_than_granted(enum permission p, enum err_code code,
					  enum err_class class, const char *text)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.asked.answers[0] = p;
	f.asked.n_answers = 1;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, code);
	assert_int_equal(f.err.class, class);
	assert_text_has(f.err.text, text);
	assert_int_equal(mock.tag_puts, 0);
	stop(&f);
}

static void what_the_queue_does_not_grant_is_not_published(void **s)
{
	struct made l;
	struct fixture f;

	permission_other_than_granted(PERMIT_CONFLICT, ERR_INVALID, CLASS_FINAL,
				      "is the target of other/image:tag already");
	permission_other_than_granted(PERMIT_CANCELLED, ERR_CANCELLED, CLASS_FINAL, "cancelled");
	permission_other_than_granted(PERMIT_WAIT, ERR_BUSY, CLASS_WAIT, "the queue was away");
	permission_other_than_granted(PERMIT_LOST, ERR_BUSY, CLASS_WAIT, "another worker");

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.asked.answers[0] = f.asked.answers[1] = PERMIT_BUSY;
	f.asked.n_answers = 2;
	ran(&f);
	assert_int_equal(f.asked.asks, 3);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	f.asked = (struct asked){.answers = {PERMIT_SUPERSEDED}, .n_answers = 1};
	f.target[0].estargz.chunk_size = 1u << 20;
	ran(&f);
	assert_true(f.result.skipped);
	assert_string_equal(f.result.reason, "superseded by a later conversion");
	stop(&f);
}

static void without_an_answer_to_the_put_the_lock_stays(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	mock.put_fails = 1;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.class, CLASS_RETRY);
	assert_int_equal(f.asked.releases, 0);
	stop(&f);
}

static void an_image_over_the_bounds_is_refused(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 3000000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.job.max_image_size = 1000000;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_LIMIT);
	assert_int_equal(f.err.class, CLASS_FINAL);
	assert_int_equal(mock.commits, 0);
	stop(&f);
}

static atomic_int stop_code;

static void stop_now(void)
{
	atomic_store(&stop_code, ERR_CANCELLED);
}

static void a_cancelled_task_publishes_nothing(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 9000000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	atomic_store(&stop_code, 0);
	f.job.stop = &stop_code;
	mock.on_get = stop_now;
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.code, ERR_CANCELLED);
	assert_int_equal(mock.tag_puts, 0);
	stop(&f);
}

static void an_unknown_host_waits(void **s)
{
	struct fixture f;

	start(&f, "other.example.com/p/r:v1");
	assert_int_equal(run(&f), -1);
	assert_int_equal(f.err.class, CLASS_WAIT);
	assert_text_has(f.err.text, "no provider.source for other.example.com here");
	stop(&f);
}

static void our_own_output_is_not_converted_again(void **s)
{
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 1000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	ran(&f);
	str_copy(f.job.source.tag, sizeof(f.job.source.tag), "v1-esgz");
	ran(&f);
	assert_true(f.result.skipped);
	assert_text_has(f.result.reason, "already converted: estargz/1 made from " HOST "/p/r:v1");
	stop(&f);
}

/* ---- the layer cache */
struct one_cache {
	struct cache base;
	struct cache_entry x;
	bool has;
	char key[CACHE_KEY];
	int gets, puts, forgets, leases, releases, busy;
	char leased[8][CACHE_KEY]; /* in turn */
};

static int one_get(struct cache *c, const char *key, const struct digest *source,
		   struct cache_entry *x, struct err *e)
{
	struct one_cache *o = (struct one_cache *)c;

	o->gets++;
	if (!o->has || strcmp(key, o->key) != 0)
		return 0;
	memset(x, 0, sizeof(*x));
	descriptor_copy(&x->stored, &o->x.stored);
	x->result = o->x.result;
	x->result.annotations = (struct annotations){0};
	annotations_copy(&x->result.annotations, &o->x.result.annotations);
	return 1;
}

static int one_put(struct cache *c, const char *key, const struct digest *source,
		   const struct cache_entry *x, struct err *e)
{
	struct one_cache *o = (struct one_cache *)c;

	cache_entry_fini(&o->x);
	o->puts++;
	o->has = true;
	str_copy(o->key, sizeof(o->key), key);
	descriptor_copy(&o->x.stored, &x->stored);
	o->x.result = x->result;
	o->x.result.annotations = (struct annotations){0};
	annotations_copy(&o->x.result.annotations, &x->result.annotations);
	return 0;
}

static void one_forget(struct cache *c, const char *key)
{
	((struct one_cache *)c)->forgets++;
	((struct one_cache *)c)->has = false;
}

static int one_lease(struct cache *c, const char *key, uint64_t *retry_ms, struct err *e)
{
	struct one_cache *o = (struct one_cache *)c;

	str_copy(o->leased[o->leases % 8], CACHE_KEY, key);
	o->leases++;
	*retry_ms = 1;
	return o->busy-- > 0 ? 0 : 1;
}

static void one_release(struct cache *c, const char *key)
{
	((struct one_cache *)c)->releases++;
}

static const struct cache_ops one_ops = {.get = one_get,
					 .put = one_put,
					 .forget = one_forget,
					 .lease = one_lease,
					 .release = one_release};

static void a_cached_layer_is_not_read_and_a_wrong_entry_is_forgotten(void **s)
{
	struct one_cache cache = {.base.ops = &one_ops, .busy = 2};
	struct made l;
	struct fixture f;
	struct manifest m;
	struct imageconfig c;

	make_layer(&l, "a", 5000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.job.cache = &cache.base;
	ran(&f);
	assert_int_equal(cache.puts, 1);
	assert_int_equal(cache.leases, 3); /* someone else was at it, twice */
	assert_int_equal(cache.releases, 1);
	make_image(&l, 1, "amd64", "v2", NULL);
	str_copy(f.job.source.tag, sizeof(f.job.source.tag), "v2");
	mock.gets = mock.commits = 0;
	ran(&f);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	assert_int_equal(f.result.cached_layers, 1);
	assert_true(f.result.targets[0].layers[0].cached);
	assert_int_equal(mock.gets, 0);
	assert_int_equal(mock.commits, 0);
	get(&m, &c, &f.result.targets[0].digest);
	every_layer_unpacks_to_its_diff_id(&m, &c);
	manifest_fini(&m);
	imageconfig_fini(&c);

	make_image(&l, 1, "amd64", "v3", NULL); /* the blob is gone: the entry was wrong */
	mock_find(&cache.x.stored.digest, false)->digest.bytes[0] ^= 1;
	str_copy(f.job.source.tag, sizeof(f.job.source.tag), "v3");
	ran(&f);
	assert_int_equal(cache.forgets, 1);
	assert_int_equal(mock.gets, 1);
	assert_int_equal(f.result.cached_layers, 0);
	assert_int_equal(f.result.targets[0].outcome, TARGET_PUBLISHED);
	cache_entry_fini(&cache.x);
	stop(&f);
}

static void who_has_no_source_blob_gets_nothing_of_it_and_forgets_nothing(void **s)
{
	struct one_cache cache = {.base.ops = &one_ops};
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 5000);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.job.cache = &cache.base;
	ran(&f);
	make_image(&l, 1, "amd64", "v2", NULL);
	str_copy(f.job.source.tag, sizeof(f.job.source.tag), "v2");
	mock_find(&cache.x.stored.digest, false)->digest.bytes[0] ^= 1; /* elsewhere */
	mock_find(&l.d.digest, false)->digest.bytes[0] ^= 1;
	assert_int_equal(run(&f), -1);
	assert_int_equal(mock.mounts, 0);
	assert_int_equal(cache.forgets, 0);
	cache_entry_fini(&cache.x);
	stop(&f);
}

static void a_failed_layer_gives_its_lease_back(void **s)
{
	struct one_cache cache = {.base.ops = &one_ops};
	const struct digest wrong = {.alg = DIGEST_SHA256, .bytes = {1}};
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 5000);
	make_image(&l, 1, "amd64", "v1", &wrong);
	start(&f, HOST "/p/r:v1");
	f.job.cache = &cache.base;
	assert_int_equal(run(&f), -1);
	assert_int_equal(cache.leases, 1);
	assert_int_equal(cache.releases, 1);
	assert_int_equal(cache.puts, 0);
	stop(&f);
}

/* Two tasks with the same targets, named in another order by their rules, must not wait for each
 * other. */
static void leases_are_taken_in_the_same_order_whatever_that_of_the_targets(void **s)
{
	static const enum driver_id order[2][2] = {{DRIVER_ESTARGZ, DRIVER_ZSTDCHUNKED},
						   {DRIVER_ZSTDCHUNKED, DRIVER_ESTARGZ}};
	struct one_cache cache[2] = {{.base.ops = &one_ops}, {.base.ops = &one_ops}};

	for (int i = 0; i < 2; i++) {
		struct made l;
		struct fixture f;

		make_layer(&l, "a", 5000);
		make_image(&l, 1, "amd64", "v1", NULL);
		start(&f, HOST "/p/r:v1");
		target_fini(&f.target[0]);
		for (int k = 0; k < 2; k++) {
			target_init(&f.target[k], order[i][k]);
			f.target[k].tag_template = mem_printf("{tag}-%d", (int)order[i][k]);
		}
		f.n_targets = 2;
		f.job.cache = &cache[i].base;
		ran(&f);
		assert_int_equal(cache[i].leases, 2);
		assert_string_not_equal(cache[i].leased[0], cache[i].leased[1]);
		cache_entry_fini(&cache[i].x);
		stop(&f);
	}
	assert_string_equal(cache[0].leased[0], cache[1].leased[0]);
	assert_string_equal(cache[0].leased[1], cache[1].leased[1]);
}

static uint64_t fast_clock(void)
{
	static _Atomic uint64_t now;

	return now += 20 * UINT64_C(1000000000);
}

static int64_t fast_wall(void)
{
	return (int64_t)fast_clock();
}

static void a_long_conversion_keeps_its_lease(void **s)
{
	static const struct clock_source fast = {fast_clock, fast_clock, fast_wall};
	struct one_cache cache = {.base.ops = &one_ops};
	struct made l;
	struct fixture f;

	make_layer(&l, "a", 3 << 20);
	make_image(&l, 1, "amd64", "v1", NULL);
	start(&f, HOST "/p/r:v1");
	f.job.cache = &cache.base;
	clock_replace(&fast);
	run(&f);
	clock_replace(NULL);
	assert_in_range(cache.leases, 2, 1000);
	assert_string_equal(cache.leased[0], cache.leased[1]);
	assert_int_equal(cache.releases, 1);
	cache_entry_fini(&cache.x);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_image_becomes_lazy_and_every_layer_unpacks_to_its_diff_id),
		T(the_bytes_depend_on_neither_threads_nor_open_layers),
		T(a_layer_that_stands_twice_is_read_and_written_once),
		T(an_index_keeps_its_platforms_and_loses_its_attestations),
		T(a_platform_filter_leaves_an_index_of_one),
		T(a_second_run_changes_nothing_and_knows_the_sizes),
		T(wrong_bytes_are_told_by_their_digest_and_leave_nothing_behind),
		T(a_broken_upload_runs_its_layer_again),
		T(a_target_that_fails_is_dropped_alone_and_equal_targets_share),
		T(a_tag_of_someone_else_is_not_overwritten),
		T(a_source_tag_that_moved_is_enqueued_and_nothing_is_published),
		T(three_times_superseded_publishes_what_there_is),
		T(a_push_between_grant_and_end_is_not_lost),
		T(a_source_tag_that_is_gone_skips_and_leaves_the_target),
		T(a_pinned_digest_whose_tag_moved_is_skipped_without_an_enqueue),
		T(an_events_digest_whose_tag_moved_is_skipped_and_the_new_one_enqueued),
		T(what_the_queue_does_not_grant_is_not_published),
		T(without_an_answer_to_the_put_the_lock_stays),
		T(an_image_over_the_bounds_is_refused),
		T(a_cancelled_task_publishes_nothing),
		T(an_unknown_host_waits),
		T(our_own_output_is_not_converted_again),
		T(a_cached_layer_is_not_read_and_a_wrong_entry_is_forgotten),
		T(who_has_no_source_blob_gets_nothing_of_it_and_forgets_nothing),
		T(a_failed_layer_gives_its_lease_back),
		T(leases_are_taken_in_the_same_order_whatever_that_of_the_targets),
		T(a_long_conversion_keeps_its_lease),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
