"""Reads the runs that Tests/TrainingTests/ParityDumpTests.swift writes."""

import json
import pathlib

import numpy
import torch


class Run:
    """One run: its settings, and files by step."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.index = json.loads((self.folder / "index.json").read_text())
        self.network = self.index["network"]
        self.steps = self.index["steps"]

    def _floats(self, name):
        return torch.from_numpy(numpy.fromfile(self.folder / name, dtype="<f4"))

    def images(self, step):
        """[slots, batch, 3, height, width]"""
        flat = self._floats(f"images-{step}.bin")
        return flat.view(
            self.index["slots"], self.index["batch"], 3, self.network["height"], self.network["width"]
        )

    def _split(self, flat, specs):
        found, start = {}, 0
        for spec in specs:
            count = 1
            for size in spec["shape"]:
                count *= size
            found[spec["name"]] = flat[start : start + count].view(spec["shape"]).clone()
            start += count
        assert start == flat.numel(), f"{self.folder}: {flat.numel()} values, {start} expected"
        return found

    def weights(self, step):
        """Parameters and buffers by name, before `step` (from 0)."""
        return self._split(
            self._floats(f"weights-{step}.bin"), self.network["parameters"] + self.network["buffers"]
        )

    def gradient(self, step):
        """The reduced gradient of a step, by name."""
        return self._split(self._floats(f"gradient-{step}.bin"), self.network["parameters"])

    def gradient64(self, step):
        """The same from float64 arithmetic, or None where the run did not store it."""
        path = self.folder / f"gradient64-{step}.bin"
        if not path.exists():
            return None
        flat = torch.from_numpy(numpy.fromfile(path, dtype="<f8"))
        return self._split(flat, self.network["parameters"])


def float_of_bits(bits):
    return numpy.array([bits], dtype=numpy.uint32).view(numpy.float32)[0]


def bits_of_float(value):
    return int(numpy.array([value], dtype=numpy.float32).view(numpy.uint32)[0])


def same_bits(left, right):
    return torch.equal(left.contiguous().view(torch.int32), right.contiguous().view(torch.int32))
