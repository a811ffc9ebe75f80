"""Shared by tests/accept: images as arguments.

An IMAGE is an OCI layout folder (tag v1), or anything skopeo reads (docker://…, docker-archive:…, containers-storage:…),
or spec:LAYER,LAYER… of tests/tools/mkimage.py.  Without arguments each script makes small ones.
"""
import os, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from lab import *


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
