#!/bin/bash
# Measures what the cluster costs over a bare loop, how it scales, how fast a training step is beside
# PyTorch's, and whether the evaluation sets gain by running side by side.
#
# usage: scripts/bench.sh [OPTION...]     options of lineup-bench, such as --rounds 3 --json FILE
#
# BENCH="machinery scaling" runs these parts alone (the beginnings of names do). The Python with
# torch is LINEUP_BENCH_PYTHON, else a virtual environment that is made once in the user's cache.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=bench
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source=lib/libtorch.sh
. "$HERE/lib/libtorch.sh"
# shellcheck source=lib/packages.sh
. "$HERE/lib/packages.sh"
cd "$HERE/.." || exit 1
require_swift

# pytorch-metric-learning, which losses are compared with; without it these comparisons are skipped.
add_metric_learning() {
    "$1" -c 'import pytorch_metric_learning' >/dev/null 2>&1 ||
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 "$1" -m pip install --quiet \
            --only-binary=:all: pytorch-metric-learning==2.9.0 </dev/null >/dev/null 2>&1 ||
        say "pip finds no pytorch-metric-learning 2.9.0; losses are compared with nothing"
}

has_torch() { [ -x "$1" ] && "$1" -c 'import torch' >/dev/null 2>&1; }

# Sets BENCH_PYTHON to a Python that has torch, of the same version as the LibTorch that Lineup uses
# where that can be had; leaves it empty where there is none.
find_python() {
    local environment version wanted log
    BENCH_PYTHON=
    if [ -n "${LINEUP_BENCH_PYTHON:-}" ]; then
        BENCH_PYTHON=$(command -v "$LINEUP_BENCH_PYTHON") && has_torch "$BENCH_PYTHON" ||
            fail "LINEUP_BENCH_PYTHON is '$LINEUP_BENCH_PYTHON', which cannot 'import torch'; name" \
                "another, or unset it and one is made"
        return
    fi
    version=$(libtorch_version_in "$(cat .build/libtorch 2>/dev/null)")
    version=${version:-2.13.0}
    environment=$LINEUP_CACHE/bench-python-$version
    if has_torch "$environment/bin/python"; then
        BENCH_PYTHON=$environment/bin/python
        return
    fi
    say "making a Python with torch $version in $environment (once; up to 250 MB of download for a" \
        "CPU build, up to 3 GB where pip finds a CUDA build alone)"
    log=$(mktemp)
    rm -rf "$environment"
    mkdir -p "$LINEUP_CACHE"
    if ! python3 -m venv "$environment" >"$log" 2>&1; then
        tail -n 2 "$log" >&2
        rm -rf "$log" "$environment"
        say "python3 cannot make a virtual environment (Debian and Ubuntu: python3-venv)"
        return
    fi
    local index=()
    [ -z "${LINEUP_PIP_INDEX_URL:-}" ] || index=(--extra-index-url "$LINEUP_PIP_INDEX_URL")
    for wanted in "torch==$version" "torch==${version%%+*}+cpu" "torch==${version%%+*}"; do
        if PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 "$environment/bin/python" -m pip install \
            --quiet --only-binary=:all: "${index[@]}" "$wanted" </dev/null >"$log" 2>&1 &&
            has_torch "$environment/bin/python"; then
            BENCH_PYTHON=$environment/bin/python
            rm -f "$log"
            return
        fi
    done
    tail -n 2 "$log" >&2
    rm -rf "$log" "$environment"
    say "pip finds no torch $version; PyTorch is left out (LINEUP_BENCH_PYTHON names a Python)"
}

swift build -c release --explicit-target-dependency-import-check error --product lineup-bench >&2 ||
    fail "the build of lineup-bench failed (see above)"
bin=$(cd .build/release && pwd -P) || fail "nothing is built; run 'make bench'"
parts=${BENCH:-}
python=()
# PyTorch is asked for only where it is compared with.
if [ -z "$parts" ] || [[ " $parts" =~ [\ ,](st|lo|ex) ]]; then
    find_python
    [ -z "$BENCH_PYTHON" ] || [ -n "${LINEUP_BENCH_PYTHON:-}" ] || add_metric_learning "$BENCH_PYTHON"
    [ -z "$BENCH_PYTHON" ] || python=(--python "$BENCH_PYTHON")
fi
export LINEUP_CTORCH=$bin/libCTorch.so
exec "$bin/lineup-bench" measure --parts "$parts" --lineup "$bin/lineup" "${python[@]}" "$@"
