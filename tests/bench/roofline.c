/* tests/bench/roofline.c - the work no converter can avoid, done once, on one thread, with
 * everything in memory: unpack the layer, hash what must be hashed, compress the chunks.  What a
 * conversion takes beyond the sum is ours to answer for.
 *
 *   roofline [-f gzip|zstd] [-d] [-l LEVEL] [-s fast|chains] [-c CHUNK] [-P] [-p PASS,PASS...] [-x
 * PASS,PASS...] [-r TIMES] LAYER
 *
 * -s: how zstd looks for matches; -P: cut as podman's dialect does; -d: files' data alone are
 * compressed (Nydus); -p: only these passes; -x: all but these; -r: the best of so many runs of
 * each.  Without -p: all of the passes that the formats share. */
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "worker/codec/codec.h"
#include "worker/codec/encode.h"
#include "worker/drivers/rollsum.h"
#include "worker/rafs/blake3.h"
#include "worker/tar/tar_reader.h"

#define MOST ((size_t)16 << 30)

struct segment { /* of the tar: becomes one piece of the target */
	size_t at, n;
	size_t data; /* so much of it, from `at` on, is a chunk with a digest of its own */
};

struct bench {
	struct encode_as as;
	enum codec codec;
	struct buf layer, tar, target;
	struct segment *segments;
	size_t n, cap;
	struct encoder *encoder;
	uint8_t *piece; /* one packed segment */
	size_t piece_cap;
	size_t bytes; /* that the pass went through */
	bool data_only, podman;
};

static double cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const struct err *e, const char *what)
{
	fprintf(stderr, "roofline: %s: %s\n", what, e->text);
	exit(1);
}

static void inflate_to(struct bench *b, struct buf *to, bool by_zlib)
{
	const struct codec_opts o = {.large_window = true, .portable = by_zlib};
	struct source *s = source_from_memory(b->layer.data, b->layer.len);
	size_t step = 256 << 10;
	uint8_t *part = mem_alloc(step);
	struct err e = {0};
	ssize_t r;

	if (codec_unpack(&s, b->codec, &o, &e) < 0)
		die(&e, "unpack");
	b->bytes = 0;
	while ((r = source_read(s, part, step, &e)) > 0) {
		b->bytes += (size_t)r;
		if (to && buf_add(to, part, (size_t)r, &e) < 0)
			die(&e, "unpack");
	}
	if (r < 0)
		die(&e, "unpack");
	source_freep(&s);
	free(part);
}

/* As an eStargz is cut: a piece starts with each file's first byte and at each chunk; what follows
 * the data (padding, the next headers) goes along with it, 4 MiB of headers at most. */
static void cut(struct bench *b, size_t chunk)
{
	struct source *s = source_from_memory(b->tar.data, b->tar.len);
	struct tar_reader *t = NULL;
	struct tar_piece p;
	struct err e = {0};
	int r;

	if (tar_open(&t, &s, NULL, &e) < 0)
		die(&e, "tar");
	while ((r = tar_next(t, &p, &e)) > 0) {
		struct segment *last = b->n ? &b->segments[b->n - 1] : NULL;
		size_t at = p.tar_pos, left = p.raw ? p.len : 0;

		while (left > 0) {
			bool data = p.kind == TAR_DATA;
			size_t room = data ? chunk - (last ? last->data : 0)
					   : chunk - (last ? last->n : 0);
			size_t n = left;

			if (!last || (data && at == p.tar_pos && p.file_pos == 0) || room == 0) {
				mem_grow(b->segments, b->n, b->cap);
				last = &b->segments[b->n++];
				*last = (struct segment){.at = at};
				room = chunk;
			}
			n = n < room ? n : room;
			last->n += n;
			last->data += data ? n : 0;
			at += n;
			left -= n;
		}
	}
	if (r < 0)
		die(&e, "tar");
	tar_closep(&t);
}

static struct segment *new_segment(struct bench *b, size_t at)
{
	mem_grow(b->segments, b->n, b->cap);
	b->segments[b->n] = (struct segment){.at = at};
	return &b->segments[b->n++];
}

static size_t zeros_at(const uint8_t *p, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] == 0)
		i++;
	return i;
}

/* The chunks of a file: formats/zstd-chunked.md §3.2. */
static void cut_file(struct bench *b, size_t at, size_t n)
{
	const uint8_t *p = (const uint8_t *)b->tar.data + at;
	struct rollsum r = ROLLSUM_INIT;
	struct segment *open = NULL;

	for (size_t i = 0, part; i < n; i += part) {
		size_t zeros = zeros_at(p + i, n - i);
		bool split = false;

		if (zeros >= HOLE_MIN) {
			open = new_segment(b, at + i);
			rollsum_zeros(&r, zeros);
			part = zeros;
			split = true;
		} else {
			if (!open)
				open = new_segment(b, at + i);
			for (part = zeros; i + part < n && p[i + part]; part++)
				;
			part = rollsum_span(&r, p + i, part, &split);
		}
		open->n += part;
		open->data += part;
		open = split ? NULL : open;
	}
}

/* As podman's dialect: each file's chunks, and what is between two files' data. */
static void cut_for_podman(struct bench *b)
{
	struct source *s = source_from_memory(b->tar.data, b->tar.len);
	struct tar_reader *t = NULL;
	struct segment *headers = NULL;
	struct tar_piece p;
	struct err e = {0};
	int r;

	if (tar_open(&t, &s, NULL, &e) < 0)
		die(&e, "tar");
	while ((r = tar_next(t, &p, &e)) > 0) {
		if (p.kind == TAR_DATA) {
			if (p.file_pos == 0)
				cut_file(b, p.tar_pos, p.entry->size);
			headers = NULL;
		} else if (p.raw) {
			if (!headers)
				headers = new_segment(b, p.tar_pos);
			headers->n += p.len;
		}
	}
	if (r < 0)
		die(&e, "tar");
	tar_closep(&t);
}

static void hash(struct bench *b, const struct buf *what)
{
	struct digest d;

	digest_of(&d, DIGEST_SHA256, what->data, what->len);
	b->bytes = what->len;
}

static void inflate(struct bench *b)
{
	inflate_to(b, NULL, false);
}

static void inflate_by_zlib(struct bench *b)
{
	inflate_to(b, NULL, true);
}

static void hash_layer(struct bench *b)
{
	hash(b, &b->layer);
}

static void hash_tar(struct bench *b)
{
	hash(b, &b->tar);
}

static void hash_chunks(struct bench *b)
{
	struct digest d;

	b->bytes = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (b->segments[i].data)
			digest_of(&d, DIGEST_SHA256, b->tar.data + b->segments[i].at,
				  b->segments[i].data);
		b->bytes += b->segments[i].data;
	}
}

static void blake3_chunks(struct bench *b)
{
	uint8_t out[BLAKE3_OUT];

	b->bytes = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (b->segments[i].data)
			blake3_hash(out, b->tar.data + b->segments[i].at, b->segments[i].data);
		b->bytes += b->segments[i].data;
	}
}

/* Where podman's dialect would cut: the sum over all files' data. */
static void roll(struct bench *b)
{
	struct rollsum r = ROLLSUM_INIT;
	bool split;

	b->bytes = 0;
	for (size_t i = 0; i < b->n; i++) {
		const uint8_t *p = (const uint8_t *)b->tar.data + b->segments[i].at;

		for (size_t at = 0; at < b->segments[i].data;)
			at += rollsum_span(&r, p + at, b->segments[i].data - at, &split);
		b->bytes += b->segments[i].data;
	}
}

static void compress_all(struct bench *b)
{
	struct err e = {0};
	size_t got;

	buf_reset(&b->target);
	b->bytes = 0;
	for (size_t i = 0; i < b->n; i++) {
		size_t n = b->data_only ? b->segments[i].data : b->segments[i].n;

		if (n == 0)
			continue;
		if (encode(b->encoder, &b->as, b->tar.data + b->segments[i].at, n, b->piece,
			   b->piece_cap, &got, &e) < 0 ||
		    buf_add(&b->target, b->piece, got, &e) < 0)
			die(&e, "compress");
		b->bytes += n;
	}
}

static void hash_target(struct bench *b)
{
	hash(b, &b->target);
}

static const struct pass {
	const char *name, *what;
	void (*run)(struct bench *b);
	bool asked; /* only with -p */
} passes[] = {
	{"zlib", "unpack the source layer with zlib", inflate_by_zlib, true},
	{"inflate", "unpack the source layer", inflate, false},
	{"source-blob", "SHA-256 of the source layer", hash_layer, false},
	{"source-tar", "SHA-256 of the source tar (diff_id)", hash_tar, false},
	{"target-tar", "SHA-256 of the target tar (diff_id)", hash_tar, false},
	{"chunks", "SHA-256 of each chunk", hash_chunks, false},
	{"rollsum", "podman's rolling sum over the data", roll, true},
	{"blake3", "BLAKE3 of each chunk", blake3_chunks, true},
	{"compress", "compress each piece", compress_all, false},
	{"target-blob", "SHA-256 of the target layer", hash_target, false},
};
#define PASSES (sizeof(passes) / sizeof(passes[0]))

static void choose(bool on[PASSES], const char *list, bool value)
{
	scoped_free char *copy = mem_strdup(list);
	char *rest = copy, *name;

	while ((name = strsep(&rest, ","))) {
		size_t i = 0;

		while (i < PASSES && strcmp(passes[i].name, name) != 0)
			i++;
		if (i == PASSES) {
			fprintf(stderr, "roofline: no pass \"%s\"\n", name);
			exit(2);
		}
		on[i] = value;
	}
}

static void load(struct bench *b, const char *path)
{
	struct source *s = source_from_fd(open(path, O_RDONLY | O_CLOEXEC));
	struct sink *to = sink_to_buf(&b->layer);
	struct err e = {0};

	if (stream_copy(to, s, NULL, &e) < 0)
		die(&e, path);
	source_freep(&s);
	sink_freep(&to);
	s = source_from_memory(b->layer.data, b->layer.len);
	if (codec_sniff(&s, &b->codec, &e) < 0)
		die(&e, path);
	source_freep(&s);
}

static void prepare(struct bench *b, size_t chunk)
{
	size_t largest = 0;

	inflate_to(b, &b->tar, false);
	if (b->podman)
		cut_for_podman(b);
	else
		cut(b, chunk);
	for (size_t i = 0; i < b->n; i++)
		largest = b->segments[i].n > largest ? b->segments[i].n : largest;
	b->encoder = encoder_new();
	b->piece_cap = encode_bound(&b->as, largest);
	b->piece = mem_zalloc(b->piece_cap);
	compress_all(b);
}

static void report(struct bench *b, const bool on[PASSES], int times)
{
	double sum = 0;

	printf("%zu bytes %s, %zu bytes of tar, %zu pieces, %zu bytes %s level %d\n", b->layer.len,
	       codec_name(b->codec), b->tar.len, b->n, b->target.len,
	       b->as.encoding == ENCODE_ZSTD ? "zstd" : "gzip", b->as.level);
	for (size_t i = 0; i < PASSES; i++) {
		double best = 0;

		if (!on[i])
			continue;
		for (int k = 0; k < times; k++) {
			double start = cpu(), took;

			passes[i].run(b);
			took = cpu() - start;
			best = k == 0 || took < best ? took : best;
		}
		sum += best;
		printf("%-12s %8.3f s %8.0f MB/s  %s\n", passes[i].name, best,
		       (double)b->bytes / 1e6 / best, passes[i].what);
	}
	printf("%-12s %8.3f s\n", "sum", sum);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: roofline [-f gzip|zstd] [-d] [-l LEVEL] [-s fast|chains] [-c CHUNK] [-P] "
		"[-p PASS,...] [-x "
		"PASS,...] [-r TIMES] "
		"LAYER\npasses:");
	for (size_t i = 0; i < PASSES; i++)
		fprintf(stderr, " %s", passes[i].name);
	fputc('\n', stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct bench b = {
		.as = {ENCODE_GZIP, 0, 0, 0},
		.layer = BUF_INIT(MOST),
		.tar = BUF_INIT(MOST),
		.target = BUF_INIT(MOST),
	};
	size_t chunk = 4 << 20;
	bool on[PASSES];
	int times = 1, c;

	for (size_t i = 0; i < PASSES; i++)
		on[i] = !passes[i].asked;
	while ((c = getopt(argc, argv, "f:dl:s:Pc:p:x:r:")) != -1) {
		switch (c) {
		case 'f':
			if (strcmp(optarg, "gzip") != 0 && strcmp(optarg, "zstd") != 0)
				return usage();
			b.as.encoding = strcmp(optarg, "zstd") == 0 ? ENCODE_ZSTD : ENCODE_GZIP;
			break;
		case 'd':
			b.data_only = true;
			break;
		case 'l':
			b.as.level = atoi(optarg);
			break;
		case 's':
			b.as.search = strcmp(optarg, "fast") == 0 ? SEARCH_FAST : SEARCH_CHAINS;
			break;
		case 'P':
			b.podman = true;
			break;
		case 'c':
			chunk = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			memset(on, false, sizeof(on));
			choose(on, optarg, true);
			break;
		case 'x':
			choose(on, optarg, false);
			break;
		case 'r':
			times = atoi(optarg);
			break;
		default:
			return usage();
		}
	}
	if (optind + 1 != argc || chunk == 0 || times < 1)
		return usage();
	if (!b.as.level)
		b.as.level = b.as.encoding == ENCODE_ZSTD ? ZSTD_LEVEL : DEFLATE_LEVEL;
	load(&b, argv[optind]);
	prepare(&b, chunk);
	report(&b, on, times);
	encoder_freep(&b.encoder);
	free(b.piece);
	free(b.segments);
	buf_fini(&b.layer);
	buf_fini(&b.tar);
	buf_fini(&b.target);
	return 0;
}
