#!/bin/bash
# Compiles libCTorch.so, the library that lets Lineup use one LibTorch.
#
# usage: build-shim.sh TORCH_DIR OUT_DIR
#   TORCH_DIR  holds LibTorch's include/ and lib/ (the `torch` folder of the Python package)
#   OUT_DIR    receives libCTorch.so
#
# Does nothing when OUT_DIR/libCTorch.so was made from the same sources for the same TORCH_DIR at
# the same version; libCTorch.stamp beside it says for which. Needs no Swift: where there is none, $CXX, clang++ or g++ compiles.
set -euo pipefail

fail() {
    echo "build-shim: $1" >&2
    exit "${2:-1}"
}

[ $# -eq 2 ] || fail "usage: build-shim.sh TORCH_DIR OUT_DIR" 2
[ -d "$1" ] || fail "'$1' is no folder; TORCH_DIR must hold LibTorch's include/ and lib/" 2
torch=$(cd "$1" && pwd -P)
mkdir -p "$2" 2>/dev/null || fail "cannot make the folder '$2'; give one that you may write to" 2
out=$(cd "$2" && pwd -P)
[ -w "$out" ] || fail "cannot write to '$out'; give a folder that you may write to" 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source=${LINEUP_CTORCH_SOURCE:-$here/../Sources/CTorch}
[ -f "$source/CTorch.cpp" ] || source=$here
[ -f "$source/CTorch.cpp" ] || fail "CTorch.cpp is neither beside this script nor in Sources/CTorch" 2
[ -f "$torch/include/ATen/ATen.h" ] ||
    fail "'$torch' has no include/ATen/ATen.h; TORCH_DIR must hold LibTorch's include/ and lib/" 2
[ -f "$torch/lib/libtorch_cpu.so" ] ||
    fail "'$torch' has no lib/libtorch_cpu.so; TORCH_DIR must hold LibTorch's include/ and lib/" 2

# The version with its suffix (2.13.0+cpu) stands in a file, not in the headers.
version=
if [ -f "$torch/version.py" ]; then
    version=$(sed -n "s/^__version__ = '\([^']*\)'.*/\1/p" "$torch/version.py" | head -n 1)
elif [ -f "$torch/build-version" ]; then
    version=$(head -n 1 "$torch/build-version")
fi
if [ -z "$version" ]; then
    header=$torch/include/torch/headeronly/version.h
    version=$(sed -n 's/^#define TORCH_VERSION_\(MAJOR\|MINOR\|PATCH\) //p' "$header" 2>/dev/null |
        paste -sd . -) || true
fi
case $version in
2.11.* | 2.12.* | 2.13.*) ;;
"") fail "cannot tell the version of the LibTorch in '$torch'; Lineup needs 2.11 to 2.13" 2 ;;
*) fail "the LibTorch in '$torch' is $version; Lineup needs 2.11 to 2.13 (make setup gets one)" 2 ;;
esac

compiler=
if command -v swift >/dev/null 2>&1; then
    beside=$(dirname "$(readlink -f "$(command -v swift)")")/clang++
    [ ! -x "$beside" ] || compiler=$beside
fi
[ -n "$compiler" ] || compiler=${CXX:-}
[ -n "$compiler" ] || compiler=$(command -v clang++ || command -v g++ || true)
[ -n "$compiler" ] ||
    fail "no C++ compiler: neither Swift's clang++, nor \$CXX, clang++ or g++; install one (Ubuntu: g++)"

library=$out/libCTorch.so
stamp=$out/libCTorch.stamp
wanted="$torch $version $(cat "$source/CTorch.cpp" "$source/CTorch.h" "${BASH_SOURCE[0]}" | cksum)"
if [ -f "$library" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

echo "build-shim: compiling libCTorch.so for LibTorch $version (half a minute)" >&2
work=$(mktemp -d "$out/.build-shim.XXXXXX")
trap 'rm -rf "$work"' EXIT
# libtorch.so brings in libtorch_cuda.so where there is one; nothing refers to it by name, so the
# linker is told to keep it. What the CUDA libraries themselves need is found when they are loaded.
if ! "$compiler" -std=c++20 -O2 -fPIC -shared -fvisibility=hidden -fvisibility-inlines-hidden \
    -DNDEBUG "-DLINEUP_TORCH_VERSION=\"$version\"" \
    -I"$source" -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
    "$source/CTorch.cpp" -o "$work/libCTorch.so" \
    -L"$torch/lib" -Wl,-rpath,"$torch/lib" -Wl,--allow-shlib-undefined \
    -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -ldl >"$work/log" 2>&1; then
    cat "$work/log" >&2
    fail "'$compiler' could not compile libCTorch.so against '$torch' (its messages are above)"
fi
mv -f "$work/libCTorch.so" "$library"
printf '%s\n' "$wanted" >"$stamp"
