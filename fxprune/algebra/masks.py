"""Small facts about which indices of a dimension are kept."""

import numpy as np


def remaining_groups(kept: np.ndarray, groups: int) -> int:
    """How many of equal groups still have a channel.

    >>> remaining_groups(np.array([True, False, True, True]), 2), remaining_groups(np.array([False] * 2 + [True] * 2), 2)
    (2, 1)
    """
    return int(kept.reshape(groups, -1).any(1).sum())
