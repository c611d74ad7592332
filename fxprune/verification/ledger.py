"""What was compared, and how two tensors differ."""

import math
from dataclasses import dataclass, field

import torch

from fxprune.capture.dispatch import outside_modes
from fxprune.errors import VerificationError
from fxprune.verification.undecided import Undecided

LOWEST = 1e30
# What rounding may do, once the model's own Python has gone down to such a precision (``x.float()`` in a norm): many
# units in the last place of single precision, some of the halves.
ROUNDING = {torch.float32: 1e-4, torch.complex64: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}


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


def difference(reference: torch.Tensor, got: torch.Tensor) -> float:
    """The largest difference, relative to the largest magnitude; where both are the same non-number, none."""
    if not reference.numel():
        return 0.0
    got = got.conj_physical() if got.is_conj() else got
    if not reference.is_floating_point() and not reference.is_complex():
        return float((reference != got).any())
    if not reference.is_complex():
        # What a mask fills in is as low as its dtype goes: lower than anything else, and equal.
        reference, got = reference.clamp(-LOWEST, LOWEST), got.clamp(-LOWEST, LOWEST)
    same = (reference == got) | (reference.isnan() & got.isnan())
    if bool(same.all()):
        return 0.0
    finite = reference.isfinite()
    scale = float(reference[finite].abs().max()) if bool(finite.any()) else 1.0
    difference = torch.where(same, torch.zeros_like(reference, dtype=reference.abs().dtype), (reference - got).abs())
    error = float(difference.max()) / max(scale, 1e-30)
    return float("inf") if error != error else error
