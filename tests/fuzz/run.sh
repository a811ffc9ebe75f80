#!/usr/bin/env bash
# Lets each libFuzzer target (make fuzz builds them: clang, ASan, UBSan) look for SECONDS, from a copy of its corpus.
#   tests/fuzz/run.sh [SECONDS] [TARGET...]
# What it finds is left in build/fuzz-found/ and belongs into the corpus, or among the fixtures, with a test.
# Ends in `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
seconds=${1:-5}
shift || true
found=build/fuzz-found
mkdir -p "$found"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
	for source in tests/fuzz/fuzz_*.c; do
		targets+=("$(basename "$source" .c)")
	done
fi
passed=0 failed=0
for name in "${targets[@]}"; do
	program=build/obj/fuzz/fuzz/$name
	if [ ! -x "$program" ]; then
		echo "FAILED $name: $program is not built"
		failed=$((failed + 1))
		continue
	fi
	mkdir -p "$work/$name"
	seeds=tests/fuzz/corpus/${name#fuzz_}
	[ -d "$seeds" ] && cp -r "$seeds/." "$work/$name/"
	# A slow input is a finding too: nothing of ours takes 10 seconds for a few kilobytes.
	if timeout -k 10 $((seconds + 120)) "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
		-print_final_stats=1 -artifact_prefix="$found/$name-" "$work/$name" >"$work/$name.log" 2>&1 </dev/null; then
		passed=$((passed + 1))
		echo "ok     $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log") inputs)"
	else
		failed=$((failed + 1))
		echo "FAILED $name"
		tail -n 40 "$work/$name.log" | sed 's/^/    /'
	fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
