# Observes the facts that libtorch-choice.sh decides on, and downloads. Sourced, never run.

LINEUP_CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/lineup

# The version of the LibTorch in a folder, empty when it is none: headers, library and version.
libtorch_version_in() {
    [ -f "$1/lib/libtorch_cpu.so" ] && [ -f "$1/include/ATen/ATen.h" ] || return 0
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ = '\([^']*\)'.*/\1/p" "$1/version.py" | head -n 1
    elif [ -f "$1/build-version" ]; then
        head -n 1 "$1/build-version"
    fi
}

# The folder of the active Python environment's torch, found without importing it.
python_torch_dir() {
    command -v python3 >/dev/null 2>&1 || return 0
    python3 -I -c 'import importlib.util as u
s = u.find_spec("torch")
print(list(s.submodule_search_locations)[0] if s and s.submodule_search_locations else "")' \
        2>/dev/null || true
}

# The NVIDIA driver's version, or none. LINEUP_NVIDIA_DRIVER overrides what is found.
nvidia_driver() {
    local version=${LINEUP_NVIDIA_DRIVER:-}
    if [ -z "$version" ] && [ -r /proc/driver/nvidia/version ]; then
        version=$(grep -oE '[0-9]{3,4}\.[0-9][0-9.]*' /proc/driver/nvidia/version | head -n 1)
    fi
    if [ -z "$version" ] && command -v nvidia-smi >/dev/null 2>&1; then
        version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
        [[ $version =~ ^[0-9.]+$ ]] || version=
    fi
    echo "${version:-none}"
}

# The versions in the cache, one a line.
cached_libtorches() {
    local folder version
    for folder in "$LINEUP_CACHE"/libtorch-*/torch; do
        version=$(libtorch_version_in "$folder")
        [ -z "$version" ] || basename "$(dirname "$folder")" | sed 's/^libtorch-//'
    done
}

# Sets PIP to a pip that can download: the active Python's, else the system's.
require_pip() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            PIP=("$python" -m pip)
            PYTHON=$python
            return
        fi
    done
    install_packages python3 python3-pip
    PYTHON=/usr/bin/python3
    "$PYTHON" -m pip --version >/dev/null 2>&1 ||
        fail "python3 has no pip; install python3-pip, or set LINEUP_LIBTORCH to a LibTorch"
    PIP=("$PYTHON" -m pip)
}

# pip download with what is configured, no questions, no progress bars on a pipe.
pip_download() {
    local index=()
    [ -z "${LINEUP_PIP_INDEX_URL:-}" ] || index=(--extra-index-url "$LINEUP_PIP_INDEX_URL")
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
        "${PIP[@]}" download --only-binary=:all: "${index[@]}" "$@"
}

# Sets CANDIDATES to the torch versions that pip finds, TAGS to the options that make it find them.
# pip names what there is when asked for a version that cannot be.
find_candidates() {
    local tags output log
    log=$(mktemp)
    for tags in "" "--python-version 3.12" "--python-version 3.11" "--python-version 3.13"; do
        # shellcheck disable=SC2086  # options are separate words
        pip_download --no-deps --retries 2 $tags -d "$LINEUP_CACHE" 'torch==0' >"$log" 2>&1 </dev/null
        output=$(cat "$log")
        mapfile -t CANDIDATES < <(sed -n 's/.*(from versions: \(.*\)).*/\1/p' <<<"$output" |
            tr -d ' ' | tr , '\n' | grep -E "^$LIBTORCH_DOWNLOAD(\.|$)")
        TAGS=$tags
        [ ${#CANDIDATES[@]} -eq 0 ] || break
    done
    rm -f "$log"
    [ ${#CANDIDATES[@]} -gt 0 ] && return
    if grep -qiE 'NewConnectionError|Name or service|name resolution|Connection refused|timed out|ProxyError|unreachable|ConnectTimeout' <<<"$output"; then
        fail "pip reaches no index to get torch from; check the network and pip's configuration, or" \
            "set LINEUP_LIBTORCH to a LibTorch (${LIBTORCH_VERSIONS// /, })"
    fi
}

# Downloads and unpacks once per machine and user; prints the folder.
download_libtorch() {
    local driver=$1 decision version flavour why download unpacked
    mkdir -p "$LINEUP_CACHE" 2>/dev/null && [ -w "$LINEUP_CACHE" ] ||
        fail "cannot write to '$LINEUP_CACHE'; make it writable, or set XDG_CACHE_HOME"
    require_pip
    exec 9>"$LINEUP_CACHE/setup.lock"
    if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
        say "another set-up is downloading LibTorch; waiting for it"
        flock 9
    fi
    find_candidates
    decision=$(choose_wheel "$driver" "${CANDIDATES[@]}")
    IFS=$'\t' read -r version flavour why <<<"$decision"
    [ "$version" != none ] || fail "$why"
    local final=$LINEUP_CACHE/libtorch-$version
    [ "$flavour" != cuda-without-gpu ] || final=$final-without-gpu
    # Another set-up may have made it meanwhile.
    if [ -n "$(libtorch_version_in "$final/torch")" ]; then
        echo "$final/torch"
        return
    fi

    # Upper bounds, so that a full disk is found before it is full: wheels and unpacked files are
    # there at the same time.
    case $flavour in
    cpu) download=250000000 unpacked=650000000 ;;
    cuda-without-gpu) download=650000000 unpacked=650000000 ;;
    *) download=2800000000 unpacked=5200000000 ;;
    esac
    local free need=$((download + unpacked))
    free=$(free_bytes "$LINEUP_CACHE")
    say "LibTorch $version ($flavour; $why): downloads up to $(spoken_bytes $download), keeps up to" \
        "$(spoken_bytes $unpacked) in $LINEUP_CACHE, where $(spoken_bytes "$free") are free"
    [ "$free" -ge "$need" ] ||
        fail "$LINEUP_CACHE needs $(spoken_bytes $need) for a moment and has $(spoken_bytes "$free");" \
            "free some, or set XDG_CACHE_HOME to another disk"

    local work=$LINEUP_CACHE/.download-$$
    trap 'rm -rf "$LINEUP_CACHE/.download-$$"' EXIT
    find "$LINEUP_CACHE" -maxdepth 1 -name '.download-*' -mmin +600 -exec rm -rf {} + 2>/dev/null
    mkdir -p "$work/wheels" "$work/tree"
    fetch_wheel "$work/wheels" --no-deps "torch==$version"
    local wheel
    wheel=$(find "$work/wheels" -name 'torch-*.whl' | head -n 1)
    say "unpacking $(basename "$wheel") ($(spoken_bytes "$(stat -c %s "$wheel")"))"
    "$PYTHON" "$HERE/lib/wheel.py" unpack "$wheel" "$work/tree" \
        torch/include/ torch/lib/ torch/version.py >&2 || exit 1
    rm -f "$work/tree/torch/lib/"libtorch_python.so "$work/tree/torch/lib/"*_test.so
    if [ "$flavour" != cpu ]; then
        add_nvidia_libraries "$work" "$wheel" "$flavour"
    fi
    local found
    found=$(libtorch_version_in "$work/tree/torch")
    libtorch_is_supported "${found:-none}" ||
        fail "the wheel '$(basename "$wheel")' holds no LibTorch ${LIBTORCH_VERSIONS// /, } (${found:-none found}); check pip's index"
    rm -rf "$final"
    mv "$work/tree" "$final"
    rm -rf "$work"
    echo "$final/torch"
}

# One pip download, with its own last words where it fails.
fetch_wheel() {
    local into=$1 log status=0
    shift
    log=$(mktemp)
    # pip names the file and its size as it starts; a bar only where somebody watches.
    # shellcheck disable=SC2086  # options are separate words
    if [ -t 2 ]; then
        pip_download $TAGS -d "$into" "$@" </dev/null 2>"$log" >&2 || status=$?
    else
        pip_download --progress-bar off $TAGS -d "$into" "$@" </dev/null 2>"$log" |
            grep -E '^ *Downloading' >&2 || status=${PIPESTATUS[0]}
    fi
    if [ "$status" -ne 0 ]; then
        tail -n 3 "$log" >&2
        rm -f "$log"
        fail "pip could not download $* (its last words are above); check the network and try again"
    fi
    rm -f "$log"
}

# The nvidia libraries that a CUDA build loads, beside torch/ as its rpaths expect.
add_nvidia_libraries() {
    local work=$1 wheel=$2 flavour=$3 part=all requirements=() one missing library=libtorch_cuda.so
    if [ "$flavour" = cuda-without-gpu ]; then
        # Without a GPU the large CUDA part stays out; `-ltorch` then means the CPU part.
        part=cpu
        library=libtorch_cpu.so
        rm -f "$work/tree/torch/lib/"lib{torch_cuda*,c10_cuda,caffe2_nvrtc,torch_nvshmem,torch}.so
        ln -s libtorch_cpu.so "$work/tree/torch/lib/libtorch.so"
    fi
    mapfile -t requirements < <("$PYTHON" "$HERE/lib/wheel.py" requirements "$wheel" "$part")
    if [ ${#requirements[@]} -gt 0 ]; then
        say "with it: ${requirements[*]}"
        fetch_wheel "$work/wheels" "${requirements[@]}"
    fi
    for one in "$work/wheels/"nvidia_*.whl; do
        [ -f "$one" ] || continue
        "$PYTHON" "$HERE/lib/wheel.py" unpack "$one" "$work/tree" nvidia/ >&2 || exit 1
    done
    find "$work/tree/nvidia" -type f ! -name '*.so*' -delete 2>/dev/null
    find "$work/tree/nvidia" -type d -empty -delete 2>/dev/null
    missing=$("$PYTHON" "$HERE/lib/wheel.py" unresolved "$work/tree/torch/lib/$library" \
        "$work/tree/torch/lib" "$work/tree/nvidia/"*/lib | tr '\n' ' ')
    [ -z "$missing" ] ||
        fail "the CUDA build asks for $missing, which no wheel brought; use a CPU build" \
            "(LINEUP_PIP_INDEX_URL adds an index), or set LINEUP_LIBTORCH"
}
