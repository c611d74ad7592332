"""A structural copy of a model: all of its Python, none of its weights."""

from typing import Any

import torch
from torch import nn

from fxprune.capture.copying import deepcopy
from fxprune.errors import InputError


def structural_copy(model: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A deep copy whose parameters and buffers are on the meta device.

    Returns:
        The copy, and the contents of its integer and boolean buffers by name (index tables steer data movement).

    Raises:
        InputError: the model cannot be deep-copied.
    """
    memo: dict[int, Any] = {}
    contents: dict[str, torch.Tensor] = {}
    for _, parameter in model.named_parameters():
        meta = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device="meta")
        memo[id(parameter)] = nn.Parameter(meta, requires_grad=parameter.requires_grad)
    for name, buffer in model.named_buffers():
        memo[id(buffer)] = torch.empty_strided(buffer.shape, buffer.stride(), dtype=buffer.dtype, device="meta")
        if not buffer.is_floating_point() and not buffer.is_complex() and buffer.device.type != "meta":
            contents[name] = buffer.detach().cpu()
    return deep_copy(model, memo), contents


def deep_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """``copy.deepcopy`` with a clear error; ``memo`` names what is replaced on the way."""
    memo = {} if memo is None else memo
    # A cached activation that still hangs on its graph cannot be deep-copied; its value can.
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return deepcopy(model, memo)
    except Exception as error:
        raise InputError(f"the model must survive copy.deepcopy, since fxprune never works on yours; "
                         f"copying raised {type(error).__name__}: {error}") from error
