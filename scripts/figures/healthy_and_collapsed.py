#!/usr/bin/env python3
"""Draws two runs beside each other, for docs/watching.md.

    python3 healthy_and_collapsed.py HEALTHY COLLAPSED OUT.svg

Reads the runs' event files with tensorboard's own reader and draws with matplotlib.
"""
import os
import sys

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Okabe and Ito's colours, which everybody can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def events(run, part):
    found = EventAccumulator(f"{run}/events/{part}", size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    return found


def scalars(run, part, tag):
    values = events(run, part).Scalars(tag)
    return [v.step for v in values], [v.value for v in values]


def means(run, tag):
    values = events(run, "train").Histograms(tag)
    return ([v.step for v in values],
            [v.histogram_value.sum / max(1, v.histogram_value.num) for v in values])


def main(healthy, collapsed, out):
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "lineup", "svg.fonttype": "none"})
    figure, axes = plt.subplots(4, 2, figsize=(8, 8.4), sharex=True, layout="constrained")
    for column, (run, name) in enumerate([(healthy, "healthy"), (collapsed, "collapsed")]):
        loss, distance, batch, score = axes[:, column]
        loss.set_title(name)
        loss.plot(*scalars(run, "train", "loss"), color=BLUE)
        loss.axhline(0.6931, color=GREY, linewidth=0.8, linestyle="--")
        loss.set_yscale("log")
        distance.plot(*means(run, "embedding_pos_dists"), color=GREEN, label="one identity")
        distance.plot(*means(run, "embedding_neg_dists"), color=ORANGE, label="two identities")
        distance.set_yscale("symlog", linthresh=1e-3)
        batch.plot(*scalars(run, "train", "batch_top1"), color=BLUE, label="batch_top1")
        batch.plot(*scalars(run, "train", "fraction_positive"), color=ORANGE,
                   label="fraction_positive")
        batch.set_ylim(-0.05, 1.05)
        score.plot(*scalars(run, "val_eval", "general_accuracy"), "o-", color=BLUE,
                   label="general_accuracy")
        score.plot(*scalars(run, "val_eval", "general_accuracy_ties"), "x--", color=ORANGE,
                   label="general_accuracy_ties")
        score.set_ylim(-0.05, 1.05)
        score.set_xlabel("step")
        for one in (distance, batch, score):
            one.legend(frameon=False, fontsize=8)
        for one in (loss, distance, batch, score):
            one.spines[["top", "right"]].set_visible(False)
    for row, name in enumerate(["loss (dashed: ln 2)", "mean distance", "in the mini-batch",
                                "val_eval"]):
        axes[row, 0].set_ylabel(name)
        low = min(one.get_ylim()[0] for one in axes[row])
        high = max(one.get_ylim()[1] for one in axes[row])
        for one in axes[row]:
            one.set_ylim(low, high)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
