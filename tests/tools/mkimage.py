#!/usr/bin/env python3
"""Makes an OCI image layout for tests, to be pushed with `skopeo copy --all oci:DIR:TAG docker://…`.

mkimage.py DIR TAG [--platform linux/amd64]… [--codec gzip|zstd|none] [--attest] LAYER…

A LAYER is dir:PATH[,PATH…] (files of this machine), files:N[:SEED] (N small files), size:BYTES[:SEED] (one file),
tar:FILE (as it is), empty, entries:N (N empty files; entries:N:dirs with entries for their folders, too), or =I (the layer number I again).  Layers are shared by all
platforms, but for `only:PLATFORM:LAYER`.
"""
import gzip, hashlib, io, json, os, random, subprocess, sys, tarfile


def add(tar, name, data, mode=0o644, **kw):
    t = tarfile.TarInfo(name)
    t.size, t.mode, t.mtime = len(data), mode, 1700000000
    for k, v in kw.items():
        setattr(t, k, v)
    tar.addfile(t, io.BytesIO(data))


def noise(n, seed):
    """Half compressible bytes, quickly."""
    r = random.Random(seed)
    words = [bytes(r.randrange(97, 123) for _ in range(r.randrange(2, 12))) for _ in range(4000)]
    out = bytearray()
    while len(out) < n:
        out += b" ".join(r.choice(words) for _ in range(2000)) + r.randbytes(2000)
    return bytes(out[:n])


def empty_files(n, dirs):
    """Headers by hand: tarfile takes 40 s for a million."""
    def folder(i):
        t = tarfile.TarInfo(f"e{i:03}/")
        t.type, t.mode = tarfile.DIRTYPE, 0o755
        return t.tobuf(tarfile.USTAR_FORMAT)

    base = bytearray(tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT))
    base[148:156] = b" " * 8
    rest = sum(base)
    out = [folder(i) for i in range(1000 if dirs else 0)]
    for i in range(n):
        name = b"e%03d/%07d" % (i % 1000, i)
        base[0:len(name)] = name
        base[148:156] = b"%06o\0 " % (rest + sum(name))
        out.append(bytes(base))
    return b"".join(out) + bytes(1024)


def layer_tar(spec):
    kind, _, rest = spec.partition(":")
    raw = io.BytesIO()
    if kind == "entries":
        n, _, dirs = rest.partition(":")
        return empty_files(int(n), dirs == "dirs")
    if kind == "tar":
        return open(rest, "rb").read()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if kind == "dir":
            for path in rest.split(","):
                tar.add(path, arcname=path.lstrip("/"), recursive=True)
        elif kind == "files":
            n, _, seed = rest.partition(":")
            r = random.Random(seed or n)
            for i in range(min(int(n), 100)):
                add(tar, f"d{i:02}/", b"", 0o755, type=tarfile.DIRTYPE)
            for i in range(int(n)):
                add(tar, f"d{i % 100:02}/f{i:06}", f"file {i} {r.random()}\n".encode() * r.randrange(1, 40))
        elif kind == "size":
            n, _, seed = rest.partition(":")
            add(tar, f"blob-{seed or 0}", noise(int(n), seed or n))
        elif kind == "kinds":
            add(tar, "bin/", b"", 0o755, type=tarfile.DIRTYPE)
            add(tar, "bin/tool", b"#!/bin/sh\n", 0o4755, uid=1000, gid=1001, uname="u", gname="g")
            add(tar, "bin/hard", b"", 0o4755, uid=1000, gid=1001, uname="u", gname="g", type=tarfile.LNKTYPE, linkname="bin/tool")
            add(tar, "bin/soft", b"", 0o777, type=tarfile.SYMTYPE, linkname="../bin/tool")
            add(tar, "dev/null", b"", 0o666, type=tarfile.CHRTYPE, devmajor=1, devminor=3)
            add(tar, "run/fifo", b"", 0o600, type=tarfile.FIFOTYPE)
            add(tar, "caps", b"x", pax_headers={"SCHILY.xattr.user.k": "v", "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04" + "\0" * 14})
            add(tar, "n" * 150 + "/ä", b"long")
            add(tar, "gone/.wh.old", b"")
            add(tar, "opaque/.wh..wh..opq", b"")
            add(tar, "big", noise(9 << 20, "big"))
            add(tar, "empty", b"")
            add(tar, "old", b"", mtime=0)
            add(tar, "twice", b"one")
            add(tar, "link-to-first", b"", type=tarfile.LNKTYPE, linkname="twice")
            add(tar, "twice", b"two!")
        elif kind != "empty":
            sys.exit(f"unknown layer {spec}")
    return raw.getvalue()


def pack(codec, data):
    if codec == "none":
        return data
    if codec == "zstd":
        return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return gzip.compress(data, 1 if len(data) > 100 << 20 else 6, mtime=0)


TYPES = {"none": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}


class Layout:
    def __init__(self, path):
        self.path = path
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        json.dump({"imageLayoutVersion": "1.0.0"}, open(f"{path}/oci-layout", "w"))

    def blob(self, data, media_type, **more):
        h = hashlib.sha256(data).hexdigest()
        with open(f"{self.path}/blobs/sha256/{h}", "wb") as f:
            f.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{h}", "size": len(data), **more}

    def manifest(self, obj, media_type, **more):
        return self.blob(json.dumps(obj).encode(), media_type, **more)


def main():
    args, platforms, codec, attest, docker, specs = sys.argv[1:], [], "gzip", False, False, []
    out, tag = args[0], args[1]
    i = 2
    while i < len(args):
        if args[i] == "--platform":
            platforms.append(args[i + 1])
            i += 1
        elif args[i] == "--codec":
            codec = args[i + 1]
            i += 1
        elif args[i] == "--attest":
            attest = True
        else:
            specs.append(args[i])
        i += 1
    lay = Layout(out)
    made, entries = {}, []
    for platform in platforms or ["linux/amd64"]:
        layers, diff_ids = [], []
        for spec in specs:
            if spec.startswith("only:"):
                _, p, spec = spec.split(":", 2)
                if p != platform:
                    continue
            if spec.startswith("="):
                layers.append(layers[int(spec[1:])])
                diff_ids.append(diff_ids[int(spec[1:])])
                continue
            if spec not in made:
                data = layer_tar(spec)
                blob = lay.blob(pack(codec, data), "application/vnd.oci.image.layer.v1." + TYPES[codec])
                made[spec] = (blob, "sha256:" + hashlib.sha256(data).hexdigest())
            layers.append(made[spec][0])
            diff_ids.append(made[spec][1])
        os_, arch, *variant = platform.split("/")
        config = {"created": "2024-01-01T00:00:00Z", "architecture": arch, "os": os_,
                  "config": {"Env": ["A=b"], "Cmd": ["/bin/tool"], "Healthcheck": {"Test": ["NONE"]}},
                  "rootfs": {"type": "layers", "diff_ids": diff_ids},
                  "history": [{"created_by": s[:60]} for s in layers and specs], "x-unknown": [1, None, "ä"]}
        if variant:
            config["variant"] = variant[0]
        m = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
             "config": lay.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
             "layers": layers, "annotations": {"org.opencontainers.image.title": "test"}}
        p = {"architecture": arch, "os": os_, **({"variant": variant[0]} if variant else {})}
        entries.append(lay.manifest(m, m["mediaType"], platform=p))
        if attest:
            a = dict(m, config=lay.blob(b'{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}',
                                        "application/vnd.oci.image.config.v1+json"),
                     layers=[lay.blob(b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")])
            entries.append(lay.manifest(a, m["mediaType"], platform={"architecture": "unknown", "os": "unknown"},
                                        annotations={"vnd.docker.reference.type": "attestation-manifest",
                                                     "vnd.docker.reference.digest": entries[-1]["digest"]}))
    ref = {"org.opencontainers.image.ref.name": tag}
    if len(platforms) > 1 or attest:
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
        top = lay.manifest(index, index["mediaType"], annotations=ref)
    else:
        top = dict(entries[0], annotations=ref)
    json.dump({"schemaVersion": 2, "manifests": [top]}, open(f"{out}/index.json", "w"))


if __name__ == "__main__":
    main()
