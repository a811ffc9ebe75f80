#!/usr/bin/env python3
"""Pushes an image made of layer files to a plain-HTTP registry; prints its manifest's digest.

  push-image.py HOST:PORT/REPO:TAG LAYER[=RESULT.json]...

A LAYER alone is a tar (plain, gzip or zstd).  With RESULT.json, as `accelctl layer pack --result` writes it, media type,
annotations and diff_id come from there.  --docker: Docker's media types.
"""
import gzip, hashlib, http.client, json, subprocess, sys


def sha(b):
    return "sha256:" + hashlib.sha256(b).hexdigest()


def unpack(b):
    if b[:2] == b"\x1f\x8b":
        return gzip.decompress(b), "+gzip"
    if b[:4] in (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"):
        return subprocess.run(["zstd", "-dcq"], input=b, stdout=subprocess.PIPE, check=True).stdout, "+zstd"
    return b, ""


class Registry:
    def __init__(self, ref):
        self.host, _, rest = ref.partition("/")
        self.repo, _, self.tag = rest.rpartition(":")

    def call(self, method, path, body=None, headers={}):
        c = http.client.HTTPConnection(self.host, timeout=60)
        c.request(method, path, body, headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r, data

    def blob(self, b):
        d = sha(b)
        r, _ = self.call("HEAD", f"/v2/{self.repo}/blobs/{d}")
        if r.status == 200:
            return d
        r, _ = self.call("POST", f"/v2/{self.repo}/blobs/uploads/")
        assert r.status == 202, r.status
        loc = r.getheader("Location").split(self.host, 1)[-1]
        r, data = self.call("PUT", loc + ("&" if "?" in loc else "?") + "digest=" + d, b,
                            {"Content-Type": "application/octet-stream"})
        assert r.status == 201, (r.status, data)
        return d

    def manifest(self, m, tag):
        b = json.dumps(m).encode()
        r, data = self.call("PUT", f"/v2/{self.repo}/manifests/{tag}", b, {"Content-Type": m["mediaType"]})
        assert r.status == 201, (r.status, data)
        return sha(b)


def main():
    args = [a for a in sys.argv[1:] if a != "--docker"]
    docker = len(args) != len(sys.argv) - 1
    reg = Registry(args[0])
    layers, diff_ids = [], []
    for a in args[1:]:
        path, _, result = a.partition("=")
        b = open(path, "rb").read()
        if result:
            r = json.load(open(result))
            assert r["digest"] == sha(b) and r["size"] == len(b), "the result is not of this blob"
            layer = {"mediaType": r["media_type"], "annotations": r.get("annotations", {})}
            diff_ids.append(r["diff_id"])
        else:
            raw, suffix = unpack(b)
            layer = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker
                     else "application/vnd.oci.image.layer.v1.tar" + suffix}
            diff_ids.append(sha(raw))
        layer.update(digest=reg.blob(b), size=len(b))
        layers.append(layer)
    cfg = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                      "rootfs": {"type": "layers", "diff_ids": diff_ids},
                      "history": [{"created_by": "test"} for _ in layers]}).encode()
    kind = "docker.distribution.manifest.v2" if docker else "oci.image.manifest.v1"
    ckind = "docker.container.image.v1" if docker else "oci.image.config.v1"
    print(reg.manifest({"schemaVersion": 2, "mediaType": f"application/vnd.{kind}+json",
                        "config": {"mediaType": f"application/vnd.{ckind}+json", "digest": reg.blob(cfg),
                                   "size": len(cfg)}, "layers": layers}, reg.tag))


main()
