"""New parameters and buffers: the kept indices of the old ones. Nothing emitted shares storage with the original."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.ir.masks import index_of, selected

# Elements from which a tensor is large, and the rows of it that are cut at a time.
LARGE, ROWS = 1 << 20, 64


def sliced(tensor: torch.Tensor, keep: Mapping[int, Any]) -> torch.Tensor:
    """A new tensor with only the kept indices of the given dimensions, in their order; the memory format stays."""
    out = _picked(tensor.detach(), {dim: index_of(tuple(kept)).to(tensor.device) for dim, kept in keep.items()})
    if out.dim() == 4 and _channels_last(tensor):
        return out.clone(memory_format=torch.channels_last)
    return out.clone() if not keep or out.data_ptr() == tensor.data_ptr() else out.contiguous()


def _picked(tensor: torch.Tensor, keep: dict[int, torch.Tensor]) -> torch.Tensor:
    """The kept indices; a large tensor is cut some rows at a time, so that no intermediate is large."""
    if 0 not in keep or len(keep) == 1 or tensor.numel() < LARGE:
        for dim, indices in keep.items():
            tensor = selected(tensor, dim, indices)
        return tensor
    rest = {dim: indices for dim, indices in keep.items() if dim}
    *before, last = rest
    lengths = [len(rest[dim]) if dim in rest else n for dim, n in enumerate(tensor.shape)]
    out = tensor.new_empty((len(keep[0]), *lengths[1:]))
    for start in range(0, len(out), ROWS):
        part = _picked(tensor.index_select(0, keep[0][start:start + ROWS]), {dim: rest[dim] for dim in before})
        torch.index_select(part, last, rest[last], out=out[start:start + ROWS])
    return out


def _channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def sliced_like(tensor: torch.Tensor, keep: Mapping[int, Any]) -> torch.Tensor:
    """A parameter for a parameter, a buffer for a buffer."""
    out = sliced(tensor, keep)
    return nn.Parameter(out, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else out


def slice_all(model: nn.Module, keep: Mapping[str, Mapping[int, Any]], names: set[str] | None = None
              ) -> dict[int, torch.Tensor]:
    """``id`` of every parameter and buffer (of those ``names``) -> its slice: a memo for ``copy.deepcopy``."""
    tensors = dict(named_tensors(model))
    memo: dict[int, Any] = {}
    for first, shared in aliases(model).items():
        if names is None or not names.isdisjoint(shared):
            memo[id(tensors[first])] = sliced_like(tensors[first], keep.get(first, {}))
    return memo
