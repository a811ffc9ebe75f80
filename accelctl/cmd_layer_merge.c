/* accelctl/cmd_layer_merge.c - `accelctl layer merge`: Nydus blobs of layers to the bootstrap of
 * their image. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accelctl/commands.h"
#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/stream.h"
#include "common/target.h"
#include "worker/blobat.h"
#include "worker/rafs/rafs_blob.h"
#include "worker/rafs/rafs_emit.h"
#include "worker/rafs/rafs_merge.h"

static const char usage[] =
	"Usage: accelctl layer merge [-o prefetch_patterns=PATHS] BLOB...\n"
	"\n"
	"Merges the Nydus blobs of layers, lowest first, and writes the bootstrap of their image\n"
	"(image/image.boot) to standard output.  Blobs are named by their digests in it.\n"
	"  -o KEY=VALUE   prefetch_patterns: absolute paths, one a line (default /;\n"
	"                 empty: nothing is listed for reading ahead)\n";

/* A blob's name is the digest of the whole file. */
static int name_of(int fd, struct digest *d, struct err *e)
{
	scoped(hasher_freep) struct hasher *h = hasher_new(DIGEST_SHA256);
	scoped_free char *piece = mem_alloc(1u << 20);
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, piece, 1u << 20, at)) > 0) {
		hasher_update(h, piece, (size_t)n);
		at += n;
	}
	if (n < 0)
		return err_errno(e, errno, "read");
	hasher_final(h, d);
	return 0;
}

static int add_blob(struct rafs **fs, const char *file, struct err *e)
{
	scoped_fd int fd = open(file, O_RDONLY | O_CLOEXEC);
	scoped(rafs_layer_fini) struct rafs_layer l = {0};
	struct blobat_file at;
	struct digest id;

	if (fd < 0)
		return err_errno(e, errno, "cannot open");
	if (blobat_file_init(&at, fd, e) < 0 || name_of(fd, &id, e) < 0 ||
	    rafs_layer_read(&l, &at.at, e) < 0)
		return -1;
	if (rafs_layer_is_ref(&l))
		rafs_layer_name_ref(&l, NULL, &id, at.at.size);
	else
		rafs_layer_name(&l, &id);
	if (!*fs)
		*fs = rafs_new(l.fs->chunk_size, l.fs->compressor, l.fs->digester);
	return rafs_merge(*fs, &l.fs, e);
}

static int merge(char **files, int n, const char *prefetch, struct err *e)
{
	scoped(sink_freep) struct sink *out = sink_to_fd(dup(STDOUT_FILENO));
	scoped(buf_fini) struct buf boot = BUF_INIT(RAFS_MAX_BOOTSTRAP);
	const struct rafs_layout_opts o = {.prefetch = prefetch};
	scoped(rafs_freep) struct rafs *fs = NULL;

	for (int i = 0; i < n; i++)
		if (add_blob(&fs, files[i], e) < 0)
			return err_wrap(e, "%s", files[i]);
	if (rafs_write(fs, &o, &boot, e) < 0 || sink_write(out, boot.data, boot.len, e) < 0)
		return -1;
	return sink_finish(out, e);
}

int layer_merge_main(int argc, char **argv)
{
	struct target t;
	bool given = false;
	struct err e = {0};
	int c, rc = 0;

	target_init(&t, DRIVER_NYDUS);
	optind = 0;
	while (rc == 0 && (c = getopt(argc, argv, "+ho:")) != -1) {
		given |= c == 'o';
		if (c == 'h') {
			fputs(usage, stdout);
			target_fini(&t);
			return 0;
		}
		if (c != 'o' || strncmp(optarg, "prefetch_patterns=", 18) != 0)
			rc = 2;
		else if (target_option(&t, "prefetch_patterns", optarg + 18, NULL, &e) < 0)
			rc = 2;
	}
	if (rc || argc == optind) {
		fputs(e.text[0] ? e.text : usage, stderr);
		target_fini(&t);
		return 2;
	}
	rc = merge(argv + optind, argc - optind, given ? t.nydus.prefetch_patterns : "/", &e);
	target_fini(&t);
	if (rc < 0)
		fprintf(stderr, "accelctl: layer merge: %s\n", e.text);
	return rc < 0 ? err_exit_status(e.code) : 0;
}
