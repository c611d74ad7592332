"""Measure layers, many at a time: in turns with each other and with the whole model.

The model itself takes part in every round. Between two batches of layers the machine may have become slower or faster;
the model's own time says by how much, and brings all batches to one scale.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fxprune.errors import MeasurementError
from fxprune.ir.progress import progress
from fxprune.latency.grid import Point, points
from fxprune.latency.layer_program import Program
from fxprune.latency.layers import Layer
from fxprune.latency.samples import Sample, Timed, interleaved
from fxprune.latency.stand import Stand

# Rounds of a batch at first, and where they take more seconds than that; passes before them.
ROUNDS, FEW, WARMUP = 7, 5, 2
# As long as there is noise, so many times more, within so many seconds.
OFTEN, SECONDS = 40, 12.0
# What medians may be off by, relative to them: above the first a batch is measured longer, above the second refused.
LONGER, REFUSED = 0.05, 0.25
# Values that the tensors of a batch may hold together, and entries of one batch.
VALUES, ENTRIES = 150_000_000, 96
# Entries of one batch where each takes seconds to compile.
DEAR_ENTRIES = 12


@dataclass(frozen=True, eq=False)
class Wanted:
    """An entry to be measured."""

    program: Program
    lengths: Point

    @property
    def key(self) -> str:
        """Its name in a table."""
        return self.program.key(self.lengths)

    @property
    def values(self) -> int:
        """How many values its tensors hold."""
        return sum(int(np.prod(slot.shape(self.lengths))) for slot in self.program.slots)


def wanted(layers: Iterable[Layer], axes: Callable[[Layer, int], list[Point]], level: int,
           known: Mapping[str, Any]) -> list[Wanted]:
    """The entries of a level of fineness that are not known, each once."""
    found: dict[str, Wanted] = {}
    for layer in layers:
        for point in points(axes(layer, level)):
            entry = Wanted(layer.program, point)
            if entry.key not in known:
                found.setdefault(entry.key, entry)
    return list(found.values())


def batches(entries: Sequence[Wanted], most: int = ENTRIES) -> list[list[Wanted]]:
    """The entries in batches that fit in memory."""
    found: list[list[Wanted]] = []
    room = 0
    for entry in entries:
        if not found or entry.values > room or len(found[-1]) >= most:
            found.append([])
            room = VALUES
        found[-1].append(entry)
        room -= entry.values
    return found


def filled(stand: Stand, layers: Iterable[Layer], axes: Callable[[Layer, int], list[Point]], level: int,
           known: Mapping[str, Any], whole: float) -> Iterator[dict[str, Sample]]:
    """Measure the entries of a level that are not known, batch by batch, with a progress bar.

    Args:
        stand: the model on its target.
        layers: whose entries.
        axes: the lengths at which a layer's axes are measured, by level.
        level: how finely.
        known: what need not be measured.
        whole: seconds that the model took when the table was begun.

    Raises:
        MeasurementError: too much noise, or a clock or runner that fails.
    """
    missing = wanted(layers, axes, level, known)
    size = DEAR_ENTRIES if stand.backend.dear else ENTRIES
    for batch in progress(batches(missing, size), f"latency table, {len(missing)} entries"):
        yield measured(batch, stand, whole)


def measured(batch: Sequence[Wanted], stand: Stand, whole: float) -> dict[str, Sample]:
    """One batch, as `filled`."""
    calls = [stand.backend.prepare(*entry.program.module(entry.lengths, stand.target)) for entry in batch]

    def noise(seconds: np.ndarray) -> float:
        return float(np.median([Sample.of(row).noise for row in seconds[1:]]))

    times = steady([stand.model, *calls], noise, "layers")
    factor = whole / float(np.median(times[0]))
    return {entry.key: Sample.of(row).times(factor) for entry, row in zip(batch, times[1:], strict=True)}


def steady(calls: Sequence[Timed], noise: Callable[[np.ndarray], float], what: str, rounds: int = ROUNDS,
           longer: float = LONGER, refused: float = REFUSED) -> np.ndarray:
    """Seconds, float64 [calls, rounds]: so many rounds that the noise is small.

    Args:
        calls: they take turns.
        noise: what medians may be off by, relative to them, given seconds [calls, rounds].
        what: is measured, in words.
        rounds: at first, but for passes that take seconds.
        longer, refused: the noise above which it is measured longer, and above which it is refused in the end.

    Raises:
        MeasurementError: it stays above ``refused``.
    """
    times = interleaved(calls, FEW, WARMUP)
    least, most = (int(np.clip(SECONDS / times.sum(0).mean(), FEW, limit)) for limit in (rounds, OFTEN * rounds))
    while (done := times.shape[1]) < least or done < most and noise(times) > longer:
        more = interleaved(calls, least - done if done < least else min(done, most - done))
        times = np.concatenate([times, more], axis=1)
    left = noise(times)
    if left > refused:
        raise MeasurementError(f"times of {what} must be steady enough to tell a step, and after {times.shape[1]} "
                               f"rounds their medians may still be off by {left:.0%} (at most {refused:.0%}); stop "
                               "what else runs on the machine, set threads=1 and clock='thread', or choose a larger "
                               "batch=")
    if left > longer:
        warnings.warn(f"times of {what} are noisy: after {times.shape[1]} rounds their medians may be off by "
                      f"{left:.0%}", stacklevel=2)
    return times
