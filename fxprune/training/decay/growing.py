"""Growing regularisation (Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021: GReg-1)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from fxprune.errors import InputError
from fxprune.planning import Plan
from fxprune.training.arguments import number
from fxprune.training.decay.channel_decay import ChannelDecay, Rates

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def doomed(coupling: "Coupling", plan: Plan) -> dict[str, np.ndarray]:
    """Which channels of each of its groups a plan removes: bool [channels].

    Raises:
        InputError: no plan, or one of another coupling.
    """
    if not isinstance(plan, Plan):
        raise InputError(f"plan must be a fxprune.Plan, got {type(plan).__name__}; write fxprune.plan(coupling, model, "
                         'macs=0.5, criterion="l1")')
    found = {}
    for name, group in plan.groups.items():
        if name not in coupling.groups or coupling.groups[name].size != group.size:
            raise InputError(f"the plan must be of this coupling, which has no group {name!r} of {group.size} channels")
        found[name] = ~np.isin(np.arange(group.size), group.kept)
    return found


class GReg1(ChannelDecay):
    """λ of the channels that a plan removes grows by a step every few updates, up to a ceiling; the others are free.

    Draw the plan by ``criterion="l1"``, train, and draw it again: by then what was to go has decayed.

    Args:
        coupling: `fxprune.analyze` of the model.
        plan: whose removed channels decay.
        step: what λ grows by.
        every: after so many updates (the paper: 5 on ImageNet, 10 on CIFAR).
        ceiling: the largest λ.

    Raises:
        InputError: a plan of another coupling, or numbers that make no sense.

    >>> import torch, fxprune
    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> coupling = fxprune.analyze(net, torch.zeros(1, 2))
    >>> penalty = GReg1(coupling, fxprune.plan(coupling, net, channels=0.5), step=0.25, every=2)
    >>> [float(penalty.rates(net)["0"].max()) for _ in range(6)]
    [0.0, 0.25, 0.25, 0.5, 0.5, 0.75]
    """

    def __init__(self, coupling: "Coupling", plan: Plan, step: float = 1e-4, every: int = 10, ceiling: float = 1.0):
        self._doomed = doomed(coupling, plan)
        super().__init__(coupling, list(self._doomed))
        self.step = number("step", step, "step=1e-4", positive=True)
        self.ceiling = number("ceiling", ceiling, "ceiling=1.0", positive=True)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every must be an integer >= 1, got {every!r}; write every=10")
        self.every, self.updates = every, 0

    def rates(self, model: nn.Module) -> Rates:
        self.updates += 1
        now = min(self.step * (self.updates // self.every), self.ceiling)
        return {name: now * gone for name, gone in self._doomed.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])
