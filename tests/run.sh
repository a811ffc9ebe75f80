#!/usr/bin/env bash
# Runs tests and counts them: tests/run.sh [--variant V] KIND...
#   unit          every program of tests/unit
#   unit-threads  those that have threads (named in tests/unit/THREADS)
#   fuzz          each fuzz target over its corpus
#   integration   every executable of tests/integration (integration-short: those named in its SHORT)
# Each test program prints TAP lines (`ok NAME`, `not ok NAME`) or cmocka's output.  Ends in `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
variant=release
[ "${1:-}" = --variant ] && { variant=$2; shift 2; }
obj=build/obj/$variant
export ACCEL_VARIANT=$variant
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 failures=()

count() { # NAME LOG STATUS
	local name=$1 log=$2 rc=$3 p f
	if [ ! -f "$log" ]; then # somebody emptied our folder: what was tested is not known
		failed=$((failed + 1)) failures+=("$name")
		echo "FAILED $name: its output is lost"
		return
	fi
	p=$(grep -cE '^ok |^\[       OK \]' "$log")
	f=$(grep -cE '^not ok |^\[  FAILED  \] [A-Za-z_0-9]+$' "$log")
	if grep -q '^\[  FAILED  \] [0-9]* test' "$log"; then f=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | head -1); fi
	if [ "$rc" != 0 ] && [ "$f" = 0 ]; then f=1; fi
	if [ "$rc" = 0 ] && [ "$p" = 0 ] && [ "$f" = 0 ]; then
		if grep -q '^skip' "$log"; then
			echo "SKIPPED $name: $(grep -m1 '^skip' "$log")"
			[ "${CI:-}" = true ] && { f=1; echo "nothing may be skipped in CI"; }
		else p=1; fi
	fi
	passed=$((passed + p)) failed=$((failed + f))
	if [ "$f" != 0 ]; then
		failures+=("$name: $(grep -hE '^not ok |^\[  FAILED  \] [A-Za-z_0-9]+$' "$log" | head -n 5 | cut -c 1-600)")
		echo "FAILED $name (exit $rc)"
		tail -n 60 "$log" | grep -vE '^ok ' | sed 's/^/    /'
	elif [ -n "${VERBOSE:-}" ]; then echo "ok     $name ($p)"; fi
}

one() { # NAME SECONDS COMMAND...
	local name=$1 limit=$2 log rc
	shift 2
	log=$out/$(echo "$name" | tr / _)
	timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
	rc=$?
	[ $rc = 124 ] && echo "not ok timed out after $limit s" >>"$log"
	count "$name" "$log" $rc
}

for kind in "$@"; do
	case $kind in
	unit) for t in "$obj"/unit/test_*; do [[ $t == *.* ]] || { [ -x "$t" ] && one "unit/$(basename "$t")" 120 "$t"; }; done ;;
	unit-threads) while read -r t; do one "unit/$t" 300 "$obj/unit/$t"; done < <(grep -v '^#' tests/unit/THREADS 2>/dev/null) ;;
	fuzz) for t in "$obj"/fuzz/fuzz_*; do
		[[ $t == *.* ]] && continue
		[ -x "$t" ] || continue
		n=$(basename "$t")
		one "fuzz/$n" 120 "$t" "tests/fuzz/corpus/${n#fuzz_}"
	done ;;
	integration | integration-short)
		for t in tests/integration/*; do
			[ -f "$t" ] && [ -x "$t" ] || continue
			n=$(basename "$t")
			[ "$kind" = integration-short ] && { grep -qx "$n" tests/integration/SHORT 2>/dev/null || continue; }
			one "integration/$n" 600 "$t"
		done ;;
	*) echo "unknown kind $kind" >&2; exit 2 ;;
	esac
done
[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
