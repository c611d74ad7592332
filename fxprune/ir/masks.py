"""Small facts about which indices of a dimension are kept."""

import math

import numpy as np


def remaining_groups(kept: np.ndarray, groups: int) -> int:
    """How many of equal groups still have a channel.

    >>> remaining_groups(np.array([True, False, True, True]), 2)
    2
    >>> remaining_groups(np.array([False, False, True, True]), 2)
    1
    """
    return int(kept.reshape(groups, -1).any(1).sum())


def fitted(mask: np.ndarray, length: int) -> np.ndarray:
    """The mask of a dimension that is ``length`` long in another run: a batch merged with channels repeats its pattern.

    >>> fitted(np.array([True, False, True, False]), 6).tolist()
    [True, False, True, False, True, False]
    """
    if len(mask) == length:
        return mask
    period = math.gcd(len(mask), length)
    if not (mask.reshape(-1, period) == mask[:period]).all():
        raise ValueError(f"a mask of {len(mask)} indices has no pattern that fits {length}")
    return np.resize(mask[:period], length)
