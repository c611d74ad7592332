"""Run a cut network and its original abreast, all batches at once, from layer to layer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from fxprune.capture.contractions import Contraction, Norm, Weighted
from fxprune.capture.stepwise import Stepwise, Stop, stepwise
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example
from fxprune.planning.input_statistics import running


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


@dataclass(frozen=True, eq=False)
class Arrival:
    """All runs of the cut network wait in front of one of its layers.

    Args:
        layer: a pair of contractions, or of batch norms.
        here: one stop a batch, in the cut network, before the layer.
        there: one stop a batch, in the original: behind a contraction, before a batch norm.
    """

    layer: Pair | NormPair
    here: list[Stop]
    there: list[Stop]


def pairs_of(full: Weighted, cut: Weighted) -> list[Pair]:
    """The contractions that both networks have, in the cut one's order of execution."""
    theirs = {contraction.key: contraction for contraction in full.contractions}
    return [Pair(theirs[mine.key], mine) for mine in cut.contractions if mine.key in theirs]


def norms_of(full: Weighted, cut: Weighted) -> list[NormPair]:
    """The batch norms that each network calls once."""
    once, theirs = ({norm.mean: norm for norm in net.norms if [n.mean for n in net.norms].count(norm.mean) == 1}
                    for net in (cut, full))
    return [NormPair(theirs[name], mine) for name, mine in once.items() if name in theirs]


@contextmanager
def abreast(model: nn.Module, small: nn.Module, pairs: Sequence[Pair], norms: Sequence[NormPair],
            batches: Sequence[Example]) -> Iterator[Iterator[Arrival]]:
    """Gives the arrivals in the cut network's order; what is changed in ``small`` at one holds from there on.

    Raises:
        InputError: a model does not run on a batch, or not as it did before.
    """
    layers: dict[int, Pair | NormPair] = {pair.after.number: pair for pair in pairs}
    layers |= {norm.after.number: norm for norm in norms}
    here = [stepwise(small, batch, before=layers, hold=_summands([pair.after for pair in pairs])) for batch in batches]
    there = [stepwise(model, batch, before=[norm.before.number for norm in norms],
                      behind=[pair.before.number for pair in pairs],
                      hold=_summands([pair.before for pair in pairs])) for batch in batches]
    try:
        yield _arrivals(layers, here, there)
    finally:
        for run in (*here, *there):
            run.close()


def _summands(contractions: Sequence[Contraction]) -> dict[int, int]:
    """What a layer's result is added to, where that is there before the layer runs -> the last layer that asks."""
    found: dict[int, int] = {}
    for contraction in contractions:
        if contraction.other is not None and contraction.other < contraction.number:
            found[contraction.other] = max(found.get(contraction.other, 0), contraction.number)
    return found


def _arrivals(layers: dict[int, Pair | NormPair], here: list[Stepwise], there: list[Stepwise]) -> Iterator[Arrival]:
    for number in sorted(layers):
        layer = layers[number]
        stops = [_advanced(run, number, batch) for batch, run in enumerate(here)]
        yield Arrival(layer, stops, [_advanced(run, layer.before.number, batch) for batch, run in enumerate(there)])


def _advanced(run: Stepwise, number: int, batch: int) -> Stop:
    stop = running(run.advance, batch)
    while stop is not None and stop.number < number:
        stop = running(run.advance, batch)
    if stop is None or stop.number != number:
        raise InputError(f"the model must run the same operators on every batch to be recovered, and batch {batch} "
                         "leads its Python elsewhere; leave recover= out, or pass batches that all go one way")
    return stop
