"""Magnitude pruning, iterated (Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NIPS
2015): mask |w| < q · std(layer), train the survivors, and again. The masks are those of ``torch.nn.utils.prune``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from fxprune.training.arguments import number

# torch leaves these without annotations.
custom_from_mask: Callable[..., Any] = prune.custom_from_mask
remove: Callable[..., Any] = prune.remove
# What a layer multiplies by.
WEIGHT = "weight"


def mask_small_weights(model: nn.Module, quality: float = 1.0, *, least_dim: int = 2) -> dict[str, float]:
    """Mask the weights of every layer that are below ``quality`` standard deviations of those that are left.

    In place, through ``torch.nn.utils.prune``: gradients of masked weights are zero, and calling it again masks more.
    `settle_masks` makes the zeros the weights themselves; the model must be settled before it is analysed.

    Args:
        model: its layers' ``weight`` parameters of at least ``least_dim`` dimensions are masked.
        quality: q ≥ 0.
        least_dim: norms' scales and biases have one dimension, and stay.

    Returns:
        Layer -> the fraction of its weights that is masked now.

    Raises:
        InputError: a quality that makes no sense.

    >>> layer = nn.Sequential(nn.Linear(4, 1, bias=False))
    >>> with torch.no_grad():
    ...     _ = layer[0].weight.copy_(torch.tensor([[3.0, -0.1, 0.2, -3.0]]))
    >>> mask_small_weights(layer)
    {'0': 0.5}
    >>> settle_masks(layer)
    >>> layer[0].weight
    Parameter containing:
    tensor([[ 3., -0.,  0., -3.]], requires_grad=True)
    """
    quality = number("quality", quality, "quality=1.0")
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, WEIGHT, None)
        if not isinstance(weight, torch.Tensor) or weight.dim() < least_dim or not weight.is_floating_point():
            continue
        if WEIGHT not in dict(module.named_parameters(recurse=False)) and not prune.is_pruned(module):
            continue
        values = weight.detach()
        left = values[values != 0]
        threshold = quality * float(left.std()) if left.numel() > 1 else 0.0
        custom_from_mask(module, WEIGHT, values.abs() >= threshold)
        found[name] = 1 - float(getattr(module, f"{WEIGHT}_mask").mean())
    return found


def settle_masks(model: nn.Module) -> None:
    """Make the masks permanent: plain parameters again, with zeros where they were masked."""
    for module in model.modules():
        if hasattr(module, f"{WEIGHT}_mask"):
            remove(module, WEIGHT)
