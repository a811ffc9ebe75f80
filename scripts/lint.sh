#!/usr/bin/env bash
# Layout, static checks, includes, shell, manual pages.  Ends in `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
passed=0 failed=0
step() { # NAME COMMAND...
	local name=$1 log
	shift
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		echo "ok     $name"
	else
		failed=$((failed + 1))
		echo "FAILED $name"
		head -n 120 "$log" | sed 's/^/    /'
	fi
	rm -f "$log"
}
mapfile -t sources < <(git ls-files '*.c' '*.h' | grep -v '^tests/fixtures/')
mapfile -t code < <(git ls-files '*.c' | grep -E '^(common|worker|api-server|accelctl|acceld)/')
mapfile -t shell < <(git ls-files | grep -v '^tests/fixtures/' | while read -r f; do
	[ -f "$f" ] && head -c 64 "$f" | head -n 1 | grep -qaE '^#!.*\b(ba)?sh\b' && echo "$f"
done)
mapfile -t pages < <(git ls-files '*.1' '*.5' '*.8' | grep -v '^tests/')
format() { clang-format --dry-run -Werror "${sources[@]}"; }
tidy() {
	local flags
	flags=$(make -s print-cflags | tr ' ' '\n' | grep -vE '^-(g|O2|fno-common|fstack.*|D_FORTIFY.*)$' | tr '\n' ' ')
	export flags
	# shellcheck disable=SC2016
	printf '%s\n' "${code[@]}" | xargs -P "$(nproc)" -n 4 sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$@" -- $flags 2>/dev/null' _
}
# A loose run: both include paths and macros are left to the compilers, which see every variant anyway.
check() {
	cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning -j "$(nproc)" -I. --std=c11 \
		--suppress=missingIncludeSystem --suppress=unknownMacro --suppress=preprocessorErrorDirective \
		--suppress=internalAstError --suppress=syntaxError --suppress=uninitvar:worker/rafs/blake3_lanes.h --suppress=nullPointer:common/queue.c \
		--suppress=autoVariables:worker/registry/registry.c "${code[@]}"
}
step "clang build" make -j"$(nproc)" CC=clang VARIANT=clang WERROR=1 all
step "includes" scripts/check-includes.sh
step "clang-format" format
step "clang-tidy" tidy
step "cppcheck" check
[ ${#shell[@]} = 0 ] || step "shellcheck" shellcheck -S warning "${shell[@]}"
for p in "${pages[@]}"; do step "mandoc $p" mandoc -T lint -W warning "$p"; done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
