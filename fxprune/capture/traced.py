"""What tracing gives: a graph and what was seen while it was made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.fx import Graph

from fxprune.capture.sizes import Dim, Guard


class AutogradFunction(nn.Module):
    """A user's ``torch.autograd.Function`` as a module of the graph, so that its own backward stays."""

    def __init__(self, function: type[torch.autograd.Function]):
        super().__init__()
        self.function = self.key = function

    def forward(self, *args: Any) -> Any:
        return self.function.apply(*args)


@dataclass(frozen=True)
class Fixed:
    """A dimension of an input that the graph takes at one length only.

    Args:
        argument: what the user calls the tensor.
        tensor: its number on the tape.
        why: what would not be right at another length.
    """

    argument: str
    tensor: int
    dim: int
    length: int
    why: str


@dataclass
class Traced:
    """One graph and what was seen while it was made.

    Args:
        added: modules that it has and the model has not, each with a ``key`` that tells it from others.
        tensors: those whose shape was asked for, by their number on the tape.
        asked_training: whether the graph may be another one in the other mode.
        read: the expressions of sizes whose bare number other code was seen to read.
        sizes_asked: whether the model's Python asked for any size that the inputs may decide on.
        unsteady: whether the contents of the inputs decide on the shape of any tensor.
        fixed: the inputs' dimensions that must be as long as they were.
        following: the dimensions of tensors that were longer or shorter where the inputs were.
        skipped: the nodes of layers that numbers which are drawn choose or skip, and the nodes that do so (`choosing`).
        unseen: constants that are none, since they were computed out of sight, and where they are used.
    """

    graph: Graph
    tape: Any
    guards: tuple[Guard, ...]
    constants: dict[str, torch.Tensor]
    added: dict[str, nn.Module]
    tensors: dict[int, torch.Tensor]
    asked_training: bool
    output: Any = None
    read: tuple[Any, ...] = ()
    sizes_asked: bool = False
    unsteady: bool = False
    fixed: tuple[Fixed, ...] = ()
    following: frozenset[Dim] = frozenset()
    skipped: frozenset[str] = frozenset()
    choosing: frozenset[str] = frozenset()
    unseen: Mapping[str, str] = field(default_factory=dict)
