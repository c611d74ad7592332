"""Weights of a model that is sharded over ranks (FSDP2, HSDP), each gathered when it is asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor; of shards, what they make up together, on every rank: all of them must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@dataclass(frozen=True)
class WholeWeights(Mapping[str, Tensor]):
    """Tensors by name. No more than one is held whole at a time, and all ranks must ask for the same ones in one order.

    >>> import torch
    >>> WholeWeights({"weight": torch.ones(2)})["weight"]
    tensor([1., 1.])
    """

    parts: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return whole(self.parts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)
