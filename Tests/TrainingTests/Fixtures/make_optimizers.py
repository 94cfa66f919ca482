"""Makes optimizers.json: parameters after 20 updates by torch.optim, in 64-bit floats.

Gradients and first values are simple functions of their place, rounded to 32 bits, which the test
works out for itself. What torch has no optimizer for (the TensorFlow form of Adam, decoupled decay
with SGD) is written out here.

    pip install torch
    python make_optimizers.py
"""

import json
import os

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 20
# basic with 2 channels, batch norm, an input of 8x8 and embeddings of 3.
SHAPES = {
    "conv1.weight": [2, 3, 3, 3],
    "bn1.weight": [2],
    "bn1.bias": [2],
    "conv2.weight": [4, 2, 3, 3],
    "bn2.weight": [4],
    "bn2.bias": [4],
    "head.embedding.weight": [3, 16],
    "head.embedding.bias": [3],
}


def exact(numbers, shape):
    """Values as 32-bit floats hold them, in 64 bits."""
    return torch.tensor(numbers, dtype=torch.float32).double().reshape(shape)


def places():
    start = 0
    for name, shape in SHAPES.items():
        count = torch.Size(shape).numel()
        yield name, shape, range(start, start + count)
        start += count


def first():
    return {
        name: torch.nn.Parameter(exact([(i * 6007 % 1999 - 999) / 1000 for i in at], shape))
        for name, shape, at in places()
    }


def gradients(step):
    return {
        name: exact([(i * 7919 + step * 10473) % 2001 / 1000 - 1 for i in at], shape)
        for name, shape, at in places()
    }


def rate(step):
    """Another learning rate at each step, from 1."""
    return 0.01 * (1 - step / 40)


class TensorFlowAdam:
    """Kingma and Ba's last remark in section 2, as TensorFlow 1 has it."""

    def __init__(self, parameters, lr):
        self.param_groups = [{"lr": lr, "params": list(parameters)}]
        self.state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.param_groups[0]["params"]]
        self.updates = 0

    @torch.no_grad()
    def step(self):
        self.updates += 1
        group = self.param_groups[0]
        step = group["lr"] * (1 - 0.999**self.updates) ** 0.5 / (1 - 0.9**self.updates)
        for p, (m, v) in zip(group["params"], self.state):
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            p.sub_(step * m / (v.sqrt() + 1e-2))


def is_norm(name):
    return name.startswith("bn")


def groups(parameters, decay):
    """The head at ten times the rate, biases at twice, no decay of norms, half of biases."""
    for name, parameter in parameters.items():
        is_bias = name == "head.embedding.bias"
        yield {
            "params": [parameter],
            "factor": (10 if name.startswith("head") else 1) * (2 if is_bias else 1),
            "weight_decay": decay * (0 if is_norm(name) else 0.5 if is_bias else 1),
        }


def run(make, before=lambda parameters: None, grouped=None, frozen=(), average=None):
    """The parameters after all steps, and their average."""
    parameters = first()
    listed = list(parameters.values())
    optimizer = make(list(groups(parameters, grouped)) if grouped is not None else listed)
    module = torch.nn.ParameterList(listed)
    averaged = None
    if average is not None:
        averaged = torch.optim.swa_utils.AveragedModel(
            module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(average))
        averaged.update_parameters(module)
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step) * group.get("factor", 1)
        for name, gradient in gradients(step).items():
            skips = step <= 5 and name in frozen
            parameters[name].grad = None if skips else gradient
        before(listed)
        optimizer.step()
        if averaged is not None:
            averaged.update_parameters(module)
    result = {"parameters": torch.cat([p.detach().flatten() for p in listed]).tolist()}
    if averaged is not None:
        result["average"] = torch.cat([p.detach().flatten() for p in averaged.module]).tolist()
    return result


def shrink(parameters, decay, optimizer):
    with torch.no_grad():
        for p in parameters:
            p.mul_(1 - optimizer.param_groups[0]["lr"] * decay)


def sgdw(parameters):
    optimizer = torch.optim.SGD(parameters, lr=1, momentum=0.9)
    optimizer.register_step_pre_hook(lambda o, *_: shrink(parameters, 0.1, o))
    return optimizer


def main():
    optim, clip = torch.optim, torch.nn.utils
    cases = {
        "adam": run(lambda p: optim.Adam(p, lr=1)),
        "adam_l2": run(lambda p: optim.Adam(p, lr=1, weight_decay=0.1)),
        "adam_tf": run(lambda p: TensorFlowAdam(p, 1)),
        "adamw": run(lambda p: optim.AdamW(p, lr=1, weight_decay=0.1)),
        "sgd": run(lambda p: optim.SGD(p, lr=1)),
        "sgd_momentum": run(lambda p: optim.SGD(p, lr=1, momentum=0.9, weight_decay=0.1)),
        "sgd_nesterov": run(lambda p: optim.SGD(p, lr=1, momentum=0.9, nesterov=True)),
        "sgdw": run(sgdw),
        "adamw_groups": run(lambda p: optim.AdamW(p, lr=1), grouped=0.1),
        "sgd_groups": run(lambda p: optim.SGD(p, lr=1, momentum=0.9), grouped=0.1),
        "clip_norm": run(
            lambda p: optim.SGD(p, lr=1, momentum=0.9), lambda p: clip.clip_grad_norm_(p, 7.9)),
        "clip_value": run(
            lambda p: optim.SGD(p, lr=1, momentum=0.9), lambda p: clip.clip_grad_value_(p, 0.25)),
        "average": run(lambda p: optim.Adam(p, lr=1), average=0.9),
        "frozen": run(
            lambda p: optim.Adam(p, lr=1), frozen=("conv1.weight", "bn1.weight", "bn1.bias")),
    }
    with open(os.path.join(HERE, "optimizers.json"), "w") as file:
        json.dump({"torch": torch.__version__, "cases": cases}, file)
        file.write("\n")


main()
