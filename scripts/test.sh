#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test.  Ends in `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
scripts/deps.sh build test || exit 1
make -j"$(nproc)" WERROR=1 tests-built && make -j"$(nproc)" VARIANT=fault all || { echo "0 passed, 1 failed"; exit 1; }
tests/run.sh unit fuzz integration
