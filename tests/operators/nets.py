"""Tiny modules around one operator: a layer before it and a layer after it, so that channels run through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class Net(nn.Module):
    """A module whose forward is a plain function of itself and the inputs."""

    def __init__(self, function: Callable[..., Any], **modules: Any):
        super().__init__()
        self.function = function
        for name, value in modules.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Sample:
    """One operator in a network.

    Args:
        name: the operator, with a word on the case where it has several.
        build: makes the module; a layer ``a`` stands before the operator.
        inputs: what it is called with.
        prunable: whether the output channels of ``a`` may go (some of them); else they must be frozen.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    prunable: bool = True

    def __repr__(self) -> str:
        return self.name


def noise(*shape: int) -> torch.Tensor:
    """Inputs that are the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def image(name: str, function: Callable[..., Any], width: int = 8, into: int | None = None, prunable: bool = True,
          size: tuple[int, ...] = (6, 6), **modules: Callable[[], Any]) -> Sample:
    """``b(function(net, a(x)))`` with convolutions ``a`` [3 -> width] and ``b`` [into -> 5], of the rank of ``size``;
    further modules are given as factories."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]

    def build() -> Net:
        return Net(lambda net, x: net.b(function(net, net.a(x))), a=conv(3, width, 3, padding=1),
                   **{key: make() for key, make in modules.items()}, b=conv(into or width, 5, 1))

    return Sample(name, build, (noise(2, 3, *size),), prunable)


def pair(name: str, function: Callable[..., Any], width: int = 8, into: int | None = None, prunable: bool = True,
         size: tuple[int, ...] = (6, 6), **modules: Callable[[], Any]) -> Sample:
    """As `image`, with a second branch: ``b(function(net, a(x), c(x)))``."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]

    def build() -> Net:
        return Net(lambda net, x: net.b(function(net, net.a(x), net.c(x))), a=conv(3, width, 3, padding=1),
                   c=conv(3, width, 1), **{key: make() for key, make in modules.items()}, b=conv(into or width, 5, 1))

    return Sample(name, build, (noise(2, 3, *size),), prunable)


def tokens(name: str, function: Callable[..., Any], width: int = 12, into: int | None = None, prunable: bool = True,
           length: int = 4, **modules: Callable[[], Any]) -> Sample:
    """``b(function(net, a(x)))`` with linear layers over ``[2, length, 6]``."""

    def build() -> Net:
        return Net(lambda net, x: net.b(function(net, net.a(x))), a=nn.Linear(6, width),
                   **{key: make() for key, make in modules.items()}, b=nn.Linear(into or width, 5))

    return Sample(name, build, (noise(2, length, 6),), prunable)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    """A factory of random parameters."""
    return lambda: nn.Parameter(torch.randn(*shape))


def buffer(values: Any, dtype: torch.dtype | None = None) -> Callable[[], torch.Tensor]:
    """A factory of buffers."""
    return lambda: torch.as_tensor(values, dtype=dtype).clone()
