#!/bin/bash
# Pulls images with the podman of another Debian tree (5 or newer: the one that knows today's zstd:chunked) and compares what
# it made of the last with a reference.
#
#   judge-podman.sh TREE STORE REFERENCE IMAGE_REF...
#
# TREE       folder of a Debian with podman, as debootstrap makes it (see zstdchunked-podman5)
# STORE      a folder on a disk that overlayfs takes as upper: podman's storage, kept between calls
# REFERENCE  as treecmp.py takes it; IMAGE_REF is HOST:PORT/REPO:TAG of a plain-HTTP loopback registry
#
# Exit 0 the tree is right, 1 it is not, 3 it could not be pulled, 2 the environment.  Mounts live in a namespace of
# their own and end with it.  Needs root.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" != --inside ]; then
  [ $# -ge 4 ] || { sed -n 2,13p "$0"; exit 2; }
  exec unshare --mount --propagation private "$0" --inside "$@"
fi
shift
tree=$(cd "$1" && pwd) || exit 2
mkdir -p "$2" && store=$(cd "$2" && pwd) || exit 2
reference=$3
shift 3
mount --bind "$tree" "$tree" && cd "$tree" || exit 2 # unpacking wants its root to be a mount
for m in proc sys dev; do mount --rbind "/$m" "$tree/$m" || exit 2; done
mount -t tmpfs tmpfs "$tree/run" && mount -t tmpfs tmpfs "$tree/mnt" && mkdir "$tree/mnt/store" || exit 2
mount --bind "$store" "$tree/mnt/store" || exit 2
cat >"$tree/mnt/storage.conf" <<T
[storage]
driver = "overlay"
runroot = "/run/store"
graphroot = "/mnt/store"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
T
for host in $(printf '%s\n' "${@%%/*}" | sort -u); do
  printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$host"
done >"$tree/mnt/registries.conf"
podman() {
  chroot "$tree" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt CONTAINERS_STORAGE_CONF=/mnt/storage.conf \
    CONTAINERS_REGISTRIES_CONF=/mnt/registries.conf podman "$@"
}
for ref in "$@"; do
  podman --log-level debug pull "$ref" >"$tree/mnt/out" 2>"$tree/mnt/err" || { grep -v level=debug "$tree/mnt/err" | tail -3; exit 3; }
  grep -o 'Retrieved partial blob [^"]*' "$tree/mnt/err"
done
at=$(podman image mount "$ref") || exit 2
python3 "$here/treecmp.py" compare "$reference" "$tree$at" --storage
rc=$?
for dir in ${OPEN_DIRS:-}; do # treecmp leaves alone what no entry tells of
  mode=$(stat -c %a "$tree$at/$dir")
  [ "$mode" = 755 ] || { echo "$dir has mode $mode"; rc=1; }
done
podman image umount "$ref" >"$tree/mnt/out" 2>&1
exit $rc
