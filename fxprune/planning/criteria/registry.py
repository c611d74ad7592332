"""The criteria by name, and what holds for all of them, a user's own included."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from fxprune.errors import FxpruneError, InputError, unknown
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.criteria.activity import Activation, APoZ, Entropy, Fluctuation, Wanda
from fxprune.planning.criteria.bn_scale import BNScale
from fxprune.planning.criteria.damage import Hessian, Taylor
from fxprune.planning.criteria.expected import Expected
from fxprune.planning.criteria.filters import FPGM, LAMP, Similarity
from fxprune.planning.criteria.norms import L1, L2
from fxprune.planning.criteria.random import Random
from fxprune.planning.criteria.reconstruction import OBS, Lasso

if TYPE_CHECKING:
    from fxprune.planning.statistics import Statistics


class Criterion(Protocol):
    """Anything that maps a group and the model's tensors to scores."""

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Non-negative scores, higher is more important: [size], or [voters, size] to be voted on."""
        ...


class DataCriterion(Protocol):
    """One that reads data: it ``needs`` a set of names out of `fxprune.planning.statistics`, and is called with what
    was gathered as well."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor], statistics: "Statistics"
                 ) -> np.ndarray:
        """Scores, as a `Criterion`'s."""
        ...


CRITERIA: dict[str, Callable[[], Any]] = {
    "activation": Activation, "apoz": APoZ, "bn_scale": BNScale, "entropy": Entropy, "expected": Expected,
    "fluctuation": Fluctuation, "fpgm": FPGM, "hessian": Hessian, "l1": L1, "l2": L2, "lamp": LAMP, "lasso": Lasso,
    "obs": OBS, "random": Random, "similarity": Similarity, "taylor": Taylor, "wanda": Wanda,
}


def resolve(criterion: str | Criterion) -> Criterion:
    """The criterion of that name, or the object itself.

    Raises:
        InputError: an unknown name, a class in the place of an instance, or an object that cannot be called.

    >>> resolve("l2")
    L2()
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise InputError(unknown("criterion", criterion, CRITERIA))
        made: Criterion = CRITERIA[criterion]()
        return made
    if isinstance(criterion, type):
        raise InputError(f"criterion must be an instance, got the class {criterion.__name__}; "
                         f"write {criterion.__name__}()")
    if not callable(criterion):
        raise InputError(f"criterion must be a name or an object that is called with (group, tensors), got "
                         f"{type(criterion).__name__}; names: {', '.join(map(repr, sorted(CRITERIA)))}")
    return criterion


def described(criterion: str | Criterion) -> str:
    """What a plan's options say of it: a name, a dataclass's repr, or the type's name (no memory addresses)."""
    if isinstance(criterion, str):
        return criterion
    return repr(criterion) if is_dataclass(criterion) else getattr(criterion, "__name__", type(criterion).__name__)


def name_of(criterion: Any) -> str:
    """What a criterion is called in ``CRITERIA``, or says of itself.

    >>> name_of(resolve("taylor"))
    'taylor'
    """
    return next((name for name, made in CRITERIA.items() if made is type(criterion)), described(criterion))


def needs(criterion: Criterion) -> frozenset[str]:
    """What a criterion reads of data; nothing where it reads weights alone.

    >>> sorted(needs(resolve("taylor"))), sorted(needs(resolve("l1")))
    (['gradients'], [])
    """
    return frozenset(getattr(criterion, "needs", ()))


def group_scores(criterion: Any, group: CouplingGroup, tensors: Mapping[str, torch.Tensor],
                 statistics: "Statistics | None" = None) -> np.ndarray:
    """The group's scores, checked: float64 [voters, size], finite, non-negative.

    Raises:
        InputError: the criterion raises, or returns something else.
    """
    what = f"criterion {described(criterion)} on group {group.name!r}"
    try:
        with torch.no_grad():
            scores = criterion(group, tensors, statistics) if needs(criterion) else criterion(group, tensors)
        scores = scores.detach().cpu().double().numpy() if isinstance(scores, torch.Tensor) else scores
        scores = np.asarray(scores, dtype=np.float64)
    except FxpruneError:
        raise
    except Exception as error:
        raise InputError(f"{what} must return numbers, but raised {type(error).__name__}: {error}") from error
    if scores.ndim not in (1, 2) or scores.shape[-1] != group.size or not scores.size:
        raise InputError(f"{what} must return one score per channel, [{group.size}] or [voters, {group.size}], got "
                         f"{list(scores.shape)}")
    scores = np.atleast_2d(scores)
    if not np.isfinite(scores).all():
        raise InputError(f"{what} must return finite scores, got {_first(scores, ~np.isfinite(scores))}; "
                         "use np.nan_to_num, or look for the cause in the weights")
    if (scores < 0).any():
        raise InputError(f"{what} must return scores >= 0 (0 is the least important), got "
                         f"{_first(scores, scores < 0)}; return np.abs(...), or subtract the minimum")
    return scores


def _first(scores: np.ndarray, where: np.ndarray) -> str:
    voter, channel = np.argwhere(where)[0]
    return f"{scores[voter, channel]} for channel {channel}"
