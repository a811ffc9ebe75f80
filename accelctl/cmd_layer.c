/* accelctl/cmd_layer.c - `accelctl layer pack`: a layer from disk to a blob on stdout, by the
 * worker's own code. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accelctl/commands.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/drivers/driver.h"
#include "worker/out.h"
#include "worker/pool.h"
#include "worker/tar/tar_reader.h"

static const char usage[] = "Usage: accelctl layer pack --driver DRIVER [-o KEY=VALUE]... "
			    "[--threads N] [--result FILE] FILE|-\n"
			    "       accelctl layer merge [-o KEY=VALUE] BLOB... (see its --help)\n"
			    "\n"
			    "Packs one layer (a tar, plain or packed with gzip or zstd) and writes "
			    "the blob to standard output.\n"
			    "  --driver DRIVER   estargz, zstdchunked or nydus\n"
			    "  -o KEY=VALUE      an option of the driver, as in driver.config\n"
			    "  --threads N       compressors (default: by the CPUs); the blob is "
			    "the same with any number\n"
			    "  --no-verify       do not unpack what was packed to compare it\n"
			    "  --result FILE     write digest, size, diff_id, media type and "
			    "annotations there, as JSON\n";

struct pack {
	struct target target;
	uint32_t threads;
	bool verify;
	const char *file, *result;
};

/* ---- where the blob goes */

static int write_stdout(void *dest, const void *p, size_t n, struct err *e)
{
	const char *s = p;

	while (n) {
		ssize_t w = write(STDOUT_FILENO, s, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_errno(e, errno, "cannot write to standard output");
		s += w;
		n -= (size_t)w;
	}
	return 0;
}

static int commit_stdout(void *dest, const struct digest *d, uint64_t size, struct err *e)
{
	return 0;
}

static void abort_stdout(void *dest)
{
}

static const struct out_ops to_stdout = {write_stdout, commit_stdout, abort_stdout};

/* ---- packing */

struct run {
	const struct driver *drv;
	struct drv_image *im;
	struct drv_layer *layer;
	struct pool *pool;
	struct out *out;
	struct descriptor from; /* of the file, where the format names its source */
	bool have_from;
};

static void run_fini(struct run *r)
{
	out_freep(&r->out);
	pool_freep(&r->pool);
	if (r->layer)
		r->drv->layer_close(r->layer);
	if (r->im)
		r->drv->image_close(r->im);
	descriptor_fini(&r->from);
}

static int open_file(const char *file, int pass, struct source **s, struct err *e)
{
	int fd;

	if (!strcmp(file, "-")) {
		if (pass && lseek(STDIN_FILENO, 0, SEEK_SET) < 0)
			return err_set(e, ERR_INVALID,
				       "this needs the layer more than once: give a file, not -");
		fd = dup(STDIN_FILENO);
	} else {
		fd = open(file, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return err_errno(e, errno, "cannot open %s", file);
	*s = source_from_fd(fd);
	return 0;
}

/* What refers to the layer has to know its digest first. */
static int measure(struct run *r, const char *file, struct err *e)
{
	bool is_stdin = !strcmp(file, "-");
	scoped(source_freep) struct source *s = NULL;
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped_free char *piece = mem_alloc(1u << 20);
	ssize_t n;

	if (is_stdin && lseek(STDIN_FILENO, 0, SEEK_CUR) < 0)
		return err_set(e, ERR_INVALID,
			       "this needs the layer more than once: give a file, not -");
	if (open_file(file, 0, &s, e) < 0)
		return -1;
	while ((n = source_read(s, piece, 1u << 20, e)) > 0) {
		hasher_update(h, piece, (size_t)n);
		r->from.size += (uint64_t)n;
	}
	hasher_final(h, &r->from.digest);
	r->have_from = true;
	if (n == 0 && is_stdin && lseek(STDIN_FILENO, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "rewind");
	return (int)n;
}

static int feed(struct run *r, struct source **s, struct err *e)
{
	scoped(tar_closep) struct tar_reader *t = NULL;
	struct tar_limits limits = {0};
	struct tar_piece p;
	int rc;

	if (tar_open(&t, s, &limits, e) < 0)
		return -1;
	while ((rc = tar_next(t, &p, e)) > 0)
		if (r->drv->tar(r->layer, &p, e) < 0)
			return -1;
	return rc;
}

static int on_block(void *arg, const struct block *b, struct err *e)
{
	struct run *r = arg;

	return r->drv->block(r->layer, b, e);
}

static int one_pass(struct run *r, const struct pack *o, struct source **s, int pass, struct err *e)
{
	struct codec_opts codec = {.large_window = true};
	struct out_opts opts = {.as = r->drv->encoding(&o->target)};
	struct layer_in in = {.from = r->have_from ? &r->from : NULL};
	bool wants_blocks = false;

	if (codec_sniff(s, &in.codec, e) < 0)
		return -1;
	if (!r->layer && r->drv->layer_open(&r->layer, r->im, &in, &wants_blocks, e) < 0)
		return -1;
	if (wants_blocks) {
		codec.on_block = on_block;
		codec.arg = r;
	}
	if (!r->out && !r->drv->headers_only(r->layer, pass)) {
		r->drv->out_opts(r->layer, &opts);
		if (out_open(&r->out, r->pool, &opts, &to_stdout, NULL, e) < 0)
			return -1;
	}
	if (codec_unpack(s, in.codec, &codec, e) < 0 ||
	    r->drv->begin(r->layer, pass, r->out, e) < 0)
		return -1;
	return feed(r, s, e);
}

static int write_result(const char *file, const struct layer_result *r, const struct digest *d,
			uint64_t size, struct err *e)
{
	scoped(json_freep) struct json *j = layer_result_to_json(r);
	scoped(buf_fini) struct buf b = BUF_INIT(1 << 20);
	char text[DIGEST_TEXT];
	FILE *f;

	json_set_str(j, "digest", digest_text(d, text));
	json_set_int(j, "size", (int64_t)size);
	if (json_write(j, JSON_PRETTY, &b, e) < 0)
		return -1;
	f = fopen(file, "we");
	if (!f || fprintf(f, "%s\n", b.data) < 0 || fclose(f) != 0)
		return err_errno(e, errno, "cannot write %s", file);
	return 0;
}

static int pack(const struct pack *o, struct err *e)
{
	scoped(run_fini) struct run r = {.drv = driver_of(&o->target)};
	scoped(layer_result_fini) struct layer_result result = {0};
	struct pool_opts po = {.threads = o->threads ? o->threads : pool_cpus(),
			       .verify = o->verify};
	size_t largest = r.drv->largest(&o->target);
	struct manifest m;
	struct imageconfig cfg;
	struct digest d;
	uint64_t size;
	int pass = 0;

	po.buffer_bytes = largest > (4u << 20) ? largest : 4u << 20;
	manifest_init(&m);
	imageconfig_init(&cfg);
	descriptor_init(&r.from);
	if (pool_open(&r.pool, &po, e) < 0 ||
	    r.drv->image_open(&r.im, &o->target, &m, &cfg, NULL, e) < 0)
		return -1;
	if (o->target.driver == DRIVER_NYDUS && o->target.nydus.oci_ref &&
	    measure(&r, o->file, e) < 0)
		return -1;
	do {
		scoped(source_freep) struct source *s = NULL;

		if (open_file(o->file, pass, &s, e) < 0 || one_pass(&r, o, &s, pass++, e) < 0)
			return -1;
	} while (r.drv->again(r.layer));
	if (r.drv->layer_end(r.layer, &result, e) < 0 || out_commit(r.out, &d, &size, e) < 0)
		return -1;
	if (r.drv->face)
		r.drv->face(&o->target, &result.annotations);
	if (result.plain_reason[0])
		fprintf(stderr, "accelctl: the layer stays plain: %s\n", result.plain_reason);
	return o->result ? write_result(o->result, &result, &d, size, e) : 0;
}

/* ---- the command line */

static int set_option(struct target *t, char *text, struct err *e)
{
	const char *warning = NULL;
	char *eq = strchr(text, '=');

	if (!eq)
		return err_set(e, ERR_INVALID, "-o %s: expected KEY=VALUE", text);
	*eq = 0;
	if (target_option(t, text, eq + 1, &warning, e) < 0)
		return -1;
	if (warning)
		fprintf(stderr, "accelctl: %s: %s\n", text, warning);
	return 0;
}

/* --driver first, because options are the driver's. */
static int parse(struct pack *o, int argc, char **argv, struct err *e)
{
	static const struct option longs[] = {
		{"driver", required_argument, NULL, 'd'}, {"threads", required_argument, NULL, 't'},
		{"no-verify", no_argument, NULL, 'n'},	  {"result", required_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
	};
	char *options[64];
	size_t n = 0;
	enum driver_id id;
	bool have_driver = false;
	uint64_t threads;
	int c;

	while ((c = getopt_long(argc, argv, "o:h", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			if (target_driver_parse(&id, optarg, e) < 0)
				return -1;
			have_driver = true;
			break;
		case 'o':
			if (n == sizeof(options) / sizeof(*options))
				return err_set(e, ERR_INVALID, "too many options");
			options[n++] = optarg;
			break;
		case 't':
			if (str_u64(optarg, &threads, e) < 0)
				return err_wrap(e, "--threads");
			if (threads < 1 || threads > 256)
				return err_set(e, ERR_INVALID, "--threads %s: expected 1 to 256",
					       optarg);
			o->threads = (uint32_t)threads;
			break;
		case 'n':
			o->verify = false;
			break;
		case 'r':
			o->result = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			return err_set(e, ERR_INVALID, "see accelctl layer pack --help");
		}
	}
	if (!have_driver)
		return err_set(e, ERR_INVALID,
			       "--driver is missing: estargz, zstdchunked or nydus");
	if (argc - optind != 1)
		return err_set(e, ERR_INVALID, "expected one layer file, or - for standard input");
	o->file = argv[optind];
	target_init(&o->target, id);
	for (size_t i = 0; i < n; i++)
		if (set_option(&o->target, options[i], e) < 0)
			return -1;
	return target_check(&o->target, e);
}

int cmd_layer(int argc, char **argv)
{
	struct pack o = {.verify = true};
	struct err e = {0};

	if (argc > 1 && !strcmp(argv[1], "merge"))
		return layer_merge_main(argc - 1, argv + 1);
	if (argc < 2 || strcmp(argv[1], "pack") != 0) {
		fputs(usage, argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr);
		return argc > 1 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	optind = 1;
	if (parse(&o, argc - 1, argv + 1, &e) < 0) {
		fprintf(stderr, "accelctl: %s\n", e.text);
		return 2;
	}
	if (pack(&o, &e) < 0) {
		fprintf(stderr, "accelctl: %s\n", e.text);
		target_fini(&o.target);
		return 1;
	}
	target_fini(&o.target);
	return 0;
}
