#!/usr/bin/env bash
# Installs what acceld needs from Debian 12's packages:  scripts/deps.sh [run] [build] [test] [demo]   (default: build)
#   run    to run the programs     build  to compile them     test  to test them against real peers     demo  for scripts/demo.sh
# Needs root, or sudo.  Packages that are there already are left alone.
set -euo pipefail
run=(libevent-2.1-7 libevent-openssl-2.1-7 libevent-pthreads-2.1-7 libhiredis0.14 libcurl4 libjson-c5 libyaml-0-2 libssl3 libzstd1
	zlib1g libdeflate0 liblz4-1 libisal2 redis-server ca-certificates)
build=(gcc libc6-dev make pkg-config libevent-dev libhiredis-dev libcurl4-openssl-dev libjson-c-dev libyaml-dev libssl-dev
	libzstd-dev zlib1g-dev libdeflate-dev liblz4-dev libisal-dev)
test=(clang clang-format clang-tidy libclang-rt-14-dev cppcheck shellcheck libcmocka-dev redis-server docker-registry skopeo
	buildah umoci containerd runc stargz-snapshotter fuse3 jq python3 python3-yaml python3-jsonschema zstd lz4 golang-go
	golang-github-containerd-stargz-snapshotter-dev erofs-utils strace spin mandoc systemd debootstrap openssl curl attr procps iproute2 git apache2-utils bc docker.io)
demo=(docker-registry skopeo umoci curl apache2-utils bc)
packages=()
[ $# -gt 0 ] || set -- build
for group in "$@"; do
	case $group in
	run) packages+=("${run[@]}") ;;
	build) packages+=("${build[@]}") ;;
	test) packages+=("${test[@]}") ;;
	demo) packages+=("${demo[@]}") ;;
	*) echo "deps.sh: unknown group '$group' (run, build, test, demo)" >&2; exit 2 ;;
	esac
done
missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || { echo "deps.sh: nothing to install"; exit 0; }
echo "deps.sh: installing ${missing[*]}"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
# Services of these packages must not start by themselves: tests start their own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
	$sudo chmod +x $policy
	made=1
fi
rc=0
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || rc=$?
[ -z "$made" ] || $sudo rm -f $policy
exit $rc
