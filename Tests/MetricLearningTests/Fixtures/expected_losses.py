#!/usr/bin/env python3
"""Writes expected_losses.json: small batches, losses, and their values and gradients in float64.

Every loss is written here as its formula over a matrix of distances, in plain loops over anchors, and
torch's autograd gives the gradient. Where pytorch-metric-learning 2.9.0 has the loss, it is asked too,
and the script ends with an error where the two differ by more than 1e-9. Run it again only to change
the cases:

    python3 expected_losses.py > expected_losses.json
"""
import json
import sys

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

torch.set_default_dtype(torch.float64)


# Distances

def euclidean(x):
    s = (x[:, None] - x[None]).square().sum(2)
    return torch.where(s > 0, torch.where(s > 0, s, 1).sqrt(), 0)


def sqeuclidean(x):
    return (x[:, None] - x[None]).square().sum(2)


def cityblock(x):
    return (x[:, None] - x[None]).abs().sum(2)


def cosine(x):
    u = x / x.norm(dim=1, keepdim=True)
    return 1 - u @ u.T


def unit(x, normalize):
    if normalize == "none":
        return x
    return x / x.norm(dim=1 if normalize == "rows" else 0, keepdim=True)


# Terms: a function of an anchor's positive and negative distances gives a list

def margin_of(run):
    m = run["margin"]
    if m == "soft":
        return lambda x: torch.logaddexp(torch.zeros(()), x)
    if m == "none":
        return lambda x: x
    return lambda x: torch.relu(x + m)


def batch_all(run, near, far, row):
    h = margin_of(run)
    return [h(p - n) for p in near for n in far]


def batch_hard(run, near, far, row):
    if len(far) == 0:
        return [torch.zeros(())]
    return [margin_of(run)((near.amax() if len(near) else 0) - far.amin())]


def batch_hard_000(run, near, far, row):
    p = near.amax() if len(near) else torch.zeros(())
    return [margin_of(run)(p - (far.amin() if len(far) else p))]


def semi_hard(run, near, far, row, counts_lone=False):
    terms = []
    for p in near:
        beyond = far[far > p]
        if len(far):
            n = beyond.amin() if len(beyond) else far.amax()
        elif counts_lone:
            n = torch.zeros(())
        else:
            continue
        terms.append(margin_of(run)(p - n))
    return terms


def tf_batch_semi_hard(run, near, far, row):
    return semi_hard(run, near, far, row, counts_lone=True)


def batch_sample(run, near, far, row):
    def pick(d, weights, u):
        cumulated = np.cumsum(weights) / np.sum(weights)
        return d[min(int(np.argmax(cumulated > u)), len(d) - 1)]

    if len(far) == 0:
        return [torch.zeros(())]
    a, b = run["draws"][2 * row : 2 * row + 2]
    n = pick(far, np.exp(-(far - far.min()).detach().numpy()), b)
    p = pick(near, np.exp((near - near.max()).detach().numpy()), a) if len(near) else 0
    return [margin_of(run)(p - n)]


def point_to_set(run, near, far, log_weight):
    if run.get("hap2s_compatibility"):
        def mean(d, positive):
            w = torch.exp(log_weight(d, positive))
            return (w * d).sum() / (w.sum() + 1e-6)
        return [margin_of(run)(mean(near, True) - mean(far, False))]
    if len(far) == 0:
        return [torch.zeros(())]
    def mean(d, positive):
        return (torch.softmax(log_weight(d, positive), 0) * d).sum()
    return [margin_of(run)((mean(near, True) if len(near) else 0) - mean(far, False))]


def weighted_triplet(run, near, far, row):
    return point_to_set(run, near, far, lambda d, positive: d if positive else -d)


def hap2s_exponential(run, near, far, row):
    def log_weight(d, positive):
        s = (d if positive else -d) / run["hap2s_sigma"]
        return s.clamp(max=50) if run["hap2s_compatibility"] else s
    return point_to_set(run, near, far, log_weight)


def hap2s_polynomial(run, near, far, row):
    def log_weight(d, positive):
        base = (1 + d).clamp(max=100) if run["hap2s_compatibility"] else 1 + d
        return (1 if positive else -2) * run["hap2s_alpha"] * base.log()
    return point_to_set(run, near, far, log_weight)


def generalized_lifted(run, near, far, row):
    if len(near) == 0 or len(far) == 0:
        return [torch.zeros(())]
    return [torch.relu(near.logsumexp(0) + (run["margin"] - far).logsumexp(0))]


def multi_similarity(run, near, far, row):
    zero = torch.zeros(1)
    alpha, beta, base = (run["multi_similarity_" + name] for name in ("alpha", "beta", "base"))
    pull = torch.cat([zero, -alpha * (1 - near - base)]).logsumexp(0) / alpha
    push = torch.cat([zero, beta * (1 - far - base)]).logsumexp(0) / beta
    return [pull + push]


def circle(run, near, far, row):
    if len(near) == 0 or len(far) == 0:
        return [torch.zeros(())]
    m, gamma = run["margin"], run["circle_gamma"]
    s, t = 1 - near, 1 - far
    pull = (-gamma * torch.relu(1 + m - s.detach()) * (s - (1 - m))).logsumexp(0)
    push = (gamma * torch.relu(t.detach() + m) * (t - m)).logsumexp(0)
    return [torch.logaddexp(torch.zeros(()), pull + push)]


def supervised_contrastive(run, near, far, row):
    if len(near) == 0:
        return [torch.zeros(())]
    logits = (1 - torch.cat([near, far])) / run["temperature"]
    return [(logits.logsumexp(0) - logits[: len(near)]).mean()]


def nt_xent(run, near, far, row):
    t = run["temperature"]
    return [torch.cat([(1 - p)[None], 1 - far]).div(t).logsumexp(0) - (1 - p) / t for p in near]


def lifted(run, d, labels):
    terms = []
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i == j or labels[i] != labels[j]:
                continue
            other = labels != labels[i]
            far = torch.cat([d[i][other], d[j][other]])
            if len(far):
                terms.append(torch.relu(d[i, j] + (run["margin"] - far).logsumexp(0)).square() / 2)
            else:
                terms.append(torch.zeros(()))
    return terms


def terms_of(run, d, labels):
    if run["name"] == "lifted":
        return lifted(run, d, labels)
    terms = []
    for i in range(len(labels)):
        same = labels == labels[i]
        far = d[i][~same]
        same[i] = False
        near = d[i][same]
        if run["miner"] == "multi_similarity":
            epsilon = run["miner_epsilon"]
            farthest = near.max() if len(near) else -torch.inf
            nearest = far.min() if len(far) else torch.inf
            near, far = near[near + epsilon > nearest], far[far - epsilon < farthest]
        terms += globals()[run["name"]](run, near, far, i)
    return terms


def evaluate(run, rows, labels):
    x = torch.tensor(rows, requires_grad=True)
    d = globals()[run["distance"]](unit(x, run["normalize"]))
    terms = terms_of(run, d, np.asarray(labels))
    active = sum(float(term.detach()) > run["active_threshold"] for term in terms)
    divisor = max(1, len(terms) if run["reducer"] == "mean" else active)
    value = sum(terms, (x * 0).sum()) / divisor
    value.backward()
    return {
        "value": value.item(),
        "gradient": x.grad.flatten().tolist(),
        "active": active,
        "valid": len(terms),
    }


# pytorch-metric-learning

def pml_distance(run):
    rows = run["normalize"] == "rows"
    if run["distance"] == "cosine":
        return distances.CosineSimilarity()
    p, power = {"euclidean": (2, 1), "sqeuclidean": (2, 2), "cityblock": (1, 1)}[run["distance"]]
    return distances.LpDistance(normalize_embeddings=rows, p=p, power=power)


def pml_objects(run):
    """The package's loss and miner (or None), or None where it has no such loss."""
    d = pml_distance(run)
    r = reducers.MeanReducer() if run["reducer"] == "mean" else reducers.AvgNonZeroReducer()
    miner = None
    if run["miner"] == "multi_similarity":
        miner = miners.MultiSimilarityMiner(epsilon=run["miner_epsilon"], distance=d)
    name, margin = run["name"], run["margin"]
    if name in ("batch_all", "batch_hard"):
        if margin == "none":
            return None
        smooth = margin == "soft"
        if smooth and name == "batch_all" and run["reducer"] != "mean":
            return None
        loss = losses.TripletMarginLoss(
            margin=0 if smooth else margin, smooth_loss=smooth, distance=d, reducer=r
        )
        if name == "batch_hard":
            miner = miners.BatchHardMiner(distance=d)
    elif name == "lifted":
        loss = losses.LiftedStructureLoss(neg_margin=margin, distance=d, reducer=r)
    elif name == "generalized_lifted":
        loss = losses.GeneralizedLiftedStructureLoss(neg_margin=margin, distance=d, reducer=r)
    elif name == "multi_similarity":
        loss = losses.MultiSimilarityLoss(
            alpha=run["multi_similarity_alpha"], beta=run["multi_similarity_beta"],
            base=run["multi_similarity_base"], reducer=r,
        )
    elif name == "circle":
        loss = losses.CircleLoss(m=margin, gamma=run["circle_gamma"], reducer=r)
    elif name == "supervised_contrastive":
        loss = losses.SupConLoss(temperature=run["temperature"], reducer=r)
    elif name == "nt_xent":
        loss = losses.NTXentLoss(temperature=run["temperature"], reducer=r)
    else:
        return None
    return loss, miner


def pml_loss(run, rows, labels):
    """The package's value and gradient, or None where it has no such loss."""
    found = pml_objects(run)
    if found is None:
        return None
    loss, miner = found
    x = torch.tensor(rows, requires_grad=True)
    mined = miner(x, torch.tensor(labels)) if miner else None
    value = loss(x, torch.tensor(labels), mined)
    value.backward()
    return float(value), x.grad.flatten().numpy()


# Cases

def batches():
    random = np.random.default_rng(20)
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    rows = random.normal(size=(10, 3))
    yield "random", rows[:9], labels[:9], True
    yield "two_images", random.normal(size=(8, 3)), [4, 7, 5, 4, 5, 7, 9, 9], True
    twins = rows.copy()
    twins[1], twins[4], twins[7] = twins[0], twins[0], twins[6]
    yield "duplicates", twins, labels, False
    yield "near_twins", twins + 1e-6 * random.normal(size=(10, 3)), labels, False
    yield "all_equal", np.ones((6, 3)), [0, 0, 1, 1, 2, 2], False
    yield "one_identity", rows[:5], [3] * 5, False
    yield "no_positives", rows[:5], list(range(5)), False
    yield "huge", rows * 1e5, labels, False
    yield "tiny", rows * 1e-5, labels, False
    yield "uneven_norms", rows * 10.0 ** random.integers(-3, 4, size=(10, 1)), labels, False
    yield "bf16", torch.tensor(rows).bfloat16().double().numpy(), labels, False


BASE = dict(
    distance="euclidean", normalize="none", miner="all", miner_epsilon=0.1, reducer="mean",
    active_threshold=1e-5,
)


def runs():
    def run(loss, **settings):
        return BASE | {"name": loss} | settings

    for margin in (0.3, "soft"):
        yield run("batch_all", margin=margin, reducer="mean_nonzero", active_threshold=1e-16)
        yield run("batch_hard", margin=margin)
    yield run("batch_all", margin="none", distance="cityblock")
    yield run("batch_all", margin=0.5, distance="cosine", active_threshold=0.4)
    yield run("batch_all", margin=0.5, miner="multi_similarity", normalize="rows")
    yield run("batch_hard", margin="none", distance="sqeuclidean", normalize="columns")
    yield run("batch_hard", margin=0.3, reducer="mean_nonzero")
    yield run("batch_hard_000", margin=0.3)
    yield run("tf_batch_semi_hard", margin=1.0, distance="sqeuclidean", normalize="rows")
    yield run("semi_hard", margin="soft")
    yield run("batch_sample", margin="soft",
              draws=np.random.default_rng(3).random(20).round(6).tolist())
    yield run("weighted_triplet", margin="soft")
    yield run("lifted", margin=1.0)
    yield run("generalized_lifted", margin=1.0, normalize="rows")
    for compatibility in (False, True):
        yield run("hap2s_exponential", margin=0.2, hap2s_sigma=0.5,
                  hap2s_compatibility=compatibility)
        yield run("hap2s_polynomial", margin="soft", hap2s_alpha=10.0,
                  hap2s_compatibility=compatibility)
    similarity = dict(distance="cosine")
    scales = dict(multi_similarity_alpha=2.0, multi_similarity_beta=50.0, multi_similarity_base=0.5)
    yield run("multi_similarity", margin="none", miner="multi_similarity", **similarity, **scales)
    yield run("multi_similarity", margin="none", **similarity, **scales)
    nonzero = dict(reducer="mean_nonzero", active_threshold=1e-16)
    yield run("circle", margin=0.4, circle_gamma=80.0, **similarity, **nonzero)
    yield run("supervised_contrastive", margin="none", temperature=0.1, **similarity, **nonzero)
    yield run("nt_xent", margin="none", temperature=0.07, **similarity)


def main():
    written, compared = [], 0
    for name, rows, labels, is_whole in batches():
        cases = []
        for run in runs():
            found = evaluate(run, rows, labels)
            assert np.isfinite(found["value"]) and np.isfinite(found["gradient"]).all(), (name, run)
            # The package drops an image without a pair where the formula counts it.
            known = pml_loss(run, rows, labels) if is_whole else None
            if known is not None:
                scale = np.abs(known[1]).max()
                assert abs(found["value"] - known[0]) <= 1e-9 * abs(known[0]), (name, run, known)
                assert np.abs(found["gradient"] - known[1]).max() <= 1e-9 * scale, (name, run)
                compared += 1
            cases.append(run | found)
        written.append({
            "name": name, "labels": labels, "rows": np.asarray(rows).flatten().tolist(),
            "runs": cases,
        })
    print(f"{compared} cases agree with pytorch-metric-learning", file=sys.stderr)
    print(json.dumps(written, separators=(",", ":")).replace('},{"distance"', '},\n{"distance"'))


if __name__ == "__main__":
    main()
