#!/usr/bin/env python3
"""Writes expected_triplet_losses.json: losses over given triplets, in plain Python.

Rows come as anchor, positive, negative. Values are sums of the formulas as they are printed, gradients
are written out by hand here and compared with central differences before anything is written; nothing
but the standard library is used.

    python3 expected_triplet_losses.py > expected_triplet_losses.json
"""
import json
import math
import random
import struct
import sys


def distance(kind, a, b):
    if kind == "sqeuclidean":
        return math.fsum((x - y) ** 2 for x, y in zip(a, b))
    if kind == "euclidean":
        return math.hypot(*[x - y for x, y in zip(a, b)])
    if kind == "cityblock":
        return math.fsum(abs(x - y) for x, y in zip(a, b))
    return 1 - similarity(a, b)


def length(a):
    return math.hypot(*a)


def similarity(a, b):
    if length(a) == 0 or length(b) == 0:
        return 0.0
    return math.fsum(x / length(a) * (y / length(b)) for x, y in zip(a, b))


def slope(kind, a, b):
    """The derivative of the distance by a."""
    if kind == "sqeuclidean":
        return [2 * (x - y) for x, y in zip(a, b)]
    if kind == "euclidean":
        d = distance(kind, a, b)
        return [(x - y) / d if d > 0 else 0.0 for x, y in zip(a, b)]
    if kind == "cityblock":
        return [float((x > y) - (x < y)) for x, y in zip(a, b)]
    if length(a) == 0 or length(b) == 0:
        return [0.0] * len(a)
    u, v, s = [x / length(a) for x in a], [y / length(b) for y in b], similarity(a, b)
    return [(s * x - y) / length(a) for x, y in zip(u, v)]


def hinge(margin, x):
    """A term and its derivative."""
    if margin == "none":
        return x, 1.0
    if margin == "soft":
        return max(x, 0) + math.log1p(math.exp(-abs(x))), 0.5 * (1 + math.tanh(x / 2))
    return (x + margin, 1.0) if x + margin > 0 else (0.0, 0.0)


def terms(run, rows):
    """Value, derivative by d(a,p) and derivative by d(a,n) of each triplet."""
    kind = run["distance"]
    for t in range(0, len(rows), 3):
        a, p, n = rows[t:t + 3]
        near, far = distance(kind, a, p), distance(kind, a, n)
        value, pull = hinge(run["margin"], near - far)
        by_near, by_far = pull, -pull
        if run.get("positive_threshold", -1) > -1:
            lack = run["positive_threshold"] - (1 - near)
            if lack > 0:
                value, by_near = value + lack, by_near + 1
        yield value, by_near, by_far


def evaluate(run, rows):
    kind, found = run["distance"], list(terms(run, rows))
    active = sum(value > run["active_threshold"] for value, _, _ in found)
    divisor = len(found) if run["reducer"] == "mean" else max(1, active)
    gradient = [[0.0] * len(rows[0]) for _ in rows]
    for t, (_, by_near, by_far) in enumerate(found):
        for other, weight in ((3 * t + 1, by_near), (3 * t + 2, by_far)):
            a, b = rows[3 * t], rows[other]
            for row, values in ((3 * t, slope(kind, a, b)), (other, slope(kind, b, a))):
                for place, s in enumerate(values):
                    gradient[row][place] += weight * s / divisor
    return {
        "value": math.fsum(value for value, _, _ in found) / divisor,
        "gradient": [x for row in gradient for x in row], "active": active, "valid": len(found),
    }


def compare(run, rows, found):
    """The gradient with central differences, where the formula has a derivative."""
    size = max(abs(x) for row in rows for x in row)
    step = 1e-6 * size
    for place, written in enumerate(found["gradient"]):
        moved = []
        for sign in (-1, 1):
            copy = [list(row) for row in rows]
            copy[place // 3][place % 3] += sign * step
            moved.append(evaluate(run, copy)["value"])
        # Rounding leaves 1e-16 of the largest distance over the step.
        largest = max(distance(run["distance"], a, b) for a in rows for b in rows) + 1
        slack = 1e-5 * max(map(abs, found["gradient"])) + 1e-14 * largest / step
        assert abs((moved[1] - moved[0]) / 2 / step - written) <= slack, (run, place, moved, written)


def runs():
    base = dict(reducer="mean", active_threshold=1e-5, normalize="none", miner="all")
    for kind in ("sqeuclidean", "euclidean", "cityblock", "cosine"):
        for margin in (0.4, "soft", "none"):
            yield base | dict(name="triplet", distance=kind, margin=margin)
    yield base | dict(
        name="triplet", distance="sqeuclidean", margin=0.4, reducer="mean_nonzero")
    dot = base | dict(name="dot_triplet", distance="cosine", margin=0.1)
    yield dot
    yield dot | dict(positive_threshold=0.7)
    yield dot | dict(positive_threshold=1.0, margin="soft")
    yield dot | dict(positive_threshold=-0.5, reducer="mean_nonzero")


def bfloat16(x):
    """x with the lower sixteen bits of its float32 form cut off."""
    return struct.unpack("<f", b"\0\0" + struct.pack("<f", x)[2:])[0]


def batches():
    draw = random.Random(17)

    def normal(count, scale=1.0):
        return [[draw.gauss(0, scale) for _ in range(3)] for _ in range(count)]

    yield "random", normal(15), True
    yield "one triplet", normal(3), True
    yield "bf16", [[bfloat16(x) for x in row] for row in normal(12)], True
    yield "tiny", normal(9, 1e-8), False
    yield "huge", normal(9, 1e9), False
    spread = [[x * 10.0 ** draw.randint(-3, 3) for x in row] for row in normal(12)]
    yield "unlike lengths", spread, False
    a, b, c = normal(3)
    yield "duplicates", [a, a, b, a, b, b, a, a, a, c, b, a], False
    yield "zeros", [[0.0] * 3, a, b, a, [0.0] * 3, b, a, b, [0.0] * 3, [0.0] * 3, [0.0] * 3, c], False
    yield "satisfied", [a, a, [-20 * x for x in a], b, b, [-20 * x for x in b]], False


def main():
    written = []
    for name, rows, is_smooth in batches():
        # Identities: each triplet has two of its own.
        labels = [label for t in range(len(rows) // 3) for label in (2 * t, 2 * t, 2 * t + 1)]
        cases = []
        for run in runs():
            found = evaluate(run, rows)
            assert all(map(math.isfinite, found["gradient"] + [found["value"]])), (name, run)
            if is_smooth:
                compare(run, rows, found)
            cases.append(run | found)
        written.append({
            "name": name, "labels": labels, "rows": [x for row in rows for x in row], "runs": cases,
        })
    print(f"{sum(len(batch['runs']) for batch in written)} cases", file=sys.stderr)
    print(json.dumps(written, separators=(",", ":")).replace('},{"', '},\n{"'))


if __name__ == "__main__":
    main()
