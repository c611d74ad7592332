"""A structural copy of a model: all of its Python, none of its weights."""

from typing import Any

import torch
from torch import nn

from fxprune.capture.copying import deepcopy
from fxprune.errors import InputError
from fxprune.ir.signature import named_tensors


def structural_copy(model: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A deep copy whose parameters and buffers are on the meta device.

    Returns:
        The copy, and the contents of its integer and boolean buffers by name (index tables steer data movement).

    Raises:
        InputError: the model cannot be deep-copied.
    """
    memo: dict[int, Any] = {}
    contents: dict[str, torch.Tensor] = {}
    for name, tensor in named_tensors(model):
        if id(tensor) in memo:
            continue
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(meta, requires_grad=tensor.requires_grad) if parameter else meta
        if not parameter and not tensor.is_floating_point() and not tensor.is_complex() and not tensor.is_meta:
            contents[name] = tensor.detach().cpu()
    return deep_copy(model, memo), contents


def deep_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """``copy.deepcopy`` with a clear error; ``memo`` names what is replaced on the way."""
    try:
        return deepcopy(model, {} if memo is None else memo)
    except Exception as error:
        raise InputError(f"the model must survive copy.deepcopy, since fxprune never works on yours; "
                         f"copying raised {type(error).__name__}: {error}") from error
