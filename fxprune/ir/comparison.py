"""The one comparer: how two tensors differ, and what rounding may do."""

import torch

LOWEST = 1e30
# What rounding may do, once the model's own Python has gone down to such a precision (``x.float()`` in a norm): many
# units in the last place of single precision, some of the halves.
ROUNDING = {torch.float32: 1e-4, torch.complex64: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether shapes, dtypes and all values are the same; NaN equals NaN.

    >>> identical(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]))
    True
    """
    return a.shape == b.shape and a.dtype == b.dtype and (torch.equal(a, b) or bool(_same(a, b).all()))


def difference(reference: torch.Tensor, got: torch.Tensor, least: float = 1e-30) -> float:
    """The largest difference, relative to the largest finite magnitude of the reference (to ``least`` where that is
    smaller); infinite where one is no number and the other is. Of integers: 1 where any differ.

    >>> difference(torch.tensor([4.0, float("nan")]), torch.tensor([3.0, float("nan")]))
    0.25
    """
    if not reference.numel():
        return 0.0
    got = got.conj_physical() if got.is_conj() else got
    if not reference.is_floating_point() and not reference.is_complex():
        return float((reference != got).any())
    if reference.dtype.itemsize < 4:
        reference, got = reference.float(), got.float()  # halves cannot hold the bounds below
    apart = _largest(reference - got)
    if not apart:
        return 0.0
    scale = _largest(reference)
    if apart + scale < LOWEST:  # all are numbers, as they mostly are
        return apart / max(scale, least)
    if not reference.is_complex():
        # What a mask fills in is as low as its dtype goes: lower than anything else, and equal.
        reference, got = reference.clamp(-LOWEST, LOWEST), got.clamp(-LOWEST, LOWEST)
    same = _same(reference, got)
    if bool(same.all()):
        return 0.0
    finite = reference.isfinite()
    scale = float(reference[finite].abs().max()) if bool(finite.any()) else 1.0
    difference = torch.where(same, torch.zeros_like(reference, dtype=reference.abs().dtype), (reference - got).abs())
    error = float(difference.max()) / max(scale, least)
    return float("inf") if error != error else error


def moved(reference: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference of two values of one shape, where both are numbers; of integers none.

    >>> moved(torch.tensor([4.0, float("inf")]), torch.tensor([3.0, 1.0]))
    1.0
    """
    if not reference.is_floating_point() and not reference.is_complex():
        return 0.0
    distance = (reference - other).abs()
    distance = distance[distance.isfinite()]
    return float(distance.max()) if distance.numel() else 0.0


def _largest(tensor: torch.Tensor) -> float:
    """The largest magnitude; NaN where one is. The norm that says so takes several times as long."""
    if tensor.is_complex():
        return float(torch.linalg.vector_norm(tensor, torch.inf))
    low, high = tensor.aminmax()
    return float(torch.maximum(high, -low))


def _same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Element by element, whether both are equal or both no number."""
    return (a == b) | (a.isnan() & b.isnan())
