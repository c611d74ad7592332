"""Many small slices as few large tensors: norms, gradients and shrinkage of all blocks at once.

Parameters whose slices have equal shapes are stacked, [K, L, R]: K parameters, L slices each, R weights a slice. One
reduction per stack gives the norm of every slice (a *row*); gathered by block, and reduced once more where a block has
several slices, they are the blocks' norms. Everything else is arithmetic on one vector with an entry per block. No
step loops over filters, none reads a value from the device, and sums are taken in a fixed order (gathers, no atomic
additions), so that all ranks of a distributed run get the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fxprune.penalties.terms import Term

Plane = tuple[int, int, np.ndarray]


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


def key_of(tensors: Sequence[Tensor]) -> tuple:
    """What a layout depends on."""
    return tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes of equal shape: positions of their parameters, how each is turned to [L, R], and the rows' block ids."""

    members: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    broadcasts: tuple[tuple[int, ...], ...]
    owner: Tensor
    length: int


@dataclass(frozen=True, eq=False)
class Layout:
    """All blocks of a list of tensors; made by `Layout.of` for tensors of one `key_of`."""

    stacks: tuple[Stack, ...]
    gathers: tuple[Tensor, ...]
    order: Tensor | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, planes: Sequence[Plane], blocks: int, tensors: Sequence[Tensor]) -> "Layout":
        device = tensors[0].device
        wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
        buckets: dict[tuple, list[Plane]] = {}
        for plane in planes:
            tensor = tensors[plane[0]]
            shape = (len(plane[2]), tensor.numel() // max(len(plane[2]), 1))
            buckets.setdefault((shape, tensor.dtype, tensor.device), []).append(plane)
        stacks = tuple(_stack(bucket, blocks, tensors) for bucket in buckets.values())
        rows = np.concatenate([owner for bucket in buckets.values() for _, _, owner in bucket])
        gathers, order = _gathers(rows, blocks)
        return cls(stacks, tuple(torch.from_numpy(g).to(device) for g in gathers),
                   None if order is None else torch.from_numpy(order).to(device),
                   torch.float64 if wide else torch.float32, device)

    def stacked(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """A copy of all slices: [K, L, R] per stack."""
        return [torch.stack([tensors[at].permute(turn).reshape(stack.length, -1)
                             for at, turn in zip(stack.members, stack.turns, strict=True)]) for stack in self.stacks]

    def norms(self, stacked: Sequence[Tensor]) -> Tensor:
        """The Euclidean norm of every block: [blocks]."""
        rows = [torch.linalg.vector_norm(values, 2, dim=-1, dtype=_norm_dtype(values, self.dtype)).reshape(-1)
                .to(self.device, self.dtype) for values in stacked]
        rows = torch.cat(rows)
        sums = [rows[g[:, 0]] if g.shape[1] == 1 else torch.linalg.vector_norm(rows[g], 2, dim=1)
                for g in self.gathers]
        return sums[0] if self.order is None else torch.cat(sums)[self.order]

    def scaled(self, stacked: Sequence[Tensor], factor: Tensor, count: int) -> list[Tensor | None]:
        """Per tensor, Σ over its planes of slice · factor of its block (zero for slices of no block)."""
        found: list[Tensor | None] = [None] * count
        padded = torch.cat([factor, factor.new_zeros(1)])
        for stack, values in zip(self.stacks, stacked, strict=True):
            rows = padded.to(values.device)[stack.owner]
            products = (values * rows.unsqueeze(-1)).to(values.dtype)
            for at, turn, shape, product in zip(stack.members, stack.turns, stack.shapes, products.unbind(),
                                                strict=True):
                back = product.view(shape).permute(_inverse(turn))
                found[at] = back if found[at] is None else found[at] + back
        return found

    def multiply_(self, tensors: Sequence[Tensor], factor: Tensor) -> None:
        """Multiply every slice by the factor of its block, in place; slices of no block stay as they are."""
        padded = torch.cat([factor, factor.new_ones(1)])
        for stack in self.stacks:
            rows = padded.to(stack.owner.device)[stack.owner]
            pairs = [(tensors[at], row.view(shape)) for at, shape, row in
                     zip(stack.members, stack.broadcasts, rows.unbind(), strict=True) if tensors[at].requires_grad]
            if pairs:
                torch._foreach_mul_([a for a, _ in pairs], [b.to(a.dtype) for a, b in pairs])


def _stack(bucket: list[Plane], blocks: int, tensors: Sequence[Tensor]) -> Stack:
    turns, shapes, broadcasts = [], [], []
    for at, dim, owner in bucket:
        tensor = tensors[at]
        # The other dimensions in the order in which they lie in memory, so that most slices are read, not shuffled.
        rest = sorted((d for d in range(tensor.dim()) if d != dim), key=lambda d: -tensor.stride(d))
        turns.append((dim, *rest))
        shapes.append(tuple(tensor.shape[d] for d in turns[-1]))
        broadcasts.append(tuple(len(owner) if d == dim else 1 for d in range(tensor.dim())))
    owner = np.stack([np.where(owner < 0, blocks, owner) for _, _, owner in bucket])
    members = tuple(at for at, _, _ in bucket)
    device = tensors[members[0]].device
    return Stack(members, tuple(turns), tuple(shapes), tuple(broadcasts), torch.from_numpy(owner).to(device),
                 owner.shape[1])


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


def _inverse(turn: tuple[int, ...]) -> list[int]:
    return [turn.index(d) for d in range(len(turn))]


def _norm_dtype(values: Tensor, dtype: torch.dtype) -> torch.dtype | None:
    """Sums of narrow floats are taken in float32; wide and complex ones as they are."""
    return torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
