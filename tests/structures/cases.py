"""One case per structure: a small net, its inputs, and which groups must be prunable in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from reference import Patch
from torch import nn

from fxprune.ir.policy import Policy


class Net(nn.Module):
    """Named parts (modules, parameters, buffers), and a forward that is a function of the net and its inputs."""

    def __init__(self, run: Callable[..., Any], **parts: Any):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Any, *more: Any) -> Any:
        return self.run(self, x, *more)


@dataclass(frozen=True)
class Case:
    """A structure.

    Args:
        build: makes the net.
        prunable: names of all groups that may lose channels, in the order of the report.
        inputs: arguments for a batch size.
        patch: what else computes over channels, for the reference.
        skip: dimensions that the reference must not set to zero.
        modes: in which it is compared (a random dropout can only be compared in eval).
        renumbered: index buffers whose contents change.
    """

    build: Callable[[], nn.Module]
    prunable: tuple[str, ...]
    inputs: Callable[[int], Any]
    patch: Patch | None = None
    skip: dict[str, tuple[int, ...]] = field(default_factory=dict)
    modes: tuple[str, ...] = ("eval", "train")
    batches: tuple[int, ...] = (2, 3)
    renumbered: tuple[str, ...] = ()
    policy: Policy = Policy()


CASES: dict[str, Case] = {}


def case(prunable: str, inputs: Callable[[int], Any] | None = None, **options: Any) -> Callable[..., Any]:
    """Register a structure under its function's name."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        assert build.__name__ not in CASES, build.__name__
        CASES[build.__name__] = Case(build, tuple(prunable.split()), inputs or image(), **options)
        return build

    return register


def image(channels: int = 3, size: int = 6, rank: int = 2) -> Callable[[int], Any]:
    return lambda batch: (torch.randn(batch, channels, *[size] * rank),)


def tokens(width: int = 10, length: int = 5) -> Callable[[int], Any]:
    return lambda batch: (torch.randn(batch, length, width),)


def conv(a: int, b: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, k, padding=k // 2, **options)


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))
