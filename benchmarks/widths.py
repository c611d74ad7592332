"""What the heaviest layers of a network take at widths around the half of their own, and which step the target likes.

    OMP_NUM_THREADS=1 python -m benchmarks.widths convnext_tiny onnxruntime

One thread, batch 1, 224 × 224, processor time; PyTorch in channels-last. Times are shares of that at the multiple of 32
from which the widths go up, each layer in turn with itself; one axis changes and the others are full.
"""

import sys
from collections import Counter

import numpy as np
import torch

import fxprune
from benchmarks.latency_budget import SIZE, built
from fxprune.latency.clock import cpu_threads
from fxprune.latency.entries import steady
from fxprune.latency.layers import Layer
from fxprune.latency.stand import Stand, layers_at, stand_of

BEYOND = (0, 1, 4, 8, 12, 16, 17, 24, 32)
HEAVIEST, ROUNDS, TRIALS = 9, 15, 3


def main() -> None:
    name, backend = sys.argv[1:]
    model, x = built(name), torch.randn(1, 3, SIZE, SIZE)
    layout = "contiguous" if backend == "onnxruntime" else "channels_last"
    target = fxprune.Target("cpu", threads=1, memory_format=layout, backend=backend, clock="thread")
    coupling = fxprune.analyze(model, x)
    steps = [fxprune.latency_table(coupling, model, target, minutes=0.001).step for _ in range(TRIALS)]
    print(f"{name}, {backend}: step {', '.join(map(str, steps))}")
    target = target.resolved(coupling.inputs)
    with cpu_threads(1):
        stand, layers = stand_of(model, coupling, target), layers_at(coupling, model, target).layers
        alike = Counter(layer.program.key(layer.full) for layer in layers)
        distinct = {layer.program.key(layer.full): layer for layer in layers}
        whole = alone(stand, [(layer, layer.full) for layer in distinct.values()])
        heaviest = sorted(zip(whole, distinct.items(), strict=True), key=lambda item: -item[0] * alike[item[1][0]])
        for _, (key, layer) in heaviest[:HEAVIEST]:
            print(f"{alike[key]} x {key[:100]}")
            for place, (axis, full) in enumerate(zip(layer.axes, layer.full, strict=True)):
                start = full // axis.grain // 64 * 32
                if start:
                    points = [(*layer.full[:place], (start + more) * axis.grain, *layer.full[place + 1:])
                              for more in BEYOND]
                    times = alone(stand, [(layer, point) for point in points])
                    print("  ", f"axis {place}:", *(f"{start + more}: {time / times[0]:.2f}"
                                                    for more, time in zip(BEYOND, times, strict=True)))


def alone(stand: Stand, wanted: list[tuple[Layer, tuple[int, ...]]]) -> np.ndarray:
    """Seconds of layers at their lengths."""
    calls = [stand.backend.prepare(*layer.program.module(lengths, stand.target)) for layer, lengths in wanted]
    return np.median(steady(calls, lambda seconds: 0.0, "layers", ROUNDS), axis=1)


if __name__ == "__main__":
    main()
