"""What a call costs in which next to nothing is done: which of its times makes layers add up to models?

    OMP_NUM_THREADS=1 python -m benchmarks.call_cost mobilenet_v2 onnxruntime

See `fxprune/latency/building.py`. One thread, batch 1, 224 × 224, processor time; PyTorch in channels-last. Medians in
microseconds: right behind itself, right behind the model, and between two other calls like it; and what must be taken
off each layer for those of the network and those of a plan for half of its time, timed at their very widths, to add up
to the two alike.
"""

import sys

import numpy as np
import torch

import fxprune
from benchmarks.latency_budget import SIZE, built
from fxprune.latency.building import Increment
from fxprune.latency.clock import cpu_threads
from fxprune.latency.entries import Wanted, steady
from fxprune.latency.samples import Timed
from fxprune.latency.stand import Stand, layers_at, stand_of
from fxprune.latency.target import formatted, inputs_for, placed

ROUNDS, ASKED, MINUTES = 21, 0.5, 0.2


def main() -> None:
    name, backend = sys.argv[1:]
    model, x = built(name), torch.randn(1, 3, SIZE, SIZE)
    layout = "contiguous" if backend == "onnxruntime" else "channels_last"
    target = fxprune.Target("cpu", threads=1, memory_format=layout, backend=backend, clock="thread")
    coupling = fxprune.analyze(model, x)
    table = fxprune.latency_table(coupling, model, target, minutes=MINUTES)
    plan = fxprune.plan(coupling, model, latency=ASKED, table=table)
    widths = np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
    layers = layers_at(coupling, model, table.target).layers
    with cpu_threads(1):
        stand = stand_of(model, coupling, table.target)
        first, second, third = (idle(stand) for _ in range(3))
        # Turns go back and forth: the middle ones stand behind the same in all of them.
        behind = [medians(calls)[len(calls) // 2] for calls in (
            [first, first, first], [stand.model, first, stand.model], [stand.model, first, second, third, stand.model])]
        small = stand.backend.prepare(placed(fxprune.apply(model, plan), stand.target),
                                      inputs_for(coupling.inputs, stand.target))
        entries = {entry.key: entry for lengths in (coupling.widths, widths)
                   for entry in (Wanted(layer.program, layer.lengths(lengths)) for layer in layers)}
        calls = [stand.backend.prepare(*entry.program.module(entry.lengths, stand.target))
                 for entry in entries.values()]
        whole, half, *alone = medians([stand.model, small, *calls])
    took = dict(zip(entries, alone, strict=True))
    full, less = (sum(took[layer.program.key(layer.lengths(lengths))] for layer in layers)
                  for lengths in (coupling.widths, widths))
    share = half / whole
    itself, model_first, others, fit = (round(1e6 * seconds) for seconds in (
        *behind, (less - share * full) / len(layers) / (1 - share)))
    print(f"{name}, {backend}: behind itself {itself}, behind the model {model_first}, between others {others} µs; "
          f"{fit} µs off each make {len(layers)} layers add up, whole and at {share:.2f} of the time")


def idle(stand: Stand) -> Timed:
    """A session in which next to nothing is done."""
    return stand.backend.prepare(Increment().eval(), ((formatted(torch.ones(1, 1, 1, 1), stand.target),), {}))


def medians(calls: list[Timed]) -> list[float]:
    """Seconds, in turns."""
    return np.median(steady(calls, lambda seconds: 0.0, "calls", ROUNDS), axis=1).tolist()


if __name__ == "__main__":
    main()
