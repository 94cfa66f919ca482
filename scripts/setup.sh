#!/bin/bash
# Gets what Lineup needs: Swift checked, C libraries, photographs, LibTorch. Quick when all is there.
#
# usage: scripts/setup.sh
#   writes the chosen LibTorch's folder to .build/libtorch
#
# LINEUP_LIBTORCH=DIR          use this LibTorch (the folder with include/ and lib/)
# LINEUP_PIP_INDEX_URL=URL     one more index for pip to find torch in
# LINEUP_NVIDIA_DRIVER=none    decide as if there were no driver, or this version of it
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=setup
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/packages.sh
. "$HERE/lib/packages.sh"
# shellcheck source=lib/libtorch-choice.sh
. "$HERE/lib/libtorch-choice.sh"
# shellcheck source=lib/libtorch.sh
. "$HERE/lib/libtorch.sh"
cd "$HERE/.." || exit 1

require_swift
require_packages

env_dir=${LINEUP_LIBTORCH:-}
if [ -n "$env_dir" ]; then
    # The folder of a whole installation is as good as its torch/ folder.
    [ -f "$env_dir/lib/libtorch_cpu.so" ] || [ ! -f "$env_dir/torch/lib/libtorch_cpu.so" ] ||
        env_dir=$env_dir/torch
    [ ! -d "$env_dir" ] || env_dir=$(cd "$env_dir" && pwd -P)
fi
env_version=
[ -z "$env_dir" ] || env_version=$(libtorch_version_in "$env_dir")
python_dir=
[ -n "$env_dir" ] || python_dir=$(python_torch_dir)
python_version=
[ -z "$python_dir" ] || python_version=$(libtorch_version_in "$python_dir")
driver=$(nvidia_driver)

# What the last set-up decided holds while the facts do, so that pip is not asked every time.
facts="$env_dir|$env_version|$python_dir|$python_version|$driver|${LINEUP_PIP_INDEX_URL:-}|$LINEUP_CACHE"
mkdir -p .build || fail "cannot write to '$PWD'; make it writable"
if [ -f .build/libtorch ] && [ "$(cat .build/libtorch.facts 2>/dev/null)" = "$facts" ] &&
    [ -n "$(libtorch_version_in "$(cat .build/libtorch)")" ]; then
    exit 0
fi

mapfile -t cached < <(cached_libtorches)
IFS=$'\t' read -r action value why < <(
    choose_libtorch "$env_dir" "$env_version" "$python_dir" "$python_version" "$driver" "${cached[@]}")
case $action in
use) torch=$value ;;
cached) torch=$LINEUP_CACHE/libtorch-$value/torch ;;
download) torch=$(download_libtorch "$driver") || exit 1 ;;
*) fail "$why" ;;
esac
say "LibTorch $(libtorch_version_in "$torch") in $torch ($why)"
printf '%s\n' "$torch" >.build/libtorch
printf '%s\n' "$facts" >.build/libtorch.facts
say "done: Swift $SWIFT_VERSION, C libraries, photographs, LibTorch"
