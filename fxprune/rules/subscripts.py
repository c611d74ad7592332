"""Python's subscripts: one call in a graph that is several operators on the tape (slice, select, index, index_put).

Bounds and indices are renumbered by what is kept before them.
"""

import operator
from typing import Any

import numpy as np
import torch

from fxprune.rules.literals import Call, number_before, renumbered
from fxprune.rules.registry import register_literals


@register_literals(operator.getitem, operator.setitem)
def subscript(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``y[:, :8]``, ``y[..., i] = z``."""
    x, index, *rest = args
    masks = site.masks(x)
    if not masks or all(mask.all() for mask in masks):
        return target, args, kwargs
    items = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(consumes(site, item) for item in items)
    new, dim = [], 0
    for item in items:
        if item is Ellipsis:
            new.append(item)
            dim = len(masks) - (consumed - dim)
            continue
        width = consumes(site, item)
        new.append(_item(site, item, masks[dim]) if width == 1 and not masks[dim].all() else item)
        dim += width
    return target, (x, tuple(new) if isinstance(index, tuple) else new[0], *rest), kwargs


def consumes(site: Any, item: Any) -> int:
    """How many dimensions an index item takes up."""
    if item is None or item is Ellipsis:
        return 0
    value = site.value(item)
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return value.ndim
    return 1


def _item(site: Any, item: Any, kept: np.ndarray) -> Any:
    if isinstance(item, slice):
        return sliced(site, item, kept)
    value = site.value(item)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return number_before(kept, int(value))
    return renumbered(site, item, kept)


def sliced(site: Any, item: slice, kept: np.ndarray) -> Any:
    """A slice among the kept: a slice again, or an index where what it takes lies apart."""
    bounds = slice(*map(site.value, (item.start, item.stop, item.step)))
    taken = np.arange(len(kept))[bounds]
    taken = taken[kept[taken]]
    new = np.cumsum(kept)[taken] - 1
    if not len(new):
        return slice(0, 0)
    if (np.diff(new) == 1).all():
        start, stop = int(new[0]), int(new[-1]) + 1
        return slice(start or None, stop if stop < kept.sum() or bounds.stop is not None else None)
    return site.constant(torch.from_numpy(new), None)
