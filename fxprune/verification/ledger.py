"""What was compared, and how well it agreed."""

import math
from dataclasses import dataclass, field, replace

import torch

from fxprune.capture.dispatch import outside_modes
from fxprune.errors import VerificationError
from fxprune.ir.comparison import LOWEST, ROUNDING, difference
from fxprune.verification.undecided import Undecided


@dataclass
class Ledger:
    """What was compared so far.

    Args:
        tolerance: that of the comparison's dtype. A value of a lower one has that one's, and no other value has.
        called: the graphs whose code was called as users do; once each, since a graph has one code.
        astray: whether data led the last run of the original to an operator that mixes channels, past its tape.
        error, allowed, worst: the difference that came closest to what was allowed there.
    """

    tolerance: float
    dtype: torch.dtype = torch.float64
    error: float = 0.0
    allowed: float = 0.0
    count: int = 0
    worst: str = ""
    runs: list[tuple[str, int]] = field(default_factory=list)
    astray: bool = False
    called: set[int] = field(default_factory=set)
    shapes: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, where: str, reference: torch.Tensor, got: torch.Tensor, context: str, rounding: float = 0.0
                ) -> None:
        """Hold a value against the original's.

        Args:
            rounding: by how much rounding may change the value.
        """
        if reference.shape != got.shape:
            raise VerificationError.at(where, f"node {where!r} must have shape {list(reference.shape)} after pruning, "
                                       f"got {list(got.shape)} ({context})")
        tolerance = self.tolerance
        if reference.dtype is not self.dtype:
            tolerance = max(tolerance, ROUNDING.get(reference.dtype, 0.0))
        with outside_modes():
            error = difference(reference.detach(), got.detach(), least=max(rounding / tolerance, 1e-30))
        self.count += 1
        if not self.worst or error * self.allowed >= self.error * tolerance:
            self.error, self.allowed, self.worst = error, tolerance, where
        if not error <= tolerance:
            raise self._kind(reference, error).at(
                where, f"node {where!r} must equal the masked original to {tolerance:g}, and differs by {error:.3g} "
                f"({context}); the result is wrong and was not returned")

    def copy(self) -> "Ledger":
        """What it says now."""
        return replace(self, runs=[*self.runs], called={*self.called}, shapes=[*self.shapes], notes=[*self.notes])

    def restore(self, before: "Ledger") -> None:
        """Say again what it said then."""
        vars(self).update(vars(before.copy()))

    @staticmethod
    def _kind(reference: torch.Tensor, error: float) -> type[VerificationError]:
        """Where a dtype's own limits stand in a value (as a mask's), another precision has other ones."""
        limits = reference.is_floating_point() and bool((reference.abs() >= LOWEST).any())
        return Undecided if limits or not math.isfinite(error) else VerificationError
