"""A captured graph under a plan: which indices of its tensors stay."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fxprune.capture.sizes import Apply, Dim
from fxprune.capture.traced import Traced
from fxprune.ir.branches import Skipped
from fxprune.ir.evidence import Evidence
from fxprune.ir.tape import Ref, Tape
from fxprune.ir.units import Vector

NOTHING = Skipped()


class View:
    """One graph under a plan.

    Args:
        traced: the graph and its tape.
        evidence: of the coupling.
        dims: the dim vectors of the tape's tensors.
        lost: bool [channels], which channels go.
        skipped: the branches that go.
    """

    def __init__(self, traced: Traced, evidence: Evidence, dims: Mapping[int, tuple[Vector, ...]], lost: np.ndarray,
                 skipped: Skipped = NOTHING):
        self.traced, self.dims, self.skipped = traced, dims, skipped
        self.tape: Tape = traced.tape
        self._evidence, self._lost = evidence, lost
        self._masks: dict[int, tuple[Vector, np.ndarray]] = {}

    def kept_of(self, vector: Vector) -> np.ndarray:
        """A boolean mask over a dim vector."""
        known = self._masks.get(id(vector))
        if known is None:
            known = self._masks[id(vector)] = (vector, self._mask(vector))
        return known[1]

    def _mask(self, vector: Vector) -> np.ndarray:
        mask = np.ones(len(vector), bool)
        free = vector >= 0
        count = np.count_nonzero(free)
        if count == len(vector):
            return ~self._lost[self._evidence.channel[vector]]
        if count:
            mask[free] = ~self._lost[self._evidence.channel[vector[free]]]
        return mask

    def masks(self, ref: Ref) -> list[np.ndarray]:
        """The masks of all dimensions of a tensor (all true where the tape does not know it)."""
        vectors = self.dims.get(ref.id)
        return [np.ones(n, bool) for n in ref.shape] if vectors is None else [self.kept_of(v) for v in vectors]

    def lengths(self, ref: Ref) -> tuple[int, ...]:
        return tuple(int(np.count_nonzero(mask)) for mask in self.masks(ref))

    def refs(self, node: str) -> Mapping[tuple[Any, ...], Ref]:
        """The tensors of a node's value, by their path in it."""
        return self.tape.nodes.get(node, {})

    def shrinks(self, leaf: Dim) -> bool:
        vectors = self.dims.get(leaf.tensor)
        return vectors is not None and not self.kept_of(vectors[leaf.dim]).all()

    def determined(self, leaf: Dim) -> bool:
        """Whether the weights, not the inputs, determine this length. (``zeros(batch, 8)`` has units in both dims; a
        batch that is merged with heads has the heads' units.)"""
        if leaf in self.traced.following:
            return False
        vectors = self.dims.get(leaf.tensor)
        units = vectors[leaf.dim][vectors[leaf.dim] >= 0] if vectors is not None else np.zeros(0, np.int64)
        return bool(self._evidence.weighted[self._evidence.channel[units]].any())

    def ratio(self, leaf: Dim) -> tuple[int, int]:
        """How many of how many indices stay, in lowest terms; so it is at any length of the inputs."""
        kept, total = (self.evaluate(leaf, natural) for natural in (True, False)) if self.shrinks(leaf) else (1, 1)
        common = math.gcd(kept, total)
        return kept // common, total // common

    def evaluate(self, expression: Any, natural: bool) -> Any:
        """A size's value: after shrinking where ``natural``, else that of the original."""
        if isinstance(expression, Dim):
            vector = self.dims[expression.tensor][expression.dim]
            return int(self.kept_of(vector).sum()) if natural else len(vector)
        if isinstance(expression, Apply):
            return expression.function(*(self.evaluate(arg, natural) for arg in expression.args))
        return expression
