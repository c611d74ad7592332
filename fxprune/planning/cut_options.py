"""What `fxprune.plan` is told of a cut, for functions that take the same and hand it on."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from typing_extensions import TypedDict

from fxprune.planning.batches import Loss
from fxprune.planning.criteria import Criterion
from fxprune.planning.draw import plan
from fxprune.planning.selection import Ignored, Wanted
from fxprune.planning.timing import PriceList

P = ParamSpec("P")
R = TypeVar("R")


class CutOptions(TypedDict, total=False):
    """The keyword arguments of `plan`, which says what each means and has the defaults."""

    macs: float | None
    params: float | None
    channels: float | Mapping[str, Any] | None
    threshold: float | None
    widths: Mapping[str, int] | None
    latency: float | None
    latency_ms: float | None
    table: PriceList | None
    table_check: bool
    correction: float
    criterion: str | Criterion
    vote: str
    scope: str | None
    per: str | None
    round_to: int | None
    groups: Wanted
    ignore: Ignored
    min_channels: int
    uniform: bool
    depth: float | str | None
    depth_criterion: str | Criterion | None
    data: Any
    loss: Loss | None
    samples: int | None


def with_cut_options(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that hands ``**cut`` on to `plan` show these arguments as its own, with their defaults, and
    refuse others at once, not when it comes to the cut."""
    own = inspect.signature(function)
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    cut = [p for p in inspect.signature(plan).parameters.values() if p.kind is p.KEYWORD_ONLY]
    shown = own.replace(parameters=[*named, *cut])

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            shown.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        return function(*args, **kwargs)

    setattr(call, "__signature__", shown)  # noqa: B010  (an assignment would be one to a function's attribute)
    return call
