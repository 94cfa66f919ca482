# Which LibTorch: pure functions of facts, so that every case has a test. Sourced, never run.

# The releases that the shim builds against, and the one that is downloaded.
LIBTORCH_VERSIONS="2.11 2.12 2.13"
LIBTORCH_DOWNLOAD=2.13
# The CUDA version of that release's wheel without a local version.
LIBTORCH_PLAIN_CUDA=13.0

libtorch_is_supported() {
    local release
    for release in $LIBTORCH_VERSIONS; do
        case $1 in "$release" | "$release".*) return 0 ;; esac
    done
    return 1
}

# The oldest driver that runs a CUDA version.
driver_for_cuda() {
    case $1 in
    13*) echo 580 ;;
    12*) echo 525 ;;
    11*) echo 450 ;;
    *) echo 9999 ;;
    esac
}

# cpu, part (a CUDA build without its GPU half) or the CUDA version of a torch version: 2.13.0+cu126 is
# 12.6, 2.13.0 is the plain wheel's.
flavour_of() {
    case $1 in
    *-without-gpu) echo part ;;
    *+cpu*) echo cpu ;;
    *+cu1[0-9][0-9]*) sed 's/.*+cu\(1[0-9]\)\([0-9]*\).*/\1.\2/' <<<"$1" ;;
    *+*) echo other ;;
    *) echo "$LIBTORCH_PLAIN_CUDA" ;;
    esac
}

# Where LibTorch comes from.
#
#   choose_libtorch ENV_DIR ENV_VERSION PYTHON_DIR PYTHON_VERSION DRIVER CACHED...
#
# ENV_DIR is LINEUP_LIBTORCH; a version is empty where the folder holds no usable LibTorch. DRIVER is
# the NVIDIA driver's version or 'none'. CACHED are the versions in this user's cache.
# Prints one of, with tabs between:
#   use      DIR      why
#   cached   VERSION  why
#   download -        why
#   fail     -        what to do
choose_libtorch() {
    local env_dir=$1 env_version=$2 python_dir=$3 python_version=$4 driver=$5 cached flavour
    shift 5
    if [ -n "$env_dir" ]; then
        if [ -z "$env_version" ]; then
            printf 'fail\t-\t%s\n' "LINEUP_LIBTORCH is '$env_dir', which holds no LibTorch; name the \
folder with include/ and lib/libtorch_cpu.so, or unset it"
        elif libtorch_is_supported "$env_version"; then
            printf 'use\t%s\t%s\n' "$env_dir" "LINEUP_LIBTORCH, $env_version"
        else
            printf 'fail\t-\t%s\n' "LINEUP_LIBTORCH is '$env_dir' with LibTorch $env_version; Lineup \
works with ${LIBTORCH_VERSIONS// /, }: name another folder, or unset it"
        fi
        return
    fi
    if [ -n "$python_version" ] && libtorch_is_supported "$python_version"; then
        printf 'use\t%s\t%s\n' "$python_dir" "the active Python environment's torch $python_version"
        return
    fi
    local why="no LINEUP_LIBTORCH, no torch in the active Python environment"
    [ -z "$python_version" ] || why="the active Python environment's torch $python_version is not \
one of ${LIBTORCH_VERSIONS// /, }"
    # With a driver that is new enough a CUDA build is wanted, otherwise a CPU build before any other.
    local best= wants_cuda=
    [ "$driver" = none ] || ! version_at_least "$driver" "$(driver_for_cuda "$LIBTORCH_PLAIN_CUDA")" ||
        wants_cuda=1
    for cached in "$@"; do
        libtorch_is_supported "$cached" || continue
        flavour=$(flavour_of "$cached")
        case $flavour in
        other) ;;
        cpu) best=$cached ;;
        part) [ -n "$best" ] || best=$cached ;;
        *)
            if [ "$driver" != none ] && version_at_least "$driver" "$(driver_for_cuda "$flavour")"; then
                printf 'cached\t%s\t%s\n' "$cached" "driver $driver; $why"
                return
            fi
            [ -n "$best" ] || best=$cached
            ;;
        esac
    done
    if [ -n "$best" ] && [ -z "$wants_cuda" ]; then
        printf 'cached\t%s\t%s\n' "$best" "NVIDIA driver: $driver; $why"
        return
    fi
    printf 'download\t-\t%s\n' "$why"
}

# Which of the versions that pip finds is downloaded.
#
#   choose_wheel DRIVER CANDIDATE...
#
# Prints VERSION, FLAVOUR (cpu, cuda, or cuda-without-gpu: only what the CPU part loads) and why,
# with tabs between; or 'none', '-' and what to do.
choose_wheel() {
    local driver=$1 candidate flavour needed cpu= cuda= old= plain= note=
    shift
    while IFS= read -r candidate; do
        case $candidate in "$LIBTORCH_DOWNLOAD" | "$LIBTORCH_DOWNLOAD".*) ;; *) continue ;; esac
        # Development builds and release candidates are not what anybody asked for.
        [[ $candidate =~ ^[0-9.]+(\+[a-z0-9.]+)?$ ]] || continue
        flavour=$(flavour_of "$candidate")
        case $flavour in
        other) continue ;;
        cpu) cpu=$candidate ;;
        *)
            plain=$candidate
            needed=$(driver_for_cuda "$flavour")
            if [ "$driver" != none ] && version_at_least "$driver" "$needed"; then
                cuda=$candidate
            else
                old=$needed
            fi
            ;;
        esac
    done < <(printf '%s\n' "$@" | sort -V)
    if [ -n "$cuda" ]; then
        printf '%s\tcuda\t%s\n' "$cuda" "NVIDIA driver $driver"
        return
    fi
    if [ "$driver" != none ] && [ -n "$old" ]; then
        note="; driver $driver is too old for GPUs here: install $old or newer and run make setup again"
    elif [ "$driver" != none ]; then
        note="; pip finds no CUDA build, so GPUs are not used: LINEUP_PIP_INDEX_URL may add an index"
    fi
    if [ -n "$cpu" ]; then
        if [ "$driver" = none ]; then note="no NVIDIA driver"; else note="CPU build$note"; fi
        printf '%s\tcpu\t%s\n' "$cpu" "$note"
    elif [ -n "$plain" ]; then
        printf '%s\tcuda-without-gpu\t%s\n' "$plain" \
            "pip finds no CPU build, which would be smaller (LINEUP_PIP_INDEX_URL may add an index)$note"
    else
        printf 'none\t-\t%s\n' "pip finds no torch $LIBTORCH_DOWNLOAD for this machine; check pip's \
index, set LINEUP_PIP_INDEX_URL, or set LINEUP_LIBTORCH to a LibTorch of ${LIBTORCH_VERSIONS// /, }"
    fi
}
