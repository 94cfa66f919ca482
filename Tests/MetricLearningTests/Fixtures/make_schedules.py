"""Makes schedules.json: the learning rates of 100 updates by torch.optim.lr_scheduler.

    pip install torch
    python make_schedules.py
"""

import json
import os

import torch
from torch.optim import lr_scheduler

HERE = os.path.dirname(os.path.abspath(__file__))
TOTAL = 100
BASE = 3e-4


def rates(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = make(optimizer)
    found = []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def constant(optimizer):
    return lr_scheduler.ConstantLR(optimizer, factor=1, total_iters=0)


def exponential(optimizer, steps):
    return lr_scheduler.ExponentialLR(optimizer, 0.001 ** (1 / steps))


def after(optimizer, start, first, then):
    return lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[start])


def warmup(optimizer, steps, factor):
    return lr_scheduler.LinearLR(optimizer, start_factor=factor, total_iters=steps)


def main():
    cases = {
        "constant": rates(constant),
        "exponential": rates(lambda o: after(o, 60, constant(o), exponential(o, 40))),
        "step": rates(lambda o: lr_scheduler.MultiStepLR(o, [30, 70], gamma=0.2)),
        "cosine": rates(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=BASE * 0.05)),
        "late_cosine": rates(
            lambda o: after(o, 40, constant(o), lr_scheduler.CosineAnnealingLR(o, 60))),
        "warm_constant": rates(lambda o: warmup(o, 10, 0.25)),
        "warm_step": rates(
            lambda o: after(
                o, 10, warmup(o, 10, 0.1), lr_scheduler.MultiStepLR(o, [20, 60], gamma=0.2))),
        "warm_cosine": rates(
            lambda o: after(o, 10, warmup(o, 10, 0.1), lr_scheduler.CosineAnnealingLR(o, 90))),
        "warm_exponential": rates(lambda o: after(o, 20, warmup(o, 20, 0.1), exponential(o, 80))),
    }
    with open(os.path.join(HERE, "schedules.json"), "w") as file:
        json.dump({"torch": torch.__version__, "cases": cases}, file, indent=0)
        file.write("\n")


main()
