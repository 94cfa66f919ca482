#!/usr/bin/env python3
"""Writes expected_memory_losses.json: rows as anchors, references as their positives and negatives.

Every loss is its formula over one anchor's distances from the references, in float64, as
expected_losses.py writes it; torch's autograd gives the gradient by the rows. Where
pytorch-metric-learning 2.9.0 has the loss, its CrossBatchMemory is asked too, and the script ends with
an error where the two differ by more than 1e-9. The package puts a batch's own rows into its queue
before it compares; here the references alone are put in (by enqueue_mask, with which it removes no
comparisons of a row with itself). Run it again only to change the cases:

    python3 expected_memory_losses.py > expected_memory_losses.json
"""
import json
import sys

import numpy as np
import torch
from pytorch_metric_learning import losses

import expected_losses as plain


def table(run, x, y):
    if run["distance"] == "cosine":
        return 1 - plain.unit(x, "rows") @ plain.unit(y, "rows").T
    x, y = plain.unit(x, run["normalize"]), plain.unit(y, run["normalize"])
    difference = x[:, None] - y[None]
    if run["distance"] == "cityblock":
        return difference.abs().sum(2)
    s = difference.square().sum(2)
    if run["distance"] == "sqeuclidean":
        return s
    return torch.where(s > 0, torch.where(s > 0, s, 1).sqrt(), 0)


def batch_hard(run, near, far, row):
    if len(near) == 0 or len(far) == 0:
        return [torch.zeros(())]
    return plain.batch_hard(run, near, far, row)


def evaluate(run, rows, labels, references, reference_labels):
    x = torch.tensor(rows, requires_grad=True)
    d = table(run, x, torch.tensor(references))
    others, terms = np.asarray(reference_labels), []
    for i, label in enumerate(labels):
        near, far = d[i][others == label], d[i][others != label]
        if run["miner"] == "multi_similarity":
            epsilon = run["miner_epsilon"]
            farthest = near.max() if len(near) else -torch.inf
            nearest = far.min() if len(far) else torch.inf
            near, far = near[near + epsilon > nearest], far[far - epsilon < farthest]
        name = run["name"]
        loss = batch_hard if name == "batch_hard" else getattr(plain, name)
        terms += loss(run, near, far, i)
    active = sum(float(term.detach()) > run["active_threshold"] for term in terms)
    divisor = max(1, len(terms) if run["reducer"] == "mean" else active)
    value = sum(terms, (x * 0).sum()) / divisor
    value.backward()
    return {
        "value": value.item(), "gradient": x.grad.flatten().tolist(), "active": active,
        "valid": len(terms),
    }


def package(run, rows, labels, references, reference_labels):
    """CrossBatchMemory's value and gradient, or None where it has no such loss."""
    found = plain.pml_objects(run)
    if found is None:
        return None
    loss, miner = found
    memory = losses.CrossBatchMemory(
        loss, embedding_size=len(rows[0]), memory_size=len(references) + 4, miner=miner
    )
    x = torch.tensor(rows, requires_grad=True)
    both = torch.cat([torch.tensor(references), x])
    mask = torch.arange(len(both)) < len(references)
    value = memory(both, torch.tensor(reference_labels + labels), enqueue_mask=mask)
    value.backward()
    return float(value), x.grad.flatten().numpy()


def batches():
    random = np.random.default_rng(31)
    labels, others = [0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 3, 0, 3, 2, 1, 4, 0]
    rows, references = random.normal(size=(6, 3)), random.normal(size=(13, 3))
    yield "random", rows, labels, references, others, True
    yield "one_reference", rows, labels, references[:1], [1], False
    twins = references.copy()
    twins[:6], twins[9] = rows, rows[0]
    yield "rows_again", rows, labels, twins, others, False
    near = twins + 1e-6 * random.normal(size=twins.shape)
    yield "near_twins", rows, labels, near, others, False
    yield "one_identity", rows, [3] * 6, references, [3] * 13, False
    yield "no_positives", rows, labels, references, [9] * 13, False
    yield "one_without_positives", rows, labels, references, [o or 7 for o in others], False
    yield "huge", rows * 1e5, labels, references * 1e5, others, False
    yield "tiny", rows * 1e-5, labels, references * 1e-5, others, False
    uneven = references * 10.0 ** random.integers(-3, 4, size=(13, 1))
    yield "uneven_norms", rows, labels, uneven, others, False
    half = torch.tensor(rows).bfloat16().double().numpy()
    yield "bf16", half, labels, torch.tensor(references).float().double().numpy(), others, False


def runs():
    """Those of expected_losses.py that can be compared with a memory."""
    for run in plain.runs():
        if run["name"] in ("lifted", "batch_hard_000") or run["normalize"] == "columns":
            continue
        yield run
    yield plain.BASE | {"name": "batch_hard", "margin": "none", "distance": "sqeuclidean"}


def main():
    written, compared = [], 0
    for name, rows, labels, references, others, is_whole in batches():
        cases = []
        for run in runs():
            found = evaluate(run, rows, labels, references, others)
            assert np.isfinite(found["value"]) and np.isfinite(found["gradient"]).all(), (name, run)
            # The package drops an image without a pair where the formula counts it.
            known = package(run, rows, labels, references, others) if is_whole else None
            if known is not None:
                scale = np.abs(known[1]).max()
                assert abs(found["value"] - known[0]) <= 1e-9 * abs(known[0]), (name, run, known)
                gap = np.abs(np.asarray(found["gradient"]) - known[1]).max()
                assert gap <= 1e-9 * scale, (name, run, gap)
                compared += 1
            cases.append(run | found)
        written.append({
            "name": name, "labels": labels, "rows": np.asarray(rows).flatten().tolist(),
            "reference_labels": others, "references": np.asarray(references).flatten().tolist(),
            "runs": cases,
        })
    print(f"{compared} cases agree with pytorch-metric-learning", file=sys.stderr)
    print(json.dumps(written, separators=(",", ":")).replace('},{"distance"', '},\n{"distance"'))


if __name__ == "__main__":
    main()
