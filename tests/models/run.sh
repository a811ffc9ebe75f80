#!/usr/bin/env bash
# Checks the models of common/queue with Spin: the protocol as it is holds, and each guard taken out gives a
# counterexample.  Prints `ok` and `not ok` lines and ends in `N passed, N failed`.  One core, under 3 minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { echo "skip spin is not installed"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0

check() { # WANT MODEL SWITCHES [PAN-SWITCHES] [CC-SWITCHES]; WANT: holds, or a part of the counterexample's reason
	local want=$1 model=$2 switches=$3 pan=${4:--E} cc=${5:--DSAFETY -DNOCLAIM} opt=-O0 name got
	name="$model.pml${switches:+ $switches}"
	[ "$pan" = "-a -N terminal" ] && name+=", once done always done"
	[ "$want" = holds ] && opt=-O2 # millions of states; a counterexample takes a few
	cd "$dir" && rm -rf ./*
	# shellcheck disable=SC2086 # the switches are words
	if ! cp "$here/$model.pml" m.pml || ! spin -a $switches m.pml >log 2>&1 || [ ! -f pan.c ] ||
		! ${CC:-gcc} $opt -w $cc -DCOLLAPSE -DMEMLIM=3000 -o pan pan.c >>log 2>&1; then
		got="does not build: $(tail -n 3 log | tr '\n' ' ')"
	else
		# shellcheck disable=SC2086
		timeout 170 ./pan -m1000000 $pan >log 2>&1
		if grep -q 'errors: 0' log && ! grep -qE 'max search depth too small|out of memory' log; then
			got=holds
		else
			got=$(grep -m1 -oE 'assertion violated.*\(at|invalid end state|acceptance cycle|max search depth too small|out of memory' log ||
				echo "no verdict")
		fi
	fi
	if [[ $got == *"$want"* ]]; then
		passed=$((passed + 1))
		echo "ok $name: $got ($(grep -m1 -oE '[0-9.e+]+ states, stored' log))"
	else
		failed=$((failed + 1))
		echo "not ok $name: wanted '$want', got '$got'"
	fi
}

check holds lease "-DNW=2"
check holds lease "-DNW=3 -DMAXEXP=1 -DMAXNONCE=3"
check holds lease "-DFAILOVER -DMAXNONCE=3"
check holds lease "-DNW=2" "-a -N terminal" " "
check "holder==me" lease "-DNOFENCE"
check "holder==me" lease "-DFAILOVER -DFENCE_COUNTER"
check "holder==me" lease "-DKEEPOWNER"
check "lacc!=n" lease "-DNOREPLAY"

check holds wake "-DTIMEOUT" " "
check holds wake "-DTIMEOUT -DCHAIN" " "
check "invalid end state" wake "" " "
check "invalid end state" wake "-DCHAIN" " "

late="-DNT=3 -DDISTINCT -DMAXLATE=1"
check holds publish ""
check holds publish "$late"
check holds publish "-DNT=3 -DMAXV=2 -DMAXEXP=1 -DMAXLATE=1"
check holds publish "-DNT=3 -DMAXV=2 -DMAXEXP=1 -DMAXCRASH=1"
check "own[t]==n" publish "-DNT=3 -DMAXV=2 -DMAXEXP=1 -DNOOWNER"
check "v>=shownv" publish "-DNT=3 -DDISTINCT -DNOTICKET"
check "v>=shownv" publish "-DNT=3 -DDISTINCT -DNOLOCK"
check "tgt==" publish "$late -DNOREPAIR"
check "tgt==" publish "$late -DNODIRTY"
check "tgt==" publish "-DNOREREAD"
check "tgt==" publish "-DJOINTICKET"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
