"""A hand-written PyTorch loop with Lineup's operators, held against Lineup bit for bit.

Takes initial weights, images, labels and learning rates from a run that ParityDumpTests wrote, and
nothing else: losses, gradients, weights and batch-norm averages are its own over all steps.

    python bare_loop.py DIR [RUN ...]
"""

import pathlib
import sys
import time

import torch
import torch.nn.functional as F

from lineup_run import Run, bits_of_float, float_of_bits, same_bits

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class Forward:
    """The network as plain function calls over a dictionary of tensors."""

    def __init__(self, network, parameters):
        self.network = network
        self.p = parameters
        self.statistics = {}

    def norm(self, name, x):
        mean, variance = torch.zeros(x.shape[1]), torch.zeros(x.shape[1])
        y = torch.batch_norm(
            x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], mean, variance, True, 1.0, 1e-5, False
        )
        self.statistics[f"{name}.running_mean"] = mean
        self.statistics[f"{name}.running_var"] = variance
        return y

    def conv(self, name, x, stride=1, padding=0):
        return torch.conv2d(
            x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"), (stride, stride), (padding, padding)
        )

    def basic(self, x):
        for number in (1, 2):
            x = self.conv(f"conv{number}", x, padding=1)
            if self.network["batch_norm"]:
                x = self.norm(f"bn{number}", x)
            x = torch.max_pool2d(torch.relu_(x), (2, 2), (2, 2))
        return torch.flatten(x, 1).float()

    def bottleneck(self, name, x, stride, projects):
        y = torch.relu_(self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x)))
        y = torch.relu_(self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, stride, 1)))
        y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y))
        if projects:
            x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        return torch.relu_(y.add_(x))

    def resnet50(self, x):
        x = torch.relu_(self.norm("bn1", self.conv("conv1", x, 2, 3)))
        x = torch.max_pool2d(x, (3, 3), (2, 2), (1, 1))
        for stage, (_, units, stride) in enumerate(STAGES):
            for unit in range(units):
                first = unit == 0
                x = self.bottleneck(f"layer{stage + 1}.{unit}", x, stride if first else 1, first)
        return torch.mean(x, (2, 3), dtype=torch.float32)

    def head(self, x):
        head = self.network["head"]
        if head == "none":
            return x
        if head.startswith("fc1024"):
            x = torch.relu_(self.norm("head.bn", F.linear(x, self.p["head.fc.weight"])))
        x = F.linear(x, self.p["head.embedding.weight"], self.p["head.embedding.bias"])
        if head.endswith("_normalize"):
            x = x * (x * x).sum(1, keepdim=True).clamp(min=1e-12).rsqrt()
        return x

    def __call__(self, images, bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            x = self.basic(images) if self.network["backbone"] == "basic" else self.resnet50(images)
        return self.head(x)


class Loss:
    """The three losses.

    batch_hard is a graph of operators. The others are computed in float64 beside the graph, which gets
    their gradient by the rows.
    """

    def __init__(self, index):
        self.index = index

    def margin(self, x):
        margin = self.index["margin"]
        if margin == "soft":
            return F.softplus(x)
        return x if margin == "none" else torch.relu(x + float(margin))

    def __call__(self, rows, labels):
        if self.index["normalizes_rows"]:
            largest = rows.detach().abs().amax(1, keepdim=True)
            rows = rows * torch.where(largest > 1e-30, largest.reciprocal(), 0.0)
            rows = rows * (rows * rows).sum(1, keepdim=True).clamp(min=1e-12).rsqrt()
        labels = torch.tensor(labels)
        same = labels[:, None] == labels[None, :]
        positive = same & ~torch.eye(len(labels), dtype=torch.bool)
        return getattr(self, self.index["loss"])(rows, positive, ~same)

    def batch_hard(self, rows, positive, negative):
        p = 1.0 if self.index["distance"] == "cityblock" else 2.0
        d = torch.cdist(rows, rows, p, compute_mode="donot_use_mm_for_euclid_dist")
        if self.index["distance"] == "sqeuclidean":
            d = d * d
        hp = torch.where(positive, d, 0.0).amax(1)
        hn = torch.where(negative, d, float("inf")).amin(1)
        has = negative.any(1)
        terms = torch.where(has, self.margin(hp - torch.where(has, hn, 0.0)), 0.0)
        return terms.sum() / len(d)

    def _exact(self, rows):
        """Distances in float64; from the differences where the product of matrices cancels."""
        x = rows.detach().double()
        products = x @ x.T
        products = products.tril() + products.tril(-1).T
        squares = products.diagonal()
        both = squares[:, None] + squares[None, :]
        s = both - 2 * products
        explicit = (x[:, None] - x[None]).square().sum(2)
        s = torch.where(s < 1e-4 * both, explicit, s).fill_diagonal_(0)
        return x, s if self.index["distance"] == "sqeuclidean" else s.sqrt()

    def _handed(self, rows, x, d, slopes, terms, divisor):
        """A value and a gradient that were computed in float64, with the graph of the rows."""
        slopes.mul_(1 / divisor)
        both = slopes + slopes.T
        weights = both * 2 if self.index["distance"] == "sqeuclidean" else both / d
        weights = torch.where(d > 0, weights, 0.0)
        derivative = x * weights.sum(1, keepdim=True) - weights @ x
        product = (rows * derivative.float()).sum()
        return product - product.detach() + terms.sum().item() / divisor

    def batch_all(self, rows, positive, negative):
        x, exact = self._exact(rows)
        valid = positive[:, :, None] & negative[:, None, :]
        terms = torch.where(
            valid, torch.relu(exact[:, :, None] - exact[:, None, :] + float(self.index["margin"])), 0.0
        )
        violated = (terms > 0).double()
        active = int((terms > 1e-16).sum())
        return self._handed(rows, x, exact, violated.sum(2) - violated.sum(1), terms, max(active, 1))

    def tf_batch_semi_hard(self, rows, positive, negative):
        x, exact = self._exact(rows)
        anchors, others = positive.nonzero(as_tuple=True)
        of_pairs, own = exact[anchors], exact[anchors, others]
        outside = negative[anchors]
        farther = (of_pairs > own[:, None]) & outside
        nearest = torch.where(farther, of_pairs, float("inf")).amin(1)
        farthest = torch.where(outside, of_pairs, 0.0).amax(1)
        chosen = torch.where(farther.any(1), nearest, farthest)
        terms = torch.relu(own - chosen + float(self.index["margin"]))
        pulls = (terms > 0).double()
        slopes = torch.zeros_like(exact).index_put_((anchors, others), pulls)
        shared = ((of_pairs == chosen[:, None]) & outside).double()
        slopes.index_add_(0, anchors, -shared / shared.sum(1, keepdim=True) * pulls[:, None])
        return self._handed(rows, x, exact, slopes, terms, len(anchors))


def tree(leaves):
    """Splits at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return tree(leaves[:half]) + tree(leaves[half:])


def repeat(run):
    names = [spec["name"] for spec in run.network["parameters"]]
    buffers = [spec["name"] for spec in run.network["buffers"]]
    tensors = run.weights(0)
    m = {name: torch.zeros_like(tensors[name]) for name in names}
    v = {name: torch.zeros_like(tensors[name]) for name in names}
    loss_of = Loss(run.index)
    scale = torch.tensor(1.0) / torch.tensor(float(run.index["slots"]))
    bf16 = run.index["precision"] == "bf16"
    differences = []
    for number, step in enumerate(run.steps):
        losses, gradients, statistics = [], [], []
        for slot, images in enumerate(run.images(number)):
            leaves = {
                name: (
                    tensors[name].contiguous(memory_format=torch.channels_last)
                    if tensors[name].dim() == 4
                    else tensors[name]
                )
                .detach()
                .requires_grad_()
                for name in names
            }
            forward = Forward(run.network, leaves)
            embeddings = forward(images.contiguous(memory_format=torch.channels_last), bf16)
            loss = loss_of(embeddings, step["labels"][slot])
            gradients.append(torch.autograd.grad(loss, list(leaves.values())))
            losses.append(loss.detach())
            statistics.append(forward.statistics)
            if bits_of_float(losses[slot].item()) != step["losses"][slot]:
                differences.append(
                    f"step {number} slot {slot}: loss {losses[slot].item()!r}, "
                    f"Lineup {float_of_bits(step['losses'][slot])!r}"
                )
        if bits_of_float((tree(losses) * scale).item()) != step["mean_loss"]:
            differences.append(f"step {number}: mean loss")
        with torch.no_grad():
            reduced = [
                (tree([g[place].contiguous() for g in gradients]) * scale) for place in range(len(names))
            ]
            expected = run.gradient(number)
            for name, gradient in zip(names, reduced):
                if not same_bits(gradient, expected[name]):
                    differences.append(f"step {number}: gradient of {name}")
            torch._fused_adam_(
                [tensors[name] for name in names],
                reduced,
                [m[name] for name in names],
                [v[name] for name in names],
                [],
                [torch.tensor(1e9) for _ in names],
                lr=step["effective_rate"],
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=step["effective_epsilon"],
                amsgrad=False,
                maximize=False,
            )
            for name in buffers:
                batch = tree([s[name] for s in statistics]) * scale
                tensors[name] += 0.1 * (batch - tensors[name])
        expected = run.weights(number + 1)
        for name in names + buffers:
            if not same_bits(tensors[name], expected[name]):
                differences.append(f"step {number}: {name} after the step")
        if differences:
            return number + 1, differences
    return len(run.steps), differences


def main():
    torch.set_num_threads(1)
    folder = pathlib.Path(sys.argv[1])
    chosen = sys.argv[2:] or sorted(p.parent.name for p in folder.glob("*/index.json"))
    failed = False
    for name in chosen:
        start = time.monotonic()
        run = Run(folder / name)
        steps, differences = repeat(run)
        verdict = "equal bits" if not differences else f"DIFFERENT: {'; '.join(differences[:3])}"
        tensors = len(run.network["parameters"]) + len(run.network["buffers"])
        print(
            f"{name}: {steps} steps, {len(run.steps[0]['losses'])} losses and {tensors} tensors each: "
            f"{verdict} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
        failed |= bool(differences)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
