"""Makes the files beside this one with the PyPI packages that Lineup's own code must agree with.

    pip install numpy safetensors tensorboard xxhash
    python make_fixtures.py
"""

import bisect
import json
import os
import struct
import sys

import numpy
import xxhash
from safetensors.numpy import load_file, save_file
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

HERE = os.path.dirname(os.path.abspath(__file__))


def foreign():
    """A safetensors file of many types, as another program writes it."""
    tensors = {
        "a.float32": numpy.arange(6, dtype=numpy.float32).reshape(2, 3) / 4,
        "b.int64": numpy.array([-1, 2**40], dtype=numpy.int64),
        "c.uint8": numpy.array([[1, 2, 255]], dtype=numpy.uint8),
        "d.scalar": numpy.array(0.5, dtype=numpy.float64),
        "e.empty": numpy.zeros((0, 4), dtype=numpy.float32),
        "ünïcode \"quoted\"\n": numpy.array([7], dtype=numpy.int32),
    }
    save_file(tensors, os.path.join(HERE, "foreign.safetensors"), {"format": "pt", "k": "ü\"\\"})


def digest(name, array):
    inner = xxhash.xxh64(name.encode())
    inner.update(struct.pack("<Q", array.ndim))
    for size in array.shape:
        inner.update(struct.pack("<Q", size))
    inner.update(array.tobytes())
    return inner.intdigest()


def digests():
    """Digests by an independent XXH64, of bytes and of a state."""
    raw = bytes((i * 31 + 7) % 256 for i in range(1000))
    vectors = [
        {"count": count, "seed": str(seed), "digest": f"{xxhash.xxh64(raw[:count], seed=seed).intdigest():016x}"}
        for count in list(range(0, 70)) + [127, 128, 255, 256, 999, 1000]
        for seed in (0, 1, 2**64 - 1)
    ]
    state = [
        ("network/conv.weight", numpy.arange(24, dtype=numpy.float32).reshape(2, 3, 4) / 8),
        ("network/bn.running_mean", numpy.array([0.25, -0.5], dtype=numpy.float32)),
        ("optimizer/m/conv.weight", numpy.full((2, 3, 4), 1e-3, dtype=numpy.float32)),
    ]
    weights, whole = xxhash.xxh64(), xxhash.xxh64()
    for name, array in state:
        word = struct.pack("<Q", digest(name, array))
        whole.update(word)
        if name.startswith("network/"):
            weights.update(word)
    whole.update(struct.pack("<Q", 60))
    with open(os.path.join(HERE, "digests.json"), "w") as file:
        json.dump(
            {
                "xxh64": vectors,
                "weights": weights.hexdigest(),
                "state": whole.hexdigest(),
            },
            file, indent=0)
        file.write("\n")


def events():
    """Event records as TensorBoard's own writer frames them."""
    with open(os.path.join(HERE, "events.golden"), "wb") as file:
        writer = RecordWriter(file)
        for event in [
            Event(wall_time=1700000000.5, file_version="brain.Event:2"),
            Event(wall_time=1700000001.25, step=1, summary=Summary(value=[
                Summary.Value(tag="loss", simple_value=0.75),
                Summary.Value(tag="learning_rate", simple_value=0.001)])),
            Event(wall_time=1700000002.0, step=300, session_log=SessionLog(status=SessionLog.START)),
            Event(wall_time=1700000002.0, step=12345678901, summary=Summary(value=[
                Summary.Value(tag="loss", simple_value=float("inf"))])),
        ]:
            writer.write(event.SerializeToString())


def histogram():
    """A distribution in buckets that grow by a tenth, counted by bisection."""
    positive = []
    limit = 1e-12
    while limit < 1e20:
        positive.append(limit)
        limit *= 1.1
    limits = [-value for value in reversed(positive)] + positive
    values = [0.0, -2.5, 1e-13, 0.25, 0.25, 3.0, 3.1, 1e21, 7e-4]
    counts = {}
    for value in values:
        # Bucket `place` ends below limits[place]; a negative value on a limit lies in the bucket above.
        place = bisect.bisect_right(limits, value)
        counts[place] = counts.get(place, 0) + 1
    edges, heights, last = [], [], None

    def edge(place):
        return limits[place] if place < len(limits) else sys.float_info.max

    for place in sorted(counts):
        if last != place - 1:
            edges.append(edge(place - 1))
            heights.append(0.0)
        edges.append(edge(place))
        heights.append(float(counts[place]))
        last = place
    message = HistogramProto(
        min=min(values), max=max(values), num=len(values), sum=sequential(values),
        sum_squares=sequential(value * value for value in values), bucket_limit=edges,
        bucket=heights)
    with open(os.path.join(HERE, "histogram.golden"), "wb") as file:
        RecordWriter(file).write(Event(wall_time=1700000003.0, step=20, summary=Summary(value=[
            Summary.Value(tag="embedding_dists", histo=message)])).SerializeToString())


def sequential(values):
    total = 0.0
    for value in values:
        total += value
    return total


if __name__ == "__main__":
    histogram()
    foreign()
    digests()
    events()
