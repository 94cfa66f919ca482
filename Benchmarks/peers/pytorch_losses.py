"""A loss of pytorch-metric-learning, forward and backward, timed on demand.

usage: pytorch_losses.py --loss NAME --images N --per-identity K --dimension D --threads T
       [--identities C]

Says one line of JSON when it is ready. Then each line `steps N` on standard input is answered by
{"seconds": [...]}, and `peak` by {"peak_mib": [...]}. The end of the input ends it.
"""

import argparse
import json
import resource
import sys
import time

import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, miners, reducers


def plain():
    return distances.LpDistance(normalize_embeddings=False, p=2, power=1)


def hard(labels):
    loss = losses.TripletMarginLoss(
        margin=0, smooth_loss=True, distance=plain(), reducer=reducers.MeanReducer()
    )
    miner = miners.BatchHardMiner(distance=plain())
    return lambda x: loss(x, labels, miner(x, labels))


def mined(labels):
    loss, miner = losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner()
    return lambda x: loss(x, labels, miner(x, labels))


def of(loss):
    return lambda labels: lambda x: loss(x, labels)


LOSSES = {
    "batch_all": of(losses.TripletMarginLoss(margin=0.2, distance=plain())),
    "batch_hard": hard,
    "lifted": of(losses.LiftedStructureLoss(distance=plain())),
    "generalized_lifted": of(losses.GeneralizedLiftedStructureLoss(distance=plain())),
    "multi_similarity": mined,
    "circle": of(losses.CircleLoss()),
    "supervised_contrastive": of(losses.SupConLoss()),
    "nt_xent": of(losses.NTXentLoss()),
}

# With a vector for each of a number of identities.
CLASS_LOSSES = {"arcface": losses.ArcFaceLoss, "proxy_anchor": losses.ProxyAnchorLoss}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--loss", choices=[*LOSSES, *CLASS_LOSSES], required=True)
    parser.add_argument("--identities", type=int, default=1000)
    for name in ("--images", "--per-identity", "--dimension", "--threads"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    embeddings = torch.randn(options.images, options.dimension) / options.dimension**0.5
    labels = torch.arange(options.images) // options.per_identity
    if options.loss in CLASS_LOSSES:
        loss = of(CLASS_LOSSES[options.loss](options.identities, options.dimension))(labels)
    else:
        loss = LOSSES[options.loss](labels)
    version = f"{pytorch_metric_learning.__version__} on torch {torch.__version__}"
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["peak"]:
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"peak_mib": [kilobytes / 1024]}), flush=True)
            continue
        if len(words) != 2 or words[0] != "steps":
            sys.exit(f"'{line.strip()}' is neither 'steps N' nor 'peak'")
        seconds = []
        for _ in range(int(words[1])):
            start = time.perf_counter()
            rows = embeddings.detach().requires_grad_()
            loss(rows).backward()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
