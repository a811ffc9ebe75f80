"""Shared by tests/accept: images as arguments.

An IMAGE is an OCI layout folder (tag v1), or anything skopeo reads (docker://…, docker-archive:…, containers-storage:…),
or spec:LAYER,LAYER… of tests/tools/mkimage.py.  Without arguments each script makes small ones.

`--driver NAME[,KEY=VALUE…]`, once or more, where a script knows it: these alone; else all of DRIVERS, or what the script says.
"""
import os, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from lab import *


DRIVERS = ("estargz", "zstdchunked", "zstdchunked,dialect=podman", "zstdchunked,dialect=both/podman", "nydus", "nydus,oci_ref=true",
           "nydus,batch_size=0x40000")


class Driver:
    def __init__(self, text):
        self.text = text
        self.name, *options = text.split(",")
        self.options = dict(o.split("=", 1) for o in options)
        self.suffix = "-" + re.sub("[^a-z0-9]+", "-", text)

    def args(self, suffix=""):
        """accelctl convert's, with a tag of its own."""
        out = ["--driver", self.name, "--tag", "{tag}" + self.suffix + suffix]
        for k, v in self.options.items():
            out += ["--option", f"{k}={v}"]
        return out


def drivers(usual=DRIVERS):
    """Those of the command line, which loses them."""
    asked = []
    while "--driver" in sys.argv:
        at = sys.argv.index("--driver")
        asked.append(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    return [Driver(x) for x in asked or usual]


def load(d, reg, images, defaults, repo="accept/img"):
    """Pushes each image; returns [(name, tag)]."""
    out = []
    for i, image in enumerate(images or defaults):
        tag = f"i{i}"
        if image.startswith("spec:"):
            mkimage(f"{d}/{tag}", *image[5:].split(","))
            push(f"{d}/{tag}", reg.host, repo, tag)
        else:
            src = f"oci:{image}:v1" if os.path.isdir(image) else image
            subprocess.run(["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", src,
                            f"docker://{reg.host}/{repo}:{tag}"], check=True)
        out.append((image, tag))
    return out


def manifests(reg, repo, tag):
    top, _ = manifest(reg.host, repo, tag)
    if top is None or "errors" in top:
        return []
    return [top] if "layers" in top else [manifest(reg.host, repo, x["digest"])[0] for x in top["manifests"]]
