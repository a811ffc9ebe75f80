#!/usr/bin/env bash
# make bench-queue: a Redis (append-only file, everysec), an API server, and one process that makes the load and plays
# the workers, all on this machine.  BENCH_SECONDS: how long each webhook row runs.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
dir=$(mktemp -d)
pids=()
finish() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
	wait
	rm -rf "$dir"
}
trap finish EXIT
cat >"$dir/config.yaml" <<YAML
server: { name: API, host: 127.0.0.1, port: 0 }
redis: { addr: "unix://$dir/redis.sock" }
queue: { registry_limit: 100000, lease: 15s, keep_finished: 1000 }
log: { level: warning }
provider:
  work_dir: $dir
  source: { h.example: }
converter:
  driver: { type: estargz }
  rules: [ { tag_suffix: -esgz } ]
YAML
redis-server --port 0 --unixsocket "$dir/redis.sock" --dir "$dir" --save '' --appendonly yes --appendfsync everysec \
	--maxmemory-policy noeviction --loglevel warning --logfile "$dir/redis.log" &
pids+=($!)
sed 's/level: warning/level: info/' "$dir/config.yaml" >"$dir/api.yaml"
build/accel-api-server --config "$dir/api.yaml" --socket "$dir/api.sock" 2>"$dir/api.log" &
pids+=($!)
for _ in $(seq 100); do
	port=$(sed -n 's/.*HTTP server started on 127.0.0.1:\([0-9]*\).*/\1/p' "$dir/api.log" | head -1)
	[ -n "$port" ] && [ -S "$dir/redis.sock" ] && break
	sleep 0.1
done
[ -n "${port:-}" ] || { cat "$dir/api.log"; exit 1; }
echo "$(nproc) cores shared by redis-server, the API server and the load generator; load $(cut -d' ' -f1-3 /proc/loadavg); $(redis-server --version | cut -d' ' -f3)"
build/bench/queue "$dir/config.yaml" "$port" "${BENCH_SECONDS:-5}" "${pids[@]}" || { tail -n 5 "$dir/api.log"; exit 1; }
