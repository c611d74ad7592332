"""Which parameter dimension, or which constant, a unit belongs to."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fxprune.ir.evidence import Evidence
from fxprune.ir.units import Vector


@dataclass(frozen=True, eq=False)
class Runs:
    """Units are handed out in runs: one for every dimension of a parameter, and of a constant.

    Args:
        starts: the first unit of each run, ascending (int64 [R]).
        names: a ``(parameter, dim)`` or a constant's node, per run.
    """

    starts: np.ndarray
    names: tuple[Any, ...]

    @classmethod
    def of(cls, evidence: Evidence) -> "Runs":
        vectors: list[tuple[Any, Vector]] = list(evidence.slots.items())
        vectors += [(constant(call, vector), vector) for call, vector in evidence.fresh]
        runs = sorted(((int(vector[0]), name) for name, vector in vectors if len(vector)), key=lambda run: run[0])
        return cls(np.array([start for start, _ in runs], np.int64), tuple(name for _, name in runs))

    def place(self, units: np.ndarray) -> np.ndarray:
        """The run of each unit, as an index into ``names``."""
        return np.searchsorted(self.starts, units, "right") - 1

    def within(self, vector: Vector) -> frozenset[int]:
        """The runs that a dim vector draws from."""
        return frozenset(np.unique(self.place(vector[vector >= 0])).tolist())


def constant(call: int, vector: Vector) -> str:
    """The graph's node of a dimension that a call made from nothing."""
    return f"constant#{call}:{int(vector[0]) if len(vector) else 0}"
