"""An independently formulated PyTorch step, started at each step from Lineup's weights.

Nothing is shared with Lineup's way of computing: torch.nn modules, losses by their
definitions over explicit differences, one anchor after another, torch.optim.Adam.

What is compared, on the run's own weights and images:

- float32, at each step: every slot's loss within 1e-5 of max(1, loss), and the mean gradient within
  1e-4 (norm of the difference over norm). torch.nn runs in Lineup's memory format and on one thread,
  so that a ReLU or a pooling window that is decided within rounding is decided alike.
- float64, at the steps for which the run stored it: Lineup's network and loss in float64 arithmetic
  against torch.nn in float64, within 1e-9: the formulas are the same.
- Adam, after each step: torch.optim.Adam in float64, fed with Lineup's gradients over all steps,
  against Lineup's weights, within 2e-6 of max(1, value): 0.2 % of one update at the rate of 1e-3.
- Averages, after each step: torch.nn.BatchNorm's against Lineup's, within 1e-5 of max(1, value).

Also shown, without a limit: how far float32 gradients are from the float64 one, Lineup's and those of
torch.nn in its default NCHW format.

    python independent.py DIR [RUN ...]
"""

import pathlib
import sys
import time

import torch
from torch import nn

from lineup_run import Run, float_of_bits

LIMITS = {
    "loss": 1e-5,
    "gradient": 1e-4,
    "float64 loss": 1e-9,
    "float64 gradient": 1e-9,
    "Adam": 2e-6,
    "averages": 1e-5,
}


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


class Reference:
    """torch.nn's losses, gradient and averages at some weights, in one dtype."""

    def __init__(self, run, number, dtype, memory_format=torch.contiguous_format):
        network = run.network
        self.names = [spec["name"] for spec in network["parameters"]]
        self.buffers = [spec["name"] for spec in network["buffers"]]
        model = (Basic if network["backbone"] == "basic" else ResNet50)(network)
        model = model.to(dtype=dtype, memory_format=memory_format)
        parameters = dict(model.named_parameters())
        assert sorted(parameters) == sorted(self.names), set(parameters) ^ set(self.names)
        before = {name: tensor.to(dtype) for name, tensor in run.weights(number).items()}
        slots = run.index["slots"]
        self.losses = []
        self.gradient = {name: 0.0 for name in self.names}
        self.averages = {name: 0.0 for name in self.buffers}
        for slot, images in enumerate(run.images(number)):
            model.load_state_dict(before, strict=False)
            model.train().zero_grad()
            labels = run.steps[number]["labels"][slot]
            images = images.to(dtype=dtype, memory_format=memory_format)
            loss = loss_of(run.index, model(images), labels)
            loss.backward()
            self.losses.append(loss.item())
            state = model.state_dict()
            for name in self.names:
                self.gradient[name] = self.gradient[name] + parameters[name].grad.double() / slots
            for name in self.buffers:
                self.averages[name] = self.averages[name] + state[name].double() / slots


def relative(left, right):
    difference = sum(((left[name].double() - right[name]) ** 2).sum() for name in right).sqrt()
    norm = sum((right[name] ** 2).sum() for name in right).sqrt()
    return (difference / norm).item() if norm > 0 else difference.item()


def close(found, expected):
    """The worst difference in units of max(1, |expected|)."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    difference = (torch.as_tensor(found, dtype=torch.float64) - expected).abs()
    return (difference / expected.abs().clamp(min=1)).max().item()


def check(run):
    worst = dict.fromkeys(LIMITS, 0.0)
    distances = []

    def note(what, value):
        worst[what] = max(worst[what], value) if value == value else float("nan")

    # An optimizer of its own, over all steps, fed with Lineup's gradients.
    names = [spec["name"] for spec in run.network["parameters"]]
    start = run.weights(0)
    followers = [nn.Parameter(start[name].double()) for name in names]
    optimizer = torch.optim.Adam(followers, lr=1.0)

    for number, step in enumerate(run.steps):
        lineup, after = run.gradient(number), run.weights(number + 1)
        losses = [float(float_of_bits(bits)) for bits in step["losses"]]
        reference = Reference(run, number, torch.float32, torch.channels_last)
        note("loss", close(losses, reference.losses))
        note("gradient", relative(lineup, reference.gradient))
        for name, average in reference.averages.items():
            note("averages", close(after[name], average))

        exact = run.gradient64(number)
        if exact is not None:
            wide = Reference(run, number, torch.float64)
            note("float64 loss", close(step["losses64"], wide.losses))
            note("float64 gradient", relative(exact, wide.gradient))
            plain = Reference(run, number, torch.float32)
            distances.append(
                (relative(lineup, wide.gradient), relative(plain.gradient, wide.gradient))
            )

        for parameter, name in zip(followers, names):
            parameter.grad = lineup[name].double()
        optimizer.param_groups[0]["lr"] = step["learning_rate"]
        optimizer.step()
        for parameter, name in zip(followers, names):
            note("Adam", close(after[name], parameter.detach()))
    return worst, distances


def main():
    torch.set_num_threads(1)
    folder = pathlib.Path(sys.argv[1])
    chosen = sys.argv[2:] or sorted(
        p.parent.name for p in folder.glob("*/index.json") if "bf16" not in p.parent.name
    )
    failed = False
    for name in chosen:
        start = time.monotonic()
        run = Run(folder / name)
        worst, distances = check(run)
        outside = [what for what, value in worst.items() if not value <= LIMITS[what]]
        print(f"{name}: {len(run.steps)} steps ({time.monotonic() - start:.0f} s)")
        for what, value in worst.items():
            print(f"    {what}: worst {value:.1e}, limit {LIMITS[what]:.0e}")
        pairs = ", ".join(f"{lineup:.0e} ({plain:.0e})" for lineup, plain in distances)
        print(f"    float32 gradients from float64, Lineup (torch.nn NCHW): {pairs}")
        print(f"    {'OUTSIDE: ' + ', '.join(outside) if outside else 'within'}", flush=True)
        failed |= bool(outside)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
