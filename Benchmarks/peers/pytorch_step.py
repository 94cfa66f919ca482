"""A training step in plain PyTorch, timed on demand; what Lineup's step is held against.

usage: pytorch_step.py --way one|ddp --images N --height H --width W --precision fp32|bf16
                       --cores 0,1

Says one line of JSON when it is ready. Then each line `steps N` on standard input makes N steps and
is answered by {"seconds": [...]}. The end of the input ends it.

one: one process with a thread for each core. ddp: one process for each core with one thread, pinned
to it, gradients averaged by DistributedDataParallel over gloo, the images shared evenly.

The network is ResNet-50 as torchvision has it (stride in the 3x3 convolution) with Lineup's head
fc1024; channels-last weights and images, batch_hard with soft margin, fused Adam, images in memory.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import warnings

# Before torch is imported, so that its thread pools obey.
_cores = [int(c) for c in sys.argv[sys.argv.index("--cores") + 1].split(",")]
_rank = os.environ.get("LINEUP_PEER_RANK")
if "ddp" in sys.argv:
    os.sched_setaffinity(0, {_cores[int(_rank or 0)]})
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ["OMP_NUM_THREADS"] = str(len(_cores))

import torch
import torch.nn.functional as F
from torch import nn

# The name of an argument of DistributedDataParallel changes between the versions that Lineup takes.
warnings.filterwarnings("ignore", category=FutureWarning)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks, inputs = [], 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(Bottleneck(inputs, width, stride if number == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Linear(2048, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, 128),
        )

    def forward(self, x, precision):
        # The head stays in float32, as Lineup's does.
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nothing():
            features = self.blocks(self.stem(x)).mean((2, 3), dtype=torch.float32)
        return self.head(features)


nothing = contextlib.nullcontext


def batch_hard(embeddings, labels):
    """The mean over anchors of softplus(farthest positive - nearest negative)."""
    squares = embeddings.square().sum(1)
    squared = (squares[:, None] + squares[None, :] - 2 * embeddings @ embeddings.T).clamp(min=0)
    distances = (squared + 1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    positive = torch.where(same, distances, 0).amax(1)
    negative = torch.where(same, torch.inf, distances).amin(1)
    return F.softplus(positive - negative).mean()


def make_step(options, images, distributed):
    torch.manual_seed(1)
    model = Network().to(memory_format=torch.channels_last)
    if distributed:
        model = nn.parallel.DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    batch = torch.randn(images, 3, options.height, options.width)
    batch = batch.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(images) // min(4, max(2, images // 2))

    def step():
        optimizer.zero_grad(set_to_none=not distributed)
        loss = batch_hard(model(batch, options.precision), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(step, count):
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def answer(value):
    print(json.dumps(value), flush=True)


def commands():
    for line in sys.stdin:
        words = line.split()
        if len(words) != 2 or words[0] != "steps":
            sys.exit(f"'{line.strip()}' is not 'steps N'")
        yield int(words[1])


def join(rank, ranks, port):
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks
    )


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=("one", "ddp"), required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    parser.add_argument("--cores", required=True)
    options = parser.parse_args()
    ranks = len(_cores) if options.way == "ddp" else 1
    torch.set_num_threads(1 if options.way == "ddp" else len(_cores))
    if options.images % ranks:
        sys.exit(f"{options.images} images cannot be shared evenly by {ranks} processes")
    if _rank is not None:
        join(int(_rank), ranks, os.environ["LINEUP_PEER_PORT"])
        step = make_step(options, options.images // ranks, distributed=True)
        for count in commands():
            timed(step, count)
        return
    others = []
    if ranks > 1:
        port = str(free_port())
        for rank in range(1, ranks):
            environment = dict(os.environ, LINEUP_PEER_RANK=str(rank), LINEUP_PEER_PORT=port)
            others.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv], env=environment, stdin=subprocess.PIPE, text=True
                )
            )
        join(0, ranks, port)
    step = make_step(options, options.images // ranks, distributed=ranks > 1)
    answer({"torch": torch.__version__, "threads": str(torch.get_num_threads())})
    for count in commands():
        for other in others:
            other.stdin.write(f"steps {count}\n")
            other.stdin.flush()
        answer({"seconds": timed(step, count)})
    for other in others:
        other.stdin.close()
        other.wait()


if __name__ == "__main__":
    main()
