"""Many small slices as few large tensors: norms, gradients and shrinkage of all blocks at once.

Parameters of equal shape are stacked as they lie in memory, [K, A, L, B]: K parameters of L slices, with A weights of a
slice before and B after the sliced dimension. One reduction per stack gives the norm of every slice (a *row*); gathered
by block, and reduced once more where a block has several slices, they are the blocks' norms. Everything else is
arithmetic on one vector with an entry per block, spread over the slices again and multiplied with all parameters in one
call. No step loops over filters, none reads a value from the device, and sums are taken in a fixed order (gathers, no
atomic additions), so that all ranks of a distributed run get the same bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxprune.capture.torch_functions import foreach_mul, foreach_mul_
from fxprune.training.sharding import Plane, Shards, like, local, local_planes, part_of, placed, shards_of
from fxprune.training.terms import Term


def planes_of(terms: Sequence[Term], names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[Plane]:
    """Which block owns each slice: (parameter's position, dimension, int64 [L] of block ids, -1 for none)."""
    position = {name: i for i, name in enumerate(names)}
    owners: dict[tuple[int, int], np.ndarray] = {}
    start = 0
    for term in terms:
        for part in term.parts:
            at = position[part.name]
            owner = owners.setdefault((at, part.dim), np.full(shapes[at][part.dim], -1))
            owner[part.index] = start + part.channel
        start += term.size
    return [(at, dim, owner) for (at, dim), owner in owners.items()]


def key_of(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What a layout depends on."""
    return tuple((t.shape, t.stride(), t.dtype, t.device, placed(t)) for t in tensors)


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes of equal shape: positions of their parameters, in which order of dimensions each lies in memory, the shape
    in which a row broadcasts against each, the rows' block ids, the stack's shape, and, on a CPU, room for it.

    Fresh memory for megabytes of weights costs a CPU more than the sums; a GPU's allocator keeps its own.
    """

    members: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    broadcasts: tuple[tuple[int, ...], ...]
    owner: Tensor
    shape: tuple[int, int, int, int]
    room: Tensor | None


@dataclass(frozen=True, eq=False)
class Layout:
    """All blocks of a list of tensors; made by `Layout.of` for tensors of one `key_of`."""

    stacks: tuple[Stack, ...]
    gathers: tuple[Tensor, ...]
    order: Tensor | None
    dtype: torch.dtype
    device: torch.device
    shards: Shards | None = None

    @classmethod
    @torch.inference_mode(False)
    def of(cls, planes: Sequence[Plane], blocks: int, tensors: Sequence[Tensor]) -> "Layout":
        device = tensors[0].device
        wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
        dtype = torch.float64 if wide else torch.float32
        parts = [part_of(t) for t in tensors]
        whole, planes, tensors = planes, local_planes(planes, parts), [local(t) for t in tensors]
        buckets: dict[tuple[Any, ...], list[Plane]] = {}
        for plane in planes:
            tensor = tensors[plane[0]]
            buckets.setdefault((_factors(tensor, plane[1]), tensor.dtype, tensor.device), []).append(plane)
        stacks = tuple(_stack(bucket, blocks, tensors) for bucket in buckets.values())
        inline = [plane for bucket in buckets.values() for plane in bucket]
        gathers, order = _gathers(np.concatenate([owner for _, _, owner in inline]), blocks)
        return cls(stacks, tuple(torch.from_numpy(g).to(device) for g in gathers),
                   None if order is None else torch.from_numpy(order).to(device),
                   dtype, device, shards_of(whole, parts, inline, blocks, device, dtype))

    def norms(self, tensors: Sequence[Tensor], everywhere: bool = True) -> Tensor:
        """The Euclidean norm of every block: [blocks]. Called without a graph.

        Where parameters are sharded and ``everywhere`` is not asked for, blocks without a part on this rank have 0.
        """
        tensors = [local(t) for t in tensors]
        rows = torch.cat([self._rows(stack, tensors) for stack in self.stacks])
        if self.shards is None or not (everywhere or self.shards.spans):
            return self._blocks(rows)
        return self.shards.total(self._blocks(rows * self.shards.counted).square()).sqrt()

    def _blocks(self, rows: Tensor) -> Tensor:
        sums = [rows[g[:, 0]] if g.shape[1] == 1 else torch.linalg.vector_norm(rows[g], 2, dim=1)
                for g in self.gathers]
        return sums[0] if self.order is None else torch.cat(sums)[self.order]

    def scaled(self, tensors: Sequence[Tensor], factor: Tensor) -> list[Tensor | None]:
        """Each tensor times the sum of its slices' blocks' factors (0 for slices of no block); None without slices."""
        at, factors = self._spread(tensors, factor, 0.0, torch.add)
        found: list[Tensor | None] = [None] * len(tensors)
        for i, product in zip(at, foreach_mul([local(tensors[i]) for i in at], factors), strict=True):
            # Narrow weights times float32 factors, which a narrow dtype might not hold.
            found[i] = like(product.to(tensors[i].dtype), tensors[i])
        return found

    def multiply_(self, tensors: Sequence[Tensor], factor: Tensor) -> None:
        """Multiply every slice by the factors of its blocks, in place; slices of no block stay as they are."""
        at, factors = self._spread(tensors, factor, 1.0, torch.mul)
        pairs = [(local(tensors[i]), f) for i, f in zip(at, factors, strict=True) if tensors[i].requires_grad]
        if pairs:
            foreach_mul_([t for t, _ in pairs], [f for _, f in pairs])

    def _rows(self, stack: Stack, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of every slice of a stack: [K · L]."""
        count, before, length, after = stack.shape
        weights = [tensors[at].permute(turn).reshape(before, length, after)
                   for at, turn in zip(stack.members, stack.turns, strict=True)]
        values = torch.stack(weights, out=stack.room)
        # Sums of narrow floats are taken in float32; wide and complex ones as they are.
        wide = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
        if before == 1:
            rows: Tensor = torch.linalg.vector_norm(values.view(count, length, after), 2, dim=-1, dtype=wide)
        else:
            # Squares in place, then over the outer dimension first: many times as fast as a norm over both.
            rows = _absolute(values, wide).square_().sum(1).sum(-1).sqrt_()
        return rows.reshape(-1).to(self.device, self.dtype)

    def _spread(self, tensors: Sequence[Tensor], factor: Tensor, rest: float,
                combine: Callable[[Tensor, Tensor], Tensor]) -> tuple[list[int], list[Tensor]]:
        """Positions of tensors with slices, and for each its slices' factors, shaped to broadcast against it."""
        padded = torch.cat([factor, factor.new_full((1,), rest)])
        found: dict[int, Tensor] = {}
        for stack in self.stacks:
            rows = padded.to(stack.owner.device)[stack.owner]
            for at, shape, row in zip(stack.members, stack.broadcasts, rows.unbind(), strict=True):
                row = row.view(shape)
                found[at] = combine(found[at], row) if at in found else row
        return list(found), list(found.values())


def _absolute(values: Tensor, wide: torch.dtype | None) -> Tensor:
    """Numbers whose squares may be taken in place: ``values`` themselves where they are real and not narrow."""
    return values.abs() if values.is_complex() else values.to(wide or values.dtype)


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    return tuple(sorted(range(tensor.dim()), key=lambda d: -tensor.stride()[d]))


def _factors(tensor: Tensor, dim: int) -> tuple[int, int, int]:
    """How many indices lie before, in and after a dimension, in memory."""
    turn = _memory_order(tensor)
    at = turn.index(dim)
    before, after = (math.prod(tensor.shape[d] for d in part) for part in (turn[:at], turn[at + 1:]))
    return before, tensor.shape[dim], after


def _stack(bucket: list[Plane], blocks: int, tensors: Sequence[Tensor]) -> Stack:
    members = tuple(at for at, _, _ in bucket)
    broadcasts = tuple(tuple(len(owner) if d == dim else 1 for d in range(tensors[at].dim()))
                       for at, dim, owner in bucket)
    owner = np.stack([np.where(owner < 0, blocks, owner) for _, _, owner in bucket])
    first = tensors[members[0]]
    shape = (len(bucket), *_factors(first, bucket[0][1]))
    room = torch.empty(shape, dtype=first.dtype) if first.device.type == "cpu" else None
    turns = tuple(_memory_order(tensors[at]) for at in members)
    return Stack(members, turns, broadcasts, torch.from_numpy(owner).to(first.device), shape, room)


def _gathers(owner: np.ndarray, blocks: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """For each number of rows that blocks have, the table [blocks of that kind, rows]; and the blocks' places in the
    tables, one after the other (None where that is their own order)."""
    rows = np.flatnonzero(owner >= 0)
    rows = rows[np.argsort(owner[rows], kind="stable")]
    counts = np.bincount(owner[rows], minlength=blocks)
    starts = np.cumsum(counts) - counts
    tables, found = [], []
    for count in np.unique(counts).tolist():
        here = np.flatnonzero(counts == count)
        found.append(here)
        tables.append(rows[starts[here, None] + np.arange(count)])
    places = np.empty(blocks, np.int64)
    places[np.concatenate(found)] = np.arange(blocks)
    return tables, places if len(tables) > 1 else None
