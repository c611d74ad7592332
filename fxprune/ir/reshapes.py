"""The algebra of reshapes: which dimensions of two shapes correspond, and how dim vectors split and merge.

A reshape never moves an element in memory order. Two shapes of one product therefore share cut points: the suffix
products of their dimensions. Between two common cut points lies a *group*, a run of source dimensions that becomes a
run of target dimensions. Within a group all cut points of either side, if each divides the next, cut the memory into
*atoms*; every source dimension is a product of consecutive atoms, and so is every target dimension. A reshape is then
a split of each source dimension into atoms, and a merge of atoms into each target dimension:

    (8, 6) -> (4, 12)    cut points 6, 48 and 12, 48    atoms 4, 2, 6    8 = 4·2, 6 = 6    4 = 4, 12 = 2·6

Where a cut point does not divide the next ((2, 3) -> (3, 2)) dimensions are cut across, and the group has no atoms. It
is then taken apart at the points where both sides can be cut (`stages`), so that what is cut across is as little as can
be: (6, 24) -> (2, 8, 3, 3) by way of (2, 3, 8, 3), of which the first dimension is untouched.
Dimensions of length 1 belong to no group.

A cut that removes channels stays a reshape only if it is rectangular: indices are removed along atoms. A dim vector
over atoms ``(n_1, …, n_k)`` is rectangular if it varies along one axis only; else one axis is chosen to carry the
channels, and the vector is tied across the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm, prod

import numpy as np

from fxprune.ir.units import Vector


@dataclass(frozen=True)
class Group:
    """Source dimensions that become target dimensions, and the atoms that both are made of.

    Args:
        src: source dimensions, none of length 1.
        dst: target dimensions, none of length 1.
        sizes: the atoms' lengths, or None where the dimensions have no common refinement.
        src_atoms: for every source dimension the range of its atoms.
        dst_atoms: for every target dimension the range of its atoms.
    """

    src: tuple[int, ...]
    dst: tuple[int, ...]
    sizes: tuple[int, ...] | None
    src_atoms: tuple[range, ...] = ()
    dst_atoms: tuple[range, ...] = ()


def suffix_products(shape: Sequence[int]) -> list[int]:
    """Entry d is the product of ``shape[d:]``; the last entry is 1.

    >>> suffix_products((2, 3, 4))
    [24, 12, 4, 1]
    """
    products = [1]
    for n in reversed(shape):
        products.append(products[-1] * n)
    return products[::-1]


def groups(src: Sequence[int], dst: Sequence[int]) -> list[Group]:
    """The minimal groups of a reshape, from the left.

    >>> [(g.src, g.dst, g.sizes) for g in groups((2, 8, 6), (2, 1, 4, 12))]
    [((0,), (0,), (2,)), ((1, 2), (2, 3), (4, 2, 6))]
    >>> groups((2, 3), (3, 2))[0].sizes is None
    True

    Raises:
        ValueError: the shapes hold different numbers of elements, or none.
    """
    if prod(src) != prod(dst) or prod(src) == 0:
        raise ValueError(f"a reshape keeps the number of elements, got {tuple(src)} -> {tuple(dst)}")
    cuts_src, cuts_dst = suffix_products(src), suffix_products(dst)
    common = sorted(set(cuts_src) & set(cuts_dst), reverse=True)
    return [_group(src, dst, cuts_src, cuts_dst, high, low) for high, low in zip(common, common[1:], strict=False)]


def _group(src: Sequence[int], dst: Sequence[int], cuts_src: list[int], cuts_dst: list[int],
           high: int, low: int) -> Group:
    inside = [_inside(shape, cuts, high, low) for shape, cuts in ((src, cuts_src), (dst, cuts_dst))]
    points = sorted({cuts[d] for cuts, dims in zip((cuts_src, cuts_dst), inside, strict=True) for d in dims} | {low},
                    reverse=True)
    if any(a % b for a, b in zip(points, points[1:], strict=False)):
        return Group(inside[0], inside[1], None)
    sizes = tuple(a // b for a, b in zip(points, points[1:], strict=False))
    place = {point: k for k, point in enumerate(points)}
    parts = [tuple(range(place[cuts[d]], place[cuts[d] // shape[d]]) for d in dims)
             for shape, cuts, dims in ((src, cuts_src, inside[0]), (dst, cuts_dst, inside[1]))]
    return Group(inside[0], inside[1], sizes, *parts)


def _inside(shape: Sequence[int], cuts: list[int], high: int, low: int) -> tuple[int, ...]:
    return tuple(d for d, n in enumerate(shape) if n != 1 and low < cuts[d] <= high)


def stages(src: Sequence[int], dst: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes by way of which a reshape is made, so that no more than must be is cut across; ``dst`` is the last.

    >>> stages((6, 24), (2, 8, 3, 3)), stages((4, 3), (6, 2)), stages((4, 6), (2, 12))
    ([(2, 3, 8, 3), (2, 8, 3, 3)], [(2, 2, 3), (2, 3, 2), (6, 2)], [(2, 12)])
    """
    cuts = suffix_products(src), suffix_products(dst)
    ragged = [(cuts[0][g.src[0]], cuts[0][g.src[-1] + 1]) for g in groups(src, dst) if g.sizes is None]
    points = [1]
    for point in sorted({f(a, b) for a in cuts[0] for b in cuts[1] for f in (lcm, gcd)}):
        inside = any(low < point < high for high, low in ragged)
        if inside and point % points[-1] == 0 and all(_divides(point, side) for side in cuts):
            points.append(point)
    by_way_of = [_refined(src, cuts[0], points[::-1]), _refined(dst, cuts[1], points[::-1])]
    return [shape for shape in by_way_of if shape not in (tuple(src), tuple(dst))] + [tuple(dst)]


def _divides(point: int, cuts: list[int]) -> bool:
    """Whether the dimension that lies across a point can be split there."""
    above, below = min(cut for cut in cuts if cut >= point), max(cut for cut in cuts if cut <= point)
    return above % point == point % below == 0


def _refined(shape: Sequence[int], cuts: list[int], points: list[int]) -> tuple[int, ...]:
    """The shape with its dimensions split at these points, which descend."""
    new: list[int] = []
    for high, low in zip(cuts, cuts[1:], strict=False):
        at = [high, *(point for point in points if low < point < high), low]
        new += [a // b for a, b in zip(at, at[1:], strict=False)]
    return tuple(new)


def ones(src: Sequence[int], dst: Sequence[int]) -> dict[int, int | None]:
    """For each source dimension of length 1 the target dimension that it becomes, None where it is dropped or where
    which one it becomes cannot be told.

    >>> ones((5, 1, 4, 4), (5, 1, 16)), ones((5, 1), (5,))
    ({1: 1}, {1: None})
    """
    at: dict[int, tuple[list[int], list[int]]] = {}
    for side, shape in enumerate((src, dst)):
        for d, (n, cut) in enumerate(zip(shape, suffix_products(shape), strict=False)):
            if n == 1:
                at.setdefault(cut, ([], []))[side].append(d)
    pairs: dict[int, int | None] = {}
    for from_src, from_dst in at.values():
        same = len(from_src) == len(from_dst)
        pairs.update(zip(from_src, from_dst if same else [None] * len(from_src), strict=True))
    return pairs


def varying(vector: Vector, sizes: Sequence[int]) -> list[int]:
    """The atoms along which a vector over ``sizes`` is not constant.

    >>> varying(np.array([7, 8, 7, 8]), (2, 2))
    [1]
    """
    block = vector.reshape(sizes)
    return [k for k in range(len(sizes)) if (block != block.take([0], k)).any()]


def viable(vector: Vector, sizes: Sequence[int], axis: int) -> bool:
    """Whether any slice along the axis is free of fixed indices, so that it could be removed."""
    block = np.moveaxis(vector.reshape(sizes), axis, 0).reshape(sizes[axis], -1)
    return bool((block >= 0).all(axis=1).any())


def along(vector: Vector, sizes: Sequence[int], axis: int) -> Vector:
    """The vector's entries along one atom, at index 0 of the others; fixed wherever any of the others is."""
    block = np.moveaxis(vector.reshape(sizes), axis, 0).reshape(sizes[axis], -1)
    return np.where((block < 0).any(axis=1), block.min(axis=1), block[:, 0])


def spread(vector: Vector, sizes: Sequence[int], axis: int) -> Vector:
    """A vector along one atom, as a vector over all of them.

    >>> spread(np.array([7, 8]), (2, 3), 0).tolist()
    [7, 7, 7, 8, 8, 8]
    """
    shape = [1] * len(sizes)
    shape[axis] = -1
    return np.broadcast_to(vector.reshape(shape), tuple(sizes)).reshape(-1)
