#!/bin/bash
# Plants each of the mistakes of Sources/ClusterCore/PlantedBug.swift in the machines of production, one after
# another, and prints which tests besides the simulator's notice.
#
# usage: scripts/planted.sh [--fast] [MISTAKE...]     all mistakes of the machines unless some are named
#
# Only test targets that are linked with the machines can notice, and so the others are not run. --fast leaves out
# the tests of real processes, which take most of the time. Builds into .build/planted. Exits 1 when a test notices
# a mistake.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=planted
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1
require_swift
[ -f .build/libtorch ] || fail "no LibTorch is chosen yet; run 'make setup'"

suites="ClusterCoreTests FuzzTests FlightTests ExchangeTests EvalWorkerTests ClusterTests"
if [ "${1:-}" = --fast ]; then
    suites=${suites% ClusterTests}
    shift
fi
# Those that sit in the simulator's models are in no other test.
known=$(sed -n '/enum PlantedBug/,/In what surrounds them/s/^ *case \([A-Za-z]*\)$/\1/p' \
    Sources/ClusterCore/PlantedBug.swift)
for one in "$@"; do
    grep -qx "$one" <<<"$known" ||
        fail "'$one' is no mistake of the machines; those are: $(echo $known)"
done

export LINEUP_PLANTED_BUILD=1
flags=(-c release --scratch-path .build/planted)
build=("${flags[@]}" --explicit-target-dependency-import-check error)
bin=$(swift build "${build[@]}" --show-bin-path) || fail "the package does not load (see above)"
"$HERE/build-shim.sh" "$(cat .build/libtorch)" "$bin" || exit 1
for product in lineup lineup-fuzz lineupPackageTests; do
    swift build "${build[@]}" --product "$product" >&2 || fail "the build failed (see above)"
done
export LINEUP_CTORCH=$bin/libCTorch.so LINEUP_BINARY=$bin/lineup

noticed=0
for mistake in ${@:-$known}; do
    failing=
    for suite in $suites; do
        log=$(LINEUP_PLANTED=$mistake timeout 900 swift test "${flags[@]}" --skip-build --disable-xctest \
            --no-parallel --filter "^$suite\\." </dev/null 2>&1) && continue
        tests=$(sed -n 's/^.*Test \(".*"\|[A-Za-z]*([^)]*)\) failed after.*$/\1/p' <<<"$log" | sort -u)
        failing+=" $suite: ${tests:-it ended early}"
    done
    echo "$mistake:" ${failing:-nobody}
    [ -z "$failing" ] || noticed=$((noticed + 1))
done
[ "$noticed" -eq 0 ] || fail "$noticed mistakes are noticed by other tests than the simulator's"
