#!/usr/bin/env python3
"""Writes layers that are tars by hand, each with one oddity that readers of zstd:chunked are known, or might be feared, to refuse.

  odd-layers.py FOLDER        each NAME.tar
"""
import os, random, sys

END = bytes(1024)
PLAIN = "plain"  # a file that is in most of them


def number(v, n):
    """Octal; what that cannot hold in base 256."""
    if 0 <= v < 8 ** (n - 1):
        return b"%0*o\0" % (n - 1, v)
    b = bytearray(v.to_bytes(n, "big", signed=True))
    b[0] |= 0x80
    return bytes(b)


def header(name, type="0", size=0, mode=0o644, uid=0, gid=0, mtime=1700000000, link="", dev=(0, 0), magic=b"ustar\00000"):
    b = bytearray(512)
    fields = ((0, name), (100, number(mode, 8)), (108, number(uid, 8)), (116, number(gid, 8)), (124, number(size, 12)),
              (136, number(mtime, 12)), (148, b" " * 8), (156, type), (157, link), (257, magic))
    for at, v in fields + (((329, number(dev[0], 8)), (337, number(dev[1], 8))) if magic.startswith(b"ustar\0") else ()):
        v = v if isinstance(v, bytes) else v.encode()
        b[at:at + len(v)] = v
    b[148:156] = b"%06o\0 " % sum(b)
    return bytes(b)


def file(name, data=b"", **k):
    return header(name, size=len(data), **k) + data + bytes(-len(data) % 512)


def folder(name="d/", **k):
    return header(name, "5", mode=k.pop("mode", 0o755), **k)


def symlink(name, to):
    return header(name, "2", link=to, mode=0o777)


def hard(name, to, **k):
    return header(name, "1", link=to, **k)


def pax(*records):
    body = b""
    for k, v in records:
        rest = b" " + k.encode() + b"=" + (v if isinstance(v, bytes) else v.encode()) + b"\n"
        n = len(rest) + len(str(len(rest)))
        body += str(len(rest) + len(str(n))).encode() + rest
    return header("PaxHeaders/x", "x", len(body)) + body + bytes(-len(body) % 512)


def noise(n, seed=1):
    return random.Random(seed).randbytes(n)


base = file(PLAIN, b"a plain file\n")
x = file("x", b"data")
M4 = 4 << 20
LAYERS = {
    # what a header says and an entry has no use for
    "file-with-device": base + file("x", b"data", dev=(5, 3)),
    "file-with-link": base + file("x", b"data", link=PLAIN),
    "folder-with-link": base + folder(link=PLAIN),
    "folder-with-device": base + folder(dev=(1, 2)),
    "folder-with-size": base + folder(size=77),
    "hard-link-with-size": base + hard("h", PLAIN, size=13),
    "hard-link-with-device": base + hard("h", PLAIN, dev=(1, 2)),
    "symlink-with-size": base + header("s", "2", 5, link=PLAIN, mode=0o777),
    "device-with-size": base + header("c", "3", 5, dev=(1, 3)),
    # numbers
    "uid-negative": base + file("x", b"data", uid=-1),
    "uid-of-32-bits": base + file("x", b"data", uid=2 ** 32 - 2, gid=2 ** 31),
    "mode-negative": base + file("x", b"data", mode=-1),
    "mode-of-33-bits": base + file("x", b"data", mode=0x1000081A4),
    "mode-with-type": base + file("x", b"data", mode=0o100644),
    "time-negative": base + file("x", b"data", mtime=-5),
    "time-of-year-10000": base + file("x", b"data", mtime=253402300800),
    "times-of-pax": base + pax(("mtime", "1.5"), ("atime", "-1.25"), ("ctime", "1700000000.000000001")) + x,
    "time-zero": base + pax(("atime", "0")) + file("x", b"data", mtime=0),
    # extended attributes
    "xattr-empty": base + pax(("SCHILY.xattr.user.e", "")) + x,
    "xattr-of-all-bytes": base + pax(("SCHILY.xattr.user.e", bytes(range(256)))) + x,
    "xattr-with-equals-sign": base + pax(("SCHILY.xattr.user.a=b", "c")) + x,
    "xattr-twice": base + pax(("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.a", "2")) + x,
    # names
    "name-absolute": file("/abs", b"1") + folder("/d/") + file("/d/f", b"2"),
    "name-with-dots": folder() + file("d/./x", b"1") + file("d//y", b"2") + file("...", b"3") + file("..a", b"4"),
    "name-of-a-folder": base + file("d/", b"contents"),
    "name-empty": base + file("", b"contents"),
    "names-for-json": b"".join(file(n, n.encode()) for n in ("a\nb", "a\\b", 'a"b', "<&>", "\u2028", "\x7f\x01", " ", "ä\U0001f600")),
    "name-of-255": pax(("path", "n" * 255)) + file("short", b"1"),
    "root-alone": folder("./", mode=0o711) + x,
    # links
    "link-to-a-fifo": header("p", "6") + hard("h", "p"),
    "link-to-a-device": header("c", "3", dev=(1, 3)) + hard("h", "c"),
    "link-to-a-symlink": base + symlink("s", "nowhere") + hard("h", "s"),
    "link-to-a-link": base + hard("h", PLAIN) + hard("h2", "h"),
    "link-before-its-target": hard("h", PLAIN) + base,
    "link-with-dots": folder() + base + hard("d/h", "d/../plain") + hard("h", "./plain") + hard("h2", "/plain"),
    "link-through-a-symlink": folder() + file("d/f", b"1") + symlink("s", "d") + hard("h", "s/f"),
    "link-to-itself": base + hard("h", "h"),
    # whiteouts
    "whiteout-with-contents": base + file(".wh.gone", b"contents"),
    "whiteout-that-is-a-folder": base + folder(".wh.d/"),
    "whiteout-opaque-late": folder() + file("d/f", b"1") + file("d/.wh..wh..opq"),
    # holes and chunks
    "zeros": file("z", bytes(9 << 20)) + file("y", bytes(1023)) + file("w", bytes(1024)),
    "hole-at-the-beginning": file("z", bytes(5 << 20) + b"end"),
    "hole-at-the-end": file("z", b"begin" + bytes(5 << 20)) + file("y", b"begin" + bytes(1000)),
    "holes": file("z", bytes(2000) + noise(3000) + bytes(1 << 20) + noise(300000) + bytes(1024) + b"x" + bytes(1023) + b"y" + bytes(70000)),
    "chunk-of-4-mib-and-a-hole": file("z", b"a" * M4 + bytes(2048) + b"x"),
    "chunks-of-4-mib": file("z", b"a" * 2 * M4) + file("y", b"a" * M4) + file("w", b"a" * M4 + b"b"),
    # ends
    "empty": b"",
    "folder-alone": folder(),
    "padding-of-other-bytes": header("x", size=5) + b"12345" + b"\xaa" * 507 + base,
    "zeros-behind-the-end": base + bytes(10240),
    "bytes-behind-the-end": base + END + b"garbage",
    "v7": header("x", size=3, magic=bytes(8)) + b"abc" + bytes(509) + folder(magic=bytes(8)),
}

if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, tar in LAYERS.items():
        with open(f"{sys.argv[1]}/{name}.tar", "wb") as f:
            f.write(tar if name.startswith("bytes-behind") else tar + END)
