"""Small facts about which indices of a dimension are kept."""

import math
from functools import lru_cache

import numpy as np
import torch

from fxprune.ir.normal_tensors import NormalTensors


def remaining_groups(kept: np.ndarray, groups: int) -> int:
    """How many of equal groups still have a channel.

    >>> remaining_groups(np.array([True, False, True, True]), 2)
    2
    >>> remaining_groups(np.array([False, False, True, True]), 2)
    1
    """
    return int(kept.reshape(groups, -1).any(1).sum())


@lru_cache(maxsize=256)
def index_of(kept: tuple[int, ...]) -> torch.Tensor:
    """Indices as a tensor: a convolution, its bias and the four tensors of its batch norm are cut alike."""
    with NormalTensors():
        return torch.tensor(kept, dtype=torch.long)


def selected(tensor: torch.Tensor, dim: int, indices: torch.Tensor) -> torch.Tensor:
    """``index_select``, which walks the last dimension of more than two element by element, and eight bytes at a time
    even that of two.

    >>> selected(torch.arange(8).view(2, 2, 2), 2, torch.tensor([1])).flatten().tolist()
    [1, 3, 5, 7]
    """
    last = tensor.dim() - 1
    if dim != last or not last or last == 1 and tensor.dtype.itemsize < 8 or not tensor.is_contiguous():
        return tensor.index_select(dim, indices)
    rows = tensor.flatten(0, -2)
    return rows.gather(1, indices.expand(len(rows), -1)).view(*tensor.shape[:-1], len(indices))


def fitted(mask: np.ndarray, length: int) -> np.ndarray:
    """The mask of a dimension that is ``length`` long in another run: a batch merged with channels repeats its pattern.

    >>> fitted(np.array([True, False, True, False]), 6).tolist()
    [True, False, True, False, True, False]
    """
    if len(mask) == length:
        return mask
    period = math.gcd(len(mask), length)
    if not fits(mask, length):
        raise ValueError(f"a mask of {len(mask)} indices has no pattern that fits {length}")
    return np.resize(mask[:period], length)


def fits(mask: np.ndarray, length: int) -> bool:
    """Whether `fitted` knows what is kept of so many.

    >>> fits(np.array([True, False, True, False]), 6), fits(np.array([True, False, False, False]), 6)
    (True, False)
    >>> fits(np.ones(4, bool), 0), fits(np.ones(0, bool), 4)
    (True, False)
    """
    if not len(mask):  # of nothing, as where nothing was detected, there is no pattern
        return length == 0
    period = math.gcd(len(mask), length)
    return bool((mask.reshape(-1, period) == mask[:period]).all())
