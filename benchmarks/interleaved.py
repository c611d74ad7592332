"""Compress ResNet-50 with fxprune and with Torch-Pruning in turn, in one process; wall clock, one thread.

    pip install fxprune[bench]
    python -m benchmarks.interleaved --rounds 15
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median

import torch
import torchvision
from torch import nn

from benchmarks.peer import ours, theirs


def seconds(compress: Callable[[nn.Module, torch.Tensor], nn.Module], model: nn.Module, x: torch.Tensor) -> float:
    """From the call to the pruned module, on a copy that the clock does not see being made."""
    copied = copy.deepcopy(model)
    start = time.perf_counter()
    compress(copied, x)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, x = torchvision.models.get_model(args.model, weights=None).eval(), torch.randn(1, 3, 224, 224)
    rounds = [(seconds(ours, model, x), seconds(theirs, model, x)) for _ in range(args.rounds + 1)][1:]
    mine, other = zip(*rounds, strict=True)
    print(f"{args.model}: median of the ratios {median(a / b for a, b in rounds):.2f} "
          f"({median(mine):.3f} s, {median(other):.3f} s), best against best {min(mine) / min(other):.2f} "
          f"({min(mine):.3f} s, {min(other):.3f} s)")


if __name__ == "__main__":
    main()
