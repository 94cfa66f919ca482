#!/bin/bash
# Every case of choose_libtorch and choose_wheel.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../lib/common.sh"
. "$here/../lib/libtorch-choice.sh"
passed=0 failed=0

# expect NAME "FIRST SECOND" PART-OF-REASON COMMAND...: the first two fields, and a part of the third.
expect() {
    local name=$1 wanted=$2 reason=$3 first second why
    shift 3
    IFS=$'\t' read -r first second why < <("$@")
    if [ "$first $second" = "$wanted" ] && [[ $why == *"$reason"* ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s\n  wanted: %s (...%s...)\n  got:    %s %s (%s)\n' \
            "$name" "$wanted" "$reason" "$first" "$second" "$why"
    fi
}

# choose_libtorch: ENV_DIR ENV_VERSION PYTHON_DIR PYTHON_VERSION DRIVER CACHED...
expect "the environment variable wins over everything" "use /e" "LINEUP_LIBTORCH" \
    choose_libtorch /e 2.12.1+cpu /p 2.13.0+cu130 580.1 2.13.0+cpu
expect "a folder without LibTorch is refused, not passed over" "fail -" "holds no LibTorch" \
    choose_libtorch /e "" /p 2.13.0+cpu none 2.13.0+cpu
expect "a LibTorch that is too new is refused" "fail -" "with LibTorch 2.14.0" \
    choose_libtorch /e 2.14.0+cpu "" "" none
expect "a LibTorch that is too old is refused" "fail -" "with LibTorch 2.1.2" \
    choose_libtorch /e 2.1.2 "" "" none
expect "the active Python's torch comes second" "use /p" "active Python" \
    choose_libtorch "" "" /p 2.11.0+cu130 580.1 2.13.0+cpu
expect "its version without a local part too" "use /p" "active Python" \
    choose_libtorch "" "" /p 2.13.0 none
expect "an old torch in Python is passed over and named" "download -" "torch 2.4.1+cpu is not" \
    choose_libtorch "" "" /p 2.4.1+cpu none
expect "2.110 is not 2.11" "download -" "is not one of" \
    choose_libtorch "" "" /p 2.110.0 none
expect "a torch without headers is passed over" "download -" "no torch" \
    choose_libtorch "" "" /p "" none
expect "the cache comes third" "cached 2.13.0+cpu" "driver: none" \
    choose_libtorch "" "" "" "" none 2.13.0+cpu
expect "a CPU build in the cache before a CUDA build without a driver" "cached 2.13.0+cpu" "" \
    choose_libtorch "" "" "" "" none 2.13.0 2.13.0+cpu
expect "a CUDA build in the cache where there is no other" "cached 2.13.0" "" \
    choose_libtorch "" "" "" "" none 2.13.0
expect "a CUDA build without its GPU half after a CPU build" "cached 2.13.0+cpu" "" \
    choose_libtorch "" "" "" "" none 2.13.0-without-gpu 2.13.0+cpu
expect "a CUDA build without its GPU half where there is no other" "cached 2.13.0-without-gpu" "" \
    choose_libtorch "" "" "" "" none 2.13.0-without-gpu
expect "which is no use to a driver that has come since" "download -" "" \
    choose_libtorch "" "" "" "" 580.65 2.13.0-without-gpu
expect "with a driver that is too old a CUDA build works without GPUs" "cached 2.13.0" "470.82" \
    choose_libtorch "" "" "" "" 470.82 2.13.0
expect "an older CUDA build for an older driver" "cached 2.13.0+cu126" "driver 560.35" \
    choose_libtorch "" "" "" "" 560.35 2.13.0+cpu 2.13.0 2.13.0+cu126
expect "with a driver a CUDA build from the cache" "cached 2.13.0" "driver 580.65" \
    choose_libtorch "" "" "" "" 580.65 2.13.0+cpu 2.13.0
expect "with a driver and only a CPU build in the cache pip is asked" "download -" "" \
    choose_libtorch "" "" "" "" 580.65 2.13.0+cpu
expect "with a driver too old for any CUDA build the CPU build stays" "cached 2.13.0+cpu" "470.82" \
    choose_libtorch "" "" "" "" 470.82 2.13.0+cpu
expect "an old release in the cache is passed over" "download -" "" \
    choose_libtorch "" "" "" "" none 2.9.0+cpu
expect "nothing there is a download" "download -" "no LINEUP_LIBTORCH" \
    choose_libtorch "" "" "" "" none

# choose_wheel: DRIVER CANDIDATE...
expect "no driver, a CPU build to be had" "2.13.0+cpu cpu" "no NVIDIA driver" \
    choose_wheel none 2.12.1 2.13.0 2.13.0+cpu 2.14.0
expect "no driver, the newest CPU build" "2.13.1+cpu cpu" "" \
    choose_wheel none 2.13.0+cpu 2.13.1+cpu 2.13.10 2.13.1+cu130
expect "no driver, only the CUDA build" "2.13.0 cuda-without-gpu" "no CPU build" \
    choose_wheel none 2.12.0 2.13.0
expect "a driver, CUDA and CPU builds" "2.13.0 cuda" "driver 580.65.06" \
    choose_wheel 580.65.06 2.13.0 2.13.0+cpu
expect "a driver that is too old for the plain build but not for another" "2.13.0+cu126 cuda" "" \
    choose_wheel 560.35 2.13.0 2.13.0+cpu 2.13.0+cu126
expect "a driver too old for all: the CPU build, and a word" "2.13.0+cpu cpu" "install 580 or newer" \
    choose_wheel 470.82 2.13.0 2.13.0+cpu
expect "a driver too old, and only the CUDA build" "2.13.0 cuda-without-gpu" "too old" \
    choose_wheel 470.82 2.13.0
expect "a driver, only CPU builds" "2.13.0+cpu cpu" "no CUDA build" \
    choose_wheel 580.65 2.13.0+cpu
expect "builds for other makers' devices are passed over" "2.13.0+cpu cpu" "" \
    choose_wheel 580.65 2.13.0+rocm7.0 2.13.0+xpu 2.13.0+cpu
expect "release candidates are passed over" "2.13.0+cpu cpu" "" \
    choose_wheel none 2.13.0+cpu 2.13.1rc1+cpu 2.13.2.dev20260101+cpu
expect "2.130 is not 2.13" "none -" "pip finds no torch 2.13" choose_wheel none 2.130.0
expect "nothing suitable" "none -" "LINEUP_LIBTORCH" choose_wheel none 2.12.0 2.14.0
expect "nothing at all" "none -" "pip finds no torch" choose_wheel 580.65

printf 'libtorch-choice: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
