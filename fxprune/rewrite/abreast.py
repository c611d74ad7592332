"""Run a cut network and its original abreast, from layer to layer: each batch waits there for all others.

What waits lies in a file (`fxprune.rewrite.spill`), but for an allowance: memory does not grow with the batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from fxprune.capture.contractions import Contraction, Norm, Weighted
from fxprune.capture.stepwise import Stepwise, Stop, stepwise
from fxprune.ir.example_inputs import Example
from fxprune.planning.input_statistics import led_elsewhere, running
from fxprune.rewrite.spill import LiveTensors, Spill


@dataclass(frozen=True, eq=False)
class Pair:
    """A contraction of the original, and what was made of it."""

    before: Contraction
    after: Contraction


@dataclass(frozen=True, eq=False)
class NormPair:
    """A batch norm of the original, and what was made of it."""

    before: Norm
    after: Norm


class Arrival:
    """All batches come to one of the layers.

    Args:
        layer: a pair of contractions, or of batch norms.
        batches: the runs.

    Attributes:
        latest: where the cut network waits with the latest batch: once all have come, its parameters can be changed.
    """

    def __init__(self, layer: Pair | NormPair, batches: Sequence["_Batch"]):
        self.layer, self.batches = layer, batches
        self.latest: Stop

    def stops(self) -> Iterator[tuple[Stop, Stop]]:
        """For one batch after the other, in the cut network, before the layer, and in the original: behind a
        contraction, before a batch norm. What they hold is there until the next is asked for.

        Raises:
            InputError: a model does not run on a batch, or not as it did before.
        """
        for number, batch in enumerate(self.batches):
            batch.tensors.fill()
            self.latest = _advanced(batch.here, self.layer.after, number)
            yield self.latest, _advanced(batch.there, self.layer.before, number)
            batch.tensors.rest()


@dataclass(frozen=True, eq=False)
class _Batch:
    """Both networks' runs on a batch, and what they hold."""

    here: Stepwise
    there: Stepwise
    tensors: LiveTensors


def pairs_of(full: Weighted, cut: Weighted) -> list[Pair]:
    """The contractions that both networks have, in the cut one's order of execution."""
    theirs = {contraction.key: contraction for contraction in full.contractions}
    return [Pair(theirs[mine.key], mine) for mine in cut.contractions if mine.key in theirs]


def norms_of(full: Weighted, cut: Weighted) -> list[NormPair]:
    """The batch norms that each network calls once."""
    once, theirs = ({norm.mean: norm for norm in net.norms if [n.mean for n in net.norms].count(norm.mean) == 1}
                    for net in (cut, full))
    return [NormPair(theirs[name], mine) for name, mine in once.items() if name in theirs]


class Abreast:
    """Both networks' runs on all batches.

    Args:
        model, small: the original, and what was cut from it, in eval mode.
        pairs, norms: where they wait for each other.
        spill: where runs that wait keep what they hold.
    """

    def __init__(self, model: nn.Module, small: nn.Module, pairs: Sequence[Pair], norms: Sequence[NormPair],
                 spill: Spill):
        self.model, self.small, self.spill = model, small, spill
        self.layers: dict[int, Pair | NormPair] = {pair.after.number: pair for pair in pairs}
        self.layers |= {norm.after.number: norm for norm in norms}
        self.before = [norm.before.number for norm in norms]
        self.behind = [pair.before.number for pair in pairs]
        self.hold_here = _summands([pair.after for pair in pairs])
        self.hold_there = _summands([pair.before for pair in pairs])
        self.batches: list[_Batch] = []

    def add(self, example: Example) -> None:
        """One more batch, before the first arrival."""
        tensors = LiveTensors(self.spill)
        copy = tensors.copied(example)
        here = stepwise(self.small, copy, before=self.layers, hold=self.hold_here, around=tensors.noting())
        there = stepwise(self.model, copy, before=self.before, behind=self.behind, hold=self.hold_there,
                         around=tensors.noting())
        self.batches.append(_Batch(here, there, tensors))
        tensors.rest()

    def arrivals(self) -> Iterator[Arrival]:
        """In the cut network's order; what is changed in it at one holds from there on."""
        for number in sorted(self.layers):
            yield Arrival(self.layers[number], self.batches)
            self.spill.trim()

    def close(self) -> None:
        """End the runs where they stand."""
        for batch in self.batches:
            batch.here.close()
            batch.there.close()
            batch.tensors.release()
        self.spill.close()


def _summands(contractions: Sequence[Contraction]) -> dict[int, int]:
    """What a layer's result is added to, where that is there before the layer runs -> the last layer that asks."""
    found: dict[int, int] = {}
    for contraction in contractions:
        if contraction.other is not None and contraction.other < contraction.number:
            found[contraction.other] = max(found.get(contraction.other, 0), contraction.number)
    return found


def _advanced(run: Stepwise, layer: Contraction | Norm, batch: int) -> Stop:
    stop = running(run.advance, batch)
    while stop is not None and stop.number < layer.number:
        stop = running(run.advance, batch)
    if stop is None or stop.number != layer.number or not layer.met(stop):
        raise led_elsewhere(batch)
    return stop
