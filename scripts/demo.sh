#!/bin/bash
# Shows what Lineup is for: trains on real pictures, breaks the run on the way, and gets the same
# weights all the same.
#
# usage: scripts/demo.sh [FOLDER]     FOLDER, demo unless given, receives data and runs
#
# The data is kept between calls, the runs are made anew.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
LINEUP_SCRIPT=demo
# shellcheck source=lib/common.sh
. "$HERE/lib/common.sh"
cd "$HERE/.." || exit 1

folder=${1:-demo}
lineup=$PWD/.build/release/lineup
[ -x "$lineup" ] || fail "there is no .build/release/lineup; run 'make demo'"
preset=presets/fashion-demo.json
begun=$SECONDS
cluster=

# Nothing that this script started outlives it.
end_cluster() {
    [ -z "$cluster" ] || kill -TERM "$cluster" 2>/dev/null
    [ -z "$cluster" ] || wait "$cluster" 2>/dev/null
}
trap end_cluster EXIT
trap 'exit 130' INT TERM

chapter() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - begun))" >&2; }

# The last committed step of a run, 0 where there is none.
last_step() {
    local step
    step=$("$lineup" ledger "$1" --json 2>/dev/null | grep -oE '"last_step":[0-9]+' | head -n 1)
    echo "${step##*:}"
}

# Process ids of a run's trainers that are there, one a line.
trainer_processes() {
    "$lineup" ledger "$1" --json 2>/dev/null | grep -oE '\{[^{}]*"role":"trainer"[^{}]*\}' |
        grep '"left":null' | sed -n 's/.*"process":\([0-9]*\).*/\1/p'
}

# Waits until a run has committed a step; ends the demo when the cluster ends before.
wait_for_step() {
    local step
    while :; do
        step=$(last_step "$1")
        [ "${step:-0}" -lt "$2" ] || return 0
        kill -0 "$cluster" 2>/dev/null || fail "the run ended before step $2; see $1/logs"
        sleep 0.2
    done
}

make_run() {
    rm -rf "$1"
    mkdir -p "$1" || fail "cannot write to '$1'; name a folder: scripts/demo.sh FOLDER"
    cp "$preset" "$1/params.json"
}

mkdir -p "$folder" || fail "cannot write to '$folder'; name a folder: scripts/demo.sh FOLDER"
folder=$(cd "$folder" && pwd -P)
crops=$folder/crops
steps=$(sed -n 's/.*"steps": *\([0-9]*\).*/\1/p' "$preset")

chapter "real photographs of garments, made into snippets in which they move and cover one another"
"$lineup" dataset fashion-vid "$folder/video" --train-snippets 160 --val-snippets 120 --frames 12 \
    --seed 1 >&2 || exit 1
"$lineup" crop "$folder/video" --out "$crops" >&2 || exit 1
"$lineup" curate "$crops" --seed 1 --images-per-set 3600 >&2 || exit 1

chapter "the undisturbed run: two trainers, $steps steps, nobody scores"
make_run "$folder/undisturbed"
"$lineup" train "$folder/undisturbed" --trainers 2 --evaluators 0 --set "data.root=$crops" ||
    fail "the undisturbed run failed; see $folder/undisturbed/logs"

chapter "the same run, scored as it goes, and disturbed"
make_run "$folder/run"
"$lineup" train "$folder/run" --trainers 2 --evaluators 1 --set "data.root=$crops" &
cluster=$!
wait_for_step "$folder/run" $((steps / 4))
victim=$(trainer_processes "$folder/run" | tail -n 1)
[ -n "$victim" ] || fail "no trainer is in the ledger of $folder/run"
kill -9 "$victim"
say "kill -9 $victim, one of the two trainers, after step $(last_step "$folder/run")"
wait_for_step "$folder/run" $((steps * 6 / 10))
say "stopping everything after step $(last_step "$folder/run")"
kill -TERM "$cluster"
wait "$cluster"
status=$?
cluster=
[ "$status" -eq 75 ] ||
    fail "the stopped run ended with $status, not with 75 (start me again); see $folder/run/logs"

chapter "resumed with three trainers"
"$lineup" resume "$folder/run" --trainers 3 --evaluators 1 &
cluster=$!
wait "$cluster"
status=$?
cluster=
[ "$status" -eq 0 ] || fail "the resumed run ended with $status; see $folder/run/logs"

chapter "what it came to"
"$lineup" report "$folder/run" --compare "$folder/undisturbed"
status=$?
cat <<EOF

$((SECONDS - begun)) s in all. Look further:
  .build/release/lineup ledger $folder/run           metrics, workers, checkpoints, events
  .build/release/lineup ledger $folder/run --json    the same for scripts
  tensorboard --logdir $folder/run/events            curves
  .build/release/lineup params                       every setting
  README.md, docs/architecture.md                    your own data, several machines
EOF
exit "$status"
