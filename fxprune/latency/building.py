"""Measure a model's latency table."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError
from fxprune.latency.clock import cpu_threads
from fxprune.latency.entries import Wanted, filled, steady
from fxprune.latency.layers import Layer, Layers
from fxprune.latency.lookup import LatencyTable
from fxprune.latency.samples import Sample, Timed
from fxprune.latency.stand import Stand, layers_at, model_digest, stand_of
from fxprune.latency.step import step_in
from fxprune.latency.step import widths as step_widths
from fxprune.latency.target import Target, formatted, machine

# Rounds of the whole model alone, and of a layer that tells the step; how many of those there are.
WHOLE_ROUNDS, STEP_ROUNDS, STEP_LAYERS = 11, 5, 12
# The finest level.
FINEST = 2
# How long to measure, by default.
MINUTES = 3.0


def latency_table(coupling: Coupling, model: nn.Module, target: Target | None = None, *,
                  path: str | os.PathLike | None = None, minutes: float = MINUTES, step: int | None = None
                  ) -> LatencyTable:
    """Measure how long the layers of a model take over their widths. The model is only read.

    Each distinct layer is timed alone, as it is executed (a convolution with its batch norm and activation), at a grid
    of widths in and out; in turns with the others and with the whole model, and by its median. The grid is as fine as
    the time allows.

    Args:
        coupling: `fxprune.analyze` of this model.
        model: the model.
        target: where; PyTorch on the CPU as it is set where None.
        path: where the table is written, after every batch of layers; what is there already is gone on with.
        minutes: how long to measure. The coarsest grid is measured whatever it takes.
        step: the multiple that widths should be of; found by measuring where None.

    Raises:
        InputError: the target is not there, or the file at ``path`` is the table of something else.
        MissingExtraError: the target needs a package that is not installed.
        MeasurementError: too much noise, or a runner or clock that fails.

    >>> import torch
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    >>> table = latency_table(analyze(net, torch.randn(1, 3, 16, 16)), net, Target(threads=1), minutes=0.01, step=8)
    >>> {entry.split("(")[0] for entry in table.entries}
    {'conv2d'}
    """
    _checked(minutes, step)
    target = (target or Target()).resolved(coupling.inputs)
    stop = time.monotonic() + 60 * minutes
    found = layers_at(coupling, model, target)
    with cpu_threads(target.threads):
        stand = stand_of(model, coupling, target)
        table = _begun(coupling, stand, found, path, step)
        if path is not None:
            table.save(path)
        for level in range(1 + FINEST):
            layers = _dearest_first(found.layers, table.entries) if level else found.layers
            for entries in filled(stand, layers, table.axes, level, table.entries, table.whole.median):
                table = replace(table, entries={**table.entries, **entries})
                if path is not None:
                    table.save(path)
                if level and time.monotonic() > stop:
                    break
            if time.monotonic() > stop:
                break
    return table


def _begun(coupling: Coupling, stand: Stand, found: Layers, path: str | os.PathLike | None, step: int | None
           ) -> LatencyTable:
    """What is at the path already, else a table without entries."""
    digest = model_digest(coupling, stand.target)
    if path is not None and Path(path).exists():
        table = LatencyTable.load(path)
        table.check(digest, stand.target)
        return table
    times = steady([stand.model, *_idle(stand)], lambda seconds: Sample.of(seconds[0]).noise, "the model", WHOLE_ROUNDS)
    idle = float(np.median(times[2])) if len(times) > 1 else 0.0
    version = f"{stand.backend.name} {stand.backend.version}".strip()
    stairs = step or _step(stand, found.layers)
    return LatencyTable(stand.target, machine(stand.target.device), version, digest, stairs or stand.backend.step,
                        stairs is not None, Sample.of(times[0]), idle, {}, found.unpriced)


def _dearest_first(layers: Sequence[Layer], entries: Mapping[str, Sample]) -> list[Layer]:
    """What makes most of the model's time first: time may be up before a level is whole."""
    keys = [layer.program.key(layer.full) for layer in layers]
    alike = Counter(keys)
    order = sorted(range(len(layers)), key=lambda place: -alike[keys[place]] * entries[keys[place]].median)
    return [layers[place] for place in order]


class Increment(nn.Module):
    """Adds one. What does nothing at all, a compiler leaves out."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return value + 1


def _idle(stand: Stand) -> list[Timed]:
    """Three calls in which next to nothing is done. Back and forth, the second one comes upon a runtime that another
    call has brought back, and upon data of its own that the model has driven out: as a layer among layers does."""
    if not stand.backend.session:
        return []
    value = formatted(torch.ones(1, 1, 1, 1, dtype=getattr(torch, stand.target.dtype)), stand.target)
    return [stand.backend.prepare(Increment().eval(), ((value,), {})) for _ in range(3)]


def _step(stand: Stand, layers: Sequence[Layer]) -> int | None:
    """Found on the layers with the most work of those that are wide enough; None where it cannot be told."""
    fit = {layer.program.key(layer.full): layer for layer in layers
           if len(layer.axes) == 2 and min(layer.full) > step_widths()[0]
           and all(axis.grain == 1 and not axis.base for axis in layer.axes)}
    if not fit or stand.backend.dear:
        return None
    widths, found = step_widths(), list[dict[int, float]]()
    for layer in nlargest(STEP_LAYERS, fit.values(), key=lambda layer: Wanted(layer.program, layer.full).values):
        calls = [stand.backend.prepare(*layer.program.module((layer.full[0], width), stand.target)) for width in widths]
        times = steady(calls, lambda seconds: 0.0, "one layer over widths", STEP_ROUNDS)
        found.append(dict(zip(widths, np.median(times, axis=1).tolist(), strict=True)))
    return step_in(found)


def _checked(minutes: object, step: object) -> None:
    if isinstance(minutes, bool) or not isinstance(minutes, Real) or not 0 < float(minutes) < float("inf"):
        raise InputError(f"minutes must be a number above zero, got {minutes!r}; write minutes=3")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 1):
        raise InputError(f"step must be a whole number of at least 1, or None, got {step!r}; write step=8")
