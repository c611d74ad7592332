"""What enters each contraction, gathered over data: moments of single inputs, means of samples, Gram matrices."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from fxprune.capture.contractions import Contraction, Weighted
from fxprune.capture.stepwise import Stop, watched
from fxprune.errors import FxpruneError, InputError
from fxprune.planning.batches import Batch
from fxprune.planning.moments import Moments

Result = TypeVar("Result")
# Positions of a batch that are read; of each sample, where its mean is wanted.
ROWS, OF_SAMPLE = 2048, 64


@dataclass(eq=False)
class Reading:
    """What entered one contraction: sums over ``n`` rows x, and what else was asked for.

    Attributes:
        x, square, size, active: Σ x, Σ x², Σ |x| and the number of x ≠ 0, float64 [g, i].
        pooled: per batch, each sample's mean over positions, float32 [g, samples, i].
        moments: of rows and outputs.
    """

    n: int = 0
    x: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    square: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    size: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    active: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    pooled: list[Tensor] = field(default_factory=list)
    moments: Moments | None = None

    def take(self, rows: Tensor) -> None:
        """Add rows [g, n, i]."""
        wide = rows.double().cpu()
        self.n += rows.shape[1]
        self.x = self.x + wide.sum(1)
        self.square = self.square + wide.square().sum(1)
        self.size = self.size + wide.abs().sum(1)
        self.active = self.active + (rows != 0).sum(1).cpu()

    def __add__(self, other: "Reading") -> "Reading":
        """Of the rows of both."""
        moments = [m for m in (self.moments, other.moments) if m is not None]
        return Reading(self.n + other.n, self.x + other.x, self.square + other.square, self.size + other.size,
                       self.active + other.active, self.pooled + other.pooled,
                       sum(moments[1:], moments[0]) if moments else None)

    def variance(self) -> Tensor:
        return (self.square / self.n - (self.x / self.n).square()).clamp_min(0)


def read(model: nn.Module, found: Weighted, batches: Iterable[Batch], kinds: Collection[str],
         generator: torch.Generator) -> dict[int, Reading]:
    """Operator's number -> what entered it; nothing, where it did not run.

    Raises:
        InputError: the model does not run on a batch, or not as it did before.
    """
    readings = {contraction.number: Reading() for contraction in found.contractions}
    by_number = {contraction.number: contraction for contraction in found.contractions}
    for number, batch in enumerate(batches):
        def run(batch: Batch = batch, number: int = number) -> None:
            def meet(stop: Stop) -> None:
                if not by_number[stop.number].met(stop):
                    raise led_elsewhere(number)
                _read(readings[stop.number], by_number[stop.number], stop, batch, kinds, generator)

            watched(model, batch.example, by_number, meet)

        running(run, number)
    return readings


def running(run: Callable[[], Result], number: int) -> Result:
    """Run the model on the batch of that number; say which one it was if that fails."""
    try:
        return run()
    except FxpruneError:
        raise
    except Exception as error:
        raise InputError(f"the model must run on the data, and raised {type(error).__name__} on batch {number}: "
                         f"{error}; batches must look like the example inputs") from error


def led_elsewhere(number: int) -> InputError:
    """The batch of that number is not run as the example was."""
    return InputError(f"the model must run the same operators on every batch, and batch {number} leads its Python "
                      "elsewhere; pass batches that all go one way, or leave out the criterion or recover= that reads "
                      "them")


def _read(reading: Reading, contraction: Contraction, stop: Stop, batch: Batch, kinds: Collection[str],
          generator: torch.Generator) -> None:
    n = contraction.positions(stop)
    picked = sampled(n, ROWS, generator)
    rows = contraction.rows(stop, picked)
    reading.take(rows)
    if not torch.isfinite(reading.square).all():
        raise InputError(f"what enters {contraction.name!r} must be finite, and is not; look for the cause in the "
                         "weights or in the data")
    if "gram" in kinds:
        moments = Moments.of(rows, contraction.outputs(stop.out, picked))
        reading.moments = moments if reading.moments is None else reading.moments + moments
    if "pooled" in kinds and n % batch.size == 0:
        each = n // batch.size
        places = sampled(each, OF_SAMPLE, generator)
        picked = (torch.arange(batch.size).unsqueeze(1) * each + places).reshape(-1)
        rows = contraction.rows(stop, picked)
        reading.pooled.append(rows.unflatten(1, (batch.size, -1)).mean(2).float().cpu())


def sampled(n: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of n positions in ascending order; all of them where there are no more."""
    return torch.arange(n) if n <= count else torch.randperm(n, generator=generator)[:count].sort().values
