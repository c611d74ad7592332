"""What literals share: sizes of outputs, and indices written anew.

A `register_rule(literals=...)` gets the call's site, target and arguments, and returns target and arguments anew.
"""

from typing import Any

import numpy as np
import torch

from fxprune.rules.operands import argument

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def sizes(site: Any, given: Any, lengths: tuple[int, ...]) -> Any:
    """The given sizes, in the container that they came in, where the dimensions have these lengths now."""
    new = [site.size(size, length) for size, length in zip(given, lengths, strict=True)]
    return new if isinstance(given, list) else tuple(new)


def listed_sizes(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The sizes of the output in a list or tuple: ``torch.reshape(x, shape)``, ``torch.randint(9, (2, 8))``."""
    lengths = site.outs()[0]
    for name in ("size", "shape"):
        if name in kwargs:
            return target, args, {**kwargs, name: sizes(site, kwargs[name], lengths)}
    at = next((k for k, arg in enumerate(args) if isinstance(arg, (tuple, list))), None)
    if at is None:
        return target, args, kwargs
    return target, (*args[:at], sizes(site, args[at], lengths), *args[at + 1:]), kwargs


def output_sizes(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The same, or the sizes one by one: ``x.view(2, 8, -1)``, ``torch.zeros(2, 8)``. ``x.view(dtype)`` has none."""
    first = int(bool(args) and site.ref(args[0]) is not None)
    given, lengths = args[first:], site.outs()[0]
    if len(given) != len(lengths) or any(isinstance(size, (tuple, list, torch.dtype)) for size in given):
        return listed_sizes(site, target, args, kwargs)
    return target, (*args[:first], *sizes(site, given, lengths)), kwargs


def number_before(kept: np.ndarray, index: int) -> int:
    """How many indices are kept before this one: its number among the kept."""
    return int(kept[:index % len(kept)].sum())


def renumbered(site: Any, item: Any, kept: np.ndarray) -> Any:
    """The contents of an index: those that name a kept index, by its new number."""
    value = site.value(item)
    if value is None:
        raise site.refuse("indexes a shrunken dimension with contents that are not known")
    indices = np.asarray(value)
    if indices.dtype == bool:
        new = indices[kept]
    else:
        indices = indices % len(kept)
        new = (np.cumsum(kept) - 1)[indices[kept[indices]] if indices.ndim == 1 else indices]
    if isinstance(item, (list, tuple)):
        return new.tolist()
    return site.constant(torch.from_numpy(np.ascontiguousarray(new)), item)


def along(site: Any, args: Any, kwargs: Any, at: int = 1, default: Any = None) -> tuple[int, np.ndarray]:
    """The dimension that a call names, and which of its indices are kept."""
    dim = site.value(argument(args, kwargs, at, "dim", default))
    return dim, site.masks(args[0])[dim]
