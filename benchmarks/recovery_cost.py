"""What calibration and recovery of ResNet-50 at 224 pixels take: processor time, wall-clock time, memory.

    OMP_NUM_THREADS=1 python benchmarks/recovery_cost.py --images 128 --batch 8

Weights and images are random, which costs what trained ones do. Memory is the largest of the process, less what it was
with the model and its analysis. The proof is left out.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import torch
import torchvision

import fxprune


class Images:
    """The same batches in every pass, made one at a time."""

    def __init__(self, images: int, batch: int):
        self.batches, self.batch = images // batch, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        return (torch.randn(self.batch, 3, 224, 224, generator=generator) for _ in range(self.batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--recover", default="least_squares")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    data = {"data": Images(args.images, args.batch), "samples": args.images}
    coupling = fxprune.analyze(model, torch.randn(1, 3, 224, 224))
    before, start = largest(), (time.time(), time.process_time())
    plan = fxprune.plan(coupling, model, macs=0.5, criterion="auto", **data)
    say("calibration", start, before)
    start = time.time(), time.process_time()
    small = fxprune.apply(model, plan, recover=args.recover, verify=False, **data)
    say("recovery", start, before)
    print(fxprune.record(small).recovery)


def largest() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(what: str, start: tuple[float, float], before: float) -> None:
    wall, processor = time.time() - start[0], time.process_time() - start[1]
    print(f"{what}: {wall:.0f} s, {processor:.0f} s of processor time in {torch.get_num_threads()} threads, "
          f"{largest() - before:.0f} MB beside the model", flush=True)


if __name__ == "__main__":
    main()
