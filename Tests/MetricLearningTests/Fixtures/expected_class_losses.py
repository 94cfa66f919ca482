#!/usr/bin/env python3
"""Writes expected_class_losses.json: as expected_losses.py does, for losses with vectors of identities.

Each formula is written with whole matrices in float64, torch's autograd gives the gradients by rows and
by vectors, and pytorch-metric-learning 2.9.0 is asked where it has the loss; for softmax and its label
smoothing, torch's cross_entropy. The script ends with an error where the two differ by more than 1e-9.

    python3 expected_class_losses.py > expected_class_losses.json
"""
import json
import math
import sys

import numpy as np
import torch
from pytorch_metric_learning import losses, reducers

from expected_losses import batches, unit

torch.set_default_dtype(torch.float64)


def directions(x):
    return x / x.norm(dim=1, keepdim=True)


def cross_entropy(logits, labels, smoothing):
    """Of every row; where the own identity has nearly all, by the others alone: no digit is lost."""
    own = logits.gather(1, labels[:, None])
    others = logits.masked_fill(torch.eye(logits.shape[1])[labels] > 0, -math.inf)
    term = torch.logaddexp(torch.zeros(()), others.logsumexp(1) - own[:, 0])
    return term + smoothing * (own[:, 0] - logits.mean(1))


def softmax(run, x, w, labels):
    return cross_entropy(x @ w.T / run["temperature"], labels, run["label_smoothing"])


def normalized_softmax(run, x, w, labels):
    return softmax(run, directions(x), directions(w), labels)


def margin_softmax(run, x, w, labels, own_of):
    cosine = directions(x) @ directions(w).T
    is_own = torch.eye(len(w))[labels] > 0
    logits = run["scale"] * torch.where(is_own, own_of(cosine, run["margin"]), cosine)
    return cross_entropy(logits, labels, run["label_smoothing"])


def arcface(run, x, w, labels):
    def own_of(cosine, m):
        angle = torch.acos(cosine)
        return torch.where(angle <= math.pi - m, torch.cos(angle + m), cosine - m * math.sin(m))
    return margin_softmax(run, x, w, labels, own_of)


def cosface(run, x, w, labels):
    return margin_softmax(run, x, w, labels, lambda cosine, m: cosine - m)


def proxy_anchor(run, x, w, labels):
    s = directions(x) @ directions(w).T
    alpha, m = run["proxy_anchor_alpha"], run["margin"]
    terms = []
    for c in range(len(w)):
        near, far = s[labels == c, c], s[labels != c, c]
        zero = torch.zeros(1)
        pull = torch.cat([zero, alpha * (m - near)]).logsumexp(0)
        push = torch.cat([zero, alpha * (far + m)]).logsumexp(0)
        terms.append(len(w) / len(labels.unique()) * pull + push)
    return torch.stack(terms)


def center(run, x, w, labels):
    return (x - w[labels]).square().sum(1) / 2


def evaluate(run, rows, classes, labels):
    x, w = (torch.tensor(values, requires_grad=True) for values in (rows, classes))
    terms = globals()[run["name"]](run, unit(x, run["normalize"]), w, torch.tensor(labels))
    active = int((terms > run["active_threshold"]).sum())
    divisor = len(terms) if run["reducer"] == "mean" else max(1, active)
    value = terms.sum() / divisor
    value.backward()
    return {
        "value": value.item(),
        "gradient": x.grad.flatten().tolist(),
        "class_gradient": w.grad.flatten().tolist(),
        "active": active,
        "valid": len(terms),
    }


def known(run, rows, classes, labels):
    """Another implementation's value and gradients, or None where there is none."""
    name, size = run["name"], dict(num_classes=len(classes), embedding_size=rows.shape[1])
    x, labels = torch.tensor(rows, requires_grad=True), torch.tensor(labels)
    if run["reducer"] != "mean" or run["normalize"] != "none":
        return None
    if name == "softmax":
        w = torch.tensor(classes, requires_grad=True)
        value = torch.nn.functional.cross_entropy(
            x @ w.T / run["temperature"], labels, label_smoothing=run["label_smoothing"])
        value.backward()
        return value.item(), x.grad, w.grad
    if name == "center" or run["label_smoothing"] > 0:
        return None
    mean = dict(reducer=reducers.MeanReducer())
    if name == "normalized_softmax":
        loss = losses.NormalizedSoftmaxLoss(temperature=run["temperature"], **size, **mean)
    elif name == "arcface":
        loss = losses.ArcFaceLoss(
            margin=math.degrees(run["margin"]), scale=run["scale"], **size, **mean)
    elif name == "cosface":
        loss = losses.CosFaceLoss(margin=run["margin"], scale=run["scale"], **size, **mean)
    else:
        loss = losses.ProxyAnchorLoss(
            margin=run["margin"], alpha=run["proxy_anchor_alpha"], **size)
    vectors = loss.proxies if name == "proxy_anchor" else loss.W
    vectors.data = torch.tensor(classes if name == "proxy_anchor" else classes.T.copy())
    value = loss(x, labels)
    value.backward()
    return value.item(), x.grad, vectors.grad if name == "proxy_anchor" else vectors.grad.T


def runs():
    base = dict(
        normalize="none", reducer="mean", active_threshold=1e-5, label_smoothing=0.0,
        distance="cosine", margin="none",
    )
    plain = dict(distance="euclidean")
    yield base | plain | dict(name="softmax", temperature=1.0, label_smoothing=0.1)
    yield base | plain | dict(name="softmax", temperature=0.5)
    yield base | plain | dict(name="softmax", temperature=1.0, normalize="rows")
    yield base | dict(name="normalized_softmax", temperature=0.05)
    yield base | dict(name="normalized_softmax", temperature=0.05, label_smoothing=0.2)
    yield base | dict(name="arcface", margin=0.5, scale=64.0)
    yield base | dict(name="arcface", margin=2.5, scale=4.0, label_smoothing=0.1)
    yield base | dict(name="cosface", margin=0.35, scale=64.0)
    yield base | dict(name="cosface", margin=0.35, scale=64.0, reducer="mean_nonzero")
    yield base | dict(name="proxy_anchor", margin=0.1, proxy_anchor_alpha=32.0)
    yield base | plain | dict(name="center")
    yield base | plain | dict(name="center", normalize="rows", active_threshold=0.5)


def main():
    written, compared = [], 0
    random = np.random.default_rng(31)
    for name, rows, labels, _ in batches():
        rows = np.asarray(rows)
        # Two identities more than the batch shows, and vectors of unlike lengths.
        count = max(labels) + 3
        classes = random.normal(size=(count, 3)) * 10.0 ** random.integers(-2, 3, size=(count, 1))
        if name == "bf16":
            classes = torch.tensor(classes).bfloat16().double().numpy()
        cases = []
        for run in runs():
            found = evaluate(run, rows, classes, labels)
            gradients = [np.array(found[key]) for key in ("gradient", "class_gradient")]
            assert all(np.isfinite(values).all() for values in gradients), (name, run)
            other = known(run, rows, classes, labels)
            if other is not None:
                assert abs(found["value"] - other[0]) <= 1e-9 * abs(other[0]) + 1e-13, (
                    name, run, found["value"], other[0])
                for own, its in zip(gradients, other[1:]):
                    its = its.flatten().numpy()
                    scale = np.abs(its).max()
                    assert np.abs(own - its).max() <= 1e-9 * scale + 1e-13, (name, run)
                compared += 1
            settings = {
                key: value for key, value in run.items()
                if key != "label_smoothing" or value > 0 or run["name"] == "softmax"
            }
            cases.append(settings | found)
        written.append({
            "name": name, "labels": labels, "rows": rows.flatten().tolist(),
            "classes": classes.flatten().tolist(), "runs": cases,
        })
    print(f"{compared} cases agree with another implementation", file=sys.stderr)
    print(json.dumps(written, separators=(",", ":")).replace('},{"', '},\n{"'))


if __name__ == "__main__":
    main()
