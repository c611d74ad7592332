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
    """A slice among the kept, with the bounds that it has: a slice again, or an index where what it takes lies apart.
    """
    bounds = slice(*map(site.value, (item.start, item.stop, item.step)))
    before = np.concatenate(([0], np.cumsum(kept)))
    start, stop, step = bounds.indices(len(kept))
    left = int(before[-1])
    end = _bound(bounds.stop, int(before[max(start, stop)]), left)
    if step == 1:
        return slice(_bound(bounds.start, int(before[start]), left), end, bounds.step)
    taken = np.arange(len(kept))[bounds]
    new = before[taken[kept[taken]]]
    first = int(new[0]) if len(new) else left
    with_step = slice(None if bounds.start is None and not first else first, end, step)
    for short in (with_step, slice(first, int(new[-1]) + 1 if len(new) else first)):
        if np.array_equal(np.arange(left)[short], new):
            return short
    return site.constant(torch.from_numpy(new), None)


def _bound(given: int | None, number: int, left: int) -> int | None:
    """A bound among the kept: counted from the end, or left out, where the given one is."""
    return None if given is None else number - left if given < 0 and number < left else number
