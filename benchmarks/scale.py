"""How time and memory grow with a network: residual nets of up to 1,202 layers, and a vision transformer of 632M.

    python -m benchmarks.scale

Processor time on one thread of ``compress(model, channels=0.5, verify=False)``, each net in a process of its own;
memory is how much that process grows at its peak, the smaller model included.
"""

import gc
import multiprocessing
import resource
import time
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn
from torchvision.models import VisionTransformer

import fxprune
from fxprune.models import cifar_resnet

DEPTHS = (110, 302, 602, 1202)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A residual net for 32 × 32 pictures by its depth, or ``"vit"`` (ViT-H/14)."""
    if name == "vit":
        return VisionTransformer(224, 14, 32, 16, 1280, 5120), torch.randn(1, 3, 224, 224)
    return cifar_resnet(int(name)), torch.randn(1, 3, 32, 32)


def measured(name: str) -> tuple[str, float, float, int]:
    """Name, millions of parameters, seconds, megabytes."""
    torch.set_num_threads(1)
    model, x = build(name)
    fxprune.compress(cifar_resnet(20), torch.randn(1, 3, 32, 32), channels=0.5, verify=False)  # imports are not timed
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.process_time()
    fxprune.compress(model, x, channels=0.5, verify=False)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return name, sum(p.numel() for p in model.parameters()) / 1e6, seconds, max(peak - before, 0) >> 20


def main() -> None:
    names = [*map(str, DEPTHS), "vit"]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.map(measured, names, chunksize=1)
    headers = ("net", "parameters (M)", "seconds", "MB")
    print(tabulate(rows, headers, tablefmt="github", floatfmt=("", ".1f", ".2f", "")))


if __name__ == "__main__":
    main()
