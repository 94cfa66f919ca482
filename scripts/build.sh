#!/bin/bash
# Builds .build/release/lineup, and libCTorch.so beside it.
#
# usage: scripts/build.sh [tests]     with 'tests', the test bundle too
#
# Everything is built in the release configuration with the same flags, so that build, demo, test
# and bench share one build.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=build
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1
require_swift
[ -f .build/libtorch ] || fail "no LibTorch is chosen yet; run 'make setup'"

flags=(-c release --explicit-target-dependency-import-check error)
bin=$(swift build "${flags[@]}" --show-bin-path) || fail "the package does not load (see above)"
"$HERE/build-shim.sh" "$(cat .build/libtorch)" "$bin" || exit 1
swift build "${flags[@]}" --product lineup >&2 || fail "the build failed (see above)"
if [ "${1:-}" = tests ]; then
    # By name: --build-tests builds protoc as well once Package.swift has changed, ten minutes of C++.
    for product in lineup-fuzz lineup-bench lineupPackageTests; do
        swift build "${flags[@]}" --product "$product" >&2 ||
            fail "the build of the tests failed (see above)"
    done
fi
[ -x .build/release/lineup ] || fail "no .build/release/lineup after the build; run 'make clean build'"
