#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test: unit, integration, format and fuzz corpora, the same under
# sanitizers, lint, models, short fuzzing.  Ends in `N passed, N failed`.
#   scripts/test.sh            everything
#   scripts/test.sh STAGE...   some of: check asan tsan lint model fuzz
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=0 why=() logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
jobs=$(nproc)

stage() { # NAME COMMAND...: its last line `N passed, N failed` is added up
	local name=$1 log=$logs/$1 rc p f start=$SECONDS
	shift
	printf '\n=== %s\n' "$name"
	"$@" >"$log" 2>&1 </dev/null
	rc=$?
	p=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed.*/\1/p' "$log" | tail -n 1)
	f=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
	p=${p:-0} f=${f:-0}
	if [ $rc != 0 ] && [ "$f" = 0 ]; then f=1; fi
	if [ $rc = 0 ] && [ "$p" = 0 ]; then f=1; fi # a stage that tests nothing has failed
	passed=$((passed + p)) failed=$((failed + f))
	if [ "$f" != 0 ]; then
		tail -n 150 "$log"
		why+=("$name: $(sed -n '/^failed: /,$p' "$log" | head -n 20)")
	else grep -E '^(SKIPPED|skip)' "$log"
	fi
	printf '    %s: %s passed, %s failed (%s s)\n' "$name" "$p" "$f" $((SECONDS - start))
}

stages=("$@")
[ $# -gt 0 ] || stages=(check asan tsan lint model fuzz)
scripts/deps.sh run build test || { echo "0 passed, 1 failed"; exit 1; }
for s in "${stages[@]}"; do
	case $s in
	check) stage check make -j"$jobs" WERROR=1 check ;;
	asan) stage asan make -j"$jobs" check-asan ;;
	tsan) stage tsan make -j"$jobs" check-tsan ;;
	lint) stage lint make lint ;;
	model) stage model make model ;;
	fuzz) stage fuzz make -j"$jobs" fuzz SECONDS_EACH=5 ;;
	*) echo "test.sh: unknown stage '$s'" >&2; exit 2 ;;
	esac
done
echo
[ ${#why[@]} = 0 ] || printf '%s\n' "${why[@]}"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
