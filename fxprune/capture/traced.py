"""What tracing gives: a graph and what was seen while it was made."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph

from fxprune.capture.sizes import Guard


class AutogradFunction(nn.Module):
    """A user's ``torch.autograd.Function`` as a module of the graph, so that its own backward stays."""

    def __init__(self, function: type[torch.autograd.Function]):
        super().__init__()
        self.function = self.key = function

    def forward(self, *args: Any) -> Any:
        return self.function.apply(*args)


@dataclass
class Traced:
    """One graph and what was seen while it was made; ``added`` are modules that it has and the model has not, each with
    a ``key`` that tells it from others."""

    graph: Graph
    tape: Any
    guards: tuple[Guard, ...]
    constants: dict[str, torch.Tensor]
    added: dict[str, nn.Module]
    tensors: dict[int, torch.Tensor]
    asked_training: bool
    output: Any = None
