"""The layers of a captured model as they are executed, with their sizes as functions of the groups' widths.

A layer is a contraction (a convolution, a linear layer, attention) with what follows it and nobody else reads: its
batch norm, its activation, the addition at the end of a residual branch; so a backend that fuses them is measured
fused. Any other call that does work on channels is a layer of its own. Calls that only look at memory in another way
(``view``, ``permute``) are none, and neither is what no group's width changes: that belongs to the constant part.

A layer's *axes* are the distinct lengths in it that groups own: two for a convolution (in and out), one for an
addition. Two layers that make the same calls on the same shapes are one entry of a table.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fxprune.coupling.coupling import Coupling
from fxprune.ir.tape import Ref, Tape, refs
from fxprune.ir.trees import mapped
from fxprune.ir.units import Vector
from fxprune.latency.layer_program import INPUT, MADE, PARAM, Program, Slot, Step, Use


@dataclass(frozen=True)
class Length:
    """A length that follows from the groups' widths: base + Σ times · width.

    >>> Length(4, ((1, 2),))(np.array([[8, 3], [8, 5]])).tolist()
    [10, 14]
    """

    base: int
    parts: tuple[tuple[int, int], ...]

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        """At widths int64 [..., G]: int64 [...]."""
        total = np.full(widths.shape[:-1], self.base)
        for group, times in self.parts:
            total = total + times * widths[..., group]
        return total

    @property
    def grain(self) -> int:
        """By how much it shrinks with a channel, at least."""
        return int(np.gcd.reduce([times for _, times in self.parts]))


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    Args:
        name: the graph's node of its first call.
        program: its calls, sizes left open.
        axes: the lengths that change with the groups' widths.
        full: their values at full widths.
    """

    name: str
    program: Program
    axes: tuple[Length, ...]
    full: tuple[int, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups on whose widths its time depends, by their place in ``coupling.groups``."""
        return tuple(sorted({group for axis in self.axes for group, _ in axis.parts}))

    def lengths(self, widths: np.ndarray) -> tuple[int, ...]:
        """Of its axes, at widths int64 [G]."""
        return tuple(int(axis(widths)) for axis in self.axes)


@dataclass(frozen=True)
class Layers:
    """Those of one model; ``unpriced`` are nodes whose calls cannot be run alone, each with the reason."""

    layers: tuple[Layer, ...]
    unpriced: Mapping[str, str]


def layers_of(coupling: Coupling) -> Layers:
    """The layers of the inference graph, in the order of execution."""
    tape = coupling.evidence.tapes[0]
    flow = _Flow(tape, coupling.evidence.contractions)
    lengths = _Lengths(coupling)
    found, unpriced = [], {}
    for chain in flow.chains():
        layer = _layer(tape, chain, lengths)
        if not layer.axes:
            continue
        reason = layer.program.refusal(layer.full, _narrow(layer))
        if reason is None:
            found.append(layer)
        elif reason:
            unpriced[layer.name] = reason
    return Layers(tuple(found), unpriced)


def _narrow(layer: Layer) -> tuple[int, ...]:
    """Lengths at about half of what groups own: multiples of what one channel adds."""
    return tuple(axis.base + (full - axis.base) // 2 // axis.grain * axis.grain or full
                 for axis, full in zip(layer.axes, layer.full, strict=True))


class _Lengths:
    """Dim vectors as `Length`, each looked at once."""

    def __init__(self, coupling: Coupling):
        evidence = coupling.evidence
        self.dims = evidence.dims[0]
        # What is frozen is as fixed as a position.
        free = np.array([group.frozen is None for group in coupling.groups.values()] + [False])
        self._owner = np.where(free[evidence.group], evidence.group, -1)[evidence.channel]
        self._sizes = coupling.widths
        self._known: dict[int, Length] = {}

    def of(self, ref: Ref) -> tuple[Length, ...]:
        """Of all dimensions of a tensor; as they are where the coupling does not know it."""
        vectors = self.dims.get(ref.id)
        return tuple(Length(n, ()) for n in ref.shape) if vectors is None else tuple(map(self._length, vectors))

    def _length(self, vector: Vector) -> Length:
        if id(vector) not in self._known:
            owner = self._owner[vector[vector >= 0]]
            owner = owner[owner >= 0]
            parts = zip(*np.unique(owner, return_counts=True), strict=True)
            self._known[id(vector)] = Length(len(vector) - len(owner),
                                             tuple((int(g), int(n // self._sizes[g])) for g, n in parts))
        return self._known[id(vector)]


class _Flow:
    """Which call reads what: a tensor that is written in place is another value from there on."""

    def __init__(self, tape: Tape, contractions: Collection[int]):
        self.tape, self.contractions = tape, contractions
        self.readers: dict[int, list[int]] = {}
        self.made: list[tuple[int, ...]] = []
        current: dict[int, int] = {}
        for place, call in enumerate(tape.calls):
            for ref in {ref.id: ref for ref in refs((call.args, call.kwargs))}.values():
                self.readers.setdefault(current.setdefault(ref.id, -1 - ref.id), []).append(place)
            outs = list(refs(call.outs))
            self.made.append(tuple(1000 * place + number for number in range(len(outs))))
            current.update(zip((ref.id for ref in outs), self.made[-1], strict=True))
        for number in tape.outputs:
            self.readers.setdefault(current.get(number, -1 - number), []).append(len(tape.calls))

    def chains(self) -> Iterator[list[int]]:
        """Calls that are executed as one, in order."""
        claimed: set[int] = set()
        for place in range(len(self.tape.calls)):
            if place in claimed or not self.made[place]:
                continue
            chain = [place]
            if place in self.contractions:
                self._extend(chain, claimed)
            claimed.update(chain)
            yield chain

    def _extend(self, chain: list[int], claimed: set[int]) -> None:
        while True:
            reader = self._only_reader(chain[-1])
            if reader is None or reader in claimed or reader in self.contractions:
                return
            chain.append(reader)

    def _only_reader(self, place: int) -> int | None:
        """The one call that reads what this one makes, where it gives something of the same shape."""
        if len(self.made[place]) != 1:
            return None
        readers = self.readers.get(self.made[place][0], [])
        if len(readers) != 1 or readers[0] >= len(self.tape.calls) or len(self.made[readers[0]]) != 1:
            return None
        shapes = [next(refs(self.tape.calls[each].outs)).shape for each in (place, readers[0])]
        return readers[0] if shapes[0] == shapes[1] else None


def _layer(tape: Tape, chain: Sequence[int], lengths: _Lengths) -> Layer:
    """The calls with every tensor as a slot: a parameter, an input, or what an earlier call made."""
    axes: dict[Length, int] = {}
    slots: list[Slot] = []
    places: dict[int, int] = {}

    def slot(ref: Ref, kind: str) -> int:
        dims = tuple(-1 - axes.setdefault(n, len(axes)) if n.parts else n.base for n in lengths.of(ref))
        slots.append(Slot(kind, dims))
        return len(slots) - 1

    def used(ref: Ref) -> int:
        if ref.id not in places:
            places[ref.id] = slot(ref, PARAM if ref.id in tape.params or ref.id in tape.constants else INPUT)
        return places[ref.id]

    calls = []
    for place in chain:
        call = tape.calls[place]
        args, kwargs = (mapped(tree, lambda ref: Use(used(ref)), Ref) for tree in (call.args, call.kwargs))
        outs = [ref for ref in refs(call.outs)]
        for ref in outs:
            places[ref.id] = slot(ref, MADE)
        calls.append(Step(call.op, call.overload, args, kwargs, tuple(places[ref.id] for ref in outs)))
    full = tuple(length.base + sum(times * int(lengths._sizes[g]) for g, times in length.parts) for length in axes)
    return Layer(tape.calls[chain[0]].node, Program(tuple(calls), tuple(slots)), tuple(axes), full)
