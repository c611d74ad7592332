"""The two sides of a verification: the masked original and the pruned module, with the same random weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.capture.structure import isolated_copy
from fxprune.errors import VerificationError
from fxprune.ir.comparison import identical
from fxprune.verification.arithmetic import Arithmetic

Keep = Mapping[str, Mapping[int, Any]]


def picked(tensor: torch.Tensor, keep: Mapping[int, Any]) -> torch.Tensor:
    """The kept indices of the given dimensions, in their order."""
    for dim, indices in keep.items():
        tensor = tensor[(slice(None),) * dim + (torch.tensor(indices, dtype=torch.long, device=tensor.device),)]
    return tensor


def check_weights(model: nn.Module, small: nn.Module, keep: Keep) -> None:
    """Every parameter and buffer of the result is, bit for bit, the planned slice of the original's.

    Raises:
        VerificationError: the first tensor that is not.
    """
    original = dict(named_tensors(model))
    for name, tensor in named_tensors(small):
        if name not in original:
            continue
        expected = picked(original[name].detach(), keep.get(name, {}))
        if expected.shape != tensor.shape:
            raise VerificationError(f"{name!r} must have shape {list(expected.shape)} under the plan, got "
                                    f"{list(tensor.shape)}; compress again")
        if _is_index(tensor):
            continue  # index tables are renumbered; the nodes that use them are compared
        if not identical(expected, tensor.detach()):
            raise VerificationError(f"{name!r} must hold the planned slice of the original's weights, and holds other "
                                    "values; verify before training goes on, and against the model that was pruned")


def _is_index(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def pair(model: nn.Module, small: nn.Module, keep: Keep, arithmetic: Arithmetic, seed: int
         ) -> tuple[nn.Module, nn.Module]:
    """Copies of both with the same random weights, so that nothing is zero by accident; in the original's, what the
    plan removes is set to zero on both sides of every layer."""
    full, pruned = isolated_copy(model), isolated_copy(small)
    if not arithmetic.stored:
        _cast(full, arithmetic)
        _cast(pruned, arithmetic)
    generator = torch.Generator().manual_seed(seed)
    tensors, targets = dict(named_tensors(full)), dict(named_tensors(pruned))
    with torch.no_grad():
        for first, names in aliases(full).items():
            _randomise(first, tensors[first], generator)
            for name in names:
                if name in targets and not _is_index(targets[name]):
                    targets[name].copy_(picked(tensors[first], keep.get(first, {})))
        for first in aliases(full):
            for dim, indices in keep.get(first, {}).items():
                _mask(tensors[first], dim, indices)
    return full, pruned


def _cast(module: nn.Module, arithmetic: Arithmetic) -> None:
    """In place, complex ones to complex."""
    for _, tensor in named_tensors(module):
        tensor.data = arithmetic.widened(tensor.data)


def _randomise(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    if _is_index(tensor):
        return
    leaf = name.rpartition(".")[2]
    if isinstance(tensor, nn.Parameter):
        kind = torch.complex64 if tensor.is_complex() else torch.float32
        values = torch.randn(tensor.shape, generator=generator, dtype=kind)
        fan = max(tensor.numel() // max(tensor.shape[0], 1), 1) if tensor.dim() > 1 else 4
        tensor.copy_(values * fan ** -0.5 + (1.0 if tensor.dim() == 1 and leaf == "weight" else 0.0))
    elif leaf == "running_mean":
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    elif leaf == "running_var":
        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def _mask(tensor: torch.Tensor, dim: int, kept: Any) -> None:
    gone = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
    gone[torch.tensor(kept, dtype=torch.long, device=tensor.device)] = False
    if not _is_index(tensor):
        tensor[(slice(None),) * dim + (gone,)] = 0
