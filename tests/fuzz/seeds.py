#!/usr/bin/env python3
"""Writes the first corpora of fuzz_tar, fuzz_gzip and fuzz_zstd: small ones of each shape.  Needs the zstd program."""
import glob
import gzip
import os
import shutil
import subprocess
import zlib

here = os.path.dirname(os.path.abspath(__file__))
text = b"".join(b"line %d of something that repeats\n" % (i % 17) for i in range(40))
noise = bytes((i * i * 7 + i // 3) % 256 for i in range(700))


def put(corpus, name, data):
    os.makedirs(os.path.join(here, "corpus", corpus), exist_ok=True)
    with open(os.path.join(here, "corpus", corpus, name), "wb") as f:
        f.write(data)


def raw(data, level, strategy=zlib.Z_DEFAULT_STRATEGY, flush=None):
    c = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    out = c.compress(data[:300])
    if flush is not None:
        out += c.flush(flush)
    return out + c.compress(data[300:]) + c.flush()


def member(data, flags=0):
    h = bytes([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255])
    if flags & 4:
        h += b"\x06\0SG\2\0xy"
    if flags & 8:
        h += b"name\0"
    if flags & 16:
        h += b"comment\0"
    if flags & 2:
        h += (zlib.crc32(h) & 0xffff).to_bytes(2, "little")
    return h + raw(data, 6) + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


AS_IT_IS, WRAPPED = b"\0\5", b"\1\5"
put("gzip", "member", AS_IT_IS + gzip.compress(text, mtime=0))
put("gzip", "members", AS_IT_IS + member(text) + member(b"") + member(noise, 8))
put("gzip", "all-header-fields", AS_IT_IS + member(text[:50], 2 | 4 | 8 | 16))
put("gzip", "padded", AS_IT_IS + member(text[:50]) + bytes(64))
put("gzip", "cut", AS_IT_IS + member(text)[:-3])
put("gzip", "garbage-after", AS_IT_IS + member(text[:50]) + b"garbage")
for level in (0, 1, 6, 9):
    put("gzip", "deflate-%d" % level, WRAPPED + raw(text + noise, level))
put("gzip", "deflate-fixed", WRAPPED + raw(text, 6, zlib.Z_FIXED))
put("gzip", "deflate-huffman", WRAPPED + raw(noise, 6, zlib.Z_HUFFMAN_ONLY))
for name, flush in (("sync", zlib.Z_SYNC_FLUSH), ("partial", zlib.Z_PARTIAL_FLUSH), ("block", zlib.Z_BLOCK)):
    put("gzip", "deflate-flush-" + name, WRAPPED + raw(text, 6, flush=flush))


def frame(data, *args):
    return subprocess.run(["zstd", "-q", "-c", *args], input=data, stdout=subprocess.PIPE, check=True).stdout


skippable = b"\x5a\x2a\x4d\x18\x05\0\0\0extra"
put("zstd", "frame", b"\5" + frame(text))
put("zstd", "without-checksum", b"\5" + frame(text, "--no-check"))
put("zstd", "level-19", b"\5" + frame(text + noise, "-19"))
put("zstd", "noise", b"\5" + frame(noise))
put("zstd", "empty", b"\5" + frame(b""))
put("zstd", "frames", b"\5" + frame(text[:100]) + skippable + frame(noise[:100]) + frame(b"") + skippable)
put("zstd", "cut", b"\5" + frame(text)[:-6])
put("zstd", "garbage-after", b"\5" + frame(text) + b"garbage")
put("zstd", "large-window", b"\5" + b"\x28\xb5\x2f\xfd\x00\x70\x19\x00\x00abc")

os.makedirs(os.path.join(here, "corpus", "tar"), exist_ok=True)
for f in glob.glob(os.path.join(here, "..", "fixtures", "tar", "*.tar")):
    if os.path.getsize(f) < 16384:
        shutil.copyfile(f, os.path.join(here, "corpus", "tar", os.path.basename(f)[:-4]))
