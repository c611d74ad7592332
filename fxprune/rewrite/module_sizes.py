"""What leaf modules remember of their sizes, set anew from what is kept around them. One table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.layer_classes import BATCH_NORM, CONVOLUTION, INSTANCE_NORM
from fxprune.ir.masks import remaining_groups


@dataclass(frozen=True)
class Surroundings:
    """A module of the original, its copy with sliced parameters, and masks of the kept indices of the first input and
    of the output, by dimension."""

    module: Any
    sliced: Any
    into: list[np.ndarray]
    out: list[np.ndarray]

    def length(self, masks: list[np.ndarray], dim: int) -> int:
        return int(np.count_nonzero(masks[dim]))


Remember = Callable[[Surroundings], dict[str, Any]]


def _convolution(s: Surroundings) -> dict[str, Any]:
    channel = -(len(s.module.kernel_size) + 1)
    return {"in_channels": s.length(s.into, channel), "out_channels": s.length(s.out, channel),
            "groups": remaining_groups(s.into[channel], s.module.groups)}


def _features(s: Surroundings) -> dict[str, Any]:
    return {"num_features": s.length(s.into, 1 if len(s.into) > 1 else 0)}


def _instance(s: Surroundings) -> dict[str, Any]:
    channel = {nn.InstanceNorm1d: -2, nn.InstanceNorm2d: -3, nn.InstanceNorm3d: -4}.get(type(s.module), 1)
    return {"num_features": s.length(s.into, channel)}


def _groups(s: Surroundings) -> dict[str, Any]:
    return {"num_channels": s.length(s.into, 1), "num_groups": remaining_groups(s.into[1], s.module.num_groups)}


def _normalized(s: Surroundings) -> dict[str, Any]:
    rank = len(s.module.normalized_shape)
    return {"normalized_shape": tuple(int(mask.sum()) for mask in s.into[-rank:])}


def _linear(s: Surroundings) -> dict[str, Any]:
    return {"in_features": s.length(s.into, -1), "out_features": s.length(s.out, -1)}


def _bilinear(s: Surroundings) -> dict[str, Any]:
    out, one, two = s.sliced.weight.shape
    return {"out_features": out, "in1_features": one, "in2_features": two}


def _embedding(s: Surroundings) -> dict[str, Any]:
    return {"embedding_dim": s.length(s.out, -1)}


def _prelu(s: Surroundings) -> dict[str, Any]:
    return {"num_parameters": s.sliced.weight.shape[0]}


def _unflatten(s: Surroundings) -> dict[str, Any]:
    dim = s.module.dim % len(s.into)
    sizes = s.module.unflattened_size
    new = [int(s.out[dim + k].sum()) if n != -1 else -1 for k, n in enumerate(sizes)]
    return {"unflattened_size": tuple(new)}


def _recurrent(s: Surroundings) -> dict[str, Any]:
    hidden = s.sliced.weight_hh_l0
    sizes = {"input_size": s.sliced.weight_ih_l0.shape[1]}
    if not getattr(s.module, "proj_size", 0):
        return {**sizes, "hidden_size": hidden.shape[1]}
    return {**sizes, "hidden_size": s.sliced.weight_hr_l0.shape[1], "proj_size": s.sliced.weight_hr_l0.shape[0]}


def _cell(s: Surroundings) -> dict[str, Any]:
    return {"input_size": s.sliced.weight_ih.shape[1], "hidden_size": s.sliced.weight_hh.shape[1]}


REMEMBERED: dict[type[nn.Module], Remember] = {
    CONVOLUTION: _convolution,
    BATCH_NORM: _features,
    INSTANCE_NORM: _instance,
    nn.GroupNorm: _groups,
    nn.LayerNorm: _normalized,
    nn.RMSNorm: _normalized,
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: _prelu,
    nn.Unflatten: _unflatten,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _cell,
}


def _entry(module: nn.Module) -> Remember | None:
    """The first class of the ancestry that the table knows decides."""
    return next((REMEMBERED[kind] for kind in type(module).__mro__ if kind in REMEMBERED), None)


def remembers(module: nn.Module) -> bool:
    """Whether modules of this kind remember sizes at all."""
    return _entry(module) is not None


def remembered(module: nn.Module, sliced: nn.Module, into: list[np.ndarray], out: list[np.ndarray]) -> dict[str, Any]:
    """The attributes of ``sliced`` that must change."""
    entry = _entry(module)
    if entry is None or not into:
        return {}
    values = entry(Surroundings(module, sliced, into, out))
    return {name: value for name, value in values.items() if getattr(sliced, name) != value}


def _by_weight(*names: str) -> Callable[[Any], dict[str, Any]]:
    return lambda layer: dict(zip(names, layer.weight.shape, strict=False))


# Of layers that no call of a graph shows: others read their weight, or nobody reads what they give.
BY_WEIGHT: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.Linear: _by_weight("out_features", "in_features"), nn.Embedding: _by_weight("num_embeddings", "embedding_dim"),
    BATCH_NORM: _by_weight("num_features"), nn.LayerNorm: lambda layer: {"normalized_shape": tuple(layer.weight.shape)},
    nn.RMSNorm: lambda layer: {"normalized_shape": tuple(layer.weight.shape)},
    CONVOLUTION: lambda layer: _by_weight("out_channels", "in_channels")(layer)
    if layer.groups == 1 and not layer.transposed else {},
}


def _told_by_weight(layer: nn.Module) -> dict[str, Any]:
    told = next((BY_WEIGHT[kind] for kind in type(layer).__mro__ if kind in BY_WEIGHT), None)
    return told(layer) if told is not None and isinstance(layer.weight, torch.Tensor) else {}


def sized_by_weight(layer: nn.Module) -> bool:
    """Whether a layer's weight says all that it remembers of its sizes.

    >>> sized_by_weight(nn.Linear(4, 2)), sized_by_weight(nn.GroupNorm(2, 4))
    (True, False)
    """
    return not remembers(layer) or bool(_told_by_weight(layer))


def remembered_uncalled(sliced: nn.Module) -> dict[str, Any]:
    """What the weight of a layer says that nothing calls.

    >>> layer = nn.Linear(4, 2)
    >>> layer.weight = nn.Parameter(layer.weight[:, :3])
    >>> remembered_uncalled(layer)
    {'in_features': 3}
    """
    return {name: length for name, length in _told_by_weight(sliced).items() if getattr(sliced, name) != length}
