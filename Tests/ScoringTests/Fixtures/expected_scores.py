#!/usr/bin/env python3
"""Writes expected_scores.json: tuples, embeddings and what they score, computed with numpy.

Independent of the Swift code: distances by numpy.linalg.norm and broadcasting over whole tables,
losses by masks over [B, B, B] arrays, means by math.fsum. Run it again only to change the cases:

    python3 expected_scores.py > expected_scores.json
"""
import json
import math

import numpy as np


def table(x, kind):
    x = x.astype(np.float64)
    delta = x[:, None, :] - x[None, :, :]
    if kind == "euclidean":
        return np.linalg.norm(delta, axis=2)
    if kind == "sqeuclidean":
        return np.square(delta).sum(2)
    if kind == "cityblock":
        return np.abs(delta).sum(2)
    n = np.linalg.norm(x, axis=1)
    d = 1 - x @ x.T / np.outer(n, n)
    np.fill_diagonal(d, 0)
    return d


def margin_function(x, margin):
    if margin == "soft":
        return np.logaddexp(0, x)
    return x if margin == "none" else np.maximum(x + margin, 0)


def loss(x, labels, name, margin, distance):
    same = labels[:, None] == labels[None, :]
    positive = same & ~np.eye(len(labels), dtype=bool)
    if name == "tf_batch_semi_hard":
        unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        d = table(unit, distance)
        terms = []
        for a, p in zip(*np.nonzero(positive)):
            negatives = d[a][~same[a]]
            beyond = negatives[negatives > d[a, p]]
            terms.append(d[a, p] - (beyond.min() if beyond.size else negatives.max()))
        terms = margin_function(np.array(terms), margin)
        return terms.mean(), (terms > 1e-5).mean()
    d = table(x, distance)
    if name == "batch_all":
        terms = margin_function(d[:, :, None] - d[:, None, :], margin)
        terms = terms[positive[:, :, None] & ~same[:, None, :]]
        active = (terms > 1e-16).sum()
        mean = terms.mean() if margin == "none" else terms.sum() / (active + 1e-16)
        return mean, active / terms.size
    hardest_positive = np.where(positive, d, 0).max(1)
    hardest_negative = np.where(same, np.inf, d).min(1)
    terms = margin_function(hardest_positive - hardest_negative, margin)
    return terms.mean(), (terms > 1e-5).mean()


def score(x, tuples, name, margin, distance):
    rows = {key: [] for key in ("g", "gt", "e", "et", "r", "l", "f", "n")}
    skipped = 0
    for t in tuples:
        if len(t) == 2:
            skipped += 1
            continue
        part = x[t]
        d = table(part, distance)[0]
        rows["g"].append(float((d[1] < d[2:]).all()))
        rows["gt"].append(float((d[1] <= d[2:]).all()))
        rows["e"].append((d[1] < d[2:]).mean())
        rows["et"].append((d[1] <= d[2:]).mean())
        # A double argsort; among equals the positive comes last.
        order = np.lexsort((np.arange(1, len(t)) == 1, d[1:]))
        rows["r"].append((0 + 1 + np.argsort(order)[0]) / 2)
        labels = np.array([0, 0] + [1] * (len(t) - 2))
        value, fraction = loss(part, labels, name, margin, distance)
        rows["l"].append(value)
        rows["f"].append(fraction)
        rows["n"].append(np.linalg.norm(part.astype(np.float64), axis=1).mean())
    mean = {key: math.fsum(values) / len(values) for key, values in rows.items()}
    return {
        "general_accuracy": mean["g"], "easy_accuracy": mean["e"],
        "general_accuracy_ties": mean["gt"], "easy_accuracy_ties": mean["et"],
        "average_ranking_position": mean["r"], "mean_loss": mean["l"], "fraction_positive": mean["f"],
        "embedding_mean_norm": mean["n"], "tuples": len(rows["g"]), "skipped_tuples": skipped,
    }


def main():
    rng = np.random.default_rng(20)
    # Quarters, so that ties are exact in every distance; 11 is no multiple of a vector's width.
    grid = (rng.integers(-4, 5, size=(48, 11)) / 4).astype(np.float32)
    smooth = rng.standard_normal((48, 11)).astype(np.float32)
    cases = []
    for x, kind in ((grid, "grid"), (smooth, "smooth")):
        tuples = []
        for _ in range(37):
            tuples.append([int(i) for i in rng.choice(48, size=rng.integers(2, 9), replace=False)])
        for _ in range(6):  # the positive once more as a negative: a tie in every distance
            t = [int(i) for i in rng.choice(48, size=4, replace=False)]
            tuples.append(t + [t[1]])
        runs = []
        for name in ("batch_all", "batch_hard"):
            for margin in (0.2, 0.5, "soft", "none"):
                for distance in ("euclidean", "sqeuclidean", "cityblock", "cosine"):
                    runs.append((name, margin, distance))
        for margin in (0.2, 1.0, "soft"):
            for distance in ("sqeuclidean", "euclidean", "cityblock"):
                runs.append(("tf_batch_semi_hard", margin, distance))
        cases.append({
            "name": kind, "dimension": 11, "embeddings": [float(v) for v in x.ravel()],
            "tuples": tuples,
            "runs": [{"loss": n, "margin": str(m), "distance": d,
                      "metrics": score(x, tuples, n, m, d)} for n, m, d in runs],
        })
    print(json.dumps(cases))


main()
