"""Guesses of what a model takes, where no example inputs are given."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example


def candidates(model: nn.Module) -> Iterator[tuple[Example, str]]:
    """Inputs that the model may take, best guess first, each with the words of how it was inferred.

    Raises:
        InputError: ``forward`` needs more than one argument.
    """
    needed = [p for p in inspect.signature(model.forward).parameters.values()
              if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) > 1:
        raise InputError(f"example_inputs can only be inferred for one argument, and forward needs {len(needed)} "
                         f"({', '.join(p.name for p in needed)}); pass example_inputs=(…, …)")
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype} if weight is not None else {}
    for shape, words in _shapes(model):
        if shape[0] is int:
            yield ((torch.zeros(shape[1:], dtype=torch.long, device=kind.get("device")),), {}), words
        else:
            yield ((torch.zeros(shape, **kind),), {}), words


def _shapes(model: nn.Module) -> Iterator[tuple[tuple[Any, ...], str]]:
    for attribute in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, attribute, None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if size:
            yield (1, *size), f"{attribute}['input_size'] = {tuple(size)}"
    size = getattr(model, "image_size", None)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))), 3)
    if isinstance(size, int):
        yield (1, channels, size, size), f"image_size = {size}"
    for module in model.modules():
        shapes = _FIRST.get(type(module)) or next((f for k, f in _FIRST.items() if isinstance(module, k)), None)
        if shapes:
            for shape in shapes(module):
                yield shape, f"first layer {type(module).__name__}"
            return


def _images(conv: nn.Conv2d) -> list[tuple[Any, ...]]:
    return [(1, conv.in_channels * 1, size, size) for size in (224, 32, 28, 64, 256, 299, 384, 512, 16, 8)]


_FIRST: dict[type, Callable[[Any], list[tuple[Any, ...]]]] = {
    nn.Conv2d: _images,
    nn.Conv1d: lambda m: [(1, m.in_channels, n) for n in (1024, 128, 16000, 32)],
    nn.Conv3d: lambda m: [(1, m.in_channels, t, n, n) for t, n in ((16, 112), (16, 224), (32, 32), (64, 64), (8, 16))],
    nn.ConvTranspose2d: lambda m: [(1, m.in_channels, n, n) for n in (1, 4, 8, 16)],
    nn.ConvTranspose1d: lambda m: [(1, m.in_channels, n) for n in (1, 16)],
    nn.Linear: lambda m: [(1, m.in_features), (1, 16, m.in_features)],
    nn.Embedding: lambda m: [(int, 1, 16), (int, 16)],
    nn.RNNBase: lambda m: [(1, 16, m.input_size)],
    nn.BatchNorm1d: lambda m: [(1, m.num_features), (1, m.num_features, 128)],
    nn.BatchNorm2d: lambda m: [(1, m.num_features, n, n) for n in (224, 32)],
    nn.LayerNorm: lambda m: [(1, *m.normalized_shape), (1, 16, *m.normalized_shape)],
}
