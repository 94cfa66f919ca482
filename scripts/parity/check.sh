#!/bin/bash
# Trains small runs with Lineup, repeats them in PyTorch, and compares: bit for bit (bare_loop.py) and
# within tolerances against an independent formulation (independent.py).
#
#   scripts/parity/check.sh [PYTHON]      # a Python that has torch of LibTorch's version and numpy
#
# Takes some minutes and 4 GB in a temporary folder, which it removes.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
"$python" -c 'import numpy, torch' || {
    echo "check.sh: '$python' has no torch or numpy; name a Python that has both" >&2
    exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
LINEUP_PARITY_DIR=$folder make test FILTER=ParityDump
"$python" scripts/parity/bare_loop.py "$folder"
"$python" scripts/parity/independent.py "$folder"
