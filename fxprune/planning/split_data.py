"""Data that is split over the ranks of a job: each reads its part, and all come to the same statistics.

Ranks hand each other sums, and add them up in the order of ranks, so that all get the same bits, whoever read more. An
error of one rank is raised on all of them, so that none waits for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from fxprune.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SplitData:
    """This rank's part of the data. Everything that takes ``data=`` takes it; every rank must then make the same call.

    Parts may be of unlike lengths; ``samples=`` bounds all of them together.

    Args:
        source: batches, as for ``data=``: of a loader with a ``DistributedSampler``, say.
        group: the ranks that share the data; all of them where None.

    Raises:
        InputError: there is no process group.

    >>> import tempfile, torch, fxprune
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> coupling, part = fxprune.analyze(net, torch.zeros(1, 3)), [torch.ones(4, 3)]
    >>> dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    >>> fxprune.score(coupling, net, "activation", fxprune.SplitData(part))["0"].shape
    (1, 8)
    >>> dist.destroy_process_group()
    """

    source: Iterable[Any]
    group: Any = None

    def __post_init__(self) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise InputError("SplitData is one rank's part, and there is no process group; call "
                             "torch.distributed.init_process_group first, or pass the data as it is")

    def share(self, samples: int | None) -> int | None:
        """How many samples each rank reads, of so many."""
        return samples if samples is None else -(-samples // dist.get_world_size(self.group))


class Alone:
    """One process: what it makes is all there is."""

    def each(self, make: Callable[[], T]) -> list[T]:
        """What every rank makes, in the order of ranks.

        Raises:
            InputError: it went wrong on another rank; on that rank the error itself.
        """
        return [make()]

    def here(self, make: Callable[[], T]) -> T:
        """What this rank makes, once it is known that all others could make theirs."""
        return make()


@dataclass(frozen=True, eq=False)
class Ranks(Alone):
    """The ranks of a group; each of them makes the same calls."""

    group: Any = None

    def each(self, make: Callable[[], T]) -> list[T]:
        return self._exchanged(make, lambda value: value)

    def here(self, make: Callable[[], T]) -> T:
        mine: list[T] = []
        self._exchanged(lambda: mine.append(make()), lambda _: None)
        return mine[0]

    def _exchanged(self, make: Callable[[], Any], handed: Callable[[Any], Any]) -> list[Any]:
        failed: Exception | None = None
        value = None
        try:
            value = make()
        except Exception as error:
            failed = error
        found: list[Any] = [None] * dist.get_world_size(self.group)
        words = None if failed is None else f"{type(failed).__name__}: {failed}"
        dist.all_gather_object(found, (handed(value) if failed is None else None, words), self.group)
        if failed is not None:
            raise failed
        broken = next(((rank, words) for rank, (_, words) in enumerate(found) if words is not None), None)
        if broken is not None:
            raise InputError(f"rank {broken[0]} of those that share the data stopped with {broken[1]}")
        return [value for value, _ in found]
