"""An independently formulated PyTorch step, started at each step from Lineup's weights.

Nothing is shared with Lineup's way of computing: torch.nn modules in NCHW, losses over explicit
triplets of differences in Python loops over anchors, torch.optim.Adam. Arithmetic is float64 unless
--float32 is given. Checked per step: every slot's loss within 1e-5 (relative to max(1, loss)), the
mean gradient within 1e-4 relative (norm of the difference over norm), and, with Lineup's own
gradients, the weights that torch.optim.Adam and torch.nn.BatchNorm2d reach.

    python independent.py DIR [--float32] [RUN ...]
"""

import pathlib
import sys
import time

import torch
from torch import nn

from lineup_run import Run, float_of_bits

LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Head(nn.Module):
    def __init__(self, kind, features, dimension):
        super().__init__()
        self.normalise = kind.endswith("_normalize")
        self.hidden = kind.startswith("fc1024")
        if self.hidden:
            self.fc = nn.Linear(features, 1024, bias=False)
            self.bn = nn.BatchNorm1d(1024)
            features = 1024
        self.embedding = nn.Linear(features, dimension)

    def forward(self, x):
        if self.hidden:
            x = torch.relu(self.bn(self.fc(x)))
        x = self.embedding(x)
        return nn.functional.normalize(x, eps=1e-6) if self.normalise else x


class ResNet50(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, (width, units) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            blocks = []
            for unit in range(units):
                blocks.append(Bottleneck(inputs, width, 2 if unit == 0 and stage > 0 else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.head = Head(network["head"], 2048, network["embedding_dim"])

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(self.average(x).flatten(1))


class Basic(nn.Module):
    def __init__(self, network):
        super().__init__()
        c, norm = network["channels"], network["batch_norm"]
        self.conv1 = nn.Conv2d(3, c, 3, padding="same", bias=not norm)
        self.conv2 = nn.Conv2d(c, 2 * c, 3, padding="same", bias=not norm)
        self.bn1 = nn.BatchNorm2d(c) if norm else nn.Identity()
        self.bn2 = nn.BatchNorm2d(2 * c) if norm else nn.Identity()
        self.pool = nn.MaxPool2d(2)
        features = 2 * c * (network["height"] // 4) * (network["width"] // 4)
        self.head = Head(network["head"], features, network["embedding_dim"])

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        return self.head(x.flatten(1))


def distance(a, b, kind):
    delta = a - b
    if kind == "cityblock":
        return delta.abs().sum(-1)
    square = (delta**2).sum(-1)
    return square if kind == "sqeuclidean" else square.sqrt()


def loss_of(index, rows, labels):
    """Losses by their definitions, one anchor after another."""
    if index["normalizes_rows"]:
        rows = rows / rows.norm(dim=1, keepdim=True)
    kind = index["distance"]

    def margin(x):
        if index["margin"] == "soft":
            return torch.logaddexp(torch.zeros_like(x), x)
        return x if index["margin"] == "none" else (x + float(index["margin"])).clamp(min=0)

    terms = []
    for anchor, label in enumerate(labels):
        positives = [i for i, other in enumerate(labels) if other == label and i != anchor]
        negatives = [i for i, other in enumerate(labels) if other != label]
        near = distance(rows[anchor], rows[positives], kind)
        far = distance(rows[anchor], rows[negatives], kind)
        if index["loss"] == "batch_hard":
            terms.append(margin(near.max() - far.min()))
        elif index["loss"] == "batch_all":
            values = margin(near[:, None] - far[None, :]).flatten()
            terms.extend(values[values > 1e-16])
        else:
            for own in near:
                farther = far[far > own]
                terms.append(margin(own - (farther.min() if len(farther) else far.max())))
    return torch.stack(terms).mean() if terms else rows.sum() * 0


def check(run, dtype):
    network = run.network
    names = [spec["name"] for spec in network["parameters"]]
    buffers = [spec["name"] for spec in network["buffers"]]
    model = (Basic if network["backbone"] == "basic" else ResNet50)(network).to(dtype)
    parameters = dict(model.named_parameters())
    assert sorted(parameters) == sorted(names), set(parameters) ^ set(names)
    slots = run.index["slots"]
    worst = {"loss": 0.0, "gradient": 0.0, "weights": 0.0, "averages": 0.0}

    # An optimizer of its own, over all steps, fed with Lineup's gradients.
    start = run.weights(0)
    followers = [nn.Parameter(start[name].double()) for name in names]
    optimizer = torch.optim.Adam(followers, lr=1.0)

    for number, step in enumerate(run.steps):
        before, after, lineup = run.weights(number), run.weights(number + 1), run.gradient(number)
        gradient = {name: torch.zeros_like(parameters[name]) for name in names}
        averages = {name: torch.zeros_like(before[name], dtype=dtype) for name in buffers}
        for slot, images in enumerate(run.images(number)):
            model.load_state_dict({n: t.to(dtype) for n, t in before.items()}, strict=False)
            model.train().zero_grad()
            loss = loss_of(run.index, model(images.to(dtype)), step["labels"][slot])
            loss.backward()
            expected = float(float_of_bits(step["losses"][slot]))
            error = abs(loss.item() - expected) / max(1.0, abs(expected))
            worst["loss"] = max(worst["loss"], error)
            state = model.state_dict()
            for name in names:
                gradient[name] += parameters[name].grad / slots
            for name in buffers:
                averages[name] += state[name] / slots
        difference = sum(((gradient[n] - lineup[n]) ** 2).sum() for n in names).sqrt()
        norm = sum((gradient[n] ** 2).sum() for n in names).sqrt()
        worst["gradient"] = max(worst["gradient"], (difference / norm).item())

        for parameter, name in zip(followers, names):
            parameter.grad = lineup[name].double()
        optimizer.param_groups[0]["lr"] = step["learning_rate"]
        optimizer.step()
        for parameter, name in zip(followers, names):
            moved = (parameter.detach() - after[name]).abs().max().item()
            worst["weights"] = max(worst["weights"], moved / step["learning_rate"])
        for name in buffers:
            error = (averages[name] - after[name]).abs() / after[name].abs().clamp(min=1)
            worst["averages"] = max(worst["averages"], error.max().item())
    return worst


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    dtype = torch.float32 if "--float32" in sys.argv else torch.float64
    folder = pathlib.Path(arguments[0])
    chosen = arguments[1:] or sorted(
        p.parent.name for p in folder.glob("*/index.json") if "bf16" not in p.parent.name
    )
    failed = False
    for name in chosen:
        start = time.monotonic()
        run = Run(folder / name)
        worst = check(run, dtype)
        good = worst["loss"] <= LOSS_TOLERANCE and worst["gradient"] <= GRADIENT_TOLERANCE
        failed |= not good
        print(
            f"{name} ({str(dtype)[6:]}): {len(run.steps)} steps: worst loss error {worst['loss']:.1e} "
            f"(limit {LOSS_TOLERANCE:.0e}), gradient {worst['gradient']:.1e} (limit "
            f"{GRADIENT_TOLERANCE:.0e}), averages {worst['averages']:.1e}, Adam's weights "
            f"{worst['weights']:.1e} learning rates: {'within' if good else 'OUTSIDE'} "
            f"({time.monotonic() - start:.0f} s)",
            flush=True,
        )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
