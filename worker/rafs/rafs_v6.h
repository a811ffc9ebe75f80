/* worker/rafs/rafs_v6.h - RAFS v6 on disk: an EROFS image of metadata whose files point to blobs as
 * devices.
 *
 * Facts: Linux Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h for what EROFS has; for
 * the rest the layouts that nydus 2.2 and later read and write.  Everything is little-endian and
 * packed. */
#ifndef WORKER_RAFS_RAFS_V6_H
#define WORKER_RAFS_RAFS_V6_H

#include <assert.h>

#include "common/le.h"

#define RAFS_BLOCK 4096u
#define RAFS_BLOCK_BITS 12u
#define RAFS_SLOT 32u /* unit of inode numbers */
#define RAFS_ROOT_NID 128u
#define RAFS_NAME_MAX 255u
#define RAFS_LINK_MAX 4095u
#define RAFS_MAX_BLOBS 254u
#define RAFS_MAX_CHUNKS (1u << 24) /* of one blob */
#define RAFS_MAX_UNPACKED ((uint64_t)1 << 44)
#define RAFS_MAX_STORED ((uint64_t)1 << 40)
#define RAFS_CHUNK_MIN 0x1000u
#define RAFS_CHUNK_MAX 0x1000000u
#define RAFS_ID_LEN 64u

/* ---- superblock, at 1024 */
#define RAFS_SUPER_AT 1024u
#define RAFS_MAGIC 0xE0F5E1E2u
#define RAFS_COMPAT 0x40000000u
#define RAFS_INCOMPAT 0x0000000Cu /* chunked files, device table */
#define RAFS_DEVT_SLOT 11u
struct v6_super {
	le32 magic;
	le32 checksum; /* 0 */
	le32 feature_compat;
	uint8_t blkszbits;
	uint8_t extslots;
	le16 root_nid;
	le64 inos;
	le64 build_time;
	le32 build_time_ns;
	le32 blocks; /* sum over the devices */
	le32 meta_blkaddr;
	le32 xattr_blkaddr;
	uint8_t uuid[16], volume[16];
	le32 feature_incompat;
	le16 compr; /* 0 */
	le16 extra_devices;
	le16 devt_slotoff;
	uint8_t reserved[38];
};
static_assert(sizeof(struct v6_super) == 128, "EROFS superblock");

/* ---- extension, at 1152 */
#define RAFS_EXT_AT 1152u
enum {
	V6_COMP_NONE = 0x1,
	V6_COMP_LZ4 = 0x2,
	V6_BLAKE3 = 0x4,
	V6_SHA256 = 0x8,
	V6_UIDGID = 0x10,
	V6_XATTR = 0x20,
	V6_COMP_GZIP = 0x40,
	V6_COMP_ZSTD = 0x80,
	V6_INLINED_DIGEST = 0x100,
	V6_TARFS = 0x200,
	V6_PLAIN = 0x01000000, /* not encrypted */
	V6_ENCRYPTED = 0x02000000,
};
#define V6_COMP_MASK (V6_COMP_NONE | V6_COMP_LZ4 | V6_COMP_GZIP | V6_COMP_ZSTD)
#define V6_DIGEST_MASK (V6_BLAKE3 | V6_SHA256)
#define V6_KNOWN_FLAGS 0xFF0003FFull /* with the reserved ones that readers tolerate */
struct v6_ext {
	le64 flags;
	le64 blob_table;
	le32 blob_table_size;
	le32 chunk_size;
	le64 chunk_table;
	le64 chunk_table_size;
	le64 prefetch_table;
	le32 prefetch_table_size;
	le32 pad;
	uint8_t reserved[200];
};
static_assert(sizeof(struct v6_ext) == 256, "RAFS extension superblock");

#define RAFS_DEVICES_AT 1408u
struct v6_device {
	char id[RAFS_ID_LEN];
	le32 blocks;
	le32 mapped_blkaddr;
	uint8_t reserved[56];
};
static_assert(sizeof(struct v6_device) == 128, "device slot");

/* ---- blob table */
enum v6_compressor { V6_NONE, V6_LZ4, V6_GZIP, V6_ZSTD, V6_COMPRESSORS };
enum v6_digester { V6_DIGEST_BLAKE3, V6_DIGEST_SHA256, V6_DIGESTERS };
enum v6_feature {
	V6_ALIGNED = 0x1,
	V6_INLINED_META = 0x2, /* layer bootstraps only */
	V6_CHUNK_INFO_V2 = 0x4,
	V6_ZRAN = 0x8,
	V6_SEPARATE = 0x10,
	V6_BLOB_DIGEST = 0x20,
	V6_TARFS_BLOB = 0x40,
	V6_BATCH = 0x80,
	V6_ENC_BLOB = 0x100,
	V6_TAR_HEADER = 0x10000000,
	V6_HAS_TOC = 0x20000000,
	V6_CAP_TAR_TOC = 0x40000000,
};
#define V6_FRAMED (V6_ALIGNED | V6_BLOB_DIGEST | V6_TAR_HEADER | V6_HAS_TOC | V6_CAP_TAR_TOC)
#define V6_UNKNOWN_LOW 0xF000u
#define V6_UNKNOWN_HIGH 0x0FFF0000u /* no reader minds */
#define V6_INTERNAL 0x80000000u
struct v6_blob {
	char id[RAFS_ID_LEN];
	le32 index;
	le32 chunk_size;
	le32 chunk_count;
	le32 compressor;
	le32 digester;
	le32 features;
	le64 stored;   /* compressed size */
	le64 unpacked; /* sum of the aligned chunks */
	le32 toc_size;
	le32 ci_compressor;
	le64 ci_offset, ci_stored, ci_unpacked; /* chunk infos, in the blob */
	uint8_t toc_digest[32];
	uint8_t meta_digest[32]; /* zran: of the nydus blob */
	le64 meta_size;
	le64 iv;
	le32 cipher;
	uint8_t reserved[36];
};
static_assert(sizeof(struct v6_blob) == 256, "blob table entry");

/* ---- inodes */
enum v6_layout { V6_FLAT_PLAIN = 0, V6_FLAT_INLINE = 2, V6_CHUNKED = 4 };
#define V6_EXTENDED 1u
struct v6_compact {
	le16 format, xattr_icount, mode, nlink;
	le32 size;
	le32 reserved;
	le32 u;
	le32 ino;
	le16 uid, gid;
	le32 reserved2;
};
static_assert(sizeof(struct v6_compact) == 32, "compact inode");
struct v6_inode {
	le16 format, xattr_icount, mode, reserved;
	le64 size;
	le32 u; /* block, chunk format or device number */
	le32 ino;
	le32 uid, gid;
	le64 mtime;
	le32 mtime_ns;
	le32 nlink;
	uint8_t reserved2[16];
};
static_assert(sizeof(struct v6_inode) == 64, "extended inode");
#define V6_XATTR_HEADER 12u
struct v6_xattr {
	uint8_t name_len, name_index;
	le16 value_len;
};
static_assert(sizeof(struct v6_xattr) == 4, "xattr entry");
#define V6_CHUNK_INDEXES 0x20u
struct v6_chunk_index {
	le16 ci_low;
	uint8_t device; /* blob index + 1 */
	uint8_t ci_high;
	le32 block;
};
static_assert(sizeof(struct v6_chunk_index) == 8, "chunk index");
struct v6_dirent {
	le64 nid;
	le16 nameoff;
	uint8_t type;
	uint8_t reserved;
};
static_assert(sizeof(struct v6_dirent) == 12, "dirent");

/* ---- chunk table */
enum {
	V6_CHUNK_COMPRESSED = 1,
	V6_CHUNK_HOLE = 2,
	V6_CHUNK_ENC = 4,
	V6_CHUNK_BATCH = 8,
	V6_CHUNK_CRC = 0x10
};
struct v6_chunk {
	uint8_t digest[32];
	le32 blob;
	le32 flags;
	le32 stored, unpacked;
	le64 stored_at, unpacked_at, file_at;
	le32 index;
	le32 crc32c;
};
static_assert(sizeof(struct v6_chunk) == 80, "chunk table row");

/* ---- blob.meta: chunk infos, contexts, header */
struct v6_info {
	le64 word[2];
};
static_assert(sizeof(struct v6_info) == 16, "chunk info v1");
enum {
	V6_INFO_COMPRESSED = 1,
	V6_INFO_ZRAN = 2,
	V6_INFO_BATCH = 4,
	V6_INFO_ENC = 8,
	V6_INFO_CRC = 0x10
};
struct v6_info2 {
	le64 word[3];
};
static_assert(sizeof(struct v6_info2) == 24, "chunk info v2");
struct v6_batch {
	le32 stored, unpacked;
	uint8_t reserved[32];
};
static_assert(sizeof(struct v6_batch) == 40, "batch context");
struct v6_zran {
	le64 in, out, dict;
	le32 in_len, out_len, dict_len;
	uint8_t byte, bits;
	le16 reserved;
};
static_assert(sizeof(struct v6_zran) == 40, "zran context");
#define V6_META_MAGIC 0xB10BB10Bu
struct v6_meta {
	le32 magic;
	le32 features;
	le32 ci_compressor;
	le32 chunks;
	le64 ci_offset, ci_stored, ci_unpacked;
	le64 contexts_at, contexts_size;
	le32 contexts;
	uint8_t reserved[4032];
	le32 magic2;
};
static_assert(sizeof(struct v6_meta) == RAFS_BLOCK, "blob.meta header");

/* ---- table of contents, at the blob's end */
enum { V6_TOC_RAW = 1, V6_TOC_ZSTD = 2, V6_TOC_LZ4 = 4 };
struct v6_toc {
	le32 flags;
	le32 reserved;
	char name[16];
	uint8_t digest[32]; /* SHA-256, unpacked */
	le64 offset, stored, unpacked;
	uint8_t reserved2[48];
};
static_assert(sizeof(struct v6_toc) == 128, "TOC entry");

static inline uint64_t rafs_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

#endif
