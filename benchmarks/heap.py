"""What it changes that the C library's heap keeps what is freed: a network's time before and after, in a new process.

    OMP_NUM_THREADS=1 python -m benchmarks.heap mobilenet_v2

See `fxprune/latency/heap.py`; `fxprune.measure` would bring the heap there at once. Processor time of one thread, batch
1, 224 × 224, channels-last: medians in milliseconds.
"""

import sys
import time

import numpy as np
import torch
import torchvision
from torch import nn

from fxprune.latency import heap

ROUNDS, WARMUP = 50, 10


def main() -> None:
    torch.set_num_threads(1)
    model = torchvision.models.get_model(sys.argv[1], weights=None).eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    before = median(model, image)
    heap.settle()
    after = median(model, image)
    print(f"{sys.argv[1]}: {before:.2f} ms; on a heap that keeps what is freed {after:.2f} ms: {before / after:.2f}")


def median(model: nn.Module, image: torch.Tensor) -> float:
    """Milliseconds of a pass."""
    seconds = []
    with torch.inference_mode():
        for _ in range(WARMUP + ROUNDS):
            start = time.thread_time()
            model(image)
            seconds.append(time.thread_time() - start)
    return 1000 * float(np.median(seconds[WARMUP:]))


if __name__ == "__main__":
    main()
