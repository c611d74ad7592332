"""From a parameter to one number per channel: what every criterion on norms is made of."""

import numpy as np
import torch

from fxprune.errors import InputError
from fxprune.ir.groups import Member


def powers(tensor: torch.Tensor, dim: int, order: int) -> np.ndarray:
    """Σ |w|^order over all dimensions but ``dim``: float64 [tensor.shape[dim]].

    float32 is summed in float32 (half the time of float64, and far more digits than a ranking needs), narrower dtypes
    in float32 as well, and what overflows there once more in float64.

    >>> powers(torch.tensor([[3.0, 4.0], [0.0, -2.0]]), 0, 2).tolist()
    [25.0, 4.0]
    """
    if tensor.is_meta:
        raise InputError("weights must hold values to be scored, but they are on the meta device; "
                         "load them first, with model.load_state_dict(..., assign=True)")
    tensor = tensor.detach()
    if tensor.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        tensor = tensor.to(torch.float32)
    rest = [d for d in range(tensor.dim()) if d != dim]
    norms = torch.linalg.vector_norm(tensor, order, dim=rest) if rest else tensor.abs()
    sums = norms.double().cpu().numpy() ** order
    wide = (torch.float64, torch.complex128)
    if tensor.dtype in wide or np.isfinite(sums).all():
        return sums
    return powers(tensor.to(torch.complex128 if tensor.is_complex() else torch.float64), dim, order)


def _rows(tensor: torch.Tensor, dim: int, index: np.ndarray) -> torch.Tensor:
    """These indices of a dimension; a run of them (queries, keys and values in one weight) without a copy."""
    if len(index) and (np.diff(index) == 1).all():
        return tensor.narrow(dim, int(index[0]), len(index))
    return tensor.index_select(dim, torch.from_numpy(np.ascontiguousarray(index)).to(tensor.device))


def slice_sums(member: Member, tensor: torch.Tensor, size: int) -> np.ndarray:
    """Σ over all slices of each of ``size`` channels in this member: float64 [size].

    >>> member = Member("fc.weight", 1, "consumer", np.array([0, 1, 0]), np.arange(3))
    >>> slice_sums(member, torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]), 2).tolist()
    [44.0, 22.0]
    """
    rest = [d for d in range(tensor.dim()) if d != member.dim]
    sums = (tensor.double().sum(rest) if rest else tensor.double()).cpu().numpy()
    return np.bincount(member.channel, weights=sums[member.index], minlength=size)


def per_channel(member: Member, tensor: torch.Tensor, order: int, size: int) -> np.ndarray:
    """Σ |w|^order over all slices of each of ``size`` channels in this member: float64 [size]."""
    if len(member.index) == tensor.shape[member.dim]:
        sums = powers(tensor, member.dim, order)[member.index]
    else:
        # Several groups share this layer: each pays for its own rows only.
        sums = powers(_rows(tensor.detach(), member.dim, member.index), member.dim, order)
    return np.bincount(member.channel, weights=sums, minlength=size)
