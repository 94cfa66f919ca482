#!/usr/bin/env python3
"""Trains `basic` with every loss, several seeds each, and prints the table of docs/losses.md.

    python3 scripts/figures/losses.py LINEUP CROPS FOLDER [--seeds 3] [--losses batch_all circle]

LINEUP is the binary, CROPS the data that `make demo` leaves in demo/crops, FOLDER receives the runs: those that are
there and at their end are not trained again. Everything but loss and seed is presets/fashion-demo.json.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

PRESET = pathlib.Path(__file__).resolve().parents[2] / "presets" / "fashion-demo.json"

# Settings beside the loss's own defaults. A rate for Adam is the network's business, and one fits nearly all.
LOSSES = {
    "batch_all": ["loss.margin=0.5"],
    "batch_hard": [],
    "batch_hard_000": [],
    "tf_batch_semi_hard": [],
    "semi_hard": [],
    "batch_sample": [],
    "weighted_triplet": [],
    "lifted": [],
    "generalized_lifted": [],
    "hap2s_exponential": [],
    "hap2s_polynomial": [],
    "multi_similarity": [],
    "circle": [],
    "supervised_contrastive": [],
    "nt_xent": [],
    "softmax": [],
    "normalized_softmax": [],
    "arcface": [],
    "cosface": [],
    "proxy_anchor": [],
    "center": ["loss.plus=softmax", "loss.weight=0.0005"],
    "batch_hard + softmax": ["loss.plus=softmax"],
    "multi_similarity + memory": ["loss.memory=4096", "loss.memory_start_step=20"],
}


def ledger(lineup, run):
    told = subprocess.run([lineup, "ledger", run, "--json"], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else None


def accuracies(found):
    """val_eval's general accuracy by step."""
    return {row["step"]: row["value"] for row in found["evaluations"]
            if row["set"] == "val_eval" and row["metric"] == "general_accuracy"}


def train(lineup, crops, run, loss, settings, seed):
    """Returns val_eval's general accuracy at step 0 and at the end."""
    values = json.loads(PRESET.read_text())
    steps = values["schedule"]["steps"]
    # Every loss comes with margin, distance and reducer of its own.
    del values["loss"]
    if run.exists():
        found = ledger(lineup, run)
        scores = accuracies(found) if found else {}
        if 0 in scores and steps in scores:
            return scores[0], scores[steps]
        sys.exit(f"losses: {run} is there and not at its end; remove it")
    run.mkdir(parents=True)
    (run / "params.json").write_text(json.dumps(values))
    chosen = [f"data.root={crops}", f"seed={seed}", f"loss.name={loss.split(' ')[0]}",
              f"checkpoint.every_steps={steps}"] + settings
    command = [lineup, "train", str(run), "--trainers", "2", "--evaluators", "1"]
    done = subprocess.run(command + [word for one in chosen for word in ("--set", one)],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"losses: {loss}, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
    scores = accuracies(ledger(lineup, run))
    return scores[0], scores[steps]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lineup")
    parser.add_argument("crops")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--losses", nargs="*", default=list(LOSSES), metavar="LOSS")
    options = parser.parse_args()
    unknown = [name for name in options.losses if name not in LOSSES]
    if unknown:
        parser.error(f"no loss '{unknown[0]}'; expected some of {', '.join(LOSSES)}")
    seeds = range(1, options.seeds + 1)
    print("| loss | settings | step 0 | at the end | gain | each seed's gain |")
    print("|---|---|---|---|---|---|", flush=True)
    for loss in options.losses:
        pairs = []
        for seed in seeds:
            begun = time.monotonic()
            run = options.folder / f"{loss.replace(' ', '')}-{seed}"
            pairs.append(train(options.lineup, options.crops, run, loss, LOSSES[loss], seed))
            print(f"losses: {loss}, seed {seed}: {pairs[-1][0]:.3f} -> {pairs[-1][1]:.3f}, "
                  f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        gains = [after - before for before, after in pairs]
        told = ", ".join(f"`{one}`" for one in LOSSES[loss]) or "its own"
        print(f"| {loss} | {told} | {statistics.mean(p[0] for p in pairs):.3f} | "
              f"{statistics.mean(p[1] for p in pairs):.3f} | **{statistics.mean(gains):+.3f}** | "
              f"{', '.join(f'{gain:+.3f}' for gain in gains)} |", flush=True)


if __name__ == "__main__":
    main()
