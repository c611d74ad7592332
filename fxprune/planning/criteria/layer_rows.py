"""Criteria that give a row for every layer that reads the channels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fxprune.ir.groups import CouplingGroup

if TYPE_CHECKING:
    from fxprune.planning.statistics import Layer, Statistics

Tensors = Mapping[str, torch.Tensor]


class LayerRows:
    """A subclass says what statistics it `needs`, and gives one layer's row."""

    needs: ClassVar[frozenset[str]]

    def __call__(self, group: CouplingGroup, tensors: Tensors, statistics: "Statistics") -> np.ndarray:
        layers = statistics.layers(group)
        return np.stack([self.row(layer, group.size) for layer in layers]) if layers else np.zeros((0, group.size))

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        raise NotImplementedError
