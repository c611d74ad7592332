"""The user's example, whatever containers it holds: checked, described without its contents, and with other values."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example, Inputs, TensorSpec, realise


def check(model: nn.Module, example: Example) -> None:
    """Device and floating dtype must be the model's."""
    weights = [t for t in itertools.chain(model.parameters(), model.buffers()) if t.is_floating_point()]
    if not weights:
        return
    devices, dtypes = {t.device for t in weights}, {t.dtype for t in weights}
    for tensor in tree_iter(example):
        if not isinstance(tensor, torch.Tensor):
            continue
        if tensor.device not in devices:
            raise InputError(f"example inputs must be on the model's device {_one(devices)}, got one on "
                             f"{tensor.device}; write example_inputs.to('{next(iter(devices))}')")
        if tensor.is_floating_point() and tensor.dtype not in dtypes:
            raise InputError(f"example inputs must have the model's dtype {_one(dtypes)}, got {tensor.dtype}; "
                             f"write example_inputs.to({next(iter(dtypes))})")


def _one(values: set[Any]) -> str:
    return " or ".join(sorted(map(str, values)))


def describe(example: Example, inferred: str = "") -> Inputs:
    """The example inputs without their contents."""
    args, kwargs = tree_map_only(torch.Tensor, _spec, example)
    return Inputs(args, kwargs, inferred)


def _spec(tensor: torch.Tensor) -> TensorSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel() or tensor.device.type == "meta":
        return TensorSpec(tuple(tensor.shape), dtype)
    return TensorSpec(tuple(tensor.shape), dtype, int(tensor.min()), int(tensor.max()) + 1)


# What else an input could hold: data that steers a model's Python may lead it elsewhere.
VARIATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda x: x, "negated": torch.neg, "zero": torch.zeros_like, "positive": torch.abs,
    "negative": lambda x: -x.abs(), "large": lambda x: 30 * x, "small": lambda x: x / 100,
}


def varied(example: Example, variation: str) -> Example:
    """The example with all floating tensors changed, by the name of the change in ``VARIATIONS``."""
    change = VARIATIONS[variation]
    changed: Example = tree_map_only(torch.Tensor, lambda t: change(t) if t.is_floating_point() else t, example)
    return changed


def taken(model: nn.Module, inputs: Inputs, generator: torch.Generator, dtype: torch.dtype | None,
          other: Callable[[Exception], Example]) -> Example:
    """Random inputs of the described sizes, where the model runs on them; where it takes certain values only (an image
    and a text without the token that stands for it), others, which are told what the model raised.

    Args:
        dtype: of real-valued ones; the described one where None.
    """
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    example = realise(inputs, device, generator, dtype=dtype)
    try:
        with torch.no_grad():
            model(*example[0], **example[1])
    except Exception as error:
        return other(error)
    return example
