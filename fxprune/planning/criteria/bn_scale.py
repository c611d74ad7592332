"""The scale of the normalisation behind a channel (Liu et al., "Network Slimming", 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fxprune.ir.groups import CouplingGroup, is_scale
from fxprune.planning.criteria.norms import L2
from fxprune.planning.criteria.slices import per_channel


@dataclass(frozen=True)
class BNScale:
    """The absolute scale of every normalisation that the group's channels pass: float64 [scales, size].

    The scales vote in the place of the weights: in a residual stage, with ``vote="intersection"``, a channel goes only
    if every batch norm on the way gives it up. A scale is a 1-D ``weight`` that is applied channel by channel, with a
    ``bias`` or a ``running_var`` beside it (which tells it from PReLU's slopes). A group without any falls back to the
    l2 norm of its producers; scores are compared across groups after division by their group's mean, so that the two
    may stand side by side.
    """

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        scales = [m for m in group.members if is_scale(m, tensors[m.name].dim(), tensors)]
        if not scales:
            return L2()(group, tensors)
        return np.stack([per_channel(m, tensors[m.name], 1, group.size) for m in scales])
