"""Training in between: what `compress` hands to a user's own training function, and what it takes back."""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from fxprune.capture.structure import deep_copy
from fxprune.errors import InputError
from fxprune.rewrite.ordering import order
from fxprune.training import DWGL

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

Fit = Callable[[nn.Module, DWGL], object]


def default_penalty(groups: list[str], cut: Mapping[str, Any]) -> Callable[["Coupling"], DWGL]:
    """What `compress` presses with where nothing else is said, on the groups that it may cut: towards its own budget,
    or with a plain `DWGL` where the budget is not one of MACs or parameters.

    Args:
        cut: what `fxprune.plan` is told.
    """
    others = ("channels", "threshold", "widths", "latency", "latency_ms")
    counted = cut.get("macs") is not None or cut.get("params") is not None
    if any(cut.get(name) is not None for name in others
           if not (name == "channels" and counted and isinstance(cut.get(name), Mapping))):
        return partial(DWGL, groups=groups)
    macs, params = (float(value) if isinstance(value := cut.get(kind), Fraction) else value
                    for kind in ("macs", "params"))
    return partial(DWGL.towards, macs=macs, params=params, groups=groups)


def trained(model: nn.Module, coupling: "Coupling", fit: Fit, penalty: DWGL | None = None, *, by: str | None = "l2",
            data: Iterable[Any] | None = None) -> nn.Module:
    """An ordered copy of the model, trained by ``fit(model, penalty)``.

    Args:
        model: it is not changed.
        coupling: `fxprune.analyze` of this model.
        fit: trains the copy in place, as it likes, with the penalty as a loss term or as a proximal step. If it
            returns a module (an average of the weights, say), that one is taken.
        penalty: ``DWGL(coupling)`` with its defaults where None.
        by, data: how channels are ordered first, as in `fxprune.order`; ``by=None`` leaves their order.

    Raises:
        InputError: ``fit`` cannot be called, or the penalty is that of another coupling.

    >>> from fxprune import analyze
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> def fit(model, penalty):
    ...     penalty.proximal_(model, lr=1e6)
    >>> trained(net, analyze(net, torch.zeros(1, 3)), fit)[0].weight.count_nonzero()
    tensor(0)
    """
    if not callable(fit):
        raise InputError(f"train must be a function of the model and the penalty, got {type(fit).__name__}; write "
                         "def fit(model, penalty): … and pass train=fit")
    penalty = DWGL(coupling) if penalty is None else penalty
    difference = coupling.signature.difference(penalty.coupling.signature)
    if difference:
        raise InputError(f"the penalty must be over this model's coupling, but {difference}; write "
                         "DWGL(fxprune.analyze(model))")
    copied, _ = order(model, coupling, by, data) if by is not None else (deep_copy(model), None)
    result = fit(copied, penalty)
    return result if isinstance(result, nn.Module) else copied
