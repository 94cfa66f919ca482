#!/bin/bash
# Checks the sources' format and doc comments, and that the scripts parse.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=lint
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1
require_swift
status=0

# Generated code keeps the format of its generator.
mapfile -d '' files < <(find Sources Tests Benchmarks Package.swift -name '*.swift' \
    -not -path 'Sources/Protocol/Generated/*' -print0 | sort -z)
swift format lint --strict --parallel "${files[@]}" || status=1

mapfile -d '' scripts < <(find scripts .ci -type f \( -name '*.sh' -o -name run \) -print0 | sort -z)
for one in "${scripts[@]}"; do
    bash -n "$one" || status=1
done
if command -v python3 >/dev/null 2>&1; then
    while IFS= read -r -d '' one; do
        python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$one" || status=1
    done < <(find scripts -name '*.py' -print0 | sort -z)
fi
if grep -nE '\b(TODO|FIXME|XXX)\b' -r Sources Tests --include='*.swift'; then
    say "unfinished places (above); finish or remove them"
    status=1
fi
[ "$status" -eq 0 ] || fail "not clean (see above); 'make format' mends what is a matter of format"
say "clean: ${#files[@]} Swift files, ${#scripts[@]} scripts"
