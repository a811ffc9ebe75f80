#!/usr/bin/env python3
"""Writes one layer tar a trap of formats/estargz.md (duplicates, links, whiteouts, odd headers) into a folder.

  lazy-traps.py FOLDER        each NAME.tar; names that start with "plain-" must end as plain layers
"""
import io, os, random, sys, tarfile

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
T0 = 1700000000


class Layer:
    def __init__(self, name, fmt=tarfile.PAX_FORMAT):
        self.t = tarfile.open(os.path.join(out, name + ".tar"), "w", format=fmt)

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.t.close()

    def add(self, name, data=None, type=tarfile.REGTYPE, link="", mode=0o644, uid=0, gid=0, mtime=T0, dev=(0, 0),
            xattrs=None, uname="", gname=""):
        m = tarfile.TarInfo(name)
        m.type, m.linkname, m.mode, m.uid, m.gid, m.mtime = type, link, mode, uid, gid, mtime
        m.uname, m.gname = uname, gname
        m.devmajor, m.devminor = dev
        for k, v in (xattrs or {}).items():
            m.pax_headers["SCHILY.xattr." + k] = v
        if data is not None:
            m.size = len(data)
        self.t.addfile(m, io.BytesIO(data) if data is not None else None)

    def dir(self, name, **k):
        self.add(name, type=tarfile.DIRTYPE, mode=k.pop("mode", 0o755), **k)

    def ln(self, name, target):
        self.add(name, type=tarfile.LNKTYPE, link=target)

    def sym(self, name, target):
        self.add(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def noise(n, seed=1):
    return random.Random(seed).randbytes(n)


with Layer("types") as l:
    l.dir("./")
    l.dir("d/", mode=0o750, uid=1000, gid=1000, uname="u", gname="g")
    l.add("d/f", b"hello\n", uid=1000, gid=1001, uname="u", gname="h", mode=0o4755)
    l.add("d/sticky", b"", mode=0o1644)
    l.add("d/sgid", b"x" * 100, mode=0o2755)
    l.sym("s", "d/f")
    l.sym("abs", "/d/f")
    l.ln("h", "d/f")
    l.ln("hh", "h")
    l.add("c", type=tarfile.CHRTYPE, dev=(5, 1))
    l.add("b", type=tarfile.BLKTYPE, dev=(8, 17))
    l.add("p", type=tarfile.FIFOTYPE)
    l.add("old", b"1", mtime=-5)
    l.add("frac", b"1", mtime=1500000000.5)
    l.add("x", b"attr", xattrs={"user.a": "1", "user.empty": "", "user.b": "zwei=2"})
    l.add("big-ids", b"i", uid=3000000, gid=4000000)
    l.add("n" * 200, b"long name")
    l.dir("dir-" + "a" * 90 + "/")
    l.add("dir-" + "a" * 90 + "/" + "b" * 90, b"long path")
    l.add("ünïcode-文件", b"utf8")
    l.add('quote"\\<&>\x01', b"json")

with Layer("empty"):
    pass
with Layer("implied-parents") as l:
    l.add("a/b/c", b"1", uid=5)
    l.sym("d/e", "f")
with Layer("only-dirs") as l:
    for i in range(10):
        l.dir("d%d/" % i)
with Layer("chunks") as l:
    m4 = 4 << 20
    for i, n in enumerate((m4 - 1, m4, m4 + 1, 2 * m4, 2 * m4 + 12345)):
        l.add("f%d" % i, noise(1000, i) * (n // 1000) + noise(n % 1000, i))
    l.add("zeros", bytes(10 << 20))
with Layer("duplicates") as l:
    l.dir("a/", mode=0o700)
    l.add("a/f", b"old content that goes away")
    l.add("other", b"between")
    l.add("./a/f", b"new")
    l.dir("a", mode=0o755)
    l.add("/a//g", b"first")
    l.add("a/./g", b"second")
    l.sym("z", "x")
    l.add("z", b"was a link")
with Layer("links-to-replaced") as l:
    l.add("a", noise(5 << 20))
    l.ln("b", "a")
    l.ln("c", "a")
    l.ln("d", "c")
    l.add("a", b"another file")
    l.ln("e", "a")
    l.sym("s", "target")
    l.ln("s2", "s")
    l.add("s", b"now a file")
with Layer("file-over-directory") as l:
    l.dir("d/")
    l.add("d/x", b"gone")
    l.dir("d/sub/")
    l.add("d/sub/y", b"gone too")
    l.ln("kept", "d/x")
    l.add("d", b"now a file")
    l.add("k/implied", b"gone")
    l.add("k", b"file over an implied directory")
    l.add("m/old", b"gone")
    l.add("m", b"file")
    l.dir("m/")
    l.add("m/new", b"stays")
with Layer("late-link") as l:
    l.ln("b", "a")
    l.add("a", b"comes later")
with Layer("plain-dangling-link") as l:
    l.add("a", b"1")
    l.ln("b", "nowhere")
    l.add("c", b"2")
with Layer("plain-below-symlink") as l:
    l.dir("real/")
    l.sym("ln", "real")
    l.add("ln/f", b"lands in real")
with Layer("whiteouts") as l:
    l.dir("d/")
    l.add("d/.wh.gone", b"")
    l.add("d/.wh.back", b"")
    l.add("d/back", b"recreated")
    l.dir("o/")
    l.add("o/.wh..wh..opq", b"")
    l.add("o/new", b"1")
with Layer("lower") as l:
    l.dir("d/")
    l.add("d/gone", b"1")
    l.add("d/back", b"old")
    l.add("d/stays", b"1")
    l.dir("o/")
    l.add("o/hidden", b"1")
with Layer("reserved-names") as l:
    l.add(".no.prefetch.landmark", b"\x0f")
    l.add("a", b"1")
    l.add("./.prefetch.landmark", b"not one byte")
    l.add("d/.prefetch.landmark", b"an ordinary file")
    l.add("stargz.index.json", b"{}" * 1000)
    l.add("d/stargz.index.json", b"ordinary too")
with Layer("many-headers") as l:
    l.add("first", b"1")
    for i in range(20000):
        l.add("e/%05d" % i, b"")
    l.add("last", b"2")
with Layer("small-files") as l:
    for i in range(20000):
        l.add("s/%03d/%05d.txt" % (i % 200, i), b"line %d\n" % i * (i % 100 + 1))
with Layer("gnu", tarfile.GNU_FORMAT) as l:
    l.add("g" * 150, b"gnu long name")
    l.sym("gl", "t" * 150)
    l.add("neg", b"1", mtime=-100)
    l.add("ids", b"1", uid=1 << 22)
with Layer("ustar", tarfile.USTAR_FORMAT) as l:
    l.add("p" * 100 + "/" + "q" * 90, b"prefix")


def patch(name, to, fn):
    b = bytearray(open(os.path.join(out, name + ".tar"), "rb").read())
    fn(b)
    open(os.path.join(out, to + ".tar"), "wb").write(b)
    os.unlink(os.path.join(out, name + ".tar"))


def fix_sum(b, at):
    b[at + 148:at + 156] = b" " * 8
    b[at + 148:at + 156] = b"%06o\0 " % sum(b[at:at + 512])


with Layer("tmp") as l:
    l.add("seven", b"contiguous")
    l.add("next", b"1")


def seven(b):
    b[156] = ord("7")
    fix_sum(b, 0)


patch("tmp", "type-seven", seven)
with Layer("tmp", tarfile.USTAR_FORMAT) as l:
    l.add("a-Xb", b"not UTF-8")
    l.add("c", b"1")


def latin(b):
    b[2] = 0xe4
    fix_sum(b, 0)


patch("tmp", "plain-not-utf8", latin)
t = tarfile.open(os.path.join(out, "pax-global.tar"), "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "0123456789"})
m = tarfile.TarInfo("f")
m.size, m.mtime = 3, T0
t.addfile(m, io.BytesIO(b"abc"))
t.close()
with Layer("tmp") as l:
    l.add("f", b"before the end")
patch("tmp", "garbage-after-end", lambda b: b.extend(b"garbage" * 300))
# sparse, as GNU tar writes them
d = os.path.join(out, "sparse.d")
os.makedirs(d, exist_ok=True)
with open(os.path.join(d, "sparse"), "wb") as f:
    f.write(b"head")
    f.seek(9 << 20)
    f.write(b"middle")
    f.truncate(12 << 20)
os.utime(os.path.join(d, "sparse"), (T0, T0))
for fmt, extra in (("gnu", []), ("pax", ["--sparse-version=0.0"]), ("pax", ["--sparse-version=0.1"]), ("pax", ["--sparse-version=1.0"])):
    name = "sparse-%s%s" % (fmt, extra[0][-3:] if extra else "")
    import subprocess
    subprocess.run(["tar", "-C", d, "--format=" + fmt, "--sparse", "--owner=7", "--group=8", "--numeric-owner", *extra, "-cf",
                    os.path.join(out, name + ".tar"), "sparse"], check=True)
os.unlink(os.path.join(d, "sparse"))
os.rmdir(d)
