"""Example inputs: normalised, their description without contents, and others made from the description."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fxprune.errors import InputError
from fxprune.ir.trees import leaves, mapped

Example = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one example input (``dtype`` without the ``torch.`` prefix)."""

    shape: tuple[int, ...]
    dtype: str
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Inputs:
    """The example inputs without their contents: nests of `TensorSpec` and plain values."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    inferred: str = ""


def normalise(example: Any) -> Example:
    """Positional and keyword arguments from a tensor, a tuple or list of arguments, or a dict of keyword arguments.

    >>> normalise({"x": 1})
    ((), {'x': 1})
    """
    if isinstance(example, torch.Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    raise InputError(f"example_inputs must be a tensor, a tuple of positional arguments or a dict of keyword "
                     f"arguments, got {type(example).__name__}; write for instance torch.randn(1, 3, 224, 224)")


def realise(inputs: Inputs, device: torch.device | str, generator: torch.Generator | None = None,
            change: Callable[[TensorSpec], TensorSpec] = lambda spec: spec, dtype: torch.dtype | None = None
            ) -> Example:
    """Random inputs of that description; with ``dtype`` the floating ones get it."""

    def make(spec: TensorSpec) -> torch.Tensor:
        spec = change(spec)
        kind = getattr(torch, spec.dtype)
        if str(device) == "meta":
            return torch.empty(spec.shape, dtype=kind, device="meta")
        if kind.is_floating_point or kind.is_complex:
            wanted = dtype if dtype is not None and kind.is_floating_point else kind
            return torch.randn(spec.shape, generator=generator, dtype=torch.float32).to(device, wanted)
        high = max(spec.high, spec.low + 1)
        return torch.randint(spec.low, high, spec.shape, generator=generator).to(device, kind)

    example: Example = mapped((inputs.args, dict(inputs.kwargs)), make, TensorSpec)
    return example


def specs(inputs: Inputs) -> list[TensorSpec]:
    """All tensors of the description, in order."""
    return leaves((inputs.args, dict(inputs.kwargs)), TensorSpec)


def second_batch(inputs: Inputs) -> Callable[[TensorSpec], TensorSpec]:
    """A change of specs that makes the batch (dimension 0 of the first tensor) one larger, wherever it stands first."""
    first = next((s for s in specs(inputs) if s.shape), None)
    batch = first.shape[0] if first else 0

    def change(spec: TensorSpec) -> TensorSpec:
        if not spec.shape or spec.shape[0] != batch:
            return spec
        return TensorSpec((batch + 1, *spec.shape[1:]), spec.dtype, spec.low, spec.high)

    return change
