"""What was compared, and how well it agreed."""

import math
from dataclasses import dataclass, field

import torch

from fxprune.capture.dispatch import outside_modes
from fxprune.errors import VerificationError
from fxprune.ir.comparison import ROUNDING, difference
from fxprune.verification.undecided import Undecided


@dataclass
class Ledger:
    """What was compared so far; ``tolerance`` is that of the comparison's dtype, or of a lower one that was met."""

    tolerance: float
    dtype: torch.dtype = torch.float64
    error: float = 0.0
    count: int = 0
    worst: str = ""
    runs: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, where: str, reference: torch.Tensor, got: torch.Tensor, context: str) -> None:
        if reference.shape != got.shape:
            raise VerificationError.at(where, f"node {where!r} must have shape {list(reference.shape)} after pruning, "
                                       f"got {list(got.shape)} ({context})")
        if reference.dtype is not self.dtype:
            self.tolerance = max(self.tolerance, ROUNDING.get(reference.dtype, 0.0))
        with outside_modes():
            error = difference(reference, got)
        self.count += 1
        if error >= self.error or not self.worst:
            self.error, self.worst = error, where
        if not error <= self.tolerance:
            kind = VerificationError if math.isfinite(error) else Undecided
            raise kind.at(where, f"node {where!r} must equal the masked original to {self.tolerance:g}, and "
                          f"differs by {error:.3g} ({context}); the result is wrong and was not returned")
