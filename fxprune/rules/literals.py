"""Calls that hold sizes, and how they are written where a dimension has shrunk.

Each entry gets the call's `Site`, target and arguments, and returns the new ones. Whatever an entry does not touch
keeps its original number, even where it was computed from a size that shrank (``q.shape[-1] ** -0.5``).
"""

import math
from typing import Any

import numpy as np
import torch

from fxprune.ir.masks import remaining_groups
from fxprune.rules.registry import register_literals

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, *names: str, default: Any = None) -> Any:
    if len(args) > position:
        return args[position]
    return next((kwargs[name] for name in names if name in kwargs), default)


def _with(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, value: Any,
          *aliases: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with one replaced, where it stands."""
    if len(args) > position:
        return (*args[:position], value, *args[position + 1:]), kwargs
    name = next((alias for alias in (name, *aliases) if alias in kwargs), name)
    return args, {**kwargs, name: value}


def _sizes(site: Any, sizes: Any, lengths: tuple[int, ...]) -> Any:
    new = [site.size(size, length) for size, length in zip(sizes, lengths, strict=True)]
    return new if isinstance(sizes, list) else tuple(new)


@register_literals("view", "reshape", "expand", "broadcast_to", "new_zeros", "new_ones", "new_empty", "view_copy",
                   "expand_copy", "unsafe_view", "reshape_alias")
def output_sizes(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``x.view(2, 8, -1)``, ``x.view((2, 8))``, ``torch.reshape(x, shape)``: the sizes are those of the output."""
    return _output_sizes(site, target, args, kwargs, 1)


@register_literals("zeros", "ones", "empty", "rand", "randn", "full", "new_full")
def made_sizes(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    return _output_sizes(site, target, args, kwargs, 1 if target == "new_full" else 0)


def _output_sizes(site: Any, target: Any, args: Any, kwargs: Any, first: int) -> Call:
    lengths = site.outs()[0]
    for name in ("size", "shape"):
        if name in kwargs:
            return target, args, {**kwargs, name: _sizes(site, kwargs[name], lengths)}
    rest = args[first:]
    if rest and isinstance(rest[0], (tuple, list)):
        return target, (*args[:first], _sizes(site, rest[0], lengths), *rest[1:]), kwargs
    if not rest or isinstance(rest[0], torch.dtype) or len(rest) != len(lengths):
        return target, args, kwargs
    return target, (*args[:first], *_sizes(site, tuple(rest), lengths)), kwargs


@register_literals("repeat", "tile")
def repeat(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """A repeated single index makes as many copies as are kept; other repeats count whole copies of what is left."""
    name = "repeats" if isinstance(target, str) else "dims"
    given = _argument(args, kwargs, 1, name)
    flat = not isinstance(given, (tuple, list))
    counts = list(args[1:]) if flat else list(given)
    into, out = site.lengths(args[0]), site.outs()[0]
    into = (1,) * (len(out) - len(into)) + into
    counts = [1] * (len(out) - len(counts)) + counts
    new = [site.size(count, length // n) for count, length, n in zip(counts, out, into, strict=True)]
    return target, (args[0], *new) if flat else (args[0], tuple(new)), {}


@register_literals("unflatten")
def unflatten(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    dim = _argument(args, kwargs, 1, "dim") % len(site.shape(args[0]))
    sizes = _argument(args, kwargs, 2, "sizes")
    new = _sizes(site, sizes, site.outs()[0][dim:dim + len(sizes)])
    return target, *_with(args, kwargs, 2, "sizes", new)


@register_literals("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk",
                   "unsafe_split_with_sizes", "hsplit", "vsplit")
def split(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Whatever the pieces were asked for, they are now pieces of given lengths; where the dimension did not shrink, as
    a batch cut in halves, they may be of any length that was asked for."""
    default = {"hsplit": 1, "vsplit": 0}.get(_name(target), 0)
    dim = _argument(args, kwargs, 2, "dim", default=default)
    x = args[0] if args else kwargs.get("tensor", kwargs.get("input"))
    if not site.shrunk() or site.masks(x)[site.value(dim)].all():
        return target, args, kwargs
    lengths = [shape[site.value(dim)] for shape in site.outs()]
    return ("split" if isinstance(target, str) else torch.split), (x, lengths, dim), {}


@register_literals("narrow")
def narrow(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    dim, start = _argument(args, kwargs, 1, "dim"), site.value(_argument(args, kwargs, 2, "start"))
    kept = site.masks(args[0])[dim]
    if kept.all():
        return target, args, kwargs
    args, kwargs = _with(args, kwargs, 2, "start", int(kept[:start % len(kept)].sum()))
    return target, *_with(args, kwargs, 3, "length", site.outs()[0][dim])


@register_literals("select")
def select(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    kept = site.masks(args[0])[_argument(args, kwargs, 1, "dim")]
    if kept.all():
        return target, args, kwargs
    index = site.value(_argument(args, kwargs, 2, "index")) % len(kept)
    return target, *_with(args, kwargs, 2, "index", int(kept[:index].sum()))


@register_literals("index_select")
def index_select(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    kept = site.masks(args[0])[_argument(args, kwargs, 1, "dim")]
    if kept.all():
        return target, args, kwargs
    return target, *_with(args, kwargs, 2, "index", _renumbered(site, _argument(args, kwargs, 2, "index"), kept))


@register_literals("getitem", "setitem", "__getitem__", "__setitem__")
def getitem(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``y[:, :8]``: bounds and indices are renumbered by what is kept before them."""
    x, index, *rest = args
    masks = site.masks(x)
    if not masks or all(mask.all() for mask in masks):
        return target, args, kwargs
    items = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(_consumes(site, item) for item in items)
    new, dim = [], 0
    for item in items:
        if item is Ellipsis:
            new.append(item)
            dim = len(masks) - (consumed - dim)
            continue
        width = _consumes(site, item)
        new.append(_item(site, item, masks[dim]) if width == 1 and not masks[dim].all() else item)
        dim += width
    return target, (x, tuple(new) if isinstance(index, tuple) else new[0], *rest), kwargs


def _consumes(site: Any, item: Any) -> int:
    """How many dimensions an index item takes up."""
    if item is None or item is Ellipsis:
        return 0
    value = site.value(item)
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return value.ndim
    return 1


def _item(site: Any, item: Any, kept: np.ndarray) -> Any:
    if isinstance(item, slice):
        return _slice(site, item, kept)
    value = site.value(item)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(kept[:value % len(kept)].sum())
    return _renumbered(site, item, kept)


def _slice(site: Any, item: slice, kept: np.ndarray) -> Any:
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


def _renumbered(site: Any, item: Any, kept: np.ndarray) -> Any:
    """Index contents: those that name a kept index, by its new number."""
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


@register_literals("roll")
def roll(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """A roll by s is, among the kept, a roll by as many of them as s carried over the end."""
    dims = _argument(args, kwargs, 2, "dims")
    masks = site.masks(args[0])
    if dims in (None, (), []) or all(mask.all() for mask in masks):
        return target, args, kwargs
    shifts = _argument(args, kwargs, 1, "shifts")
    pairs = list(zip(*((v if isinstance(v, (tuple, list)) else (v,)) for v in (shifts, dims)), strict=True))
    new = [shift if masks[dim].all() else int(masks[dim][len(masks[dim]) - site.value(shift) % len(masks[dim]):].sum())
           if site.value(shift) % len(masks[dim]) else 0 for shift, dim in pairs]
    return target, *_with(args, kwargs, 1, "shifts", tuple(new) if isinstance(shifts, (tuple, list)) else new[0])


@register_literals("pad")
def pad(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Channels that padding adds may go like any others."""
    pads = list(_argument(args, kwargs, 1, "pad"))
    shape = site.shape(args[0])
    out = site.view.masks(site.view.refs(site.node.name)[()])
    into = site.masks(args[0])
    if all(mask.all() for mask in (*out, *into)):
        return target, args, kwargs
    for k in range(len(pads) // 2):
        dim = len(shape) - 1 - k
        if out[dim].all() and into[dim].all():
            continue
        for side in (0, 1):
            amount = site.value(pads[2 * k + side])
            mask, sign = (out[dim], 1) if amount >= 0 else (into[dim], -1)
            edge = mask[:abs(amount)] if side == 0 else mask[len(mask) - abs(amount):]
            pads[2 * k + side] = sign * int(edge.sum())
    return target, *_with(args, kwargs, 1, "pad", tuple(pads))


@register_literals("group_norm")
def group_norm(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    groups = site.value(_argument(args, kwargs, 1, "num_groups"))
    kept = site.masks(args[0])[1]
    if kept.all():
        return target, args, kwargs
    left = site.size(_argument(args, kwargs, 1, "num_groups"), remaining_groups(kept, groups))
    return target, *_with(args, kwargs, 1, "num_groups", left)


@register_literals("layer_norm", "rms_norm", "native_layer_norm")
def layer_norm(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    shape = _argument(args, kwargs, 1, "normalized_shape")
    lengths = site.lengths(args[0])[-len(shape):]
    return target, *_with(args, kwargs, 1, "normalized_shape", _sizes(site, shape, lengths))


@register_literals("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    groups = site.value(_argument(args, kwargs, 6, "groups", default=1))
    x, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    kept = site.masks(x)[-(len(site.shape(weight)) - 1)]
    if groups == 1 or kept.all():
        return target, args, kwargs
    left = site.size(_argument(args, kwargs, 6, "groups"), remaining_groups(kept, groups))
    return target, *_with(args, kwargs, 6, "groups", left)


@register_literals("scaled_dot_product_attention")
def attention(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The default scale follows the head size; it stays that of the original."""
    head = site.shape(args[0] if args else kwargs["query"])[-1]
    if _argument(args, kwargs, 6, "scale") is not None or site.masks(args[0] if args else kwargs["query"])[-1].all():
        return target, args, kwargs
    return target, args, {**kwargs, "scale": 1.0 / math.sqrt(head)}


@register_literals("squeeze")
def squeeze(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Only dimensions of length 1 in the original are squeezed: a channel dimension may have shrunk to 1."""
    shape = site.shape(args[0])
    if 1 not in site.lengths(args[0]) or site.lengths(args[0]) == shape:
        return target, args, kwargs
    dims = _argument(args, kwargs, 1, "dim", default=tuple(range(len(shape))))
    dims = tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    return target, (args[0], tuple(d for d in dims if shape[d] == 1)), {}


def _name(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", "")
