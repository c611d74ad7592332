"""Parameters that lie in shards on several ranks (FSDP2's DTensors): which part is here, and norms over all parts.

Under ``Shard(0)`` a filter lies on one rank, and so does its norm: a proximal step needs no communication. Where a
block lies on several (a consumer's columns, a joint norm, shards beside what every rank has), the squares are summed
over the ranks, in one all-reduce for all blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from fxprune.errors import InputError

Plane = tuple[int, int, np.ndarray]


@dataclass(frozen=True)
class Part:
    """What a rank has of a tensor: ``length`` indices of ``dim`` from ``start`` on; all of it where ``dim`` is -1."""

    dim: int = -1
    start: int = 0
    length: int = 0
    group: Any = None


@dataclass(frozen=True, eq=False)
class Shards:
    """How blocks lie on the ranks.

    Args:
        group: the ranks that hold the parts.
        spans: whether any block lies on several of them.
        counted: [rows], 0 for the rows that another rank counts already, since both have them.
    """

    group: Any
    spans: bool
    counted: Tensor

    def total(self, squares: Tensor) -> Tensor:
        """Sums of squares [blocks] over all ranks."""
        dist.all_reduce(squares, group=self.group)
        return squares


def local(tensor: Tensor) -> Tensor:
    """What this rank has of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(part: Tensor, tensor: Tensor) -> Tensor:
    """A part as a tensor that lies on the ranks as ``tensor`` does."""
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape,
                              stride=tensor.stride())


def placed(tensor: Tensor) -> tuple[Any, ...]:
    """What a layout depends on, besides shape, dtype and device."""
    return (tensor.placements, tensor.device_mesh) if isinstance(tensor, DTensor) else ()


def part_of(tensor: Tensor) -> Part:
    """
    Raises:
        InputError: it lies on the ranks in another way than in whole shards of one dimension.
    """
    if not isinstance(tensor, DTensor):
        return Part()
    mesh = tensor.device_mesh
    axes = [axis for axis, placement in enumerate(tensor.placements) if not isinstance(placement, Replicate)]
    if not axes:
        return Part()
    placement = tensor.placements[axes[0]]
    if len(axes) > 1 or type(placement) is not Shard:
        raise InputError(f"sharded parameters must lie in shards of one dimension (FSDP2, HSDP), got "
                         f"{tensor.placements}; call the penalty on a model that is sharded by fully_shard alone")
    dim, ranks, rank = placement.dim, mesh.size(axes[0]), mesh.get_local_rank(axes[0])
    chunk = -(-tensor.shape[dim] // ranks)
    start = min(rank * chunk, tensor.shape[dim])
    return Part(dim, start, tensor.to_local().shape[dim], mesh.get_group(axes[0]))


def local_planes(planes: Sequence[Plane], parts: Sequence[Part]) -> list[Plane]:
    """The planes of what is here."""
    return [(at, dim, owner[parts[at].start:parts[at].start + parts[at].length] if parts[at].dim == dim else owner)
            for at, dim, owner in planes]


def shards_of(planes: Sequence[Plane], parts: Sequence[Part], rows: Sequence[Plane], blocks: int, device: torch.device,
              dtype: torch.dtype) -> Shards | None:
    """How the blocks lie, None where nothing is sharded; ``rows`` are the local planes in the order of the rows.

    Raises:
        InputError: the parameters lie on several meshes.
    """
    groups = {part.group for part in parts if part.group is not None}
    if not groups:
        return None
    if len(groups) > 1:
        raise InputError(f"sharded parameters must lie on one mesh, got {len(groups)}; shard them with one mesh")
    group = groups.pop()
    here, everywhere = (sum((np.bincount(owner[owner >= 0], minlength=blocks) for _, _, owner in some),
                            np.zeros(blocks, np.int64)) for some in (rows, planes))
    crossed = any(parts[at].dim not in (-1, dim) for at, dim, _ in planes)
    spans = torch.tensor([int(crossed or bool(((here > 0) & (here < everywhere)).any()))], device=device)
    # Once for a layout, so that all ranks decide alike.
    dist.all_reduce(spans, dist.ReduceOp.MAX, group=group)
    first = dist.get_rank(group) == 0
    counted = np.concatenate([np.full(len(owner), float(first or parts[at].dim >= 0)) for at, _, owner in rows])
    return Shards(group, bool(spans.item()), torch.from_numpy(counted).to(device, dtype))


def together(model: nn.Module) -> None:
    """Let the parameters of a fully sharded model be its shards, and not what a forward pass has gathered: the shards
    are what the optimizer moves, in full precision."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
