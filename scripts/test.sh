#!/bin/bash
# Runs the tests that scripts/build.sh built.
#
# usage: scripts/test.sh [FILTER]     a regular expression over Suite.test names; all without one
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=test
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1
require_swift
filter=${1:-}

bin=$(cd .build/release && pwd -P) || fail "nothing is built; run 'make test'"
export LINEUP_CTORCH=$bin/libCTorch.so
export LINEUP_BINARY=$bin/lineup
flags=(-c release --skip-build --disable-xctest)
status=0

if [ -n "$filter" ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    timeout "${LINEUP_TEST_SECONDS:-900}" \
        swift test "${flags[@]}" --no-parallel --filter "$filter" </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    if grep -qE 'Test run with 0 tests|No matching test' "$log"; then
        fail "no test matches '$filter'; 'swift test list -c release --skip-build' names them all"
    fi
    exit "$status"
fi

# What failed is said once more at the end: the whole output is thousands of lines.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
    for one in scripts/tests/*-test.sh; do
        bash "$one" || status=1
    done
    # Real processes need the machine for themselves, so these run last and one at a time.
    swift test "${flags[@]}" --skip ClusterTests </dev/null || status=1
    timeout 1800 swift test "${flags[@]}" --no-parallel --filter ClusterTests </dev/null || status=1
    exit "$status"
} 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" -eq 0 ] && exit 0
grep -E -A 3 '✘|^FAILED|Fatal error|signal code' "$log" | grep -vE '^--$|✔|◇' | tail -n 60 >&2
fail "some tests failed (named above)"
