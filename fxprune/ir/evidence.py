"""What a coupling rests on, as data: the recorded runs, and which channel every index of their tensors belongs to.

Whoever is asked *why* reads this: `Coupling.explain`, the graph, the drawing, the test of what may be reordered. It
holds arrays of integers, operator names and source lines; nothing of the user's classes, no weight and no activation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from fxprune.ir.tape import Call, Tape
from fxprune.ir.units import Vector

# A dimension of a parameter or buffer.
Slot = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The recorded runs and their channels.

    Args:
        tapes: of the distinct graphs, that of evaluation first.
        dims: per tape, the dim vectors of every tensor, by the number of its `Ref`.
        slots: the dim vectors of the parameters and buffers.
        shared: first name -> all names of a parameter or buffer that has several.
        joined: what was tied with what: the number of the call (counted over all tapes), and two dim vectors.
        fresh: dim vectors that a call made from nothing, with its number.
        contractions: the numbers of the calls that multiply and accumulate.
        channel: int64 [units], the channel of every unit.
        group, ordinal: int64 [channels], the group that a channel belongs to (-1: none), and its number there.
    """

    tapes: tuple[Tape, ...]
    dims: tuple[Mapping[int, tuple[Vector, ...]], ...]
    slots: Mapping[Slot, Vector]
    shared: Mapping[str, tuple[str, ...]]
    joined: tuple[tuple[int, Vector, Vector], ...]
    fresh: tuple[tuple[int, Vector], ...]
    contractions: frozenset[int]
    channel: np.ndarray
    group: np.ndarray
    ordinal: np.ndarray

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The calls of all tapes, as they are counted."""
        return tuple(chain.from_iterable(tape.calls for tape in self.tapes))

    @cached_property
    def weighted(self) -> np.ndarray:
        """bool [channels]: which channels lie in a parameter or buffer."""
        weighted = np.zeros(len(self.group), bool)
        if self.slots:
            weighted[self.channel[np.concatenate(list(self.slots.values()))]] = True
        return weighted

    @property
    def vectors(self) -> Iterator[Vector]:
        """Every distinct dim vector."""
        everywhere = chain(self.slots.values(), (v for dims in self.dims for entry in dims.values() for v in entry))
        yield from {id(vector): vector for vector in everywhere}.values()

    def owners(self, vector: Vector) -> np.ndarray:
        """The groups of a dim vector's free indices, int64 (-1: none)."""
        owners: np.ndarray = self.group[self.channel[vector[vector >= 0]]]
        return owners
