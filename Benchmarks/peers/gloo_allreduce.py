"""One member of Gloo's all-reduce; what Lineup's exchange is held against.

usage: gloo_allreduce.py --rank R --world W --port PORT

Says one line of JSON when everybody is there. Then each line `reduce BYTES N` on standard input makes
N all-reduces of that size, each after a barrier, and is answered by {"begun": [...], "ended": [...]},
seconds of the machine's clock. The end of the input ends it.
"""

import argparse
import json
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    store = dist.TCPStore("127.0.0.1", options.port, options.world, options.rank == 0)
    dist.init_process_group("gloo", store=store, rank=options.rank, world_size=options.world)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    tensors = {}
    for line in sys.stdin:
        _, size, count = line.split()
        elements = int(size) // 4
        places = torch.arange(elements) % 8191
        begun, ended = [], []
        for _ in range(int(count)):
            tensor = tensors.setdefault(elements, torch.empty(elements))
            tensor.copy_((places + options.rank * 13) % 101 - 50)
            dist.barrier()
            begun.append(time.monotonic())
            dist.all_reduce(tensor)
            tensor.mul_(1 / options.world)
            ended.append(time.monotonic())
        total = sum((places + rank * 13) % 101 - 50 for rank in range(options.world))
        if not torch.equal(tensor, total / options.world):
            sys.exit("the sum is wrong")
        print(json.dumps({"begun": begun, "ended": ended}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
