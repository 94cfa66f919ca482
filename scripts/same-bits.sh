#!/bin/bash
# Shows on real processes that a run is a function: the same weights and the same ledger with any
# number of trainers, after an interrupt and a resume, and after kill -9 of everything and a resume.
#
# usage: scripts/same-bits.sh [basic|resnet50|all] [FOLDER]     FOLDER, .build/same-bits unless given
#
# basic makes 200 steps, ResNet-50 twenty at 64x32. Needs a build; takes ten minutes on two cores.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=same-bits
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1

lineup=${LINEUP_BINARY:-$PWD/.build/release/lineup}
[ -x "$lineup" ] || fail "there is no .build/release/lineup; run 'make build'"
networks=${1:-all}
case $networks in
basic | resnet50) ;;
all) networks="basic resnet50" ;;
*) fail "'$networks' is none of basic, resnet50 and all" ;;
esac
folder=${2:-.build/same-bits}
rm -rf "$folder"
mkdir -p "$folder" || fail "cannot write to '$folder'; name a folder: scripts/same-bits.sh all FOLDER"
folder=$(cd "$folder" && pwd -P)
crops=$folder/crops
cluster=
end_cluster() { [ -z "$cluster" ] || kill -KILL -- "-$cluster" 2>/dev/null; }
trap end_cluster EXIT
trap 'exit 130' INT TERM
status=0

settings() {
    case $1 in
    basic) echo schedule.steps=200 checkpoint.every_steps=50 network.backbone=basic batch.identities=6 ;;
    resnet50)
        echo schedule.steps=20 checkpoint.every_steps=10 network.backbone=resnet50 \
            input.height=64 input.width=32 augmentation.crop_from_height=72 \
            augmentation.crop_from_width=36 batch.identities=4
        ;;
    esac
    echo "data.root=$crops" batch.mini_batches_per_step=4 checkpoint.recovery_seconds=3
}

last_step() {
    "$lineup" ledger "$1" --json 2>/dev/null | sed -n 's/.*"last_step":\([0-9]*\).*/\1/p' | head -n 1
}

# start RUN NETWORK TRAINERS: in a process group of its own, so that all of it can be killed at once.
start() {
    local run=$1 setting
    local options=()
    for setting in $(settings "$2"); do options+=(--set "$setting"); done
    setsid "$lineup" train "$run" --trainers "$3" --evaluators 0 "${options[@]}" \
        >"$run.log" 2>&1 &
    cluster=$!
}

# disturb RUN SIGNAL FIRST LAST: the signal at a random step in between. Sets code and at.
disturb() {
    local step
    at=$(($3 + RANDOM % ($4 - $3)))
    while step=$(last_step "$1"); [ "${step:-0}" -lt "$at" ]; do
        kill -0 "$cluster" 2>/dev/null || fail "$1 ended before step $at; see $1.log"
        sleep 0.05
    done
    if [ "$2" = KILL ]; then kill -KILL -- "-$cluster"; else kill "-$2" "$cluster"; fi
    wait "$cluster" 2>/dev/null
    code=$?
    cluster=
    at=$(last_step "$1")
}

# finish RUN EXPECTED: the exit status.
finish() {
    wait "$cluster"
    local code=$?
    cluster=
    [ "$code" -eq "$2" ] || fail "$1 ended with $code, not with $2; see $1.log"
}

# row NETWORK HOW RUN
row() {
    local weights ledger steps verdict=same
    local files=("$3"/checkpoints/step-*.safetensors)
    weights=$("$lineup" checkpoint digest "${files[-1]}")
    ledger=$("$lineup" ledger digest "$3")
    steps=$("$lineup" ledger "$3" --json | grep -o '"active_count"' | wc -l)
    if [ -z "$wanted" ]; then
        wanted="$weights $ledger"
        verdict=first
    elif [ "$weights $ledger" != "$wanted" ]; then
        verdict=DIFFERS
        status=1
    fi
    printf '%-9s %-52s %-17s %-17s %5s  %s\n' "$1" "$2" "$weights" "$ledger" "$steps" "$verdict"
}

say "making a small data set of real photographs"
"$lineup" dataset fashion-vid "$folder/video" --train-snippets 60 --val-snippets 20 --frames 12 \
    --seed 1 >"$folder/data.log" 2>&1 &&
    "$lineup" crop "$folder/video" --out "$crops" >>"$folder/data.log" 2>&1 &&
    "$lineup" curate "$crops" --seed 1 --images-per-set 300 >>"$folder/data.log" 2>&1 ||
    fail "the data set could not be made; see $folder/data.log"

printf '%-9s %-52s %-17s %-17s %5s\n' network how weights ledger steps
for network in $networks; do
    wanted=
    for trainers in 1 2 3 4; do
        run=$folder/$network-$trainers
        start "$run" "$network" "$trainers"
        finish "$run" 0
        row "$network" "$trainers trainers" "$run"
    done
    read -r first last <<<"$([ "$network" = basic ] && echo 20 180 || echo 3 18)"
    for signal in INT KILL; do
        run=$folder/$network-$signal
        start "$run" "$network" 2
        disturb "$run" "$signal" "$first" "$last"
        [ "$signal" = KILL ] || [ "$code" -eq 75 ] ||
            fail "$run ended with $code after an interrupt, not with 75; see $run.log"
        setsid "$lineup" resume "$run" --trainers 3 --evaluators 0 >>"$run.log" 2>&1 &
        cluster=$!
        finish "$run" 0
        how=$([ "$signal" = KILL ] && echo "kill -9 of everything" || echo "Ctrl+C")
        row "$network" "2 trainers, $how at step $at, then 3" "$run"
    done
done
exit "$status"
