"""What a plan says of one coupling group."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupPlan:
    """One coupling group, cut.

    Args:
        size: the number of channels before.
        kept: the channels that stay, in their new order.
        scores: the voted score of each channel [size]; empty where nobody scored them.

    >>> GroupPlan(4, (0, 2)).width
    2
    """

    size: int
    kept: tuple[int, ...]
    scores: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        return len(self.kept)
