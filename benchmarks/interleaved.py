"""Compress models with fxprune, with and without its proof, and with Torch-Pruning, in turn, in one process.

    pip install fxprune[bench]
    python -m benchmarks.interleaved --models resnet50 mobilenet_v2 --rounds 3

One thread; processor time, the best of the rounds, after one round that does not count.
"""

import argparse
import copy
import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.peer import MODELS, ours, ours_verified, theirs

SIDES: tuple[Callable[[nn.Module, torch.Tensor], nn.Module], ...] = (ours, ours_verified, theirs)


def seconds(compress: Callable[[nn.Module, torch.Tensor], nn.Module], model: nn.Module, x: torch.Tensor) -> float:
    """From the call to the pruned module, on a copy that the clock does not see being made."""
    copied = copy.deepcopy(model)
    gc.collect()  # what others left is not on this one's clock
    start = time.process_time()
    compress(copied, x)
    return time.process_time() - start


def measured(name: str, rounds: int) -> list[float]:
    """The best seconds of each side."""
    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)
    runs = [[seconds(side, model, x) for side in SIDES] for _ in range(rounds)]
    return [min(times) for times in zip(*runs, strict=True)]


def summary(words: str, ratios: list[float]) -> str:
    return f"{words}: median {median(ratios):.2f}, at most {max(ratios):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    args: Any = parser.parse_args()
    torch.set_num_threads(1)
    measured("resnet18", 1)  # imports and first calls
    print("| model | fxprune (s) | verified (s) | Torch-Pruning (s) | ratio | verified |\n|---|" + "---:|" * 5)
    plain, proven = [], []
    for name in args.models:
        mine, verified, other = measured(name, args.rounds)
        plain.append(mine / other), proven.append(verified / other)
        print(f"| {name} | {mine:.3f} | {verified:.3f} | {other:.3f} | {plain[-1]:.2f} | {proven[-1]:.2f} |",
              flush=True)
    print(f"\n{summary('Without the proof', plain)}. {summary('With it', proven)}.")


if __name__ == "__main__":
    main()
