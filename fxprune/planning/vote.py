"""Votes: the voters' scores of a channel become one score, so that a threshold or a budget can cut it.

Removing what scores below a threshold, with the maximum as the score, removes exactly the channels that *every* voter
scores below it: the intersection of the voters' sets, which is the rule of Zhan et al. (BMVC 2019, doi
10.5244/C.33.51). The minimum gives the union, the median the majority. Plans at growing budgets nest, because one
score orders the channels once.
"""

from collections.abc import Callable

import numpy as np

from fxprune.errors import InputError, unknown


def intersection(scores: np.ndarray) -> np.ndarray:
    """The highest score: a channel goes only if every voter gives it up."""
    return np.asarray(scores.max(axis=0))


def union(scores: np.ndarray) -> np.ndarray:
    """The lowest score: a channel goes as soon as one voter gives it up."""
    return np.asarray(scores.min(axis=0))


def majority(scores: np.ndarray) -> np.ndarray:
    """The median score: a channel goes if half of the voters give it up."""
    return np.asarray(np.median(scores, axis=0))


def joint(scores: np.ndarray) -> np.ndarray:
    """The norm over all voters. With the l2 criterion: the norm of all the weights that produce the channel."""
    # hypot neither overflows nor vanishes, and leaves a single voter's scores as they are, bit for bit.
    return np.asarray(np.hypot.reduce(scores, axis=0))


VOTES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "intersection": intersection, "joint": joint, "majority": majority, "union": union,
}


def resolve_vote(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The vote of that name.

    Raises:
        InputError: no vote is called so.
    """
    if not isinstance(name, str) or name not in VOTES:
        raise InputError(unknown("vote", name, VOTES))
    return VOTES[name]


def vote(scores: np.ndarray, name: str) -> np.ndarray:
    """One score per channel (float64 [size]) from non-negative scores [voters, size].

    >>> scores = np.array([[1.0, 0.0, 3.0], [1.0, 4.0, 4.0], [1.0, 5.0, 0.0]])
    >>> for name in ("intersection", "union", "majority", "joint"):
    ...     print(name, vote(scores, name).round(3).tolist())
    intersection [1.0, 5.0, 4.0]
    union [1.0, 0.0, 0.0]
    majority [1.0, 4.0, 3.0]
    joint [1.732, 6.403, 5.0]
    """
    return resolve_vote(name)(scores)
