#!/usr/bin/env bash
# The main job from end to end, on this machine alone: a private registry, acceld, a push, Harbor's webhook, and the
# converted images beside the source.  Cleans up after itself.  Needs root or sudo once, to install packages.
#
#   scripts/demo.sh          run it
#   scripts/demo.sh -k       and keep everything running at the end, to look around (Ctrl-C ends it)
set -euo pipefail
cd "$(dirname "$0")/.."
keep=
[ "${1:-}" = -k ] && keep=1

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then b=$'\e[1m' g=$'\e[32m' d=$'\e[2m' r=$'\e[0m'; else b='' g='' d='' r=''; fi
step() { printf '\n%s==> %s%s\n' "$b" "$*" "$r"; }
note() { printf '    %s%s%s\n' "$d" "$*" "$r"; }
size() { numfmt --to=iec-i --suffix=B --format=%.1f "$1"; }

work=$(mktemp -d "${TMPDIR:-/tmp}/acceld-demo.XXXXXX")
pids=()
cleanup() {
	local status=$?
	trap - EXIT INT TERM
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
		kill "${pids[i]}" 2>/dev/null || true
		wait "${pids[i]}" 2>/dev/null || true
	done
	if [ $status != 0 ] && [ -s "$work/acceld.log" ]; then
		printf '\nThe end of acceld'"'"'s log:\n' >&2
		tail -n 15 "$work/acceld.log" >&2
	fi
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

free_port() { # one that nobody listens on now
	local p
	for _ in $(seq 50); do
		p=$((20000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo $p; return; }
	done
	echo "no free port" >&2
	return 1
}
wait_for() { # WHAT COMMAND...
	local what=$1
	shift
	for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
	echo "$what does not come up" >&2
	return 1
}

step "Installing what is needed, building"
scripts/deps.sh run build demo
make -s -j"$(nproc)" all
note "built: $(cd build && echo acceld accel-api-server accel-worker accelctl)"

step "A private registry"
registry=$(free_port) api=$(free_port)
password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
header="Bearer $(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')"
umask 077
mkdir -p "$work/registry" "$work/state"
printf '%s' "$password" | htpasswd -niB demo >"$work/htpasswd"
cat >"$work/registry.yml" <<-Y
	version: 0.1
	log: {level: error}
	storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
	auth: {htpasswd: {realm: demo, path: $work/htpasswd}}
	http: {addr: "127.0.0.1:$registry"}
Y
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
pids+=($!)
wait_for "the registry" curl -s "http://127.0.0.1:$registry/v2/"
note "docker-registry on 127.0.0.1:$registry, login required"

step "acceld: API server, worker and a Redis of its own, in one command"
cat >"$work/config.yaml" <<-Y
	server: {name: API, host: 127.0.0.1, port: $api}
	metric: {enabled: true}
	provider:
	  work_dir: $work/state
	  source:
	    "127.0.0.1:$registry":
	      auth: $(printf 'demo:%s' "$password" | base64 -w0)
	      webhook: {auth_header: "$header"}
	converter: {worker: 2, platforms: linux/amd64}
	rules:
	  - name: demo
	    match: {repository: "**"}
	    targets:
	$(for driver in estargz nydus zstdchunked; do
		build/accelctl layer pack --driver $driver /dev/null >/dev/null 2>&1 || continue
		case $driver in estargz) s=esgz ;; zstdchunked) s=zstd ;; *) s=$driver ;; esac
		echo "      - {driver: $driver, tag: \"{tag}-$s\"}"
	done)
Y
build/accelctl config check "$work/config.yaml" 2>/dev/null | sed 's/^/    /'
build/acceld --config "$work/config.yaml" >"$work/acceld.log" 2>&1 &
pids+=($!)
wait_for acceld curl -sf "http://127.0.0.1:$api/readyz"
note "listening on 127.0.0.1:$api; pid ${pids[-1]}"

step "An image of several layers, from Debian packages"
mkdir "$work/debs" "$work/layers"
layer() { # NAME PACKAGE...
	local name=$1
	shift
	(cd "$work/debs" && apt-get download -qq "$@" >/dev/null 2>&1)
	mkdir "$work/layers/$name"
	for p in "$@"; do dpkg-deb -x "$work"/debs/"$p"_*.deb "$work/layers/$name"; done
	note "$(printf '%-8s %s' "$name" "$(du -sh --apparent-size "$work/layers/$name" | cut -f1)")  $*"
}
umask 022
chmod 755 "$work/debs" "$work/layers"
layer base base-files libc6 bash coreutils libtinfo6 libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10 tzdata
layer python libpython3.11-minimal libpython3.11-stdlib python3.11-minimal zlib1g libexpat1 libssl3
layer web nginx-common nginx-light perl-base
umoci init --layout "$work/image"
umoci new --image "$work/image:v1"
for l in base python web; do umoci insert --image "$work/image:v1" "$work/layers/$l" / 2>/dev/null; done
umoci config --image "$work/image:v1" --architecture amd64 --os linux --config.cmd /bin/bash
source_ref=127.0.0.1:$registry/demo/web:v1

step "Push, and the webhook that Harbor would send"
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$registry" "$(printf 'demo:%s' "$password" | base64 -w0)" >"$work/auth.json"
chmod 600 "$work/auth.json"
skopeo copy -q --authfile "$work/auth.json" --dest-tls-verify=false "oci:$work/image:v1" "docker://$source_ref"
digest=$(skopeo inspect --authfile "$work/auth.json" --tls-verify=false --format '{{.Digest}}' "docker://$source_ref")
note "pushed $source_ref"
cat >"$work/event.json" <<-J
	{"type":"PUSH_ARTIFACT","occur_at":$(date +%s),"operator":"robot\$demo","event_data":{"resources":[{"digest":"$digest","tag":"v1","resource_url":"$source_ref"}],"repository":{"name":"web","namespace":"demo","repo_full_name":"demo/web","repo_type":"private"}}}
J
printf 'Authorization: %s\n' "$header" >"$work/header"
id=$(curl -sS -D - -o /dev/null -H @"$work/header" -H 'Content-Type: application/json' --data-binary @"$work/event.json" \
	"http://127.0.0.1:$api/api/v1/conversions" | tr -d '\r' | sed -n 's/^X-Accel-Task-Id: //Ip')
note "accepted as task $id"

step "Converting"
export ACCEL_ADDR=127.0.0.1:$api
build/accelctl task watch "$id" 2>/dev/null | sed 's/^/    /'

step "Result"
build/accelctl task list 2>/dev/null
echo
build/accelctl task get -o json "$id" 2>/dev/null >"$work/task.json"
printf '    %-12s %-42s %s\n' FORMAT REFERENCE SIZE
printf '    %-12s %-42s %s\n' source "$source_ref" "$(size "$(grep -o '"source_size": *[0-9]*' "$work/task.json" | head -1 | tr -dc 0-9)")"
for tag in $(skopeo list-tags --authfile "$work/auth.json" --tls-verify=false "docker://${source_ref%:*}" | grep -o '"v1-[a-z]*"' | tr -d '"'); do
	bytes=$(skopeo inspect --authfile "$work/auth.json" --tls-verify=false --raw "docker://${source_ref%:*}:$tag" >"$work/m.json"
		grep -q '"manifests"' "$work/m.json" && skopeo inspect --authfile "$work/auth.json" --tls-verify=false --raw \
			"docker://${source_ref%:*}@$(grep -o 'sha256:[0-9a-f]*' "$work/m.json" | head -1)" >"$work/m.json"
		tr '{' '\n' <"$work/m.json" | grep -o '"size": *[0-9]*' | tr -dc '0-9\n' | paste -sd+ | bc)
	printf '    %-12s %-42s %s\n' "${tag#v1-}" "${source_ref%:*}:$tag" "$(size "$bytes")"
done

step "Checked against the source, entry by entry"
for tag in $(skopeo list-tags --authfile "$work/auth.json" --tls-verify=false "docker://${source_ref%:*}" | grep -o '"v1-[a-z]*"' | tr -d '"'); do
	build/accelctl check --config "$work/config.yaml" "${source_ref%:*}:$tag" 2>/dev/null | sed 's/^/    /'
done
printf '\n%sDone.%s  %s\n' "$g$b" "$r" "The converted images lie beside the source, under tags of their own, made from one pull."
cat <<T

    Look further
      build/accelctl inspect REF         what an image's layers are
      build/accelctl task --help         list, get, watch, cancel, retry
      curl 127.0.0.1:PORT/metrics        upstream's metrics, and ours
      README.md                          Harbor's webhook, robot accounts, a cluster's nodes, Kubernetes
T
if [ -n "$keep" ]; then
	note "kept: registry 127.0.0.1:$registry (demo / $password), acceld 127.0.0.1:$api, files in $work; Ctrl-C ends it"
	wait
fi
